//! Reading deliveries: who sent us what, and what was made of it.

use chrono::{DateTime, Utc};
use projections::keys::Opener;
use sqlx::{PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

/// Which deliveries are wanted. What is `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// With this verdict.
    pub verdict: Option<String>,
    /// From this provider.
    pub provider: Option<String>,
    /// Received at or after.
    pub from: Option<DateTime<Utc>>,
    /// Received before or at.
    pub to: Option<DateTime<Utc>>,
    /// Older than this one.
    pub before: Option<Uuid>,
}

/// A delivery without its bytes.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Summary {
    /// UUID version 7.
    pub id: Uuid,
    /// Whose.
    pub provider: String,
    /// Which webhook.
    pub route: String,
    /// What was made of it.
    pub verdict: String,
    /// Why it was put aside or refused.
    pub reason: Option<String>,
    /// By what it was found authentic.
    pub authentication: String,
    /// The first of its kind.
    pub duplicate_of: Option<Uuid>,
    /// The delivery of which it is a second reading.
    pub reprocess_of: Option<Uuid>,
    /// The second reading of it that was accepted.
    pub reprocessed_as: Option<Uuid>,
    /// Position of its last event.
    pub position: Option<i64>,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Where from.
    pub remote_addr: Option<String>,
    /// Size of its body.
    pub body_bytes: i32,
}

/// A delivery whole.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Detail {
    /// What is listed of it.
    #[sqlx(flatten)]
    pub summary: Summary,
    /// Path and query, without secrets.
    pub request_target: String,
    /// Headers, without secrets.
    pub headers: serde_json::Value,
    /// Byte for byte; of a repeat with the same bytes, those of the first.
    /// Empty once whom it is about is erased.
    pub body: Vec<u8>,
    /// Whether whom it is about is erased, and so its body.
    #[sqlx(skip)]
    pub is_erased: bool,
}

const SUMMARY: &str = "d.id, d.provider, d.route, d.verdict, d.reason, d.authentication, d.duplicate_of,
       d.reprocess_of, d.position, d.received_at, d.remote_addr, d.body_bytes,
       (select r.id from deliveries r
         where r.reprocess_of = d.id and r.verdict in ('accepted', 'duplicate') limit 1) as reprocessed_as";

/// Deliveries, the newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(pool: &PgPool, filter: &Filter, limit: i64) -> sqlx::Result<Vec<Summary>> {
    let mut query =
        QueryBuilder::<Postgres>::new(format!("select {SUMMARY} from deliveries d where true"));
    push_filter(&mut query, filter);
    query.push(" order by d.id desc limit ").push_bind(limit);
    query.build_query_as().fetch_all(pool).await
}

/// Restricts a query of `deliveries d` to those that are wanted.
pub(super) fn push_filter<'a>(query: &mut QueryBuilder<'a, Postgres>, filter: &'a Filter) {
    if let Some(verdict) = &filter.verdict {
        // The partial index has the exceptions only: say so where it may serve.
        if verdict != "accepted" {
            query.push(" and d.verdict <> 'accepted'");
        }
        query.push(" and d.verdict = ").push_bind(verdict);
    }
    if let Some(provider) = &filter.provider {
        query.push(" and d.provider = ").push_bind(provider);
    }
    // Ids carry the time of receipt.
    if let Some(from) = filter.from {
        query.push(" and d.id >= ").push_bind(first_id_at(from));
    }
    if let Some(to) = filter.to {
        query
            .push(" and d.id < ")
            .push_bind(first_id_at(to + chrono::Duration::milliseconds(1)));
    }
    if let Some(before) = filter.before {
        query.push(" and d.id < ").push_bind(before);
    }
}

/// One delivery with its bytes.
///
/// # Errors
/// When the database does not answer, or the body cannot be opened.
pub async fn get(pool: &PgPool, opener: &Opener, id: Uuid) -> anyhow::Result<Option<Detail>> {
    let sql = format!(
        "select {SUMMARY}, d.request_target, d.headers,
                coalesce(d.body, (select f.body from deliveries f where f.id = coalesce(d.duplicate_of, d.reprocess_of)), '') as body
           from deliveries d where d.id = $1"
    );
    let mut conn = pool.acquire().await?;
    let found = sqlx::query_as(&sql).bind(id).fetch_optional(&mut *conn);
    let found: Option<Detail> = found.await?;
    let Some(mut detail) = found else {
        return Ok(None);
    };
    let key_id = domain::sealed::body_key_id(&detail.body);
    let keys = opener.keys(&mut conn, key_id.into_iter().collect()).await?;
    detail.is_erased = key_id.is_some_and(|id| !keys.has(id));
    detail.body = keys.body(detail.body)?;
    Ok(Some(detail))
}

/// The body and webhook of a delivery.
///
/// # Errors
/// As [`get`].
pub async fn body(pool: &PgPool, opener: &Opener, id: Uuid) -> anyhow::Result<Option<Vec<u8>>> {
    Ok(get(pool, opener, id).await?.map(|delivery| delivery.body))
}

/// The smallest UUID version 7 of a moment.
pub(super) fn first_id_at(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}
