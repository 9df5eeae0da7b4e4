//! A projection's new tables, from their making until they take the place of
//! the old ones.

use std::time::Duration;

use anyhow::Context;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, PgPool};

use super::parity::{Difference, compare};
use super::rebuild::Rebuild;
use super::tables::{analyze, create_indexes, create_like, keep_vacuum_away, replace_tables, run};
use super::turn::{BEGIN, Checkpoint, fold_page, move_checkpoint};
use super::{BATCH_EVENTS_MAX, Projection};
use crate::feed::{self, Page};
use crate::keys::{self, Opener};

/// How long others are left alone between two tries.
const PAUSE: Duration = Duration::from_millis(400);
/// How often the swap is tried: for about two minutes, and longer where somebody
/// vacuums.
const SWAP_TRIES: u32 = 240;
/// How often it is looked whether live folding has come as far: for a few
/// seconds. Where it stands still there is no report.
const REPORT_TRIES: u32 = 10;
/// How often the rest that has come meanwhile is folded before the last rest,
/// which is folded while live folding waits.
const FOLLOW_ROUNDS_MAX: u32 = 20;
/// The first half of the advisory lock's key; the ledger's is 4242.
const ADVISORY_LOCK_CLASS: i32 = 4243;

/// A projection's new tables, while they are filled.
pub(super) struct Shadow<'a> {
    pub(super) projection: &'a dyn Projection,
    opener: Opener,
    conn: PgConnection,
    schema: String,
    /// Up to where the ledger is folded into them.
    pub(super) position: i64,
    /// What came of it, once that is known.
    outcome: Option<anyhow::Result<Rebuild>>,
}

impl<'a> Shadow<'a> {
    pub(super) fn new(projection: &'a dyn Projection, opener: Opener, conn: PgConnection) -> Self {
        Self {
            projection,
            opener,
            conn,
            schema: format!("rebuild_{}", projection.name()),
            position: 0,
            outcome: None,
        }
    }

    pub(super) async fn begin(&mut self) {
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

    pub(super) fn is_under_way(&self) -> bool {
        self.outcome.is_none()
    }

    /// Folds a page, with its checkpoint, in one transaction.
    pub(super) async fn fold(&mut self, page: &Page) {
        if let Err(error) = self.try_fold(page).await {
            self.outcome = Some(Err(error));
        }
    }

    async fn try_fold(&mut self, page: &Page) -> anyhow::Result<()> {
        if page.upto() <= self.position {
            return Ok(());
        }
        let mut tx = self.conn.begin_with(BEGIN).await?;
        let from = checkpoint(&mut tx, self.projection, "rebuild").await?;
        fold_page(&mut tx, self.projection, page, from.position).await?;
        move_checkpoint(&mut tx, self.projection.name(), "rebuild", page.upto()).await?;
        tx.commit().await?;
        self.position = page.upto();
        Ok(())
    }

    pub(super) async fn finish(&mut self, pool: &PgPool) {
        if self.is_under_way() {
            self.outcome = Some(self.try_finish(pool).await);
        }
    }

    async fn try_finish(&mut self, pool: &PgPool) -> anyhow::Result<Rebuild> {
        create_indexes(pool, self.projection, &self.schema).await?;
        analyze(&mut self.conn, self.projection, &self.schema).await?;
        let differences = self.report(pool).await?;
        self.follow_live().await?;
        for _ in 1..SWAP_TRIES {
            match self.try_swap(differences.as_deref()).await {
                Err(error) if is_lock_timeout(&error) => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
        self.try_swap(differences.as_deref()).await
    }

    /// Folds up to where live folding is, or less than a page short of it.
    async fn follow_live(&mut self) -> anyhow::Result<()> {
        for _ in 0..FOLLOW_ROUNDS_MAX {
            let live = find_checkpoint(&mut self.conn, self.projection, "live", "").await?;
            let upto = live.map_or(0, |live| live.position);
            if upto - self.position < BATCH_EVENTS_MAX {
                break;
            }
            self.follow(upto).await?;
        }
        Ok(())
    }

    async fn follow(&mut self, upto: i64) -> anyhow::Result<()> {
        let types = self.projection.event_types();
        while self.position < upto {
            let rest = (self.position, upto);
            let page =
                feed::page_of(&mut self.conn, &self.opener, types, rest, BATCH_EVENTS_MAX).await?;
            self.try_fold(&page).await?;
        }
        Ok(())
    }

    /// In which rows the two builds differ, both at the same position. They are
    /// compared in a snapshot that is taken while nobody folds; while it is
    /// looked at, everybody does. `None` when there is nothing to compare:
    /// another version, or one that is short of where this one is.
    async fn report(&mut self, pool: &PgPool) -> anyhow::Result<Option<Vec<Difference>>> {
        for _ in 0..REPORT_TRIES {
            self.follow_live().await?;
            // While this is held nobody folds the live tables.
            let mut holding = pool.acquire().await?;
            let mut held = holding.begin().await?;
            let live = find_checkpoint(&mut held, self.projection, "live", "for update").await?;
            let Some(live) = live.filter(|live| live.version == self.projection.version()) else {
                return Ok(None);
            };
            if live.position < self.position {
                held.rollback().await?;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            self.follow(live.position).await?;
            let begin = "begin isolation level repeatable read, read only";
            let mut snapshot = self.conn.begin_with(begin).await?;
            // The first statement takes the snapshot.
            run(&mut snapshot, "select 1").await?;
            held.rollback().await?;
            let found = compare(&mut snapshot, self.projection, &self.schema).await?;
            snapshot.commit().await?;
            return Ok(Some(found));
        }
        Ok(None)
    }

    async fn try_swap(&mut self, differences: Option<&[Difference]>) -> anyhow::Result<Rebuild> {
        let mut tx = self.conn.begin().await?;
        let swapped = swap(
            &mut tx,
            &self.opener,
            (self.projection, &self.schema),
            differences,
        )
        .await;
        match swapped {
            Ok(_) => tx.commit().await?,
            // At once, not when it is dropped: readers wait for its locks.
            Err(_) => tx.rollback().await?,
        }
        swapped
    }

    pub(super) fn fail(&mut self, error: anyhow::Error) {
        self.outcome = Some(Err(error));
    }

    /// Lets go of the connection; whether that went well, and what came of it
    /// all.
    pub(super) async fn close(self) -> (sqlx::Result<()>, anyhow::Result<Rebuild>) {
        let released = release(self.conn).await;
        let outcome = self.outcome;
        (
            released,
            outcome.unwrap_or_else(|| Err(anyhow::anyhow!("it came to no end"))),
        )
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
    let epoch = keys::epoch(&mut tx).await?;
    let sql = "select exists (select from public.projection_checkpoints where name = $1
                   and build = 'rebuild' and version = $2 and position > 0 and epoch = $4)
               and exists (select from pg_namespace where nspname = $3)";
    let interrupted: bool = sqlx::query_scalar(sql)
        .bind(projection.name())
        .bind(projection.version())
        .bind(schema)
        .bind(epoch)
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
    let sql = "insert into public.projection_checkpoints (name, build, version, epoch)
               values ($1, 'rebuild', $2, $3)
               on conflict (name, build) do update set version = excluded.version,
                   epoch = excluded.epoch, position = 0, error = null, updated_at = now()";
    sqlx::query(sql)
        .bind(projection.name())
        .bind(projection.version())
        .bind(epoch)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// Folds what is left and puts the new tables in the place of the old ones.
///
/// The order of locks is that of [`Engine::run_once`]: checkpoint, then
/// tables. While the checkpoint is held nobody folds, everybody reads. So who
/// vacuums is waited for before.
async fn swap(
    conn: &mut PgConnection,
    opener: &Opener,
    (projection, schema): (&dyn Projection, &str),
    differences: Option<&[Difference]>,
) -> anyhow::Result<Rebuild> {
    keep_vacuum_away(conn, projection, schema).await?;
    ensure_live(conn, projection).await?;
    let live = checkpoint(conn, projection, "live").await?;
    let rebuilt = checkpoint(conn, projection, "rebuild").await?;
    if live.version > projection.version() {
        return Ok(Rebuild::Superseded);
    }
    let position = live.position.max(rebuilt.position);
    fold_up_to(conn, opener, projection, (rebuilt.position, position)).await?;
    replace_tables(conn, projection, schema).await?;
    let sql = "update public.projection_checkpoints
               set version = $2, position = $3, error = null, differences = $4, updated_at = now(),
                   epoch = (select epoch from public.projection_checkpoints
                             where name = $1 and build = 'rebuild')
               where name = $1 and build = 'live'";
    sqlx::query(sql)
        .bind(projection.name())
        .bind(rebuilt.version)
        .bind(position)
        .bind(differences.map(Json))
        .execute(&mut *conn)
        .await?;
    let sql = "delete from public.projection_checkpoints where name = $1 and build = 'rebuild'";
    sqlx::query(sql)
        .bind(projection.name())
        .execute(conn)
        .await?;
    Ok(Rebuild::Done {
        position,
        differences: differences.map(<[_]>::to_vec),
    })
}

async fn fold_up_to(
    conn: &mut PgConnection,
    opener: &Opener,
    projection: &dyn Projection,
    (mut from, upto): (i64, i64),
) -> anyhow::Result<()> {
    while from < upto {
        let types = projection.event_types();
        let page = feed::page_of(conn, opener, types, (from, upto), BATCH_EVENTS_MAX).await?;
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
    let found = find_checkpoint(conn, projection, build, "for update").await?;
    found.with_context(|| format!("the {build} checkpoint is gone"))
}

async fn find_checkpoint(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    build: &str,
    lock: &str,
) -> anyhow::Result<Option<Checkpoint>> {
    let sql = format!(
        "select version, position from public.projection_checkpoints
          where name = $1 and build = $2 {lock}"
    );
    let found = sqlx::query_as(&sql)
        .bind(projection.name())
        .bind(build)
        .fetch_optional(conn)
        .await?;
    Ok(found)
}

fn is_lock_timeout(error: &anyhow::Error) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    error
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error)
        .and_then(|error| error.code())
        .is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}
