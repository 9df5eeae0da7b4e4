//! What an attempt came to, before it is on the ledger.

use std::time::Duration;

use domain::effect::{Answered, Remedy, Sent};

use crate::providers::http;
use crate::providers::twilio::refusals;

/// What an attempt came to.
pub(super) enum Outcome {
    /// The provider took the message.
    Sent(Box<Sent>),
    /// The agent answered.
    Answered(Box<Answered>),
    /// It surely came to nothing.
    Failed(Failure),
    /// It may have arrived.
    Uncertain(String),
}

/// An attempt that surely came to nothing.
pub(super) struct Failure {
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    /// Personal: the provider's words may repeat the number.
    pub(super) message: String,
    pub(super) remedy: Remedy,
    /// What the provider wants to be waited.
    pub(super) retry_after: Option<Duration>,
}

impl Outcome {
    /// For the metrics.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Sent(_) => "sent",
            Self::Answered(_) => "answered",
            Self::Failed(_) => "failed",
            Self::Uncertain(_) => "uncertain",
        }
    }
}

impl Failure {
    /// A failure that no provider told us of.
    pub(super) fn ours(remedy: Remedy, message: &str) -> Self {
        Self {
            status: None,
            code: None,
            message: message.to_owned(),
            remedy,
            retry_after: None,
        }
    }

    /// A request for a message that surely had no effect.
    pub(super) fn of(error: &http::Error) -> Self {
        let refusal = error.refusal();
        let code = refusal.map(|it| it.code.clone());
        let code = code.filter(|code| !code.is_empty());
        let words = refusal.map(|it| it.message.clone());
        Self {
            status: error.status(),
            message: words
                .filter(|words| !words.is_empty())
                .unwrap_or_else(|| error.to_string()),
            // The code says more than the status: a daily cap is a 429 too.
            remedy: match refusals::known(code.as_deref().unwrap_or_default()) {
                Some(remedy) => remedy,
                None if error.is_passing() => Remedy::Retry,
                None => Remedy::DeadLetter,
            },
            retry_after: match error {
                http::Error::RateLimited { retry_after, .. } => *retry_after,
                _ => None,
            },
            code,
        }
    }
}
