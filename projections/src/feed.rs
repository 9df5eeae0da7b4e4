//! Reading the ledger in its order. Nothing else in this crate reads `events`.
//!
//! Positions are commit order: a reader that has seen position *n* is never
//! shown a smaller one later, so "after the last one I saw" misses nothing.
//! The names are qualified, because a rebuild changes the search path.

use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::Event;
use domain::event::Recorded;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{text, time};

/// Most bytes of payload, as PostgreSQL stores them (compressed), that one
/// page brings: a page of long transcripts is shorter than a page of callbacks.
const PAGE_BYTES_MAX: i64 = 16 * 1024 * 1024;

const COLUMNS: &str = "e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type,
    e.event_version, e.payload::text as payload, e.metadata ->> 'provider' as provider,
    coalesce(e.occurred_at, e.recorded_at) as occurred_at, e.recorded_at, e.delivery_id";

/// The position of the last event, 0 on an empty ledger.
///
/// # Errors
/// When the database fails.
pub async fn head(conn: &mut PgConnection) -> anyhow::Result<i64> {
    let sql = "select coalesce(max(position), 0) from public.events";
    Ok(sqlx::query_scalar(sql).fetch_one(conn).await?)
}

/// The position of the last event recorded at or before a time, 0 if none was.
///
/// # Errors
/// When the database fails.
pub async fn position_at(conn: &mut PgConnection, at: DateTime<Utc>) -> anyhow::Result<i64> {
    let sql = "select public.ledger_position_at($1)";
    Ok(sqlx::query_scalar(sql)
        .bind(time::askable(at))
        .fetch_one(conn)
        .await?)
}

/// The events after a position, at most `limit`, in order. Fewer than `limit`
/// may come although there are more, when they are large; at least one comes
/// if there is one.
///
/// # Errors
/// When the database fails, or an event cannot be read; the error names its
/// position.
pub async fn read(
    conn: &mut PgConnection,
    after: i64,
    limit: i64,
) -> anyhow::Result<Vec<Recorded>> {
    let page = "select position, pg_column_size(payload) as bytes from public.events
                where position > $1 order by position limit $2";
    let sql = paged(page);
    let rows = sqlx::query_as(&sql)
        .bind(after)
        .bind(limit)
        .bind(PAGE_BYTES_MAX);
    recorded(rows.fetch_all(conn).await?)
}

/// Like [`read`], but only events of the given types and up to a position.
pub(crate) async fn read_types(
    conn: &mut PgConnection,
    types: &[&str],
    after: i64,
    upto: i64,
    limit: i64,
) -> anyhow::Result<Vec<Recorded>> {
    let page = "select position, pg_column_size(payload) as bytes from public.events
                where position > $1 and position <= $4 and event_type = any($5)
                order by position limit $2";
    let sql = paged(page);
    let rows = sqlx::query_as(&sql)
        .bind(after)
        .bind(limit)
        .bind(PAGE_BYTES_MAX)
        .bind(upto)
        .bind(types);
    recorded(rows.fetch_all(conn).await?)
}

/// The events at these positions, in order.
///
/// # Errors
/// As [`read`].
pub async fn read_positions(
    conn: &mut PgConnection,
    positions: &[i64],
) -> anyhow::Result<Vec<Recorded>> {
    let sql = format!(
        "select {COLUMNS} from public.events e where e.position = any($1) order by e.position"
    );
    recorded(sqlx::query_as(&sql).bind(positions).fetch_all(conn).await?)
}

/// The rows of a page until their sizes exceed the limit. The size is looked
/// at without reading the payload.
fn paged(page: &str) -> String {
    format!(
        "select {COLUMNS} from (
             select position, sum(bytes) over (order by position) - bytes as bytes_before
             from ({page}) as page
         ) as page
         join public.events e using (position)
         where page.bytes_before < $3
         order by position"
    )
}

#[derive(FromRow)]
struct Row {
    position: i64,
    aggregate_type: String,
    aggregate_id: String,
    sequence: i64,
    event_type: String,
    event_version: String,
    payload: String,
    provider: Option<String>,
    occurred_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
    delivery_id: Option<Uuid>,
}

fn recorded(rows: Vec<Row>) -> anyhow::Result<Vec<Recorded>> {
    rows.into_iter()
        .map(|row| {
            let position = row.position;
            row.read()
                .with_context(|| format!("the event at position {position} cannot be read"))
        })
        .collect()
}

impl Row {
    fn read(self) -> anyhow::Result<Recorded> {
        let payload = text::without_nul(&self.payload);
        let provider = self.provider.map(|name| name.parse());
        Ok(Recorded {
            position: self.position,
            event: Event::read(&self.event_type, &self.event_version, &payload)?,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            sequence: self.sequence,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            delivery_id: self.delivery_id,
            provider: provider.transpose().map_err(anyhow::Error::msg)?,
        })
    }
}
