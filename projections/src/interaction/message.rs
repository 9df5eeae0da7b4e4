//! What the events of messages do to the rows.

use std::collections::btree_map::Entry;

use chrono::{DateTime, Utc};
use domain::event::Recorded;
use domain::message::{self, Kind, Media, Status};
use domain::sealed::is_erased;
use domain::{Channel, Direction, Event, Provider, effect, otp};

use super::{Tables, identity};
use crate::interactions::Interaction;
use crate::messages::{Details, Message};

/// The status of every WhatsApp conversation.
const ACTIVE: &str = "active";
/// The status of a one-time code before the provider has it …
const REQUESTED: &str = "requested";
/// … and once it was given back. In between it is that of the message.
const VERIFIED: &str = "verified";

impl Tables {
    /// Takes in an event of a conversation, an SMS or a one-time code. Gives
    /// the interaction that it belongs to.
    pub(super) fn fold_told(&mut self, id: String, recorded: &Recorded) -> String {
        let Some(told) = Told::by(recorded) else {
            return id;
        };
        let id = match &recorded.event {
            Event::Message(message::Event::StatusChanged(_)) => {
                self.aliases.get(&id).cloned().unwrap_or(id)
            }
            _ => id,
        };
        if let Some(sms) = identity::claimed_sms(recorded) {
            self.claim_sms(sms, &id);
        }
        let said = Interaction::saying(&id, recorded, &told);
        let interaction = match self.interactions.entry(id.clone()) {
            Entry::Occupied(entry) => {
                let interaction = entry.into_mut();
                interaction.absorb(said);
                interaction
            }
            Entry::Vacant(entry) => entry.insert(said),
        };
        let (Some(letter), Some(key)) = (told.letter, identity::message_id(recorded)) else {
            return id;
        };
        let key = (id.clone(), key);
        let message = self.messages.entry(key).or_insert_with_key(|(id, key)| {
            interaction.message_count += 1;
            let at = recorded.occurred_at;
            let (direction, position) = (told.direction, recorded.position);
            Message::begin(id, key.clone(), direction, letter.status, at, position)
        });
        message.take(recorded.occurred_at, told.provider, told.direction, letter);
        id
    }

    /// A text message turns out to be part of an interaction. The first to say
    /// so is believed; what callbacks had gathered becomes the interaction's.
    fn claim_sms(&mut self, sms: String, id: &str) {
        if sms == id || self.aliases.contains_key(&sms) {
            return;
        }
        if let Some(alone) = self.interactions.remove(&sms) {
            match self.interactions.get_mut(id) {
                Some(known) => known.absorb(alone),
                None => {
                    let renamed = Interaction {
                        id: id.to_owned(),
                        ..alone
                    };
                    self.interactions.insert(id.to_owned(), renamed);
                }
            }
            let of_sms = self.messages.keys().filter(|(of, _)| *of == sms);
            for key in of_sms.cloned().collect::<Vec<_>>() {
                if let Some(mut message) = self.messages.remove(&key) {
                    id.clone_into(&mut message.interaction_id);
                    self.messages.insert((id.to_owned(), key.1), message);
                }
            }
            self.rename_events(&sms, id);
            self.absorbed.insert(sms.clone(), id.to_owned());
        }
        self.aliases.insert(sms, id.to_owned());
    }
}

/// What all these events have in common.
struct Told<'a> {
    channel: Channel,
    provider: Option<Provider>,
    contact: &'a str,
    direction: Direction,
    /// How the interaction stands by it.
    status: &'static str,
    /// What is said of a message of it.
    letter: Option<Letter<'a>>,
}

/// What is said of a message.
struct Letter<'a> {
    id: Option<&'a String>,
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
    fn by(recorded: &'a Recorded) -> Option<Self> {
        match &recorded.event {
            Event::Message(event) => Some(Self::by_provider(recorded, event)),
            Event::Effect(effect::Event::Sent(sent)) => Some(Self::by_us(sent)),
            Event::Effect(effect::Event::Duplicated(twin)) => Some(Self {
                letter: Some(Letter::taken(Some(&twin.message_id), None)),
                ..Self::of_code("", Status::Queued.as_str())
            }),
            Event::Otp(otp::Event::Requested(requested)) => {
                Some(Self::of_code(requested.phone_number.as_str(), REQUESTED))
            }
            Event::Otp(otp::Event::Attempted(_)) => Some(Self::of_code("", REQUESTED)),
            Event::Otp(otp::Event::Verified(_)) => Some(Self::of_code("", VERIFIED)),
            _ => None,
        }
    }

    fn by_provider(recorded: &Recorded, event: &'a message::Event) -> Self {
        let (contact, letter) = Letter::told(event);
        let is_sms = recorded.aggregate_type == "sms";
        Self {
            channel: match is_sms {
                true => Channel::Sms,
                false => Channel::Whatsapp,
            },
            provider: recorded.provider,
            contact,
            direction: match event {
                message::Event::Received(_) => Direction::Inbound,
                message::Event::Sent(_) => Direction::Outbound,
                message::Event::StatusChanged(change) => direction_of(change.status),
            },
            status: match is_sms {
                true => letter.status.as_str(),
                false => ACTIVE,
            },
            letter: Some(letter),
        }
    }

    /// The provider has taken a message of ours.
    fn by_us(sent: &'a effect::Sent) -> Self {
        let body = Body {
            content: &sent.content,
            kind: Kind::Text,
            media: &[],
            details: Details::default(),
        };
        Self {
            channel: sent.channel,
            provider: Some(sent.provider),
            contact: &sent.contact,
            direction: Direction::Outbound,
            status: match sent.channel {
                Channel::Sms => Status::Queued.as_str(),
                _ => ACTIVE,
            },
            letter: Some(Letter::taken(sent.message_id.as_ref(), Some(body))),
        }
    }

    /// Of a one-time code and not of its message.
    const fn of_code(contact: &'a str, status: &'static str) -> Self {
        Self {
            channel: Channel::Sms,
            provider: None,
            contact,
            direction: Direction::Outbound,
            status,
            letter: None,
        }
    }
}

impl<'a> Letter<'a> {
    /// The provider has taken it.
    const fn taken(id: Option<&'a String>, body: Option<Body<'a>>) -> Self {
        Self {
            id,
            status: Status::Queued,
            error: (None, None),
            body,
        }
    }

    /// What a provider says of it, and to or from whom it is.
    fn told(event: &'a message::Event) -> (&'a str, Self) {
        match event {
            message::Event::Received(received) => {
                let body = Body {
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
                };
                let letter = Self {
                    id: received.message_id.as_ref(),
                    status: Status::Received,
                    error: (None, None),
                    body: Some(body),
                };
                (&received.contact, letter)
            }
            message::Event::Sent(sent) => {
                let body = Body {
                    content: &sent.content,
                    kind: sent.kind,
                    media: &sent.media,
                    details: Details::default(),
                };
                let letter = Self {
                    id: sent.message_id.as_ref(),
                    status: Status::Sent,
                    error: (None, None),
                    body: Some(body),
                };
                (&sent.contact, letter)
            }
            message::Event::StatusChanged(change) => {
                let letter = Self {
                    id: Some(&change.message_id),
                    status: change.status,
                    error: (change.error_code.as_ref(), change.error_message.as_ref()),
                    body: None,
                };
                (&change.contact, letter)
            }
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

impl Interaction {
    /// A conversation, an SMS or a one-time code of which one event tells.
    fn saying(id: &str, recorded: &Recorded, told: &Told<'_>) -> Self {
        Self {
            id: id.to_owned(),
            channel: told.channel,
            provider: told.provider,
            direction: Some(told.direction),
            status: told.status.to_owned(),
            phone_number: Some(told.contact.to_owned())
                .filter(|contact| !contact.is_empty() && !is_erased(contact)),
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

    /// With what others say of it.
    fn absorb(&mut self, other: Self) {
        // Who began it is who wrote at the earliest time; of two at the same
        // moment, the client.
        let began = (self.started_at, self.direction);
        (self.started_at, self.direction) = began.min((other.started_at, other.direction));
        self.last_event_at = self.last_event_at.max(other.last_event_at);
        self.first_position = self.first_position.min(other.first_position);
        self.last_position = self.last_position.max(other.last_position);
        self.provider = self.provider.or(other.provider);
        self.message_count += other.message_count;
        if self.phone_number.is_none() {
            self.phone_number = other.phone_number;
        }
        if self.channel == Channel::Sms {
            self.status = standing(&self.status, &other.status).to_owned();
        }
    }
}

/// Of two words for how an SMS, or a one-time code, stands the one that counts.
fn standing<'a>(known: &'a str, told: &'a str) -> &'a str {
    match (known.parse(), told.parse()) {
        (Ok(known), Ok(told)) => further(known, told).as_str(),
        (Ok(_), Err(_)) if told == VERIFIED => told,
        (Err(_), Ok(_)) if known == REQUESTED => told,
        (Err(_), Err(_)) if told == VERIFIED => told,
        _ => known,
    }
}

impl Message {
    /// What an event says of the message.
    fn take(
        &mut self,
        at: DateTime<Utc>,
        provider: Option<Provider>,
        direction: Direction,
        told: Letter<'_>,
    ) {
        self.created_at = self.created_at.min(at);
        self.updated_at = self.updated_at.max(at);
        self.provider = self.provider.or(provider);
        if self.provider_message_id.is_none() {
            self.provider_message_id = told.id.cloned();
        }
        self.reach(told.status, told.error);
        if let Some(time) = self.time_of(told.status) {
            *time = Some(time.map_or(at, |known| known.min(at)));
        }
        match told.body {
            Some(body) if self.content.is_none() => {
                self.direction = direction;
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
