//! Who did what, when, from where, and what came of it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Fact, StreamId};

/// An event of an `audit` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// Somebody did something that an auditor may ask about.
    #[serde(rename = "audit.recorded")]
    Recorded(Recorded),
}

/// One act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Who: `user:7`, `service`, or `anonymous`.
    pub actor: String,
    /// The role that was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What: an operation id such as `login` or `reveal_interaction`.
    pub action: String,
    /// To what: an id, free of personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `begun`, `ok`, or the error's code.
    pub outcome: String,
    /// The caller's network address. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// More on it, free of personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Recorded {
    /// The fact that it was done at a time.
    pub fn at(self, time: DateTime<Utc>) -> Fact {
        Fact {
            stream: StreamId::audit(self.actor.clone()),
            event: crate::Event::Audit(Event::Recorded(self)),
            occurred_at: Some(time),
        }
    }
}
