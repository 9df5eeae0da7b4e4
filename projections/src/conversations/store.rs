//! Fetches the rows that a batch of events touches, and puts back those that
//! it changed: a few statements for any number of events.

use std::collections::BTreeSet;

use domain::conversation::{self, Consent, Event as Decision};
use domain::effect::{Event as Outcome, Remedy, turn_position};
use domain::event::Recorded;
use domain::{Direction, Event, PhoneIndex, message};
use sqlx::PgConnection;

use super::fold::Tables;
use super::heard::inbound_id;
use super::message::Wanted;
use super::{callback, row, stats};
use crate::search::Lexicon;
use crate::sql::texts;
use crate::text;

/// What events name.
#[derive(Default)]
struct Named {
    conversations: BTreeSet<String>,
    messages: BTreeSet<String>,
    /// Of clients' messages that were answered.
    positions: BTreeSet<i64>,
    /// Providers' ids of messages of ours.
    sent: BTreeSet<String>,
    /// Conversations in which nothing waits any more.
    silenced: BTreeSet<String>,
    /// Whether there is a message after which its client wants to hear no more.
    is_last: bool,
}

impl Named {
    fn by(batch: &[&Recorded], phones: &PhoneIndex) -> Self {
        let mut named = Self::default();
        for recorded in batch {
            let id = text::key(&recorded.aggregate_id).into_owned();
            match &recorded.event {
                Event::Message(event) => named.add_message(event, recorded.position, phones),
                Event::Conversation(event) => named.add_decision(id, event),
                Event::Effect(event) => named.add_outcome(id, event),
                _ => {}
            }
        }
        named
    }

    fn add_message(&mut self, event: &message::Event, position: i64, phones: &PhoneIndex) {
        match event {
            message::Event::Received(received) => {
                let id = conversation::of(received.channel, &received.contact, phones);
                if Consent::read(&received.content) == Some(Consent::Out) {
                    self.silenced.extend(id.clone());
                }
                self.conversations.extend(id);
                self.messages.insert(inbound_id(received, position));
            }
            message::Event::Sent(sent) => {
                let id = conversation::of(sent.channel, &sent.contact, phones);
                self.conversations.extend(id);
            }
            message::Event::StatusChanged(change) => {
                self.sent.insert(text::key(&change.message_id).into_owned());
            }
        }
    }

    fn add_decision(&mut self, id: String, event: &Decision) {
        let effect = match event {
            Decision::Started(started) => Some(&started.message.effect_id),
            Decision::MessageWritten(written) => Some(&written.effect_id),
            Decision::Escalated(_) | Decision::Closed(_) => {
                self.silenced.insert(id.clone());
                None
            }
            Decision::Resumed(_) => None,
        };
        let effect = effect.map(|id| text::key(id).into_owned());
        self.messages.extend(effect);
        self.conversations.insert(id);
    }

    fn add_outcome(&mut self, id: String, event: &Outcome) {
        match event {
            Outcome::Answered(answered) => {
                self.positions.extend(turn_position(&id));
                let parts = answered.parts.iter();
                let parts = parts.map(|part| text::key(&part.effect_id).into_owned());
                self.messages.extend(parts);
                return;
            }
            Outcome::Sent(sent) => {
                let sent = sent.message_id.as_deref();
                self.sent.extend(sent.map(|id| text::key(id).into_owned()));
            }
            Outcome::Failed(failed) => self.is_last |= failed.remedy == Remedy::OptOut,
            Outcome::Bounced(bounced) => self.is_last |= bounced.remedy == Remedy::OptOut,
            _ => {}
        }
        self.messages.insert(id);
    }
}

/// The rows that events name, as they are, and what waits where nothing is to
/// wait any more.
pub(super) async fn load(
    conn: &mut PgConnection,
    batch: &[&Recorded],
    phones: &PhoneIndex,
) -> anyhow::Result<Tables> {
    let named = Named::by(batch, phones);
    let mut tables = Tables::default();
    let wanted = Wanted {
        ids: texts(&named.messages),
        positions: named.positions.iter().copied().collect(),
        twilio_ids: texts(&named.sent),
        waiting_in: texts(&named.silenced),
    };
    load_messages(conn, &mut tables, &wanted).await?;
    let rows = tables.messages.now.values();
    let mut conversations = named.conversations;
    conversations.extend(rows.map(|row| row.conversation_id.clone()));
    if named.is_last {
        // The message may be of this batch, and so in any of its conversations.
        let wanted = Wanted {
            waiting_in: texts(&conversations),
            ..Wanted::default()
        };
        load_messages(conn, &mut tables, &wanted).await?;
    }
    load_callbacks(conn, &mut tables, named.sent).await?;
    if !conversations.is_empty() {
        let rows = row::load(conn, &texts(&conversations)).await?;
        tables.conversations.load(rows, |row| row.id.clone());
    }
    Ok(tables)
}

async fn load_messages(
    conn: &mut PgConnection,
    tables: &mut Tables,
    wanted: &Wanted<'_>,
) -> anyhow::Result<()> {
    let rows = super::message::load(conn, wanted).await?;
    let asked = rows
        .iter()
        .filter(|row| row.direction == Direction::Inbound);
    tables
        .asked
        .extend(asked.map(|row| (row.position, row.id.clone())));
    tables.messages.load(rows, |row| row.id.clone());
    Ok(())
}

/// The callbacks of the messages that are here, and of others.
async fn load_callbacks(
    conn: &mut PgConnection,
    tables: &mut Tables,
    mut ids: BTreeSet<String>,
) -> anyhow::Result<()> {
    let rows = tables.messages.now.values();
    ids.extend(rows.filter_map(|row| row.twilio_message_id.clone()));
    ids.retain(|id| !tables.callbacks.now.contains_key(id));
    if !ids.is_empty() {
        let rows = callback::load(conn, &texts(&ids)).await?;
        tables.callbacks.load(rows, |row| row.message_id.clone());
    }
    Ok(())
}

/// Once the events are taken in: whatever else has the words of which the pairs
/// of echoes and messages may have changed.
pub(super) async fn load_words(conn: &mut PgConnection, tables: &mut Tables) -> anyhow::Result<()> {
    let words = tables.touched_words();
    if words.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = words
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let rows = super::message::load_words(conn, &words).await?;
    tables.messages.load(rows, |row| row.id.clone());
    let echoes = callback::load_echoes(conn, &words).await?;
    let external: Vec<_> = echoes.iter().map(callback::Echo::external_id).collect();
    tables.echoes.load(echoes, |echo| echo.position);
    let wanted = Wanted {
        ids: external.iter().map(String::as_str).collect(),
        ..Wanted::default()
    };
    load_messages(conn, tables, &wanted).await?;
    load_callbacks(conn, tables, BTreeSet::new()).await
}

/// Writes the rows back that have changed.
pub(super) async fn save(
    conn: &mut PgConnection,
    lexicon: &Lexicon,
    tables: &Tables,
) -> anyhow::Result<()> {
    let gone = tables.messages.gone();
    let gone: Vec<_> = gone.iter().map(|row| row.id.as_str()).collect();
    super::message::remove(conn, &gone).await?;
    row::save(conn, lexicon, &tables.conversations.changed()).await?;
    super::message::save(conn, &tables.messages.changed()).await?;
    callback::save(conn, &tables.callbacks.changed()).await?;
    callback::save_echoes(conn, &tables.echoes.changed()).await?;
    stats::save(conn, tables).await
}
