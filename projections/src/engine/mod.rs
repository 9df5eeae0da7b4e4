//! Folds the ledger into the read models, each event exactly once.
//!
//! A projection's rows and its checkpoint move in one transaction, so a crash
//! between two batches counts nothing twice and loses nothing. The checkpoint
//! row is the lock that elects one replica to fold; the others go on.
//!
//! The engine owns no loop and no clock: whoever owns one calls
//! [`Engine::run_once`] again and again.

mod pages;
mod parity;
mod rebuild;
mod shadow;
mod status;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use domain::event::Recorded;
use sqlx::pool::PoolConnection;
use sqlx::{Executor, FromRow, PgConnection, PgPool, Postgres};
use tokio::sync::watch;
use tokio::task::JoinSet;

use pages::Pages;

pub use parity::{Difference, DifferentRow};
pub use rebuild::{Rebuild, RebuildProgress};
pub use status::{RebuildStatus, State, Status};

use crate::feed::Page;
use crate::keys::Opener;

/// Most events that one transaction folds.
pub const BATCH_EVENTS_MAX: i64 = 2_000;
/// How often one that waits looks again when no engine here told it anything:
/// another replica may be the one that folds.
const WAIT_POLL: Duration = Duration::from_millis(25);

/// How a transaction folds. Its commit does not wait for the disk: what a crash
/// takes away then are the last turns as a whole, rows and checkpoints, and they
/// are done again; whatever the ledger takes later waits for the disk, for these
/// too. And it finds rows by their keys: statistics of a table that was empty a
/// minute ago would have it read the whole of it in each turn. (Where a table
/// must be read whole, that is priced as if it were worth compiling the plan.)
const BEGIN: &str = "begin; set local synchronous_commit = off; set local enable_seqscan = off; \
    set local jit = off; set local plan_cache_mode = force_generic_plan";

/// A set of tables that are folded together from the ledger.
#[async_trait]
pub trait Projection: Send + Sync {
    /// Its name: lower case letters and `_`, for it becomes part of SQL.
    fn name(&self) -> &'static str;

    /// Raised whenever the same ledger gives other rows than before. The old
    /// rows are then rebuilt.
    fn version(&self) -> i32;

    /// The tables that are its own.
    fn tables(&self) -> &'static [&'static str];

    /// The types of the events that it reads.
    fn event_types(&self) -> &'static [&'static str];

    /// Whether it finds every row by its table's primary key. Then a rebuild
    /// makes the other indexes at its end, which is much faster.
    fn is_read_by_key(&self) -> bool {
        false
    }

    /// Folds events, in their order, into the tables. The tables' names must
    /// not be qualified: a rebuild puts others in their place.
    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()>;
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There was nothing to do.
    Idle,
    /// A batch was folded. There may be more.
    Worked {
        /// How many events.
        events: usize,
        /// Up to which position.
        position: i64,
    },
    /// Another replica has it in hand.
    HeldElsewhere,
    /// The rows are of an older version; see [`Engine::rebuilds_due`].
    NeedsRebuild,
    /// The rows are of a newer version: a newer program has taken over, and
    /// this one must leave them alone.
    Superseded,
}

/// The projections, and how far they are.
#[derive(Clone)]
pub struct Engine {
    pool: PgPool,
    opener: Opener,
    projections: Arc<[Arc<dyn Projection>]>,
    pages: Arc<Pages>,
    folded: watch::Sender<Folded>,
}

/// Up to which position each projection is folded, as far as this process knows.
pub type Folded = BTreeMap<&'static str, i64>;

/// The position that a projection's live rows are of, 0 before it ever ran; in
/// a transaction, of the rows that it sees.
///
/// # Errors
/// When the database fails.
pub async fn position(conn: &mut PgConnection, name: &str) -> sqlx::Result<i64> {
    let sql = "select position from projection_checkpoints where name = $1 and build = 'live'";
    let position = sqlx::query_scalar(sql).bind(name).fetch_optional(conn);
    Ok(position.await?.unwrap_or_default())
}

/// A row of `projection_checkpoints`, locked.
#[derive(Clone, Copy, FromRow)]
struct Checkpoint {
    version: i32,
    position: i64,
}

impl Engine {
    /// An engine for these projections.
    pub fn new(pool: PgPool, projections: Vec<Arc<dyn Projection>>) -> Self {
        let opener = Opener::default();
        Self {
            pages: Pages::new(pool.clone(), opener.clone()),
            pool,
            opener,
            projections: projections.into(),
            folded: watch::Sender::default(),
        }
    }

    /// The same of a ledger on which personal data is sealed.
    #[must_use]
    pub fn opening(mut self, opener: Opener) -> Self {
        self.pages = Pages::new(self.pool.clone(), opener.clone());
        self.opener = opener;
        self
    }

    /// The names of the projections.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.projections.iter().map(|projection| projection.name())
    }

    /// Changes whenever this process has folded something.
    pub fn moved(&self) -> watch::Receiver<Folded> {
        self.folded.subscribe()
    }

    /// The projection with this name, or to which the table with this name
    /// belongs.
    pub fn resolve(&self, name: &str) -> Option<&'static str> {
        let mut projections = self.projections.iter();
        let found = projections.find(|p| p.name() == name || p.tables().contains(&name));
        found.map(|projection| projection.name())
    }

    /// Folds the next batch of one projection.
    ///
    /// # Errors
    /// When an event cannot be read or applied, or the database fails. Nothing
    /// of the batch is kept, the checkpoint says why, and the next call tries
    /// again.
    pub async fn run_once(&self, name: &str) -> anyhow::Result<Progress> {
        let projection = self.projection(name)?;
        let turn = self.fold_batch(projection).await;
        match &turn {
            Ok((_, position)) => self.know(projection.name(), *position),
            Err(error) => self.record_error(projection, "live", error).await,
        }
        let progress = turn.map(|(progress, _)| progress);
        progress.with_context(|| format!("projection {name}"))
    }

    /// A turn of each of these projections, all at a time. Each is a
    /// transaction of its own, and what becomes of one is nothing to the others.
    /// They go page by page together, so that each page is read once; and those
    /// that want nothing of it are moved on together, in one statement.
    pub async fn run_all(
        &self,
        names: impl IntoIterator<Item = &'static str>,
    ) -> Vec<(&'static str, anyhow::Result<Progress>)> {
        let names: Vec<_> = names.into_iter().collect();
        // What fails here fails again in a turn of its own, and is told there.
        let unwanted = self.unwanted(&names).await.unwrap_or_default();
        let is_spare = |name: &&_| unwanted.iter().any(|page| page.by.contains(name));
        let (spare, wanting): (Vec<_>, Vec<_>) = names.iter().copied().partition(is_spare);
        let mut turns = JoinSet::new();
        let run = |turns: &mut JoinSet<_>, name: &'static str| {
            let engine = self.clone();
            turns.spawn(async move { (name, engine.run_once(name).await) });
        };
        for name in wanting {
            run(&mut turns, name);
        }
        let mut done = vec![];
        if let Some(page) = unwanted {
            let progress = Progress::Worked {
                events: 0,
                position: page.upto,
            };
            let moved = self.pass_over(page).await.unwrap_or_default();
            for name in spare {
                match moved.contains(&name) {
                    true => done.push((name, Ok(progress))),
                    false => run(&mut turns, name),
                }
            }
        }
        done.extend(turns.join_all().await);
        done
    }

    /// The next page, if some of these projections want nothing of it, as far as
    /// this process knows where they are.
    async fn unwanted(&self, names: &[&'static str]) -> anyhow::Result<Option<Unwanted>> {
        let known = self.folded.borrow().clone();
        let Some(&after) = names.iter().filter_map(|name| known.get(name)).max() else {
            return Ok(None);
        };
        let mut turn = Turn::begin(&self.pool).await?;
        let page = self.pages.after(turn.conn()?, after).await?;
        let mut by = vec![];
        for name in names.iter().filter(|name| known.get(*name) == Some(&after)) {
            let types = self.projection(name)?.event_types();
            let wanted = page.wanted(types, after);
            if wanted.is_ok_and(|events| events.is_empty()) {
                by.push(*name);
            }
        }
        if page.is_empty() || by.is_empty() {
            turn.roll_back().await?;
            return Ok(None);
        }
        let upto = page.upto();
        Ok(Some(Unwanted {
            turn,
            after,
            upto,
            by,
        }))
    }

    /// Moves the projections on that want nothing of a page. Gives which are:
    /// not what another replica holds, or has moved, or is of another version.
    async fn pass_over(&self, mut page: Unwanted) -> anyhow::Result<Vec<&'static str>> {
        let mut versions = vec![];
        for name in &page.by {
            versions.push(self.projection(name)?.version());
        }
        let sql = "update projection_checkpoints as moved
                      set position = $4, error = null, updated_at = now()
                     from (select name from projection_checkpoints
                             join unnest($1::text[], $2::int[]) as wanted (name, version)
                            using (name, version)
                            where build = 'live' and position = $3
                              for update of projection_checkpoints skip locked) as found
                    where moved.name = found.name and moved.build = 'live'
                returning moved.name";
        let moved = sqlx::query_scalar(sql)
            .bind(&page.by)
            .bind(&versions)
            .bind(page.after)
            .bind(page.upto);
        let moved: Vec<String> = moved.fetch_all(page.turn.conn()?).await?;
        page.turn.commit().await?;
        let is_moved = |name: &&&'static str| moved.iter().any(|moved| moved == **name);
        let moved: Vec<_> = page.by.iter().filter(is_moved).copied().collect();
        for name in &moved {
            self.know(name, Some(page.upto));
        }
        Ok(moved)
    }

    /// Keeps where a projection is, or that this is not known.
    fn know(&self, name: &'static str, position: Option<i64>) {
        self.folded.send_if_modified(|folded| match position {
            Some(position) => folded.insert(name, position) != Some(position),
            None => folded.remove(name).is_some(),
        });
    }

    /// Runs every projection until none has anything to do. For tests and for
    /// one-off commands.
    ///
    /// # Errors
    /// As [`Self::run_once`].
    pub async fn settle(&self) -> anyhow::Result<()> {
        for name in self.names() {
            while let Progress::Worked { .. } = self.run_once(name).await? {}
        }
        Ok(())
    }

    /// Waits until these projections have folded the ledger up to a position.
    /// `false` when they have not within the time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn wait_for(
        &self,
        names: &[&str],
        position: i64,
        within: Duration,
    ) -> anyhow::Result<bool> {
        let is_folded =
            |folded: &Folded| names.iter().all(|name| folded.get(name) >= Some(&position));
        let mut folded = self.folded.subscribe();
        let reached = async {
            while !is_folded(&folded.borrow()) && !self.have_reached(names, position).await? {
                // A word from this process; or after a while it is asked
                // whether another one has folded.
                let _ = tokio::time::timeout(WAIT_POLL, folded.wait_for(is_folded)).await;
            }
            Ok(true)
        };
        tokio::time::timeout(within, reached)
            .await
            .unwrap_or(Ok(false))
    }

    async fn have_reached(&self, names: &[&str], position: i64) -> anyhow::Result<bool> {
        // Before the first event there is nothing to fold, and no checkpoint.
        if position <= 0 {
            return Ok(true);
        }
        let sql = "select count(*) from projection_checkpoints
                   where name = any($1) and build = 'live' and position >= $2";
        let there: i64 = sqlx::query_scalar(sql)
            .bind(names)
            .bind(position)
            .fetch_one(&self.pool)
            .await?;
        Ok(there == names.len() as i64)
    }

    fn projection(&self, name: &str) -> anyhow::Result<&dyn Projection> {
        let found = self.projections.iter().find(|p| p.name() == name);
        found
            .map(AsRef::as_ref)
            .with_context(|| format!("there is no projection {name}"))
    }

    /// A turn, and where the rows are after it, if that is known.
    async fn fold_batch(
        &self,
        projection: &dyn Projection,
    ) -> anyhow::Result<(Progress, Option<i64>)> {
        let mut turn = Turn::begin(&self.pool).await?;
        let done = fold_if_due(turn.conn()?, projection, &self.pages).await;
        match &done {
            Ok((Progress::Worked { .. }, _)) => turn.commit().await?,
            Ok(_) => turn.roll_back().await?,
            // One that is only dropped is rolled back some time later, and the
            // next turn would find its own lock. Where this fails too, the
            // session is gone and the first error says why.
            Err(_) => drop(turn.conn()?.execute("rollback").await),
        }
        done
    }

    /// Leaves word of why a projection stopped. The failure itself goes to the
    /// caller; that it could not be written down too is only worth a line.
    async fn record_error(&self, projection: &dyn Projection, build: &str, error: &anyhow::Error) {
        // The first start may have failed before there was a checkpoint.
        let sql = "insert into projection_checkpoints (name, build, version, error)
                   values ($1, $2, $3, $4)
                   on conflict (name, build) do update set error = excluded.error, updated_at = now()";
        let written = sqlx::query(sql)
            .bind(projection.name())
            .bind(build)
            .bind(projection.version())
            .bind(format!("{error:#}"))
            .execute(&self.pool)
            .await;
        if let Err(error) = written {
            let name = projection.name();
            tracing::warn!(projection = name, %error, "could not record why the projection stopped");
        }
    }
}

/// A transaction that folds, or reads for it. One that is not ended, because it
/// was dropped or has failed, may be in the middle of a COPY, of which nobody
/// else must get to hear: its connection is closed, and what it began is rolled
/// back.
struct Turn(Option<PoolConnection<Postgres>>);

impl Turn {
    async fn begin(pool: &PgPool) -> anyhow::Result<Self> {
        let mut turn = Self(Some(pool.acquire().await?));
        turn.conn()?.execute(BEGIN).await?;
        Ok(turn)
    }

    fn conn(&mut self) -> anyhow::Result<&mut PgConnection> {
        self.0.as_deref_mut().context("the turn has ended")
    }

    async fn commit(mut self) -> anyhow::Result<()> {
        self.conn()?.execute("commit").await?;
        self.0 = None;
        Ok(())
    }

    async fn roll_back(mut self) -> anyhow::Result<()> {
        self.conn()?.execute("rollback").await?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(conn) = &mut self.0 {
            conn.close_on_drop();
        }
    }
}

/// Projections that want nothing of a page.
struct Unwanted {
    /// In which it was found to stand. PostgreSQL may crash and take the page
    /// away, and then this dies with it.
    turn: Turn,
    after: i64,
    upto: i64,
    by: Vec<&'static str>,
}

/// A turn, within its transaction, and where the rows are after it, if that is
/// known.
async fn fold_if_due(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    pages: &Arc<Pages>,
) -> anyhow::Result<(Progress, Option<i64>)> {
    let Some(live) = claim(conn, projection).await? else {
        return Ok((Progress::HeldElsewhere, None));
    };
    if live.version < projection.version() {
        return Ok((Progress::NeedsRebuild, None));
    }
    if live.version > projection.version() {
        return Ok((Progress::Superseded, None));
    }
    let page = pages.after(conn, live.position).await?;
    if page.is_empty() {
        return Ok((Progress::Idle, Some(live.position)));
    }
    let events = fold_page(conn, projection, &page, live.position).await?;
    let position = page.upto();
    move_checkpoint(conn, projection.name(), "live", position).await?;
    Ok((Progress::Worked { events, position }, Some(position)))
}

/// Locks the live checkpoint, making it at the first start. `None` when another
/// replica holds it: it is the leader for this batch, and waiting for it would
/// only be a slower way to find its work done.
async fn claim(
    conn: &mut PgConnection,
    projection: &dyn Projection,
) -> anyhow::Result<Option<Checkpoint>> {
    let sql = "select version, position from projection_checkpoints
               where name = $1 and build = 'live' for update skip locked";
    let found = sqlx::query_as(sql)
        .bind(projection.name())
        .fetch_optional(&mut *conn)
        .await?;
    if found.is_some() {
        return Ok(found);
    }
    // Locked or missing: one that is locked conflicts.
    let sql = "insert into projection_checkpoints (name, build, version, epoch)
               select $1, 'live', $2, epoch from subject_epoch
               on conflict do nothing returning version, position";
    let made = sqlx::query_as(sql)
        .bind(projection.name())
        .bind(projection.version());
    Ok(made.fetch_optional(conn).await?)
}

/// Folds what a projection wants of a page after a position. Gives how many
/// events that was.
async fn fold_page(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    page: &Page,
    after: i64,
) -> anyhow::Result<usize> {
    let batch = page.wanted(projection.event_types(), after)?;
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
        return Ok(0);
    };
    projection.apply(conn, &batch).await.with_context(|| {
        format!(
            "the events at positions {} to {} cannot be applied",
            first.position, last.position
        )
    })?;
    Ok(batch.len())
}

async fn move_checkpoint(
    conn: &mut PgConnection,
    name: &str,
    build: &str,
    position: i64,
) -> anyhow::Result<()> {
    let sql =
        "update public.projection_checkpoints set position = $3, error = null, updated_at = now()
               where name = $1 and build = $2";
    sqlx::query(sql)
        .bind(name)
        .bind(build)
        .bind(position)
        .execute(conn)
        .await?;
    Ok(())
}
