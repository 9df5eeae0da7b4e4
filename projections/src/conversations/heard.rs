//! What providers tell of a conversation: what the client wrote, what went out,
//! and how far it has come.

use chrono::{DateTime, Utc};
use domain::conversation::{self, Consent};
use domain::event::Recorded;
use domain::message::{Received, Sent, Status, StatusChanged};
use domain::{Channel, Direction, PhoneIndex};

use super::callback::{CallbackRow, Echo};
use super::fold::Tables;
use super::message::{Message, Metadata};
use super::progress::words_key;
use super::row::Conversation;
use crate::text;

const CLIENT: &str = "client";

/// The id of a client's message: the provider's, where it gave one.
pub(super) fn inbound_id(received: &Received, position: i64) -> String {
    let given = received.message_id.as_deref().filter(|id| !id.is_empty());
    match given {
        Some(id) => text::key(id).into_owned(),
        None => format!("ev-{position}"),
    }
}

impl Tables {
    /// The client wrote.
    pub(super) fn received(
        &mut self,
        recorded: &Recorded,
        received: &Received,
        phones: &PhoneIndex,
    ) {
        let Some(id) = conversation::of(received.channel, &received.contact, phones) else {
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
    pub(super) fn echoed(&mut self, recorded: &Recorded, sent: &Sent, phones: &PhoneIndex) {
        let Some(id) = conversation::of(sent.channel, &sent.contact, phones) else {
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
    pub(super) fn reached(&mut self, recorded: &Recorded, change: &StatusChanged) {
        let is_ours = !matches!(change.status, Status::Receiving | Status::Received);
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
