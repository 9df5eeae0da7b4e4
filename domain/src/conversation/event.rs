//! What can be decided about a conversation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::PhoneNumber;

/// An event of a `conversation` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// A call goes on by WhatsApp.
    #[serde(rename = "conversation.started")]
    Started(Box<Started>),
    /// A person takes over.
    #[serde(rename = "conversation.escalated")]
    Escalated(Changed),
    /// The agent goes on.
    #[serde(rename = "conversation.resumed")]
    Resumed(Changed),
    /// It is over, until the client writes again.
    #[serde(rename = "conversation.closed")]
    Closed(Changed),
    /// A person writes to the client.
    #[serde(rename = "conversation.message_written")]
    MessageWritten(MessageWritten),
}

impl Event {
    /// The event's name in the ledger.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started(_) => "conversation.started",
            Self::Escalated(_) => "conversation.escalated",
            Self::Resumed(_) => "conversation.resumed",
            Self::Closed(_) => "conversation.closed",
            Self::MessageWritten(_) => "conversation.message_written",
        }
    }
}

impl cqrs_es::DomainEvent for Event {
    fn event_type(&self) -> String {
        self.name().to_owned()
    }

    fn event_version(&self) -> String {
        crate::event::version(self.name()).to_owned()
    }
}

/// A call goes on by WhatsApp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The client's number. Personal.
    pub phone_number: PhoneNumber,
    /// The call.
    #[serde(flatten)]
    pub call: Call,
    /// What we write first. Personal.
    pub message: FirstMessage,
    /// Who asked: `service` or `user:7`.
    pub requested_by: String,
}

/// The call that goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The provider's id of the recipient: one first message each.
    pub recipient_id: String,
    /// The client's name. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// The number of the client in its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<i64>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<i64>,
    /// The group's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_name: Option<String>,
    /// The agent that called and goes on.
    pub agent_id: String,
    /// The agent's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// The batch, by the provider's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// The batch's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_name: Option<String>,
    /// The provider's id of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_conversation_id: Option<String>,
    /// What was said, in short. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_summary: Option<String>,
    /// How long it was, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_duration_secs: Option<i64>,
}

/// What we write first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstMessage {
    /// The id of the effect that sends it.
    pub effect_id: String,
    /// The words; of a template, what it stands for.
    pub content: String,
    /// The template that goes instead of the words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
}

/// A message that the provider keeps and we fill in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The provider's id of it (`HX…`).
    pub content_sid: String,
    /// What to fill in, by place.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
}

/// Somebody changed who speaks for us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Who: `user:7` or `service`.
    pub by: String,
    /// Why. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A person writes to the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageWritten {
    /// The id of the effect that sends it.
    pub effect_id: String,
    /// The client's number. Personal.
    pub phone_number: PhoneNumber,
    /// The words. Personal.
    pub content: String,
    /// Who: `user:7` or `service`.
    pub by: String,
}
