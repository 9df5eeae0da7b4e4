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
mod together;
mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use domain::event::Recorded;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;

use pages::Pages;

pub use parity::{Difference, DifferentRow};
pub use rebuild::{Rebuild, RebuildProgress};
pub use status::{RebuildStatus, State, Status};

use crate::keys::Opener;

/// Most events that one transaction folds.
pub const BATCH_EVENTS_MAX: i64 = 1_250;
/// How often one that waits looks again when no engine here told it anything:
/// another replica may be the one that folds.
const WAIT_POLL: Duration = Duration::from_millis(25);

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
        let turn = turn::run(&self.pool, projection, &self.pages).await;
        match &turn {
            Ok((_, position)) => self.know(projection.name(), *position),
            Err(error) => self.record_error(projection, "live", error).await,
        }
        let progress = turn.map(|(progress, _)| progress);
        progress.with_context(|| format!("projection {name}"))
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
