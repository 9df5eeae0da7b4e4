//! How far a message of ours has come: what was told of our effect, and what
//! follows from it and from the provider's callbacks.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use domain::Provider;
use domain::conversation::normalised;
use domain::effect::{Remedy, Standing};
use domain::message::Status as Callback;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::callback::CallbackRow;
use super::message::Message;

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The client wrote it.
    Received,
    /// Owed, and not taken by the provider yet.
    Queued,
    /// Taken by the provider.
    Sent,
    /// The client has it.
    Delivered,
    /// The client has read it.
    Read,
    /// The provider refused it, or could not send it.
    Failed,
    /// It did not reach the client.
    Undelivered,
    /// Not owed any more.
    Dropped,
}

impl Status {
    const ALL: [Self; 8] = [
        Self::Received,
        Self::Queued,
        Self::Sent,
        Self::Delivered,
        Self::Read,
        Self::Failed,
        Self::Undelivered,
        Self::Dropped,
    ];

    /// The name as it is stored and served.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Failed => "failed",
            Self::Undelivered => "undelivered",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|status| status.as_str() == text);
        found.ok_or_else(|| format!("{text} is no status of a message"))
    }
}

/// What was told of our effect, apart from the provider's callbacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) standing: Standing,
    /// The provider took it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sent_at: Option<DateTime<Utc>>,
    /// The provider's own word that it sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) echoed_at: Option<DateTime<Utc>>,
    /// What went wrong last: code and words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<(Option<String>, Option<String>)>,
    /// When the message was written that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked_at: Option<DateTime<Utc>>,
}

impl Told {
    /// Of an effect that is owed since now.
    pub(super) const fn owed() -> Self {
        Self {
            standing: Standing::Waiting,
            sent_at: None,
            echoed_at: None,
            error: None,
            asked_at: None,
        }
    }
}

impl Message {
    /// Whether it is ours and waits to be tried.
    pub(super) fn is_waiting(&self) -> bool {
        let told = self.told.as_ref();
        told.is_some_and(|told| told.standing == Standing::Waiting)
    }

    /// A refusal of the provider, at once or later.
    pub(super) fn refused(
        &mut self,
        code: Option<&String>,
        words: Option<&String>,
        remedy: Remedy,
    ) {
        if let Some(told) = &mut self.told {
            told.error = Some((code.cloned(), words.cloned()));
            told.standing = match remedy {
                Remedy::Retry | Remedy::Template => Standing::Waiting,
                Remedy::OptOut | Remedy::DeadLetter => Standing::Dead,
            };
        }
    }

    /// It is not owed any more.
    pub(super) fn drop_for(&mut self, reason: &str) {
        if let Some(told) = &mut self.told {
            told.standing = Standing::Dropped;
            told.error = Some((None, Some(reason.to_owned())));
        }
    }

    /// Whether builderbot's word that it sent these words may mean this one.
    pub(super) fn may_be_echoed(&self) -> bool {
        let told = self.told.as_ref();
        let may_be_out = |told: &Told| {
            matches!(
                told.standing,
                Standing::Attempted | Standing::Uncertain | Standing::Done
            )
        };
        self.provider == Some(Provider::Builderbot) && told.is_some_and(may_be_out)
    }

    /// Sets the columns that follow from what was told and from the callbacks
    /// of the provider's message.
    pub(super) fn settle(&mut self, callback: Option<&CallbackRow>) {
        self.words_key = self.may_be_echoed().then(|| words_key(&self.content));
        let Some(told) = &self.told else {
            return;
        };
        self.sent_at = told.sent_at.or(told.echoed_at);
        self.delivered_at = callback.and_then(|row| row.delivered_at);
        self.read_at = callback.and_then(|row| row.read_at);
        self.status = status(told, callback.map(|row| row.status));
        let failure = callback.filter(|row| row.status.is_failure());
        let failure = failure.map(|row| (row.error_code.clone(), row.error_message.clone()));
        let error = match self.status {
            Status::Failed | Status::Undelivered => failure.or_else(|| told.error.clone()),
            Status::Queued | Status::Dropped => told.error.clone(),
            _ => None,
        };
        (self.error_code, self.error_message) = error.unwrap_or_default();
    }
}

/// How far a message of ours has come. That it arrived is believed whatever
/// else was said.
fn status(told: &Told, callback: Option<Callback>) -> Status {
    let failed = match callback {
        Some(Callback::Read) => return Status::Read,
        Some(Callback::Delivered) => return Status::Delivered,
        Some(Callback::Undelivered) => Some(Status::Undelivered),
        Some(Callback::Failed | Callback::Canceled) => Some(Status::Failed),
        _ => None,
    };
    match told.standing {
        Standing::Done => failed.unwrap_or(Status::Sent),
        Standing::Dead => failed.unwrap_or(Status::Failed),
        Standing::Dropped => Status::Dropped,
        Standing::Attempted | Standing::Uncertain if told.echoed_at.is_some() => Status::Sent,
        Standing::Waiting | Standing::Attempted | Standing::Uncertain => Status::Queued,
    }
}

/// The key of some words, by which a provider's echo of them is known.
pub(super) fn words_key(content: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, normalised(content).as_bytes()).to_string()
}
