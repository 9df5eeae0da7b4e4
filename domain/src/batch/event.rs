//! What can happen to a batch.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::PhoneNumber;
use crate::call::Outcome;
use crate::words::vocabulary;

vocabulary! {
    /// Through whom the calls of a batch are made.
    PhoneProvider {
        /// A number at Twilio.
        Twilio = "twilio",
        /// A trunk of our own.
        SipTrunk = "sip_trunk",
    }
}

/// An event of a `batch` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// Somebody ordered calls.
    #[serde(rename = "batch.requested")]
    Requested(Box<Requested>),
    /// We are about to send the order. Recorded before, so that a crash
    /// leaves a trace.
    #[serde(rename = "batch.submit_attempted")]
    SubmitAttempted(Attempted),
    /// The provider has it.
    #[serde(rename = "batch.submitted")]
    Submitted(Box<Submitted>),
    /// It went out and no answer came: the provider may have it.
    #[serde(rename = "batch.submit_uncertain")]
    SubmitUncertain(Uncertain),
    /// The provider does not have it.
    #[serde(rename = "batch.submit_failed")]
    SubmitFailed(Refused),
    /// Somebody wants it stopped.
    #[serde(rename = "batch.cancel_requested")]
    CancelRequested(CancelRequested),
    /// We are about to say so.
    #[serde(rename = "batch.cancel_attempted")]
    CancelAttempted(Attempted),
    /// The provider stopped it.
    #[serde(rename = "batch.cancelled")]
    Cancelled(Box<Cancelled>),
    /// We said so and no answer came.
    #[serde(rename = "batch.cancel_uncertain")]
    CancelUncertain(Uncertain),
    /// The provider did not stop it.
    #[serde(rename = "batch.cancel_failed")]
    CancelFailed(Refused),
    /// Somebody wants those called again who were not reached.
    #[serde(rename = "batch.retry_requested")]
    RetryRequested(RetryRequested),
    /// We are about to say so.
    #[serde(rename = "batch.retry_attempted")]
    RetryAttempted(Attempted),
    /// The provider calls them again.
    #[serde(rename = "batch.retried")]
    Retried(Box<Retried>),
    /// We said so and no answer came.
    #[serde(rename = "batch.retry_uncertain")]
    RetryUncertain(Uncertain),
    /// The provider does not call them again.
    #[serde(rename = "batch.retry_failed")]
    RetryFailed(Refused),
    /// The provider's list said something new.
    #[serde(rename = "batch.observed")]
    Observed(Box<Observed>),
    /// Somebody made a batch without us.
    #[serde(rename = "batch.discovered")]
    Discovered(Box<Discovered>),
}

impl Event {
    /// The event's name in the ledger.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Requested(_) => "batch.requested",
            Self::SubmitAttempted(_) => "batch.submit_attempted",
            Self::Submitted(_) => "batch.submitted",
            Self::SubmitUncertain(_) => "batch.submit_uncertain",
            Self::SubmitFailed(_) => "batch.submit_failed",
            Self::CancelRequested(_) => "batch.cancel_requested",
            Self::CancelAttempted(_) => "batch.cancel_attempted",
            Self::Cancelled(_) => "batch.cancelled",
            Self::CancelUncertain(_) => "batch.cancel_uncertain",
            Self::CancelFailed(_) => "batch.cancel_failed",
            Self::RetryRequested(_) => "batch.retry_requested",
            Self::RetryAttempted(_) => "batch.retry_attempted",
            Self::Retried(_) => "batch.retried",
            Self::RetryUncertain(_) => "batch.retry_uncertain",
            Self::RetryFailed(_) => "batch.retry_failed",
            Self::Observed(_) => "batch.observed",
            Self::Discovered(_) => "batch.discovered",
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

/// Somebody ordered calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requested {
    /// Our id of the batch, a UUID; also the stream's id.
    pub batch_id: String,
    /// What it is called. Not unique.
    pub call_name: String,
    /// The agent that speaks.
    pub agent_id: String,
    /// The provider's id of our number.
    pub agent_phone_number_id: String,
    /// When to begin; `None` is at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_time_unix: Option<i64>,
    /// Through whom; `None` leaves it to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_provider: Option<PhoneProvider>,
    /// The group that is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupPart>,
    /// Who ordered it: `user:7` or `service`.
    pub requested_by: String,
    /// When.
    pub requested_at: DateTime<Utc>,
    /// Who is called, 1 to [`RECIPIENTS_MAX`](super::RECIPIENTS_MAX). Personal.
    pub recipients: Vec<Recipient>,
}

/// Which part of the call of a group a batch is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPart {
    /// The group.
    pub group_id: i32,
    /// The call: the same in all its batches.
    pub call_id: String,
    /// Which of them, from 0.
    pub part: u32,
    /// How many they are.
    pub parts: u32,
}

/// Somebody to call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipient {
    /// The client's number. Personal.
    pub phone_number: PhoneNumber,
    /// What the agent is told. Personal.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub dynamic_variables: Map<String, Value>,
    /// The client of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<i32>,
}

/// We are about to send an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// An order went out and no answer came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncertain {
    /// Which attempt.
    pub attempt: u32,
    /// Why nobody knows: it timed out, or the process was killed.
    pub reason: String,
}

/// An order was refused, or could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which attempt.
    pub attempt: u32,
    /// The provider's HTTP status; `None` where it was not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's words, or why it was not reached.
    pub message: String,
    /// Whether trying again makes sense.
    pub retryable: bool,
}

/// The provider has the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// The attempt that it answers, or that was found to have arrived.
    pub attempt: u32,
    /// Whether it was found at the provider instead of answered.
    pub adopted: bool,
    /// The provider's words.
    pub batch: Snapshot,
}

/// Somebody wants it stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequested {
    /// Who: `user:7` or `service`.
    pub requested_by: String,
}

/// The provider stopped it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancelled {
    /// How many calls were not over, as far as we knew.
    pub cancelled_count: u32,
    /// The provider's words.
    pub batch: Snapshot,
}

/// Somebody wants those called again who were not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRequested {
    /// Who: `user:7` or `service`.
    pub requested_by: String,
    /// The provider's count of retries before this one. That it has risen is
    /// how a retry of which no answer came is found to have arrived.
    pub retry_count: i64,
}

/// The provider calls them again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retried {
    /// How many had failed, as far as we knew.
    pub retried_count: u32,
    /// The provider's words.
    pub batch: Snapshot,
}

/// The provider's list said something new.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The batch.
    pub batch: Snapshot,
    /// Those recipients of which something is new. Personal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<RecipientSeen>,
}

/// Somebody made a batch without us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discovered {
    /// How we came to know: `workspace` or `webhook`.
    pub through: String,
    /// The provider's words; from a webhook, only the id.
    pub batch: Snapshot,
}

/// What the provider said of a batch at one time. Its field names are the
/// provider's, which are the API's too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The provider's id of the batch.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// In the provider's word.
    #[serde(default)]
    pub status: String,
    /// The agent that speaks.
    #[serde(default)]
    pub agent_id: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// The provider's id of our number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number_id: Option<String>,
    /// Through whom, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_provider: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub created_at_unix: i64,
    /// When it begins or began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_time_unix: Option<i64>,
    /// When the provider last changed it.
    #[serde(default)]
    pub last_updated_at_unix: i64,
    /// Calls placed.
    #[serde(default)]
    pub total_calls_dispatched: i64,
    /// Calls to place.
    #[serde(default)]
    pub total_calls_scheduled: i64,
    /// Calls that are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_calls_finished: Option<i64>,
    /// How often it was retried.
    #[serde(default)]
    pub retry_count: i64,
}

/// What the provider's list said of a recipient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipientSeen {
    /// The provider's id of the recipient; ours where the provider kept it.
    pub id: String,
    /// Personal. `None` where they are reached otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// In our words.
    pub status: Outcome,
    /// In the provider's word, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_status: Option<String>,
    /// The provider's id of the session, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// When the provider made the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at_unix: Option<i64>,
    /// When it last changed it.
    pub updated_at_unix: i64,
    /// What the agent is told. Kept only the first time, and only in a batch
    /// that we did not order. Personal.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub dynamic_variables: Map<String, Value>,
}

impl RecipientSeen {
    /// What the list said, with the provider's word for the status.
    pub fn new(id: impl Into<String>, provider_status: &str, updated_at_unix: i64) -> Self {
        let status = super::recipient::outcome_of(provider_status);
        Self {
            id: id.into(),
            phone_number: None,
            status,
            provider_status: (status.as_str() != provider_status)
                .then(|| provider_status.to_owned()),
            conversation_id: None,
            created_at_unix: None,
            updated_at_unix,
            dynamic_variables: Map::new(),
        }
    }
}

/// How far the provider's clock may be from ours, in seconds, when we ask
/// whether a batch was made after its order.
const CLOCK_SKEW_SECS: i64 = 120;

impl Requested {
    /// The id that we give the `n`th recipient when we send the order. Nobody
    /// else makes such an id, so a provider that keeps it lets us recognise
    /// the order and its recipients.
    pub fn recipient_id(&self, n: usize) -> String {
        let batch: String = self.batch_id.chars().filter(|c| *c != '-').collect();
        format!("rcpt_{batch}_{n}")
    }

    /// Whether a batch at the provider may be this order, by what the
    /// provider's list of batches shows. If so, look at its recipients.
    pub fn resembles(&self, batch: &Snapshot) -> bool {
        let made_since = self.requested_at.timestamp() - CLOCK_SKEW_SECS;
        batch.name == self.call_name
            && batch.agent_id == self.agent_id
            && batch.created_at_unix >= made_since
            && (batch.total_calls_scheduled == 0
                || batch.total_calls_scheduled == self.recipients.len() as i64)
    }

    /// Whether these are the recipients of this order: by our own ids where
    /// the provider kept them, else by the numbers.
    pub fn has_recipients(&self, seen: &[RecipientSeen]) -> bool {
        if seen.len() != self.recipients.len() {
            return false;
        }
        if seen.iter().any(|recipient| is_ours(&recipient.id)) {
            let mine: std::collections::BTreeSet<_> =
                (0..seen.len()).map(|n| self.recipient_id(n)).collect();
            return seen.iter().all(|recipient| mine.contains(&recipient.id));
        }
        let mut wanted: Vec<_> = self
            .recipients
            .iter()
            .map(|r| r.phone_number.as_str())
            .collect();
        let mut found: Vec<_> = seen
            .iter()
            .filter_map(|r| r.phone_number.as_deref())
            .collect();
        wanted.sort_unstable();
        found.sort_unstable();
        wanted == found
    }
}

/// Whether an id was made by [`Requested::recipient_id`].
fn is_ours(id: &str) -> bool {
    let parts = id
        .strip_prefix("rcpt_")
        .and_then(|rest| rest.split_once('_'));
    parts.is_some_and(|(batch, n)| {
        batch.len() == 32
            && batch.bytes().all(|b| b.is_ascii_hexdigit())
            && n.bytes().all(|b| b.is_ascii_digit())
    })
}
