//! What events do to the rows of conversations. Pure: whoever calls this has
//! loaded the rows that the events touch.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::conversation::{Event as Decision, Started};
use domain::event::Recorded;
use domain::message::{self, Kind};
use domain::sealed::is_erased;
use domain::{Direction, Event, PhoneIndex, Provider};

use super::callback::{CallbackRow, Echo};
use super::message::{Message, Metadata};
use super::progress::Told;
use super::row::Conversation;
use super::stats::{Quarter, Total};
use crate::rows::Rows;
use crate::text;

/// Why a message is not owed any more.
/// Who wrote a message.
pub(super) const AGENT: &str = "agent";
const FIRST: &str = "first";

/// Rows of the tables, in memory: those that some events touch.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) conversations: Rows<String, Conversation>,
    pub(super) messages: Rows<String, Message>,
    pub(super) callbacks: Rows<String, CallbackRow>,
    pub(super) echoes: Rows<i64, Echo>,
    pub(super) quarters: Rows<DateTime<Utc>, Quarter>,
    pub(super) totals: Rows<String, Total>,
    /// Clients' messages by their position.
    pub(super) asked: BTreeMap<i64, String>,
    /// What the events themselves count, beside what the rows do.
    pub(super) counted: BTreeMap<DateTime<Utc>, Quarter>,
}

impl Tables {
    /// What an event does to the rows. Events must come in their order.
    pub(super) fn take(&mut self, recorded: &Recorded, phones: &PhoneIndex) {
        let id = text::key(&recorded.aggregate_id);
        match &recorded.event {
            Event::Message(message::Event::Received(received)) => {
                self.received(recorded, received, phones);
            }
            Event::Message(message::Event::Sent(sent)) => self.echoed(recorded, sent, phones),
            Event::Message(message::Event::StatusChanged(change)) => {
                self.reached(recorded, change);
            }
            Event::Conversation(event) => self.decided(&id, recorded, event, phones),
            Event::Effect(event) => self.happened(&id, recorded, event),
            _ => {}
        }
    }

    /// We decided something.
    fn decided(&mut self, id: &str, recorded: &Recorded, event: &Decision, phones: &PhoneIndex) {
        let at = recorded.occurred_at;
        match event {
            Decision::Started(started) => {
                let row = self.conversation(id, started.phone_number.as_str(), phones, at);
                row.decide(event, at);
                self.started(id, recorded, started);
            }
            Decision::MessageWritten(written) => {
                let row = self.conversation(id, written.phone_number.as_str(), phones, at);
                let provider = row.last_provider.unwrap_or(Provider::Twilio);
                let author = format!("person:{}", written.by);
                let place = (at, recorded.position, 0);
                let message = ours(&written.effect_id, id, &author, &written.content, place);
                self.owe(Message {
                    provider: Some(provider),
                    ..message
                });
            }
            Decision::Escalated(_) | Decision::Resumed(_) | Decision::Closed(_) => {
                let Some(row) = self.conversations.now.get_mut(id) else {
                    return;
                };
                row.decide(event, at);
                self.drop_silenced(id);
            }
        }
    }

    /// A call goes on.
    fn started(&mut self, id: &str, recorded: &Recorded, started: &Started) {
        let at = recorded.occurred_at;
        let Some(row) = self.conversations.now.get_mut(id) else {
            return;
        };
        row.take_call(&started.call);
        let told = &mut row.told;
        told.first_opened_at = told.first_opened_at.into_iter().chain([at]).min();
        told.last_opened_at = told.last_opened_at.max(Some(at));
        let is_answered = row.last_inbound_at.is_some_and(|heard| heard > at);
        if !is_answered {
            told.unanswered.push(at);
            told.unanswered.sort_unstable();
        }
        row.last_message_at = row.last_message_at.max(at);
        let count = self.counted_at(at);
        count.opened += 1;
        count.started += 1;
        count.responded += i64::from(is_answered);
        let first = &started.message;
        let place = (at, recorded.position, 0);
        let message = ours(&first.effect_id, id, FIRST, &first.content, place);
        let template = first.template.as_ref();
        self.owe(Message {
            provider: Some(Provider::Twilio),
            metadata: Metadata {
                content_sid: template.map(|template| template.content_sid.clone()),
                ..Metadata::default()
            },
            ..message
        });
    }

    /// A message of ours is owed. The same recipient may have been reported
    /// under another number: one that is known stays as it is.
    pub(super) fn owe(&mut self, mut row: Message) {
        if self.messages.now.contains_key(&row.id) {
            return;
        }
        if let Some(conversation) = self.conversations.now.get_mut(&row.conversation_id) {
            let written_at = row.created_at;
            conversation.last_message_at = conversation.last_message_at.max(written_at);
            if let Some(reason) = conversation.silences(&row) {
                row.drop_for(reason);
            }
        }
        self.messages.now.insert(row.id.clone(), row);
    }

    /// The client wants to hear no more.
    pub(super) fn opt_out(&mut self, id: &str) {
        if let Some(row) = self.conversations.now.get_mut(id) {
            row.opted_out = true;
            self.drop_silenced(id);
        }
    }

    /// Drops what waits and may not be said any more. What is being sent, or
    /// may have been, is left until it is known what became of it. As the
    /// policy `effects` does it.
    pub(super) fn drop_silenced(&mut self, id: &str) {
        let Some(conversation) = self.conversations.now.get(id) else {
            return;
        };
        let rows = self.messages.now.values_mut();
        for row in rows.filter(|row| row.conversation_id == id && row.is_waiting()) {
            if let Some(reason) = conversation.silences(row) {
                row.drop_for(reason);
            }
        }
    }

    pub(super) fn counted_at(&mut self, at: DateTime<Utc>) -> &mut Quarter {
        let bucket = Quarter::bucket(at);
        let quarter = self.counted.entry(bucket);
        quarter.or_insert_with(|| Quarter::empty(bucket))
    }

    pub(super) fn conversation(
        &mut self,
        id: &str,
        phone_number: &str,
        phones: &PhoneIndex,
        at: DateTime<Utc>,
    ) -> &mut Conversation {
        let rows = &mut self.conversations.now;
        let row = rows.entry(id.to_owned()).or_insert_with(|| {
            Conversation::begin(id.to_owned(), phone_number, phones.key(phone_number), at)
        });
        // Who was erased, and is back.
        if is_erased(&row.phone_number) && !is_erased(phone_number) {
            phone_number.clone_into(&mut row.phone_number);
        }
        row
    }
}

/// A message of ours that is owed since it was written.
pub(super) fn ours(
    effect_id: &str,
    conversation_id: &str,
    author: &str,
    content: &str,
    place: (DateTime<Utc>, i64, i32),
) -> Message {
    let said = (content.to_owned(), Kind::Text, vec![]);
    let id = text::key(effect_id).into_owned();
    Message {
        told: Some(Told::owed()),
        ..Message::begin(
            id,
            conversation_id,
            Direction::Outbound,
            author,
            said,
            place,
        )
    }
}

impl Tables {
    /// Where there is no table: the rows are taken for written, and nothing is
    /// touched yet.
    pub(super) fn written(&mut self) {
        self.conversations.written();
        self.messages.written();
        self.callbacks.written();
        self.echoes.written();
        self.quarters.written();
        self.totals.written();
        self.counted.clear();
    }
}
