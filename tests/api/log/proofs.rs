//! What the API proves, checked by the forms' own words.

use bitacora::ledger::log::{latest, places};
use domain::log::line::{DeliveryLine, EventLine};
use domain::log::note::Head;
use domain::log::{Hash, Proof};
use serde_json::Value;
use sqlx::PgPool;
use tlog_tiles::{check_tree, record_hash};
use uuid::Uuid;

use super::{app, fill, refused, seal_all, seal_some, verifiers};
use crate::harness::TestApp;
use crate::harness::app::{answer, ok};

/// An event as a stranger reads it, by text.
pub(super) async fn event(pool: &PgPool, position: i64) -> EventLine {
    let row: Value = sqlx::query_scalar(
        "select json_build_object('position', position, 'aggregate_type', aggregate_type,
            'aggregate_id', aggregate_id, 'sequence', sequence, 'event_type', event_type,
            'event_version', event_version, 'payload', payload::text, 'metadata', metadata::text,
            'occurred_at', occurred_at, 'recorded_at', recorded_at, 'delivery_id', delivery_id)
           from events where position = $1",
    )
    .bind(position)
    .fetch_one(pool)
    .await
    .unwrap();
    serde_json::from_value(row).unwrap()
}

pub(super) async fn delivery(pool: &PgPool, id: Uuid) -> DeliveryLine {
    let row: Value = sqlx::query_scalar(
        "select json_build_object('id', id, 'seq', seq, 'provider', provider, 'route', route,
            'verdict', verdict, 'reason', reason, 'authentication', authentication,
            'dedup_key', translate(encode(dedup_key, 'base64'), E'\\n', ''),
            'repeat_key', translate(encode(repeat_key, 'base64'), E'\\n', ''),
            'duplicate_of', duplicate_of, 'reprocess_of', reprocess_of, 'position', position,
            'received_at', received_at, 'remote_addr', remote_addr, 'request_target', request_target,
            'headers', headers::text, 'body', translate(encode(body, 'base64'), E'\\n', ''),
            'body_bytes', body_bytes)
           from deliveries where id = $1",
    )
    .bind(id)
    .fetch_one(pool)
    .await
    .unwrap();
    serde_json::from_value(row).unwrap()
}

pub(super) async fn proof(app: &TestApp, path: &str) -> Proof {
    let text = ok(app.get_as("auditor", path)).await;
    Proof::read(text.as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn every_event_and_delivery_is_proved() {
    let app = app().await;
    seal_some(&app.pool, 7).await;
    seal_all(&app.pool).await;
    let positions: Vec<i64> = sqlx::query_scalar("select position from events order by 1")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from deliveries order by seq")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    let mut indexes = Vec::new();
    for position in &positions {
        let proof = proof(&app, &format!("/api/ledger/events/{position}/proof")).await;
        let leaf = event(&app.pool, *position).await.leaf().hash();
        let head = proof.verify(&verifiers(), leaf).unwrap();
        assert_eq!(head.size, (positions.len() + ids.len()) as u64);
        indexes.push(proof.index);
    }
    for id in &ids {
        let proof = proof(&app, &format!("/api/deliveries/{id}/proof")).await;
        let line = delivery(&app.pool, *id).await;
        proof.verify(&verifiers(), line.leaf().hash()).unwrap();
        assert_eq!(record_hash(&proof.entry.unwrap()), line.leaf().hash());
        indexes.push(proof.index);
    }
    // Each leaf is one row's, and none is nobody's.
    indexes.sort_unstable();
    let all: Vec<u64> = (0..indexes.len() as u64).collect();
    assert_eq!(indexes, all);
    app.stop().await;
}

#[tokio::test]
async fn an_interaction_is_proved_with_the_deliveries_that_told_of_it() {
    let app = app().await;
    seal_all(&app.pool).await;
    app.settle().await;
    let row: (String, i64, Option<Uuid>) = sqlx::query_as(
        "select interaction_id, position, delivery_id from interaction_events join events using (position)
          where delivery_id is not null order by position limit 1",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    let (id, position, delivery_id) = (row.0, row.1, row.2.unwrap());
    let told = app.read(&format!("/api/interactions/{id}/proof")).await;
    let rows = told["data"]["rows"].as_array().unwrap();
    let of = |kind: &str, id: &str| {
        let row = rows
            .iter()
            .find(|row| row["kind"] == kind && row["id"] == id);
        Proof::read(row.unwrap()["proof"].as_str().unwrap()).unwrap()
    };
    let event = event(&app.pool, position).await;
    let delivery = delivery(&app.pool, delivery_id).await;
    let proof = of("event", &position.to_string());
    proof.verify(&verifiers(), event.leaf().hash()).unwrap();
    assert_eq!(
        proof.checkpoint,
        told["data"]["checkpoint"].as_str().unwrap()
    );
    let proof = of("delivery", &delivery_id.to_string());
    proof.verify(&verifiers(), delivery.leaf().hash()).unwrap();
    refused(
        app.get_as("auditor", "/api/interactions/nobody/proof"),
        404,
        "not_found",
    )
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_head_is_found_by_its_time_and_begins_with_every_earlier_one() {
    let app = app().await;
    let (status, _) = answer(app.get_as("auditor", "/api/ledger/checkpoint")).await;
    assert_eq!(status, 404);
    seal_some(&app.pool, 5).await;
    seal_some(&app.pool, 6).await;
    fill(&app.pool, 300).await;
    seal_all(&app.pool).await;
    let listed = app.read("/api/ledger/checkpoints?limit=2").await;
    let cursor = listed["next_cursor"].as_str().unwrap();
    let more = app
        .read(&format!("/api/ledger/checkpoints?cursor={cursor}"))
        .await;
    let mut all = listed["data"].as_array().unwrap().clone();
    all.extend(more["data"].as_array().unwrap().clone());
    assert_eq!(all.len(), 3);
    let last = ok(app.get_as("auditor", "/api/ledger/checkpoint")).await;
    assert_eq!(last, all[0]["checkpoint"]);
    let head = verifiers().open(last.as_str().unwrap()).unwrap();
    for checkpoint in &all {
        let at = checkpoint["sealed_at"].as_str().unwrap();
        let then = ok(app.get_as("auditor", &format!("/api/ledger/checkpoint?at={at}"))).await;
        assert_eq!(then, checkpoint["checkpoint"]);
        let old = Head::read(then.as_str().unwrap()).unwrap();
        let path = format!("/api/ledger/consistency?from={}", old.size);
        let told = app.read(&path).await;
        let hashes = told["data"]["proof"].as_array().unwrap().iter();
        let proof: Vec<Hash> = hashes
            .map(|hash| Hash::parse_hash(hash.as_str().unwrap()).unwrap())
            .collect();
        check_tree(&proof, head.size, head.root, old.size, old.root).unwrap();
    }
    let log = app.read("/api/ledger/log").await;
    assert_eq!(log["data"]["verifier_keys"][0], verifiers().keys()[0]);
    assert_eq!(log["data"]["latest"]["size"], head.size);
    app.stop().await;
}

#[tokio::test]
async fn what_is_not_sealed_yet_is_not_proved() {
    let app = app().await;
    seal_some(&app.pool, 3).await;
    let last: i64 = app.count("select max(position) from events").await;
    let path = format!("/api/ledger/events/{last}/proof");
    refused(app.get_as("auditor", &path), 409, "not_sealed").await;
    seal_all(&app.pool).await;
    proof(&app, &path).await;
    // An older head does not cover it either.
    let first = app.count("select min(size) from log_checkpoints").await;
    let older = format!("{path}?size={first}");
    refused(app.get_as("auditor", &older), 409, "not_sealed").await;
    refused(
        app.get_as("auditor", &format!("{path}?size=1")),
        404,
        "not_found",
    )
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_row_that_was_changed_is_not_proved() {
    let app = app().await;
    seal_all(&app.pool).await;
    let sql = "set session_replication_role = replica; update events set payload = '{}' where position = 2";
    sqlx::raw_sql(sql).execute(&app.pool).await.unwrap();
    let path = "/api/ledger/events/2/proof";
    refused(app.get_as("auditor", path), 409, "ledger_damaged").await;
    proof(&app, "/api/ledger/events/1/proof").await;
    app.stop().await;
}

#[tokio::test]
async fn proofs_are_for_auditors() {
    let app = app().await;
    seal_all(&app.pool).await;
    let id: Uuid = sqlx::query_scalar("select id from deliveries limit 1")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    for path in [
        "/api/ledger/checkpoint".to_owned(),
        "/api/ledger/checkpoints".to_owned(),
        "/api/ledger/log".to_owned(),
        "/api/ledger/consistency?from=1".to_owned(),
        "/api/ledger/events/1/proof".to_owned(),
        format!("/api/deliveries/{id}/proof"),
        "/api/interactions/x/proof".to_owned(),
        "/tlog/tile/entries/000.p/1".to_owned(),
    ] {
        refused(app.get_as("nobody", &path), 401, "unauthorized").await;
        for role in ["service", "agent", "supervisor"] {
            refused(app.get_as(role, &path), 403, "forbidden").await;
        }
    }
    app.stop().await;
}

/// A tile or a bundle.
async fn file(app: &TestApp, path: &str) -> Vec<u8> {
    let answer = app.get_as("auditor", path).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn the_static_files_are_those_of_a_tiled_log() {
    let app = app().await;
    seal_some(&app.pool, 4).await;
    seal_all(&app.pool).await;
    fill(&app.pool, 200).await;
    seal_all(&app.pool).await;
    let size = latest(&app.pool).await.unwrap().unwrap().size;
    assert!((257..512).contains(&size));
    let head = app.client.get(format!("{}/tlog/checkpoint", app.url));
    let head = ok(head).await;
    assert_eq!(verifiers().open(head.as_str().unwrap()).unwrap().size, size);
    let rest = size - 256;
    let mut hashes = file(&app, "/tlog/tile/0/000").await;
    hashes.extend(file(&app, &format!("/tlog/tile/0/001.p/{rest}")).await);
    let mut entries = file(&app, "/tlog/tile/entries/000").await;
    entries.extend(file(&app, &format!("/tlog/tile/entries/001.p/{rest}")).await);
    let (mut left, mut leaves) = (entries.as_slice(), Vec::new());
    while let Some((length, behind)) = left.split_first_chunk() {
        let (entry, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
        leaves.extend(record_hash(entry).0);
        left = behind;
    }
    assert_eq!(leaves, hashes);
    assert_eq!(hashes.len() as u64, size * 32);
    let above = file(&app, "/tlog/tile/1/000.p/1").await;
    assert_eq!(above, tlog_tiles::Tile::subtree_hash(&hashes[..256 * 32]).0);
    // A smaller tile of an older head is there for ever.
    assert_eq!(file(&app, "/tlog/tile/0/000.p/5").await, hashes[..5 * 32]);
    for path in [
        "/tlog/tile/0/002",
        "/tlog/tile/0/001",
        "/tlog/tile/0/001.p/255",
        "/tlog/tile/1/000",
        "/tlog/tile/1/000.p/2",
        "/tlog/tile/2/000.p/1",
        "/tlog/tile/0/000.p/0",
        "/tlog/tile/8/000.p/1",
        "/tlog/tile/0/0",
        "/tlog/tile/data/000",
        "/tlog/tile/x",
        "/tlog/tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        let (status, _) = answer(app.get_as("auditor", path)).await;
        assert_eq!(status, 404, "{path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn leaves_are_found_in_whatever_ranges_they_were_sealed() {
    let app = app().await;
    fill(&app.pool, 40).await;
    while let bitacora::ledger::log::Turn::Sealed { .. } = seal_some(&app.pool, 3).await {}
    let positions: Vec<i64> = sqlx::query_scalar("select position from events order by 1")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from deliveries order by seq")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    let found = places(&app.pool, &positions, &ids).await.unwrap();
    assert_eq!(found.events.len(), positions.len());
    assert_eq!(found.deliveries.len(), ids.len());
    let tile = file(&app, "/tlog/tile/0/000.p/100").await;
    for position in positions {
        let index = usize::try_from(found.events[&position]).unwrap();
        if let Some(kept) = tile.get(index * 32..index * 32 + 32) {
            assert_eq!(event(&app.pool, position).await.leaf().hash().0, kept);
        }
    }
    app.stop().await;
}
