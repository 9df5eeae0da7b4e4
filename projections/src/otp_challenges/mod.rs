//! Read model `otp_challenges`: one row a one-time code that was asked for,
//! and the projection of that name, which also owns `otp_messages`.
//!
//! Three streams tell of a challenge: its own, that of the effect that sends
//! its code, and that of the text message. The last may speak before anybody
//! has said whose message it is; what it said waits in `otp_messages`. There is
//! no code in any of them.

mod fold;
mod store;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::PhoneIndex;
use domain::event::Recorded;
use domain::otp::Status;
use serde::Serialize;
use sqlx::PgConnection;

use crate::engine::Projection;
use crate::text;

/// A row of `otp_challenges`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Challenge {
    /// The challenge, and its interaction.
    pub challenge_id: String,
    /// Who. Personal.
    pub phone_number: String,
    /// The key of the number.
    pub phone_key: String,
    /// What for.
    pub purpose: String,
    /// How it stands.
    pub status: Status,
    /// How many guesses were made.
    pub attempts: i32,
    /// Of how many.
    pub attempts_max: i32,
    /// The provider's id of the text message, the last of several.
    pub provider_message_id: Option<String>,
    /// The provider's code of what went wrong.
    pub error_code: Option<String>,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// From when on the code is good for nothing.
    pub expires_at: DateTime<Utc>,
    /// When the provider took the message.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it was reported delivered.
    pub delivered_at: Option<DateTime<Utc>>,
    /// When it was given up, or reported failed.
    pub failed_at: Option<DateTime<Utc>>,
    /// When the right code was given back.
    pub verified_at: Option<DateTime<Utc>>,
    /// What became of the sending: `Requested`, `Sent` or `Failed`.
    pub sending: Status,
}

/// The challenge with this id.
///
/// # Errors
/// When the database fails.
pub async fn get(conn: &mut PgConnection, challenge_id: &str) -> sqlx::Result<Option<Challenge>> {
    let rows = store::load_challenges(conn, &[&text::key(challenge_id)]).await?;
    Ok(rows.into_iter().next())
}

/// The projection `otp_challenges`.
pub struct OtpChallenges {
    phones: PhoneIndex,
}

impl OtpChallenges {
    /// With the key under which numbers are looked up.
    pub fn new(phones: PhoneIndex) -> Self {
        Self { phones }
    }
}

#[async_trait]
impl Projection for OtpChallenges {
    fn name(&self) -> &'static str {
        "otp_challenges"
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["otp_challenges", "otp_messages"]
    }

    fn event_types(&self) -> &'static [&'static str] {
        &[
            "otp.requested",
            "otp.attempted",
            "otp.verified",
            "effect.failed",
            "effect.sent",
            "effect.bounced",
            "effect.dropped",
            "effect.retried",
            "message.status_changed",
        ]
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        let mut tables = store::load(conn, batch).await?;
        for recorded in batch {
            tables.fold(recorded, &self.phones);
        }
        tables.settle();
        store::save(conn, &tables).await
    }
}
