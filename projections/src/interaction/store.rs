//! Fetches the rows that a batch of events touches, and puts them back: a few
//! statements for any number of events.

use std::collections::{BTreeMap, BTreeSet};

use domain::event::Recorded;
use domain::{Event, PhoneIndex};
use serde::Serialize;
use sqlx::PgConnection;

use super::{Tables, identity};
use crate::search::Lexicon;
use crate::sql::Table;
use crate::{call_details, interaction_events, interactions, messages};

/// Which rows are there already; all others are new.
#[derive(Default)]
pub(crate) struct Known {
    interactions: BTreeSet<String>,
    calls: BTreeSet<String>,
    messages: BTreeSet<(String, String)>,
    aliases: BTreeSet<String>,
}

/// The rows that a batch touches, as they are, and which these are.
pub(crate) async fn load(
    conn: &mut PgConnection,
    batch: &[&Recorded],
) -> anyhow::Result<(Tables, Known)> {
    let mut touched = Touched::by(batch);
    let mut aliases = load_aliases(conn, &touched.calls).await?;
    let calls: Vec<_> = touched.calls.iter().chain(aliases.values()).collect();
    // Whatever has details has a row: of new calls nothing else is asked.
    let mut known = Known {
        interactions: load_known(conn, &calls).await?,
        ..Known::default()
    };
    let calls: Vec<_> = known.interactions.iter().map(String::as_str).collect();
    let calls = call_details::load(conn, &calls).await?;
    let of_sms = load_aliases(conn, &touched.texts).await?;
    touched.follow(&of_sms);
    aliases.extend(of_sms);
    let conversations: Vec<_> = touched.conversations.iter().map(String::as_str).collect();
    let messages = touched.messages.iter();
    let messages: Vec<_> = messages.map(|(i, m)| (i.as_str(), m.as_str())).collect();
    // A call's row in `interactions` follows from its details and is not read.
    let tables = Tables {
        interactions: keyed(interactions::load(conn, &conversations).await?, |row| {
            row.id.clone()
        }),
        calls: keyed(calls, |row| row.interaction_id.clone()),
        messages: keyed(messages::load(conn, &messages).await?, |row| {
            (row.interaction_id.clone(), row.id.clone())
        }),
        aliases,
        ..Tables::default()
    };
    known
        .interactions
        .extend(tables.interactions.keys().cloned());
    known.aliases.extend(tables.aliases.keys().cloned());
    known.calls.extend(tables.calls.keys().cloned());
    known.messages.extend(tables.messages.keys().cloned());
    Ok((tables, known))
}

async fn load_known(conn: &mut PgConnection, ids: &[&String]) -> sqlx::Result<BTreeSet<String>> {
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sql = "select id from interactions where id = any($1)";
    let known: Vec<String> = sqlx::query_scalar(sql).bind(ids).fetch_all(conn).await?;
    Ok(known.into_iter().collect())
}

/// Writes the rows back.
pub(crate) async fn save(
    conn: &mut PgConnection,
    phones: &PhoneIndex,
    lexicon: &Lexicon,
    known: &Known,
    tables: &Tables,
) -> anyhow::Result<()> {
    remove_absorbed(conn, &tables.absorbed).await?;
    interactions::save(conn, phones, &known.interactions, &tables.interactions).await?;
    call_details::save(conn, lexicon, &known.calls, &tables.calls).await?;
    messages::save(conn, lexicon, &known.messages, &tables.messages).await?;
    interaction_events::insert(conn, &tables.events).await?;
    save_aliases(conn, &known.aliases, &tables.aliases).await
}

/// The keys of the rows that a batch touches.
#[derive(Default)]
struct Touched {
    calls: BTreeSet<String>,
    conversations: BTreeSet<String>,
    messages: BTreeSet<(String, String)>,
    /// Text messages that may be part of another interaction.
    texts: BTreeSet<String>,
}

impl Touched {
    fn by(batch: &[&Recorded]) -> Self {
        let mut touched = Self::default();
        for recorded in batch {
            let Some(id) = identity::of(recorded) else {
                continue;
            };
            if let Event::Call(event) = &recorded.event {
                touched.calls.insert(id);
                touched.calls.extend(identity::claimed_leg(event));
                continue;
            }
            if recorded.aggregate_type == "sms" {
                touched.texts.insert(id.clone());
            }
            if let Some(message) = identity::message_id(recorded) {
                if let Some(sms) = identity::claimed_sms(recorded) {
                    touched.texts.insert(sms.clone());
                    touched.messages.insert((sms.clone(), message.clone()));
                    touched.conversations.insert(sms);
                }
                touched.messages.insert((id.clone(), message));
            }
            touched.conversations.insert(id);
        }
        touched
    }

    /// Adds the rows of the interactions that text messages are part of.
    fn follow(&mut self, aliases: &BTreeMap<String, String>) {
        self.conversations.extend(aliases.values().cloned());
        let elsewhere: Vec<_> = self
            .messages
            .iter()
            .filter_map(|(id, message)| Some((aliases.get(id)?.clone(), message.clone())))
            .collect();
        self.messages.extend(elsewhere);
    }
}

async fn load_aliases(
    conn: &mut PgConnection,
    names: &BTreeSet<String>,
) -> sqlx::Result<BTreeMap<String, String>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<_> = names.iter().collect();
    let sql = "select alias, interaction_id from interaction_aliases where alias = any($1)";
    let aliases: Vec<(String, String)> = sqlx::query_as(sql).bind(names).fetch_all(conn).await?;
    Ok(aliases.into_iter().collect())
}

/// The first claim stands, so an alias that is there stays as it is.
async fn save_aliases(
    conn: &mut PgConnection,
    known: &BTreeSet<String>,
    aliases: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Alias<'a> {
        alias: &'a str,
        interaction_id: &'a str,
    }
    let new = aliases.iter().filter(|(alias, _)| !known.contains(*alias));
    let new = new.map(|(alias, interaction_id)| Alias {
        alias,
        interaction_id,
    });
    ALIASES.insert(conn, &new.collect::<Vec<_>>()).await
}

const ALIASES: Table = Table {
    name: "interaction_aliases",
    key: &["alias"],
    columns: &["interaction_id"],
    searchable: false,
};

/// Older events of an absorbed interaction go to the one it is part of; its
/// own rows go. The messages that it had are written anew.
async fn remove_absorbed(
    conn: &mut PgConnection,
    absorbed: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    if absorbed.is_empty() {
        return Ok(());
    }
    let (legs, ids): (Vec<_>, Vec<_>) = absorbed.iter().unzip();
    let sql = "update interaction_events as event set interaction_id = absorbed.id
               from unnest($1::text[], $2::text[]) as absorbed (leg, id)
               where event.interaction_id = absorbed.leg";
    sqlx::query(sql)
        .bind(&legs)
        .bind(ids)
        .execute(&mut *conn)
        .await?;
    sqlx::query("delete from interactions where id = any($1)")
        .bind(&legs)
        .execute(&mut *conn)
        .await?;
    sqlx::query("delete from messages where interaction_id = any($1)")
        .bind(&legs)
        .execute(&mut *conn)
        .await?;
    sqlx::query("delete from call_details where interaction_id = any($1)")
        .bind(&legs)
        .execute(conn)
        .await?;
    Ok(())
}

fn keyed<K: Ord, R>(rows: Vec<R>, key: impl Fn(&R) -> K) -> BTreeMap<K, R> {
    rows.into_iter().map(|row| (key(&row), row)).collect()
}
