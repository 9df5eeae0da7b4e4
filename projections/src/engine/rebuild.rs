//! Folds a projection anew beside the live tables and puts the new tables in
//! their place, while everybody goes on reading and writing.
//!
//! The new tables live in a schema of their own, which the search path of one
//! connection puts before `public`; so the projection's own SQL fills them. The
//! live tables are not touched before the last transaction, which swaps all of
//! them or none.

use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::{Connection, FromRow, PgConnection};

use super::{Checkpoint, Engine, Projection, fold_next, move_checkpoint};
use crate::feed;

/// How long the swap waits for readers, each time it tries; new readers wait
/// behind it for as long. Far less than PostgreSQL's `deadlock_timeout` (1 s),
/// so that in a deadlock it is always the swap that gives way.
const SWAP_LOCK_TIMEOUT: &str = "100ms";
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

/// How many rows of a table differ between live folding and the rebuild.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Difference {
    /// The table.
    #[sqlx(rename = "name")]
    pub table: String,
    /// Rows that only live folding had.
    pub only_before: i64,
    /// Rows that only the rebuild has.
    pub only_after: i64,
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
        let projection = self.projection(name)?;
        // Its own session, closed at the end: with it go its search path and
        // its lock, also when this future is dropped half-way.
        let mut conn = self.pool.acquire().await?.detach();
        if !lock_rebuild(&mut conn, name).await? {
            return Ok(Rebuild::HeldElsewhere);
        }
        let rebuilt = rebuild(&mut conn, projection, report).await;
        // First of all: a transaction that failed half-way is rolled back only
        // by this, and until then holds the row that the error goes to.
        let released = release(conn).await;
        match &rebuilt {
            Ok(_) => released?,
            Err(error) => self.record_error(projection, "rebuild", error).await,
        }
        self.moved.send_replace(());
        rebuilt.with_context(|| format!("rebuilding projection {name}"))
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

async fn rebuild(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    report: impl FnMut(RebuildProgress) + Send,
) -> anyhow::Result<Rebuild> {
    if is_superseded(conn, projection).await? {
        return Ok(Rebuild::Superseded);
    }
    let schema = format!("rebuild_{}", projection.name());
    prepare(conn, projection, &schema).await?;
    sqlx::query("select set_config('search_path', $1, false)")
        .bind(format!("{schema}, public"))
        .execute(&mut *conn)
        .await?;
    catch_up(conn, projection, report).await?;
    let mut differences = None;
    for _ in 1..SWAP_TRIES {
        match try_swap(conn, projection, &schema, &mut differences).await {
            Err(error) if is_lock_timeout(&error) => tokio::time::sleep(SWAP_PAUSE).await,
            done => return done,
        }
    }
    try_swap(conn, projection, &schema, &mut differences).await
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
        create_like(&mut tx, schema, table).await?;
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

/// An empty table as the live one is: columns, keys, indexes under the same
/// names (`like … including indexes` would invent new ones), grants and owner:
/// whoever rebuilds need not be whoever serves.
async fn create_like(conn: &mut PgConnection, schema: &str, table: &str) -> anyhow::Result<()> {
    run(
        conn,
        &format!(
            "create table {schema}.{table}
             (like public.{table} including all excluding indexes)"
        ),
    )
    .await?;
    let sql = "
        select format('alter table %I.%I add constraint %I %s', $1, $2, conname, pg_get_constraintdef(oid))
        from pg_constraint
        where conrelid = format('public.%I', $2)::regclass and contype in ('p', 'u')
        union all
        select replace(pg_get_indexdef(indexrelid), ' ON public.', format(' ON %I.', $1))
        from pg_index
        where indrelid = format('public.%I', $2)::regclass
          and not exists (select from pg_constraint where conindid = indexrelid)
        union all
        select format('grant %s on %I.%I to %s', privilege_type, $1, $2,
                      case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end)
        from pg_class, aclexplode(relacl)
        where oid = format('public.%I', $2)::regclass and grantee <> relowner
        union all
        select format('alter table %I.%I owner to %I', $1, $2, pg_get_userbyid(relowner))
        from pg_class
        where oid = format('public.%I', $2)::regclass and pg_get_userbyid(relowner) <> current_user";
    let statements: Vec<String> = sqlx::query_scalar(sql)
        .bind(schema)
        .bind(table)
        .fetch_all(&mut *conn)
        .await?;
    for statement in statements {
        run(conn, &statement).await?;
    }
    Ok(())
}

/// Folds batch after batch, each with its checkpoint in one transaction, until
/// less than a batch is left for the swap.
async fn catch_up(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    mut report: impl FnMut(RebuildProgress) + Send,
) -> anyhow::Result<()> {
    loop {
        let mut tx = conn.begin().await?;
        let from = checkpoint(&mut tx, projection, "rebuild").await?;
        let head = feed::head(&mut tx).await?;
        let (events, position) =
            fold_next(&mut tx, projection, from.position, head.max(from.position)).await?;
        move_checkpoint(&mut tx, projection.name(), "rebuild", position).await?;
        tx.commit().await?;
        report(RebuildProgress { position, head });
        if events == 0 || position >= head {
            return Ok(());
        }
    }
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
               set version = $2, position = $3, error = null, updated_at = now()
               where name = $1 and build = 'live'";
    sqlx::query(sql)
        .bind(projection.name())
        .bind(rebuilt.version)
        .bind(position)
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
        (_, from) = fold_next(conn, projection, from, upto).await?;
    }
    Ok(())
}

/// Compares the two builds row by row, as text: `json` knows no equality.
async fn compare(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
) -> anyhow::Result<Vec<Difference>> {
    let mut found = Vec::new();
    for table in projection.tables() {
        let sql = format!(
            "select '{table}' as name,
                 (select count(*) from (select t::text from public.{table} t
                     except all select t::text from {schema}.{table} t) d) as only_before,
                 (select count(*) from (select t::text from {schema}.{table} t
                     except all select t::text from public.{table} t) d) as only_after"
        );
        let difference: Difference = sqlx::query_as(&sql).fetch_one(&mut *conn).await?;
        if difference.only_before + difference.only_after > 0 {
            found.push(difference);
        }
    }
    Ok(found)
}

async fn replace_tables(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
) -> anyhow::Result<()> {
    let live: Vec<_> = projection
        .tables()
        .iter()
        .map(|table| format!("public.{table}"))
        .collect();
    let live = live.join(", ");
    // All readers out before the first table goes.
    run(
        conn,
        &format!("set local lock_timeout = '{SWAP_LOCK_TIMEOUT}'"),
    )
    .await?;
    run(conn, &format!("lock table {live} in access exclusive mode")).await?;
    run(conn, &format!("drop table {live}")).await?;
    for table in projection.tables() {
        run(
            conn,
            &format!("alter table {schema}.{table} set schema public"),
        )
        .await?;
    }
    run(conn, &format!("drop schema {schema}")).await
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

async fn run(conn: &mut PgConnection, sql: &str) -> anyhow::Result<()> {
    // Not prepared: none of these is run twice.
    // Not raw_sql: its future is not Send for every lifetime.
    sqlx::query(sql).persistent(false).execute(conn).await?;
    Ok(())
}
