//! What the sandbox really did, for tests to compare with what the service believes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{CallOutcome, WebhookTruth};

/// Everything that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Truth {
    /// The seed it was drawn from.
    pub seed: u64,
    /// The time written down last.
    pub now_unix_ms: u64,
    /// How much is still to happen: steps planned and webhooks parked.
    pub pending: usize,
    /// The batches, oldest first, the deleted ones too.
    pub batches: Vec<BatchTruth>,
    /// The conversations, oldest first: calls and text sessions.
    pub conversations: Vec<ConversationTruth>,
    /// The messages of Twilio (oldest first), then of builderbot.
    pub messages: Vec<MessageTruth>,
    /// Every webhook that was due, sent or not.
    pub webhooks: Vec<WebhookTruth>,
    /// What the service asked for, by operation (`elevenlabs.batch_submit`, `twilio.message_create`…).
    pub requests: BTreeMap<String, OperationTruth>,
}

impl Truth {
    /// How often an operation was asked for.
    pub fn request_count(&self, operation: &str) -> u64 {
        self.requests.get(operation).map_or(0, |o| o.count)
    }
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchTruth {
    /// The provider's id.
    pub id: String,
    /// `call_name` as it was submitted.
    pub name: String,
    /// The agent that calls.
    pub agent_id: String,
    /// The provider's status.
    pub status: String,
    /// How often it was retried.
    pub retry_count: u32,
    /// Whether it was deleted.
    pub deleted: bool,
    /// When it was made.
    pub created_at_unix: u64,
    /// When it was to begin.
    pub scheduled_time_unix: u64,
    /// The people to call.
    pub recipients: Vec<RecipientTruth>,
}

/// Someone in a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipientTruth {
    /// The provider's id, or the client's own.
    pub id: String,
    /// The number to call.
    pub phone_number: Option<String>,
    /// The provider's status.
    pub status: String,
    /// The last conversation with them.
    pub conversation_id: Option<String>,
    /// How often they were called.
    pub attempts: u32,
    /// How the last call turned out; none while it is not placed.
    pub outcome: Option<CallOutcome>,
}

/// A call or a text session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversationTruth {
    /// The provider's id.
    pub id: String,
    /// The agent.
    pub agent_id: String,
    /// The provider's status.
    pub status: String,
    /// The batch, for a call of one.
    pub batch_id: Option<String>,
    /// The recipient's id in it.
    pub recipient_id: Option<String>,
    /// The other person's number, for a call.
    pub phone_number: Option<String>,
    /// The call's Twilio sid, for a call.
    pub call_sid: Option<String>,
    /// How it turned out, for a call.
    pub outcome: Option<CallOutcome>,
    /// Whether it is a text session.
    pub text_only: bool,
    /// When it began.
    pub start_unix: u64,
    /// How long it was.
    pub duration_secs: u64,
    /// What the user said, of a text session, turn by turn.
    pub user_messages: Vec<String>,
    /// What the agent said, of a text session, turn by turn.
    pub agent_messages: Vec<String>,
    /// `contextual_update`s that a text session got.
    pub context: Vec<String>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageTruth {
    /// `twilio` or `builderbot`.
    pub provider: String,
    /// The provider's id; builderbot has none.
    pub sid: Option<String>,
    /// `whatsapp` or `sms`.
    pub channel: String,
    /// `outbound` (from the service) or `inbound` (from a person).
    pub direction: String,
    /// The sender.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// The text.
    pub body: String,
    /// The template, if it was sent by one.
    pub content_sid: Option<String>,
    /// The provider's status.
    pub status: String,
    /// The provider's error, if it failed.
    pub error_code: Option<u32>,
    /// When it was made.
    pub created_at_unix_ms: u64,
}

/// The requests for one operation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OperationTruth {
    /// How many came.
    pub count: u64,
    /// How many had their effect, answered or not.
    pub carried_out: u64,
    /// The requests, oldest first, up to a limit.
    pub requests: Vec<RequestTruth>,
}

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestTruth {
    /// When it came.
    pub at_unix_ms: u64,
    /// Path and query.
    pub path: String,
    /// The body's first 64 KiB.
    pub body: String,
    /// The body's length.
    pub body_bytes: usize,
    /// Whether it had its effect.
    pub carried_out: bool,
    /// The HTTP status of the answer; none if it was never answered.
    pub answer: Option<u16>,
}
