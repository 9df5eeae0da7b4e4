//! What can happen to a challenge.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::PhoneNumber;

/// An event of an `otp` stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// Somebody is to be sent a code.
    #[serde(rename = "otp.requested")]
    Requested(Requested),
    /// A guess was made, right or wrong.
    #[serde(rename = "otp.attempted")]
    Attempted(Attempted),
    /// A guess was right.
    #[serde(rename = "otp.verified")]
    Verified(Verified),
}

impl Event {
    /// The event's name in the ledger.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Requested(_) => "otp.requested",
            Self::Attempted(_) => "otp.attempted",
            Self::Verified(_) => "otp.verified",
        }
    }
}

impl cqrs_es::DomainEvent for Event {
    fn event_type(&self) -> String {
        self.name().to_owned()
    }

    fn event_version(&self) -> String {
        crate::event::version(self.name()).to_owned()
    }
}

/// Somebody is to be sent a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The challenge; the stream's id.
    pub challenge_id: String,
    /// Who. Personal.
    pub phone_number: PhoneNumber,
    /// What for, in the caller's word, such as `login`.
    pub purpose: String,
    /// From when on the code is good for nothing.
    pub expires_at: DateTime<Utc>,
    /// How many guesses there are.
    pub attempts_max: u32,
    /// Who asked: `user:7` or `service`.
    pub requested_by: String,
}

/// A guess was made. What was guessed is nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// Which, from 1.
    pub attempt: u32,
    /// When.
    pub at: DateTime<Utc>,
}

/// A guess was right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Which.
    pub attempt: u32,
    /// When it was made.
    pub at: DateTime<Utc>,
}
