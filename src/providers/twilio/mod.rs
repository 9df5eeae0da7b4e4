//! Twilio: SMS, WhatsApp and telephone legs. Its webhooks are forms. A client
//! of its Messages API, and what to do about each of its refusals.
//! Source: `twilio.com/docs/messaging/guides/webhook-request` and
//! `twilio.com/docs/usage/webhooks/webhooks-security`.

pub mod client;
mod message;
mod params;
pub mod refusals;
mod verify;
mod voice;

use domain::fact::{DedupKey, Identity};
use domain::{Fact, PhoneIndex, Provider};

use super::{Normalised, Webhook, key_of_bytes, key_of_parts};
use params::Params;
pub(super) use verify::{SIGNATURE_HEADER, check_header, verify};

/// Translates one delivery.
pub(super) fn normalise(
    webhook: Webhook,
    body: &[u8],
    content_type: Option<&str>,
    index: &PhoneIndex,
) -> Normalised {
    let understood = match Params::read(body, content_type) {
        Err(reason) => Understood::unidentified(reason),
        Ok(params) => match webhook {
            Webhook::TwilioIncoming => message::received(&params, index),
            Webhook::TwilioVoiceStatus => voice::progressed(&params),
            _ => message::status_changed(&params, index),
        },
    };
    let key = understood
        .key
        .unwrap_or_else(|| key_of_bytes(webhook, body));
    Normalised::new(Identity::Lasting(key), understood.fact.map(|it| vec![it]))
}

/// What could be made of the parameters.
struct Understood {
    /// What tells the delivery from others; `None` where only its bytes do.
    key: Option<DedupKey>,
    /// What it says, or why we cannot tell.
    fact: Result<Fact, String>,
}

impl Understood {
    fn new(kind: &str, parts: &[&str], fact: Result<Fact, String>) -> Self {
        Self {
            key: Some(key_of_parts(Provider::Twilio, kind, parts)),
            fact,
        }
    }

    fn unidentified(reason: String) -> Self {
        Self {
            key: None,
            fact: Err(reason),
        }
    }
}
