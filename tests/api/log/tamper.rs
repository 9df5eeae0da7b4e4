//! What `bitacora verify` says when a superuser has been at the ledger.

use bitacora::ledger::log::{Finding, Outside, Report, RowName, latest, verify};
use domain::log::note::signer_key;
use domain::log::{Frontier, Signer};
use sqlx::PgPool;
use uuid::Uuid;

use super::{fill, key, seal_all, seal_some, signer, verifiers};
use crate::harness::postgres::fresh_database;
use crate::harness::program;

/// Does what no trigger allows, and leaves none out.
async fn tamper(pool: &PgPool, sql: &str) {
    let sql = format!(
        "set session_replication_role = replica; {sql}; set session_replication_role = origin"
    );
    sqlx::raw_sql(&sql).execute(pool).await.unwrap();
}

/// A ledger of 100 events and 100 deliveries under several heads. The second
/// range has events 31 to 60.
async fn ledger() -> PgPool {
    let pool = bitacora::app::connect(&fresh_database().await, 12)
        .await
        .unwrap();
    fill(&pool, 100).await;
    for _ in 0..4 {
        seal_some(&pool, 30).await;
    }
    pool
}

/// The last head, as somebody keeps it outside.
async fn outside(pool: &PgPool, name: &str) -> Outside {
    let note = latest(pool).await.unwrap().unwrap().note;
    let head = verifiers().open(&note).unwrap();
    Outside {
        name: name.to_owned(),
        head,
    }
}

async fn checked(pool: &PgPool, outside: &[Outside]) -> Report {
    verify(pool, &verifiers(), outside, |_, _| ())
        .await
        .unwrap()
}

async fn found(pool: &PgPool) -> Finding {
    checked(pool, &[]).await.finding.expect("nothing was found")
}

async fn delivery(pool: &PgPool, seq: i64) -> RowName {
    let id: Uuid = sqlx::query_scalar("select id from deliveries where seq = $1")
        .bind(seq)
        .fetch_one(pool)
        .await
        .unwrap();
    RowName::Delivery(seq, id)
}

/// All tiles and heads anew, from the rows as they are now, signed by whoever
/// has this key.
async fn seal_anew(pool: &PgPool, signer: &Signer) {
    tamper(pool, "delete from log_checkpoints; delete from log_tiles").await;
    let mut conn = pool.acquire().await.unwrap();
    bitacora::ledger::log::seal(&mut conn, signer, &verifiers(), 30_000, |_| Ok(()))
        .await
        .unwrap();
}

fn thief() -> Signer {
    Signer::new(&signer_key("example.com/tests", &[66; 32]).unwrap(), None).unwrap()
}

#[tokio::test]
async fn a_ledger_that_nobody_touched_is_as_it_was_sealed() {
    let pool = ledger().await;
    let early = outside(&pool, "early").await;
    fill(&pool, 700).await;
    seal_all(&pool).await;
    fill(&pool, 2).await;
    let late = outside(&pool, "late").await;
    let mut told = Vec::new();
    let report = verify(&pool, &verifiers(), &[late, early], |done, of| {
        told.push((done, of))
    })
    .await
    .unwrap();
    let expected = Report {
        leaves: 1600,
        events: 800,
        deliveries: 800,
        heads: 5,
        confirmed: vec!["early".to_owned(), "late".to_owned()],
        unsealed: 4,
        finding: None,
    };
    assert_eq!(report, expected);
    assert_eq!(told.last(), Some(&(1600, 1600)));
}

#[tokio::test]
async fn a_row_that_was_changed_in_any_column_is_named() {
    let pool = ledger().await;
    for change in [
        "payload = '{\"n\": 1000}'",
        "payload = '{\"n\" :42}'",
        "metadata = '{\"actor\":\"nobody\"}'",
        "event_type = 'call.failed'",
        "event_version = '2'",
        "aggregate_id = 'another'",
        "aggregate_type = 'chat'",
        "sequence = 9",
        "occurred_at = now()",
        "recorded_at = recorded_at + interval '1 microsecond'",
        "delivery_id = gen_random_uuid()",
    ] {
        let kept = "create temp table kept as select * from events where position = 42";
        let back = "delete from events where position = 42; insert into events overriding system value select * from kept; drop table kept";
        let mut conn = pool.acquire().await.unwrap();
        let sql = format!(
            "set session_replication_role = replica; {kept}; update events set {change} where position = 42"
        );
        sqlx::raw_sql(&sql).execute(&mut *conn).await.unwrap();
        let expected = Finding::Changed {
            row: RowName::Event(42),
            leaf: 71,
        };
        assert_eq!(found(&pool).await, expected, "{change}");
        sqlx::raw_sql(back).execute(&mut *conn).await.unwrap();
        assert_eq!(checked(&pool, &[]).await.finding, None, "{change}");
        sqlx::raw_sql("set session_replication_role = origin")
            .execute(&mut *conn)
            .await
            .unwrap();
    }
    for change in [
        "body = 'x'",
        "body = null",
        "headers = '{\"a\":\"b\"}'",
        "verdict = 'rejected'",
        "reason = ''",
        "remote_addr = '10.0.0.1'",
        "request_target = '/x'",
        "received_at = now()",
        "dedup_key = 'x'",
        "repeat_key = 'x'",
        "duplicate_of = gen_random_uuid()",
        "reprocess_of = gen_random_uuid()",
        "position = 1",
        "authentication = 'none'",
        "provider = 'builderbot'",
        "route = 'x'",
        "body_bytes = 0",
    ] {
        let pool = ledger().await;
        tamper(
            &pool,
            &format!("update deliveries set {change} where seq = 7"),
        )
        .await;
        let row = delivery(&pool, 7).await;
        assert_eq!(
            found(&pool).await,
            Finding::Changed { row, leaf: 36 },
            "{change}"
        );
    }
}

#[tokio::test]
async fn a_row_that_was_removed_is_named_by_its_neighbours() {
    let pool = ledger().await;
    tamper(&pool, "delete from events where position = 42").await;
    let finding = found(&pool).await;
    let (after, before) = (Some(RowName::Event(41)), Some(RowName::Event(43)));
    let expected = Finding::Removed {
        is_event: true,
        leaf: 71,
        after,
        before,
    };
    assert_eq!(finding, expected);
    assert_eq!(finding.to_string(), "event 42 was removed (leaf 71)");

    let pool = ledger().await;
    tamper(&pool, "delete from deliveries where seq = 7").await;
    let (after, before) = (
        Some(delivery(&pool, 6).await),
        Some(delivery(&pool, 8).await),
    );
    let expected = Finding::Removed {
        is_event: false,
        leaf: 36,
        after,
        before,
    };
    assert_eq!(found(&pool).await, expected);
}

#[tokio::test]
async fn the_end_of_the_ledger_is_missed() {
    let pool = ledger().await;
    tamper(&pool, "delete from events where position > 95").await;
    let after = Some(RowName::Event(95));
    let expected = Finding::Removed {
        is_event: true,
        leaf: 185,
        after,
        before: None,
    };
    assert_eq!(found(&pool).await, expected);

    // With tiles and heads: only who kept a head outside can tell.
    let pool = ledger().await;
    let kept = outside(&pool, "kept.txt").await;
    let cut = "delete from events where position > 90; delete from deliveries where seq > 90;
               delete from log_checkpoints where size > 180;
               update log_tiles set data = substring(data for 180 * 32) where level = 0";
    tamper(&pool, cut).await;
    assert_eq!(checked(&pool, &[]).await.finding, None);
    let expected = Finding::Cut {
        checkpoint: "kept.txt".to_owned(),
        size: 200,
        kept: 180,
    };
    assert_eq!(
        checked(&pool, &[kept.clone()]).await.finding,
        Some(expected)
    );
    // Even of all of it.
    tamper(&pool, "delete from events; delete from deliveries; delete from log_tiles; delete from log_checkpoints").await;
    let expected = Finding::Cut {
        checkpoint: "kept.txt".to_owned(),
        size: 200,
        kept: 0,
    };
    assert_eq!(checked(&pool, &[kept]).await.finding, Some(expected));
}

#[tokio::test]
async fn a_row_that_was_inserted_is_named() {
    let pool = ledger().await;
    tamper(&pool, "delete from events where position = 100").await;
    // A gap, as a transaction that failed leaves one.
    seal_anew(&pool, &signer()).await;
    tamper(&pool, "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, position)
                   overriding system value values ('call', 'late', 1, 'call.completed', '1', '{}', '{}', -5)").await;
    let expected = Finding::Inserted {
        row: RowName::Event(-5),
        leaf: 0,
    };
    assert_eq!(found(&pool).await, expected);

    let pool = ledger().await;
    let shift = "update events set position = position + 1000 where position > 50;
                 insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, position)
                 overriding system value values ('call', 'late', 1, 'call.completed', '1', '{}', '{}', 51);
                 update events set position = position - 999 where position > 1000";
    tamper(&pool, shift).await;
    let finding = found(&pool).await;
    // The first row that is not what was sealed is the new one.
    assert!(
        matches!(
            finding,
            Finding::Reordered {
                stood: RowName::Event(51),
                leaf: 80,
                ..
            } | Finding::Inserted {
                row: RowName::Event(51),
                leaf: 80
            } | Finding::Changed {
                row: RowName::Event(51),
                leaf: 80
            }
        ),
        "{finding:?}"
    );

    let pool = ledger().await;
    tamper(&pool, "insert into deliveries (id, seq, provider, route, verdict, authentication, received_at, request_target, headers, body_bytes)
                   overriding system value values (gen_random_uuid(), 0, 'twilio', 'x', 'accepted', 'none', now(), '/', '{}', 0)").await;
    let row = delivery(&pool, 0).await;
    assert_eq!(found(&pool).await, Finding::Inserted { row, leaf: 30 });
}

#[tokio::test]
async fn rows_that_changed_places_are_named() {
    let pool = ledger().await;
    let swap = "update events set position = -1 where position = 42;
                update events set position = 42 where position = 55;
                update events set position = 55 where position = -1";
    tamper(&pool, swap).await;
    let expected = Finding::Reordered {
        row: RowName::Event(55),
        stood: RowName::Event(42),
        leaf: 71,
    };
    assert_eq!(found(&pool).await, expected);

    let pool = ledger().await;
    let swap = "update deliveries set seq = -1 where seq = 40;
                update deliveries set seq = 40 where seq = 41;
                update deliveries set seq = 41 where seq = -1";
    tamper(&pool, swap).await;
    let expected = Finding::Reordered {
        row: delivery(&pool, 41).await,
        stood: delivery(&pool, 40).await,
        leaf: 99,
    };
    assert_eq!(found(&pool).await, expected);

    // In their stream only.
    let pool = ledger().await;
    tamper(
        &pool,
        "update events set aggregate_id = 'one', sequence = position where position in (42, 43)",
    )
    .await;
    seal_anew(&pool, &signer()).await;
    let swap = "update events set sequence = 44 where position = 42;
                update events set sequence = 42 where position = 43;
                update events set sequence = 43 where position = 42";
    tamper(&pool, swap).await;
    let finding = found(&pool).await;
    assert!(
        matches!(
            finding,
            Finding::Reordered {
                stood: RowName::Event(42),
                ..
            }
        ),
        "{finding:?}"
    );
}

#[tokio::test]
async fn a_head_that_was_signed_again_is_named() {
    let change = "update events set payload = '{}' where position = 42";
    // By somebody else's key.
    let pool = ledger().await;
    let kept = outside(&pool, "kept.txt").await;
    tamper(&pool, change).await;
    seal_anew(&pool, &thief()).await;
    let finding = found(&pool).await;
    assert!(
        matches!(
            finding,
            Finding::Forged {
                size: 200,
                begin: 0,
                ..
            }
        ),
        "{finding:?}"
    );

    // By our own: all is well here, but not outside.
    let pool = ledger().await;
    tamper(&pool, change).await;
    seal_anew(&pool, &signer()).await;
    assert_eq!(checked(&pool, &[]).await.finding, None);
    let expected = Finding::Rewritten {
        checkpoint: "kept.txt".to_owned(),
        begin: 0,
        end: 200,
    };
    assert_eq!(checked(&pool, &[kept]).await.finding, Some(expected));
}

#[tokio::test]
async fn of_several_heads_from_outside_the_range_between_two_is_named() {
    let pool = ledger().await;
    let early = outside(&pool, "early").await;
    fill(&pool, 50).await;
    seal_all(&pool).await;
    let late = outside(&pool, "late").await;
    tamper(&pool, "update deliveries set body = 'x' where seq = 140").await;
    // The rows of the first heads are sealed anew as they were.
    tamper(&pool, "delete from log_checkpoints; delete from log_tiles").await;
    for most in [30, 30, 30, 10, 30_000] {
        seal_some(&pool, most).await;
    }
    let report = checked(&pool, &[late, early]).await;
    assert_eq!(report.confirmed, ["early"]);
    let expected = Finding::Rewritten {
        checkpoint: "late".to_owned(),
        begin: 200,
        end: 300,
    };
    assert_eq!(report.finding, Some(expected));
}

#[tokio::test]
async fn heads_and_tiles_that_were_changed_are_told_from_rows() {
    for (change, expected) in [
        ("update log_tiles set data = overlay(data placing sha256('x') from 33) where level = 0", Finding::Tile { level: 0, index: 0 }),
        ("update log_tiles set data = substring(data for 640) where level = 0", Finding::Tile { level: 0, index: 0 }),
        ("delete from log_tiles where level = 0", Finding::Tile { level: 0, index: 0 }),
        ("update events set payload = '{}' where position = 42;
          update log_tiles set data = overlay(data placing sha256('x') from 71 * 32 + 1) where level = 0", Finding::Range { begin: 60, end: 120 }),
    ] {
        let pool = ledger().await;
        tamper(&pool, change).await;
        assert_eq!(found(&pool).await, expected, "{change}");
    }
    for change in [
        "update log_checkpoints set root = sha256('x') where size = 120",
        "update log_checkpoints set note = replace(note, 'example', 'other') where size = 120",
        "update log_checkpoints set note = (select note from log_checkpoints where size = 60) where size = 120",
        "update log_checkpoints set note = '' where size = 120",
    ] {
        let pool = ledger().await;
        tamper(&pool, change).await;
        let finding = found(&pool).await;
        assert!(
            matches!(
                finding,
                Finding::Forged {
                    size: 120,
                    begin: 60,
                    ..
                }
            ),
            "{change}: {finding:?}"
        );
    }
    let pool = ledger().await;
    fill(&pool, 300).await;
    seal_all(&pool).await;
    tamper(
        &pool,
        "update log_tiles set data = sha256('x') || substring(data from 33) where level = 1",
    )
    .await;
    assert_eq!(found(&pool).await, Finding::Tile { level: 1, index: 0 });
    tamper(&pool, "delete from log_tiles where level = 1").await;
    assert_eq!(found(&pool).await, Finding::Tile { level: 1, index: 0 });
}

#[tokio::test]
async fn the_command_says_it_and_ends_with_3() {
    let url = fresh_database().await;
    let pool = bitacora::app::connect(&url, 4).await.unwrap();
    fill(&pool, 10).await;
    seal_all(&pool).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("checkpoint.txt");
    std::fs::write(&file, latest(&pool).await.unwrap().unwrap().note).unwrap();
    let file = file.to_str().unwrap();
    let signing = key();
    let verifying = verifiers().keys()[0].clone();
    let with_key = [
        ("DATABASE_URL", url.as_str()),
        ("LOG_VERIFIER_KEYS", &verifying),
    ];
    let args = ["verify", "--checkpoint", file];

    let ended = program::run(&args, &with_key, "").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("20 leaves are as they were sealed"),
        "{ended:?}"
    );
    assert!(
        ended.stdout.contains("all that it covers is here"),
        "{ended:?}"
    );
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("LOG_SIGNING_KEY", &signing),
    ];
    assert_eq!(program::run(&args, &settings, "").await.code, Some(0));

    let without = program::run(&["verify"], &with_key[..1], "").await;
    assert_eq!(without.code, Some(78), "{without:?}");
    let thiefs = thief().verifier_key().to_owned();
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("LOG_VERIFIER_KEYS", &thiefs),
    ];
    let unknown = program::run(&args, &settings, "").await;
    assert_eq!(unknown.code, Some(3), "{unknown:?}");

    tamper(&pool, "update events set payload = '{}' where position = 4").await;
    let ended = program::run(&args, &with_key, "").await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("NOT AS SEALED: event 4 was changed (leaf 3)"),
        "{ended:?}"
    );
}
