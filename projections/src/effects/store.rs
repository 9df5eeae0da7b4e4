//! Fetches the rows that a batch of events touches, and puts back those that
//! it changed.

use std::collections::BTreeMap;

use domain::conversation::{self, Consent, Event as Decision};
use domain::effect::{self, Bounced, Event as Outcome, Failed, Remedy};
use domain::event::Recorded;
use domain::message;
use domain::{Event, PhoneIndex, otp};
use serde::Serialize;
use sqlx::PgConnection;

use super::fold::Tables;
use super::queue::OPEN;
use super::row::{CALLBACKS, COLUMNS, Callback, EFFECTS, Effect, LANES, Lane, State};

/// What a batch of events names.
#[derive(Default)]
struct Named {
    effects: Vec<String>,
    lanes: Vec<String>,
    messages: Vec<String>,
    /// Lanes in which somebody is silenced.
    silenced: Vec<String>,
    /// Whether the provider says of an effect that its client opted out.
    is_opted_out_of: bool,
}

impl Named {
    fn by(batch: &[&Recorded], phones: &PhoneIndex) -> Self {
        let mut named = Self::default();
        for recorded in batch {
            match &recorded.event {
                Event::Message(message::Event::Received(received)) => {
                    if let Some(lane) =
                        conversation::of(received.channel, &received.contact, phones)
                    {
                        if Consent::read(&received.content) == Some(Consent::Out) {
                            named.silenced.push(lane.clone());
                        }
                        named.lanes.push(lane);
                        named.effects.push(effect::turn_id(recorded.position));
                    }
                }
                Event::Message(message::Event::StatusChanged(change))
                    if change.status.is_failure() =>
                {
                    named.messages.push(change.message_id.clone());
                }
                Event::Conversation(event) => {
                    named.lanes.push(recorded.aggregate_id.clone());
                    match event {
                        Decision::Started(it) => named.effects.push(it.message.effect_id.clone()),
                        Decision::MessageWritten(it) => named.effects.push(it.effect_id.clone()),
                        Decision::Escalated(_) | Decision::Closed(_) => {
                            named.silenced.push(recorded.aggregate_id.clone());
                        }
                        Decision::Resumed(_) => {}
                    }
                }
                Event::Otp(otp::Event::Requested(requested)) => {
                    named.effects.push(effect::code_id(&requested.challenge_id));
                }
                Event::Otp(otp::Event::Verified(_)) => {
                    named.effects.push(effect::code_id(&recorded.aggregate_id));
                }
                Event::Effect(event) => {
                    named.effects.push(recorded.aggregate_id.clone());
                    match event {
                        Outcome::Sent(it) => named.messages.extend(it.message_id.clone()),
                        Outcome::Failed(Failed { remedy, .. })
                        | Outcome::Bounced(Bounced { remedy, .. })
                            if *remedy == Remedy::OptOut =>
                        {
                            named.is_opted_out_of = true;
                        }
                        Outcome::Answered(it) => {
                            let parts = it.parts.iter();
                            named
                                .effects
                                .extend(parts.map(|part| part.effect_id.clone()));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        named
    }
}

/// The rows that a batch touches, as they are.
pub(super) async fn load(
    conn: &mut PgConnection,
    batch: &[&Recorded],
    phones: &PhoneIndex,
) -> anyhow::Result<Tables> {
    let named = Named::by(batch, phones);
    let mut tables = Tables::default();
    let sql = format!(
        "select {COLUMNS} from effects where id = any($1) or provider_message_id = any($2)"
    );
    let rows: Vec<Effect> = sqlx::query_as(&sql)
        .bind(&named.effects)
        .bind(&named.messages)
        .fetch_all(&mut *conn)
        .await?;
    let lanes = rows.iter().map(|row| row.lane.clone());
    let lanes: Vec<_> = lanes.chain(named.lanes).collect();
    tables.effects.load(rows, |row| row.id.clone());
    if !lanes.is_empty() {
        let rows: Vec<Lane> = sqlx::query_as("select * from effect_lanes where lane = any($1)")
            .bind(&lanes)
            .fetch_all(&mut *conn)
            .await?;
        tables.lanes.load(rows, |row| row.lane.clone());
    }
    let silenced = match named.is_opted_out_of {
        // It may have been made by an event of this very batch.
        true => lanes,
        false => named.silenced,
    };
    load_open(conn, &mut tables, &silenced).await?;
    if !named.messages.is_empty() {
        let sql = "select provider_message_id, code from effect_callbacks
                   where provider_message_id = any($1)";
        let rows: Vec<Callback> = sqlx::query_as(sql)
            .bind(&named.messages)
            .fetch_all(conn)
            .await?;
        tables
            .callbacks
            .load(rows, |row| row.provider_message_id.clone());
    }
    let senders = tables.effects.now.values();
    let senders =
        senders.filter_map(|row| Some((row.provider_message_id.clone()?, row.id.clone())));
    tables.senders = senders.collect();
    Ok(tables)
}

/// What is open in lanes in which somebody is silenced: it may be dropped.
async fn load_open(
    conn: &mut PgConnection,
    tables: &mut Tables,
    lanes: &[String],
) -> anyhow::Result<()> {
    if lanes.is_empty() {
        return Ok(());
    }
    let sql = format!("select {COLUMNS} from effects where lane = any($1) and {OPEN}");
    let rows = sqlx::query_as(&sql).bind(lanes).fetch_all(conn).await?;
    tables.effects.load(rows, |row: &Effect| row.id.clone());
    Ok(())
}

/// Writes back what changed.
pub(super) async fn save(conn: &mut PgConnection, tables: &Tables) -> anyhow::Result<()> {
    EFFECTS.upsert(conn, &tables.effects.changed()).await?;
    LANES.upsert(conn, &tables.lanes.changed()).await?;
    CALLBACKS.upsert(conn, &tables.callbacks.changed()).await?;
    count(conn, tables).await
}

/// A state and by how much its count changes.
#[derive(Serialize)]
struct Change {
    state: &'static str,
    count: i64,
}

async fn count(conn: &mut PgConnection, tables: &Tables) -> anyhow::Result<()> {
    // Every state has a row, so that a rebuild ends with the same ones.
    let none = State::ALL.iter().map(|state| (state.as_str(), 0));
    let mut changes: BTreeMap<&'static str, i64> = none.collect();
    let changed = tables.effects.changed();
    if changed.is_empty() {
        return Ok(());
    }
    for row in changed {
        if let Some(before) = tables.effects.before(&row.id) {
            *changes.entry(before.state.as_str()).or_default() -= 1;
        }
        *changes.entry(row.state.as_str()).or_default() += 1;
    }
    let changes = changes.into_iter();
    let changes: Vec<_> = changes
        .map(|(state, count)| Change { state, count })
        .collect();
    let sql = "insert into effect_totals as total (state, count)
               select state, count from json_to_recordset($1::text::json) as c (state text, count bigint)
               on conflict (state) do update set count = total.count + excluded.count
                   where excluded.count <> 0";
    sqlx::query(sql)
        .bind(serde_json::to_string(&changes)?)
        .execute(conn)
        .await?;
    Ok(())
}
