//! A turn of one projection: a page of the ledger, folded in one transaction
//! with the checkpoint that says so.

use std::sync::Arc;

use anyhow::Context;
use sqlx::pool::PoolConnection;
use sqlx::{Executor, FromRow, PgConnection, PgPool, Postgres};

use super::pages::Pages;
use super::{Progress, Projection};
use crate::feed::Page;

/// How a transaction folds. Its commit does not wait for the disk: what a crash
/// takes away then are the last turns as a whole, rows and checkpoints, and they
/// are done again; whatever the ledger takes later waits for the disk, for these
/// too. And it finds rows by their keys: statistics of a table that was empty a
/// minute ago would have it read the whole of it in each turn. (Where a table
/// must be read whole, that is priced as if it were worth compiling the plan.)
pub(super) const BEGIN: &str = "begin; set local synchronous_commit = off; set local enable_seqscan = off; \
    set local jit = off; set local plan_cache_mode = force_generic_plan";

/// A row of `projection_checkpoints`, locked.
#[derive(Clone, Copy, FromRow)]
pub(super) struct Checkpoint {
    pub(super) version: i32,
    pub(super) position: i64,
}

/// A transaction that folds, or reads for it. One that is not ended, because it
/// was dropped or has failed, may be in the middle of a COPY, of which nobody
/// else must get to hear: its connection is closed, and what it began is rolled
/// back.
pub(super) struct Turn(Option<PoolConnection<Postgres>>);

impl Turn {
    pub(super) async fn begin(pool: &PgPool) -> anyhow::Result<Self> {
        let mut turn = Self(Some(pool.acquire().await?));
        turn.conn()?.execute(BEGIN).await?;
        Ok(turn)
    }

    pub(super) fn conn(&mut self) -> anyhow::Result<&mut PgConnection> {
        self.0.as_deref_mut().context("the turn has ended")
    }

    pub(super) async fn commit(mut self) -> anyhow::Result<()> {
        self.conn()?.execute("commit").await?;
        self.0 = None;
        Ok(())
    }

    pub(super) async fn roll_back(mut self) -> anyhow::Result<()> {
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

/// A turn, and where the rows are after it, if that is known.
pub(super) async fn run(
    pool: &PgPool,
    projection: &dyn Projection,
    pages: &Arc<Pages>,
) -> anyhow::Result<(Progress, Option<i64>)> {
    let mut turn = Turn::begin(pool).await?;
    let done = fold_if_due(turn.conn()?, projection, pages).await;
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
pub(super) async fn fold_page(
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

pub(super) async fn move_checkpoint(
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
