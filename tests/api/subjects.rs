//! All that is held of a person.

use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::app::{answer, ok};
use crate::interactions::send_everything;

const CLIENT: &str = "+5491133334444";

#[tokio::test]
async fn a_person_gets_all_that_is_held_of_them_and_nothing_of_others() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    app.settle().await;
    let path = "/api/subjects/%2B5491133334444/export";
    let all = ok(app.get_as("admin", path)).await;
    assert_eq!(all["phone_number"], CLIENT);
    let count = |name: &str| all[name].as_array().map(Vec::len);
    let key = app.app().phone_index.key(CLIENT);
    for (name, sql) in [
        (
            "interactions",
            "select count(*) from interactions where phone_key = $1",
        ),
        (
            "otp_challenges",
            "select count(*) from otp_challenges where phone_key = $1",
        ),
        (
            "group_clients",
            "select count(*) from group_clients where phone_key = $1",
        ),
        (
            "conversation_state",
            "select count(*) from conversation_state where phone_key = $1",
        ),
    ] {
        let there: i64 = sqlx::query_scalar(sql)
            .bind(&key)
            .fetch_one(&app.pool)
            .await
            .unwrap();
        assert_eq!(count(name), Some(there as usize), "{name}");
    }
    for name in ["interactions", "conversation_messages", "deliveries"] {
        assert!(count(name) > Some(0), "{name}: {all}");
    }
    for row in all["interactions"].as_array().unwrap() {
        assert_eq!(row["interaction"]["phone_number"], CLIENT);
    }
    let others = "select phone_number from interactions where phone_number <> $1";
    let others: Vec<String> = sqlx::query_scalar(others)
        .bind(CLIENT)
        .fetch_all(&app.pool)
        .await
        .unwrap();
    assert!(!others.is_empty());
    let told = all["interactions"].to_string();
    assert!(!others.iter().any(|other| told.contains(other)));

    let nobody = ok(app.get_as("auditor", "/api/subjects/573009998877/export")).await;
    assert_eq!(nobody["interactions"], json!([]));
    assert_eq!(nobody["deliveries"], json!([]));
    for (role, status) in [
        ("agent", 403),
        ("supervisor", 403),
        ("service", 403),
        ("nobody", 401),
    ] {
        assert_eq!(answer(app.get_as(role, path)).await.0, status, "{role}");
    }
    let wrong = answer(app.get_as("admin", "/api/subjects/ana/export")).await;
    assert_eq!(wrong.0, 400, "{wrong:?}");
    app.settle().await;
    let sql = "select target || ' ' || outcome from audit_log where action = 'export_subject' order by position";
    let told: Vec<String> = sqlx::query_scalar(sql).fetch_all(&app.pool).await.unwrap();
    let expected = |outcome: &str| format!("subject:{key} {outcome}");
    assert_eq!(told[..2], [expected("begun"), expected("ok")]);
    assert_eq!(told[4..], ["forbidden"; 3].map(expected));
    let told: Value = json!(told);
    assert!(!told.to_string().contains("549113333"));
    app.stop().await;
}
