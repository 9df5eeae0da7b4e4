//! The signature of ElevenLabs: `ElevenLabs-Signature: t=<unix seconds>,v0=<hex>`
//! with the HMAC-SHA256 of `<t>.<body>` under the webhook's secret, verbatim.
//! Source: `webhooks_custom.py` of the official SDK 2.78.

use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::providers::{Rejection, Request};

/// The header that holds the signature.
pub(crate) const SIGNATURE_HEADER: &str = "elevenlabs-signature";

/// How old a signature may be: the provider's own limit.
const AGE_SECONDS_MAX: i64 = 30 * 60;
/// How far ahead of ours the provider's clock may be. The official verifier
/// sets no limit, so that a recorded request could be kept for later.
const AHEAD_SECONDS_MAX: i64 = 5 * 60;
/// Most signatures in one header: more are no rotation but an attack.
const SIGNATURES_MAX: usize = 16;

/// Checks the signature of a request under any of the keys.
///
/// # Errors
/// The [`Rejection`] that says what is wrong.
pub(crate) fn verify(
    header: &[u8],
    keys: &[String],
    request: &Request<'_>,
) -> Result<(), Rejection> {
    let header = Header::parse(header).ok_or(Rejection::MalformedSignature)?;
    header.is_of_our_time(request.received_at)?;
    let right = keys.iter().fold(Choice::from(0), |right, key| {
        let expected = sign(key, header.time, request.body);
        header.signatures.iter().fold(right, |right, given| {
            right | given.as_bytes().ct_eq(expected.as_bytes())
        })
    });
    if bool::from(right) {
        Ok(())
    } else {
        Err(Rejection::WrongSignature)
    }
}

/// Checks as much of the header as can be checked without the body.
///
/// # Errors
/// The [`Rejection`] that says what is wrong.
pub(crate) fn check_header(header: &[u8], received_at: DateTime<Utc>) -> Result<(), Rejection> {
    let header = Header::parse(header).ok_or(Rejection::MalformedSignature)?;
    header.is_of_our_time(received_at)
}

/// The signature of a body sent at a time, as the provider writes it.
fn sign(key: &str, time: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// What the header says.
struct Header<'a> {
    /// The time as it is written, for that is what was signed.
    time: &'a str,
    /// The same, in seconds since 1970.
    seconds: i64,
    /// The signatures: one a key, while the provider rotates.
    signatures: Vec<&'a str>,
}

impl<'a> Header<'a> {
    /// Reads the parts in any order; kinds it does not know it leaves out.
    fn parse(header: &'a [u8]) -> Option<Self> {
        let mut time = None;
        let mut signatures = Vec::new();
        for part in std::str::from_utf8(header).ok()?.split(',') {
            match part.trim().split_once('=')? {
                ("t", _) if time.is_some() => return None,
                ("t", value) => time = Some(value),
                ("v0", value) => signatures.push(value),
                _ => {}
            }
        }
        let time = time.filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()))?;
        let plausible = (1..=SIGNATURES_MAX).contains(&signatures.len());
        let seconds = time.parse().ok()?;
        plausible.then_some(Self {
            time,
            seconds,
            signatures,
        })
    }

    fn is_of_our_time(&self, received_at: DateTime<Utc>) -> Result<(), Rejection> {
        match received_at.timestamp().saturating_sub(self.seconds) {
            age if age > AGE_SECONDS_MAX => Err(Rejection::SignatureTooOld),
            age if age < -AHEAD_SECONDS_MAX => Err(Rejection::SignatureFromTheFuture),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wsec_test_0123456789";
    const TIME: i64 = 1_739_537_297;
    const BODY: &[u8] = br#"{"a":1}"#;
    /// Made with the official SDK.
    const SIGNATURE: &str = "ae3f20590a388695d89368b75891ed230ec862be8ccc0c27e92c566a14e3709a";

    fn check_at(header: &str, keys: &[&str], body: &[u8], seconds: i64) -> Result<(), Rejection> {
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        let request = Request {
            headers: &[],
            path_and_query: "/webhooks/elevenlabs/call",
            body,
            public_url: "https://cc.example.com",
            received_at: DateTime::from_timestamp(seconds, 0).unwrap(),
        };
        verify(header.as_bytes(), &keys, &request)
    }

    fn check(header: &str) -> Result<(), Rejection> {
        check_at(header, &[SECRET], BODY, TIME)
    }

    #[test]
    fn the_sdks_signature_is_right_and_a_tampered_one_is_not() {
        assert_eq!(check(&format!("t={TIME},v0={SIGNATURE}")), Ok(()));
        let other_time = format!("t={},v0={SIGNATURE}", TIME + 1);
        assert_eq!(check(&other_time), Err(Rejection::WrongSignature));
        let header = format!("t={TIME},v0={SIGNATURE}");
        for (keys, body) in [
            (&["wsec_other"][..], BODY),
            (&[SECRET], br#"{"a":2}"#),
            (&[SECRET], b""),
        ] {
            let verdict = check_at(&header, keys, body, TIME);
            assert_eq!(verdict, Err(Rejection::WrongSignature));
        }
    }

    #[test]
    fn parts_come_in_any_order_and_any_v0_may_match() {
        let wrong = "0".repeat(64);
        for header in [
            format!("v0={SIGNATURE},t={TIME}"),
            format!("t={TIME},v0={wrong},v0={SIGNATURE}"),
            format!("t={TIME},v0={SIGNATURE},v0={wrong}"),
            format!("v0={wrong},t={TIME},v1=future,v0={SIGNATURE}"),
            format!("t={TIME}, v0={SIGNATURE}"),
        ] {
            assert_eq!(check(&header), Ok(()), "{header}");
        }
    }

    #[test]
    fn while_a_key_is_rotated_the_old_and_the_new_are_right() {
        let header = format!("t={TIME},v0={SIGNATURE}");
        for keys in [&["wsec_new", SECRET][..], &[SECRET, "wsec_new"]] {
            assert_eq!(check_at(&header, keys, BODY, TIME), Ok(()));
        }
    }

    #[test]
    fn a_malformed_header_is_wrong() {
        let digits = "9".repeat(40);
        let many = format!("t={TIME}{}", format!(",v0={SIGNATURE}").repeat(17));
        for header in [
            "",
            "t",
            "t=,v0=",
            &format!("t={TIME}"),
            &format!("v0={SIGNATURE}"),
            &format!("t={TIME},v0={SIGNATURE},"),
            &format!("t={TIME},t={TIME},v0={SIGNATURE}"),
            &format!("t=-{TIME},v0={SIGNATURE}"),
            &format!("t=+{TIME},v0={SIGNATURE}"),
            &format!("t={digits},v0={SIGNATURE}"),
            &many,
        ] {
            assert_eq!(
                check(header),
                Err(Rejection::MalformedSignature),
                "{header}"
            );
        }
        for header in [
            format!("t={TIME},v0="),
            format!("t={TIME},v0={}", SIGNATURE.to_uppercase()),
            format!("t={TIME},v0={}", &SIGNATURE[..63]),
        ] {
            assert_eq!(check(&header), Err(Rejection::WrongSignature), "{header}");
        }
        let request = Request {
            headers: &[],
            path_and_query: "/",
            body: BODY,
            public_url: "",
            received_at: DateTime::from_timestamp(TIME, 0).unwrap(),
        };
        assert_eq!(
            verify(b"t=1,v0=\xff", &[SECRET.to_owned()], &request),
            Err(Rejection::MalformedSignature)
        );
    }

    #[test]
    fn a_signature_is_good_for_thirty_minutes_and_five_ahead() {
        let header = format!("t={TIME},v0={SIGNATURE}");
        for (seconds, verdict) in [
            (0, Ok(())),
            (29 * 60, Ok(())),
            (30 * 60, Ok(())),
            (30 * 60 + 1, Err(Rejection::SignatureTooOld)),
            (-5 * 60, Ok(())),
            (-5 * 60 - 1, Err(Rejection::SignatureFromTheFuture)),
            (-86_400, Err(Rejection::SignatureFromTheFuture)),
        ] {
            let at = TIME + seconds;
            assert_eq!(
                check_at(&header, &[SECRET], BODY, at),
                verdict,
                "{seconds} s"
            );
        }
    }

    #[test]
    fn a_body_that_is_no_text_is_checked_by_its_bytes() {
        let body = b"\xff\xfe{\0";
        let header = format!("t={TIME},v0={}", sign(SECRET, &TIME.to_string(), body));
        assert_eq!(check_at(&header, &[SECRET], body, TIME), Ok(()));
    }
}
