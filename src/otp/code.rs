//! The six digits, derived and kept nowhere. docs/adr/0015.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// How many digits a code has.
pub const DIGITS: usize = 6;
/// How many codes there are.
const CODES: u32 = 1_000_000;
/// The largest multiple of [`CODES`] among 32-bit numbers: what is below it
/// gives every code equally often.
const UNBIASED_BELOW: u32 = u32::MAX - u32::MAX % CODES;

/// A one-time code. Nothing that prints for a log shows it, and none is
/// compared but by `Secrets::is_right`.
#[derive(Clone)]
pub struct Code(String);

impl Code {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(hidden)")
    }
}

/// The secrets that codes are made of: the first makes, every one verifies.
#[derive(Clone)]
pub struct Secrets(Vec<Hmac<Sha256>>);

impl Secrets {
    /// With these keys, of which there must be one.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(keys: &[String]) -> anyhow::Result<Self> {
        anyhow::ensure!(!keys.is_empty(), "there is no secret to make codes of");
        let keyed = keys.iter().map(|key| {
            Hmac::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length")
        });
        Ok(Self(keyed.collect()))
    }

    /// The code of a challenge.
    pub fn code(&self, challenge_id: &str) -> Code {
        derive(&self.0[0], challenge_id)
    }

    /// Whether a text is the code of a challenge, in a time that tells nothing.
    pub fn is_right(&self, challenge_id: &str, given: &str) -> bool {
        let right = self.0.iter().map(|key| {
            let code = derive(key, challenge_id);
            code.0.as_bytes().ct_eq(given.as_bytes())
        });
        right.fold(Choice::from(0), |any, this| any | this).into()
    }
}

/// HMAC-SHA256 of the challenge's name, reduced by rejection: no code is
/// likelier than another.
fn derive(key: &Hmac<Sha256>, challenge_id: &str) -> Code {
    let mut mac = key.clone();
    // Apart from whatever else is signed under the same secret: no login token
    // begins like this.
    mac.update(b"otp code\n");
    mac.update(challenge_id.as_bytes());
    let mut more = 0_u32;
    loop {
        let digest = mac.clone().finalize().into_bytes();
        let words = digest.chunks_exact(4).map(|word| {
            let word: [u8; 4] = word.try_into().unwrap_or_default();
            u32::from_be_bytes(word)
        });
        if let Some(code) = words.into_iter().find(|word| *word < UNBIASED_BELOW) {
            return Code(format!("{:0DIGITS$}", code % CODES));
        }
        // Once in 10^29 challenges.
        more += 1;
        mac.update(format!("\n{more}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secrets(keys: &[&str]) -> Secrets {
        let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        Secrets::new(&keys).unwrap()
    }

    /// By `printf 'otp code\notp_1' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn a_code_is_what_the_decision_says() {
        assert_eq!(secrets(&["secret"]).code("otp_1").as_str(), "037845");
    }

    #[test]
    fn after_a_change_of_secrets_the_old_codes_still_count() {
        let (old, new) = (secrets(&["old"]), secrets(&["new", "old"]));
        assert!(new.is_right("otp_1", old.code("otp_1").as_str()));
        assert!(new.is_right("otp_1", new.code("otp_1").as_str()));
        assert!(!old.is_right("otp_1", new.code("otp_1").as_str()));
        assert!(Secrets::new(&[]).is_err());
    }

    #[test]
    fn every_first_digit_is_as_likely() {
        let secrets = secrets(&["secret"]);
        let mut counts = [0_u32; 10];
        for n in 0..10_000 {
            let code = secrets.code(&format!("otp_{n}"));
            counts[usize::from(code.as_str().as_bytes()[0] - b'0')] += 1;
        }
        // Ten standard deviations are 300.
        assert!(counts.iter().all(|n| n.abs_diff(1_000) < 300), "{counts:?}");
    }

    #[test]
    fn a_code_is_never_printed() {
        let code = secrets(&["secret"]).code("otp_1");
        assert_eq!(format!("{code:?}"), "Code(hidden)");
    }

    proptest! {
        #[test]
        fn a_code_has_six_digits_and_only_it_is_right(id in "\\PC{0,40}", other in "\\PC{0,8}|[0-9]{6}") {
            let secrets = secrets(&["secret"]);
            let code = secrets.code(&id);
            prop_assert_eq!(code.as_str().len(), DIGITS);
            prop_assert!(code.as_str().bytes().all(|b| b.is_ascii_digit()));
            prop_assert!(secrets.is_right(&id, code.as_str()));
            prop_assert_eq!(secrets.is_right(&id, &other), other == code.as_str());
        }
    }
}
