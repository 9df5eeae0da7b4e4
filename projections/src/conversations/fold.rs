//! What events do to the rows of conversations. Pure: whoever calls this has
//! loaded the rows that the events touch.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::conversation::{self, Consent, Event as Decision, Started, Status};
use domain::event::Recorded;
use domain::message::{self, Kind, Received, Sent, StatusChanged};
use domain::{Channel, Direction, Event, PhoneIndex, PhoneNumber, Provider};

use super::callback::{CallbackRow, Echo};
use super::message::{Message, Metadata};
use super::progress::{Told, words_key};
use super::row::Conversation;
use super::stats::{Quarter, Total};
use crate::rows::Rows;
use crate::text;

/// Why a message is not owed any more.
pub(super) const OPTED_OUT: &str = "the client wants to hear no more";
pub(super) const SILENCED: &str = "a person has taken over, or the conversation was closed";
/// Who wrote a message.
pub(super) const AGENT: &str = "agent";
const FIRST: &str = "first";
const CLIENT: &str = "client";

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

/// The conversation that a message in WhatsApp belongs to: of a person's
/// number only, and not of a group or a broadcast.
pub(super) fn conversation_of(
    channel: Channel,
    contact: &str,
    phones: &PhoneIndex,
) -> Option<String> {
    let number = PhoneNumber::parse(contact).ok()?;
    (channel == Channel::Whatsapp).then(|| conversation::id(number.as_str(), phones))
}

/// The id of a client's message: the provider's, where it gave one.
pub(super) fn inbound_id(received: &Received, position: i64) -> String {
    let given = received.message_id.as_deref().filter(|id| !id.is_empty());
    match given {
        Some(id) => text::key(id).into_owned(),
        None => format!("ev-{position}"),
    }
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

    /// The client wrote.
    fn received(&mut self, recorded: &Recorded, received: &Received, phones: &PhoneIndex) {
        let Some(id) = conversation_of(received.channel, &received.contact, phones) else {
            return;
        };
        let (at, position) = (recorded.occurred_at, recorded.position);
        let mut message_id = inbound_id(received, position);
        if let Some(known) = self.messages.now.get(&message_id) {
            // The same again; or another's, for ids are a provider's own affair.
            match known.conversation_id == id {
                true => return,
                false => message_id = format!("ev-{position}"),
            }
        }
        let row = self.conversation(&id, &received.contact, phones, at);
        row.heard_from(recorded, received);
        let opened = std::mem::take(&mut row.told.unanswered);
        let (answered, unanswered): (Vec<_>, _) = opened.into_iter().partition(|it| *it < at);
        row.told.unanswered = unanswered;
        let consent = Consent::read(&received.content);
        row.opted_out &= consent != Some(Consent::In);
        if consent == Some(Consent::Out) {
            self.opt_out(&id);
        }
        for opened in answered {
            self.counted_at(opened).responded += 1;
        }
        let row = Message {
            provider: recorded.provider,
            sent_at: Some(at),
            metadata: Metadata {
                location: received.location.clone(),
                button: received.button.clone(),
                reply_to: received.reply_to.clone(),
                forwarded: received.forwarded,
                ..Metadata::default()
            },
            ..Message::begin(
                message_id.clone(),
                &id,
                Direction::Inbound,
                CLIENT,
                (
                    received.content.clone(),
                    received.kind,
                    received.media.clone(),
                ),
                (at, position, 0),
            )
        };
        self.asked.insert(position, message_id.clone());
        self.messages.now.insert(message_id, row);
    }

    /// A provider says that a message went out.
    fn echoed(&mut self, recorded: &Recorded, sent: &Sent, phones: &PhoneIndex) {
        let Some(id) = conversation_of(sent.channel, &sent.contact, phones) else {
            return;
        };
        let at = recorded.occurred_at;
        let row = self.conversation(&id, &sent.contact, phones, at);
        row.heard_at(at);
        let echo = Echo {
            position: recorded.position,
            conversation_id: id,
            words_key: words_key(&sent.content),
            occurred_at: at,
            provider: recorded.provider,
            confirms: None,
            message: sent.clone(),
        };
        self.echoes.now.insert(recorded.position, echo);
    }

    /// A provider says how far a message of ours has come.
    fn reached(&mut self, recorded: &Recorded, change: &StatusChanged) {
        let is_ours = !matches!(
            change.status,
            message::Status::Receiving | message::Status::Received
        );
        if change.channel != Channel::Whatsapp || !is_ours {
            return;
        }
        let told = CallbackRow::of(change, recorded.occurred_at);
        let id = told.message_id.clone();
        let row = match self.callbacks.now.remove(&id) {
            Some(known) => known.and(told),
            None => told,
        };
        self.callbacks.now.insert(id, row);
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
                if row.status != Status::Active {
                    self.drop_waiting(id, |row| row.author == AGENT, SILENCED);
                }
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
            match conversation.status {
                _ if conversation.opted_out => row.drop_for(OPTED_OUT),
                Status::Escalated | Status::Closed if row.author == AGENT => {
                    row.drop_for(SILENCED);
                }
                _ => {}
            }
        }
        self.messages.now.insert(row.id.clone(), row);
    }

    /// The client wants to hear no more.
    pub(super) fn opt_out(&mut self, id: &str) {
        if let Some(row) = self.conversations.now.get_mut(id) {
            row.opted_out = true;
            self.drop_waiting(id, |_| true, OPTED_OUT);
        }
    }

    /// Drops what waits. What is being sent, or may have been, is seen to its
    /// end. As the policy `effects` does it.
    fn drop_waiting(&mut self, id: &str, concerned: impl Fn(&Message) -> bool, reason: &str) {
        let rows = self.messages.now.values_mut();
        let waiting = rows.filter(|row| row.conversation_id == id && row.is_waiting());
        for row in waiting.filter(|row| concerned(row)) {
            row.drop_for(reason);
        }
    }

    pub(super) fn counted_at(&mut self, at: DateTime<Utc>) -> &mut Quarter {
        let bucket = Quarter::bucket(at);
        let quarter = self.counted.entry(bucket);
        quarter.or_insert_with(|| Quarter::empty(bucket))
    }

    fn conversation(
        &mut self,
        id: &str,
        phone_number: &str,
        phones: &PhoneIndex,
        at: DateTime<Utc>,
    ) -> &mut Conversation {
        let rows = &mut self.conversations.now;
        rows.entry(id.to_owned()).or_insert_with(|| {
            Conversation::begin(id.to_owned(), phone_number, phones.key(phone_number), at)
        })
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

impl Conversation {
    /// The client wrote.
    fn heard_from(&mut self, recorded: &Recorded, received: &Received) {
        let (at, position) = (recorded.occurred_at, recorded.position);
        self.heard_at(at);
        self.turn(self.status.after_message());
        if self.told.last_inbound < Some((at, position)) {
            self.told.last_inbound = Some((at, position));
            self.last_inbound_at = Some(at);
            self.last_provider = recorded.provider;
        }
        let name = received.contact_name.as_ref();
        if let Some(name) = name.filter(|name| !name.trim().is_empty()) {
            let named = Some((at, position, name.clone()));
            self.told.contact_name = self.told.contact_name.take().max(named);
        }
    }

    /// Somebody wrote, and it was not we who owed it.
    fn heard_at(&mut self, at: DateTime<Utc>) {
        let told = &mut self.told;
        told.first_heard_at = told.first_heard_at.into_iter().chain([at]).min();
        self.last_message_at = self.last_message_at.max(at);
    }
}

#[cfg(test)]
impl Tables {
    /// The rows are written, and nothing is touched yet.
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
