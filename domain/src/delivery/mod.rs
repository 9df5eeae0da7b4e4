//! What becomes of a delivery beside the facts it holds.

use serde::{Deserialize, Serialize};

use crate::words::vocabulary;

vocabulary! {
    /// What was made of a delivery.
    Verdict {
        /// Authentic, understood, and new: its events are on the ledger.
        Accepted = "accepted",
        /// Authentic, and here before.
        Duplicate = "duplicate",
        /// Authentic, but not understood: kept for a person to look at.
        Quarantined = "quarantined",
        /// Not authentic: kept, within a quota, for the auditor.
        Rejected = "rejected",
    }
}

/// An event of a `delivery` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// It was authentic and could not be understood.
    #[serde(rename = "delivery.quarantined")]
    Quarantined(Quarantined),
}

/// A delivery was put aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Which delivery.
    pub delivery_id: uuid::Uuid,
    /// What could not be understood. Never holds what the delivery said.
    pub reason: String,
}
