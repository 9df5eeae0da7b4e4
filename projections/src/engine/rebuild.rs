//! Folds a projection anew beside the live tables and puts the new tables in
//! their place, while everybody goes on reading and writing.
//!
//! The new tables live in a schema of their own, which the search path of one
//! connection puts before `public`; so the projection's own SQL fills them. The
//! live tables are not touched before the last transaction, which swaps all of
//! them or none.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, PgPool};

use super::parity::{Difference, compare};
use super::tables::{create_indexes, create_like, replace_tables, run};
use super::{
    BATCH_EVENTS_MAX, Checkpoint, Engine, Projection, UNHURRIED, fold_page, move_checkpoint,
};
use crate::feed::{self, Page};

/// How long readers are left alone between two tries.
const SWAP_PAUSE: Duration = Duration::from_millis(400);
/// How often the swap is tried: for about two minutes.
const SWAP_TRIES: u32 = 240;
/// The first half of the advisory lock's key; the ledger's is 4242.
const ADVISORY_LOCK_CLASS: i32 = 4243;

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildProgress {
    /// The position up to which the ledger has been folded.
    pub position: i64,
    /// The ledger's last position.
    pub head: i64,
}

/// What came of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// The new tables are live.
    Done {
        /// Up to which position they hold the ledger.
        position: i64,
        /// Where they differ from the old ones, table by table. `None` when
        /// the two could not be compared: another version, or one that
        /// had stopped short of where the new one is.
        differences: Option<Vec<Difference>>,
    },
    /// Another replica is at it.
    HeldElsewhere,
    /// The live rows are of a newer version than this program's.
    Superseded,
}

impl Engine {
    /// The projections that must be rebuilt now: their rows are of an older
    /// version, or a rebuild was asked for or interrupted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rebuilds_due(&self) -> anyhow::Result<Vec<&'static str>> {
        let names: Vec<&str> = self.names().collect();
        let versions: Vec<i32> = self.projections.iter().map(|p| p.version()).collect();
        let sql = "select p.name from unnest($1::text[], $2::int[]) as p (name, version)
                   where exists (select from projection_checkpoints c where c.name = p.name
                       and (c.build = 'live' and c.version < p.version
                            or c.build = 'rebuild' and c.version <= p.version and c.error is null))";
        let due: Vec<String> = sqlx::query_scalar(sql)
            .bind(names)
            .bind(versions)
            .fetch_all(&self.pool)
            .await?;
        Ok(due.iter().filter_map(|name| self.resolve(name)).collect())
    }

    /// Asks whichever replica is free to rebuild a projection. Asking again
    /// while it is under way changes nothing; one that failed starts anew.
    ///
    /// # Errors
    /// When there is no such projection, or the database fails.
    pub async fn request_rebuild(&self, name: &str) -> anyhow::Result<()> {
        let version = self.projection(name)?.version();
        let sql = "insert into projection_checkpoints as c (name, build, version)
                   values ($1, 'rebuild', $2)
                   on conflict (name, build) do update set version = excluded.version, position = 0,
                       error = null, started_at = now(), updated_at = now()
                   where c.error is not null";
        sqlx::query(sql)
            .bind(name)
            .bind(version)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Rebuilds a projection: from the beginning, or from where the last try
    /// was interrupted. `report` is called after every batch.
    ///
    /// # Errors
    /// When an event cannot be applied or the database fails. The live tables
    /// are then as they were, and the rebuild's checkpoint says why.
    pub async fn rebuild(
        &self,
        name: &str,
        report: impl FnMut(RebuildProgress) + Send,
    ) -> anyhow::Result<Rebuild> {
        let rebuilt = self.rebuild_all(&[name], report).await?;
        let (_, rebuilt) = rebuilt.into_iter().next().context("nothing was rebuilt")?;
        rebuilt
    }

    /// Rebuilds several projections, which share one reading of the ledger. One
    /// that fails does not keep the others.
    ///
    /// # Errors
    /// When there is no such projection, or the database fails.
    pub async fn rebuild_all(
        &self,
        names: &[&str],
        report: impl FnMut(RebuildProgress) + Send,
    ) -> anyhow::Result<Vec<(&'static str, anyhow::Result<Rebuild>)>> {
        let mut shadows = Vec::with_capacity(names.len());
        for name in names {
            let projection = self.projection(name)?;
            // Its own session, closed at the end: with it go its search path and
            // its lock, also when this future is dropped half-way.
            let conn = self.pool.acquire().await?.detach();
            shadows.push(Shadow::new(projection, conn));
        }
        join_all(shadows.iter_mut().map(Shadow::begin)).await;
        catch_up(&self.pool, &mut shadows, report).await;
        let mut rebuilt = Vec::with_capacity(shadows.len());
        for mut shadow in shadows {
            shadow.finish(&self.pool).await;
            let projection = shadow.projection;
            rebuilt.push((projection.name(), self.close(shadow).await));
        }
        self.folded.send_modify(|_| ());
        Ok(rebuilt)
    }

    async fn close(&self, shadow: Shadow<'_>) -> anyhow::Result<Rebuild> {
        let projection = shadow.projection;
        // First of all: a transaction that failed half-way is rolled back only
        // by this, and until then holds the row that the error goes to.
        let released = release(shadow.conn).await;
        let outcome = shadow
            .outcome
            .unwrap_or_else(|| Err(anyhow::anyhow!("it came to no end")));
        match &outcome {
            Ok(_) => released?,
            Err(error) => self.record_error(projection, "rebuild", error).await,
        }
        outcome.with_context(|| format!("rebuilding projection {}", projection.name()))
    }
}

/// A projection's new tables, while they are filled.
struct Shadow<'a> {
    projection: &'a dyn Projection,
    conn: PgConnection,
    schema: String,
    /// Up to where the ledger is folded into them.
    position: i64,
    /// What came of it, once that is known.
    outcome: Option<anyhow::Result<Rebuild>>,
}

impl<'a> Shadow<'a> {
    fn new(projection: &'a dyn Projection, conn: PgConnection) -> Self {
        Self {
            projection,
            conn,
            schema: format!("rebuild_{}", projection.name()),
            position: 0,
            outcome: None,
        }
    }

    async fn begin(&mut self) {
        if let Err(error) = self.try_begin().await {
            self.outcome = Some(Err(error));
        }
    }

    async fn try_begin(&mut self) -> anyhow::Result<()> {
        if !lock_rebuild(&mut self.conn, self.projection.name()).await? {
            self.outcome = Some(Ok(Rebuild::HeldElsewhere));
            return Ok(());
        }
        if is_superseded(&mut self.conn, self.projection).await? {
            self.outcome = Some(Ok(Rebuild::Superseded));
            return Ok(());
        }
        prepare(&mut self.conn, self.projection, &self.schema).await?;
        sqlx::query("select set_config('search_path', $1, false)")
            .bind(format!("{}, public", self.schema))
            .execute(&mut self.conn)
            .await?;
        let mut tx = self.conn.begin().await?;
        self.position = checkpoint(&mut tx, self.projection, "rebuild")
            .await?
            .position;
        Ok(tx.commit().await?)
    }

    fn is_under_way(&self) -> bool {
        self.outcome.is_none()
    }

    /// Folds a page, with its checkpoint, in one transaction.
    async fn fold(&mut self, page: &Page) {
        if let Err(error) = self.try_fold(page).await {
            self.outcome = Some(Err(error));
        }
    }

    async fn try_fold(&mut self, page: &Page) -> anyhow::Result<()> {
        if page.upto() <= self.position {
            return Ok(());
        }
        let mut tx = self.conn.begin().await?;
        run(&mut tx, &format!("select {UNHURRIED}")).await?;
        let from = checkpoint(&mut tx, self.projection, "rebuild").await?;
        fold_page(&mut tx, self.projection, page, from.position).await?;
        move_checkpoint(&mut tx, self.projection.name(), "rebuild", page.upto()).await?;
        tx.commit().await?;
        self.position = page.upto();
        Ok(())
    }

    async fn finish(&mut self, pool: &PgPool) {
        if self.is_under_way() {
            self.outcome = Some(self.try_finish(pool).await);
        }
    }

    async fn try_finish(&mut self, pool: &PgPool) -> anyhow::Result<Rebuild> {
        create_indexes(pool, self.projection, &self.schema).await?;
        let (conn, projection, schema) = (&mut self.conn, self.projection, &self.schema);
        let mut differences = None;
        for _ in 1..SWAP_TRIES {
            match try_swap(conn, projection, schema, &mut differences).await {
                Err(error) if is_lock_timeout(&error) => tokio::time::sleep(SWAP_PAUSE).await,
                done => return done,
            }
        }
        try_swap(conn, projection, schema, &mut differences).await
    }
}

/// Only one session may rebuild a projection. The lock is the session's and
/// outlasts the transactions in it.
async fn lock_rebuild(conn: &mut PgConnection, name: &str) -> anyhow::Result<bool> {
    let sql = "select pg_try_advisory_lock($1, hashtext($2))";
    let locked = sqlx::query_scalar(sql).bind(ADVISORY_LOCK_CLASS).bind(name);
    Ok(locked.fetch_one(conn).await?)
}

/// Not left to the end of the session, which the server notices in its own
/// time: whoever comes next must not find the lock of one who has gone.
async fn release(mut conn: PgConnection) -> sqlx::Result<()> {
    sqlx::query("select pg_advisory_unlock_all()")
        .execute(&mut conn)
        .await?;
    conn.close().await
}

async fn is_superseded(
    conn: &mut PgConnection,
    projection: &dyn Projection,
) -> anyhow::Result<bool> {
    let sql = "select exists (select from public.projection_checkpoints
               where name = $1 and build = 'live' and version > $2)";
    let newer = sqlx::query_scalar(sql)
        .bind(projection.name())
        .bind(projection.version());
    Ok(newer.fetch_one(conn).await?)
}

/// Makes the empty tables and the checkpoint, unless an unfinished rebuild of
/// this very version left them: every batch in them is whole.
async fn prepare(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
) -> anyhow::Result<()> {
    let mut tx = conn.begin().await?;
    let sql = "select exists (select from public.projection_checkpoints where name = $1
                   and build = 'rebuild' and version = $2 and position > 0)
               and exists (select from pg_namespace where nspname = $3)";
    let interrupted: bool = sqlx::query_scalar(sql)
        .bind(projection.name())
        .bind(projection.version())
        .bind(schema)
        .fetch_one(&mut *tx)
        .await?;
    if interrupted {
        return Ok(());
    }
    run(&mut tx, &format!("drop schema if exists {schema} cascade")).await?;
    run(&mut tx, &format!("create schema {schema}")).await?;
    for table in projection.tables() {
        create_like(&mut tx, projection, schema, table).await?;
    }
    let sql = "insert into public.projection_checkpoints (name, build, version)
               values ($1, 'rebuild', $2)
               on conflict (name, build) do update
               set version = excluded.version, position = 0, error = null, updated_at = now()";
    sqlx::query(sql)
        .bind(projection.name())
        .bind(projection.version())
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// Folds page after page into all of them, until there is no more; meanwhile
/// the next page is read.
async fn catch_up(
    pool: &PgPool,
    shadows: &mut [Shadow<'_>],
    mut report: impl FnMut(RebuildProgress) + Send,
) {
    let positions = shadows.iter().filter(|shadow| shadow.is_under_way());
    let Some(from) = positions.map(|shadow| shadow.position).min() else {
        return;
    };
    let mut next = read_page(pool, &types(shadows), from).await.map(Some);
    loop {
        let (page, head) = match next {
            Ok(Some(page)) => page,
            Ok(None) => return,
            Err(error) => {
                let why = format!("{error:#}");
                for shadow in shadows.iter_mut().filter(|shadow| shadow.is_under_way()) {
                    shadow.outcome = Some(Err(anyhow::anyhow!(why.clone())));
                }
                return;
            }
        };
        let position = page.upto();
        let under_way = |shadow: &&mut Shadow<'_>| shadow.is_under_way();
        let types = types(shadows);
        let (read, _) = tokio::join!(
            async {
                match page.is_empty() || position >= head {
                    true => Ok(None),
                    false => read_page(pool, &types, position).await.map(Some),
                }
            },
            join_all(
                shadows
                    .iter_mut()
                    .filter(under_way)
                    .map(|shadow| shadow.fold(&page))
            ),
        );
        next = read;
        report(RebuildProgress { position, head });
    }
}

/// What any of them reads.
fn types(shadows: &[Shadow<'_>]) -> Vec<&'static str> {
    let under_way = shadows.iter().filter(|shadow| shadow.is_under_way());
    let types = under_way.flat_map(|shadow| shadow.projection.event_types());
    types
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// The page after a position, and the ledger's last position.
async fn read_page(pool: &PgPool, types: &[&str], from: i64) -> anyhow::Result<(Page, i64)> {
    let mut conn = pool.acquire().await?;
    let head = feed::head(&mut conn).await?.max(from);
    let page = feed::page_of(&mut conn, types, (from, head), BATCH_EVENTS_MAX).await?;
    Ok((page, head))
}

async fn try_swap(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
    differences: &mut Option<Vec<Difference>>,
) -> anyhow::Result<Rebuild> {
    let mut tx = conn.begin().await?;
    let swapped = swap(&mut tx, projection, schema, differences).await;
    match swapped {
        Ok(_) => tx.commit().await?,
        // At once, not when it is dropped: readers wait for its locks.
        Err(_) => tx.rollback().await?,
    }
    swapped
}

/// Folds what is left and puts the new tables in the place of the old ones.
///
/// The order of locks is that of [`Engine::run_once`]: checkpoint, then
/// tables. While the checkpoint is held nobody folds, everybody reads.
async fn swap(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
    differences: &mut Option<Vec<Difference>>,
) -> anyhow::Result<Rebuild> {
    ensure_live(conn, projection).await?;
    let live = checkpoint(conn, projection, "live").await?;
    let rebuilt = checkpoint(conn, projection, "rebuild").await?;
    if live.version > projection.version() {
        return Ok(Rebuild::Superseded);
    }
    let position = live.position.max(rebuilt.position);
    fold_up_to(conn, projection, rebuilt.position, position).await?;
    let comparable = live.position == position && live.version == rebuilt.version;
    if comparable && differences.is_none() {
        *differences = Some(compare(conn, projection, schema).await?);
    }
    replace_tables(conn, projection, schema).await?;
    let sql = "update public.projection_checkpoints
               set version = $2, position = $3, error = null, differences = $4, updated_at = now()
               where name = $1 and build = 'live'";
    sqlx::query(sql)
        .bind(projection.name())
        .bind(rebuilt.version)
        .bind(position)
        .bind(differences.as_ref().map(Json))
        .execute(&mut *conn)
        .await?;
    let sql = "delete from public.projection_checkpoints where name = $1 and build = 'rebuild'";
    sqlx::query(sql)
        .bind(projection.name())
        .execute(conn)
        .await?;
    Ok(Rebuild::Done {
        position,
        differences: differences.clone(),
    })
}

async fn fold_up_to(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    mut from: i64,
    upto: i64,
) -> anyhow::Result<()> {
    while from < upto {
        let types = projection.event_types();
        let page = feed::page_of(conn, types, (from, upto), BATCH_EVENTS_MAX).await?;
        fold_page(conn, projection, &page, from).await?;
        from = page.upto();
    }
    Ok(())
}

/// A rebuild may be the first thing that ever happens to a projection.
async fn ensure_live(conn: &mut PgConnection, projection: &dyn Projection) -> anyhow::Result<()> {
    let sql = "insert into public.projection_checkpoints (name, build, version)
               values ($1, 'live', $2) on conflict do nothing";
    sqlx::query(sql)
        .bind(projection.name())
        .bind(projection.version())
        .execute(conn)
        .await?;
    Ok(())
}

/// Locks a checkpoint, waiting for whoever holds it.
async fn checkpoint(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    build: &str,
) -> anyhow::Result<Checkpoint> {
    let sql = "select version, position from public.projection_checkpoints
               where name = $1 and build = $2 for update";
    let found = sqlx::query_as(sql)
        .bind(projection.name())
        .bind(build)
        .fetch_optional(conn)
        .await?;
    let Some(checkpoint) = found else {
        bail!("the {build} checkpoint is gone");
    };
    Ok(checkpoint)
}

fn is_lock_timeout(error: &anyhow::Error) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    error
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error)
        .and_then(|error| error.code())
        .is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}
