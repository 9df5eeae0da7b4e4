//! Why an agent gave no answer.

use std::time::Duration;

use crate::providers::http;

/// WebSocket close code: what we sent breaks the provider's rules.
pub(super) const BREAKS_RULES: u16 = 1008;

/// Errors that the same words would meet again in a new session. Whatever else
/// the provider names, and may come to name, is a failure of the moment.
const LASTING: [&str; 9] = [
    "invalid_message",
    "mcp_https_error",
    "mcp_tool_error",
    "missing_dynamic_variable",
    "missing_dynamic_variable_transfer",
    "missing_fields",
    "override_error",
    "safety_violation",
    "value_error",
];

/// Why an agent gave no answer. Its text is fit for logs and events: it has
/// nothing of what was said.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TurnError {
    /// The request for the way in failed, or the socket could not be opened.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The provider ended the session, and said why.
    #[error("the session failed: {}", named(error_type, *code))]
    Session {
        /// The provider's name for it; empty where it gave none.
        error_type: String,
        /// The WebSocket close code.
        code: u16,
        /// The provider's sentence. May repeat what was sent: never log it.
        message: String,
    },
    /// This did not come in time.
    #[error("{0} did not come in time")]
    TimedOut(&'static str),
    /// The session is over.
    #[error("the session is closed")]
    Closed,
}

impl TurnError {
    /// Whether asking again in a new session may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Http(error) => error.is_passing(),
            Self::Session {
                error_type, code, ..
            } => match error_type.as_str() {
                "" => may_pass(*code),
                named => *code != BREAKS_RULES && !LASTING.contains(&named),
            },
            Self::TimedOut(_) | Self::Closed => true,
        }
    }

    /// How long the provider wants to be left alone, if it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Http(http::Error::RateLimited { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }

    /// What happened, without personal data: for logs and events.
    pub fn reason(&self) -> String {
        self.to_string()
    }

    /// Whether the agent forbids what the first frame wants to change of it.
    /// Some servers say so in the close frame alone, by this sentence.
    pub(super) fn is_forbidden_override(&self) -> bool {
        let Self::Session {
            error_type,
            message,
            ..
        } = self
        else {
            return false;
        };
        error_type == "override_error"
            || (error_type.is_empty() && message.starts_with("Override for field"))
    }
}

fn named(error_type: &str, code: u16) -> String {
    match error_type {
        "" => format!("code {code}"),
        named => format!("{named}, code {code}"),
    }
}

/// Whether an end without a name, and perhaps without a code (0), may be of the
/// moment. Source: the IANA registry of close codes; from 3000 on they are the
/// application's.
fn may_pass(code: u16) -> bool {
    const TIMEOUT: u16 = 3008;
    matches!(code, 0 | 1000..=1002 | 1005 | 1006 | 1011..=1014) || code == TIMEOUT
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn session(error_type: &str, code: u16) -> TurnError {
        TurnError::Session {
            error_type: error_type.to_owned(),
            code,
            message: "Ana García, +573001234567".to_owned(),
        }
    }

    fn refused(status: u16) -> TurnError {
        TurnError::Http(http::Error::Refused(http::Refusal {
            status,
            code: String::new(),
            message: "Ana García".to_owned(),
            body: Value::Null,
        }))
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for passing in [
            session("llm_timeout", 1002),
            session("max_duration_exceeded", 1000),
            session("unknown_websocket_crash", 1011),
            session("not_yet_invented", 1002),
            session("", 1011),
            session("", 0),
            TurnError::Closed,
            TurnError::TimedOut("an answer"),
            refused(503),
        ] {
            assert!(passing.is_passing(), "{passing}");
        }
        for lasting in [
            session("override_error", 1008),
            session("missing_dynamic_variable", 1008),
            session("value_error", 1008),
            session("safety_violation", 1002),
            session("not_yet_invented", 1008),
            session("", 1008),
            session("", 3000),
            refused(401),
            refused(404),
            TurnError::Http(http::Error::NotConfigured),
        ] {
            assert!(!lasting.is_passing(), "{lasting}");
        }
    }

    #[test]
    fn a_forbidden_override_is_known_by_its_name_or_its_sentence() {
        let closed = |error_type: &str, message: &str| TurnError::Session {
            error_type: error_type.to_owned(),
            code: BREAKS_RULES,
            message: message.to_owned(),
        };
        let sentence = "Override for field 'text_only' is not allowed by config.";
        assert!(closed("override_error", "").is_forbidden_override());
        assert!(closed("", sentence).is_forbidden_override());
        assert!(!closed("value_error", sentence).is_forbidden_override());
        assert!(!TurnError::Closed.is_forbidden_override());
    }

    #[test]
    fn the_reason_holds_nothing_that_was_said() {
        assert_eq!(
            session("llm_timeout", 1002).reason(),
            "the session failed: llm_timeout, code 1002"
        );
        assert_eq!(session("", 1011).reason(), "the session failed: code 1011");
        assert_eq!(refused(401).reason(), "the provider answered 401");
    }
}
