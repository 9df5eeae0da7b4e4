//! What the events of messages do to the rows.

use std::collections::btree_map::Entry;

use chrono::{DateTime, Utc};
use domain::event::Recorded;
use domain::message::{self, Kind, Media, Status};
use domain::{Channel, Direction};

use super::{Tables, identity};
use crate::interactions::Interaction;
use crate::messages::{Details, Message};

/// The status of every WhatsApp conversation.
const ACTIVE: &str = "active";

impl Tables {
    pub(super) fn fold_message(&mut self, id: &str, recorded: &Recorded, event: &message::Event) {
        let key = (id.to_owned(), identity::message_id(recorded, event));
        let told = Told::by(event);
        let interaction = match self.interactions.entry(id.to_owned()) {
            Entry::Occupied(entry) => {
                let interaction = entry.into_mut();
                interaction.hear(recorded, &told);
                interaction
            }
            Entry::Vacant(entry) => entry.insert(begin(id, recorded, &told)),
        };
        let message = self.messages.entry(key).or_insert_with_key(|(_, key)| {
            interaction.message_count += 1;
            let at = recorded.occurred_at;
            Message::begin(
                id,
                key.clone(),
                told.direction,
                told.status,
                at,
                recorded.position,
            )
        });
        message.take(recorded, told);
    }
}

/// What the three kinds of events have in common.
struct Told<'a> {
    message_id: Option<&'a String>,
    contact: &'a str,
    direction: Direction,
    status: Status,
    error: (Option<&'a String>, Option<&'a String>),
    body: Option<Body<'a>>,
}

/// The message itself, where the event holds it.
struct Body<'a> {
    content: &'a str,
    kind: Kind,
    media: &'a [Media],
    details: Details,
}

impl<'a> Told<'a> {
    fn by(event: &'a message::Event) -> Self {
        match event {
            message::Event::Received(received) => Self {
                message_id: received.message_id.as_ref(),
                contact: &received.contact,
                direction: Direction::Inbound,
                status: Status::Received,
                error: (None, None),
                body: Some(Body {
                    content: &received.content,
                    kind: received.kind,
                    media: &received.media,
                    details: Details {
                        location: received.location.clone(),
                        button: received.button.clone(),
                        reply_to: received.reply_to.clone(),
                        forwarded: received.forwarded,
                        contact_name: received.contact_name.clone(),
                    },
                }),
            },
            message::Event::Sent(sent) => Self {
                message_id: sent.message_id.as_ref(),
                contact: &sent.contact,
                direction: Direction::Outbound,
                status: Status::Sent,
                error: (None, None),
                body: Some(Body {
                    content: &sent.content,
                    kind: sent.kind,
                    media: &sent.media,
                    details: Details::default(),
                }),
            },
            message::Event::StatusChanged(change) => Self {
                message_id: Some(&change.message_id),
                contact: &change.contact,
                direction: direction_of(change.status),
                status: change.status,
                error: (change.error_code.as_ref(), change.error_message.as_ref()),
                body: None,
            },
        }
    }
}

/// Which way a message goes that has this status.
fn direction_of(status: Status) -> Direction {
    match status {
        Status::Receiving | Status::Received => Direction::Inbound,
        _ => Direction::Outbound,
    }
}

/// A conversation, or an SMS, at its first event.
fn begin(id: &str, recorded: &Recorded, told: &Told<'_>) -> Interaction {
    let is_sms = recorded.aggregate_type == "sms";
    Interaction {
        id: id.to_owned(),
        channel: if is_sms {
            Channel::Sms
        } else {
            Channel::Whatsapp
        },
        provider: recorded.provider,
        direction: Some(told.direction),
        status: if is_sms { told.status.as_str() } else { ACTIVE }.to_owned(),
        phone_number: phone(told),
        agent_id: None,
        batch_id: None,
        conversation_id: None,
        call_sid: None,
        started_at: recorded.occurred_at,
        ended_at: None,
        last_event_at: recorded.occurred_at,
        duration_secs: None,
        summary: None,
        message_count: 0,
        first_position: recorded.position,
        last_position: recorded.position,
    }
}

fn phone(told: &Told<'_>) -> Option<String> {
    Some(told.contact.to_owned()).filter(|contact| !contact.is_empty())
}

impl Interaction {
    /// A later event of a conversation or an SMS.
    fn hear(&mut self, recorded: &Recorded, told: &Told<'_>) {
        // Who began it is who wrote at the earliest time; of two at the same
        // moment, the client.
        let began = (self.started_at, self.direction);
        (self.started_at, self.direction) = began.min((recorded.occurred_at, Some(told.direction)));
        self.last_event_at = self.last_event_at.max(recorded.occurred_at);
        self.first_position = self.first_position.min(recorded.position);
        self.last_position = self.last_position.max(recorded.position);
        self.provider = self.provider.or(recorded.provider);
        if self.phone_number.is_none() {
            self.phone_number = phone(told);
        }
        if let (Channel::Sms, Ok(status)) = (self.channel, self.status.parse()) {
            self.status = further(status, told.status).as_str().to_owned();
        }
    }
}

impl Message {
    /// What an event says of the message.
    fn take(&mut self, recorded: &Recorded, told: Told<'_>) {
        let at = recorded.occurred_at;
        self.created_at = self.created_at.min(at);
        self.updated_at = self.updated_at.max(at);
        self.provider = self.provider.or(recorded.provider);
        if self.provider_message_id.is_none() {
            self.provider_message_id = told.message_id.cloned();
        }
        self.reach(told.status, told.error);
        if let Some(time) = self.time_of(told.status) {
            *time = Some(time.map_or(at, |known| known.min(at)));
        }
        match told.body {
            Some(body) if self.content.is_none() => {
                self.direction = told.direction;
                self.content = Some(body.content.to_owned());
                self.kind = Some(body.kind);
                self.media = body.media.to_vec();
                self.details = body.details;
            }
            // A message that only callbacks speak of goes the way they say.
            _ if self.content.is_none() => self.direction = direction_of(self.status),
            _ => {}
        }
    }

    /// The furthest status counts, with its own error. Where one status came
    /// with two errors, the greater stays, so that order does not matter.
    fn reach(&mut self, status: Status, error: (Option<&String>, Option<&String>)) {
        let known = (self.error_code.as_ref(), self.error_message.as_ref());
        let is_news = match status == self.status {
            true => error > known,
            false => further(self.status, status) == status,
        };
        if is_news {
            self.status = status;
            self.error_code = error.0.cloned();
            self.error_message = error.1.cloned();
        }
    }

    fn time_of(&mut self, status: Status) -> Option<&mut Option<DateTime<Utc>>> {
        match status {
            Status::Sent => Some(&mut self.sent_at),
            Status::Delivered => Some(&mut self.delivered_at),
            Status::Read => Some(&mut self.read_at),
            status if status.is_failure() => Some(&mut self.failed_at),
            _ => None,
        }
    }
}

/// Like [`Status::later`], but of two with the same rank always the same one.
fn further(a: Status, b: Status) -> Status {
    a.max(b).later(a.min(b))
}
