//! Appending a batch of entries: one statement, which is its own transaction,
//! and another that waits until it is durable while the next batch is written.

use std::collections::HashMap;

use domain::StreamId;
use domain::delivery::Verdict;
use domain::fact::{DedupKey, Identity};
use sqlx::{Connection, PgConnection};

use super::columns::{DeliveryColumns, EventColumns};
use super::entry::{Entry, Receipt};
use super::prepared::Prepared;
use super::rejections::rejections_left;
use super::writer::Limits;

/// A step of writing a batch; tests kill the writer before each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The transaction is about to begin.
    Begin,
    /// Others see it, the disk may not have it.
    Committed,
    /// It is durable, nobody was told.
    Durable,
}

/// Appends entries in one transaction and commits. `before` is called before
/// each step; an error from it abandons the batch there, as a kill would.
///
/// # Errors
/// When the database does not take it; then nothing was written, unless the
/// connection was lost during the commit.
pub async fn write_batch(
    conn: &mut PgConnection,
    limits: Limits,
    entries: Vec<Entry>,
    mut before: impl FnMut(Step) -> sqlx::Result<()>,
) -> sqlx::Result<Vec<Receipt>> {
    let prepared: Vec<_> = entries.into_iter().map(Prepared::new).collect();
    before(Step::Begin)?;
    let receipts = append(conn, limits, &prepared).await?;
    before(Step::Committed)?;
    flush(conn).await?;
    before(Step::Durable)?;
    Ok(receipts)
}

/// Waits until everything that this connection could see is durable.
///
/// # Errors
/// When the connection is lost: then nobody knows.
pub(super) async fn flush(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("select ledger_flush()").execute(conn).await?;
    Ok(())
}

/// Appends what is prepared and commits; it is durable after [`flush`].
///
/// # Errors
/// As [`write_batch`].
pub(super) async fn append(
    conn: &mut PgConnection,
    limits: Limits,
    batch: &[Prepared],
) -> sqlx::Result<Vec<Receipt>> {
    if batch.iter().all(|prepared| !prepared.is_rejected()) {
        return call(conn, &Plan::make(batch, &mut HashMap::new())).await;
    }
    // How many rejections are kept is counted under the lock, so the quota
    // holds over all replicas.
    let mut tx = conn.begin().await?;
    sqlx::query("select ledger_lock()")
        .execute(&mut *tx)
        .await?;
    let mut left = rejections_left(&mut tx, limits, batch).await?;
    let receipts = call(&mut tx, &Plan::make(batch, &mut left)).await?;
    tx.commit().await?;
    Ok(receipts)
}

/// The columns of a batch, and where in them each entry is.
struct Plan<'a> {
    deliveries: DeliveryColumns<'a>,
    events: EventColumns<'a>,
    entries: Vec<Place>,
}

/// Where an entry is in the columns.
struct Place {
    /// Its delivery, if it is kept.
    delivery: Option<usize>,
    /// The event whose position it answers with.
    last_event: Option<usize>,
    verdict: Option<Verdict>,
}

impl<'a> Plan<'a> {
    fn make(batch: &'a [Prepared], rejections_left: &mut HashMap<domain::Provider, i64>) -> Self {
        let mut plan = Self {
            deliveries: DeliveryColumns::with_capacity(batch.len()),
            events: EventColumns::with_capacity(batch.len()),
            entries: Vec::with_capacity(batch.len()),
        };
        let mut streams: HashMap<&StreamId, (i32, i32)> = HashMap::with_capacity(batch.len());
        let mut firsts: HashMap<DedupKey, usize> = HashMap::with_capacity(batch.len());
        for prepared in batch {
            let delivery = prepared.delivery.as_ref().filter(|delivery| {
                !prepared.is_rejected() || take_one(rejections_left, delivery.provider)
            });
            let place = delivery.map(|_| plan.deliveries.len());
            for event in &prepared.events {
                let number = i32::try_from(streams.len()).unwrap_or(i32::MAX);
                let (stream, nth) = streams.entry(&event.stream).or_insert((number, 0));
                *nth += 1;
                plan.events.push(event, place, (*stream, *nth));
            }
            let mut last_event = (!prepared.events.is_empty()).then(|| plan.events.len() - 1);
            if let (Some(delivery), Some(place)) = (delivery, place) {
                let identity = prepared.identity.as_ref().map(Identity::key);
                let first = identity.map(|key| *firsts.entry(key).or_insert(place));
                let earlier = first.filter(|first| *first != place);
                if let Some(earlier) = earlier {
                    last_event = plan.deliveries.last_event(earlier);
                }
                plan.deliveries
                    .push(delivery, prepared, earlier, last_event);
            }
            plan.entries.push(Place {
                delivery: place,
                last_event,
                verdict: (place.is_some() || prepared.delivery.is_none())
                    .then_some(prepared.verdict),
            });
        }
        plan
    }

    fn receipts(&self, appended: &Appended) -> Vec<Receipt> {
        let receipt = |place: &Place| {
            let own = place.delivery.map(|at| self.deliveries.id(at));
            let first = place.delivery.and_then(|at| appended.first_ids[at]);
            // Its own first: a try whose answer was lost had written it.
            let is_duplicate = first.is_some() && first != own;
            Receipt {
                verdict: match is_duplicate {
                    true => Some(Verdict::Duplicate),
                    false => place.verdict,
                },
                delivery_id: first.or(own),
                position: place
                    .delivery
                    .and_then(|at| appended.first_positions[at])
                    .or_else(|| appended.event_positions[place.last_event?]),
            }
        };
        self.entries.iter().map(receipt).collect()
    }
}

fn take_one(left: &mut HashMap<domain::Provider, i64>, provider: domain::Provider) -> bool {
    let left = left.entry(provider).or_insert(0);
    *left -= 1;
    *left >= 0
}

/// What the database made of a batch; see `migrations/0011_append.sql`.
#[derive(sqlx::FromRow)]
struct Appended {
    #[sqlx(rename = "first_id")]
    first_ids: Vec<Option<uuid::Uuid>>,
    #[sqlx(rename = "first_at")]
    first_positions: Vec<Option<i64>>,
    #[sqlx(rename = "event_at")]
    event_positions: Vec<Option<i64>>,
}

async fn call(conn: &mut PgConnection, plan: &Plan<'_>) -> sqlx::Result<Vec<Receipt>> {
    let query = sqlx::query_as(
        "select first_id, first_at, event_at
           from ledger_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                              $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)",
    );
    // All of them: the row comes before the commit, the end of the rows after it.
    let rows: Vec<Appended> = plan
        .events
        .bind(plan.deliveries.bind(query))
        .fetch_all(conn)
        .await?;
    let appended = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(plan.receipts(appended))
}
