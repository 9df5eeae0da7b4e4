//! The domain of the stock service, in the book's parts: a command, an event,
//! an error, an aggregate (<https://doc.rust-cqrs.org/intro_getting_started.html>)
//! and a view (<https://doc.rust-cqrs.org/application_persisted_views.html>).

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, View};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What ElevenLabs sends.
#[derive(Deserialize)]
pub struct Webhook {
    /// `post_call_transcription` is the one we take.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the report was made.
    #[serde(with = "chrono::serde::ts_seconds")]
    pub event_timestamp: DateTime<Utc>,
    /// The report.
    pub data: Report,
}

/// The report of a finished session, with the fields that Bitácora's
/// `call.completed` keeps. Fields without a name here are dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub conversation_id: String,
    pub agent_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    pub status: String,
    pub transcript: Vec<Turn>,
    pub metadata: Metadata,
    #[serde(default)]
    pub analysis: Analysis,
    #[serde(default, skip_serializing_if = "ClientData::is_empty")]
    pub conversation_initiation_client_data: ClientData,
    #[serde(default)]
    pub has_audio: bool,
}

/// One turn of the transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_in_call_secs: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A tool that the agent called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    pub tool_name: String,
}

/// How and with whom the session was held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    #[serde(with = "chrono::serde::ts_seconds")]
    pub start_time_unix_secs: DateTime<Utc>,
    pub call_duration_secs: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_call: Option<PhoneCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_call: Option<BatchCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_language: Option<String>,
}

/// The telephone leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhoneCall {
    #[serde(rename = "type")]
    pub carrier: String,
    pub direction: String,
    pub phone_number_id: String,
    pub agent_number: String,
    pub external_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_sid: Option<String>,
}

/// The batch that the call was part of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchCall {
    pub batch_call_id: String,
    pub batch_call_recipient_id: String,
}

/// What the provider makes of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_successful: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript_summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_summary_title: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub evaluation_criteria_results: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data_collection_results: Map<String, Value>,
}

/// What the agent was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientData {
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub dynamic_variables: Map<String, Value>,
}

impl ClientData {
    fn is_empty(&self) -> bool {
        self.dynamic_variables.is_empty()
    }
}

/// What a conversation can be told.
pub enum Command {
    /// The provider's report came.
    Receive {
        reported_at: DateTime<Utc>,
        report: Box<Report>,
    },
}

/// What can happen to a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// It was held and reported.
    Completed {
        reported_at: DateTime<Utc>,
        report: Box<Report>,
    },
}

impl Event {
    /// The stored name of the one there is.
    pub const COMPLETED: &str = "Completed";
    /// The stored version.
    pub const VERSION: &str = "1.0";
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Completed { .. } => Self::COMPLETED.to_owned(),
        }
    }

    fn event_version(&self) -> String {
        Self::VERSION.to_owned()
    }
}

/// Why a command is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This delivery brings nothing new.
    #[error("the conversation is already completed")]
    AlreadyCompleted,
}

/// One conversation. All it has to know is whether it was reported.
#[derive(Default, Serialize, Deserialize)]
pub struct Conversation {
    completed: bool,
}

impl Aggregate for Conversation {
    const TYPE: &'static str = "conversation";
    type Command = Command;
    type Event = Event;
    type Error = Error;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Error> {
        match command {
            Command::Receive { .. } if self.completed => return Err(Error::AlreadyCompleted),
            Command::Receive {
                reported_at,
                report,
            } => {
                let event = Event::Completed {
                    reported_at,
                    report,
                };
                sink.write(event, self).await;
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Completed { .. } => self.completed = true,
        }
    }
}

/// The view: what Bitácora's row of `interactions` has, save the keyed hash of
/// the number (less work for stock) and the positions, for stock has none.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interaction {
    pub id: String,
    pub channel: String,
    pub provider: String,
    pub direction: Option<String>,
    pub status: String,
    pub phone_number: Option<String>,
    pub agent_id: String,
    pub batch_id: Option<String>,
    pub conversation_id: String,
    pub call_sid: Option<String>,
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub last_event_at: DateTime<Utc>,
    pub duration_secs: i64,
    pub summary: Option<String>,
    pub message_count: usize,
}

impl View<Conversation> for Interaction {
    fn update(&mut self, event: &EventEnvelope<Conversation>) {
        let Event::Completed {
            reported_at,
            report,
        } = &event.payload;
        let metadata = &report.metadata;
        let phone = metadata.phone_call.as_ref();
        let duration_secs = metadata.call_duration_secs;
        *self = Self {
            id: event.aggregate_id.clone(),
            channel: "call".to_owned(),
            provider: "elevenlabs".to_owned(),
            direction: phone.map(|it| it.direction.clone()),
            status: match report.status.as_str() {
                "failed" => "failed",
                _ => "completed",
            }
            .to_owned(),
            phone_number: phone.map(|it| it.external_number.clone()),
            agent_id: report.agent_id.clone(),
            batch_id: metadata
                .batch_call
                .as_ref()
                .map(|it| it.batch_call_id.clone()),
            conversation_id: report.conversation_id.clone(),
            call_sid: phone.and_then(|it| it.call_sid.clone()),
            started_at: metadata.start_time_unix_secs,
            ended_at: metadata.start_time_unix_secs + TimeDelta::seconds(duration_secs),
            last_event_at: *reported_at,
            duration_secs,
            summary: report.analysis.transcript_summary.clone(),
            message_count: report.transcript.len(),
        };
    }
}
