//! What can happen to a message. The same events serve a `chat` stream (one
//! WhatsApp conversation) and an `sms` stream (one text message).

use serde::{Deserialize, Serialize};

use super::Status;
use crate::Channel;
use crate::words::vocabulary;

vocabulary! {
    /// What a message carries, beside or instead of text.
    Kind {
        /// Words only.
        Text = "text",
        /// A picture.
        Image = "image",
        /// A sound file.
        Audio = "audio",
        /// A voice note.
        Voice = "voice",
        /// A film.
        Video = "video",
        /// A file.
        Document = "document",
        /// A place on the map.
        Location = "location",
        /// The answer to a button or a list.
        Button = "button",
        /// Media of an unknown sort.
        Media = "media",
        /// A call over WhatsApp: it rang, nothing was said.
        Call = "call",
        /// Whatever else the provider names.
        Other = "other",
    }
}

/// An event of a `chat` or an `sms` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// The client wrote to us.
    #[serde(rename = "message.received")]
    Received(Box<Received>),
    /// We wrote to the client, as the provider saw it.
    #[serde(rename = "message.sent")]
    Sent(Box<Sent>),
    /// The provider told us how far a message of ours has come.
    #[serde(rename = "message.status_changed")]
    StatusChanged(StatusChanged),
}

/// The client wrote to us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// The provider's id; `None` where it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// WhatsApp or SMS.
    pub channel: Channel,
    /// The client's address, E.164 where it is a number. Personal.
    pub contact: String,
    /// The client's name as the provider shows it. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_name: Option<String>,
    /// Our address: a number, or the provider's project id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub our_address: Option<String>,
    /// What the message carries.
    pub kind: Kind,
    /// The words, empty where there are none. Personal.
    #[serde(default)]
    pub content: String,
    /// Files, by address. Personal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
    /// A place. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The button that was pressed. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub button: Option<Button>,
    /// The provider's id of the message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Whether the client passed it on from elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
}

/// We wrote to the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// The provider's id; `None` where it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// WhatsApp or SMS.
    pub channel: Channel,
    /// The client's address, E.164 where it is a number. Personal.
    pub contact: String,
    /// Our address: a number, or the provider's project id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub our_address: Option<String>,
    /// What the message carries.
    pub kind: Kind,
    /// The words. Personal.
    #[serde(default)]
    pub content: String,
    /// Files, by address. Personal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
}

/// How far a message of ours has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusChanged {
    /// The provider's id of the message.
    pub message_id: String,
    /// WhatsApp or SMS.
    pub channel: Channel,
    /// The client's address, E.164 where it is a number. Personal.
    pub contact: String,
    /// Our address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub our_address: Option<String>,
    /// How far it has come.
    pub status: Status,
    /// The provider's code of what went wrong, such as 63016.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The provider's words on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

/// A file that belongs to a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Media {
    /// Where the provider keeps it.
    pub url: String,
    /// Its type, such as `image/jpeg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// A place on the map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// Degrees north, as the provider wrote them.
    pub latitude: String,
    /// Degrees east, as the provider wrote them.
    pub longitude: String,
    /// A street address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A pressed button.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Button {
    /// What it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}
