//! Signing as the providers do, written from their documents and not with the
//! code under test.

use base64::Engine as _;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// The value of `ElevenLabs-Signature`.
pub fn elevenlabs(secret: &str, unix_secs: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{unix_secs}.").as_bytes());
    mac.update(body);
    format!(
        "t={unix_secs},v0={}",
        hex::encode(mac.finalize().into_bytes())
    )
}

/// The value of `X-Twilio-Signature` for a form without repeated names.
pub fn twilio(token: &str, url: &str, form: &[u8]) -> String {
    let mut params: Vec<(String, String)> = form_urlencoded::parse(form).into_owned().collect();
    params.sort();
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).unwrap();
    mac.update(url.as_bytes());
    for (name, value) in params {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}
