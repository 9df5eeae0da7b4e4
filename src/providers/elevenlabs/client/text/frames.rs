//! The frames of a text-only session, as JSON. Source: the provider's AsyncAPI
//! document and PROVIDERS.md, section 2.5.
//!
//! What is missing or of another kind counts as not said, and frames that mean
//! nothing to a chat are one: [`Frame::Other`].

use serde_json::{Value, json};

use super::Opening;
use super::error::TurnError;
use crate::providers::lenient::{self, Scalar};
use crate::providers::text;

/// Most characters of a name that the provider gives to an error.
const NAME_CHARS_MAX: usize = 64;

/// What the provider sends.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// The session is open.
    Metadata { conversation_id: String },
    /// The provider asks whether we are there.
    Ping { event_id: Value },
    /// The agent has begun to say something, goes on or stops.
    Part { event_id: Option<i64>, part: Part },
    /// The agent types, or has stopped to.
    Typing { on: bool },
    /// The agent has said something.
    Response { event_id: Option<i64>, text: String },
    /// The agent has changed what it said.
    Correction {
        event_id: Option<i64>,
        original: String,
        corrected: String,
    },
    /// The agent wants us to do something and waits for it.
    ClientTool { tool_call_id: String },
    /// A tool wants a person's leave, which no one here can give.
    Approval { tool_call_id: String },
    /// The agent does something before it goes on.
    Tool,
    /// The agent's turn is over.
    TurnOver,
    /// The session is about to be closed.
    Failure(TurnError),
    /// Anything else.
    Other,
}

/// What is streamed of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    Start,
    Delta,
    Stop,
}

/// Reads a frame.
pub(super) fn read(frame: &str) -> Frame {
    let Ok(frame) = lenient::object::<Value>(frame.as_bytes()) else {
        return Frame::Other;
    };
    match frame["type"].as_str().unwrap_or_default() {
        "conversation_initiation_metadata" => {
            let event = &frame["conversation_initiation_metadata_event"];
            match said(&event["conversation_id"]) {
                conversation_id if text::is_id(&conversation_id) => {
                    Frame::Metadata { conversation_id }
                }
                _ => Frame::Other,
            }
        }
        "ping" => Frame::Ping {
            event_id: frame["ping_event"]["event_id"].clone(),
        },
        "agent_chat_response_part" => part(&frame["text_response_part"]),
        "agent_reasoning_response_part" => part(&frame["reasoning_response_part"]),
        "agent_typing" => Frame::Typing {
            on: frame["agent_typing_event"]["is_typing"] != false,
        },
        "agent_response" => {
            let event = &frame["agent_response_event"];
            Frame::Response {
                event_id: whole(&event["event_id"]),
                text: said(&event["agent_response"]),
            }
        }
        "agent_response_correction" => {
            let event = &frame["agent_response_correction_event"];
            Frame::Correction {
                event_id: whole(&event["event_id"]),
                original: said(&event["original_agent_response"]),
                corrected: said(&event["corrected_agent_response"]),
            }
        }
        "client_tool_call" => Frame::ClientTool {
            tool_call_id: said(&frame["client_tool_call"]["tool_call_id"]),
        },
        kind @ ("agent_tool_request"
        | "agent_tool_response"
        | "agent_tool_response_full_payload") => tool(&frame[kind]),
        "mcp_tool_call" => mcp_tool(&frame["mcp_tool_call"]),
        "context_usage" => Frame::TurnOver,
        "error" => Frame::Failure(failure(&frame["error_event"])),
        _ => Frame::Other,
    }
}

fn part(part: &Value) -> Frame {
    Frame::Part {
        event_id: whole(&part["event_id"]),
        part: match part["type"].as_str() {
            Some("start") => Part::Start,
            Some("stop") => Part::Stop,
            _ => Part::Delta,
        },
    }
}

/// After a tool of the provider's own, such as the end of the conversation,
/// the agent need not speak; after any other it goes on.
fn tool(tool: &Value) -> Frame {
    if tool["tool_type"] == "system" {
        return Frame::Other;
    }
    Frame::Tool
}

fn mcp_tool(tool: &Value) -> Frame {
    if tool["state"] != "awaiting_approval" {
        return Frame::Tool;
    }
    Frame::Approval {
        tool_call_id: said(&tool["tool_call_id"]),
    }
}

fn failure(event: &Value) -> TurnError {
    let code = whole(&event["code"]).and_then(|code| u16::try_from(code).ok());
    TurnError::Session {
        error_type: name(&event["error_type"]),
        code: code.unwrap_or_default(),
        message: said(&event["message"]),
    }
}

/// A name that the provider gives to something, and nothing else: it is logged.
fn name(value: &Value) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    let name = value.as_str().unwrap_or_default();
    if name.len() <= NAME_CHARS_MAX && name.chars().all(plain) {
        name.to_owned()
    } else {
        String::new()
    }
}

fn said(value: &Value) -> String {
    Scalar::from(value).into_text().unwrap_or_default()
}

fn whole(value: &Value) -> Option<i64> {
    Scalar::from(value).whole()
}

/// Our first frame. Without `text_only` nothing of the agent is changed.
pub(super) fn hello(opening: &Opening, text_only: bool) -> String {
    let mut hello = json!({
        "type": "conversation_initiation_client_data",
        "dynamic_variables": opening.dynamic_variables,
        "user_id": opening.user_id,
        "source_info": {"source": "bitacora", "version": env!("CARGO_PKG_VERSION")},
    });
    if text_only {
        hello["conversation_config_override"] = json!({"conversation": {"text_only": true}});
    }
    hello.to_string()
}

/// What the person says.
pub(super) fn user_message(text: &str) -> String {
    json!({"type": "user_message", "text": text}).to_string()
}

/// What the agent should know and need not answer.
pub(super) fn contextual_update(text: &str) -> String {
    json!({"type": "contextual_update", "text": text}).to_string()
}

/// That we are there.
pub(super) fn pong(event_id: &Value) -> String {
    json!({"type": "pong", "event_id": event_id}).to_string()
}

/// That there is no such tool here.
pub(super) fn tool_refusal(tool_call_id: &str) -> String {
    json!({
        "type": "client_tool_result",
        "tool_call_id": tool_call_id,
        "result": "not available in a chat",
        "is_error": true,
    })
    .to_string()
}

/// That the tool may not be used.
pub(super) fn disapproval(tool_call_id: &str) -> String {
    json!({
        "type": "mcp_tool_approval_result",
        "tool_call_id": tool_call_id,
        "is_approved": false,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_frame_or_means_nothing_is_other() {
        for other in [
            "",
            "{",
            "[]",
            "null",
            r#"{"type":7}"#,
            r#"{"type":"interruption","interruption_event":{"event_id":1}}"#,
            r#"{"type":"guardrail_triggered"}"#,
            r#"{"type":"agent_tool_request","agent_tool_request":{"tool_type":"system"}}"#,
            r#"{"type":"conversation_initiation_metadata"}"#,
        ] {
            assert_eq!(read(other), Frame::Other, "{other}");
        }
    }

    #[test]
    fn what_is_streamed_or_typed_is_told() {
        for (kind, part) in [
            (r#""start""#, Part::Start),
            (r#""delta""#, Part::Delta),
            (r#""stop""#, Part::Stop),
            ("null", Part::Delta),
        ] {
            let frame = format!(
                r#"{{"type":"agent_chat_response_part",
                "text_response_part":{{"type":{kind},"event_id":2}}}}"#
            );
            let event_id = Some(2);
            assert_eq!(read(&frame), Frame::Part { event_id, part }, "{kind}");
        }
        let typing = r#"{"type":"agent_typing"}"#;
        assert_eq!(read(typing), Frame::Typing { on: true });
        let typing = r#"{"type":"agent_typing","agent_typing_event":{"is_typing":false}}"#;
        assert_eq!(read(typing), Frame::Typing { on: false });
    }

    #[test]
    fn fields_may_be_missing_or_of_another_kind() {
        let response = |event_id, text: &str| Frame::Response {
            event_id,
            text: text.to_owned(),
        };
        let frame = r#"{"type":"agent_response","agent_response_event":
            {"agent_response":"a\u0000b","event_id":"3"}}"#;
        assert_eq!(read(frame), response(Some(3), "a\u{fffd}b"));
        assert_eq!(read(r#"{"type":"agent_response"}"#), response(None, ""));
        let nameless = r#"{"type":"error","error_event":
            {"code":"1011","error_type":"Ana García","message":null}}"#;
        let expected = TurnError::Session {
            error_type: String::new(),
            code: 1011,
            message: String::new(),
        };
        assert_eq!(read(nameless), Frame::Failure(expected));
    }

    #[test]
    fn the_first_frame_says_who_asks_and_for_text_alone() {
        let variables = json!({"client_name": "Ana"});
        let opening = Opening {
            agent_id: "agent_1".to_owned(),
            user_id: "contact-42".to_owned(),
            dynamic_variables: variables.as_object().cloned().unwrap_or_default(),
            context: Some("not in this frame".to_owned()),
        };
        let frame = |text_only| -> Value {
            serde_json::from_str(&hello(&opening, text_only)).unwrap_or_default()
        };
        let mut expected = json!({
            "type": "conversation_initiation_client_data",
            "conversation_config_override": {"conversation": {"text_only": true}},
            "dynamic_variables": {"client_name": "Ana"},
            "user_id": "contact-42",
            "source_info": {"source": "bitacora", "version": env!("CARGO_PKG_VERSION")},
        });
        assert_eq!(frame(true), expected);
        expected
            .as_object_mut()
            .unwrap()
            .remove("conversation_config_override");
        assert_eq!(frame(false), expected);
    }
}
