//! What became of personal data: the keys that it was under were destroyed.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::words::vocabulary;

vocabulary! {
    /// Why it was erased.
    Cause {
        /// The person asked for it.
        Request = "request",
        /// It was kept for as long as it may be.
        Retention = "retention",
    }
}

/// Something that happened to personal data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// Keys were destroyed.
    #[serde(rename = "subject.erased")]
    Erased(Erased),
}

/// Keys were destroyed, and with them all that was under them. Of whom it was
/// is not said: nobody is to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Erased {
    /// The erasure.
    pub erasure_id: Uuid,
    /// Why.
    pub cause: Cause,
    /// Why, in words that name nobody.
    pub reason: String,
    /// Who did it.
    pub erased_by: String,
    /// How many keys.
    pub keys_count: u64,
    /// Which, where they are few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Uuid>,
    /// Of retention: of which channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Of retention: everything before this day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<NaiveDate>,
}
