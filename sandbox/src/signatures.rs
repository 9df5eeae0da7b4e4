//! The providers' signatures, from the sending side.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// The value of `ElevenLabs-Signature`: `t=<unix>,v0=<hex HMAC-SHA256 of "<t>.<body>">`.
pub fn elevenlabs_signature(secret: &str, unix_secs: u64, body: &[u8]) -> String {
    let mut mac = keyed::<Hmac<Sha256>>(secret);
    mac.update(format!("{unix_secs}.").as_bytes());
    mac.update(body);
    format!(
        "t={unix_secs},v0={}",
        hex::encode(mac.finalize().into_bytes())
    )
}

/// The value of `X-Twilio-Signature` for a form: base64 of HMAC-SHA1 over the URL and then each
/// name and value, sorted; the same name and value twice counts once.
pub fn twilio_signature(auth_token: &str, url: &str, params: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = params.iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut mac = keyed::<Hmac<Sha1>>(auth_token);
    mac.update(url.as_bytes());
    for (name, value) in sorted {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

fn keyed<M: Mac + hmac::digest::KeyInit>(secret: &str) -> M {
    <M as Mac>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const VECTORS: &str = include_str!("../tests/fixtures/signature_vectors.json");

    #[test]
    fn every_vector_made_with_the_official_sdks_is_reproduced() {
        let doc: Value = serde_json::from_str(VECTORS).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (token, secret) = (
            text(&doc["twilio_auth_token"]),
            text(&doc["elevenlabs_secret"]),
        );
        let t = doc["elevenlabs_t"].as_u64().unwrap();
        let vectors = doc["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 18);
        for vector in vectors {
            let body = text(&vector["body"]);
            let made = if vector["header"] == "X-Twilio-Signature" {
                let params: Vec<_> = form_urlencoded::parse(body.as_bytes())
                    .into_owned()
                    .collect();
                let token = vector["token"].as_str().unwrap_or(&token);
                twilio_signature(token, &text(&vector["url"]), &params)
            } else {
                elevenlabs_signature(&secret, t, body.as_bytes())
            };
            assert_eq!(made, text(&vector["value"]), "{}", vector["file"]);
        }
    }

    #[test]
    fn the_documented_elevenlabs_vector_is_reproduced() {
        assert_eq!(
            elevenlabs_signature("wsec_test_0123456789", 1_739_537_297, br#"{"a":1}"#),
            "t=1739537297,v0=ae3f20590a388695d89368b75891ed230ec862be8ccc0c27e92c566a14e3709a"
        );
    }
}
