//! The JSON that ElevenLabs sends, as far as we use it.
//!
//! One struct serves every `type`, for `type` may come after `data` and a body
//! of 32 MiB is read once. What is not named here is skipped unread and stays
//! in the raw delivery. Every field may be missing, null or of another kind:
//! the provider's pages and its schema do not agree.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::providers::lenient::{Flag, Instant, List, Object, Scalar, Text, Whole};

/// The whole body.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Envelope<'a> {
    #[serde(rename = "type")]
    pub kind: Text,
    pub event_timestamp: Instant,
    #[serde(borrow)]
    pub data: Object<Data<'a>>,
}

/// What every `type` may hold.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Data<'a> {
    pub conversation_id: Text,
    pub agent_id: Text,
    pub metadata: Object<Metadata>,
    // post_call_transcription
    pub agent_name: Text,
    pub status: Text,
    pub has_audio: Flag,
    pub transcript: List<Object<Turn>>,
    pub analysis: Object<Analysis>,
    pub conversation_initiation_client_data: Object<ClientData>,
    // post_call_audio
    #[serde(borrow)]
    pub full_audio: Scalar<'a>,
    // call_initiation_failure
    pub failure_reason: Text,
}

impl<'a> Data<'a> {
    /// The recording in base64, without a copy where JSON escapes nothing.
    pub(super) fn recording(&mut self) -> Option<Cow<'a, str>> {
        match std::mem::take(&mut self.full_audio) {
            Scalar::Text(base64) if !base64.is_empty() => Some(base64),
            _ => None,
        }
    }
}

/// `metadata` of a transcription, and of a failure (`type`, `body`).
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub start_time_unix_secs: Instant,
    pub call_duration_secs: Whole,
    pub cost: Whole,
    pub phone_call: Object<PhoneCall>,
    pub batch_call: Object<BatchCall>,
    pub termination_reason: Text,
    pub error: Failure,
    pub main_language: Text,
    pub text_only: Flag,
    pub conversation_initiation_source: Text,
    pub whatsapp: Object<Whatsapp>,
    pub sms: Object<Sms>,
    #[serde(rename = "type")]
    pub kind: Text,
    pub body: Object<CarrierReport>,
}

/// The telephone leg: `twilio`, `exotel` or `sip_trunking`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct PhoneCall {
    #[serde(rename = "type")]
    pub kind: Text,
    pub direction: Text,
    pub phone_number_id: Text,
    pub agent_number: Text,
    pub external_number: Text,
    pub call_sid: Text,
    pub call_result: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct BatchCall {
    pub batch_call_id: Text,
    pub batch_call_recipient_id: Text,
}

/// The provider's own WhatsApp connection.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Whatsapp {
    pub direction: Text,
    pub whatsapp_phone_number_id: Text,
    pub whatsapp_user_id: Text,
    pub call_result: Text,
}

/// The provider's own SMS connection.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Sms {
    pub direction: Text,
    pub phone_number_id: Text,
    pub sms_user_phone_number: Text,
    pub agent_phone_number: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Analysis {
    pub call_successful: Text,
    pub transcript_summary: Text,
    pub call_summary_title: Text,
    pub evaluation_criteria_results: Object<Map<String, Value>>,
    pub data_collection_results: Object<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ClientData {
    pub dynamic_variables: Object<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Turn {
    pub role: Text,
    pub message: Text,
    pub time_in_call_secs: Whole,
    pub tool_calls: List<Object<ToolCall>>,
    pub tool_results: List<Object<ToolResult>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ToolCall {
    pub tool_name: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ToolResult {
    pub tool_name: Text,
    pub is_error: Flag,
    pub result: Object<SystemResult>,
}

/// The result of one of the provider's own tools.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SystemResult {
    pub result_type: Text,
}

/// `error`: an object by the schema; a text does as well.
#[derive(Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct Failure(pub Option<String>);

impl From<Value> for Failure {
    fn from(error: Value) -> Self {
        let part = |name: &str| Scalar::from(&error[name]).into_text();
        let words = match (part("code"), part("reason")) {
            (Some(code), Some(reason)) => Some(format!("{code}: {reason}")),
            (code, reason) => reason.or(code).or_else(|| Scalar::from(&error).into_text()),
        };
        Self(words)
    }
}

/// What the carrier said of a call that could not be started. The first names
/// are Twilio's (a voice status callback), the others those of a SIP trunk.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CarrierReport {
    #[serde(rename = "CallSid")]
    pub twilio_call_sid: Text,
    #[serde(rename = "CallStatus")]
    pub call_status: Text,
    #[serde(rename = "Direction")]
    pub direction: Text,
    #[serde(rename = "From")]
    pub from: Text,
    #[serde(rename = "To")]
    pub to: Text,
    #[serde(rename = "SipResponseCode")]
    pub sip_response_code: Whole,
    #[serde(rename = "ErrorMessage")]
    pub error_message: Text,
    pub call_sid: Text,
    pub from_number: Text,
    pub to_number: Text,
    pub sip_status_code: Whole,
    pub sip_status: Text,
    pub error_reason: Text,
}
