//! Where everything is wired: what a running process is made of.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use domain::PhoneIndex;
use metrics_exporter_prometheus::PrometheusHandle;
use projections::{Engine, Opener};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;
use crate::batches::Live;
use crate::clock;
use crate::config::Config;
use crate::ledger::{Keyring, Store, Writer};
use crate::otp::Otp;
use crate::providers::{builderbot, elevenlabs, twilio};

/// How long to wait for a connection before a request is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may lie idle and be used without a ping.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// Documents that are read at once: each takes a core and its memory.
const IMPORTS_AT_ONCE: usize = 2;
/// Exports that are made at once: each takes a connection.
const EXPORTS_AT_ONCE: usize = 2;
/// How long a command waits until what it changed can be read.
const READ_YOUR_WRITES_TIMEOUT: Duration = Duration::from_secs(1);

/// What every handler and every worker shares.
pub struct App {
    /// The settings.
    pub config: Config,
    /// The database, for reading.
    pub pool: PgPool,
    /// Facts go in here.
    pub writer: Writer,
    /// People and their passwords.
    pub accounts: Accounts,
    /// Decisions go in here.
    pub store: Store,
    /// One-time codes.
    pub otp: Otp,
    /// What we ask of ElevenLabs.
    pub elevenlabs: elevenlabs::client::Client,
    /// What we send by Twilio.
    pub twilio: twilio::client::Client,
    /// What we send by builderbot.
    pub builderbot: builderbot::client::Client,
    /// The batches that somebody watches.
    pub live: Live,
    /// Documents that are read at once.
    pub importing: Semaphore,
    /// Exports that are made at once.
    pub exporting: Arc<Semaphore>,
    /// Opens what is personal on the ledger.
    pub opener: Opener,
    /// The read models.
    pub engine: Engine,
    /// The one way to look up a phone.
    pub phone_index: PhoneIndex,
    /// Time, ids and randomness.
    pub source: clock::Source,
    /// What was counted.
    pub metrics: PrometheusHandle,
    /// Changes whenever there may be new events.
    pub news: watch::Receiver<()>,
    /// Cancelled when the process is to stop.
    pub stopping: CancellationToken,
    /// When this process began.
    pub started_at: chrono::DateTime<chrono::Utc>,
}

impl App {
    /// Puts an application together on a migrated database.
    ///
    /// # Errors
    /// When a provider's client cannot be made.
    pub fn new(
        config: Config,
        pool: PgPool,
        (writer, phone_index, keyring): (Writer, PhoneIndex, Option<Keyring>),
        source: clock::Source,
        metrics: PrometheusHandle,
        news: watch::Receiver<()>,
        stopping: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let opener = Opener::new(config.master_keys.clone());
        let store = Store::new(pool.clone()).sealing(keyring, opener.clone());
        Ok(Arc::new(Self {
            elevenlabs: elevenlabs::client::Client::new(&config.elevenlabs, source.clone())?,
            twilio: twilio::client::Client::new(&config.twilio, source.clone())?,
            builderbot: builderbot::client::Client::new(&config.builderbot, source.clone())?,
            accounts: Accounts::new(
                pool.clone(),
                store.clone(),
                phone_index.clone(),
                source.clone(),
            ),
            otp: Otp::new(
                pool.clone(),
                store.clone(),
                phone_index.clone(),
                source.clone(),
                &config.jwt_secrets,
                config.otp.clone(),
            )?,
            engine: Engine::new(pool.clone(), projections::all(&phone_index))
                .opening(opener.clone()),
            opener,
            live: Live::default(),
            importing: Semaphore::new(IMPORTS_AT_ONCE),
            exporting: Arc::new(Semaphore::new(EXPORTS_AT_ONCE)),
            started_at: source.now(),
            store,
            config,
            pool,
            writer,
            phone_index,
            source,
            metrics,
            news,
            stopping,
        }))
    }

    /// Waits, for a moment at most, until the named read models show what is
    /// at `position`, so that a read that follows a command sees it. Whether
    /// they do.
    pub async fn readable(&self, read_models: &[&str], position: i64) -> bool {
        let caught_up = self
            .engine
            .wait_for(read_models, position, READ_YOUR_WRITES_TIMEOUT)
            .await;
        let caught_up = matches!(caught_up, Ok(true));
        if !caught_up {
            tracing::warn!(
                ?read_models,
                position,
                "the read models of a command have not caught up in time"
            );
        }
        caught_up
    }
}

/// A pool for a service that must not waste round trips.
///
/// # Errors
/// When the address is wrong or nobody answers there.
pub async fn connect(url: &str, connections_max: u32) -> anyhow::Result<PgPool> {
    let options = connect_options(url).context(
        "DATABASE_URL is no PostgreSQL address (postgres://user:password@host:port/database)",
    )?;
    let options = options.application_name("bitacora");
    // A pool only says that it timed out; one connection says why.
    let first = PgConnection::connect_with(&options)
        .await
        .context("cannot connect to PostgreSQL: is DATABASE_URL right, and is the server up?")?;
    first.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A ping before each use costs 10 to 35 % of the rate. A connection
        // that lay idle may have died with a restart of the database.
        .test_before_acquire(false)
        .before_acquire(|conn, known| {
            Box::pin(async move {
                if known.idle_for > TRUSTED_IDLE {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options);
    Ok(pool)
}

/// sqlx takes any scheme for its own.
fn connect_options(url: &str) -> sqlx::Result<PgConnectOptions> {
    let schemes = ["postgres://", "postgresql://"];
    if !schemes.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(sqlx::Error::Configuration("it has another scheme".into()));
    }
    url.parse()
}
