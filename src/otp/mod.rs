//! One-time codes: asking for one, and giving it back. The sending is the
//! worker's, who sees `otp.requested` and asks [`Otp::code`].
//!
//! Invariants: a code is kept nowhere, it is derived when it is needed; a
//! guess is on the ledger before it is looked at; limits are counted in the
//! database, so no replica and no number of parallel requests gets around one.

mod code;
mod limits;

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use domain::otp::{self, Challenge, Command, Requested};
use domain::{PhoneIndex, PhoneNumber};
use sqlx::PgPool;

pub use code::{Code, DIGITS};

use self::code::Secrets;
use self::limits::{Keys, Limits, Taken, duration};
use crate::clock;
use crate::ledger::{CommandError, Store};

/// The read models that change with a challenge.
pub const READ_MODELS: [&str; 4] = ["otp_challenges", "interactions", "effects", "audit_log"];

/// How codes are given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtpSettings {
    /// How long a code is good.
    pub ttl: Duration,
    /// How many guesses there are.
    pub attempts_max: u32,
    /// How many codes may be asked for, for one number and purpose …
    pub rate_limit_max: u32,
    /// … in this time.
    pub rate_limit_window: Duration,
    /// The countries that codes are sent to, in ISO 3166's two letters.
    pub allowed_countries: Vec<String>,
    /// How many codes may be asked for in an hour, for numbers that differ in
    /// their last four digits only.
    pub prefix_rate_limit_max: u32,
    /// How many codes may be asked for in an hour.
    pub hourly_max: u32,
}

impl Default for OtpSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            attempts_max: 5,
            rate_limit_max: 3,
            rate_limit_window: Duration::from_secs(900),
            allowed_countries: vec!["CO".to_owned()],
            prefix_rate_limit_max: 30,
            hourly_max: 1_000,
        }
    }
}

/// Gives out codes and takes them back.
#[derive(Clone)]
pub struct Otp {
    store: Store,
    index: PhoneIndex,
    source: clock::Source,
    secrets: Secrets,
    settings: OtpSettings,
    limits: Limits,
}

/// Somebody to be sent a code.
#[derive(Clone, Debug)]
pub struct Order {
    /// The challenge that comes of it; see [`otp::id`].
    pub challenge_id: String,
    /// Who.
    pub phone_number: PhoneNumber,
    /// What for.
    pub purpose: String,
}

/// A challenge that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its id.
    pub challenge_id: String,
    /// From when on its code is good for nothing.
    pub expires_at: DateTime<Utc>,
    /// When another may be asked for.
    pub resend_after: DateTime<Utc>,
    /// The position of its event.
    pub position: i64,
}

/// Why no challenge was made.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Codes are not sent to the number's country.
    #[error("no codes are sent to this country")]
    Country,
    /// Nobody can tell whose number it is; see [`PhoneNumber::canonical`].
    #[error("the number is none of its country's")]
    Number,
    /// A limit is reached; try again in so many seconds.
    #[error("too many codes were asked for")]
    Limited(u64),
    /// Too many ask at once.
    #[error("too many ask for codes at once")]
    Busy,
    /// The id is that of a challenge for another number or purpose.
    #[error("the challenge is another one")]
    Taken,
    /// The challenge was made before, and its time is over.
    #[error("the code has expired")]
    Expired,
    /// The database or the ledger failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// Which challenge a code is given back for.
#[derive(Clone, Debug)]
pub enum Which {
    /// This one.
    Challenge(String),
    /// The latest of this number and purpose.
    Latest(PhoneNumber, String),
}

/// Why a code was not taken.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no such challenge.
    #[error("there is no such challenge")]
    Unknown,
    /// It is another code.
    #[error("the code is wrong")]
    Wrong {
        /// How many guesses are left.
        attempts_left: u32,
    },
    /// Its time is over.
    #[error("the code has expired")]
    Expired,
    /// It was taken before.
    #[error("the code was used already")]
    AlreadyUsed,
    /// There is no guess left until the code expires, in so many seconds.
    #[error("there were too many attempts")]
    AttemptsExceeded(u64),
    /// The database or the ledger failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl Otp {
    /// On a database. Codes are made of the first of the secrets.
    ///
    /// # Errors
    /// When there is no secret.
    pub fn new(
        pool: PgPool,
        store: Store,
        index: PhoneIndex,
        source: clock::Source,
        secrets: &[String],
        settings: OtpSettings,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            store,
            index,
            source,
            secrets: Secrets::new(secrets)?,
            limits: Limits::new(pool, settings.clone()),
            settings,
        })
    }

    /// The code of a challenge: the same however often it is asked. Never log
    /// it, and keep it nowhere.
    pub fn code(&self, challenge_id: &str) -> Code {
        self.secrets.code(challenge_id)
    }

    /// The text message that brings a code: one segment (70 characters, for the
    /// accents).
    pub fn text(code: &Code) -> String {
        message(code.as_str())
    }

    /// The same as it is kept: without the code.
    pub fn masked_text() -> String {
        message(&"*".repeat(DIGITS))
    }

    /// A random id for a challenge (UUID version 4).
    pub fn fresh_id(&self) -> String {
        let mut random = [0; 16];
        self.source.fill(&mut random);
        otp::id(uuid::Builder::from_random_bytes(random).into_uuid())
    }

    /// Makes a challenge. The same order again joins the first and is counted
    /// once. `metadata` holds `actor` and `request_id`.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(
        &self,
        order: Order,
        metadata: HashMap<String, String>,
    ) -> Result<Made, RequestError> {
        if !self.is_allowed(&order.phone_number) {
            return Err(RequestError::Country);
        }
        if order.phone_number.canonical().is_none() {
            return Err(RequestError::Number);
        }
        let now = self.now();
        let id = order.challenge_id;
        let keys = Keys::of(&self.index, &order.phone_number, &order.purpose);
        let taken = self.limits.take(&id, &keys, now).await;
        let resend_after = match taken.map_err(anyhow::Error::from)? {
            Taken::Counted(again_at) => again_at,
            Taken::Refused(until) => return Err(RequestError::Limited(seconds(now, until))),
            Taken::Busy => return Err(RequestError::Busy),
            Taken::Elsewhere => return Err(RequestError::Taken),
        };
        let requested = Requested {
            challenge_id: id.clone(),
            phone_number: order.phone_number,
            purpose: order.purpose,
            expires_at: now + duration(self.settings.ttl),
            attempts_max: self.settings.attempts_max,
            requested_by: metadata.get("actor").cloned().unwrap_or_default(),
        };
        let request = || Command::Request(requested.clone());
        let executed = self.store.execute::<Challenge>(&id, request, metadata);
        let position = executed.await.map_err(|error| match error {
            CommandError::Refused(_) => RequestError::Taken,
            CommandError::Ledger(words) => RequestError::Internal(anyhow::anyhow!(words)),
        })?;
        // That of the first, if this is not the first time.
        let expires_at = match self.load(&id).await?.requested() {
            Some(known) => known.expires_at,
            None => requested.expires_at,
        };
        if expires_at <= now {
            return Err(RequestError::Expired);
        }
        Ok(Made {
            challenge_id: id,
            expires_at,
            resend_after,
            position,
        })
    }

    /// Takes a code back, if it is right, once, in time, and there is a guess
    /// left; returns the position of the challenge's last event.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn verify(
        &self,
        challenge_id: &str,
        code: &str,
        metadata: HashMap<String, String>,
    ) -> Result<i64, VerifyError> {
        let at = self.now();
        let guess = self.count_guess(challenge_id, at, &metadata).await?;
        if !self.secrets.is_right(challenge_id, code) {
            let attempts_left = guess.attempts_max.saturating_sub(guess.attempt);
            return Err(VerifyError::Wrong { attempts_left });
        }
        let attempt = guess.attempt;
        let verify = || Command::Verify { attempt, at };
        let executed = self
            .store
            .execute::<Challenge>(challenge_id, verify, metadata);
        executed.await.map_err(|error| refused(error, at, None))
    }

    /// The id of the challenge that is meant.
    ///
    /// # Errors
    /// [`VerifyError::Unknown`], or when the database fails.
    pub async fn find(&self, which: Which) -> Result<String, VerifyError> {
        let (phone_number, purpose) = match which {
            Which::Challenge(id) => {
                let known = self.load(&id).await?;
                known.requested().ok_or(VerifyError::Unknown)?;
                return Ok(id);
            }
            Which::Latest(phone_number, purpose) => (phone_number, purpose),
        };
        let keys = Keys::of(&self.index, &phone_number, &purpose);
        let counted = self.limits.latest(&keys).await;
        for id in counted.map_err(anyhow::Error::from)? {
            // One that was cut short after it was counted is none.
            if self.load(&id).await?.requested().is_some() {
                return Ok(id);
            }
        }
        Err(VerifyError::Unknown)
    }

    /// Puts a guess on the ledger, to look at it then. Of two who count the
    /// same one of them counts the next: it ends, for every round that is lost
    /// is a guess less.
    async fn count_guess(
        &self,
        challenge_id: &str,
        at: DateTime<Utc>,
        metadata: &HashMap<String, String>,
    ) -> Result<Guess, VerifyError> {
        loop {
            let challenge = self.load(challenge_id).await?;
            let requested = challenge.requested().ok_or(VerifyError::Unknown)?;
            let attempt = challenge.attempts() + 1;
            let count = || Command::Attempt { attempt, at };
            let counted = self
                .store
                .execute::<Challenge>(challenge_id, count, metadata.clone());
            match counted.await {
                Ok(_) => {
                    return Ok(Guess {
                        attempt,
                        attempts_max: requested.attempts_max,
                    });
                }
                Err(CommandError::Refused(otp::Error::Overtaken)) => {}
                Err(error) => return Err(refused(error, at, Some(requested))),
            }
        }
    }

    async fn load(&self, challenge_id: &str) -> anyhow::Result<Challenge> {
        let loaded = self.store.load::<Challenge>(challenge_id).await;
        loaded.map_err(|error| anyhow::anyhow!(error.to_string()))
    }

    fn is_allowed(&self, phone_number: &PhoneNumber) -> bool {
        let country = phone_number.country();
        let allowed = self.settings.allowed_countries.iter();
        country.is_some_and(|country| {
            allowed
                .map(String::as_str)
                .any(|it| it.eq_ignore_ascii_case(&country))
        })
    }

    /// Now, as PostgreSQL can hold it.
    fn now(&self) -> DateTime<Utc> {
        self.source.now().trunc_subsecs(6)
    }
}

/// A guess that was counted.
struct Guess {
    /// Which.
    attempt: u32,
    /// Of how many.
    attempts_max: u32,
}

fn message(code: &str) -> String {
    format!("Tu código de verificación es {code}. No lo compartas con nadie.")
}

/// How many seconds from now until then: one at least.
fn seconds(now: DateTime<Utc>, then: DateTime<Utc>) -> u64 {
    let millis = (then - now).num_milliseconds();
    u64::try_from(millis)
        .unwrap_or_default()
        .div_ceil(1000)
        .max(1)
}

fn refused(
    error: CommandError<otp::Error>,
    at: DateTime<Utc>,
    requested: Option<&Requested>,
) -> VerifyError {
    match error {
        CommandError::Refused(otp::Error::Unknown) => VerifyError::Unknown,
        CommandError::Refused(otp::Error::Expired) => VerifyError::Expired,
        CommandError::Refused(otp::Error::AlreadyUsed) => VerifyError::AlreadyUsed,
        CommandError::Refused(otp::Error::AttemptsExceeded) => {
            let until = requested.map_or(at, |requested| requested.expires_at);
            VerifyError::AttemptsExceeded(seconds(at, until))
        }
        error => VerifyError::Internal(anyhow::anyhow!(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With accents a segment holds 70 characters instead of 160.
    #[test]
    fn a_message_is_one_segment_and_without_its_code_as_long() {
        let text = message("123456");
        assert!(text.contains(" 123456."), "{text}");
        assert!(text.encode_utf16().count() <= 70, "{text}");
        assert_eq!(Otp::masked_text(), text.replace("123456", "******"));
    }
}
