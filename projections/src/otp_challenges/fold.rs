//! What events do to the rows. Pure: whoever calls this has loaded the rows
//! that the events touch.

use chrono::{DateTime, Utc};
use domain::effect::{self, Remedy};
use domain::event::Recorded;
use domain::message::{self, StatusChanged};
use domain::otp::{self, Status};
use domain::{Event, PhoneIndex};
use serde::Serialize;

use super::Challenge;
use crate::rows::Rows;
use crate::{text, time};

/// Rows of the tables, in memory.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) challenges: Rows<String, Challenge>,
    pub(super) messages: Rows<String, TextMessage>,
}

/// A row of `otp_messages`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TextMessage {
    pub(super) message_id: String,
    pub(super) challenge_id: Option<String>,
    pub(super) status: Option<message::Status>,
    pub(super) error_code: Option<String>,
    pub(super) delivered_at: Option<DateTime<Utc>>,
    pub(super) failed_at: Option<DateTime<Utc>>,
}

/// What an event tells of.
pub(super) enum Concerned {
    Challenge(String),
    Message(String),
    Nothing,
}

pub(super) fn concerned(recorded: &Recorded) -> Concerned {
    match &recorded.event {
        Event::Otp(_) => Concerned::Challenge(key(&recorded.aggregate_id)),
        Event::Effect(_) => match effect::challenge_of(&recorded.aggregate_id) {
            Some(id) => Concerned::Challenge(key(id)),
            None => Concerned::Nothing,
        },
        Event::Message(message::Event::StatusChanged(change))
            if recorded.aggregate_type == "sms" =>
        {
            Concerned::Message(key(&change.message_id))
        }
        _ => Concerned::Nothing,
    }
}

pub(super) fn key(id: &str) -> String {
    text::key(id).into_owned()
}

impl Tables {
    pub(super) fn fold(&mut self, recorded: &Recorded, phones: &PhoneIndex) {
        match (concerned(recorded), &recorded.event) {
            (Concerned::Challenge(id), Event::Otp(otp::Event::Requested(requested))) => {
                let begun = Challenge::begin(id.clone(), recorded, requested, phones);
                self.challenges.now.entry(id).or_insert(begun);
            }
            (Concerned::Challenge(id), event) => {
                // A code is sent once somebody has asked for it, never before.
                let Some(challenge) = self.challenges.now.get_mut(&id) else {
                    return;
                };
                match event {
                    Event::Otp(event) => challenge.hear(event),
                    Event::Effect(event) => challenge.hear_of_sending(recorded, event),
                    _ => {}
                }
                if let (Event::Effect(effect::Event::Sent(_)), Some(message_id)) =
                    (event, &challenge.provider_message_id)
                {
                    let message_id = message_id.clone();
                    self.message(message_id).challenge_id = Some(id);
                }
            }
            (Concerned::Message(id), Event::Message(message::Event::StatusChanged(change))) => {
                self.message(id).take(recorded.occurred_at, change)
            }
            _ => {}
        }
    }

    fn message(&mut self, message_id: String) -> &mut TextMessage {
        let begin = || TextMessage {
            message_id: message_id.clone(),
            challenge_id: None,
            status: None,
            error_code: None,
            delivered_at: None,
            failed_at: None,
        };
        let row = self.messages.now.entry(message_id.clone());
        row.or_insert_with(begin)
    }

    /// Works out how everybody stands.
    pub(super) fn settle(&mut self) {
        for challenge in self.challenges.now.values_mut() {
            let message = challenge.provider_message_id.as_ref();
            let message = message.and_then(|id| self.messages.now.get(id));
            challenge.settle(message);
        }
    }
}

impl Challenge {
    fn begin(
        challenge_id: String,
        recorded: &Recorded,
        requested: &otp::Requested,
        phones: &PhoneIndex,
    ) -> Self {
        Self {
            challenge_id,
            phone_number: requested.phone_number.as_str().to_owned(),
            phone_key: phones.key(requested.phone_number.as_str()),
            purpose: requested.purpose.clone(),
            status: Status::Requested,
            attempts: 0,
            attempts_max: i32::try_from(requested.attempts_max).unwrap_or(i32::MAX),
            provider_message_id: None,
            error_code: None,
            requested_by: requested.requested_by.clone(),
            created_at: recorded.occurred_at,
            expires_at: time::plausible(requested.expires_at).unwrap_or(recorded.occurred_at),
            sent_at: None,
            delivered_at: None,
            failed_at: None,
            verified_at: None,
            sending: Status::Requested,
        }
    }

    fn hear(&mut self, event: &otp::Event) {
        match event {
            otp::Event::Requested(_) => {}
            otp::Event::Attempted(attempted) => {
                self.attempts = i32::try_from(attempted.attempt).unwrap_or(i32::MAX);
            }
            otp::Event::Verified(verified) => self.verified_at = time::plausible(verified.at),
        }
    }

    fn hear_of_sending(&mut self, recorded: &Recorded, event: &effect::Event) {
        use effect::Event::{Bounced, Dropped, Failed, Retried, Sent};
        let given_up = |remedy| matches!(remedy, Remedy::DeadLetter | Remedy::OptOut);
        let (sending, error_code) = match event {
            Sent(sent) => {
                self.provider_message_id = sent.message_id.as_deref().map(key);
                self.sent_at = Some(recorded.occurred_at);
                (Status::Sent, None)
            }
            Failed(failed) if given_up(failed.remedy) => (Status::Failed, failed.code.clone()),
            Bounced(bounced) if given_up(bounced.remedy) => (Status::Failed, bounced.code.clone()),
            Dropped(_) => (Status::Failed, None),
            Bounced(_) | Retried(_) => (Status::Requested, None),
            _ => return,
        };
        self.sending = sending;
        self.error_code = error_code;
        self.failed_at = (sending == Status::Failed).then_some(recorded.occurred_at);
    }

    fn settle(&mut self, message: Option<&TextMessage>) {
        self.delivered_at = message.and_then(|message| message.delivered_at);
        let failure = message.filter(|message| message.has_failed());
        if self.sending == Status::Sent {
            self.failed_at = failure.and_then(|message| message.failed_at);
            self.error_code = failure.and_then(|message| message.error_code.clone());
        }
        self.status = if self.verified_at.is_some() {
            Status::Verified
        } else if self.attempts >= self.attempts_max {
            Status::Exhausted
        } else if self.delivered_at.is_some() {
            Status::Delivered
        } else if self.failed_at.is_some() {
            Status::Failed
        } else {
            self.sending
        };
    }
}

impl TextMessage {
    /// Callbacks come in any order: the furthest status counts, and of two
    /// errors with one status the greater.
    fn take(&mut self, at: DateTime<Utc>, change: &StatusChanged) {
        let status = change.status;
        let told = (Some(status.rank()), Some(status), change.error_code.clone());
        let known = self.status;
        let known = (
            known.map(message::Status::rank),
            known,
            self.error_code.clone(),
        );
        (_, self.status, self.error_code) = told.max(known);
        let time = match status {
            message::Status::Delivered | message::Status::Read => &mut self.delivered_at,
            status if status.is_failure() => &mut self.failed_at,
            _ => return,
        };
        *time = Some(time.map_or(at, |known| known.min(at)));
    }

    fn has_failed(&self) -> bool {
        self.status.is_some_and(message::Status::is_failure)
    }
}
