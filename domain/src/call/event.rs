//! What can happen to a call.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Direction;
use crate::words::vocabulary;

vocabulary! {
    /// How a call stands. The words are those of batch recipients too.
    Outcome {
        /// Not begun.
        Pending = "pending",
        /// Ringing or being talked on.
        InProgress = "in_progress",
        /// It was talked on and has ended.
        Completed = "completed",
        /// Given up before it was answered.
        Cancelled = "cancelled",
        /// Busy, unanswered, refused, or broken.
        Failed = "failed",
        /// A machine answered.
        Voicemail = "voicemail",
    }
}

vocabulary! {
    /// What an agent's session was held over.
    Medium {
        /// Sound: a telephone or a browser.
        Voice = "voice",
        /// The provider's own WhatsApp connection.
        Whatsapp = "whatsapp",
        /// The provider's own SMS connection.
        Sms = "sms",
        /// Text with no telephone behind it, such as the sessions that answer
        /// WhatsApp messages for us.
        Text = "text",
    }
}

/// An event of a `call` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// The provider's report of a finished session, its analysis included.
    #[serde(rename = "call.completed")]
    Completed(Box<Completed>),
    /// The recording came; its bytes stay in the delivery.
    #[serde(rename = "call.audio_received")]
    AudioReceived(AudioReceived),
    /// The call could not be started.
    #[serde(rename = "call.initiation_failed")]
    InitiationFailed(InitiationFailed),
    /// The telephone leg changed its state.
    #[serde(rename = "call.progressed")]
    Progressed(Progressed),
}

/// The provider's report of a finished session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// The provider's id of the session.
    pub conversation_id: String,
    /// The agent that spoke.
    pub agent_id: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// How it ended, in our words.
    pub outcome: Outcome,
    /// How it ended, in the provider's word (`done`, `failed`, …).
    pub provider_status: String,
    /// What it was held over.
    pub medium: Medium,
    /// Who called whom; `None` where there was no telephone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The telephone leg's id at the carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_sid: Option<String>,
    /// The carrier, in the provider's word (`twilio`, `sip_trunking`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// The client's number. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// Our number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_number: Option<String>,
    /// The provider's id of our number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number_id: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// How long it lasted, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_secs: Option<i64>,
    /// What it cost, in the provider's credits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_credits: Option<i64>,
    /// Why it ended, in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_reason: Option<String>,
    /// What went wrong, in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The language spoken, as the provider names it (`es`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Whether a recording exists at the provider.
    #[serde(default)]
    pub has_audio: bool,
    /// The provider's verdict: `success`, `failure` or `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_successful: Option<String>,
    /// The provider's summary. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The summary's title. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary_title: Option<String>,
    /// Evaluation criteria and collected data, by id, as the provider has
    /// them: `{"evaluation_criteria_results":{…},"data_collection_results":{…}}`.
    /// Personal.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub analysis: Map<String, Value>,
    /// The batch it was part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// The recipient of the batch it went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_recipient_id: Option<String>,
    /// The variables the agent was given. Personal.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub dynamic_variables: Map<String, Value>,
    /// What was said, in order. Personal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transcript: Vec<Turn>,
}

/// One turn of a transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// `user` or `agent`, as the provider has it.
    pub role: String,
    /// The words; `None` where the turn only used a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Seconds from the beginning of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_in_call_secs: Option<i64>,
    /// Names of the tools that were called or answered in this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
}

/// A recording came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioReceived {
    /// The provider's id of the session.
    pub conversation_id: String,
    /// The agent that spoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The type of its bytes, `audio/mpeg`.
    pub content_type: String,
    /// Its size once decoded, in bytes.
    pub size_bytes: u64,
}

/// A call could not be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitiationFailed {
    /// The provider's id of the session.
    pub conversation_id: String,
    /// The agent that would have spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// `busy`, `no-answer`, `unknown`, or what else the provider says.
    pub reason: String,
    /// The telephone leg's id at the carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_sid: Option<String>,
    /// The carrier (`twilio`, `sip`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// The client's number. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// Our number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_number: Option<String>,
    /// The SIP response, such as 486.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip_status: Option<i64>,
    /// What the carrier said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The telephone leg changed its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progressed {
    /// The telephone leg's id at the carrier.
    pub call_sid: String,
    /// How the call stands, in our words.
    pub outcome: Outcome,
    /// How it stands, in the carrier's word (`ringing`, `no-answer`, …).
    pub provider_status: String,
    /// The carrier's count of its callbacks for this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<i64>,
    /// Who called whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The client's number. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// Our number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_number: Option<String>,
    /// How long it lasted, in seconds, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_secs: Option<i64>,
    /// The SIP response, such as 487.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip_status: Option<i64>,
    /// Where the carrier keeps a recording. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording_url: Option<String>,
}
