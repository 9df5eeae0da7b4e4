//! The lines of a file of JSON lines: a header, rows, a footer.

use chrono::{DateTime, Utc};
use domain::log::line::Line;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::order::Order;
use super::pages::Pages;

/// The form of these files.
pub const FORM: &str = "bitacora.export/v1";

/// What the file is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// `header`.
    pub kind: String,
    /// [`FORM`].
    pub form: String,
    /// `interactions`, `events` or `deliveries`.
    pub exported: String,
    /// By which filters.
    pub filter: Map<String, Value>,
    /// The ledger up to this position.
    pub position: i64,
    /// And up to this delivery, by its `seq`.
    pub seq: i64,
    /// Whether numbers are masked, and what providers sent is left out: then
    /// rows are not as they are stored, and prove nothing.
    pub masked: bool,
    /// What the log is called; `None` where rows are not proved.
    #[serde(default)]
    pub origin: Option<String>,
    /// The key by which its heads are checked.
    #[serde(default)]
    pub public_key: Option<String>,
}

/// A row of the ledger. With `leaf`, it is that leaf of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proved {
    /// The row as it is stored.
    #[serde(flatten)]
    pub line: Line,
    /// What is sealed in it, opened: an event's payload as text, a delivery's
    /// body in base64. No part of the row, and not proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<String>,
    /// Which leaf it is, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<u64>,
    /// The roots of the subtrees between the leaf before and this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

impl Proved {
    pub(super) fn unproved(line: Line) -> Self {
        Self {
            line,
            opened: None,
            leaf: None,
            skipped: vec![],
        }
    }
}

/// An interaction as it is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InteractionLine {
    pub kind: &'static str,
    pub id: String,
    pub channel: String,
    pub provider: Option<String>,
    pub direction: Option<String>,
    pub status: String,
    pub phone_number: Option<String>,
    pub agent_id: Option<String>,
    pub batch_id: Option<String>,
    pub conversation_id: Option<String>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub last_event_at: DateTime<Utc>,
    pub duration_secs: Option<i64>,
    pub summary: Option<String>,
    pub message_count: i64,
}

/// A row of any kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Row {
    /// Of the read model.
    Interaction(InteractionLine),
    /// Of the ledger.
    Ledger(Proved),
}

/// The end of the file, without which it is not whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Footer {
    /// How many rows there are.
    pub rows: u64,
    /// The roots of the subtrees behind the last leaf.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// The signed head of the log that all of it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

impl Header {
    pub(super) fn of(order: &Order, pages: &Pages) -> Self {
        let (origin, public_key) = pages.log();
        Self {
            kind: "header".to_owned(),
            form: FORM.to_owned(),
            exported: order.kind().as_str().to_owned(),
            filter: order.described.clone(),
            position: pages.position(),
            seq: pages.seq(),
            masked: order.masked,
            origin,
            public_key,
        }
    }
}
