//! How many codes may be asked for: counted in the database, so that the
//! limits hold over all replicas, and exactly.
//!
//! Whoever asks is counted before the challenge is made. A request that is
//! killed in between has cost a count and nothing else.

use chrono::{DateTime, Duration, Utc};
use domain::{PhoneIndex, PhoneNumber};
use sqlx::{PgConnection, PgPool};

use super::OtpSettings;
use crate::transaction;

/// Over which time the requests for a block of numbers, and all requests, are
/// counted.
const LONG_WINDOW: Duration = Duration::hours(1);
/// How long to wait for a message before another is asked for.
const RESEND_AFTER: Duration = Duration::seconds(30);
/// How many of a number's last digits a block of numbers leaves open.
const BLOCK_DIGITS: usize = 4;

/// Who asks for a code, by keyed hashes, and what for.
#[derive(Clone, Debug)]
pub struct Keys {
    phone: String,
    prefix: String,
    purpose: String,
}

impl Keys {
    /// The keys of a number, however it is spelled.
    pub fn of(index: &PhoneIndex, phone: &PhoneNumber, purpose: &str) -> Self {
        let canonical = phone.canonical();
        let number = canonical.as_ref().unwrap_or(phone).as_str();
        let block = &number[..number.len().saturating_sub(BLOCK_DIGITS)];
        Self {
            phone: index.key(number),
            // Another key than that of a shorter number.
            prefix: index.key(&format!("otp prefix:{block}")),
            purpose: purpose.to_owned(),
        }
    }
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is counted, or was already; another may be asked for at this time.
    Counted(DateTime<Utc>),
    /// A limit is reached until this time. Nothing was counted.
    Refused(DateTime<Utc>),
    /// The id was counted for another number or purpose.
    Elsewhere,
    /// Too many are counting. Nothing was counted.
    Busy,
}

/// The limits.
#[derive(Clone)]
pub struct Limits {
    pool: PgPool,
    settings: OtpSettings,
}

impl Limits {
    /// On a database.
    pub fn new(pool: PgPool, settings: OtpSettings) -> Self {
        Self { pool, settings }
    }

    /// Counts a challenge, once, unless a limit is reached.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(
        &self,
        challenge_id: &str,
        keys: &Keys,
        now: DateTime<Utc>,
    ) -> sqlx::Result<Taken> {
        let mut tx = transaction::begin(&self.pool).await?;
        // One after another, on whatever replica: who counts sees all who
        // counted before. Of one that hangs not all may be hung up.
        sqlx::query("set local lock_timeout = '2s'")
            .execute(&mut *tx)
            .await?;
        let locked =
            sqlx::query("select pg_advisory_xact_lock(hashtextextended('otp_requests', 4245))")
                .execute(&mut *tx)
                .await;
        match locked {
            Err(error) if is_lock_timeout(&error) => return Ok(Taken::Busy),
            locked => locked?,
        };
        match is_counted(&mut tx, challenge_id, keys).await? {
            Some(true) => {}
            Some(false) => return Ok(Taken::Elsewhere),
            None => {
                if let Some(until) = self.reached_until(&mut tx, keys, now).await? {
                    return Ok(Taken::Refused(until));
                }
                self.count(&mut tx, challenge_id, keys, now).await?;
            }
        }
        let again_at = self.reached_until(&mut tx, keys, now).await?;
        tx.commit().await?;
        let again_at = again_at.unwrap_or(now).max(now + RESEND_AFTER);
        Ok(Taken::Counted(again_at))
    }

    /// The challenges that were counted for a number and a purpose, the newest
    /// first. One that was cut short is no challenge.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn latest(&self, keys: &Keys) -> sqlx::Result<Vec<String>> {
        let sql = "select challenge_id from otp_requests where phone_key = $1 and purpose = $2
                    order by place desc limit 50";
        sqlx::query_scalar(sql)
            .bind(&keys.phone)
            .bind(&keys.purpose)
            .fetch_all(&self.pool)
            .await
    }

    /// Until when any limit is reached; `None` where one more may be asked for.
    /// A limit of n is reached while n lie within its window: until the n-th
    /// last leaves it.
    async fn reached_until(
        &self,
        conn: &mut PgConnection,
        keys: &Keys,
        now: DateTime<Utc>,
    ) -> sqlx::Result<Option<DateTime<Utc>>> {
        let nth_last = |max: u32| i64::from(max.max(1)) - 1;
        let window = self.window();
        let (number, block, all): (Option<DateTime<Utc>>, _, _) = sqlx::query_as(
            "select (select at from otp_requests
                      where phone_key = $1 and purpose = $2 and at > $3
                      order by at desc offset $4 limit 1),
                    (select at from otp_requests where prefix_key = $5 and at > $6
                      order by at desc offset $7 limit 1),
                    (select at from otp_requests where at > $6
                      order by at desc offset $8 limit 1)",
        )
        .bind(&keys.phone)
        .bind(&keys.purpose)
        .bind(now - window)
        .bind(nth_last(self.settings.rate_limit_max))
        .bind(&keys.prefix)
        .bind(now - LONG_WINDOW)
        .bind(nth_last(self.settings.prefix_rate_limit_max))
        .bind(nth_last(self.settings.hourly_max))
        .fetch_one(conn)
        .await?;
        let long = |at: Option<DateTime<Utc>>| at.map(|at| at + LONG_WINDOW);
        let reached = [number.map(|at| at + window), long(block), long(all)];
        Ok(reached.into_iter().flatten().max())
    }

    async fn count(
        &self,
        conn: &mut PgConnection,
        challenge_id: &str,
        keys: &Keys,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        sqlx::query("delete from otp_requests where at <= $1")
            .bind(now - self.kept())
            .execute(&mut *conn)
            .await?;
        sqlx::query(
            "insert into otp_requests (challenge_id, phone_key, purpose, prefix_key, at)
             values ($1, $2, $3, $4, $5)",
        )
        .bind(challenge_id)
        .bind(&keys.phone)
        .bind(&keys.purpose)
        .bind(&keys.prefix)
        .bind(now)
        .execute(conn)
        .await?;
        Ok(())
    }

    fn window(&self) -> Duration {
        duration(self.settings.rate_limit_window)
    }

    /// As long as a limit looks back, or a code may be given back.
    fn kept(&self) -> Duration {
        let ttl = duration(self.settings.ttl);
        self.window().max(LONG_WINDOW).max(ttl)
    }
}

/// Whether a challenge that was counted was so for this number and purpose.
async fn is_counted(
    conn: &mut PgConnection,
    challenge_id: &str,
    keys: &Keys,
) -> sqlx::Result<Option<bool>> {
    let sql = "select phone_key = $2 and purpose = $3 from otp_requests where challenge_id = $1";
    sqlx::query_scalar(sql)
        .bind(challenge_id)
        .bind(&keys.phone)
        .bind(&keys.purpose)
        .fetch_optional(conn)
        .await
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(LOCK_NOT_AVAILABLE)
}

/// A setting as chrono has it; one that is absurdly long is a year.
pub(super) fn duration(given: std::time::Duration) -> Duration {
    Duration::from_std(given)
        .unwrap_or(Duration::MAX)
        .min(Duration::days(365))
}
