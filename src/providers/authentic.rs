//! Whether a delivery comes from whom it says. Contract, section 1.
//!
//! A token in a header or the provider's own signature: either will do, but a
//! signature that is there must be right. Secrets are compared in constant
//! time and appear in no error and no log.

use std::fmt;

use domain::Provider;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{Request, Webhook, builderbot, elevenlabs, twilio};

/// The header that carries a token, whoever the provider is.
const TOKEN_HEADER: &str = "x-webhook-token";

/// What authenticates one provider. Several of a kind: a rotation is under
/// way, and each is good.
#[derive(Clone, Default)]
pub struct Credentials {
    tokens: Vec<String>,
    signing_keys: Vec<String>,
}

impl Credentials {
    /// Credentials of these tokens and keys, each taken verbatim. Empty ones
    /// are left out: an empty secret would open the door to everybody.
    pub fn new(
        tokens: impl IntoIterator<Item = String>,
        signing_keys: impl IntoIterator<Item = String>,
    ) -> Self {
        let filled = |secret: &String| !secret.is_empty();
        Self {
            tokens: tokens.into_iter().filter(filled).collect(),
            signing_keys: signing_keys.into_iter().filter(filled).collect(),
        }
    }

    /// Whether nothing is configured, so that nothing can be authentic.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.signing_keys.is_empty()
    }

    /// Whether one of the tokens is this one, in a time that tells nothing of
    /// them: digests are compared, all of them, to the end.
    fn has_token(&self, presented: &[u8]) -> bool {
        let presented = Sha256::digest(presented);
        let found = self.tokens.iter().fold(Choice::from(0), |found, token| {
            found | Sha256::digest(token).ct_eq(&presented)
        });
        found.into()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tokens, keys) = (self.tokens.len(), self.signing_keys.len());
        write!(f, "Credentials({tokens} tokens, {keys} signing keys)")
    }
}

/// What authenticates each provider.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// `ELEVENLABS_WEBHOOK_TOKEN`, `ELEVENLABS_WEBHOOK_SECRET`
    pub elevenlabs: Credentials,
    /// `TWILIO_WEBHOOK_TOKEN`, `TWILIO_AUTH_TOKEN`
    pub twilio: Credentials,
    /// `BUILDERBOT_WEBHOOK_TOKEN`; builderbot signs nothing.
    pub builderbot: Credentials,
}

impl Secrets {
    /// What authenticates this provider.
    pub fn of(&self, provider: Provider) -> &Credentials {
        match provider {
            Provider::Elevenlabs => &self.elevenlabs,
            Provider::Twilio => &self.twilio,
            Provider::Builderbot => &self.builderbot,
        }
    }
}

/// What showed a delivery to be authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// The token.
    Token,
    /// The provider's signature.
    Signature,
}

/// Why a delivery is not authentic. Holds nothing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// We were given nothing to check it with.
    #[error("neither a token nor a signing key is configured for this provider")]
    NothingConfigured,
    /// It came with nothing that we could check.
    #[error("it has neither a token nor a signature that a configured key could check")]
    MissingCredential,
    /// Its token is none of ours.
    #[error("its token is not the configured one")]
    WrongToken,
    /// Its signature header is not of the provider's form.
    #[error("its signature header is malformed")]
    MalformedSignature,
    /// No key of ours makes that signature of that request.
    #[error("its signature does not match: another key, another URL, or a changed body")]
    WrongSignature,
    /// The address it was signed for holds the digest of another body.
    #[error("its body is not the one whose bodySHA256 was signed")]
    WrongBodyDigest,
    /// It may be a recording of an old one.
    #[error("its signature is more than 30 minutes old")]
    SignatureTooOld,
    /// The clocks do not agree.
    #[error("its signature is from more than 5 minutes in the future")]
    SignatureFromTheFuture,
}

impl Rejection {
    /// The reason's stable name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NothingConfigured => "nothing_configured",
            Self::MissingCredential => "missing_credential",
            Self::WrongToken => "wrong_token",
            Self::MalformedSignature => "malformed_signature",
            Self::WrongSignature => "wrong_signature",
            Self::WrongBodyDigest => "wrong_body_digest",
            Self::SignatureTooOld => "signature_too_old",
            Self::SignatureFromTheFuture => "signature_from_the_future",
        }
    }
}

/// Whether a request comes from its webhook's provider.
///
/// # Errors
/// The [`Rejection`] that says why not.
pub fn authenticate(
    webhook: Webhook,
    secrets: &Secrets,
    request: &Request<'_>,
) -> Result<Authentication, Rejection> {
    let credentials = secrets.of(webhook.provider());
    let presented = presented(
        webhook,
        credentials,
        request.headers,
        request.path_and_query,
    )?;
    let Presented::Signature(signature) = presented else {
        return Ok(Authentication::Token);
    };
    match webhook.provider() {
        Provider::Elevenlabs => elevenlabs::verify(signature, &credentials.signing_keys, request)?,
        Provider::Twilio => twilio::verify(signature, &credentials.signing_keys, request)?,
        Provider::Builderbot => return Err(Rejection::MissingCredential),
    }
    Ok(Authentication::Signature)
}

/// Whether a request may yet turn out authentic once its body is known: it has
/// the right token, or a signature that is well formed and of our time. Meant
/// to be asked before the body is read. It stops who knows nothing of us; who
/// forges a signature's form still has a body read, within the room that there
/// is for bodies. The request's own body is not looked at.
///
/// # Errors
/// The [`Rejection`] that the request will meet whatever its body.
pub fn may_be_authentic(
    webhook: Webhook,
    secrets: &Secrets,
    request: &Request<'_>,
) -> Result<(), Rejection> {
    let credentials = secrets.of(webhook.provider());
    let presented = presented(
        webhook,
        credentials,
        request.headers,
        request.path_and_query,
    )?;
    match (presented, webhook.provider()) {
        (Presented::Token, _) => Ok(()),
        (Presented::Signature(signature), Provider::Elevenlabs) => {
            elevenlabs::check_header(signature, request.received_at)
        }
        (Presented::Signature(signature), Provider::Twilio) => twilio::check_header(signature),
        (Presented::Signature(_), Provider::Builderbot) => Err(Rejection::MissingCredential),
    }
}

/// What a request shows for itself.
enum Presented<'a> {
    /// The right token.
    Token,
    /// A signature that has yet to be checked.
    Signature(&'a [u8]),
}

fn presented<'a>(
    webhook: Webhook,
    credentials: &Credentials,
    headers: &[(&str, &'a [u8])],
    path_and_query: &str,
) -> Result<Presented<'a>, Rejection> {
    if credentials.is_empty() {
        return Err(Rejection::NothingConfigured);
    }
    if !credentials.signing_keys.is_empty()
        && let Some(name) = signature_header(webhook.provider())
    {
        let mut signatures = values(headers, name);
        if let Some(signature) = signatures.next() {
            // Two signatures: which one would the provider have meant?
            return match signatures.next() {
                None => Ok(Presented::Signature(signature)),
                Some(_) => Err(Rejection::MalformedSignature),
            };
        }
    }
    let in_query = match webhook.provider() {
        Provider::Builderbot => builderbot::token_in_query(path_and_query),
        Provider::Elevenlabs | Provider::Twilio => None,
    };
    let in_header = values(headers, TOKEN_HEADER).next();
    let tokens = [in_header, in_query.as_deref().map(str::as_bytes)];
    let mut tokens = tokens.into_iter().flatten().peekable();
    if tokens.peek().is_none() {
        return Err(Rejection::MissingCredential);
    }
    if tokens.any(|token| credentials.has_token(token)) {
        Ok(Presented::Token)
    } else {
        Err(Rejection::WrongToken)
    }
}

/// The header in which a provider signs.
pub const fn signature_header(provider: Provider) -> Option<&'static str> {
    match provider {
        Provider::Elevenlabs => Some(elevenlabs::SIGNATURE_HEADER),
        Provider::Twilio => Some(twilio::SIGNATURE_HEADER),
        Provider::Builderbot => None,
    }
}

fn values<'a>(headers: &[(&str, &'a [u8])], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, value)| *value)
}

#[cfg(test)]
#[path = "authentic_tests.rs"]
mod tests;
