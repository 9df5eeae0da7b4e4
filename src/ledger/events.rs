//! Reading events for people: by filter, in order, a page at a time.

use chrono::{DateTime, Utc};
use domain::conversation::normalised;
use projections::keys::Opener;
use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

/// Which events are wanted. What is `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those behind this position.
    pub after: i64,
    /// Of this name.
    pub event_type: Option<String>,
    /// Of this kind of aggregate.
    pub aggregate_type: Option<String>,
    /// Of this aggregate.
    pub aggregate_id: Option<String>,
    /// Recorded at or after.
    pub from: Option<DateTime<Utc>>,
    /// Recorded before or at.
    pub to: Option<DateTime<Utc>>,
}

/// An event as it is stored.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Place in the one total order.
    pub position: i64,
    /// Kind of aggregate.
    pub aggregate_type: String,
    /// The aggregate.
    pub aggregate_id: String,
    /// Place in its stream.
    pub sequence: i64,
    /// Name.
    pub event_type: String,
    /// Version.
    pub event_version: String,
    /// What happened.
    pub payload: Value,
    /// What is known about the telling.
    pub metadata: Value,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The delivery that brought it.
    pub delivery_id: Option<Uuid>,
}

/// As it stands in the table.
#[derive(FromRow)]
struct Row {
    position: i64,
    aggregate_type: String,
    aggregate_id: String,
    sequence: i64,
    event_type: String,
    event_version: String,
    payload: String,
    metadata: Value,
    occurred_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
    delivery_id: Option<Uuid>,
}

impl Row {
    fn opened(self) -> anyhow::Result<StoredEvent> {
        Ok(StoredEvent {
            position: self.position,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            sequence: self.sequence,
            event_type: self.event_type,
            event_version: self.event_version,
            payload: serde_json::from_str(&self.payload)?,
            metadata: self.metadata,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            delivery_id: self.delivery_id,
        })
    }
}

const COLUMNS: &str = "position, aggregate_type, aggregate_id, sequence, event_type, event_version,
    payload::text as payload, metadata, coalesce(occurred_at, recorded_at) as occurred_at,
    recorded_at, delivery_id";

async fn opened(
    conn: &mut PgConnection,
    opener: &Opener,
    mut rows: Vec<Row>,
) -> anyhow::Result<Vec<StoredEvent>> {
    let payloads = rows.iter_mut();
    let mut payloads: Vec<_> = payloads
        .map(|row| (row.event_type.as_str(), &mut row.payload))
        .collect();
    opener.open_payloads(conn, &mut payloads).await?;
    rows.into_iter().map(Row::opened).collect()
}

/// Every kind of aggregate on the ledger, by one probe of the primary key for
/// each, so that an aggregate is found there by its id alone.
const AGGREGATE_TYPES: &str = "
    with recursive kind as (
        (select aggregate_type as name from events order by 1 limit 1)
        union all
        select (select aggregate_type from events where aggregate_type > kind.name order by 1 limit 1)
          from kind where kind.name is not null)
    select name from kind where name is not null";

/// Events in the order of the ledger.
///
/// # Errors
/// When the database does not answer, or an event cannot be opened.
pub async fn list(
    pool: &PgPool,
    opener: &Opener,
    filter: &Filter,
    limit: i64,
) -> anyhow::Result<Vec<StoredEvent>> {
    let mut query =
        QueryBuilder::<Postgres>::new(format!("select {COLUMNS} from events where true"));
    push_filter(&mut query, filter);
    query.push(" order by position limit ").push_bind(limit);
    let mut conn = pool.acquire().await?;
    let rows: Vec<Row> = query.build_query_as().fetch_all(&mut *conn).await?;
    let events = opened(&mut conn, opener, rows).await?;
    if let Some(last) = events.last() {
        // Whoever has seen a position goes on behind it, so it must never be
        // another event's, not even after a crash of the server.
        let flush = "select ledger_flush() where $1 > clock_timestamp() - interval '1 minute'";
        let flush = sqlx::query(flush).bind(last.recorded_at);
        flush.execute(&mut *conn).await?;
    }
    Ok(events)
}

/// Restricts a query of `events` to those that are wanted.
pub(super) fn push_filter<'a>(query: &mut QueryBuilder<'a, Postgres>, filter: &'a Filter) {
    query.push(" and position > ").push_bind(filter.after);
    if let Some(event_type) = &filter.event_type {
        query.push(" and event_type = ").push_bind(event_type);
    }
    if let Some(aggregate_type) = &filter.aggregate_type {
        query
            .push(" and aggregate_type = ")
            .push_bind(aggregate_type);
    }
    if let Some(aggregate_id) = &filter.aggregate_id {
        query.push(" and aggregate_id = ").push_bind(aggregate_id);
        if filter.aggregate_type.is_none() {
            query
                .push(" and aggregate_type = any(array(")
                .push(AGGREGATE_TYPES)
                .push("))");
        }
    }
    // Times become positions, so that the index on position serves. Sub-selects,
    // so that each is worked out once and not for every row.
    if let Some(from) = filter.from {
        query
            .push(" and position > (select ledger_position_at(")
            .push_bind(just_before(from))
            .push("))");
    }
    if let Some(to) = filter.to {
        query
            .push(" and position <= (select ledger_position_at(")
            .push_bind(to)
            .push("))");
    }
}

/// PostgreSQL counts in microseconds.
fn just_before(time: DateTime<Utc>) -> DateTime<Utc> {
    time - chrono::Duration::microseconds(1)
}

/// The last position, 0 for an empty ledger.
///
/// # Errors
/// When the database does not answer.
pub async fn head(pool: &PgPool) -> sqlx::Result<i64> {
    let head = sqlx::query_scalar("select coalesce(max(position), 0) from events")
        .fetch_one(pool)
        .await?;
    // As above: a stream goes on behind it.
    sqlx::query("select ledger_flush()").execute(pool).await?;
    Ok(head)
}

/// The last event of one of these types in a stream.
///
/// # Errors
/// When the database does not answer, or the event cannot be opened.
pub async fn last_of(
    pool: &PgPool,
    opener: &Opener,
    aggregate_type: &str,
    aggregate_id: &str,
    event_types: &[&str],
) -> anyhow::Result<Option<StoredEvent>> {
    let sql = format!(
        "select {COLUMNS} from events
          where aggregate_type = $1 and aggregate_id = $2 and event_type = any($3)
          order by sequence desc limit 1"
    );
    let mut conn = pool.acquire().await?;
    let rows: Vec<Row> = sqlx::query_as(&sql)
        .bind(aggregate_type)
        .bind(aggregate_id)
        .bind(event_types)
        .fetch_all(&mut *conn)
        .await?;
    Ok(opened(&mut conn, opener, rows).await?.pop())
}

/// The batch that was submitted, or found, as the provider's batch of this id.
///
/// # Errors
/// When the database does not answer.
pub async fn submitted_as(pool: &PgPool, provider_batch_id: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "select aggregate_id from events
          where event_type = 'batch.submitted' and payload -> 'batch' ->> 'id' = $1
          order by position limit 1",
    )
    .bind(provider_batch_id)
    .fetch_optional(pool)
    .await
}

/// The streams of batches and calls that grew behind a position: position, kind
/// and id, in the order of the ledger.
///
/// # Errors
/// When the database does not answer.
pub async fn grown(
    pool: &PgPool,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<(i64, String, String)>> {
    sqlx::query_as(
        "select position, aggregate_type, aggregate_id from events
          where position > $1 and aggregate_type in ('batch', 'call')
          order by position limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Most messages in a chat that are compared: those of a minute or so.
const MIRRORS_MAX: i64 = 500;

/// Whether a provider's own webhook has told of a message of ours with these
/// words in a chat, since an effect was last attempted. Blanks do not matter.
///
/// # Errors
/// When the database does not answer, or an event cannot be opened.
pub async fn was_mirrored(
    pool: &PgPool,
    opener: &Opener,
    effect_id: &str,
    chat: &str,
    content: &str,
) -> anyhow::Result<bool> {
    let attempted = last_of(pool, opener, "effect", effect_id, &["effect.attempted"]).await?;
    let Some(attempted) = attempted else {
        return Ok(false);
    };
    let sql = format!(
        "select {COLUMNS} from events
          where aggregate_type = 'chat' and aggregate_id = $1 and position > $2
            and event_type = 'message.sent'
          order by position limit $3"
    );
    let mut conn = pool.acquire().await?;
    let rows: Vec<Row> = sqlx::query_as(&sql)
        .bind(chat)
        .bind(attempted.position)
        .bind(MIRRORS_MAX)
        .fetch_all(&mut *conn)
        .await?;
    let told = opened(&mut conn, opener, rows).await?;
    let content = normalised(content);
    let mut told = told
        .iter()
        .filter_map(|event| event.payload["content"].as_str());
    Ok(told.any(|told| normalised(told) == content))
}
