//! People: registering them, and telling whether somebody is one of them.
//!
//! Invariants: a password is never in an event or a log line; an unknown
//! e-mail address and a wrong password are told apart by nothing, time
//! included; attempts are counted in the database, so limits hold over all
//! replicas.

use std::collections::HashMap;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use chrono::Duration;
use domain::PhoneIndex;
use domain::user::{self, Role, User};
use sqlx::PgPool;
use tokio::sync::{Mutex, Semaphore};

use crate::clock;
use crate::ledger::Store;
use crate::transaction;

/// Failed logins for one e-mail address or one network address …
const FAILURES_MAX: i64 = 10;
/// … in this time; then further attempts are refused.
const FAILURES_WINDOW_MINUTES: i64 = 15;
/// Fewest and most characters of a password.
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=200;
/// Hashes computed at once: each takes a core and 19 MiB for a while.
const HASHES_AT_ONCE: usize = 2;

/// People and their passwords.
#[derive(Clone)]
pub struct Accounts {
    pool: PgPool,
    store: Store,
    index: PhoneIndex,
    source: clock::Source,
    hashing: Arc<Semaphore>,
    registering: Arc<Mutex<()>>,
    /// Verified against where there is no such user.
    nobodys_hash: Arc<str>,
}

/// Somebody to be registered.
#[derive(Clone)]
pub struct NewUser {
    /// Full name.
    pub name: String,
    /// E-mail address, in any case.
    pub email: String,
    /// In the clear, and kept nowhere.
    pub password: String,
    /// What the person may do.
    pub role: Role,
    /// The voice agent that calls in the person's name.
    pub agent_id: Option<String>,
}

/// Why somebody could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A field is wrong: its name, and what is wrong with it.
    #[error("{field} {message}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The e-mail address is taken.
    #[error("a user with this e-mail address exists already")]
    Taken,
    /// The database or the hash failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// What came of a login.
#[derive(Debug)]
pub enum Login {
    /// The password is right.
    Welcome(user::Registered),
    /// It is not, or there is no such user.
    Wrong,
    /// Too many were wrong: try again in so many seconds.
    TooMany(u64),
}

impl Accounts {
    /// Accounts in a database.
    pub fn new(pool: PgPool, store: Store, index: PhoneIndex, source: clock::Source) -> Self {
        let nobodys_hash = hash(&source, "nobody has this password")
            .unwrap_or_default()
            .into();
        Self {
            pool,
            store,
            index,
            source,
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            registering: Arc::new(Mutex::new(())),
            nobodys_hash,
        }
    }

    /// Registers somebody; returns the user and the position of the event.
    /// Killed half-way, it can be repeated.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(
        &self,
        new: NewUser,
        metadata: HashMap<String, String>,
    ) -> Result<(user::Registered, i64), RegisterError> {
        let email = validate(&new)?;
        // Of two at once with one address, on any replica, the second waits:
        // its password must not take the place of the first one's. One at a
        // time of this process, so that no more than one connection is held.
        let _one_at_a_time = self.registering.lock().await;
        let mut held = transaction::begin(&self.pool)
            .await
            .map_err(anyhow::Error::from)?;
        sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 4244))")
            .bind(&email)
            .execute(&mut *held)
            .await
            .map_err(anyhow::Error::from)?;
        let registered = self.register_alone(email, new, metadata).await;
        held.rollback().await.map_err(anyhow::Error::from)?;
        registered
    }

    async fn register_alone(
        &self,
        email: String,
        new: NewUser,
        metadata: HashMap<String, String>,
    ) -> Result<(user::Registered, i64), RegisterError> {
        if self.find(&email).await?.is_some() {
            return Err(RegisterError::Taken);
        }
        let hash = self.hash(new.password).await?;
        // The id is reserved here. One that was reserved and then given up by
        // a kill gets the new password.
        let user_id: i32 = sqlx::query_scalar(
            "insert into credentials (email, password_hash) values ($1, $2)
             on conflict (email) do update set password_hash = excluded.password_hash
                where not exists (select from events where aggregate_type = 'user'
                                     and aggregate_id = credentials.user_id::text)
             returning user_id",
        )
        .bind(&email)
        .bind(hash)
        .fetch_optional(&self.pool)
        .await
        .map_err(anyhow::Error::from)?
        .ok_or(RegisterError::Taken)?;
        let registered = user::Registered {
            user_id,
            name: new.name.trim().to_owned(),
            email,
            role: new.role,
            agent_id: new.agent_id,
        };
        let command = || user::Command::Register(registered.clone());
        match self
            .store
            .execute::<User>(&user_id.to_string(), command, metadata)
            .await
        {
            Ok(position) => Ok((registered, position)),
            Err(crate::ledger::CommandError::Refused(user::Error::AlreadyRegistered)) => {
                Err(RegisterError::Taken)
            }
            Err(error) => Err(RegisterError::Internal(anyhow::anyhow!(error.to_string()))),
        }
    }

    /// Whether anybody is registered.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn any(&self) -> sqlx::Result<bool> {
        sqlx::query_scalar("select exists (select from events where aggregate_type = 'user')")
            .fetch_one(&self.pool)
            .await
    }

    /// Checks a password. A failure is counted before the check, so parallel
    /// guesses cannot exceed the limit.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn login(&self, email: &str, password: String, from: &str) -> anyhow::Result<Login> {
        let email = email.trim().to_lowercase();
        let keys = [
            self.index.key(&format!("login:email:{email}")),
            self.index.key(&format!("login:from:{from}")),
        ];
        if let Some(retry_after) = self.count_attempt(&keys).await? {
            return Ok(Login::TooMany(retry_after));
        }
        let found = self.find(&email).await?;
        let hash = found
            .as_ref()
            .map_or_else(|| self.nobodys_hash.to_string(), |(hash, _)| hash.clone());
        let right = self.verify(hash, password).await?;
        match found {
            Some((_, user)) if right => {
                self.forget_attempt(&keys).await?;
                Ok(Login::Welcome(user))
            }
            _ => Ok(Login::Wrong),
        }
    }

    /// Counts an attempt under every key, or tells how long to wait. Attempts
    /// under one key wait for each other, so none slips through.
    async fn count_attempt(&self, keys: &[String]) -> sqlx::Result<Option<u64>> {
        let now = self.source.now();
        let window_began = now - Duration::minutes(FAILURES_WINDOW_MINUTES);
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        let mut tx = transaction::begin(&self.pool).await?;
        for key in &sorted {
            sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 4243))")
                .bind(key)
                .execute(&mut *tx)
                .await?;
        }
        let oldest: Option<chrono::DateTime<chrono::Utc>> = sqlx::query_scalar(
            "select min(failed_at) from (
                 select key, failed_at, count(*) over (partition by key) as failures
                   from login_failures where key = any($1) and failed_at > $2) recent
              where failures >= $3",
        )
        .bind(&sorted)
        .bind(window_began)
        .bind(FAILURES_MAX)
        .fetch_one(&mut *tx)
        .await?;
        if let Some(oldest) = oldest {
            let wait = oldest - window_began;
            return Ok(Some(
                u64::try_from(wait.num_seconds()).unwrap_or_default().max(1),
            ));
        }
        sqlx::query("delete from login_failures where failed_at <= $1")
            .bind(window_began)
            .execute(&mut *tx)
            .await?;
        sqlx::query("insert into login_failures (key, failed_at) select unnest($1::text[]), $2")
            .bind(&sorted)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(None)
    }

    /// Takes back an attempt that was no failure, and the failures of the
    /// person, who is back. Those of the network address stay: whoever has one
    /// account could else guess at the others without end.
    async fn forget_attempt(&self, [email, from]: &[String; 2]) -> sqlx::Result<()> {
        sqlx::query(
            "delete from login_failures where key = $1 or ctid = (
                 select ctid from login_failures where key = $2
                  order by failed_at desc limit 1 for update skip locked)",
        )
        .bind(email)
        .bind(from)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A user's hash and what the ledger says of them. Read from the ledger
    /// and not from a read model, so that a new user can log in at once.
    async fn find(&self, email: &str) -> anyhow::Result<Option<(String, user::Registered)>> {
        // PostgreSQL cannot hold NUL, so nobody has such an address.
        if email.contains('\0') {
            return Ok(None);
        }
        let row: Option<(String, String, String, String)> = sqlx::query_as(
            "select c.password_hash, e.event_type, e.event_version, e.payload::text
               from credentials c
               join events e on e.aggregate_type = 'user' and e.aggregate_id = c.user_id::text and e.sequence = 1
              where c.email = $1",
        )
        .bind(email)
        .fetch_optional(&self.pool)
        .await?;
        let Some((hash, name, version, mut payload)) = row else {
            return Ok(None);
        };
        let mut conn = self.pool.acquire().await?;
        let sealed = &mut [(name.as_str(), &mut payload)];
        self.store.opener().open_payloads(&mut conn, sealed).await?;
        match domain::Event::read(&name, &version, &payload)? {
            domain::Event::User(user::Event::Registered(user)) => Ok(Some((hash, user))),
            _ => anyhow::bail!("the first event of a user is {name}"),
        }
    }

    async fn hash(&self, password: String) -> anyhow::Result<String> {
        let _permit = self.hashing.acquire().await?;
        let source = self.source.clone();
        tokio::task::spawn_blocking(move || hash(&source, &password)).await?
    }

    async fn verify(&self, hash: String, password: String) -> anyhow::Result<bool> {
        let _permit = self.hashing.acquire().await?;
        let verified = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            })
        });
        Ok(verified.await?)
    }
}

fn hash(source: &clock::Source, password: &str) -> anyhow::Result<String> {
    let mut salt = [0; 16];
    source.fill(&mut salt);
    let salt = SaltString::encode_b64(&salt).map_err(|error| anyhow::anyhow!("{error}"))?;
    let hash = Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(hash.to_string())
}

/// Checks the fields; returns the address in lower case.
fn validate(new: &NewUser) -> Result<String, RegisterError> {
    let invalid = |field, message: &str| {
        Err(RegisterError::Invalid {
            field,
            message: message.to_owned(),
        })
    };
    let email = new.email.trim().to_lowercase();
    let plausible = email.len() <= 254
        && !email.contains(char::is_whitespace)
        && email.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && !host.is_empty() && !host.contains('@')
        });
    let printable = |text: &str| !text.contains(char::is_control);
    let plausible = plausible && printable(&email);
    if new.name.trim().is_empty() || new.name.chars().count() > 200 || !printable(&new.name) {
        return invalid("name", "must have 1 to 200 characters");
    }
    if new
        .agent_id
        .as_deref()
        .is_some_and(|id| id.chars().count() > 200 || !printable(id))
    {
        return invalid("agentId", "must have at most 200 characters");
    }
    if !plausible {
        return invalid("email", "is not an e-mail address");
    }
    if !PASSWORD_CHARS.contains(&new.password.chars().count()) {
        return invalid("password", "must have 8 to 200 characters");
    }
    Ok(email)
}
