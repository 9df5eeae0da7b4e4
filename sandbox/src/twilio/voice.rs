//! Twilio's voice status callbacks, for calls that ElevenLabs places over a Twilio number.

use crate::{
    stamps,
    webhooks::{self, Content, Letter, WebhookKind},
    world::World,
};

/// The service's path for them.
const PATH: &str = "/webhooks/twilio/voice/status";

/// A call, as far as Twilio sees it.
pub(crate) struct Leg {
    pub(crate) call_sid: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) status: &'static str,
    pub(crate) sequence: u32,
    pub(crate) duration_secs: u64,
    pub(crate) sip_code: u16,
}

/// Posts one step of a call's progress.
pub(crate) fn post_progress(world: &mut World, leg: Leg) {
    let over = !matches!(leg.status, "initiated" | "ringing" | "in-progress");
    let mut params = vec![
        ("AccountSid", world.options.twilio_account_sid.clone()),
        ("ApiVersion", "2010-04-01".to_owned()),
        ("CallSid", leg.call_sid.clone()),
        ("CallStatus", leg.status.to_owned()),
        ("Direction", "outbound-api".to_owned()),
        ("From", leg.from.clone()),
        ("To", leg.to.clone()),
        ("Caller", leg.from),
        ("Called", leg.to),
        ("CallbackSource", "call-progress-events".to_owned()),
        ("SequenceNumber", leg.sequence.to_string()),
        ("Timestamp", stamps::rfc2822(world.clock.unix())),
    ];
    if over {
        let billed_minutes = leg.duration_secs.div_ceil(60);
        params.push(("CallDuration", leg.duration_secs.to_string()));
        params.push(("Duration", billed_minutes.to_string()));
        params.push(("SipResponseCode", leg.sip_code.to_string()));
    }
    let owned = params
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let letter = Letter {
        kind: WebhookKind::VoiceStatus,
        entity: leg.call_sid,
        label: leg.status.to_owned(),
        url: format!("{}{PATH}", world.options.public_base()),
        content: Content::Form(owned.collect()),
        delay_ms: 0,
    };
    webhooks::post(world, letter);
}
