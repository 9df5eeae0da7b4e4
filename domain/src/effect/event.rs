//! What can happen to an effect.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Remedy;
use crate::{Channel, Provider};

/// An event of an `effect` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// It is about to be tried.
    #[serde(rename = "effect.attempted")]
    Attempted(Attempted),
    /// Nobody knows what became of an attempt.
    #[serde(rename = "effect.uncertain")]
    Uncertain(Uncertain),
    /// An attempt came to nothing.
    #[serde(rename = "effect.failed")]
    Failed(Failed),
    /// The provider took the message.
    #[serde(rename = "effect.sent")]
    Sent(Box<Sent>),
    /// The agent answered.
    #[serde(rename = "effect.answered")]
    Answered(Box<Answered>),
    /// The provider took the message, and later could not deliver it.
    #[serde(rename = "effect.bounced")]
    Bounced(Bounced),
    /// The provider has the message twice.
    #[serde(rename = "effect.duplicated")]
    Duplicated(Duplicated),
    /// It is not owed any more.
    #[serde(rename = "effect.dropped")]
    Dropped(Dropped),
    /// A person wants it tried once more.
    #[serde(rename = "effect.retried")]
    Retried(Retried),
}

impl Event {
    /// The event's name in the ledger.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Attempted(_) => "effect.attempted",
            Self::Uncertain(_) => "effect.uncertain",
            Self::Failed(_) => "effect.failed",
            Self::Sent(_) => "effect.sent",
            Self::Answered(_) => "effect.answered",
            Self::Bounced(_) => "effect.bounced",
            Self::Duplicated(_) => "effect.duplicated",
            Self::Dropped(_) => "effect.dropped",
            Self::Retried(_) => "effect.retried",
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

/// It is about to be tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When, by the clock of whoever tries.
    pub at: DateTime<Utc>,
}

/// Nobody knows what became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncertain {
    /// Which.
    pub attempt: u32,
    /// Why.
    pub reason: String,
}

/// An attempt came to nothing: surely nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Which.
    pub attempt: u32,
    /// The provider's HTTP status; `None` when it was not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's code, such as 21610.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The provider's sentence, or ours. May repeat the number. Personal.
    pub message: String,
    /// What follows.
    pub remedy: Remedy,
    /// When it is tried again, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
}

/// The provider took the message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// By which attempt.
    pub attempt: u32,
    /// Whether it was found at the provider, and not told by its answer.
    pub adopted: bool,
    /// Who took it.
    pub provider: Provider,
    /// WhatsApp or SMS.
    pub channel: Channel,
    /// The provider's id of it; `None` where it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The interaction that it is part of.
    pub interaction_id: String,
    /// The client's number. Personal.
    pub contact: String,
    /// Our number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub our_address: Option<String>,
    /// The words, without any code; of a template, what it stands for.
    /// Personal.
    pub content: String,
    /// The template that went instead of words, by the provider's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_sid: Option<String>,
}

/// The agent answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// At which attempt.
    pub attempt: u32,
    /// The agent.
    pub agent_id: String,
    /// The provider's id of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The answer in parts that each fit one message. Personal.
    pub parts: Vec<Part>,
}

/// A part of an answer: one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The id of the effect that sends it.
    pub effect_id: String,
    /// The words.
    pub content: String,
}

/// The provider took the message, and later could not deliver it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounced {
    /// The provider's id of the message.
    pub message_id: String,
    /// The provider's code, such as 63016.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What follows.
    pub remedy: Remedy,
    /// When it is sent again, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
}

/// The provider has the message twice: an attempt that was held for lost was
/// not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicated {
    /// The provider's id of the second.
    pub message_id: String,
}

/// It is not owed any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Why.
    pub reason: String,
}

/// A person wants it tried once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// Who: `user:7` or `service`.
    pub retried_by: String,
}
