//! What the providers send us: whether it is authentic ([`authenticate`]) and
//! what it says ([`normalise`]); and what we ask of them ([`elevenlabs::client`],
//! [`twilio::client`], [`builderbot::client`]).
//!
//! Everything that is known of a provider is in this module and nowhere else.
//! All but the clients is pure: no clock, no socket, no database, no HTTP
//! framework; the time of receipt and the secrets are passed in.
//!
//! Invariant: an authentic delivery is never lost. [`normalise`] makes facts
//! of it or says why it could not; it never fails and never panics.

mod authentic;
pub mod builderbot;
pub mod elevenlabs;
#[cfg(test)]
mod fixtures;
pub mod http;
mod lenient;
#[cfg(test)]
mod properties;
mod text;
pub mod twilio;

use chrono::{DateTime, Utc};
use domain::fact::{DedupKey, Fact, Identity};
use domain::{PhoneIndex, Provider};

pub use authentic::{
    Authentication, Credentials, Rejection, Secrets, authenticate, may_be_authentic,
    signature_header,
};

/// Most bytes of a body that ElevenLabs may send: recordings come as base64.
const ELEVENLABS_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes of any other body.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The webhooks there are. Contract, section 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Webhook {
    /// `POST /webhooks/elevenlabs/call`
    ElevenlabsCall,
    /// `POST /webhooks/builderbot/whatsapp`
    BuilderbotWhatsapp,
    /// `POST /webhooks/twilio/sms/status`: of SMS and WhatsApp messages.
    TwilioSmsStatus,
    /// `POST /webhook/twilio/incoming`: SMS and WhatsApp messages.
    TwilioIncoming,
    /// `POST /webhooks/twilio/voice/status`
    TwilioVoiceStatus,
    /// A conversation that we fetched because its webhook did not come.
    ElevenlabsConversation,
    /// A recording that we fetched because its webhook did not come.
    ElevenlabsAudio,
}

impl Webhook {
    /// Every webhook that has a route.
    pub const ALL: &[Self] = &[
        Self::ElevenlabsCall,
        Self::BuilderbotWhatsapp,
        Self::TwilioSmsStatus,
        Self::TwilioIncoming,
        Self::TwilioVoiceStatus,
    ];

    /// What we fetched ourselves where a webhook was missing. It came by no
    /// route and nobody else can send it.
    pub const FETCHED: &[Self] = &[Self::ElevenlabsConversation, Self::ElevenlabsAudio];

    /// Who sends it.
    pub const fn provider(self) -> Provider {
        match self {
            Self::ElevenlabsCall | Self::ElevenlabsConversation | Self::ElevenlabsAudio => {
                Provider::Elevenlabs
            }
            Self::BuilderbotWhatsapp => Provider::Builderbot,
            Self::TwilioSmsStatus | Self::TwilioIncoming | Self::TwilioVoiceStatus => {
                Provider::Twilio
            }
        }
    }

    /// The name under which its deliveries are stored. Never changed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ElevenlabsCall => "elevenlabs/call",
            Self::BuilderbotWhatsapp => "builderbot/whatsapp",
            Self::TwilioSmsStatus => "twilio/sms_status",
            Self::TwilioIncoming => "twilio/incoming",
            Self::TwilioVoiceStatus => "twilio/voice_status",
            Self::ElevenlabsConversation => "elevenlabs/conversation",
            Self::ElevenlabsAudio => "elevenlabs/audio",
        }
    }

    /// The webhook of a stored delivery, by its [`name`](Self::name).
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().chain(Self::FETCHED).copied();
        all.find(|it| it.name() == name)
    }

    /// Most bytes that its body may have.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::ElevenlabsCall => ELEVENLABS_BODY_BYTES_MAX,
            _ => BODY_BYTES_MAX,
        }
    }
}

/// A request as far as its authenticity depends on it. It can be made from a
/// stored delivery as well, to check a signature again.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Names, in any case, and values of the headers.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// What the request line said: the path, and `?` and the query if any.
    pub path_and_query: &'a str,
    /// The body's bytes, unchanged.
    pub body: &'a [u8],
    /// Scheme, host and, if any, port and path under which the provider
    /// reaches us: `https://cc.example.com`.
    pub public_url: &'a str,
    /// When we received it.
    pub received_at: DateTime<Utc>,
}

/// What a delivery says, and what makes another one the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalised {
    /// What makes another delivery a duplicate of this one.
    pub identity: Identity,
    /// What it says.
    pub outcome: Outcome,
}

/// What could be made of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was understood: one fact at least.
    Facts(Vec<Fact>),
    /// It was not.
    Quarantined {
        /// What is missing or unknown. Holds nothing of what the delivery
        /// says, but for the name of an unknown type.
        reason: String,
    },
}

impl Normalised {
    fn new(identity: Identity, facts: Result<Vec<Fact>, String>) -> Self {
        let outcome = match facts {
            Ok(facts) => Outcome::Facts(facts),
            Err(reason) => Outcome::Quarantined { reason },
        };
        Self { identity, outcome }
    }
}

/// Translates a delivery into facts. Lenient: only what a fact cannot do
/// without must be there; what it does not know it leaves in the raw delivery.
pub fn normalise(
    webhook: Webhook,
    body: &[u8],
    content_type: Option<&str>,
    index: &PhoneIndex,
) -> Normalised {
    match webhook {
        Webhook::ElevenlabsCall => elevenlabs::normalise(body),
        Webhook::ElevenlabsConversation => elevenlabs::normalise_conversation(body),
        // See `recording`: the bytes do not say of which call they are.
        Webhook::ElevenlabsAudio => Normalised::new(
            Identity::Lasting(key_of_bytes(webhook, body)),
            Err(text::missing("conversation_id")),
        ),
        Webhook::BuilderbotWhatsapp => builderbot::normalise(body, index),
        Webhook::TwilioSmsStatus | Webhook::TwilioIncoming | Webhook::TwilioVoiceStatus => {
            twilio::normalise(webhook, body, content_type, index)
        }
    }
}

/// Translates a recording that we fetched for a conversation: bare MP3.
pub fn recording(
    conversation_id: &str,
    agent_id: Option<&str>,
    ended_at: Option<DateTime<Utc>>,
    body: &[u8],
) -> Normalised {
    elevenlabs::normalise_recording(conversation_id, agent_id, ended_at, body)
}

/// The recording that a delivery brought, decoded: MP3. `None` where it
/// brought none.
pub fn audio(webhook: Webhook, body: &[u8]) -> Option<Vec<u8>> {
    match webhook {
        Webhook::ElevenlabsCall => elevenlabs::audio(body),
        Webhook::ElevenlabsAudio => Some(body.to_vec()),
        _ => None,
    }
}

/// The key of a delivery that only its bytes can tell from others.
fn key_of_bytes(webhook: Webhook, body: &[u8]) -> DedupKey {
    let provider = webhook.provider().as_str();
    DedupKey::of([
        provider.as_bytes(),
        b"bytes",
        webhook.name().as_bytes(),
        body,
    ])
}

/// The key of a delivery that its provider's ids tell from others. `kind`
/// keeps webhooks of one provider apart.
fn key_of_parts(provider: Provider, kind: &str, parts: &[&str]) -> DedupKey {
    let head = [provider.as_str(), kind];
    DedupKey::of(head.iter().chain(parts).map(|part| part.as_bytes()))
}
