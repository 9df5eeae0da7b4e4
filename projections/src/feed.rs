//! Reading the ledger in its order. Nothing else in this crate reads `events`.
//!
//! Positions are commit order: a reader that has seen position *n* is never
//! shown a smaller one later, so "after the last one I saw" misses nothing.
//! The names are qualified, because a rebuild changes the search path.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use domain::Event;
use domain::event::Recorded;
use domain::sealed::key_ids;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::engine::BATCH_EVENTS_MAX;
use crate::keys::{self, Opened, Opener};
use crate::{text, time};

/// Most bytes of payload, as PostgreSQL stores them (compressed), that one
/// page brings: a page of long transcripts is shorter than a page of callbacks.
const PAGE_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// The positions and sizes of a page's events of some types. Each type by
/// itself: the index on types holds each in order, and however rare or common
/// they are together, no more than a page of each is read. The bounds are of
/// type and position together, which no other index serves: to a planner that
/// has met one type only, it would be as good to go through the whole rest of
/// the ledger for each.
const OF_TYPES: &str = "select position, pg_column_size(payload) as bytes
    from (select candidate.position from unnest($5::text[]) as wanted (event_type)
          cross join lateral (
              select position from public.events e
              where (e.event_type, e.position) > (wanted.event_type, $1)
                and (e.event_type, e.position) <= (wanted.event_type, $4)
              order by e.event_type, e.position limit $2) as candidate
          order by candidate.position limit $2) as chosen
    cross join lateral (select payload from public.events e
                        where e.position = chosen.position limit 1) as event";

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

/// Some of the ledger, in its order: every event of the wanted types after one
/// position and up to another.
#[derive(Debug)]
pub(crate) struct Page {
    after: i64,
    upto: i64,
    events: Vec<Read>,
    /// Whether there is likely more.
    is_full: bool,
    /// When the last was recorded.
    recorded_at: Option<DateTime<Utc>>,
    /// It shows nothing that was erased by this many erasures.
    epoch: i64,
}

/// An event, or why it cannot be read: that only concerns who wants it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events")]
enum Read {
    Event(Recorded),
    Unreadable { event_type: String, why: String },
}

impl Page {
    /// Up to which position nothing is missing.
    pub(crate) fn upto(&self) -> i64 {
        self.upto
    }

    /// Whether nothing was there.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether there is likely more after it.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether it begins at or before a position and ends after it.
    pub(crate) fn holds_what_follows(&self, position: i64) -> bool {
        self.after <= position && position < self.upto
    }

    /// Whether it is still what the ledger holds. An event can be seen a moment
    /// before it is on disk, and a crash of PostgreSQL in this moment takes it
    /// away; never without all that came after it. And of what was erased
    /// since, more is in it than may be.
    pub(crate) async fn stands(&self, conn: &mut PgConnection) -> sqlx::Result<bool> {
        let sql = "select exists (
                       select from public.events where position = $1 and recorded_at = $2)
                   and (select epoch from public.subject_epoch) = $3";
        let stands = sqlx::query_scalar(sql)
            .bind(self.upto)
            .bind(self.recorded_at)
            .bind(self.epoch);
        stands.fetch_one(conn).await
    }

    /// Its events of some types after a position.
    ///
    /// # Errors
    /// When one of these cannot be read; the error names its position.
    pub(crate) fn wanted(&self, types: &[&str], after: i64) -> anyhow::Result<Vec<&Recorded>> {
        let mut wanted = Vec::with_capacity(self.events.len());
        for event in &self.events {
            match event {
                Read::Event(recorded) => {
                    if recorded.position > after && types.contains(&recorded.event.name()) {
                        wanted.push(recorded);
                    }
                }
                Read::Unreadable { event_type, why } => {
                    if types.contains(&event_type.as_str()) {
                        bail!("{why}");
                    }
                }
            }
        }
        Ok(wanted)
    }
}

/// The page after a position: at most `limit` events of any type, and fewer
/// when they are large, but at least one if there is one.
pub(crate) async fn page(
    conn: &mut PgConnection,
    opener: &Opener,
    after: i64,
    limit: i64,
) -> anyhow::Result<Page> {
    let page = "select position, pg_column_size(payload) as bytes from public.events
                where position > $1 order by position limit $2";
    let sql = paged(page);
    let rows = sqlx::query_as(&sql)
        .bind(after)
        .bind(limit)
        .bind(PAGE_BYTES_MAX);
    let rows: Vec<Row> = rows.fetch_all(&mut *conn).await?;
    let upto = rows.last().map_or(after, |row| row.position);
    Page::of(conn, opener, rows, (after, upto), limit).await
}

/// Like [`page`], but only events of the given types and up to a position.
pub(crate) async fn page_of(
    conn: &mut PgConnection,
    opener: &Opener,
    types: &[&str],
    (after, upto): (i64, i64),
    limit: i64,
) -> anyhow::Result<Page> {
    let sql = paged(OF_TYPES);
    let rows = sqlx::query_as(&sql)
        .bind(after)
        .bind(limit)
        .bind(PAGE_BYTES_MAX)
        .bind(upto)
        .bind(types);
    let rows: Vec<Row> = rows.fetch_all(&mut *conn).await?;
    // Short pages may be short for their size, so only an empty one is the end.
    let upto = rows.last().map_or(upto, |row| row.position);
    Page::of(conn, opener, rows, (after, upto), limit).await
}

/// PostgreSQL's plan for the first page of these types up to a position, line by
/// line.
///
/// # Errors
/// When the database fails.
pub async fn explain(
    conn: &mut PgConnection,
    types: &[&str],
    upto: i64,
) -> sqlx::Result<Vec<String>> {
    let sql = format!("explain {}", paged(OF_TYPES));
    sqlx::query_scalar(&sql)
        .bind(0_i64)
        .bind(BATCH_EVENTS_MAX)
        .bind(PAGE_BYTES_MAX)
        .bind(upto)
        .bind(types)
        .fetch_all(conn)
        .await
}

impl Page {
    /// Parses elsewhere than where requests are answered.
    async fn of(
        conn: &mut PgConnection,
        opener: &Opener,
        rows: Vec<Row>,
        (after, upto): (i64, i64),
        limit: i64,
    ) -> anyhow::Result<Self> {
        // Before the keys: what is erased in between was read, and is not
        // known to be erased.
        let epoch = keys::epoch(conn).await?;
        let keys = keys_of(conn, opener, &rows).await?;
        let read = move || {
            let bytes: usize = rows.iter().map(|row| row.payload.len()).sum();
            let is_full = rows.len() as i64 >= limit || bytes as i64 >= PAGE_BYTES_MAX / 2;
            let recorded_at = rows.last().map(|row| row.recorded_at);
            let read = |row: Row| row.read_or_why(&keys);
            let events = rows.into_iter().map(read).collect();
            Self {
                after,
                upto,
                events,
                is_full,
                recorded_at,
                epoch,
            }
        };
        Ok(tokio::task::spawn_blocking(read).await?)
    }
}

/// The events at these positions, in order.
///
/// # Errors
/// When the database fails, or an event cannot be read; the error names its
/// position.
pub async fn read_positions(
    conn: &mut PgConnection,
    opener: &Opener,
    positions: &[i64],
) -> anyhow::Result<Vec<Recorded>> {
    let sql = format!(
        "select {COLUMNS} from public.events e where e.position = any($1) order by e.position"
    );
    let rows = sqlx::query_as(&sql).bind(positions);
    let rows: Vec<Row> = rows.fetch_all(&mut *conn).await?;
    let keys = keys_of(conn, opener, &rows).await?;
    let read = |row: Row| {
        let position = row.position;
        row.read(&keys)
            .with_context(|| format!("the event at position {position} cannot be read"))
    };
    rows.into_iter().map(read).collect()
}

/// The positions, up to one, of the events of streams of a kind.
pub(crate) async fn positions_of(
    conn: &mut PgConnection,
    aggregate_type: &str,
    ids: &[&str],
    upto: i64,
) -> sqlx::Result<Vec<i64>> {
    let sql = "select position from public.events
               where aggregate_type = $1 and aggregate_id = any($2) and position <= $3";
    sqlx::query_scalar(sql)
        .bind(aggregate_type)
        .bind(ids)
        .bind(upto)
        .fetch_all(conn)
        .await
}

async fn keys_of(conn: &mut PgConnection, opener: &Opener, rows: &[Row]) -> anyhow::Result<Opened> {
    let ids = rows.iter();
    let ids = ids.flat_map(|row| key_ids(&row.event_type, &row.payload));
    opener.keys(conn, ids.collect()).await
}

/// The rows of a page until their sizes exceed the limit. The size is looked
/// at without reading the payload. Each event is looked up by itself: a join
/// may become one with the whole ledger, for a prepared plan does not know how
/// short a page is.
fn paged(page: &str) -> String {
    format!(
        "select {COLUMNS} from (
             select position, sum(bytes) over (order by position) - bytes as bytes_before
             from ({page}) as page
         ) as page
         cross join lateral (select * from public.events e
                             where e.position = page.position limit 1) as e
         where page.bytes_before < $3
         order by page.position"
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

impl Row {
    fn read_or_why(self, keys: &Opened) -> Read {
        let (event_type, position) = (self.event_type.clone(), self.position);
        match self.read(keys) {
            Ok(recorded) => Read::Event(recorded),
            Err(error) => Read::Unreadable {
                event_type,
                why: format!("the event at position {position} cannot be read: {error:#}"),
            },
        }
    }

    fn read(self, keys: &Opened) -> anyhow::Result<Recorded> {
        let payload = keys.payload(&self.event_type, &self.payload)?;
        let payload = text::without_nul(&payload);
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
