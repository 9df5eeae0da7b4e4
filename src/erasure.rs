//! The right to be forgotten: destroying what a person's data can be read by,
//! on request and, by channel, after a time.

use chrono::{Days, NaiveDate};
use domain::PhoneNumber;
use projections::subjects;

use crate::app::App;
use crate::ledger::erase::{self, Done, Order};
use crate::ledger::events;
use crate::transaction;

/// What says which streams are a person's.
const READ_MODELS: [&str; 2] = ["interactions", "effects"];

/// For how long a channel's data is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Calls.
    pub call: Option<Days>,
    /// WhatsApp.
    pub whatsapp: Option<Days>,
    /// Text messages and one-time codes.
    pub sms: Option<Days>,
    /// Requests that were not authentic, or not understood.
    pub unverified: Option<Days>,
}

impl Retention {
    /// Nothing is erased for its age.
    pub const NONE: Self = Self {
        call: None,
        whatsapp: None,
        sms: None,
        unverified: None,
    };

    fn rules(self) -> impl Iterator<Item = (&'static str, Days)> {
        let rules = [
            ("call", self.call),
            ("whatsapp", self.whatsapp),
            ("sms", self.sms),
            ("unverified", self.unverified),
        ];
        rules
            .into_iter()
            .filter_map(|(channel, kept)| Some((channel, kept?)))
    }
}

/// Why nobody was erased.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing that could be erased.
    #[error(
        "Nothing is held of this number that can be erased: it is unknown, or was erased already"
    )]
    Unknown,
    /// What is read lags behind the ledger: not everything would be found.
    #[error("The read models are not up to date yet, try again")]
    Behind,
    /// The database failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Internal(error.into())
    }
}

/// Erases a person. The read models follow: a worker folds them anew.
///
/// # Errors
/// [`Error`]; then nothing is erased.
pub async fn person(app: &App, number: &PhoneNumber, order: &Order) -> Result<Done, Error> {
    let head = events::head(&app.pool).await?;
    if !app.readable(&READ_MODELS, head).await {
        return Err(Error::Behind);
    }
    let key = app.phone_index.key(number.as_str());
    let mut conn = app.pool.acquire().await?;
    let streams = subjects::streams(&mut conn, &key).await?;
    drop(conn);
    let done = erase::person(&app.pool, order, &key, &streams).await?;
    let done = done.ok_or(Error::Unknown)?;
    tracing::info!(erasure = %order.id, keys = done.keys_count, "a person was erased");
    if let Err(error) = blank(app, &key).await {
        tracing::warn!(%error, "who was erased is shown until the read models are folded anew");
    }
    Ok(done)
}

/// Nobody is shown what was erased while the read models are folded anew.
async fn blank(app: &App, phone_key: &str) -> sqlx::Result<()> {
    for projection in subjects::shown() {
        let mut tx = transaction::begin(&app.pool).await?;
        subjects::blank(&mut tx, projection, phone_key).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Erases what is older than it may be. Gives how many keys were destroyed.
///
/// # Errors
/// When the database fails.
pub async fn retain(app: &App) -> anyhow::Result<u64> {
    let today = app.source.now().date_naive();
    let mut keys_count = 0;
    for (channel, kept) in app.config.retention.rules() {
        let before: NaiveDate = today.checked_sub_days(kept).unwrap_or(NaiveDate::MIN);
        let order = order(app, "retention", "worker");
        let done = erase::older_than(&app.pool, &order, channel, before).await?;
        keys_count += done.map_or(0, |done| done.keys_count);
    }
    Ok(keys_count)
}

/// An erasure that is to be, now.
pub fn order(app: &App, reason: &str, by: &str) -> Order {
    Order {
        id: app.source.id(),
        at: app.source.now(),
        reason: reason.to_owned(),
        by: by.to_owned(),
    }
}
