//! The signature of Twilio: `X-Twilio-Signature`, base64 of the HMAC-SHA1,
//! under the account's auth token, of the URL and the sorted parameters.
//! Source: `twilio.com/docs/usage/webhooks/webhooks-security`;
//! `request_validator.py` of the official SDK 9.13.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::providers::{Rejection, Request};

/// The header that holds the signature.
pub(crate) const SIGNATURE_HEADER: &str = "x-twilio-signature";
/// The query parameter that holds the digest of a body that is no form.
const BODY_DIGEST: &str = "bodySHA256";
/// Length of an HMAC-SHA1 in base64.
const SIGNATURE_LEN: usize = 28;

/// Checks the signature of a request under any of the keys.
///
/// # Errors
/// The [`Rejection`] that says what is wrong.
pub(crate) fn verify(
    signature: &[u8],
    keys: &[String],
    request: &Request<'_>,
) -> Result<(), Rejection> {
    check_header(signature)?;
    let digest = body_digest(request.path_and_query);
    // A signed digest speaks for the body, which then adds nothing to the URL.
    let params = match digest {
        Some(_) => String::new(),
        None => signed_params(request.body),
    };
    let urls = urls(request.public_url, request.path_and_query);
    let pairs = keys
        .iter()
        .flat_map(|key| urls.iter().map(move |url| (key, url)));
    let right = pairs.fold(Choice::from(0), |right, (key, url)| {
        right | sign(key, url, &params).as_bytes().ct_eq(signature)
    });
    if !bool::from(right) {
        return Err(Rejection::WrongSignature);
    }
    let Some(digest) = digest else { return Ok(()) };
    let actual = hex::encode(Sha256::digest(request.body));
    if bool::from(actual.as_bytes().ct_eq(digest.as_bytes())) {
        Ok(())
    } else {
        Err(Rejection::WrongBodyDigest)
    }
}

/// Checks as much of the header as can be checked without the request.
///
/// # Errors
/// The [`Rejection`] that says what is wrong.
pub(crate) fn check_header(signature: &[u8]) -> Result<(), Rejection> {
    if signature.len() == SIGNATURE_LEN {
        Ok(())
    } else {
        Err(Rejection::MalformedSignature)
    }
}

/// The signature of a request, as Twilio writes it.
fn sign(key: &str, url: &str, params: &str) -> String {
    let mut mac =
        Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(url.as_bytes());
    mac.update(params.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Names and decoded values of a form in order, each pair once, with nothing
/// between them. An empty value still contributes its name.
fn signed_params(form: &[u8]) -> String {
    let mut pairs: Vec<_> = form_urlencoded::parse(form).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let mut text = String::with_capacity(form.len());
    for (name, value) in pairs {
        text.push_str(&name);
        text.push_str(&value);
    }
    text
}

fn body_digest(path_and_query: &str) -> Option<String> {
    let (_, query) = path_and_query.split_once('?')?;
    let mut params = form_urlencoded::parse(query.as_bytes());
    let (_, digest) = params.find(|(name, _)| name == BODY_DIGEST)?;
    Some(digest.into_owned())
}

/// The addresses that Twilio may have signed: the configured one, with its
/// port and without, for it is "inconsistent" there, say the SDKs. Never with
/// a fragment: that is for Twilio alone (`#rc=3&rp=5xx`).
fn urls(public_url: &str, path_and_query: &str) -> Vec<String> {
    let before_fragment = |url: &str| url.split('#').next().unwrap_or_default().to_owned();
    let base = before_fragment(public_url);
    let base = base.trim_end_matches('/');
    let path_and_query = before_fragment(path_and_query);
    let slash = if path_and_query.starts_with('/') {
        ""
    } else {
        "/"
    };
    let mut urls = vec![format!("{base}{slash}{path_and_query}")];
    let Some((scheme, rest)) = base.split_once("://") else {
        return urls;
    };
    let (authority, base_path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let other = match port_at(authority) {
        Some(at) => authority[..at].to_owned(),
        None if scheme.eq_ignore_ascii_case("https") => format!("{authority}:443"),
        None => format!("{authority}:80"),
    };
    urls.push(format!(
        "{scheme}://{other}{base_path}{slash}{path_and_query}"
    ));
    urls
}

/// Where the `:` before the port is; the colons of an IPv6 address in brackets
/// and of a password before `@` are not it.
fn port_at(authority: &str) -> Option<usize> {
    let at = authority.rfind(':')?;
    let port = &authority[at + 1..];
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some(at)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
