//! Bodies as the providers send them: `tests/fixtures/`.

use super::Webhook::{self, *};

macro_rules! fixtures {
    ($($webhook:ident { $($path:literal),+ $(,)? })+) => {
        /// Every body with the webhook it comes by.
        pub(super) const ALL: &[(Webhook, &str, &[u8])] = &[
            $($(($webhook, $path, include_bytes!(concat!("../../tests/fixtures/", $path)))),+),+
        ];
    };
}

fixtures! {
    ElevenlabsCall {
        "elevenlabs/post_call_transcription.json",
        "elevenlabs/post_call_transcription.exotel.json",
        "elevenlabs/post_call_transcription.sip_trunking.json",
        "elevenlabs/post_call_transcription.exclude_transcript.json",
        "elevenlabs/post_call_transcription.opentelemetry.json",
        "elevenlabs/post_call_transcription.documentation.json",
        "elevenlabs/post_call_transcription.whatsapp.json",
        "elevenlabs/post_call_transcription.sms.json",
        "elevenlabs/post_call_transcription.text_only.json",
        "elevenlabs/post_call_transcription.voicemail_tool.json",
        "elevenlabs/post_call_audio.json",
        "elevenlabs/call_initiation_failure.twilio.json",
        "elevenlabs/call_initiation_failure.sip.json",
        "elevenlabs/call_initiation_failure.exotel.json",
        "elevenlabs/unknown_type.json",
    }
    TwilioIncoming {
        "twilio/sms.inbound.form",
        "twilio/sms.inbound.mms.form",
        "twilio/whatsapp.inbound.text.form",
        "twilio/whatsapp.inbound.text.json",
        "twilio/whatsapp.inbound.media.form",
        "twilio/whatsapp.inbound.voice.form",
        "twilio/whatsapp.inbound.location.form",
        "twilio/whatsapp.inbound.button.form",
        "twilio/whatsapp.inbound.button_reply.form",
        "twilio/whatsapp.inbound.flow.form",
        "twilio/whatsapp.inbound.reply_forwarded.form",
    }
    TwilioSmsStatus {
        "twilio/sms.status.sent.form",
        "twilio/sms.status.delivered.form",
        "twilio/sms.status.undelivered.form",
        "twilio/whatsapp.status.sent.form",
        "twilio/whatsapp.status.delivered.form",
        "twilio/whatsapp.status.read.form",
        "twilio/whatsapp.status.undelivered_63016.form",
    }
    TwilioVoiceStatus {
        "twilio/voice.status.completed.form",
        "twilio/voice.status.ringing_inbound.form",
        "twilio/voice.status.no_answer.form",
    }
    BuilderbotWhatsapp {
        "builderbot/message.incoming.json",
        "builderbot/message.incoming.media.json",
        "builderbot/message.incoming.baileys.json",
        "builderbot/message.incoming.voice_note.json",
        "builderbot/message.incoming.document.json",
        "builderbot/message.incoming.location.json",
        "builderbot/message.incoming.group.json",
        "builderbot/message.outgoing.json",
        "builderbot/message.outgoing.to.json",
        "builderbot/message.calling.json",
        "builderbot/status.ready.json",
        "builderbot/status.require_action.json",
        "builderbot/status.disconnect.json",
    }
}

/// The signatures that the official SDKs made of them.
pub(super) const SIGNATURE_VECTORS: &str =
    include_str!("../../tests/fixtures/signature_vectors.json");

/// One body.
pub(super) fn body(path: &str) -> &'static [u8] {
    let found = ALL.iter().find(|(_, it, _)| *it == path);
    found
        .unwrap_or_else(|| panic!("there is no fixture {path}"))
        .2
}

/// The key under which tests look people up.
pub(super) fn index() -> domain::PhoneIndex {
    domain::PhoneIndex::new(b"for tests")
}

/// The one fact of a body, and the identity.
pub(super) fn fact_of(
    webhook: Webhook,
    body: &[u8],
) -> (domain::fact::Identity, domain::fact::Fact) {
    let normalised = super::normalise(webhook, body, None, &index());
    match normalised.outcome {
        super::Outcome::Facts(facts) => {
            let [fact] = <[_; 1]>::try_from(facts).expect("one fact");
            (normalised.identity, fact)
        }
        super::Outcome::Quarantined { reason } => panic!("quarantined: {reason}"),
    }
}

/// The reason for which a body is quarantined.
pub(super) fn reason_of(webhook: Webhook, body: &[u8]) -> String {
    match super::normalise(webhook, body, None, &index()).outcome {
        super::Outcome::Quarantined { reason } => reason,
        super::Outcome::Facts(facts) => panic!("not quarantined: {facts:?}"),
    }
}
