//! Whether a stored delivery's signature is right: checked again over the bytes
//! that are kept, as of the time at which it came.

use crate::config::Config;
use crate::ledger::deliveries::Detail;
use crate::providers::{self, Authentication, Rejection, Webhook};

/// What a second check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether the delivery brought a signature.
    pub present: bool,
    /// Whether it is right; `None` where there is none, or nothing to check it
    /// with.
    pub valid: Option<bool>,
    /// Why it is not, or cannot be, found right.
    pub reason: Option<String>,
}

/// Why there is nothing to check.
const ERASED: &str = "the body was erased";

/// Checks a delivery as it was checked on arrival, but with today's secrets:
/// one that was rotated away makes an old signature wrong.
pub fn check(config: &Config, detail: &Detail) -> Checked {
    let absent = Checked {
        present: false,
        valid: None,
        reason: None,
    };
    let Some(webhook) = Webhook::named(&detail.summary.route) else {
        return absent;
    };
    let Some(name) = providers::signature_header(webhook.provider()) else {
        return absent;
    };
    let Some(signature) = detail.headers.get(name).and_then(|value| value.as_str()) else {
        return absent;
    };
    let unknown = |reason: String| Checked {
        present: true,
        valid: None,
        reason: Some(reason),
    };
    if detail.is_erased {
        return unknown(ERASED.to_owned());
    }
    let headers: Vec<(&str, &[u8])> = vec![(name, signature.as_bytes())];
    let request = providers::Request {
        headers: &headers,
        path_and_query: &detail.request_target,
        body: &detail.body,
        public_url: &config.public_url,
        received_at: detail.summary.received_at,
    };
    match providers::authenticate(webhook, &config.provider_secrets, &request) {
        Ok(Authentication::Signature) => Checked {
            present: true,
            valid: Some(true),
            reason: None,
        },
        // No key of this provider is set any more.
        Err(none @ (Rejection::NothingConfigured | Rejection::MissingCredential)) => {
            unknown(none.to_string())
        }
        Ok(Authentication::Token) => unknown(Rejection::MissingCredential.to_string()),
        Err(rejection) => Checked {
            present: true,
            valid: Some(false),
            reason: Some(rejection.to_string()),
        },
    }
}
