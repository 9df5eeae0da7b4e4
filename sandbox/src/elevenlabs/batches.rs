//! Batches: what can be asked of one after it was submitted.

use serde_json::{Value, json};

use super::{
    calls,
    conversation::{Conversation, Status as ConversationStatus},
    errors::{self, Problem},
};
use crate::{
    CallOutcome,
    http::{Answer, Call, Reply},
    truth::{BatchTruth, RecipientTruth},
    world::World,
};

/// The provider's page of batches, and the most of one page.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

/// A batch of calls.
pub(crate) struct Batch {
    /// Its name for fate: the given name, and how many of that name came before.
    pub(super) key: String,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) agent_id: String,
    pub(super) phone_number_id: Value,
    pub(super) phone_provider: Value,
    pub(super) agent_number: String,
    /// What is echoed as it came: `timezone`, `branch_id`, `environment`, `whatsapp_params`,
    /// `telephony_call_config`, `target_concurrency_limit`.
    pub(super) settings: Value,
    pub(super) ringing_timeout_secs: u64,
    pub(super) concurrency: usize,
    pub(super) created_unix: u64,
    pub(super) scheduled_unix: u64,
    pub(super) updated_unix: u64,
    pub(super) status: BatchStatus,
    pub(super) retry_count: u32,
    pub(super) deleted: bool,
    pub(super) recipients: Vec<Recipient>,
    /// The next recipient to look at for a free slot.
    pub(super) next: usize,
    /// How many calls hold a slot.
    pub(super) active: usize,
}

/// Someone to call.
pub(crate) struct Recipient {
    pub(super) id: String,
    pub(super) phone_number: Option<String>,
    pub(super) whatsapp_user_id: Value,
    pub(super) client_data: Value,
    pub(super) status: RecipientStatus,
    pub(super) created_unix: u64,
    pub(super) updated_unix: u64,
    pub(super) conversation: Option<usize>,
    /// How often they were put in line; the first time is 1.
    pub(super) attempt: u32,
    pub(super) placed: u32,
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchStatus {
    Pending,
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

impl BatchStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecipientStatus {
    Pending,
    Dispatched,
    Initiated,
    InProgress,
    Completed,
    Failed,
    Cancelled,
    Voicemail,
}

impl RecipientStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Dispatched => "dispatched",
            Self::Initiated => "initiated",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Voicemail => "voicemail",
        }
    }

    pub(super) fn is_final(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Voicemail
        )
    }
}

impl Recipient {
    pub(super) fn set(&mut self, status: RecipientStatus, now_unix: u64) {
        self.status = status;
        self.updated_unix = now_unix;
    }
}

impl Batch {
    /// `BatchCallResponse`
    pub(super) fn document(&self, agent_name: &str) -> Value {
        let count = |f: fn(&Recipient) -> bool| self.recipients.iter().filter(|r| f(r)).count();
        let setting = |name: &str| self.settings.get(name).cloned().unwrap_or(Value::Null);
        json!({
            "id": self.id,
            "phone_number_id": self.phone_number_id,
            "phone_provider": self.phone_provider,
            "whatsapp_params": setting("whatsapp_params"),
            "name": self.name,
            "agent_id": self.agent_id,
            "branch_id": setting("branch_id"),
            "environment": setting("environment"),
            "created_at_unix": self.created_unix,
            "scheduled_time_unix": self.scheduled_unix,
            "timezone": setting("timezone"),
            "total_calls_dispatched": count(|r| r.placed > 0 || r.status == RecipientStatus::Dispatched),
            "total_calls_scheduled": self.recipients.len(),
            "total_calls_finished": count(|r| r.status.is_final()),
            "last_updated_at_unix": self.updated_unix,
            "status": self.status.as_str(),
            "retry_count": self.retry_count,
            "telephony_call_config": setting("telephony_call_config"),
            "target_concurrency_limit": setting("target_concurrency_limit"),
            "agent_name": agent_name,
            "branch_name": null,
        })
    }

    /// `BatchCallDetailedResponse`
    fn detail(&self, agent_name: &str, conversations: &[Conversation]) -> Value {
        let recipient = |r: &Recipient| {
            json!({
                "id": r.id,
                "phone_number": r.phone_number,
                "whatsapp_user_id": r.whatsapp_user_id,
                "status": r.status.as_str(),
                "created_at_unix": r.created_unix,
                "updated_at_unix": r.updated_unix,
                "conversation_id": r.conversation.and_then(|c| conversations.get(c)).map(|c| &c.id),
                "conversation_initiation_client_data": r.client_data,
            })
        };
        let mut document = self.document(agent_name);
        document["recipients"] = self.recipients.iter().map(recipient).collect();
        document
    }

    pub(super) fn truth(&self, conversations: &[Conversation]) -> BatchTruth {
        let recipient = |r: &Recipient| {
            let conversation = r.conversation.and_then(|c| conversations.get(c));
            let outcome =
                |c: &Conversation| -> Option<CallOutcome> { Some(c.call()?.fate.outcome) };
            RecipientTruth {
                id: r.id.clone(),
                phone_number: r.phone_number.clone(),
                status: r.status.as_str().to_owned(),
                conversation_id: conversation.map(|c| c.id.clone()),
                attempts: r.placed,
                outcome: conversation.and_then(outcome),
            }
        };
        BatchTruth {
            id: self.id.clone(),
            name: self.name.clone(),
            agent_id: self.agent_id.clone(),
            status: self.status.as_str().to_owned(),
            retry_count: self.retry_count,
            deleted: self.deleted,
            created_at_unix: self.created_unix,
            scheduled_time_unix: self.scheduled_unix,
            recipients: self.recipients.iter().map(recipient).collect(),
        }
    }
}

fn find(world: &mut World, id: &str) -> Result<usize, Answer> {
    let request_id = world.request_id();
    let known = world.elevenlabs.batch_by_id.get(id).copied();
    known
        .filter(|at| !world.elevenlabs.batches[*at].deleted)
        .ok_or_else(|| errors::not_found("batch_call", id, &request_id))
}

fn answer(world: &World, at: usize) -> Reply {
    let batch = &world.elevenlabs.batches[at];
    let agent_name = world.elevenlabs.agent_name(&batch.agent_id);
    Ok(Answer::json(200, &batch.document(&agent_name)))
}

/// `GET /v1/convai/batch-calling/{id}`
pub(super) fn fetch(world: &mut World, call: &Call) -> Reply {
    let at = find(world, call.param("id"))?;
    let state = &world.elevenlabs;
    let batch = &state.batches[at];
    let document = batch.detail(&state.agent_name(&batch.agent_id), &state.conversations);
    Ok(Answer::json(200, &document))
}

/// `GET /v1/convai/batch-calling/workspace`: newest first, `last_doc` is where the last page ended.
pub(super) fn workspace(world: &mut World, call: &Call) -> Reply {
    let limit = call.query("limit").and_then(|n| n.parse().ok());
    let limit = limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let state = &world.elevenlabs;
    let after = call.query("last_doc").filter(|doc| !doc.is_empty());
    let before = match after.map(|doc| state.batch_by_id.get(doc).copied()) {
        None => state.batches.len(),
        Some(Some(at)) => at,
        Some(None) => return Err(bad_cursor(world)),
    };
    let wanted = |batch: &&Batch| {
        let agent = call.query("agent_id").filter(|id| !id.is_empty());
        !batch.deleted && agent.is_none_or(|id| batch.agent_id == id)
    };
    let mut found: Vec<_> = state.batches[..before]
        .iter()
        .rev()
        .filter(wanted)
        .take(limit + 1)
        .collect();
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next_doc = found.last().filter(|_| has_more).map(|batch| &batch.id);
    let documents: Vec<_> = found
        .iter()
        .map(|batch| batch.document(&state.agent_name(&batch.agent_id)))
        .collect();
    let page = json!({"batch_calls": documents, "next_doc": next_doc, "has_more": has_more});
    Ok(Answer::json(200, &page))
}

fn bad_cursor(world: &mut World) -> Answer {
    let request_id = &world.request_id();
    Problem {
        status: 400,
        kind: "invalid_request",
        code: "invalid_cursor",
        message: "The last document of the previous page was not found.",
        param: Some("last_doc"),
        request_id,
    }
    .answer()
}

fn wrong_state(world: &mut World, message: &str) -> Answer {
    let request_id = &world.request_id();
    Problem {
        status: 400,
        kind: "invalid_request",
        code: "invalid_batch_call_status",
        message,
        param: None,
        request_id,
    }
    .answer()
}

/// `POST /v1/convai/batch-calling/{id}/cancel`: everyone who is not done is cancelled.
///
/// A call that is being held is cut off without a webhook, unless fate lets it survive: then it
/// goes on to its end and says so, while its recipient stays cancelled.
pub(super) fn cancel(world: &mut World, call: &Call) -> Reply {
    let at = find(world, call.param("id"))?;
    let now = world.clock.unix();
    let state = &mut world.elevenlabs;
    let batch = &mut state.batches[at];
    if batch.status.is_over() {
        return Err(wrong_state(world, "The batch call is not running."));
    }
    batch.status = BatchStatus::Cancelled;
    batch.updated_unix = now;
    for recipient in batch.recipients.iter_mut().filter(|r| !r.status.is_final()) {
        recipient.set(RecipientStatus::Cancelled, now);
        let held = recipient.conversation.map(|c| &mut state.conversations[c]);
        if let Some(held) = held.filter(|c| !c.status.is_over())
            && held.call().is_none_or(|c| !c.fate.survives_cancel)
        {
            held.status = ConversationStatus::Failed;
            held.termination_reason = "Batch call was cancelled.".to_owned();
        }
    }
    answer(world, at)
}

/// `POST /v1/convai/batch-calling/{id}/retry`: calls those again who were not reached.
pub(super) fn retry(world: &mut World, call: &Call) -> Reply {
    let at = find(world, call.param("id"))?;
    let now = world.clock.unix();
    let batch = &mut world.elevenlabs.batches[at];
    if !batch.status.is_over() {
        return Err(wrong_state(world, "The batch call is still running."));
    }
    batch.retry_count += 1;
    batch.updated_unix = now;
    batch.next = 0;
    let failed = |r: &&mut Recipient| r.status == RecipientStatus::Failed;
    let mut again = 0;
    for recipient in batch.recipients.iter_mut().filter(failed) {
        recipient.set(RecipientStatus::Pending, now);
        recipient.conversation = None;
        recipient.attempt += 1;
        again += 1;
    }
    if again > 0 {
        batch.status = BatchStatus::Pending;
        calls::plan_start(world, at, now);
    }
    answer(world, at)
}

/// `DELETE /v1/convai/batch-calling/{id}`
pub(super) fn delete(world: &mut World, call: &Call) -> Reply {
    let at = find(world, call.param("id"))?;
    if !world.elevenlabs.batches[at].status.is_over() {
        cancel(world, call)?;
    }
    world.elevenlabs.batches[at].deleted = true;
    Ok(Answer::empty(204))
}
