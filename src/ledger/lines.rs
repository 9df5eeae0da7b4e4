//! Rows of the ledger as they are stored, page by page, for exports.

use chrono::{DateTime, Utc};
use domain::log::line::{DeliveryLine, EventLine};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder, Row};

use super::{deliveries, events};

/// Most rows of a page.
const PAGE_ROWS: i64 = 500;
/// About so many bytes are in a page, or one row.
const PAGE_BYTES: i64 = 4 << 20;

/// Up to where the ledger is, on disk: the position of the last event and the
/// number of the last delivery, at one moment.
///
/// # Errors
/// When the database does not answer.
pub async fn heads(pool: &PgPool) -> sqlx::Result<(i64, i64)> {
    let sql = "select (select coalesce(max(position), 0) from events),
                      (select coalesce(max(seq), 0) from deliveries)";
    let heads = sqlx::query_as(sql).fetch_one(pool).await?;
    sqlx::query("select ledger_flush()").execute(pool).await?;
    Ok(heads)
}

/// The next events that match, up to a position, in order.
///
/// # Errors
/// When the database does not answer.
pub async fn events(
    pool: &PgPool,
    filter: &events::Filter,
    upto: i64,
) -> sqlx::Result<Vec<EventLine>> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version,
                e.payload::text as payload, e.metadata::text as metadata, e.occurred_at, e.recorded_at,
                e.delivery_id
           from (select position, sum(bytes) over (order by position) - bytes as before
                   from (select position, pg_column_size(payload) as bytes from events where position <= ",
    );
    query.push_bind(upto);
    events::push_filter(&mut query, filter);
    query.push(" order by position limit ").push_bind(PAGE_ROWS);
    query.push(") as page) as page join events e using (position) where before < ");
    query.push_bind(PAGE_BYTES).push(" order by e.position");
    let rows: Vec<StoredEvent> = query
        .build_query_as()
        .persistent(false)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// The next deliveries that match, behind one number and up to another, in
/// order; `whole`: with body, headers and path, else without.
///
/// # Errors
/// When the database does not answer.
pub async fn deliveries(
    pool: &PgPool,
    filter: &deliveries::Filter,
    (after, upto): (i64, i64),
    whole: bool,
) -> sqlx::Result<Vec<DeliveryLine>> {
    let sent = match whole {
        true => "d.request_target, d.headers::text as headers, d.body",
        false => "'' as request_target, '' as headers, null::bytea as body",
    };
    let mut query = QueryBuilder::<Postgres>::new(format!(
        "select d.id, d.seq, d.provider, d.route, d.verdict, d.reason, d.authentication, d.dedup_key,
                d.repeat_key, d.duplicate_of, d.reprocess_of, d.position, d.received_at, d.remote_addr,
                d.body_bytes, {sent}
           from (select seq, sum(body_bytes) over (order by seq) - body_bytes as before
                   from (select seq, body_bytes::bigint from deliveries d where d.seq > "
    ));
    query
        .push_bind(after)
        .push(" and d.seq <= ")
        .push_bind(upto);
    deliveries::push_filter(&mut query, filter);
    query.push(" order by d.seq limit ").push_bind(PAGE_ROWS);
    query.push(") as page) as page join deliveries d using (seq) where before < ");
    query.push_bind(PAGE_BYTES).push(" order by d.seq");
    let rows: Vec<StoredDelivery> = query
        .build_query_as()
        .persistent(false)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

fn micros(row: &PgRow, name: &str) -> sqlx::Result<i64> {
    Ok(row.try_get::<DateTime<Utc>, _>(name)?.timestamp_micros())
}

struct StoredEvent(EventLine);

impl FromRow<'_, PgRow> for StoredEvent {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let occurred_at: Option<DateTime<Utc>> = row.try_get("occurred_at")?;
        Ok(Self(EventLine {
            position: row.try_get("position")?,
            aggregate_type: row.try_get("aggregate_type")?,
            aggregate_id: row.try_get("aggregate_id")?,
            sequence: row.try_get("sequence")?,
            event_type: row.try_get("event_type")?,
            event_version: row.try_get("event_version")?,
            payload: row.try_get("payload")?,
            metadata: row.try_get("metadata")?,
            occurred_at: occurred_at.map(|at| at.timestamp_micros()),
            recorded_at: micros(row, "recorded_at")?,
            delivery_id: row.try_get("delivery_id")?,
        }))
    }
}

struct StoredDelivery(DeliveryLine);

impl FromRow<'_, PgRow> for StoredDelivery {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self(DeliveryLine {
            id: row.try_get("id")?,
            seq: row.try_get("seq")?,
            provider: row.try_get("provider")?,
            route: row.try_get("route")?,
            verdict: row.try_get("verdict")?,
            reason: row.try_get("reason")?,
            authentication: row.try_get("authentication")?,
            dedup_key: row.try_get("dedup_key")?,
            repeat_key: row.try_get("repeat_key")?,
            duplicate_of: row.try_get("duplicate_of")?,
            reprocess_of: row.try_get("reprocess_of")?,
            position: row.try_get("position")?,
            received_at: micros(row, "received_at")?,
            remote_addr: row.try_get("remote_addr")?,
            request_target: row.try_get("request_target")?,
            headers: row.try_get("headers")?,
            body: row.try_get("body")?,
            body_bytes: row.try_get::<i32, _>("body_bytes")?.into(),
        }))
    }
}
