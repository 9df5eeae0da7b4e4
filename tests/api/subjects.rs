//! All that is held of a person.

use std::collections::BTreeSet;

use bitacora::providers::Webhook;
use chrono::Duration;
use serde_json::{Value, json};

use crate::erasure::{EVA, Person, ZOE};
use crate::harness::TestApp;
use crate::harness::app::{answer, ok};
use crate::interactions::send_everything;
use crate::reprocess::{put_aside, reprocess};

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

/// The ids of all deliveries.
async fn deliveries(app: &TestApp) -> BTreeSet<String> {
    let sql = "select id::text from deliveries";
    let ids: Vec<String> = sqlx::query_scalar(sql).fetch_all(&app.pool).await.unwrap();
    ids.into_iter().collect()
}

/// What brings events, and what brings none.
async fn send(app: &TestApp, person: &Person) {
    let call = person.of("elevenlabs/post_call_transcription.json");
    let failure = person.of("elevenlabs/call_initiation_failure.twilio.json");
    let failure = String::from_utf8(failure).unwrap();
    let failure = failure.replace("conv_0", &format!("conv_{}", person.n));
    let message = |sid: &str| {
        let body = format!(
            "MessageSid=SM{sid}{}&From=whatsapp%3A%2B{}&To=whatsapp%3A%2B14155238886&Body={}",
            person.n, person.digits, person.words
        );
        app.twilio("/webhook/twilio/incoming", body)
    };
    ok(message("1")).await;
    // Once more, and with other bytes.
    let other_bytes = [&call[..], b" "].concat();
    for body in [&call, &call, &other_bytes] {
        ok(app.elevenlabs(body.clone())).await;
    }
    let kind = "application/json";
    let older = put_aside(app, Webhook::ElevenlabsCall, kind, failure.into_bytes()).await;
    let again = ok(reprocess(app, &older)).await;
    assert_eq!(again["data"]["status"], "accepted");
    app.clock.advance(Duration::days(1));
    ok(app.elevenlabs(call)).await;
    // Its facts cannot be stored, so it is put aside, under the person's key.
    let refuse = "
        create function refuse() returns trigger language plpgsql as
            $$ begin raise exception 'not storable' using errcode = '22000'; end $$;
        create trigger refuse before insert on events
            for each row when (new.event_type = 'message.received') execute function refuse()";
    sqlx::raw_sql(refuse).execute(&app.pool).await.unwrap();
    ok(message("2")).await;
    let allow = "drop trigger refuse on events; drop function refuse";
    sqlx::raw_sql(allow).execute(&app.pool).await.unwrap();
    app.settle().await;
}

#[tokio::test]
async fn deliveries_that_brought_no_event_are_a_persons_too() {
    let app = TestApp::start().await;
    for person in [&ZOE, &EVA] {
        let before = deliveries(&app).await;
        send(&app, person).await;
        let sent = &deliveries(&app).await - &before;
        assert_eq!(sent.len(), 8);
        let path = format!("/api/subjects/%2B{}/export", person.digits);
        let all = ok(app.get_as("admin", &path)).await;
        let rows = all["deliveries"].as_array().unwrap();
        let ids = rows
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned());
        assert_eq!(ids.collect::<BTreeSet<_>>(), sent, "{rows:?}");
        for row in rows {
            let body = row["body"].as_str().unwrap();
            assert!(body.contains(person.digits), "{row}");
        }
        let aside = rows.iter().filter(|row| row["verdict"] == "quarantined");
        assert_eq!(aside.count(), 2);
    }
    app.stop().await;
}
