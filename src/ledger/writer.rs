//! The batch writer: takes what has gathered in its queue, appends it in one
//! transaction (group commit), and only then answers for each.
//!
//! Any number of writers may run on one database: all append under the ledger
//! lock, so what one has written every later one sees, and an identity that
//! two of them got at once is an event once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use domain::delivery::{self, Verdict};
use domain::fact::{DedupKey, Identity, REPEAT_WINDOW_MINUTES};
use domain::{Event, Fact, Provider, StreamId};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How much may wait and how much is written at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries that may wait; one more is refused.
    pub queue_entries_max: usize,
    /// Bytes of bodies that may wait; more are refused.
    pub queue_bytes_max: usize,
    /// Entries that one transaction writes, at most.
    pub batch_entries_max: usize,
    /// Bytes of bodies that one transaction writes; one entry may exceed it.
    pub batch_bytes_max: usize,
    /// Rejected deliveries that are kept, for each provider in each hour.
    pub rejected_per_hour_max: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_entries_max: 4096,
            queue_bytes_max: 128 << 20,
            batch_entries_max: 256,
            batch_bytes_max: 16 << 20,
            rejected_per_hour_max: 1000,
        }
    }
}

/// The unit in which queued bytes are counted.
const PERMIT_BYTES: usize = 1024;

/// One HTTP request that a provider made to us.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// UUID version 7.
    pub id: Uuid,
    /// Whose it is.
    pub provider: Provider,
    /// Which webhook, such as `elevenlabs/call`.
    pub route: &'static str,
    /// By what it was found authentic, or why not.
    pub authentication: String,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Where from.
    pub remote_addr: Option<String>,
    /// Path and query, without secrets.
    pub request_target: String,
    /// A JSON object of the headers, without secrets.
    pub headers: String,
    /// Byte for byte.
    pub body: Bytes,
    /// The delivery of which this is a second reading.
    pub reprocess_of: Option<Uuid>,
}

/// What is to be made of a delivery.
#[derive(Clone, Debug)]
pub enum Claim {
    /// It was understood.
    Facts {
        /// What makes it the same as another.
        identity: Identity,
        /// What it says.
        facts: Vec<Fact>,
    },
    /// It is authentic, and was not understood.
    Quarantined {
        /// What makes it the same as another.
        identity: Identity,
        /// What could not be understood.
        reason: String,
    },
    /// It is not authentic.
    Rejected {
        /// Why not.
        reason: String,
    },
}

impl Claim {
    fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Facts { identity, .. } | Self::Quarantined { identity, .. } => Some(identity),
            Self::Rejected { .. } => None,
        }
    }
}

/// Something to append.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A delivery, with what is to be made of it.
    Delivery(Box<Delivery>, Claim),
    /// Facts of our own, such as audit records, with their metadata.
    Facts(Vec<Fact>, serde_json::Value),
}

/// What became of an entry, once it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What was made of it; `None` when a rejection was over the quota.
    pub verdict: Option<Verdict>,
    /// The delivery; of a duplicate, the first one's.
    pub delivery_id: Option<Uuid>,
    /// The position of its last event; of a duplicate, the first one's.
    pub position: Option<i64>,
}

/// Why an entry was not written. It is not on the ledger, or (after a lost
/// connection) may be: sending it again is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// The queue is full: try again later.
    #[error("the ingest queue is full")]
    Overloaded,
    /// The database does not answer.
    #[error("the database did not take it")]
    Database,
    /// The process is stopping.
    #[error("the service is stopping")]
    Stopping,
}

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

/// The way in: cheap to clone, refuses at once when there is no room.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

struct Queued {
    entry: Entry,
    reply: oneshot::Sender<Result<Receipt, NotWritten>>,
    _room: OwnedSemaphorePermit,
}

/// The task behind a [`Writer`].
pub struct WriterTask(JoinHandle<()>);

impl WriterTask {
    /// Waits until all that was queued is written. Drop every [`Writer`] first.
    pub async fn drained(self) {
        let _ = self.0.await;
    }
}

impl Writer {
    /// Starts a writer on a pool.
    pub fn start(pool: PgPool, limits: Limits) -> (Self, WriterTask) {
        let (queue, incoming) = mpsc::channel(limits.queue_entries_max);
        let room = Arc::new(Semaphore::new(limits.queue_bytes_max / PERMIT_BYTES));
        let task = tokio::spawn(run(pool, limits, incoming));
        (Self { queue, room }, WriterTask(task))
    }

    /// Appends an entry. Returns when it is durable.
    ///
    /// # Errors
    /// [`NotWritten`], at once when there is no room.
    pub async fn append(&self, entry: Entry) -> Result<Receipt, NotWritten> {
        let permits = u32::try_from(entry.size_bytes() / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        let room = self
            .room
            .clone()
            .try_acquire_many_owned(permits)
            .map_err(|_| NotWritten::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        self.queue
            .try_send(Queued {
                entry,
                reply,
                _room: room,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => NotWritten::Overloaded,
                mpsc::error::TrySendError::Closed(_) => NotWritten::Stopping,
            })?;
        answer.await.unwrap_or(Err(NotWritten::Stopping))
    }

    /// How many entries are waiting.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Whether one more entry would be taken.
    pub fn has_room(&self) -> bool {
        self.queue.capacity() > 0 && self.room.available_permits() > 0
    }

    /// Whether less than half of the queue is taken, so that what may be left
    /// undone (keeping rejected deliveries) does no harm to what may not.
    pub fn has_room_to_spare(&self) -> bool {
        self.waiting() * 2 < self.queue.max_capacity()
    }
}

impl Entry {
    fn delivery(&self) -> Option<&Delivery> {
        match self {
            Self::Delivery(delivery, _) => Some(delivery),
            Self::Facts(..) => None,
        }
    }

    fn size_bytes(&self) -> usize {
        self.delivery().map_or(0, |delivery| delivery.body.len())
    }
}

async fn run(pool: PgPool, limits: Limits, mut incoming: mpsc::Receiver<Queued>) {
    while let Some(first) = incoming.recv().await {
        let mut bytes = first.entry.size_bytes();
        let mut batch = vec![first];
        while batch.len() < limits.batch_entries_max && bytes < limits.batch_bytes_max {
            let Ok(next) = incoming.try_recv() else { break };
            bytes += next.entry.size_bytes();
            batch.push(next);
        }
        metrics::histogram!("bitacora_write_batch_deliveries").record(batch.len() as f64);
        settle(&pool, limits, batch).await;
    }
}

/// Writes a batch and answers for each of its entries.
async fn settle(pool: &PgPool, limits: Limits, batch: Vec<Queued>) {
    let (entries, replies): (Vec<Entry>, Vec<_>) = batch
        .into_iter()
        .map(|queued| (queued.entry, (queued.reply, queued._room)))
        .unzip();
    let outcomes = match write(pool, limits, &entries).await {
        Ok(receipts) => receipts.into_iter().map(Ok).collect(),
        Err(error) if is_about_the_data(&error) => one_by_one(pool, limits, entries).await,
        Err(error) => {
            tracing::error!(%error, entries = entries.len(), "the database did not take a batch");
            vec![Err(NotWritten::Database); entries.len()]
        }
    };
    for ((reply, _room), outcome) in replies.into_iter().zip(outcomes) {
        // Whoever asked may have gone; the entry is on the ledger all the same.
        let _ = reply.send(outcome);
    }
}

async fn write(pool: &PgPool, limits: Limits, entries: &[Entry]) -> sqlx::Result<Vec<Receipt>> {
    let mut conn = pool.acquire().await?;
    write_batch(&mut conn, limits, entries, |_| Ok(())).await
}

/// One entry that the database cannot hold must not take the others with it.
/// What cannot be stored as facts is put aside, so that nothing is lost.
async fn one_by_one(
    pool: &PgPool,
    limits: Limits,
    entries: Vec<Entry>,
) -> Vec<Result<Receipt, NotWritten>> {
    let mut outcomes = Vec::with_capacity(entries.len());
    for mut entry in entries {
        let mut written = write(pool, limits, std::slice::from_ref(&entry)).await;
        if let (Err(error), Entry::Delivery(_, claim)) = (&written, &mut entry)
            && is_about_the_data(error)
            && let Claim::Facts { identity, .. } = claim
        {
            let reason = "its facts cannot be stored by PostgreSQL".to_owned();
            *claim = Claim::Quarantined {
                identity: identity.clone(),
                reason,
            };
            written = write(pool, limits, std::slice::from_ref(&entry)).await;
        }
        outcomes.push(
            written
                .map(|mut receipts| receipts.remove(0))
                .map_err(|error| {
                    tracing::error!(%error, "the database did not take an entry");
                    NotWritten::Database
                }),
        );
    }
    outcomes
}

/// Whether PostgreSQL objected to what it was given (SQLSTATE classes 22, 23
/// and 54), rather than being away or overloaded.
fn is_about_the_data(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| {
        ["22", "23", "54"]
            .iter()
            .any(|class| code.starts_with(class))
    }) || matches!(error, sqlx::Error::Encode(_))
}

/// What is known of an identity that is on the ledger.
#[derive(Clone, Copy)]
struct First {
    delivery_id: Uuid,
    position: Option<i64>,
    same_body: bool,
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
    let mut tx = sqlx::Connection::begin(conn).await?;
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
struct Plan<'a> {
    events: Vec<NewEvent<'a>>,
    /// For each entry.
    fates: Vec<Fate>,
    /// Entries whose identity is held by the delivery that they read again.
    identity_held: HashSet<usize>,
}

enum Fate {
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

struct NewEvent<'a> {
    stream: StreamId,
    event: std::borrow::Cow<'a, Event>,
    occurred_at: Option<DateTime<Utc>>,
    delivery_id: Option<Uuid>,
    metadata: String,
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
    fn position(&self, at: usize, positions: &[i64]) -> Option<i64> {
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
    fn verdict(&self) -> Option<Verdict> {
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

/// Which entries, by their index, are on the ledger already.
async fn known_identities(
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
async fn settle_second_readings(
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
async fn rejections_left(
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

/// Inserts events at the ends of their streams; returns their positions.
async fn insert_events(conn: &mut PgConnection, events: &[NewEvent<'_>]) -> sqlx::Result<Vec<i64>> {
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

async fn insert_deliveries(
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
            _ => (None, false),
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
