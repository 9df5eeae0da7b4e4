//! Facts: what a provider told us, ready for the ledger.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::{Event, PhoneIndex, Provider};

/// Whose events these are: one aggregate's stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// The kind of aggregate, such as `call`.
    pub aggregate_type: &'static str,
    /// Its id, unique within the kind, and free of personal data.
    pub aggregate_id: String,
}

impl StreamId {
    /// A telephone call, by the provider's id of it (`conv_…`, `CA…`).
    pub fn call(provider_id: impl Into<String>) -> Self {
        Self {
            aggregate_type: "call",
            aggregate_id: provider_id.into(),
        }
    }

    /// A text message, by the provider's id of it (`SM…`).
    pub fn sms(provider_id: impl Into<String>) -> Self {
        Self {
            aggregate_type: "sms",
            aggregate_id: provider_id.into(),
        }
    }

    /// The WhatsApp conversation with one contact through one provider.
    pub fn chat(provider: Provider, contact: &str, index: &PhoneIndex) -> Self {
        Self {
            aggregate_type: "chat",
            aggregate_id: format!("wa_{}", index.key(&format!("{provider}:{contact}"))),
        }
    }

    /// A connection of ours to WhatsApp, by the provider's project id.
    pub fn line(provider_id: impl Into<String>) -> Self {
        Self {
            aggregate_type: "line",
            aggregate_id: provider_id.into(),
        }
    }

    /// A batch, by our own id of it.
    pub fn batch(id: impl Into<String>) -> Self {
        Self {
            aggregate_type: "batch",
            aggregate_id: id.into(),
        }
    }

    /// A group of clients, by its number.
    pub fn group(id: i32) -> Self {
        Self {
            aggregate_type: "group",
            aggregate_id: id.to_string(),
        }
    }

    /// A one-time code, by the id of its challenge.
    pub fn otp(challenge_id: impl Into<String>) -> Self {
        Self {
            aggregate_type: "otp",
            aggregate_id: challenge_id.into(),
        }
    }

    /// What we owe the outside, by its id.
    pub fn effect(id: impl Into<String>) -> Self {
        Self {
            aggregate_type: "effect",
            aggregate_id: id.into(),
        }
    }

    /// What became of one delivery.
    pub fn delivery(id: uuid::Uuid) -> Self {
        Self {
            aggregate_type: "delivery",
            aggregate_id: id.to_string(),
        }
    }

    /// What one caller of ours did.
    pub fn audit(actor: impl Into<String>) -> Self {
        Self {
            aggregate_type: "audit",
            aggregate_id: actor.into(),
        }
    }
}

/// An event with its place and time, not yet on the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// What happened.
    pub event: Event,
    /// When, by the provider's word; `None` where it gives no time, and then
    /// the time of receipt counts.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// What makes two deliveries the same. Contract, section 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The same for ever.
    Lasting(DedupKey),
    /// The same within [`REPEAT_WINDOW_MINUTES`] of the first; later it is a
    /// legitimate repeat (a person may write the same words twice).
    Windowed(DedupKey),
}

impl Identity {
    /// The digest behind it.
    pub const fn key(&self) -> DedupKey {
        match self {
            Self::Lasting(key) | Self::Windowed(key) => *key,
        }
    }
}

/// How long the same bytes count as the same delivery, where the provider
/// gives nothing better to tell repeats by.
pub const REPEAT_WINDOW_MINUTES: i64 = 10;

/// A digest (128 bits) of a delivery's identifying parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedupKey(pub [u8; 16]);

impl DedupKey {
    /// The digest of parts in their order. Each part is preceded by its
    /// length, so `("ab", "c")` and `("a", "bc")` differ.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }
}
