//! Rows of the ledger as lines of JSON, such that the leaf can be recomputed
//! from the line: the texts of JSON columns are there as they are stored.

use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tlog_tiles::Hash;
use uuid::Uuid;

use super::leaf::{DeliveryLeaf, EventLeaf};

/// A row, by its `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// An event.
    Event(EventLine),
    /// A delivery.
    Delivery(DeliveryLine),
}

/// An event as a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// Place in the one total order.
    pub position: i64,
    /// Kind of aggregate.
    pub aggregate_type: String,
    /// The aggregate.
    pub aggregate_id: String,
    /// Place in its stream.
    pub sequence: i64,
    /// Name.
    pub event_type: String,
    /// Version.
    pub event_version: String,
    /// The JSON text as it is stored, in a string.
    pub payload: String,
    /// The JSON text as it is stored, in a string.
    pub metadata: String,
    /// By the provider's word.
    #[serde(default, with = "optional_micros")]
    pub occurred_at: Option<i64>,
    /// When the ledger took it.
    #[serde(with = "micros")]
    pub recorded_at: i64,
    /// The delivery that brought it.
    #[serde(default)]
    pub delivery_id: Option<Uuid>,
}

/// A delivery as a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryLine {
    /// UUID version 7.
    pub id: Uuid,
    /// Place among the deliveries.
    pub seq: i64,
    /// Whose.
    pub provider: String,
    /// Which webhook.
    pub route: String,
    /// What was made of it.
    pub verdict: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// By what it was found authentic.
    pub authentication: String,
    /// Base64.
    #[serde(default, with = "base64_bytes")]
    pub dedup_key: Option<Vec<u8>>,
    /// Base64.
    #[serde(default, with = "base64_bytes")]
    pub repeat_key: Option<Vec<u8>>,
    /// The first of its kind.
    #[serde(default)]
    pub duplicate_of: Option<Uuid>,
    /// What it is a second reading of.
    #[serde(default)]
    pub reprocess_of: Option<Uuid>,
    /// Of its last event.
    #[serde(default)]
    pub position: Option<i64>,
    /// When it came.
    #[serde(with = "micros")]
    pub received_at: i64,
    /// Where from.
    #[serde(default)]
    pub remote_addr: Option<String>,
    /// Path and query.
    pub request_target: String,
    /// The JSON text as it is stored, in a string.
    pub headers: String,
    /// Base64 of what is stored; null where it is that of another delivery.
    #[serde(default, with = "base64_bytes")]
    pub body: Option<Vec<u8>>,
    /// Its size.
    pub body_bytes: i64,
}

impl Line {
    /// The entry that the leaf is the hash of.
    pub fn entry(&self) -> Vec<u8> {
        match self {
            Self::Event(event) => event.leaf().entry(),
            Self::Delivery(delivery) => delivery.leaf().entry(),
        }
    }

    /// The leaf.
    pub fn hash(&self) -> Hash {
        match self {
            Self::Event(event) => event.leaf().hash(),
            Self::Delivery(delivery) => delivery.leaf().hash(),
        }
    }
}

impl EventLine {
    /// What the leaf commits to.
    pub fn leaf(&self) -> EventLeaf<'_> {
        EventLeaf {
            position: self.position,
            aggregate_type: self.aggregate_type.as_bytes(),
            aggregate_id: self.aggregate_id.as_bytes(),
            sequence: self.sequence,
            event_type: self.event_type.as_bytes(),
            event_version: self.event_version.as_bytes(),
            payload: self.payload.as_bytes(),
            metadata: self.metadata.as_bytes(),
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            delivery_id: self.delivery_id.map(Uuid::into_bytes),
        }
    }

    /// The line of a stored row. What is no UTF-8 PostgreSQL does not hold as text.
    pub fn of(leaf: &EventLeaf<'_>) -> Self {
        Self {
            position: leaf.position,
            aggregate_type: text(leaf.aggregate_type),
            aggregate_id: text(leaf.aggregate_id),
            sequence: leaf.sequence,
            event_type: text(leaf.event_type),
            event_version: text(leaf.event_version),
            payload: text(leaf.payload),
            metadata: text(leaf.metadata),
            occurred_at: leaf.occurred_at,
            recorded_at: leaf.recorded_at,
            delivery_id: leaf.delivery_id.map(Uuid::from_bytes),
        }
    }
}

impl DeliveryLine {
    /// What the leaf commits to.
    pub fn leaf(&self) -> DeliveryLeaf<'_> {
        DeliveryLeaf {
            id: self.id.into_bytes(),
            seq: self.seq,
            provider: self.provider.as_bytes(),
            route: self.route.as_bytes(),
            verdict: self.verdict.as_bytes(),
            reason: self.reason.as_deref().map(str::as_bytes),
            authentication: self.authentication.as_bytes(),
            dedup_key: self.dedup_key.as_deref(),
            repeat_key: self.repeat_key.as_deref(),
            duplicate_of: self.duplicate_of.map(Uuid::into_bytes),
            reprocess_of: self.reprocess_of.map(Uuid::into_bytes),
            position: self.position,
            received_at: self.received_at,
            remote_addr: self.remote_addr.as_deref().map(str::as_bytes),
            request_target: self.request_target.as_bytes(),
            headers: self.headers.as_bytes(),
            body: self.body.as_deref(),
            body_bytes: self.body_bytes,
        }
    }

    /// The line of a stored row, as [`EventLine::of`].
    pub fn of(leaf: &DeliveryLeaf<'_>) -> Self {
        Self {
            id: Uuid::from_bytes(leaf.id),
            seq: leaf.seq,
            provider: text(leaf.provider),
            route: text(leaf.route),
            verdict: text(leaf.verdict),
            reason: leaf.reason.map(text),
            authentication: text(leaf.authentication),
            dedup_key: leaf.dedup_key.map(<[u8]>::to_vec),
            repeat_key: leaf.repeat_key.map(<[u8]>::to_vec),
            duplicate_of: leaf.duplicate_of.map(Uuid::from_bytes),
            reprocess_of: leaf.reprocess_of.map(Uuid::from_bytes),
            position: leaf.position,
            received_at: leaf.received_at,
            remote_addr: leaf.remote_addr.map(text),
            request_target: text(leaf.request_target),
            headers: text(leaf.headers),
            body: leaf.body.map(<[u8]>::to_vec),
            body_bytes: leaf.body_bytes,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Times as RFC 3339 in UTC with six decimals; microseconds since 1970 inside.
mod micros {
    use super::{DateTime, Deserialize, Deserializer, SecondsFormat, Serializer, Utc};

    pub(super) fn serialize<S: Serializer>(micros: &i64, out: S) -> Result<S::Ok, S::Error> {
        let at = DateTime::from_timestamp_micros(*micros);
        let at = at.ok_or_else(|| serde::ser::Error::custom("a time out of range"))?;
        out.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(given: D) -> Result<i64, D::Error> {
        DateTime::<Utc>::deserialize(given).map(|at| at.timestamp_micros())
    }
}

mod optional_micros {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc, micros};

    pub(super) fn serialize<S: Serializer>(
        micros: &Option<i64>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match micros {
            Some(micros) => micros::serialize(micros, out),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        given: D,
    ) -> Result<Option<i64>, D::Error> {
        let at = Option::<DateTime<Utc>>::deserialize(given)?;
        Ok(at.map(|at| at.timestamp_micros()))
    }
}

mod base64_bytes {
    use base64::Engine as _;

    use super::{Deserialize, Deserializer, STANDARD, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => out.serialize_str(&STANDARD.encode(bytes)),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        given: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(given)? else {
            return Ok(None);
        };
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(Some(bytes))
    }
}
