//! Our own connections to WhatsApp, whose health the providers report.

use serde::{Deserialize, Serialize};

/// An event of a `line` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// The connection came up, went down, or wants a person to act.
    #[serde(rename = "line.status_changed")]
    StatusChanged(StatusChanged),
}

/// The connection's new state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusChanged {
    /// The provider's id of the connection.
    pub line_id: String,
    /// `ready`, `online`, `require_action` or `disconnect`, in builderbot's
    /// words.
    pub status: String,
    /// Why, where the provider says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
