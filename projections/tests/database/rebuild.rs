//! Rebuilding beside the live tables, while everybody goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use projections::engine::{BATCH_EVENTS_MAX, Difference, DifferentRow, Rebuild};
use projections::{Progress, interactions};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Executor, PgPool, Postgres};
use tokio::sync::Notify;

use crate::facts::*;
use crate::harness::*;

const NAME: &str = "interactions";

/// More events than one batch holds.
fn many_calls() -> Vec<Told> {
    (1..=500).flat_map(whole_call).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_disturbs_neither_those_who_write_nor_those_who_read() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &many_calls()).await;
    engine.settle().await.unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn({
        let (pool, over) = (database.pool.clone(), over.clone());
        async move {
            let mut reads = 0;
            while !over.load(Ordering::SeqCst) {
                let mut conn = pool.acquire().await.unwrap();
                let filter = interactions::Filter::default();
                let rows = interactions::list(&mut conn, &filter, None, 500)
                    .await
                    .unwrap();
                assert_eq!(rows.len(), 500);
                assert!(
                    interactions::detail(&mut conn, &projections::Opener::default(), "CA77")
                        .await
                        .unwrap()
                        .is_some()
                );
                reads += 1;
            }
            reads
        }
    });
    let writing = tokio::spawn({
        let (pool, over, engine) = (database.pool.clone(), over.clone(), engine.clone());
        async move {
            let mut n = 1_000;
            while !over.load(Ordering::SeqCst) {
                append(&pool, &whole_call(n)).await;
                engine.run_once(NAME).await.unwrap();
                n += 1;
            }
        }
    });
    for _ in 0..3 {
        let done = engine.rebuild(NAME, |_| ()).await.unwrap();
        assert!(matches!(done, Rebuild::Done { .. }), "{done:?}");
    }
    over.store(true, Ordering::SeqCst);
    assert!(reading.await.unwrap() > 3);
    writing.await.unwrap();

    engine.settle().await.unwrap();
    let live = dump(&database.pool).await;
    let Rebuild::Done {
        differences,
        position,
    } = engine.rebuild(NAME, |_| ()).await.unwrap()
    else {
        panic!("not rebuilt")
    };
    assert_eq!(
        (differences, position),
        (Some(vec![]), head(&database.pool).await)
    );
    assert_eq!(dump(&database.pool).await, live);
}

#[tokio::test]
async fn the_planner_knows_the_new_tables() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &many_calls()).await;
    engine.settle().await.unwrap();
    engine.rebuild(NAME, |_| ()).await.unwrap();
    let known = "select count(distinct tablename) from pg_stats
                 where schemaname = 'public' and tablename in ('interactions', 'call_details')";
    let known: i64 = sqlx::query_scalar(known)
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(known, 2);
}

#[tokio::test]
async fn what_is_rare_is_not_looked_for_in_the_whole_ledger() {
    let database = Database::create().await;
    append(&database.pool, &many_calls()).await;
    let mut conn = database.pool.acquire().await.unwrap();
    // As on a new ledger: PostgreSQL has met one type only, thousands of times.
    for sql in [
        "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version,
                             payload, metadata, delivery_id)
         select aggregate_type, aggregate_id || '-' || n, sequence, event_type, event_version,
                payload, metadata, gen_random_uuid()
         from (select * from events where event_type = 'call.completed' limit 1) as one,
              generate_series(1, 20000) as n",
        "analyze events",
        "set enable_seqscan = off",
    ] {
        sqlx::query(sql).execute(&mut *conn).await.unwrap();
    }
    let upto = head(&database.pool).await;
    let types = ["call.completed", "user.registered", "batch.requested"];
    let plan = projections::feed::explain(&mut conn, &types, upto).await;
    let plan = plan.unwrap().join("\n");
    assert!(plan.contains("using events_type on"), "{plan}");
    assert!(!plan.contains("Filter: (event_type"), "{plan}");
}

#[tokio::test]
async fn a_long_reader_delays_the_swap_and_nobody_else() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &whole_call(1)).await;
    engine.settle().await.unwrap();
    let mut reading = database.pool.acquire().await.unwrap();
    let mut long = reading.begin().await.unwrap();
    sqlx::query("select from call_details")
        .execute(&mut *long)
        .await
        .unwrap();

    let meanwhile = async {
        for n in 2..12 {
            append(&database.pool, &whole_call(n)).await;
            engine.run_once(NAME).await.unwrap();
            let mut conn = database.pool.acquire().await.unwrap();
            let begun = Instant::now();
            interactions::detail(&mut conn, &projections::Opener::default(), "conv_1")
                .await
                .unwrap()
                .unwrap();
            // Three tables, and at each it may wait behind the swap once.
            assert!(
                begun.elapsed() < Duration::from_millis(900),
                "{:?}",
                begun.elapsed()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        long.commit().await.unwrap();
    };
    let (rebuilt, ()) = tokio::join!(engine.rebuild(NAME, |_| ()), meanwhile);
    assert!(matches!(rebuilt.unwrap(), Rebuild::Done { .. }));
    engine.settle().await.unwrap();
    assert_eq!(count(&database.pool, NAME).await, 11);
}

#[tokio::test]
async fn who_vacuums_is_waited_for_and_nobody_else_waits() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &whole_call(1)).await;
    engine.settle().await.unwrap();
    let (live, new) = ("public.call_details", "rebuild_interactions.call_details");
    let vacuuming_live = vacuum(&database.pool, live).await;

    let meanwhile = async {
        is_waited_for(&database.pool, live).await;
        let vacuuming_new = vacuum(&database.pool, new).await;
        vacuumed(vacuuming_live).await;
        is_waited_for(&database.pool, new).await;
        append(&database.pool, &whole_call(2)).await;
        let folded = engine.run_once(NAME).await.unwrap();
        assert!(matches!(folded, Progress::Worked { .. }), "{folded:?}");
        assert_eq!(count(&database.pool, live).await, 2);
        vacuumed(vacuuming_new).await;
    };
    let both = async { tokio::join!(engine.rebuild(NAME, |_| ()), meanwhile) };
    let both = tokio::time::timeout(Duration::from_secs(30), both).await;
    let (rebuilt, ()) = both.expect("the swap does not wait for who vacuums");
    assert!(matches!(rebuilt.unwrap(), Rebuild::Done { .. }));
    engine.settle().await.unwrap();
    assert_eq!(count(&database.pool, NAME).await, 2);
}

/// Holds what VACUUM holds of a table, until [`vacuumed`].
async fn vacuum(pool: &PgPool, table: &str) -> PoolConnection<Postgres> {
    let mut held = pool.acquire().await.unwrap();
    let lock = format!("begin; lock table {table} in share update exclusive mode");
    held.execute(lock.as_str()).await.unwrap();
    held
}

async fn vacuumed(mut held: PoolConnection<Postgres>) {
    held.execute("commit").await.unwrap();
}

/// Returns when somebody waits until nobody vacuums a table.
async fn is_waited_for(pool: &PgPool, table: &str) {
    let sql = "select exists (select from pg_locks where not granted
                   and relation = $1::regclass and mode = 'ShareUpdateExclusiveLock')";
    while !sqlx::query_scalar::<_, bool>(sql)
        .bind(table)
        .fetch_one(pool)
        .await
        .unwrap()
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failed_rebuild_leaves_the_live_tables_as_they_were() {
    let database = Database::create().await;
    let tampered = Tampered::new(1, 0);
    let engine = tampered.engine(&database.pool);
    append(&database.pool, &many_calls()).await;
    engine.settle().await.unwrap();
    let live = dump(&database.pool).await;

    // In the second batch: the first one is already in the new tables.
    tampered.fails_in.store(2, Ordering::SeqCst);
    engine.rebuild(NAME, |_| ()).await.unwrap_err();
    assert_eq!(dump(&database.pool).await, live);
    let status = engine.statuses().await.unwrap().remove(0);
    assert!(
        status
            .rebuild
            .unwrap()
            .error
            .unwrap()
            .contains("caught fire")
    );
    assert!(
        engine.rebuilds_due().await.unwrap().is_empty(),
        "a failed one waits for a person"
    );

    engine.request_rebuild(NAME).await.unwrap();
    assert_eq!(engine.rebuilds_due().await.unwrap(), [NAME]);
    engine.rebuild(NAME, |_| ()).await.unwrap();
    assert_eq!(dump(&database.pool).await, live);
    assert!(engine.statuses().await.unwrap()[0].rebuild.is_none());
}

#[tokio::test]
async fn an_interrupted_rebuild_goes_on_where_it_was() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &many_calls()).await;
    engine.settle().await.unwrap();
    let live = dump(&database.pool).await;

    let first_batch = Notify::new();
    tokio::select! {
        _ = engine.rebuild(NAME, |_| first_batch.notify_one()) => panic!("it came to its end"),
        () = first_batch.notified() => {}
    }
    let mut reached = Vec::new();
    let again = loop {
        // The server may take a moment to notice that the other session is gone.
        match engine
            .rebuild(NAME, |progress| reached.push(progress.position))
            .await
            .unwrap()
        {
            Rebuild::HeldElsewhere => tokio::task::yield_now().await,
            done => break done,
        }
    };
    assert!(
        matches!(
            again,
            Rebuild::Done {
                position: 3_000,
                ..
            }
        ),
        "{again:?}"
    );
    assert_eq!(
        reached[0],
        2 * BATCH_EVENTS_MAX,
        "the first batch was there"
    );
    assert_eq!(dump(&database.pool).await, live);
}

#[tokio::test]
async fn only_one_rebuild_runs_at_a_time() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &many_calls()).await;
    let (one, other) = tokio::join!(engine.rebuild(NAME, |_| ()), engine.rebuild(NAME, |_| ()));
    let outcomes = [one.unwrap(), other.unwrap()];
    assert!(outcomes.contains(&Rebuild::HeldElsewhere), "{outcomes:?}");
    assert_eq!(count(&database.pool, NAME).await, 500);
}

#[tokio::test]
async fn new_code_does_not_write_into_old_rows_nor_old_code_into_new_ones() {
    let database = Database::create().await;
    let old = database.engine();
    append(&database.pool, &whole_call(1)).await;
    old.settle().await.unwrap();

    let new = Tampered::new(99, 0).engine(&database.pool);
    append(&database.pool, &whole_call(2)).await;
    assert_eq!(new.run_once(NAME).await.unwrap(), Progress::NeedsRebuild);
    assert_eq!(new.rebuilds_due().await.unwrap(), [NAME]);
    let done = new.rebuild(NAME, |_| ()).await.unwrap();
    assert_eq!(
        done,
        Rebuild::Done {
            position: 12,
            differences: None
        }
    );
    assert!(new.rebuilds_due().await.unwrap().is_empty());
    assert_eq!(new.run_once(NAME).await.unwrap(), Progress::Idle);

    append(&database.pool, &whole_call(3)).await;
    assert_eq!(old.run_once(NAME).await.unwrap(), Progress::Superseded);
    assert_eq!(
        old.rebuild(NAME, |_| ()).await.unwrap(),
        Rebuild::Superseded
    );
    assert_eq!(count(&database.pool, NAME).await, 2);
}

#[tokio::test]
async fn a_rebuild_reports_the_rows_that_somebody_changed_by_hand() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &whole_call(1)).await;
    engine.settle().await.unwrap();
    let before = dump(&database.pool).await;
    let sql = "update interactions set summary = 'mentira'";
    sqlx::query(sql).execute(&database.pool).await.unwrap();
    let Rebuild::Done { differences, .. } = engine.rebuild(NAME, |_| ()).await.unwrap() else {
        panic!("not rebuilt")
    };
    let one = Difference {
        table: NAME.into(),
        only_before: 1,
        only_after: 1,
        rows: vec![DifferentRow {
            key: "conv_1".into(),
            before: true,
            after: true,
        }],
    };
    assert_eq!(differences, Some(vec![one]));
    assert_eq!(dump(&database.pool).await, before);
}

#[tokio::test]
async fn a_rebuild_names_the_rows_that_were_lost_or_made_up() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &many_calls()).await;
    engine.settle().await.unwrap();
    for sql in [
        "delete from call_details where interaction_id = 'conv_7'",
        "insert into interaction_events values ('conv_7', 90000, 'made.up', now())",
        "update interactions set summary = 'mentira' where id > 'conv_4'",
    ] {
        sqlx::query(sql).execute(&database.pool).await.unwrap();
    }
    let Rebuild::Done { differences, .. } = engine.rebuild(NAME, |_| ()).await.unwrap() else {
        panic!("not rebuilt")
    };
    let status = engine.statuses().await.unwrap().remove(0);
    assert_eq!(status.differences, differences);
    let differences = differences.unwrap();
    let [changed, made_up, lost] = &differences[..] else {
        panic!("{differences:#?}")
    };
    assert_eq!(changed.table, "interactions");
    assert!(changed.only_before > 20 && changed.only_before == changed.only_after);
    assert_eq!(changed.rows.len(), 20);
    let row = |key: &str, before| DifferentRow {
        key: key.into(),
        before,
        after: !before,
    };
    assert_eq!(made_up.rows, [row("conv_7/90000", true)]);
    assert_eq!(lost.rows, [row("conv_7", false)]);
}

#[tokio::test]
async fn rebuilt_together_one_that_fails_does_not_keep_the_others() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &many_calls()).await;
    append(&database.pool, &[person(1)]).await;
    engine.settle().await.unwrap();
    let live = dump(&database.pool).await;
    let sql = "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
               values ('call', 'conv_1', 99, 'call.completed', '99', '{}', '{}')";
    sqlx::query(sql).execute(&database.pool).await.unwrap();
    let names: Vec<_> = engine.names().collect();
    for (name, rebuilt) in engine.rebuild_all(&names, |_| ()).await.unwrap() {
        let reads_calls = ["interactions", "batches"].contains(&name);
        assert_eq!(rebuilt.is_err(), reads_calls, "{name}: {rebuilt:?}");
    }
    assert_eq!(dump(&database.pool).await, live);
}

#[tokio::test]
async fn the_new_tables_have_the_keys_indexes_grants_and_owners_of_the_old() {
    let database = Database::create().await;
    let engine = database.engine();
    sqlx::raw_sql(
        "grant select on interactions, messages to public;
         alter table messages owner to pg_database_owner;
         alter table audit_log owner to pg_database_owner",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let sql = "
        select indexdef from pg_indexes where schemaname = 'public'
        union all select conname || pg_get_constraintdef(oid) from pg_constraint
            where connamespace = 'public'::regnamespace
        union all select relname || relacl::text from pg_class
            where relnamespace = 'public'::regnamespace and relacl is not null
        union all select relname || reloptions::text from pg_class
            where relnamespace = 'public'::regnamespace and reloptions is not null
        union all select relname || pg_get_userbyid(relowner) from pg_class
            where relnamespace = 'public'::regnamespace and relkind = 'r'
        union all select relname || attname || atttypid::regtype || attnotnull
                || coalesce(col_description(pg_class.oid, attnum), '')
            from pg_attribute join pg_class on pg_class.oid = attrelid
            where relnamespace = 'public'::regnamespace and attnum > 0 and not attisdropped
        order by 1";
    let shape = || async {
        let shape = sqlx::query_scalar(sql).fetch_all(&database.pool);
        shape.await.unwrap() as Vec<String>
    };
    let before = shape().await;
    for name in engine.names() {
        engine.rebuild(name, |_| ()).await.unwrap();
    }
    assert_eq!(shape().await, before);
}
