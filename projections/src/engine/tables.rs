//! The tables of a rebuild: made like the live ones, and put in their place.

use futures_util::future::join_all;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Mutex;

use super::Projection;

/// Memory for making an index at the end of a rebuild.
const INDEX_MEMORY: &str = "256MB";
/// How many indexes of a projection are made at a time.
const INDEXES_AT_A_TIME: usize = 2;
/// How long the swap waits for readers, each time it tries; new readers wait
/// behind it for as long. Far less than PostgreSQL's `deadlock_timeout` (1 s),
/// so that in a deadlock it is always the swap that gives way.
const SWAP_LOCK_TIMEOUT: &str = "100ms";
/// How long it waits before that for who vacuums, which nobody notices. Far more
/// than `deadlock_timeout`, after which PostgreSQL breaks off an autovacuum that
/// somebody waits for.
const VACUUM_LOCK_TIMEOUT: &str = "10s";

/// An empty table as the live one is: columns, keys, settings, grants, owner: whoever
/// rebuilds need not be whoever serves. And its indexes, if the fold reads by
/// them.
pub(super) async fn create_like(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
    table: &str,
) -> anyhow::Result<()> {
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
        select format('alter table %I.%I set (%s)', $1, $2, array_to_string(reloptions, ', '))
        from pg_class
        where oid = format('public.%I', $2)::regclass and reloptions is not null
        union all
        select format('grant %s on %I.%I to %s', privilege_type, $1, $2,
                      case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end)
        from pg_class, aclexplode(relacl)
        where oid = format('public.%I', $2)::regclass and grantee <> relowner
        union all
        select format('alter table %I.%I owner to %I', $1, $2, pg_get_userbyid(relowner))
        from pg_class
        where oid = format('public.%I', $2)::regclass and pg_get_userbyid(relowner) <> current_user";
    let mut statements: Vec<String> = sqlx::query_scalar(sql)
        .bind(schema)
        .bind(table)
        .fetch_all(&mut *conn)
        .await?;
    if !projection.is_read_by_key() {
        statements.splice(0..0, missing_indexes(conn, schema, table).await?);
    }
    for statement in statements {
        run(conn, &statement).await?;
    }
    Ok(())
}

/// What makes the indexes that the live table has and the new one has not,
/// under the same names (`like … including indexes` would invent new ones).
async fn missing_indexes(
    conn: &mut PgConnection,
    schema: &str,
    table: &str,
) -> sqlx::Result<Vec<String>> {
    let sql = "
        select replace(pg_get_indexdef(indexrelid), ' ON public.', format(' ON %I.', $1))
        from pg_index join pg_class index on index.oid = indexrelid
        where indrelid = format('public.%I', $2)::regclass
          and not exists (select from pg_constraint where conindid = indexrelid)
          and to_regclass(format('%I.%I', $1, index.relname)) is null
        order by index.relname";
    let missing = sqlx::query_scalar(sql).bind(schema).bind(table);
    missing.fetch_all(conn).await
}

/// Makes the indexes that the new tables were filled without, a few at a time.
/// What an interrupted rebuild had made is there.
pub(super) async fn create_indexes(
    pool: &PgPool,
    projection: &dyn Projection,
    schema: &str,
) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    let mut conn = pool.acquire().await?;
    for table in projection.tables() {
        missing.extend(missing_indexes(&mut conn, schema, table).await?);
    }
    drop(conn);
    if missing.is_empty() {
        return Ok(());
    }
    let missing = Mutex::new(missing);
    let create = async || -> anyhow::Result<()> {
        let mut conn = pool.acquire().await?.detach();
        run(
            &mut conn,
            &format!("set maintenance_work_mem = '{INDEX_MEMORY}'"),
        )
        .await?;
        loop {
            // Its own statement, or the lock would be held while it is carried out.
            let next = missing.lock().await.pop();
            let Some(statement) = next else { break };
            run(&mut conn, &statement).await?;
        }
        Ok(conn.close().await?)
    };
    let created = join_all((0..INDEXES_AT_A_TIME).map(|_| create())).await;
    created.into_iter().collect()
}

/// Has PostgreSQL look at what is in the new tables. Until it has, it plans as
/// if hardly a row matched a filter, and lists would read them whole after the
/// swap.
pub(super) async fn analyze(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
) -> anyhow::Result<()> {
    run(conn, &format!("analyze {}", tables_in(schema, projection))).await
}

/// Keeps vacuuming away from the live and the new tables until the transaction
/// ends: one of a large table takes minutes, and the swap could not wait for it
/// while readers wait for the swap. Who reads or folds goes on.
pub(super) async fn keep_vacuum_away(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
) -> anyhow::Result<()> {
    let mode = "share update exclusive";
    for schema in ["public", schema] {
        let tables = tables_in(schema, projection);
        lock(conn, &tables, mode, VACUUM_LOCK_TIMEOUT).await?;
    }
    Ok(())
}

pub(super) async fn replace_tables(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
) -> anyhow::Result<()> {
    let live = tables_in("public", projection);
    // All readers out before the first table goes.
    lock(conn, &live, "access exclusive", SWAP_LOCK_TIMEOUT).await?;
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

async fn lock(
    conn: &mut PgConnection,
    tables: &str,
    mode: &str,
    timeout: &str,
) -> anyhow::Result<()> {
    run(conn, &format!("set local lock_timeout = '{timeout}'")).await?;
    run(conn, &format!("lock table {tables} in {mode} mode")).await
}

/// A projection's tables, for a statement about all of them.
fn tables_in(schema: &str, projection: &dyn Projection) -> String {
    let tables = projection.tables().iter();
    let tables: Vec<_> = tables.map(|table| format!("{schema}.{table}")).collect();
    tables.join(", ")
}

pub(super) async fn run(conn: &mut PgConnection, sql: &str) -> anyhow::Result<()> {
    // Not prepared: none of these is run twice.
    // Not raw_sql: its future is not Send for every lifetime.
    sqlx::query(sql).persistent(false).execute(conn).await?;
    Ok(())
}
