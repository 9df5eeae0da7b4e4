//! How batches are shown: the fields of the replaced systems, to the letter.

use domain::batch::Counts;
use domain::phone::{mask, mask_json};
use poem_openapi::Object;
use projections::batches::{Batch, Enriched};
use serde_json::{Map, Value};

use super::auth::{Access, Caller};
use super::time::Time;
use crate::app::App;
use crate::batches::Status;

/// Whether this caller sees whole numbers: whoever ordered the calls knows them,
/// an agent need not.
pub fn must_mask(app: &App, caller: &Caller) -> bool {
    app.config.mask_phone_numbers && *caller != Caller::Service && !caller.may(Access::Reveal)
}

/// A batch, as the provider describes one.
#[derive(Debug, Object)]
pub struct ProviderBatch {
    /// The provider's id.
    id: String,
    /// The number that calls.
    phone_number_id: Option<String>,
    /// What the batch is called.
    name: String,
    /// The agent that speaks.
    agent_id: String,
    /// When it was made.
    created_at_unix: i64,
    /// When it begins or began.
    scheduled_time_unix: i64,
    /// Calls placed.
    total_calls_dispatched: i64,
    /// Calls to place.
    total_calls_scheduled: i64,
    /// When it last changed.
    last_updated_at_unix: i64,
    /// `pending`, `in_progress`, `retrying`, `completed`, `partially_completed`, `failed` or `cancelled`.
    status: String,
    /// The agent's name.
    agent_name: Option<String>,
    /// Only where the recipients were asked for.
    #[oai(skip_serializing_if_is_none)]
    recipients: Option<Vec<ProviderRecipient>>,
    /// `twilio` or `sip_trunk`.
    phone_provider: Option<String>,
}

/// Somebody who is called, as the provider describes them.
#[derive(Debug, Object)]
pub struct ProviderRecipient {
    /// The provider's id of them.
    id: String,
    /// The number.
    phone_number: Option<String>,
    /// `pending`, `in_progress`, `completed`, `failed`, `cancelled` or `voicemail`.
    status: String,
    /// When the provider made the entry.
    created_at_unix: Option<i64>,
    /// When it last changed it.
    updated_at_unix: Option<i64>,
    /// The current call.
    conversation_id: Option<String>,
}

impl ProviderBatch {
    /// A batch, with its recipients if there are any given.
    pub fn of(batch: &Batch, recipients: Option<&[Enriched]>, masked: bool) -> Self {
        let made = batch
            .created_at_unix
            .unwrap_or_else(|| batch.created_at.timestamp());
        let show = |it: &Enriched| ProviderRecipient {
            id: it.id.clone(),
            phone_number: phone(it, masked),
            status: it.status.to_string(),
            created_at_unix: it.created_at_unix,
            updated_at_unix: it.updated_at_unix,
            conversation_id: it.conversation_id.clone(),
        };
        Self {
            id: batch.shown_id().to_owned(),
            phone_number_id: batch.phone_number_id.clone(),
            name: batch.call_name.clone(),
            agent_id: batch.agent_id.clone(),
            created_at_unix: made,
            scheduled_time_unix: batch.scheduled_time_unix.unwrap_or(made),
            total_calls_dispatched: batch.total_calls_dispatched,
            total_calls_scheduled: batch.total_calls_scheduled,
            last_updated_at_unix: batch.last_updated_at_unix.unwrap_or(made),
            status: batch.status.to_string(),
            agent_name: batch.agent_name.clone(),
            recipients: recipients.map(|list| list.iter().map(show).collect()),
            phone_provider: batch.phone_provider.clone(),
        }
    }
}

/// A batch in the list.
#[derive(Debug, Object)]
pub struct BatchRow {
    /// The provider's id; ours before it has one.
    batch_id: String,
    /// What the batch is called.
    call_name: String,
    /// How it stands.
    status: String,
    /// When it was ordered.
    created_at: Time,
    /// How many are called.
    recipients_count: i64,
}

impl From<Batch> for BatchRow {
    fn from(batch: Batch) -> Self {
        Self {
            batch_id: batch.shown_id().to_owned(),
            status: batch.status.to_string(),
            created_at: batch.created_at.into(),
            recipients_count: batch.counts.total,
            call_name: batch.call_name,
        }
    }
}

/// How a batch stands, with what was said in its calls.
#[derive(Debug, Object)]
pub struct BatchStatus {
    /// The provider's id; ours before it has one.
    pub id: String,
    /// The same.
    batch_id: String,
    /// What the batch is called.
    name: String,
    /// `pending`, `in_progress`, `retrying`, `completed`, `partially_completed`, `failed` or `cancelled`.
    pub status: String,
    /// The agent that speaks.
    agent_id: String,
    /// How many recipients stand how.
    counts: CountsView,
    /// Whom it calls, in the order of the request.
    recipients: Vec<RecipientStatus>,
}

/// How many recipients stand how.
#[derive(Debug, Object)]
#[oai(rename = "BatchCounts")]
struct CountsView {
    /// All of them.
    total: i64,
    /// Not called yet.
    pending: i64,
    /// Being called.
    in_progress: i64,
    /// Talked with.
    completed: i64,
    /// Not reached.
    failed: i64,
    /// Given up before.
    cancelled: i64,
    /// A machine answered.
    voicemail: i64,
}

impl From<Counts> for CountsView {
    fn from(counts: Counts) -> Self {
        Self {
            total: counts.total,
            pending: counts.pending,
            in_progress: counts.in_progress,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            voicemail: counts.voicemail,
        }
    }
}

/// How a recipient stands, with what was said in the call.
#[derive(Debug, Object)]
struct RecipientStatus {
    /// The provider's id of them.
    id: String,
    /// The number.
    phone_number: Option<String>,
    /// `pending`, `in_progress`, `completed`, `failed`, `cancelled` or `voicemail`.
    status: String,
    /// The current call, which is the interaction's id.
    conversation_id: Option<String>,
    /// How long the call lasted, whoever told.
    call_duration: Option<i64>,
    /// What the agent was told of them.
    variables: Value,
    /// The provider's summary of the call.
    summary: Option<String>,
    /// How long the call lasted, by the provider's report.
    duration_secs: Option<i64>,
    /// What was said.
    transcript: Vec<Turn>,
    /// Where the recording is: a path of this API.
    audio_url: Option<String>,
}

/// Something said.
#[derive(Debug, Object)]
#[oai(rename = "TranscriptTurn")]
struct Turn {
    /// `user` or `agent`.
    role: String,
    /// The words.
    message: String,
}

impl BatchStatus {
    /// How a batch stands.
    pub fn of(app: &App, status: &Status, masked: bool) -> Self {
        let batch = &status.batch;
        Self {
            id: batch.shown_id().to_owned(),
            batch_id: batch.shown_id().to_owned(),
            name: batch.call_name.clone(),
            status: batch.status.to_string(),
            agent_id: batch.agent_id.clone(),
            counts: batch.counts.into(),
            recipients: status
                .recipients
                .iter()
                .map(|it| recipient(app, it, masked))
                .collect(),
        }
    }
}

fn recipient(app: &App, it: &Enriched, masked: bool) -> RecipientStatus {
    let audio_of = it.conversation_id.as_ref().filter(|_| it.has_audio);
    let variables = Value::Object(it.variables.clone());
    let hidden = it.phone_number.as_deref().filter(|_| masked);
    let hide = |text: &str| {
        hidden.map_or_else(
            || text.to_owned(),
            |number| domain::phone::mask_in(text, number),
        )
    };
    RecipientStatus {
        id: it.id.clone(),
        phone_number: phone(it, masked),
        status: it.status.to_string(),
        conversation_id: it.conversation_id.clone(),
        call_duration: it.call_duration,
        variables: hidden.map_or_else(
            || Value::Object(Map::clone(&it.variables)),
            |number| mask_json(&variables, number),
        ),
        summary: it.summary.as_deref().map(hide),
        duration_secs: it.duration_secs,
        transcript: it
            .transcript
            .iter()
            .map(|turn| Turn {
                role: turn.role.clone(),
                message: hide(&turn.message),
            })
            .collect(),
        audio_url: audio_of
            .map(|id| format!("{}/api/interactions/{id}/audio", app.config.public_url)),
    }
}

fn phone(it: &Enriched, masked: bool) -> Option<String> {
    it.phone_number
        .as_ref()
        .map(|number| if masked { mask(number) } else { number.clone() })
}
