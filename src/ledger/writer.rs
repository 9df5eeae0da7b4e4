//! The batch writer: takes what has gathered in its queue, appends it in one
//! transaction (group commit), and only then answers for each.
//!
//! Any number of writers may run on one database: all append under the ledger
//! lock, so what one has written every later one sees, and an identity that
//! two of them got at once is an event once.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::append::{append, flush};
use super::entry::{Entry, Receipt};
use super::incoming::Incoming;
use super::keyring::{Keyring, Sealed, is_outdated, tell_known};
use super::prepared::Prepared;

/// How much may wait and how much is written at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries that may wait; one more is refused.
    pub queue_entries_max: usize,
    /// Bytes of bodies that may be received and wait; more are refused.
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
            // A tenth of a second of work: whoever waits longer is told to come again.
            queue_entries_max: 1024,
            queue_bytes_max: 128 << 20,
            batch_entries_max: 256,
            batch_bytes_max: 16 << 20,
            rejected_per_hour_max: 1000,
        }
    }
}

/// Batches that are written at once: while one is being made durable, the next
/// is on its way and waits for the ledger lock inside PostgreSQL.
const BATCHES_AT_ONCE: usize = 2;
/// How long a connection may lie idle and be used without a ping.
const TRUSTED_IDLE: Duration = Duration::from_millis(100);
/// Every append goes by the indexes. Statistics of a ledger that was empty a
/// minute ago would have it read whole tables.
const PLANNER: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
];
/// How often a batch is sealed again because keys were destroyed meanwhile.
const SEALINGS_MAX: u32 = 5;
/// From how many bytes on a body is sealed elsewhere than where requests are
/// answered.
const LARGE_BYTES: usize = 256 * 1024;
/// How long to wait for a connection before a batch is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The unit in which queued bytes are counted.
const PERMIT_BYTES: usize = 1024;
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
/// The way in: cheap to clone, refuses at once when there is no room.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    keyring: Option<Keyring>,
}

struct Queued {
    prepared: Prepared,
    reply: oneshot::Sender<Result<Receipt, NotWritten>>,
    _room: Room,
}

/// Part of the memory that bodies may take, from their first byte until they
/// are written.
pub struct Room {
    shared: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Makes it large enough for this many bytes.
    ///
    /// # Errors
    /// [`NotWritten::Overloaded`] when there is not so much left.
    pub fn make(&mut self, bytes: usize) -> Result<(), NotWritten> {
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (bytes / PERMIT_BYTES + 1).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| NotWritten::Overloaded)?;
        let more = self.shared.clone().try_acquire_many_owned(missing);
        let more = more.map_err(|_| NotWritten::Overloaded)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

/// The tasks behind a [`Writer`], and their thread.
pub struct WriterTask {
    tasks: JoinSet<()>,
    /// Dropped after the tasks, which ends the thread.
    _thread: Thread,
}

impl WriterTask {
    /// Waits until all that was queued is written. Drop every [`Writer`] first.
    pub async fn drained(self) {
        self.tasks.join_all().await;
    }
}

/// A thread of the writer's own. What PostgreSQL answers to it is taken up at
/// once: among the tasks that answer requests it would wait for dozens of them,
/// three times in each batch, while the ledger lock is free.
struct Thread {
    runtime: Handle,
    _alive: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, over) = oneshot::channel();
        let thread = thread::Builder::new().name("ledger-writer".to_owned());
        thread.spawn(move || runtime.block_on(over))?;
        Ok(Self {
            runtime: handle,
            _alive: alive,
        })
    }
}

impl Writer {
    /// Starts a writer on the pool's database, with connections of its own:
    /// however many read, facts come in. What it writes is as it came.
    pub fn start(pool: PgPool, limits: Limits) -> (Self, WriterTask) {
        Self::sealing(pool, limits, None)
    }

    /// Starts a writer whose entries are sealed.
    pub fn sealing(pool: PgPool, limits: Limits, keyring: Option<Keyring>) -> (Self, WriterTask) {
        let (queue, incoming) = mpsc::channel(limits.queue_entries_max);
        let room = Arc::new(Semaphore::new(limits.queue_bytes_max / PERMIT_BYTES));
        let at_once = (limits.batch_entries_max, limits.batch_bytes_max);
        let incoming = Incoming::new(incoming, at_once, |queued: &Queued| {
            queued.prepared.size_bytes()
        });
        let incoming = Arc::new(Mutex::new(incoming));
        let thread = Thread::start().expect("the system has a thread for the writer");
        let mut tasks = JoinSet::new();
        for _ in 0..BATCHES_AT_ONCE {
            let link = Link::to(&pool, keyring.clone());
            tasks.spawn_on(run(link, limits, incoming.clone()), &thread.runtime);
        }
        let writer = Self {
            queue,
            room,
            keyring,
        };
        let task = WriterTask {
            tasks,
            _thread: thread,
        };
        (writer, task)
    }

    /// Appends an entry. Returns when it is durable.
    ///
    /// # Errors
    /// [`NotWritten`], at once when there is no room.
    pub async fn append(&self, entry: Entry) -> Result<Receipt, NotWritten> {
        self.append_in(self.room(), entry).await
    }

    /// Room for a body that is being received, none yet.
    pub fn room(&self) -> Room {
        Room {
            shared: self.room.clone(),
            held: None,
        }
    }

    /// Appends an entry whose body has room already. Returns when it is durable.
    ///
    /// # Errors
    /// [`NotWritten`], at once when there is no room.
    pub async fn append_in(&self, mut room: Room, entry: Entry) -> Result<Receipt, NotWritten> {
        let prepared = Prepared::new(entry);
        room.make(prepared.size_bytes())?;
        let prepared = self.seal(prepared).await?;
        let (reply, answer) = oneshot::channel();
        self.queue
            .try_send(Queued {
                prepared,
                reply,
                _room: room,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => NotWritten::Overloaded,
                mpsc::error::TrySendError::Closed(_) => NotWritten::Stopping,
            })?;
        answer.await.unwrap_or(Err(NotWritten::Stopping))
    }

    async fn seal(&self, mut prepared: Prepared) -> Result<Prepared, NotWritten> {
        let Some(keyring) = self.keyring.clone() else {
            return Ok(prepared);
        };
        let is_large = prepared.size_bytes() >= LARGE_BYTES;
        let seal = move || {
            keyring.seal(&mut prepared);
            prepared
        };
        if !is_large {
            return Ok(seal());
        }
        let sealed = tokio::task::spawn_blocking(seal).await;
        sealed.map_err(|_| NotWritten::Stopping)
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

async fn run(mut link: Link, limits: Limits, incoming: Arc<Mutex<Incoming<Queued>>>) {
    loop {
        // Let go before it is written, so that another gathers meanwhile.
        let gathered = incoming.lock().await.next_batch().await;
        let Some(batch) = gathered else { return };
        metrics::histogram!("bitacora_write_batch_deliveries").record(batch.len() as f64);
        let began = Instant::now();
        settle(&mut link, limits, batch).await;
        metrics::histogram!("bitacora_write_seconds").record(began.elapsed().as_secs_f64());
    }
}

/// Writes a batch and answers for each of its entries.
async fn settle(link: &mut Link, limits: Limits, batch: Vec<Queued>) {
    let (mut batch, replies): (Vec<Prepared>, Vec<_>) = batch
        .into_iter()
        .map(|queued| (queued.prepared, (queued.reply, queued._room)))
        .unzip();
    let outcomes = match link.write(limits, &mut batch).await {
        Ok(receipts) => receipts.into_iter().map(Ok).collect(),
        Err(error) if is_about_the_data(&error) => one_by_one(link, limits, batch).await,
        Err(error) => {
            tracing::error!(%error, entries = batch.len(), "the database did not take a batch");
            vec![Err(NotWritten::Database); batch.len()]
        }
    };
    for ((reply, _room), outcome) in replies.into_iter().zip(outcomes) {
        // Whoever asked may have gone; the entry is on the ledger all the same.
        let _ = reply.send(outcome);
    }
}

/// A connection of the writer's, made anew when it has died.
struct Link {
    options: PgConnectOptions,
    conn: Option<PgConnection>,
    used_at: Instant,
    keyring: Option<Keyring>,
    /// How many erasures the connection has told that it knows of.
    told: Option<i64>,
}

impl Link {
    fn to(pool: &PgPool, keyring: Option<Keyring>) -> Self {
        Self {
            options: pool.connect_options().as_ref().clone().options(PLANNER),
            conn: None,
            used_at: Instant::now(),
            keyring,
            told: None,
        }
    }

    /// Writes a batch. A connection that has died, as all do when the database
    /// is restarted, costs nobody an answer: what has an identity is written
    /// once more over a new one, for if the first try was committed the second
    /// finds it.
    async fn write(
        &mut self,
        limits: Limits,
        batch: &mut [Prepared],
    ) -> sqlx::Result<Vec<Receipt>> {
        for _ in 1..SEALINGS_MAX {
            match self.write_as_sealed(limits, batch).await {
                Err(error) if is_outdated(&error) => {}
                outcome => return outcome,
            }
        }
        self.write_as_sealed(limits, batch).await
    }

    async fn write_as_sealed(
        &mut self,
        limits: Limits,
        batch: &mut [Prepared],
    ) -> sqlx::Result<Vec<Receipt>> {
        self.drop_if_dead().await;
        let was_open = self.conn.is_some();
        match self.write_once(limits, batch).await {
            Err(error)
                if was_open
                    && !is_outdated(&error)
                    && !is_about_the_data(&error)
                    && batch.iter().all(Prepared::is_idempotent) =>
            {
                tracing::warn!(%error, "the writer's connection was lost, writing over a new one");
                self.write_once(limits, batch).await
            }
            outcome => outcome,
        }
    }

    /// After a while of idleness nobody knows whether the server is still there.
    async fn drop_if_dead(&mut self) {
        if let Some(conn) = &mut self.conn
            && self.used_at.elapsed() > TRUSTED_IDLE
            && !matches!(
                tokio::time::timeout(CONNECT_TIMEOUT, conn.ping()).await,
                Ok(Ok(()))
            )
        {
            self.conn = None;
        }
    }

    async fn write_once(
        &mut self,
        limits: Limits,
        batch: &mut [Prepared],
    ) -> sqlx::Result<Vec<Receipt>> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let written = self.append_durably(&mut conn, limits, batch).await;
        self.used_at = Instant::now();
        // After any other error nobody knows in what state it is.
        if !written
            .as_ref()
            .is_err_and(|error| !is_about_the_data(error))
        {
            self.conn = Some(conn);
        }
        written
    }

    async fn append_durably(
        &mut self,
        conn: &mut PgConnection,
        limits: Limits,
        batch: &mut [Prepared],
    ) -> sqlx::Result<Vec<Receipt>> {
        if let Some(keyring) = self.keyring.clone() {
            self.bring_keys(&keyring, conn, batch).await?;
        }
        let receipts = append(conn, limits, batch).await;
        if let (Err(error), Some(keyring)) = (&receipts, self.keyring.clone())
            && is_outdated(error)
        {
            // Over another connection: this one is in the middle of something.
            let mut other = self.connect().await?;
            keyring.refresh(&mut other).await?;
        }
        let receipts = receipts?;
        flush(conn).await?;
        if let Some(keyring) = &self.keyring {
            keyring.are_durable(sealed_of(batch));
        }
        Ok(receipts)
    }

    /// Everything that a batch needs before it is appended: that it is sealed
    /// under keys that still are, that they are written, and that the ledger
    /// knows what this process knows.
    async fn bring_keys(
        &mut self,
        keyring: &Keyring,
        conn: &mut PgConnection,
        batch: &mut [Prepared],
    ) -> sqlx::Result<()> {
        let epoch = keyring.epoch();
        if self.told != Some(epoch) {
            tell_known(conn, epoch, false).await?;
            self.told = Some(epoch);
        }
        for prepared in batch.iter_mut() {
            keyring.seal_again(prepared);
        }
        keyring.write_keys(conn, sealed_of(batch)).await
    }

    async fn connect(&mut self) -> sqlx::Result<PgConnection> {
        self.told = None;
        if let Some(keyring) = &self.keyring {
            keyring.reconnected();
        }
        let connecting = PgConnection::connect_with(&self.options);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

fn sealed_of(batch: &[Prepared]) -> impl Iterator<Item = &Sealed> {
    batch.iter().filter_map(|prepared| prepared.sealed.as_ref())
}

/// One entry that the database cannot hold must not take the others with it.
/// What cannot be stored as facts is put aside, so that nothing is lost.
async fn one_by_one(
    link: &mut Link,
    limits: Limits,
    batch: Vec<Prepared>,
) -> Vec<Result<Receipt, NotWritten>> {
    let mut outcomes = Vec::with_capacity(batch.len());
    for mut prepared in batch {
        let mut written = link
            .write(limits, std::slice::from_mut(&mut prepared))
            .await;
        if written.as_ref().is_err_and(is_about_the_data)
            && let Some(aside) = prepared.put_aside("its facts cannot be stored by PostgreSQL")
        {
            written = link.write(limits, &mut [aside]).await;
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
