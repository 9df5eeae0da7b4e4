//! The seed's way to an agent: one request a turn, in the conversation of the
//! call. The provider does not offer it today (PROVIDERS.md, section 2.5).

use reqwest::Method;
use serde_json::{Value, json};

use super::error::TurnError;
use super::turn::is_blank;
use crate::providers::elevenlabs::client::Client;
use crate::providers::http::Error;
use crate::providers::lenient::{self, Scalar};

/// Where an answer may be: no document says.
const ANSWERS: [&str; 5] = ["response", "message", "text", "answer", "agent_response"];

impl Client {
    /// Says something in a conversation and returns the agent's answer. Sent
    /// once, whatever comes.
    ///
    /// # Errors
    /// [`TurnError::Http`]: 404 as long as the provider does not offer it; an
    /// answer without words is [`Error::Uncertain`].
    pub async fn message(&self, conversation_id: &str, text: &str) -> Result<String, TurnError> {
        let request = self.request(Method::POST, &["conversations", conversation_id, "message"])?;
        let body = json!({"message": text, "mode": "text"});
        let body = self.http.act(request.json(&body)).await?;
        answer(&body).ok_or(Error::Uncertain("the answer has no words").into())
    }
}

fn answer(body: &[u8]) -> Option<String> {
    let body: Value = lenient::object(body).ok()?;
    let said = |name: &&str| {
        let text = match &body[*name] {
            Value::Object(parts) => Scalar::from(parts.get("text")?).into_text()?,
            Value::String(text) => Scalar::Text(text.into()).into_text()?,
            _ => return None,
        };
        (!is_blank(&text)).then_some(text)
    };
    ANSWERS.iter().find_map(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_wherever_it_is() {
        let found = |body: &str| answer(body.as_bytes());
        for body in [
            r#"{"response":"Hola"}"#,
            r#"{"message":{"text":"Hola","role":"agent"}}"#,
            r#"{"text":"Hola","message":7}"#,
            r#"{"answer":"Hola","response":""}"#,
            r#"{"agent_response":"Hola","text":null,"answer":"..."}"#,
        ] {
            assert_eq!(found(body).as_deref(), Some("Hola"), "{body}");
        }
        for body in ["", "[]", "{}", r#"{"response":true}"#, r#"{"text":{}}"#] {
            assert_eq!(found(body), None, "{body}");
        }
    }
}
