//! The webhooks that tell of a conversation's end.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    audio,
    conversation::{CallLeg, Conversation},
    document,
};
use crate::{
    stamps,
    webhooks::{self, Content, Letter, WebhookKind},
    world::World,
};

/// The service's path for them.
const PATH: &str = "/webhooks/elevenlabs/call";

/// The recording follows the transcription by so much.
const AUDIO_DELAY_MS: u64 = 5_000;

/// A conversation has been analysed: its transcription, and its recording if it has one.
pub(super) fn done(world: &mut World, at: usize) {
    let conversation = &world.elevenlabs.conversations[at];
    if conversation.call().is_none() && !world.options.text_session_webhooks {
        return;
    }
    let data = document::detail(world, conversation);
    let recording = (conversation.has_audio() && world.options.elevenlabs_audio)
        .then(|| recording(conversation));
    post(
        world,
        at,
        WebhookKind::Transcription,
        "post_call_transcription",
        data,
        0,
    );
    if let Some(data) = recording {
        post(
            world,
            at,
            WebhookKind::Audio,
            "post_call_audio",
            data,
            AUDIO_DELAY_MS,
        );
    }
}

fn recording(conversation: &Conversation) -> Value {
    json!({
        "agent_id": conversation.agent_id,
        "conversation_id": conversation.id,
        "full_audio": STANDARD.encode(audio::recording(&conversation.id)),
    })
}

/// A call reached no one. Nothing in it names the batch.
pub(super) fn failure(world: &mut World, at: usize) {
    let conversation = &world.elevenlabs.conversations[at];
    let Some(call) = conversation.call() else {
        return;
    };
    let (kind, body) = if call.sip_trunk {
        ("sip", sip_failure(call))
    } else {
        ("twilio", twilio_failure(world, call))
    };
    let data = json!({
        "agent_id": conversation.agent_id,
        "conversation_id": conversation.id,
        "failure_reason": call.fate.outcome.failure_reason(),
        "metadata": {"type": kind, "body": body},
    });
    post(
        world,
        at,
        WebhookKind::CallFailure,
        "call_initiation_failure",
        data,
        0,
    );
}

fn sip_failure(call: &CallLeg) -> Value {
    let (code, words) = call.fate.outcome.sip();
    json!({
        "from_number": call.agent_number,
        "to_number": call.phone_number,
        "sip_status_code": code,
        "error_reason": format!("INVITE failed: sip status: {code}: {words} (SIP {code})"),
        "call_sid": call.call_sid,
        "sip_status": words,
        "twirp_code": "unavailable",
    })
}

fn twilio_failure(world: &World, call: &CallLeg) -> Value {
    json!({
        "AccountSid": world.options.twilio_account_sid,
        "ApiVersion": "2010-04-01",
        "CallSid": call.call_sid,
        "CallStatus": call.fate.outcome.twilio_status(),
        "CallbackSource": "call-progress-events",
        "CallDuration": "0",
        "Duration": "0",
        "Direction": "outbound-api",
        "From": call.agent_number,
        "To": call.phone_number,
        "Caller": call.agent_number,
        "Called": call.phone_number,
        "SequenceNumber": "2",
        "SipResponseCode": call.fate.outcome.sip().0.to_string(),
        "Timestamp": stamps::rfc2822(world.clock.unix()),
    })
}

fn post(world: &mut World, at: usize, kind: WebhookKind, label: &str, data: Value, delay_ms: u64) {
    let body = json!({
        "type": label,
        "event_timestamp": world.clock.unix(),
        "data": data,
    });
    let letter = Letter {
        kind,
        entity: world.elevenlabs.conversations[at].id.clone(),
        label: label.to_owned(),
        url: format!("{}{PATH}", world.options.public_base()),
        content: Content::Json(Bytes::from(body.to_string())),
        delay_ms,
    };
    webhooks::post(world, letter);
}
