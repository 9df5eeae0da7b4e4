//! What the ledger knows already: identities, second readings, the quota of
//! rejections.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Duration, Utc};
use domain::Provider;
use domain::fact::{DedupKey, Identity, REPEAT_WINDOW_MINUTES};
use sqlx::PgConnection;
use uuid::Uuid;

use super::entry::{Claim, Delivery, Entry};
use super::writer::Limits;

/// What is known of an identity that is on the ledger.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub(super) delivery_id: Uuid,
    pub(super) position: Option<i64>,
    pub(super) same_body: bool,
}
/// Which entries, by their index, are on the ledger already.
pub(super) async fn known_identities(
    conn: &mut PgConnection,
    entries: &[Entry],
) -> sqlx::Result<HashMap<usize, First>> {
    let mut lasting = IdentityColumns::default();
    let mut windowed = IdentityColumns::default();
    for (at, entry) in entries.iter().enumerate() {
        let Entry::Delivery(delivery, claim) = entry else {
            continue;
        };
        let Some(identity) = claim.identity() else {
            continue;
        };
        match identity {
            Identity::Lasting(key) => lasting.push(at, *key, delivery),
            Identity::Windowed(key) => windowed.push(at, *key, delivery),
        }
    }
    // A body is compared only where an identity is known, so rarely.
    let mut known = lasting
        .look_up(
            conn,
            "select q.entry, d.id, d.position, d.body, d.body_bytes
               from unnest($1::int[], $2::bytea[], $3::timestamptz[]) as q (entry, key, received_at)
               join deliveries d on d.dedup_key = q.key",
            entries,
        )
        .await?;
    known.extend(
        windowed
            .look_up(
                conn,
                "select distinct on (q.entry) q.entry, d.id, d.position, d.body, d.body_bytes
                   from unnest($1::int[], $2::bytea[], $3::timestamptz[]) as q (entry, key, received_at)
                   join deliveries d on d.repeat_key = q.key and d.received_at > q.received_at - $4
                  order by q.entry, d.received_at",
                entries,
            )
            .await?,
    );
    Ok(known)
}

#[derive(Default)]
struct IdentityColumns {
    entries: Vec<i32>,
    keys: Vec<Vec<u8>>,
    received_at: Vec<DateTime<Utc>>,
}

impl IdentityColumns {
    fn push(&mut self, entry: usize, key: DedupKey, delivery: &Delivery) {
        self.entries.push(i32::try_from(entry).unwrap_or(i32::MAX));
        self.keys.push(key.0.to_vec());
        self.received_at.push(delivery.received_at);
    }

    async fn look_up(
        self,
        conn: &mut PgConnection,
        sql: &str,
        entries: &[Entry],
    ) -> sqlx::Result<HashMap<usize, First>> {
        if self.entries.is_empty() {
            return Ok(HashMap::new());
        }
        let mut query = sqlx::query_as::<_, (i32, Uuid, Option<i64>, Option<Vec<u8>>, i32)>(sql)
            .bind(self.entries)
            .bind(self.keys)
            .bind(self.received_at);
        if sql.contains("$4") {
            query = query.bind(Duration::minutes(REPEAT_WINDOW_MINUTES));
        }
        let rows = query.fetch_all(conn).await?;
        let first = |(entry, delivery_id, position, body, _): (
            i32,
            Uuid,
            Option<i64>,
            Option<Vec<u8>>,
            i32,
        )| {
            let at = usize::try_from(entry).unwrap_or_default();
            let same_body = entries[at]
                .delivery()
                .is_some_and(|delivery| body.is_some_and(|body| body == delivery.body));
            (
                at,
                First {
                    delivery_id,
                    position,
                    same_body,
                },
            )
        };
        Ok(rows.into_iter().map(first).collect())
    }
}

/// A second reading of a quarantined delivery is not a duplicate of that
/// delivery, but it is one of an earlier second reading that was accepted.
/// Returns the entries whose identity their first reading holds already.
pub(super) async fn settle_second_readings(
    conn: &mut PgConnection,
    entries: &[Entry],
    known: &mut HashMap<usize, First>,
) -> sqlx::Result<HashSet<usize>> {
    let mut held = HashSet::new();
    for (at, entry) in entries.iter().enumerate() {
        let Some(original) = entry.delivery().and_then(|delivery| delivery.reprocess_of) else {
            continue;
        };
        let accepted: Option<(Uuid, Option<i64>)> = sqlx::query_as(
            "select id, position from deliveries where reprocess_of = $1 and verdict = 'accepted'",
        )
        .bind(original)
        .fetch_optional(&mut *conn)
        .await?;
        if let Some((delivery_id, position)) = accepted {
            known.insert(
                at,
                First {
                    delivery_id,
                    position,
                    same_body: true,
                },
            );
        } else if known
            .get(&at)
            .is_some_and(|first| first.delivery_id == original)
        {
            known.remove(&at);
            held.insert(at);
        }
    }
    Ok(held)
}

/// How many more rejections each provider may have kept in this hour. Counted
/// under the ledger lock, so the quota holds over all replicas.
pub(super) async fn rejections_left(
    conn: &mut PgConnection,
    limits: Limits,
    entries: &[Entry],
) -> sqlx::Result<HashMap<Provider, i64>> {
    let mut left = HashMap::new();
    for entry in entries {
        let Entry::Delivery(delivery, Claim::Rejected { .. }) = entry else {
            continue;
        };
        if left.contains_key(&delivery.provider) {
            continue;
        }
        // Ids carry the time of receipt, so the index on (verdict, id) serves.
        let hour_ago = delivery.received_at - Duration::hours(1);
        let kept: i64 = sqlx::query_scalar(
            "select count(*) from (select from deliveries
              where verdict = 'rejected' and id >= $1 and provider = $2 limit $3) kept",
        )
        .bind(first_id_at(hour_ago))
        .bind(delivery.provider.as_str())
        .bind(limits.rejected_per_hour_max)
        .fetch_one(&mut *conn)
        .await?;
        left.insert(delivery.provider, limits.rejected_per_hour_max - kept);
    }
    Ok(left)
}

/// The smallest UUID version 7 of a moment.
pub(super) fn first_id_at(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}
