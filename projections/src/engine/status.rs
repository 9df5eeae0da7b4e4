//! How far the projections are, for people and for metrics.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::{Difference, Engine, Projection};
use crate::feed;

/// Up to how many events a lag is counted; beyond, the difference of positions
/// is near enough and costs nothing.
const LAG_COUNTED_MAX: i64 = 10_000;

/// How a projection runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It follows the ledger.
    Live,
    /// It follows the ledger, and is being folded anew beside that.
    Rebuilding,
    /// It could not fold the next event; `error` says why.
    Stopped,
}

/// How far a projection is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The projection.
    pub name: &'static str,
    /// The version of its rows.
    pub version: i32,
    /// The position up to which it has folded the ledger.
    pub position: i64,
    /// The ledger's last position.
    pub head: i64,
    /// How many events it has yet to look at. Above 10,000 it is an upper bound.
    pub lag_events: i64,
    /// The age of the first of these, in seconds; 0 when there is none.
    pub lag_seconds: f64,
    /// The tables that are its own.
    pub tables: &'static [&'static str],
    /// How it runs.
    pub state: State,
    /// Why it stopped.
    pub error: Option<String>,
    /// The rebuild under way, asked for, or failed.
    pub rebuild: Option<RebuildStatus>,
    /// In what the last rebuild differed from the rows before it; `None` when
    /// there was none, or the two could not be compared.
    pub differences: Option<Vec<Difference>>,
    /// When it last moved; `None` before it ever ran.
    pub updated_at: Option<DateTime<Utc>>,
}

/// How far a rebuild is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RebuildStatus {
    /// The version it builds.
    pub version: i32,
    /// The position up to which it has folded the ledger anew.
    pub position: i64,
    /// The ledger's last position.
    pub head: i64,
    /// When it was asked for.
    pub started_at: DateTime<Utc>,
    /// When it last moved.
    pub updated_at: DateTime<Utc>,
    /// Why it failed; the live rows are as they were.
    pub error: Option<String>,
}

#[derive(FromRow)]
struct CheckpointRow {
    name: String,
    build: String,
    version: i32,
    position: i64,
    error: Option<String>,
    differences: Option<Json<Vec<Difference>>>,
    started_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct Lag {
    after: i64,
    events: i64,
    seconds: f64,
}

impl Engine {
    /// How far every projection is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn statuses(&self) -> anyhow::Result<Vec<Status>> {
        let mut conn = self.pool.acquire().await?;
        let sql =
            "select name, build, version, position, error, differences, started_at, updated_at
                   from projection_checkpoints";
        let rows: Vec<CheckpointRow> = sqlx::query_as(sql).fetch_all(&mut *conn).await?;
        let head = feed::head(&mut conn).await?;
        let projections = self.projections.iter();
        let statuses = projections.map(|projection| status(projection.as_ref(), &rows, head));
        let mut statuses: Vec<_> = statuses.collect();
        let positions = statuses.iter().map(|status| status.position).collect();
        let lags = lags(&mut conn, positions, head).await?;
        for status in &mut statuses {
            if let Some(lag) = lags.get(&status.position) {
                (status.lag_events, status.lag_seconds) = (lag.events, lag.seconds);
            }
        }
        Ok(statuses)
    }
}

fn status(projection: &dyn Projection, rows: &[CheckpointRow], head: i64) -> Status {
    let row = |build| {
        let mut rows = rows.iter();
        rows.find(|row| row.name == projection.name() && row.build == build)
    };
    let (live, rebuild) = (row("live"), row("rebuild"));
    let error = live.and_then(|row| row.error.clone());
    Status {
        name: projection.name(),
        version: live.map_or(projection.version(), |row| row.version),
        position: live.map_or(0, |row| row.position),
        head,
        lag_events: 0,
        lag_seconds: 0.0,
        tables: projection.tables(),
        state: match (&error, rebuild) {
            (Some(_), _) => State::Stopped,
            (None, Some(rebuild)) if rebuild.error.is_none() => State::Rebuilding,
            (None, _) => State::Live,
        },
        error,
        rebuild: rebuild.map(|row| RebuildStatus {
            version: row.version,
            position: row.position,
            head,
            started_at: row.started_at,
            updated_at: row.updated_at,
            error: row.error.clone(),
        }),
        differences: live
            .and_then(|row| row.differences.as_ref())
            .map(|found| found.0.clone()),
        updated_at: live.map(|row| row.updated_at),
    }
}

/// What is yet to be looked at after each of these positions, of which there are
/// as a rule one or two.
async fn lags(
    conn: &mut PgConnection,
    positions: BTreeSet<i64>,
    head: i64,
) -> anyhow::Result<BTreeMap<i64, Lag>> {
    // Both parts are ordered so that they read the index on positions, from
    // there on, and stop early.
    let sql = format!(
        "select behind.after,
            (select count(*) from (
                select from public.events where position > behind.after
                order by position limit {LAG_COUNTED_MAX} + 1) as waiting) as events,
            coalesce(extract(epoch from clock_timestamp() - (
                select recorded_at from public.events where position > behind.after
                order by position limit 1)), 0)::float8 as seconds
        from unnest($1::bigint[]) as behind (after)"
    );
    let positions: Vec<_> = positions.into_iter().collect();
    let lags = sqlx::query_as(&sql).bind(positions);
    let lags: Vec<Lag> = lags.fetch_all(conn).await?;
    let counted = lags.into_iter().map(|mut lag| {
        if lag.events > LAG_COUNTED_MAX {
            lag.events = head - lag.after;
        }
        (lag.after, lag)
    });
    Ok(counted.collect())
}
