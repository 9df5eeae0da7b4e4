//! Destroying keys. No event and no delivery changes; what is under a destroyed
//! key can be read by nobody, with whatever master key.

use chrono::{DateTime, NaiveDate, Utc};
use domain::Event;
use domain::sealed::Subject;
use domain::subject::{Cause, Erased, Event as Erasure};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::deliveries::first_id_at;
use crate::transaction;

/// Most keys that an erasure names.
const NAMED_MAX: usize = 1_000;

/// Who erases, when and why.
#[derive(Clone, Debug)]
pub struct Order {
    /// The erasure.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// Why; it names nobody.
    pub reason: String,
    /// Who.
    pub by: String,
}

/// What was erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The position of the event that tells of it.
    pub position: i64,
    /// How many keys were destroyed.
    pub keys_count: u64,
}

/// Destroys the keys of a person, by the key of their number, and those of what
/// is theirs without naming them: of these streams, and of the deliveries that
/// brought them. `None` when there is no key.
///
/// # Errors
/// When the database fails; then nothing is erased.
pub async fn person(
    pool: &PgPool,
    order: &Order,
    phone_key: &str,
    streams: &[(String, String)],
) -> sqlx::Result<Option<Done>> {
    let mut tx = transaction::begin(pool).await?;
    lock(&mut tx).await?;
    let bodies = keys_of_bodies(&mut tx, streams).await?;
    let keys: Vec<Uuid> = sqlx::query_scalar(
        "update subject_keys set wrapped_key = null, subject = null, erased_at = $3
          where wrapped_key is not null
            and subject = any($1 || array(
                    select subject from subject_keys
                     where id = any($2) and subject like 'delivery:%'))
         returning id",
    )
    .bind(subjects_of(phone_key, streams))
    .bind(bodies)
    .bind(order.at)
    .fetch_all(&mut *tx)
    .await?;
    if keys.is_empty() {
        return Ok(None);
    }
    // Beside the ledger: limits go by keyed hashes of numbers, and the first
    // answers of the last hours hold whatever was answered, to whomever.
    sqlx::query("delete from otp_requests where phone_key = $1")
        .bind(phone_key)
        .execute(&mut *tx)
        .await?;
    sqlx::query("delete from idempotency_keys where status is not null")
        .execute(&mut *tx)
        .await?;
    let keys_count = keys.len() as u64;
    let erased = Erased {
        erasure_id: order.id,
        cause: Cause::Request,
        reason: order.reason.clone(),
        erased_by: order.by.clone(),
        keys_count,
        keys: keys.into_iter().take(NAMED_MAX).collect(),
        channel: None,
        before: None,
    };
    let position = tell(&mut tx, order, erased).await?;
    tx.commit().await?;
    forget(pool).await;
    Ok(Some(Done {
        position,
        keys_count,
    }))
}

/// Destroys the keys of everything that a channel brought before a day. `None`
/// when there is none.
///
/// # Errors
/// When the database fails; then nothing is erased.
pub async fn older_than(
    pool: &PgPool,
    order: &Order,
    channel: &str,
    before: NaiveDate,
) -> sqlx::Result<Option<Done>> {
    let mut tx = transaction::begin(pool).await?;
    lock(&mut tx).await?;
    // Ids carry the time: what is younger need not be looked at.
    let midnight = before.and_time(chrono::NaiveTime::MIN).and_utc();
    let erased = sqlx::query(
        "update subject_keys set wrapped_key = null, subject = null, erased_at = $4
          where wrapped_key is not null and channel = $1 and day < $2 and id < $3",
    )
    .bind(channel)
    .bind(before)
    .bind(first_id_at(midnight))
    .bind(order.at)
    .execute(&mut *tx)
    .await?;
    let keys_count = erased.rows_affected();
    if keys_count == 0 {
        return Ok(None);
    }
    let erased = Erased {
        erasure_id: order.id,
        cause: Cause::Retention,
        reason: order.reason.clone(),
        erased_by: order.by.clone(),
        keys_count,
        keys: vec![],
        channel: Some(channel.to_owned()),
        before: Some(before),
    };
    let position = tell(&mut tx, order, erased).await?;
    tx.commit().await?;
    forget(pool).await;
    Ok(Some(Done {
        position,
        keys_count,
    }))
}

/// Whose keys are a person's: theirs, and those of what is theirs without
/// naming them.
pub(super) fn subjects_of(phone_key: &str, streams: &[(String, String)]) -> Vec<String> {
    let person = Subject::Person(phone_key.to_owned());
    let streams = streams.iter().map(|(kind, id)| format!("{kind}/{id}"));
    let streams = streams.map(Subject::Stream);
    let subjects = std::iter::once(person).chain(streams);
    subjects.map(|subject| subject.name()).collect()
}

async fn lock(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("select ledger_lock()").execute(conn).await?;
    Ok(())
}

/// Under which keys the bodies are that brought the events of these streams.
async fn keys_of_bodies(
    conn: &mut PgConnection,
    streams: &[(String, String)],
) -> sqlx::Result<Vec<Uuid>> {
    let (kinds, ids): (Vec<&str>, Vec<&str>) = streams
        .iter()
        .map(|(kind, id)| (kind.as_str(), id.as_str()))
        .unzip();
    let bodies: Vec<Option<Vec<u8>>> = sqlx::query_scalar(
        "select distinct substring(coalesce(d.body, first.body) for 28)
           from unnest($1::text[], $2::text[]) as stream (kind, id)
           join events e on e.aggregate_type = stream.kind and e.aggregate_id = stream.id
           join deliveries d on d.id = e.delivery_id
           left join deliveries first on first.id = coalesce(d.duplicate_of, d.reprocess_of)",
    )
    .bind(kinds)
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let bodies = bodies.iter().flatten();
    Ok(bodies
        .filter_map(|body| domain::sealed::body_key_id(body))
        .collect())
}

/// Puts it on the ledger, and from now on nobody seals under what was.
async fn tell(conn: &mut PgConnection, order: &Order, erased: Erased) -> sqlx::Result<i64> {
    sqlx::query("update subject_epoch set epoch = epoch + 1")
        .execute(&mut *conn)
        .await?;
    let event = Event::Subject(Erasure::Erased(erased));
    sqlx::query_scalar(
        "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version,
                             payload, metadata, occurred_at)
         values ('subject', $1, 1, $2, $3, $4::json, json_build_object('actor', $5::text), $6)
         returning position",
    )
    .bind(order.id.to_string())
    .bind(event.name())
    .bind(event.version())
    .bind(serde_json::to_string(&event).expect("an event is JSON"))
    .bind(&order.by)
    .bind(order.at)
    .fetch_one(conn)
    .await
}

/// Takes the old rows out of the table's file. Only makes it sooner.
async fn forget(pool: &PgPool) {
    if let Err(error) = sqlx::query("vacuum subject_keys").execute(pool).await {
        tracing::warn!(%error, "the table of keys was not vacuumed: autovacuum will do it");
    }
}
