//! What may be appended, and what became of it.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::delivery::Verdict;
use domain::fact::Identity;
use domain::{Fact, Provider};
use uuid::Uuid;

/// One HTTP request that a provider made to us.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// UUID version 7.
    pub id: Uuid,
    /// Whose it is.
    pub provider: Provider,
    /// Which webhook, such as `elevenlabs/call`.
    pub route: &'static str,
    /// By what it was found authentic, or why not.
    pub authentication: String,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Where from.
    pub remote_addr: Option<String>,
    /// Path and query, without secrets.
    pub request_target: String,
    /// A JSON object of the headers, without secrets.
    pub headers: String,
    /// Byte for byte.
    pub body: Bytes,
    /// The delivery of which this is a second reading.
    pub reprocess_of: Option<Uuid>,
}

/// What is to be made of a delivery.
#[derive(Clone, Debug)]
pub enum Claim {
    /// It was understood.
    Facts {
        /// What makes it the same as another.
        identity: Identity,
        /// What it says.
        facts: Vec<Fact>,
    },
    /// It is authentic, and was not understood.
    Quarantined {
        /// What makes it the same as another.
        identity: Identity,
        /// What could not be understood.
        reason: String,
    },
    /// It is not authentic.
    Rejected {
        /// Why not.
        reason: String,
    },
}

/// Something to append.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A delivery, with what is to be made of it.
    Delivery(Box<Delivery>, Claim),
    /// Facts of our own, such as audit records, with their metadata.
    Facts(Vec<Fact>, serde_json::Value),
}

/// What became of an entry, once it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What was made of it; `None` when a rejection was over the quota.
    pub verdict: Option<Verdict>,
    /// The delivery; of a duplicate, the first one's.
    pub delivery_id: Option<Uuid>,
    /// The position of its last event; of a duplicate, the first one's.
    pub position: Option<i64>,
}
