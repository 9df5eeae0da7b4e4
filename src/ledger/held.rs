//! Which deliveries are a person's: those that brought the events of their
//! streams, and those that brought nothing but are repeats of these, or under
//! keys of the person.

use std::collections::BTreeSet;

use chrono::{DateTime, Days, Duration, NaiveDate, NaiveTime, Utc};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::deliveries::first_id_at;
use super::erase::subjects_of;

/// By how much clocks of replicas may differ, and a request may have been under
/// way before it was sealed.
const MARGIN: Duration = Duration::hours(1);

/// The keys of one day. One is made when it is needed, and seals until the end
/// of its day.
#[derive(FromRow)]
struct Keys {
    day: NaiveDate,
    first_at: DateTime<Utc>,
    ids: Vec<Uuid>,
}

impl Keys {
    /// Between which ids the deliveries are that may be under them.
    fn span(&self) -> (Uuid, Uuid) {
        let end = self.day.and_time(NaiveTime::MIN).and_utc() + Days::new(1);
        (
            first_id_at(self.first_at - MARGIN),
            first_id_at(end + MARGIN),
        )
    }
}

/// The ids of all deliveries of whoever has this key and these streams, the
/// oldest first.
///
/// # Errors
/// When the database fails.
pub async fn deliveries_of(
    pool: &PgPool,
    phone_key: &str,
    streams: &[(String, String)],
) -> sqlx::Result<BTreeSet<Uuid>> {
    let mut found = brought(pool, streams).await?;
    // Keys without a day are of what no provider brings.
    let days: Vec<Keys> = sqlx::query_as(
        "select day, min(created_at) as first_at, array_agg(id) as ids from subject_keys
          where subject = any($1) and wrapped_key is not null and day is not null
          group by day order by day",
    )
    .bind(subjects_of(phone_key, streams))
    .fetch_all(pool)
    .await?;
    let known: Vec<Uuid> = found.iter().copied().collect();
    for keys in days {
        let (from, to) = keys.span();
        let ids: Vec<&[u8]> = keys.ids.iter().map(|id| &id.as_bytes()[..]).collect();
        // Only exceptions bring nothing, and they have an index. What follows
        // the mark of a body is the key's id (`domain::sealed`).
        let exceptions: Vec<Uuid> = sqlx::query_scalar(
            "select id from deliveries
              where verdict <> 'accepted' and verdict in ('duplicate', 'quarantined')
                and id >= $1 and id < $2
                and (duplicate_of = any($3) or substring(body from 9 for 16) = any($4))",
        )
        .bind(from)
        .bind(to)
        .bind(&known)
        .bind(&ids)
        .fetch_all(pool)
        .await?;
        found.extend(exceptions);
    }
    Ok(found)
}

/// Those that brought the events of these streams, and those of which they are
/// a second reading.
async fn brought(pool: &PgPool, streams: &[(String, String)]) -> sqlx::Result<BTreeSet<Uuid>> {
    let (kinds, ids): (Vec<&str>, Vec<&str>) = streams
        .iter()
        .map(|(kind, id)| (kind.as_str(), id.as_str()))
        .unzip();
    let found: Vec<Uuid> = sqlx::query_scalar(
        "with brought as (
             select d.id, d.reprocess_of
               from unnest($1::text[], $2::text[]) as stream (kind, id)
               join events e on e.aggregate_type = stream.kind and e.aggregate_id = stream.id
               join deliveries d on d.id = e.delivery_id
         )
         select id from brought
         union
         select reprocess_of from brought where reprocess_of is not null",
    )
    .bind(kinds)
    .bind(ids)
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().collect())
}
