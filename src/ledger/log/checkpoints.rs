//! The signed heads that are kept.

use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::log::Hash;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgExecutor, Row};

/// A signed head, and what it covers.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Leaves.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// The signed note.
    pub note: String,
    /// When it was signed.
    pub sealed_at: DateTime<Utc>,
    /// Of the last event that it covers, 0 for none.
    pub last_position: i64,
    /// Of the last delivery that it covers, 0 for none.
    pub last_seq: i64,
    /// Events that it covers.
    pub events: u64,
    /// Deliveries that it covers.
    pub deliveries: u64,
}

pub(super) const COLUMNS: &str =
    "size, root, note, sealed_at, last_position, last_seq, events, deliveries";

impl FromRow<'_, PgRow> for Checkpoint {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let count = |name: &str| -> sqlx::Result<u64> {
            u64::try_from(row.try_get::<i64, _>(name)?).map_err(|e| sqlx::Error::Decode(e.into()))
        };
        let root: Vec<u8> = row.try_get("root")?;
        let root = root.try_into().ok().context("a root of another size");
        Ok(Self {
            size: count("size")?,
            root: Hash(root.map_err(|error| sqlx::Error::Decode(error.into()))?),
            note: row.try_get("note")?,
            sealed_at: row.try_get("sealed_at")?,
            last_position: row.try_get("last_position")?,
            last_seq: row.try_get("last_seq")?,
            events: count("events")?,
            deliveries: count("deliveries")?,
        })
    }
}

/// The last one.
///
/// # Errors
/// When the database does not answer.
pub async fn latest(db: impl PgExecutor<'_>) -> sqlx::Result<Option<Checkpoint>> {
    let sql = format!("select {COLUMNS} from log_checkpoints order by size desc limit 1");
    sqlx::query_as(&sql).fetch_optional(db).await
}

/// The first one.
///
/// # Errors
/// When the database does not answer.
pub async fn first(db: impl PgExecutor<'_>) -> sqlx::Result<Option<Checkpoint>> {
    let sql = format!("select {COLUMNS} from log_checkpoints order by size limit 1");
    sqlx::query_as(&sql).fetch_optional(db).await
}

/// The last one that was signed at or before a time.
///
/// # Errors
/// When the database does not answer.
pub async fn at_time(
    db: impl PgExecutor<'_>,
    at: DateTime<Utc>,
) -> sqlx::Result<Option<Checkpoint>> {
    let sql = format!(
        "select {COLUMNS} from log_checkpoints where sealed_at <= $1
          order by sealed_at desc, size desc limit 1"
    );
    sqlx::query_as(&sql).bind(at).fetch_optional(db).await
}

/// The one of this size.
///
/// # Errors
/// When the database does not answer.
pub async fn of_size(db: impl PgExecutor<'_>, size: u64) -> sqlx::Result<Option<Checkpoint>> {
    let sql = format!("select {COLUMNS} from log_checkpoints where size = $1");
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    sqlx::query_as(&sql).bind(size).fetch_optional(db).await
}

/// Those that were signed between two times, the newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    db: impl PgExecutor<'_>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Checkpoint>> {
    let sql = format!(
        "select {COLUMNS} from log_checkpoints
          where ($1::timestamptz is null or sealed_at >= $1)
            and ($2::timestamptz is null or sealed_at <= $2)
            and ($3::bigint is null or size < $3)
          order by size desc limit $4"
    );
    let query = sqlx::query_as(&sql).bind(from).bind(to);
    query.bind(before).bind(limit).fetch_all(db).await
}
