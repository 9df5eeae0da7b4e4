//! The rows of a batch, each table's in one statement.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::StreamId;
use domain::delivery::Verdict;
use domain::fact::Identity;
use sqlx::PgConnection;
use uuid::Uuid;

use super::append::{Fate, NewEvent, Plan};
use super::entry::{Claim, Delivery, Entry};

/// Inserts events at the ends of their streams; returns their positions.
pub(super) async fn insert_events(
    conn: &mut PgConnection,
    events: &[NewEvent<'_>],
) -> sqlx::Result<Vec<i64>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut next = next_sequences(conn, events).await?;
    let count = events.len();
    let (mut types, mut ids, mut sequences) = (
        Vec::with_capacity(count),
        Vec::with_capacity(count),
        Vec::with_capacity(count),
    );
    let (mut names, mut versions, mut payloads) = (
        Vec::with_capacity(count),
        Vec::with_capacity(count),
        Vec::with_capacity(count),
    );
    let (mut metadata, mut times, mut deliveries) = (
        Vec::with_capacity(count),
        Vec::with_capacity(count),
        Vec::with_capacity(count),
    );
    for new in events {
        let sequence = next.entry(&new.stream).or_insert(1);
        types.push(new.stream.aggregate_type);
        ids.push(new.stream.aggregate_id.as_str());
        sequences.push(*sequence);
        *sequence += 1;
        names.push(new.event.name());
        versions.push(new.event.version());
        payloads.push(
            serde_json::to_string(&new.event).map_err(|error| sqlx::Error::Encode(error.into()))?,
        );
        metadata.push(new.metadata.as_str());
        times.push(new.occurred_at);
        deliveries.push(new.delivery_id);
    }
    sqlx::query_scalar(
        "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version,
                             payload, metadata, occurred_at, delivery_id)
         select aggregate_type, aggregate_id, sequence, event_type, event_version,
                payload::json, metadata::json, occurred_at, delivery_id
           from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[],
                       $6::text[], $7::text[], $8::timestamptz[], $9::uuid[])
                with ordinality as new (aggregate_type, aggregate_id, sequence, event_type,
                       event_version, payload, metadata, occurred_at, delivery_id, place)
          order by place
         returning position",
    )
    .bind(types)
    .bind(ids)
    .bind(sequences)
    .bind(names)
    .bind(versions)
    .bind(payloads)
    .bind(metadata)
    .bind(times)
    .bind(deliveries)
    .fetch_all(conn)
    .await
}

/// The next sequence of each stream that has events; others begin at 1.
async fn next_sequences<'a>(
    conn: &mut PgConnection,
    events: &'a [NewEvent<'_>],
) -> sqlx::Result<HashMap<&'a StreamId, i64>> {
    let mut streams: Vec<&StreamId> = events.iter().map(|new| &new.stream).collect();
    streams.sort_unstable();
    streams.dedup();
    let types: Vec<&str> = streams.iter().map(|stream| stream.aggregate_type).collect();
    let ids: Vec<&str> = streams
        .iter()
        .map(|stream| stream.aggregate_id.as_str())
        .collect();
    // The sub-select is one probe of the primary key for each stream.
    let next: Vec<i64> = sqlx::query_scalar(
        "select coalesce((select e.sequence from events e
                           where e.aggregate_type = s.aggregate_type and e.aggregate_id = s.aggregate_id
                           order by e.sequence desc limit 1), 0) + 1
           from unnest($1::text[], $2::text[]) with ordinality as s (aggregate_type, aggregate_id, place)
          order by s.place",
    )
    .bind(types)
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(streams.into_iter().zip(next).collect())
}

pub(super) async fn insert_deliveries(
    conn: &mut PgConnection,
    entries: &[Entry],
    plan: &Plan<'_>,
    positions: &[i64],
) -> sqlx::Result<()> {
    let mut rows = DeliveryColumns::default();
    for (at, (entry, fate)) in entries.iter().zip(&plan.fates).enumerate() {
        let (Entry::Delivery(delivery, claim), Some(verdict)) = (entry, fate.verdict()) else {
            continue;
        };
        let (duplicate_of, same_body) = match fate {
            Fate::DuplicateOf(first) => (Some(first.delivery_id), first.same_body),
            Fate::DuplicateInBatch { entry, same_body } => {
                (entries[*entry].delivery().map(|first| first.id), *same_body)
            }
            // A second reading is of the bytes that are there already.
            _ => (None, delivery.reprocess_of.is_some()),
        };
        let identity = claim
            .identity()
            .filter(|_| !plan.identity_held.contains(&at));
        rows.push(
            delivery,
            claim,
            identity,
            verdict,
            (duplicate_of, same_body),
            plan.position(at, positions),
        );
    }
    rows.insert(conn).await
}

#[derive(Default)]
struct DeliveryColumns<'a> {
    ids: Vec<Uuid>,
    providers: Vec<&'static str>,
    routes: Vec<&'static str>,
    verdicts: Vec<&'static str>,
    reasons: Vec<Option<&'a str>>,
    authentications: Vec<&'a str>,
    dedup_keys: Vec<Option<Vec<u8>>>,
    repeat_keys: Vec<Option<Vec<u8>>>,
    duplicates_of: Vec<Option<Uuid>>,
    reprocesses_of: Vec<Option<Uuid>>,
    positions: Vec<Option<i64>>,
    received_at: Vec<DateTime<Utc>>,
    remote_addrs: Vec<Option<&'a str>>,
    request_targets: Vec<&'a str>,
    headers: Vec<&'a str>,
    bodies: Vec<Option<&'a [u8]>>,
    body_bytes: Vec<i32>,
}

impl<'a> DeliveryColumns<'a> {
    fn push(
        &mut self,
        delivery: &'a Delivery,
        claim: &'a Claim,
        identity: Option<&Identity>,
        verdict: Verdict,
        (duplicate_of, same_body): (Option<Uuid>, bool),
        position: Option<i64>,
    ) {
        let first_of_its_kind = matches!(verdict, Verdict::Accepted | Verdict::Quarantined);
        let (lasting, windowed) = match identity.filter(|_| first_of_its_kind) {
            Some(Identity::Lasting(key)) => (Some(key.0.to_vec()), None),
            Some(Identity::Windowed(key)) => (None, Some(key.0.to_vec())),
            None => (None, None),
        };
        let reason = match claim {
            Claim::Quarantined { reason, .. } if verdict == Verdict::Quarantined => {
                Some(reason.as_str())
            }
            Claim::Rejected { reason } => Some(reason.as_str()),
            _ => None,
        };
        self.ids.push(delivery.id);
        self.providers.push(delivery.provider.as_str());
        self.routes.push(delivery.route);
        self.verdicts.push(verdict.as_str());
        self.reasons.push(reason);
        self.authentications.push(&delivery.authentication);
        self.dedup_keys.push(lasting);
        self.repeat_keys.push(windowed);
        self.duplicates_of.push(duplicate_of);
        self.reprocesses_of.push(delivery.reprocess_of);
        self.positions.push(position);
        self.received_at.push(delivery.received_at);
        self.remote_addrs.push(delivery.remote_addr.as_deref());
        self.request_targets.push(&delivery.request_target);
        self.headers.push(&delivery.headers);
        self.bodies.push((!same_body).then_some(&delivery.body[..]));
        self.body_bytes
            .push(i32::try_from(delivery.body.len()).unwrap_or(i32::MAX));
    }

    async fn insert(self, conn: &mut PgConnection) -> sqlx::Result<()> {
        if self.ids.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into deliveries (id, provider, route, verdict, reason, authentication, dedup_key,
                    repeat_key, duplicate_of, reprocess_of, position, received_at, remote_addr,
                    request_target, headers, body, body_bytes)
             select id, provider, route, verdict, reason, authentication, dedup_key,
                    repeat_key, duplicate_of, reprocess_of, position, received_at, remote_addr,
                    request_target, headers::json, body, body_bytes
               from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                           $7::bytea[], $8::bytea[], $9::uuid[], $10::uuid[], $11::bigint[],
                           $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::bytea[],
                           $17::int[])
                    with ordinality as new (id, provider, route, verdict, reason, authentication,
                           dedup_key, repeat_key, duplicate_of, reprocess_of, position, received_at,
                           remote_addr, request_target, headers, body, body_bytes, place)
              order by place",
        )
        .bind(self.ids)
        .bind(self.providers)
        .bind(self.routes)
        .bind(self.verdicts)
        .bind(self.reasons)
        .bind(self.authentications)
        .bind(self.dedup_keys)
        .bind(self.repeat_keys)
        .bind(self.duplicates_of)
        .bind(self.reprocesses_of)
        .bind(self.positions)
        .bind(self.received_at)
        .bind(self.remote_addrs)
        .bind(self.request_targets)
        .bind(self.headers)
        .bind(self.bodies)
        .bind(self.body_bytes)
        .execute(conn)
        .await?;
        Ok(())
    }
}
