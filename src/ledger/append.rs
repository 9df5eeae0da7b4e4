//! Appending a batch of entries in one transaction.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use domain::delivery::{self, Verdict};
use domain::fact::DedupKey;
use domain::{Event, Fact, StreamId};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::entry::{Claim, Delivery, Entry, Receipt};
use super::known::{First, known_identities, rejections_left, settle_second_readings};
use super::rows::{insert_deliveries, insert_events};
use super::writer::Limits;

/// A step of writing a batch; tests kill the writer before each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The transaction is about to begin.
    Begin,
    /// The lock is held, nothing is read.
    Locked,
    /// Duplicates are known, nothing is written.
    Deduplicated,
    /// Events are written, deliveries are not.
    EventsWritten,
    /// Everything is written, nothing is committed.
    Written,
    /// It is durable, nobody was told.
    Committed,
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
    entries: &[Entry],
    mut before: impl FnMut(Step) -> sqlx::Result<()>,
) -> sqlx::Result<Vec<Receipt>> {
    before(Step::Begin)?;
    let mut tx = conn.begin().await?;
    sqlx::query("select ledger_lock()")
        .execute(&mut *tx)
        .await?;
    before(Step::Locked)?;
    let plan = Plan::make(&mut tx, limits, entries).await?;
    before(Step::Deduplicated)?;
    let positions = insert_events(&mut tx, &plan.events).await?;
    before(Step::EventsWritten)?;
    insert_deliveries(&mut tx, entries, &plan, &positions).await?;
    before(Step::Written)?;
    tx.commit().await?;
    before(Step::Committed)?;
    Ok(plan.receipts(entries, &positions))
}

/// What a batch comes to, before anything is written.
pub(super) struct Plan<'a> {
    pub(super) events: Vec<NewEvent<'a>>,
    /// For each entry.
    pub(super) fates: Vec<Fate>,
    /// Entries whose identity is held by the delivery that they read again.
    pub(super) identity_held: HashSet<usize>,
}

pub(super) enum Fate {
    /// Its events are `events[range]`, the last of which is at `range.end - 1`.
    New {
        verdict: Verdict,
        events: std::ops::Range<usize>,
    },
    /// The same as a delivery on the ledger.
    DuplicateOf(First),
    /// The same as an earlier entry of this batch.
    DuplicateInBatch {
        entry: usize,
        same_body: bool,
    },
    Rejected,
    /// Beyond the quota: not kept.
    Dropped,
}

pub(super) struct NewEvent<'a> {
    pub(super) stream: StreamId,
    pub(super) event: std::borrow::Cow<'a, Event>,
    pub(super) occurred_at: Option<DateTime<Utc>>,
    pub(super) delivery_id: Option<Uuid>,
    pub(super) metadata: String,
}

impl<'a> Plan<'a> {
    async fn make(
        conn: &mut PgConnection,
        limits: Limits,
        entries: &'a [Entry],
    ) -> sqlx::Result<Self> {
        let mut known = known_identities(conn, entries).await?;
        let identity_held = settle_second_readings(conn, entries, &mut known).await?;
        let mut rejections_left = rejections_left(conn, limits, entries).await?;
        let mut plan = Self {
            events: Vec::with_capacity(entries.len()),
            fates: Vec::with_capacity(entries.len()),
            identity_held,
        };
        let mut in_batch: HashMap<DedupKey, usize> = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            let fate = match entry {
                Entry::Facts(facts, metadata) => {
                    plan.add_facts(facts, None, metadata.to_string(), Verdict::Accepted)
                }
                Entry::Delivery(delivery, Claim::Rejected { .. }) => {
                    let left = rejections_left.entry(delivery.provider).or_insert(0);
                    *left -= 1;
                    if *left >= 0 {
                        Fate::Rejected
                    } else {
                        Fate::Dropped
                    }
                }
                Entry::Delivery(
                    delivery,
                    Claim::Facts { identity, .. } | Claim::Quarantined { identity, .. },
                ) => {
                    let key = identity.key();
                    if let Some(first) = known.get(&at) {
                        Fate::DuplicateOf(*first)
                    } else if let Some(&earlier) = in_batch.get(&key) {
                        Fate::DuplicateInBatch {
                            entry: earlier,
                            same_body: same_body(&entries[earlier], entry),
                        }
                    } else {
                        in_batch.insert(key, at);
                        plan.add_delivery(delivery, entry)
                    }
                }
            };
            plan.fates.push(fate);
        }
        Ok(plan)
    }

    fn add_delivery(&mut self, delivery: &'a Delivery, entry: &'a Entry) -> Fate {
        let metadata = format!(r#"{{"provider":"{}"}}"#, delivery.provider);
        let Entry::Delivery(_, claim) = entry else {
            unreachable!("called for deliveries only")
        };
        match claim {
            Claim::Facts { facts, .. } => {
                self.add_facts(facts, Some(delivery), metadata, Verdict::Accepted)
            }
            Claim::Quarantined { reason, .. } => {
                let event = delivery::Event::Quarantined(delivery::Quarantined {
                    delivery_id: delivery.id,
                    reason: reason.clone(),
                });
                let at = self.events.len();
                self.events.push(NewEvent {
                    stream: StreamId::delivery(delivery.id),
                    event: std::borrow::Cow::Owned(Event::Delivery(event)),
                    occurred_at: Some(delivery.received_at),
                    delivery_id: Some(delivery.id),
                    metadata,
                });
                Fate::New {
                    verdict: Verdict::Quarantined,
                    events: at..at + 1,
                }
            }
            Claim::Rejected { .. } => unreachable!("rejections have no events"),
        }
    }

    fn add_facts(
        &mut self,
        facts: &'a [Fact],
        delivery: Option<&Delivery>,
        metadata: String,
        verdict: Verdict,
    ) -> Fate {
        let start = self.events.len();
        self.events.extend(facts.iter().map(|fact| {
            NewEvent {
                stream: fact.stream.clone(),
                event: std::borrow::Cow::Borrowed(&fact.event),
                occurred_at: fact
                    .occurred_at
                    .or(delivery.map(|delivery| delivery.received_at)),
                delivery_id: delivery.map(|delivery| delivery.id),
                metadata: metadata.clone(),
            }
        }));
        Fate::New {
            verdict,
            events: start..self.events.len(),
        }
    }

    /// The position that an entry answers with.
    pub(super) fn position(&self, at: usize, positions: &[i64]) -> Option<i64> {
        match &self.fates[at] {
            Fate::New { events, .. } => positions[events.clone()].last().copied(),
            Fate::DuplicateOf(first) => first.position,
            Fate::DuplicateInBatch { entry, .. } => self.position(*entry, positions),
            Fate::Rejected | Fate::Dropped => None,
        }
    }

    fn receipts(&self, entries: &[Entry], positions: &[i64]) -> Vec<Receipt> {
        let id_of = |at: usize| entries[at].delivery().map(|delivery| delivery.id);
        let receipt = |(at, fate): (usize, &Fate)| Receipt {
            verdict: fate.verdict(),
            delivery_id: match fate {
                Fate::DuplicateOf(first) => Some(first.delivery_id),
                Fate::DuplicateInBatch { entry, .. } => id_of(*entry),
                Fate::New { .. } | Fate::Rejected => id_of(at),
                Fate::Dropped => None,
            },
            position: self.position(at, positions),
        };
        self.fates.iter().enumerate().map(receipt).collect()
    }
}

impl Fate {
    pub(super) fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::New { verdict, .. } => Some(*verdict),
            Self::DuplicateOf(_) | Self::DuplicateInBatch { .. } => Some(Verdict::Duplicate),
            Self::Rejected => Some(Verdict::Rejected),
            Self::Dropped => None,
        }
    }
}

fn same_body(one: &Entry, other: &Entry) -> bool {
    one.delivery().map(|delivery| &delivery.body) == other.delivery().map(|delivery| &delivery.body)
}
