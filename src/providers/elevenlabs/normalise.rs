//! The post-call webhooks of ElevenLabs as facts of a call.

use std::io;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::read::DecoderReader;
use chrono::{DateTime, Utc};
use domain::call::{AudioReceived, Event, InitiationFailed};
use domain::fact::Identity;
use domain::{Event as AnyEvent, Fact, Provider, StreamId};

use super::transcription;
use super::wire::{CarrierReport, Data, Envelope};
use crate::providers::lenient::{self, Object, Text};
use crate::providers::text::{self, missing, required_id, unknown};
use crate::providers::{Normalised, Webhook, key_of_bytes, key_of_parts};

/// The type of the recordings. Source: the provider's page on post-call audio.
const AUDIO_CONTENT_TYPE: &str = "audio/mpeg";

/// Standard base64, with its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Translates one delivery.
pub(crate) fn normalise(body: &[u8]) -> Normalised {
    let reason = match lenient::object_in::<Envelope<'_>>(body) {
        Ok(envelope) => return understood(envelope, body),
        Err(reason) => reason,
    };
    let mended = lenient::without_half_pairs(body);
    match mended.as_deref().map(lenient::object_in::<Envelope<'_>>) {
        Some(Ok(envelope)) => understood(envelope, body),
        _ => Normalised::new(identity_by_bytes(body), Err(reason)),
    }
}

/// Translates a conversation that we fetched: the document that the webhook
/// brings as its `data`.
pub(crate) fn normalise_conversation(body: &[u8]) -> Normalised {
    let reason = match lenient::object_in::<Data<'_>>(body) {
        Ok(data) => return understood_conversation(data, body),
        Err(reason) => reason,
    };
    let mended = lenient::without_half_pairs(body);
    match mended.as_deref().map(lenient::object_in::<Data<'_>>) {
        Some(Ok(data)) => understood_conversation(data, body),
        _ => Normalised::new(
            Identity::Lasting(key_of_bytes(Webhook::ElevenlabsConversation, body)),
            Err(reason),
        ),
    }
}

/// A recording that we fetched. Its bytes alone do not say whose it is.
pub(crate) fn normalise_recording(
    conversation_id: &str,
    agent_id: Option<&str>,
    ended_at: Option<DateTime<Utc>>,
    body: &[u8],
) -> Normalised {
    let parts = [conversation_id];
    let identity = key_of_parts(Provider::Elevenlabs, "fetched_audio", &parts);
    let event = Event::AudioReceived(AudioReceived {
        conversation_id: conversation_id.to_owned(),
        agent_id: agent_id.map(text::word),
        content_type: AUDIO_CONTENT_TYPE.to_owned(),
        size_bytes: body.len() as u64,
    });
    let fact = Fact {
        stream: StreamId::call(conversation_id),
        event: AnyEvent::Call(event),
        occurred_at: ended_at,
    };
    Normalised::new(Identity::Lasting(identity), Ok(vec![fact]))
}

/// The recording that a delivery brought.
pub(crate) fn audio(body: &[u8]) -> Option<Vec<u8>> {
    let envelope: Envelope<'_> = lenient::object_in(body).ok()?;
    if envelope.kind.as_str() != "post_call_audio" {
        return None;
    }
    let base64 = envelope.data.0?.recording()?;
    BASE64.decode(base64.as_bytes()).ok()
}

fn understood(envelope: Envelope<'_>, body: &[u8]) -> Normalised {
    let Envelope {
        kind,
        event_timestamp,
        data: Object(data),
    } = envelope;
    let at = event_timestamp.0;
    let data = data.ok_or_else(|| missing("data"));
    let id = data
        .as_ref()
        .map_err(String::clone)
        .and_then(|data| required_id(data.conversation_id.0.as_deref(), "conversation_id"));
    let identity = match (&kind.0, &id, at) {
        (Some(kind), Ok(id), Some(at)) => {
            let micros = at.timestamp_micros().to_string();
            let parts = [kind, id.as_str(), &micros];
            Identity::Lasting(key_of_parts(Provider::Elevenlabs, "post_call", &parts))
        }
        _ => identity_by_bytes(body),
    };
    let fact = data.and_then(|data| fact(kind.0.as_deref(), id, data, at));
    Normalised::new(identity, fact.map(|fact| vec![fact]))
}

/// It is known by its id alone: it is fetched once, when it is over. It
/// happened when the call ended, for the document has no time of its own.
fn understood_conversation(data: Data<'_>, body: &[u8]) -> Normalised {
    let id = required_id(data.conversation_id.0.as_deref(), "conversation_id");
    let identity = match &id {
        Ok(id) => key_of_parts(Provider::Elevenlabs, "fetched_conversation", &[id]),
        Err(_) => key_of_bytes(Webhook::ElevenlabsConversation, body),
    };
    let times = data.metadata.0.as_ref();
    let ended_at = times.and_then(|times| {
        let lasted = times.call_duration_secs.0.unwrap_or_default();
        let lasted = chrono::Duration::try_seconds(lasted)?;
        times.start_time_unix_secs.0?.checked_add_signed(lasted)
    });
    let fact = fact(Some("post_call_transcription"), id, data, ended_at);
    Normalised::new(Identity::Lasting(identity), fact.map(|fact| vec![fact]))
}

fn identity_by_bytes(body: &[u8]) -> Identity {
    Identity::Lasting(key_of_bytes(Webhook::ElevenlabsCall, body))
}

fn fact(
    kind: Option<&str>,
    id: Result<String, String>,
    data: Data<'_>,
    at: Option<DateTime<Utc>>,
) -> Result<Fact, String> {
    let stream = id.clone().map(StreamId::call);
    let event = match kind.ok_or_else(|| missing("type"))? {
        "post_call_transcription" => {
            Event::Completed(Box::new(transcription::completed(id?, data)?))
        }
        "post_call_audio" => Event::AudioReceived(audio_received(id?, data)?),
        "call_initiation_failure" => Event::InitiationFailed(initiation_failed(id?, data)),
        other => return Err(unknown("type", other)),
    };
    Ok(Fact {
        stream: stream?,
        event: AnyEvent::Call(event),
        occurred_at: at,
    })
}

fn audio_received(conversation_id: String, mut data: Data<'_>) -> Result<AudioReceived, String> {
    let base64 = data.recording().ok_or_else(|| missing("full_audio"))?;
    // Decoded to nowhere: the bytes stay in the delivery, only their number is
    // told, and a recording that could not be played is noticed now.
    let mut decoded = DecoderReader::new(base64.as_bytes(), &BASE64);
    let size_bytes = io::copy(&mut decoded, &mut io::sink())
        .map_err(|_| "full_audio is not base64".to_owned())?;
    Ok(AudioReceived {
        conversation_id,
        agent_id: data.agent_id.0.map(|it| text::word(&it)),
        content_type: AUDIO_CONTENT_TYPE.to_owned(),
        size_bytes,
    })
}

fn initiation_failed(conversation_id: String, data: Data<'_>) -> InitiationFailed {
    let metadata = data.metadata.0.unwrap_or_default();
    let report = metadata.body.0.unwrap_or_default();
    let (ours, theirs) = numbers(&report);
    let detail = [
        &report.error_reason,
        &report.sip_status,
        &report.error_message,
        &report.call_status,
    ];
    let detail = detail.into_iter().find_map(|it| it.0.as_deref());
    let detail = detail.map(text::remark);
    InitiationFailed {
        conversation_id,
        agent_id: data.agent_id.0.map(|it| text::word(&it)),
        // The provider's own word where it has none.
        reason: text::word(data.failure_reason.0.as_deref().unwrap_or("unknown")),
        call_sid: report
            .twilio_call_sid
            .0
            .or(report.call_sid.0)
            .map(|it| text::word(&it)),
        carrier: metadata.kind.0.map(|it| text::word(&it)),
        phone_number: theirs,
        agent_number: ours,
        sip_status: report.sip_response_code.0.or(report.sip_status_code.0),
        detail,
    }
}

/// Our number and the client's. A call that fails to start is one of ours,
/// unless Twilio says otherwise.
fn numbers(report: &CarrierReport) -> (Option<String>, Option<String>) {
    let number = |twilio: &Text, sip: &Text| {
        let number = twilio.0.as_deref().or(sip.0.as_deref());
        number.map(text::address)
    };
    let from = number(&report.from, &report.from_number);
    let to = number(&report.to, &report.to_number);
    if report.direction.as_str() == "inbound" {
        (to, from)
    } else {
        (from, to)
    }
}
