//! The leader that seals: one at a time, whole or not at all, and never over
//! what is wrong.

use std::sync::Arc;
use std::time::Duration;

use bitacora::config::LogKeys;
use bitacora::ledger::log::{LEAVES_MAX, Step, Turn, latest, seal};
use domain::log::{Frontier, Signer, Verifiers, note::signer_key};
use sqlx::{Connection, PgConnection, PgPool, Row};
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::{fill, seal_all, seal_some, signer, verifiers};
use crate::harness::TestApp;
use crate::harness::app::Options;
use crate::harness::postgres::fresh_database;

async fn database() -> PgPool {
    bitacora::app::connect(&fresh_database().await, 12)
        .await
        .unwrap()
}

async fn connection(pool: &PgPool) -> PgConnection {
    PgConnection::connect_with(&pool.connect_options())
        .await
        .unwrap()
}

/// Waits until what was begun on it is undone.
async fn let_go(mut conn: PgConnection) {
    conn.ping().await.unwrap();
}

/// Everything that is kept of the log.
async fn kept(pool: &PgPool) -> Vec<String> {
    let sql = "select row_to_json(log_tiles)::text as row from log_tiles
               union all select size || ' ' || encode(root, 'hex') from log_checkpoints order by 1";
    let rows = sqlx::query(sql).fetch_all(pool).await.unwrap();
    rows.iter().map(|row| row.get("row")).collect()
}

#[tokio::test]
async fn an_empty_ledger_has_no_head_and_the_first_row_makes_one() {
    let pool = database().await;
    assert_eq!(seal_some(&pool, 10).await, Turn::Nothing);
    assert_eq!(latest(&pool).await.unwrap(), None);
    fill(&pool, 1).await;
    let first = Turn::Sealed {
        leaves: 2,
        full: false,
    };
    assert_eq!(seal_some(&pool, 10).await, first);
    assert_eq!(seal_some(&pool, 10).await, Turn::Nothing);
    let head = latest(&pool).await.unwrap().unwrap();
    assert_eq!((head.size, head.events, head.deliveries), (2, 1, 1));
    assert_eq!(verifiers().open(&head.note).unwrap().root, head.root);
}

#[tokio::test]
async fn in_whatever_steps_it_was_sealed_the_tree_is_the_same_for_the_same_ranges() {
    let pool = database().await;
    let mut expected = Frontier::default();
    for count in [1, 100, 30, 256, 1_000] {
        fill(&pool, count).await;
        seal_all(&pool).await;
        let head = latest(&pool).await.unwrap().unwrap();
        let tiles: Vec<Vec<u8>> =
            sqlx::query_scalar("select data from log_tiles where level = 0 order by index")
                .fetch_all(&pool)
                .await
                .unwrap();
        let leaves = domain::log::frontier::hashes_of(&tiles.concat());
        for leaf in &leaves[usize::try_from(expected.size()).unwrap()..] {
            expected.push(*leaf, &mut |_| ());
        }
        assert_eq!((head.size, head.root), (expected.size(), expected.root()));
    }
}

#[tokio::test]
async fn a_leader_that_is_killed_leaves_nothing_behind() {
    let pool = database().await;
    fill(&pool, 300).await;
    seal_all(&pool).await;
    fill(&pool, 300).await;
    let before = kept(&pool).await;
    for step in [Step::Begin, Step::Hashed, Step::Tiled, Step::Commit] {
        let mut conn = connection(&pool).await;
        let die = |now| match now == step {
            true => Err(sqlx::Error::WorkerCrashed),
            false => Ok(()),
        };
        let died = seal(&mut conn, &signer(), &verifiers(), LEAVES_MAX, die).await;
        assert!(died.is_err(), "{step:?}");
        drop(conn);
        assert_eq!(kept(&pool).await, before, "{step:?}");
    }
    let sealed = Turn::Sealed {
        leaves: 600,
        full: false,
    };
    // The server may still be ending the dead leader's transaction.
    let mut turn = Turn::Elsewhere;
    for _ in 0..1_000 {
        turn = seal_some(&pool, LEAVES_MAX).await;
        if turn != Turn::Elsewhere {
            break;
        }
    }
    assert_eq!(turn, sealed);
}

#[tokio::test]
async fn of_two_leaders_one_seals_and_the_other_goes_away() {
    let pool = database().await;
    fill(&pool, 50).await;
    let mut first = connection(&pool).await;
    let (mut second, other) = (connection(&pool).await, signer());
    // The second tries while the first has all in hand.
    let (wait, go) = std::sync::mpsc::channel();
    let (tried, outcome) = std::sync::mpsc::channel();
    let trying = tokio::spawn(async move {
        tokio::task::spawn_blocking(move || go.recv().unwrap())
            .await
            .unwrap();
        let turn = seal(&mut second, &other, &verifiers(), LEAVES_MAX, |_| Ok(()))
            .await
            .unwrap();
        tried.send(turn).unwrap();
    });
    let leader = tokio::task::spawn_blocking(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let meanwhile = |step| {
                if step == Step::Commit {
                    wait.send(()).unwrap();
                    assert_eq!(outcome.recv().unwrap(), Turn::Elsewhere);
                }
                Ok(())
            };
            seal(&mut first, &signer(), &verifiers(), LEAVES_MAX, meanwhile)
                .await
                .unwrap()
        })
    });
    let sealed = Turn::Sealed {
        leaves: 100,
        full: false,
    };
    assert_eq!(leader.await.unwrap(), sealed);
    trying.await.unwrap();
    assert_eq!(seal_some(&pool, LEAVES_MAX).await, Turn::Nothing);
}

#[tokio::test]
async fn what_comes_while_it_is_sealed_is_sealed_once() {
    let pool = database().await;
    let (writers, rounds) = (4, 25);
    let start = Arc::new(Barrier::new(writers + 2));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writers {
        let (pool, start) = (pool.clone(), start.clone());
        tasks.spawn(async move {
            start.wait().await;
            for _ in 0..rounds {
                append(&pool).await;
            }
        });
    }
    for _ in 0..2 {
        let (pool, start) = (pool.clone(), start.clone());
        tasks.spawn(async move {
            start.wait().await;
            for _ in 0..60 {
                seal_some(&pool, 9).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    seal_all(&pool).await;
    let head = latest(&pool).await.unwrap().unwrap();
    assert_eq!((head.events, head.deliveries), (100, 0));
    let order: Vec<i64> = sqlx::query_scalar("select position from events order by 1")
        .fetch_all(&pool)
        .await
        .unwrap();
    let places = bitacora::ledger::log::places(&pool, &order, &[])
        .await
        .unwrap();
    let indexes: Vec<u64> = order
        .iter()
        .map(|position| places.events[position])
        .collect();
    assert_eq!(indexes, (0..100).collect::<Vec<u64>>());
}

/// An event on a stream of its own.
async fn append(pool: &PgPool) {
    let sql = "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
               values ('call', gen_random_uuid()::text, 1, 'call.completed', '1', '{}', '{}')";
    sqlx::query(sql).execute(pool).await.unwrap();
}

#[tokio::test]
async fn nothing_is_signed_over_tiles_that_were_changed() {
    let pool = database().await;
    fill(&pool, 10).await;
    seal_all(&pool).await;
    fill(&pool, 10).await;
    let sql = "set session_replication_role = replica;
               update log_tiles set data = overlay(data placing sha256('x') from 1)";
    sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    let mut conn = connection(&pool).await;
    let refused = seal(&mut conn, &signer(), &verifiers(), LEAVES_MAX, |_| Ok(())).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("do not lead to its last head")
    );
}

#[tokio::test]
async fn a_log_keeps_its_name_when_its_key_is_another() {
    let pool = database().await;
    fill(&pool, 1).await;
    seal_all(&pool).await;
    fill(&pool, 1).await;
    let key = signer_key("example.com/another", &[2; 32]).unwrap();
    let another = Signer::new(&key, None).unwrap();
    let mut conn = connection(&pool).await;
    let refused = seal(&mut conn, &another, &verifiers(), LEAVES_MAX, |_| Ok(())).await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("set LOG_ORIGIN"), "{why}");
    let_go(conn).await;
    let renamed = Signer::new(&key, Some("example.com/tests")).unwrap();
    // The key before it is still known, or its heads are nobody's.
    for (known, succeeds) in [(Verifiers::default(), false), (verifiers(), true)] {
        let mut conn = connection(&pool).await;
        let turn = seal(&mut conn, &renamed, &known, LEAVES_MAX, |_| Ok(())).await;
        assert_eq!(turn.is_ok(), succeeds, "{turn:?}");
        let_go(conn).await;
    }
    let head = latest(&pool).await.unwrap().unwrap();
    assert_eq!(head.note.lines().next(), Some("example.com/tests"));
}

#[tokio::test]
async fn heads_are_not_changed_and_tiles_only_grow() {
    let pool = database().await;
    fill(&pool, 10).await;
    seal_all(&pool).await;
    for sql in [
        "update log_checkpoints set note = ''",
        "delete from log_checkpoints",
        "truncate log_checkpoints",
        "delete from log_tiles",
        "truncate log_tiles",
        "update log_tiles set data = substring(data for 32)",
        "update log_tiles set index = 1",
    ] {
        assert!(sqlx::query(sql).execute(&pool).await.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn the_service_seals_by_itself_turn_after_turn() {
    let options = Options {
        config: |config| {
            config.log = LogKeys {
                signer: Some(signer()),
                verifiers: verifiers(),
            };
            config.seal_every = Duration::from_millis(10);
        },
        ..Options::default()
    };
    let app = TestApp::with(options).await;
    for leaves in [10, 20] {
        fill(&app.pool, 5).await;
        let is_sealed = async || {
            let head = latest(&app.pool).await.unwrap();
            head.is_some_and(|head| head.size == leaves)
        };
        let sealed = async {
            while !is_sealed().await {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), sealed)
            .await
            .expect("nothing is sealed");
    }
    app.stop().await;
}
