//! How conversations are shown: the fields of the replaced service, and more.

use std::collections::HashMap;

use chrono::DateTime;
use domain::phone::{mask, mask_in, mask_json};
use poem_openapi::Object;
use poem_openapi::types::Example;
use projections::conversations::{Answer, Context, Conversation, Message};
use serde_json::{Value, json};

use crate::http::time::{self, Time};

/// A conversation as it is listed.
#[derive(Debug, Object)]
#[oai(rename = "Conversation", example)]
pub struct ConversationView {
    /// Its id, which serves in the place of the number where that is masked.
    id: String,
    /// The client's number.
    phone_number: String,
    /// The client's name.
    client_name: Option<String>,
    /// `active`: the agent answers; `escalated`: a person has taken over; `closed`: nobody, until the client writes.
    status: String,
    /// ElevenLabs' conversation: the call, or without one the last session of text.
    elevenlabs_conversation_id: Option<String>,
    /// The agent that answers.
    agent_id: Option<String>,
    /// The batch of the call.
    batch_id: Option<String>,
    /// The recipient in it.
    recipient_id: Option<String>,
    /// What was said in the call.
    call_summary: Option<String>,
    /// How long the call was.
    call_duration_secs: Option<i64>,
    /// When we last wrote after a call; without one, the first message.
    started_at: Time,
    /// When something was last written or sent.
    last_message_at: Time,
    /// When it was closed, while it is.
    closed_at: Option<Time>,
    /// How many messages there are, both ways.
    message_count: i64,
    /// When the client wrote last. For 24 hours after it WhatsApp lets us write freely.
    last_inbound_at: Option<Time>,
    /// Through which the client wrote last: `twilio` or `builderbot`.
    last_provider: Option<String>,
    /// Whether the client asked for no more messages: then none is sent.
    opted_out: bool,
    /// The person who has taken over: `user:7`.
    escalated_by: Option<String>,
    /// More on the call: `batch_name`, `group_id`, `group_name`, `client_id`, `agent_name`; and `text_session_id`.
    metadata: Value,
}

impl Example for ConversationView {
    fn example() -> Self {
        let at = |unix_secs| Time(DateTime::from_timestamp(unix_secs, 0).unwrap_or_default());
        let text = |text: &str| Some(text.to_owned());
        Self {
            id: "conv_local_0f3c9a2b7d5e4c61a8f0b1c2d3e4f506".to_owned(),
            phone_number: "+573001234567".to_owned(),
            client_name: text("Ana García"),
            status: "active".to_owned(),
            elevenlabs_conversation_id: text("conv_9601k8pjchj6fnvamdmbsvdq5ptv"),
            agent_id: text("agent_4701k8fcsvhaes5s1h6tw894g98s"),
            batch_id: text("btcal_9201k8pjch8teq3t428mqt82xe3d"),
            recipient_id: text("rcpt_1901k8pjch8ve1c9v4d3jbmqamtn"),
            call_summary: text("Ana pidió el precio del plan Premium."),
            call_duration_secs: Some(94),
            started_at: at(1_761_694_474),
            last_message_at: at(1_761_695_115),
            closed_at: None,
            message_count: 3,
            last_inbound_at: Some(at(1_761_695_112)),
            last_provider: text("twilio"),
            opted_out: false,
            escalated_by: None,
            metadata: json!({
                "batch_name": "Llamada test ana 4 - 28/10/2025", "group_id": 5,
                "group_name": "Campaña Octubre", "client_id": 42,
                "agent_name": "Agente Admin - test ana 4"
            }),
        }
    }
}

impl ConversationView {
    /// As it is shown, with the number masked where it must be.
    pub fn of(row: Conversation, masked: bool) -> Self {
        let metadata = serde_json::to_value(&row.metadata).unwrap_or_default();
        let number = row.phone_number;
        let hide = |text: Option<String>| match masked {
            true => text.map(|text| mask_in(&text, &number)),
            false => text,
        };
        Self {
            client_name: hide(row.client_name),
            call_summary: hide(row.call_summary),
            metadata: match masked {
                true => mask_json(&metadata, &number),
                false => metadata,
            },
            phone_number: match masked {
                true => mask(&number),
                false => number.clone(),
            },
            id: row.id,
            status: row.status.to_string(),
            elevenlabs_conversation_id: row.elevenlabs_conversation_id,
            agent_id: row.agent_id,
            batch_id: row.batch_id,
            recipient_id: row.recipient_id,
            call_duration_secs: row.call_duration_secs,
            started_at: row.started_at.into(),
            last_message_at: row.last_message_at.into(),
            closed_at: time::optional(row.closed_at),
            message_count: row.message_count,
            last_inbound_at: time::optional(row.last_inbound_at),
            last_provider: row.last_provider.map(|provider| provider.to_string()),
            opted_out: row.opted_out,
            escalated_by: row.escalated_by,
        }
    }
}

/// A message of a conversation.
#[derive(Debug, Object)]
#[oai(rename = "ConversationMessage", example)]
pub struct MessageView {
    /// Of a client's message the provider's id, or `ev-` and its position; of ours that of the effect.
    id: String,
    /// `inbound` or `outbound`.
    direction: String,
    /// The words; of a template, what it stands for.
    content: String,
    /// When it was written.
    timestamp: Time,
    /// `received`; or `queued`, `sent`, `delivered`, `read`, `failed`, `undelivered`, `dropped` (not sent after all).
    status: String,
    /// `client`, `agent`, `first` (the message after a call), `person:user:7`, or `external`: sent by somebody else
    /// through the provider.
    author: String,
    /// `text`, `image`, `audio`, `voice`, `video`, `document`, `location`, `button`, …
    kind: String,
    /// Files: `url`, `content_type`.
    media: Value,
    /// What only some messages have: `location`, `button`, `reply_to`, `forwarded`, `content_sid`,
    /// `duplicate_message_id`.
    metadata: Value,
    /// The message that this one answers, by its id.
    in_reply_to: Option<String>,
    /// Of a client's message what becomes of the agent's answer to it: `waiting`, `answered`, `failed` (given up, see
    /// `/api/effects`), `dropped` (not wanted any more); `null` where none is owed.
    answer: Option<String>,
    /// `twilio` or `builderbot`.
    provider: Option<String>,
    /// The provider's id of a message of ours.
    provider_message_id: Option<String>,
    /// The provider's code of what went wrong.
    error_code: Option<String>,
    /// What went wrong.
    error_message: Option<String>,
    /// When the provider took it.
    sent_at: Option<Time>,
    /// When it reached the client.
    delivered_at: Option<Time>,
    /// When the client read it.
    read_at: Option<Time>,
}

impl Example for MessageView {
    fn example() -> Self {
        let at = Time(DateTime::from_timestamp(1_761_695_115, 0).unwrap_or_default());
        Self {
            id: "turn_4711.1".to_owned(),
            direction: "outbound".to_owned(),
            content: "El plan Premium cuesta $99/mes...".to_owned(),
            timestamp: at,
            status: "delivered".to_owned(),
            author: "agent".to_owned(),
            kind: "text".to_owned(),
            media: json!([]),
            metadata: json!({}),
            in_reply_to: Some("SM0987654321fedcba".to_owned()),
            answer: None,
            provider: Some("twilio".to_owned()),
            provider_message_id: Some("SM1234567890abcdef".to_owned()),
            error_code: None,
            error_message: None,
            sent_at: Some(at),
            delivered_at: Some(at),
            read_at: None,
        }
    }
}

impl MessageView {
    fn of(row: Message, answer: Option<Answer>, number: Option<&str>) -> Self {
        let json = |value: serde_json::Result<Value>| {
            let value = value.unwrap_or_default();
            number.map_or_else(|| value.clone(), |number| mask_json(&value, number))
        };
        let hide = |text: String| match number {
            Some(number) => mask_in(&text, number),
            None => text,
        };
        let provider_message_id = row.metadata.provider_message_id.clone();
        Self {
            media: json(serde_json::to_value(&row.media)),
            metadata: json(serde_json::to_value(&row.metadata)),
            id: row.id,
            direction: row.direction.to_string(),
            content: hide(row.content),
            timestamp: row.created_at.into(),
            status: row.status.to_string(),
            author: row.author,
            kind: row.kind.to_string(),
            in_reply_to: row.in_reply_to,
            answer: answer.map(|answer| answer.as_str().to_owned()),
            provider: row.provider.map(|provider| provider.to_string()),
            provider_message_id: row.twilio_message_id.or(provider_message_id),
            error_code: row.error_code,
            error_message: row.error_message.map(hide),
            sent_at: time::optional(row.sent_at),
            delivered_at: time::optional(row.delivered_at),
            read_at: time::optional(row.read_at),
        }
    }
}

/// A conversation with its messages.
#[derive(Debug, Object)]
#[oai(rename = "ConversationDetail")]
pub struct DetailView {
    /// What is listed of it.
    #[oai(flatten)]
    row: ConversationView,
    /// Its newest messages, in the order in which they were written.
    messages: Vec<MessageView>,
}

/// What the replaced service answers for one conversation.
#[derive(Debug, Object)]
#[oai(rename = "ConversationAnswer", example)]
pub struct Found {
    /// Always `true`.
    success: bool,
    /// The conversation.
    conversation: DetailView,
}

impl Example for Found {
    fn example() -> Self {
        Self {
            success: true,
            conversation: DetailView {
                row: ConversationView::example(),
                messages: vec![MessageView::example()],
            },
        }
    }
}

impl Found {
    /// As it is shown, with the number masked where it must be.
    pub fn of(found: Context, answers: &HashMap<String, Answer>, masked: bool) -> Self {
        let number = found.conversation.phone_number.clone();
        let number = masked.then_some(number.as_str());
        let messages = found.messages.into_iter();
        let messages = messages.map(|row| {
            let answer = answers.get(&row.id).copied();
            MessageView::of(row, answer, number)
        });
        Self {
            success: true,
            conversation: DetailView {
                messages: messages.collect(),
                row: ConversationView::of(found.conversation, masked),
            },
        }
    }
}
