//! Rebuilding under load: reads, ingest and live folding go on.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::Connection;

use crate::harness::TestApp;
use crate::harness::app::ok;
use crate::harness::read_models::assert_equal_a_rebuild;
use crate::ingest::call;

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn send(app: &TestApp, prefix: &str, count: usize) {
    let webhooks = (0..count)
        .map(|n| ok(app.elevenlabs(call(&format!("{prefix}{n}"), 1_763_000_000 + n as i64))));
    for answer in join_all(webhooks).await {
        assert_eq!(answer["status"], "accepted");
    }
}

/// How the replay of the interactions stands.
async fn replay(app: &TestApp) -> serde_json::Value {
    let all = ok(app.get_as("admin", "/api/projections")).await;
    let all = all["data"].as_array().unwrap();
    let found = all.iter().find(|it| it["name"] == "interactions");
    found.unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_rebuild_everything_goes_on() {
    let app = TestApp::start().await;
    send(&app, "conv_before", 200).await;
    app.settle().await;

    // A reader keeps the rebuild from its last step for as long as it reads.
    let mut reader = app.pool.acquire().await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("select from interactions limit 1")
        .execute(&mut *reading)
        .await
        .unwrap();
    let order = app.post_as("admin", "/api/projections/interactions/replay", &json!({}));
    assert_eq!(order.send().await.unwrap().status(), 202);

    let mut turns = tokio::time::interval(Duration::from_millis(10));
    let filled = async {
        let sql =
            "select coalesce(to_regclass('rebuild_interactions.interactions') is not null, false)";
        while !sqlx::query_scalar::<_, bool>(sql)
            .fetch_one(&app.pool)
            .await
            .unwrap()
        {
            turns.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, filled).await.unwrap();
    for round in 0..5 {
        send(&app, &format!("conv_during{round}_"), 40).await;
        // What came is folded into the tables that are read.
        app.settle().await;
        let detail = app
            .read(&format!("/api/interactions/conv_during{round}_7"))
            .await;
        assert_eq!(detail["data"]["status"], "completed");
        let list = app.read("/api/interactions?limit=200").await;
        assert_eq!(list["data"].as_array().map(Vec::len), Some(200));
        assert!(!replay(&app).await["replay"].is_null(), "it is under way");
    }
    reading.rollback().await.unwrap();
    // A service that stops waits for every connection.
    drop(reader);

    let swapped = async {
        loop {
            let it = replay(&app).await;
            if it["replay"].is_null() {
                return it;
            }
            turns.tick().await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, swapped).await.unwrap();
    assert_eq!(done["differences"], json!([]), "{done}");
    send(&app, "conv_after", 10).await;
    app.settle().await;
    assert_eq!(app.count("select count(*) from interactions").await, 410);
    assert_equal_a_rebuild(&app.pool).await;
    app.stop().await;
}
