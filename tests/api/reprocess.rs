//! Reading a delivery again, once the program understands it. Contract,
//! sections 1 and 8.

use bitacora::ledger::{Claim, Delivery, Entry};
use bitacora::providers::{self, Webhook};
use bytes::Bytes;
use chrono::{Duration, SecondsFormat};
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::errors::{UNKNOWN_ID, assert_error, header};
use crate::harness::app::{answer, ok};
use crate::harness::{TestApp, fixture};

const CALL: &str = "conv_0001example00000000000000000";
const FORM: &str = "application/x-www-form-urlencoded";
const FACTS: &str = "select count(*) from events where event_type not in ('audit.recorded', 'delivery.quarantined')";

pub fn reprocess(app: &TestApp, id: &str) -> RequestBuilder {
    app.post_as(
        "admin",
        &format!("/api/deliveries/{id}/reprocess"),
        &json!({}),
    )
}

async fn delivery(app: &TestApp, id: &str) -> Value {
    app.read(&format!("/api/deliveries/{id}")).await["data"].take()
}

/// Puts a body aside that today's program understands, as an older one did.
pub async fn put_aside(
    app: &TestApp,
    webhook: Webhook,
    content_type: &str,
    body: Vec<u8>,
) -> String {
    let service = app.app();
    let index = &service.phone_index;
    let identity = providers::normalise(webhook, &body, Some(content_type), index).identity;
    let delivery = Delivery {
        id: service.source.id(),
        provider: webhook.provider(),
        route: webhook.name(),
        authentication: "token".to_owned(),
        received_at: app.clock.now(),
        remote_addr: Some("10.0.0.1".to_owned()),
        request_target: format!("/webhooks/{}", webhook.name()),
        headers: json!({"content-type": content_type}).to_string(),
        body: Bytes::from(body),
        reprocess_of: None,
    };
    let reason = "this program was younger then".to_owned();
    let claim = Claim::Quarantined { identity, reason };
    let entry = Entry::Delivery(Box::new(delivery), claim);
    let receipt = service.writer.append(entry).await.unwrap();
    receipt.delivery_id.unwrap().to_string()
}

pub async fn put_aside_call(app: &TestApp) -> String {
    let body = fixture("elevenlabs/post_call_transcription.json");
    put_aside(app, Webhook::ElevenlabsCall, "application/json", body).await
}

#[tokio::test]
async fn what_is_still_not_understood_says_so_and_stays() {
    let app = TestApp::start().await;
    for body in [
        fixture("elevenlabs/unknown_type.json"),
        b"{ no JSON".to_vec(),
        vec![],
    ] {
        let sent = ok(app.elevenlabs(body.clone())).await;
        assert_eq!(sent["status"], "quarantined");
        let id = sent["delivery_id"].as_str().unwrap();
        let before = delivery(&app, id).await;
        for _ in 0..2 {
            let response = reprocess(&app, id).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let position = header(&response, "x-ledger-position").unwrap().to_owned();
            let last = app.count("select max(position) from events").await;
            assert_eq!(position, last.to_string(), "that of the record of it");
            let expected = json!({
                "status": "quarantined", "delivery_id": null, "position": null, "reason": before["reason"],
            });
            let got: Value = response.json().await.unwrap();
            assert_eq!(got, json!({"success": true, "data": expected}));
        }
        assert_eq!(delivery(&app, id).await, before, "nothing changed");
        let again = ok(app.elevenlabs(body)).await;
        assert_eq!(again["status"], "duplicate");
    }
    assert_eq!(app.count(FACTS).await, 0);
    assert_eq!(app.count("select count(*) from deliveries").await, 6);
    app.stop().await;
}

#[tokio::test]
async fn what_is_understood_at_last_goes_onto_the_ledger_once() {
    let app = TestApp::start().await;
    let id = put_aside_call(&app).await;
    let (status, _) = answer(app.get_as("agent", &format!("/api/interactions/{CALL}"))).await;
    assert_eq!(status, 404, "nothing is known of it yet");

    let first = ok(reprocess(&app, &id)).await["data"].take();
    assert_eq!(first["status"], "accepted", "{first}");
    let call = app
        .read(&format!("/api/interactions/{CALL}?raw=true"))
        .await["data"]
        .take();
    assert_eq!(call["status"], "completed", "a read that follows shows it");
    let events = call["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (
            &events[0]["position"],
            &events[0]["delivery_id"],
            &events[0]["type"]
        ),
        (
            &first["position"],
            &first["delivery_id"],
            &json!("call.completed")
        )
    );
    assert_eq!(
        events[0]["raw"]["type"], "post_call_transcription",
        "the bytes are found"
    );

    for _ in 0..3 {
        let again = ok(reprocess(&app, &id)).await["data"].take();
        assert_eq!(
            (&again["status"], &again["delivery_id"], &again["position"]),
            (
                &json!("duplicate"),
                &first["delivery_id"],
                &first["position"]
            )
        );
    }
    let resent = ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    assert_eq!(
        resent["status"], "duplicate",
        "the provider's own second try"
    );
    assert_eq!(app.count(FACTS).await, 1);
    app.stop().await;
}

#[tokio::test]
async fn twenty_second_readings_at_once_are_one() {
    let app = TestApp::start().await;
    let id = put_aside_call(&app).await;
    let answers = join_all((0..20).map(|_| ok(reprocess(&app, &id)))).await;
    let accepted = answers
        .iter()
        .filter(|answer| answer["data"]["status"] == "accepted");
    assert_eq!(accepted.count(), 1, "{answers:?}");
    for answer in &answers {
        assert_eq!(
            answer["data"]["position"], answers[0]["data"]["position"],
            "{answer}"
        );
        assert_eq!(
            answer["data"]["delivery_id"], answers[0]["data"]["delivery_id"],
            "{answer}"
        );
    }
    assert_eq!(app.count(FACTS).await, 1);
    let records = "select count(*) from events where event_type = 'audit.recorded'";
    let said = "each is on record, before and after";
    assert_eq!(app.count(records).await, 40, "{said}");
    app.stop().await;
}

/// The provider sent it again, and by then it was understood.
#[tokio::test]
async fn what_came_again_meanwhile_is_not_told_twice() {
    let app = TestApp::start().await;
    let body = fixture("elevenlabs/post_call_transcription.json");
    let sent = ok(app.elevenlabs(body.clone())).await;
    let mut older: Value = serde_json::from_slice(&body).unwrap();
    older["event_timestamp"] = Value::Null;
    // With another identity, by which an older program put it aside.
    let strange = older.to_string().into_bytes();
    let service = app.app();
    let identity = providers::normalise(
        Webhook::ElevenlabsCall,
        &strange,
        None,
        &service.phone_index,
    )
    .identity;
    let aside = Delivery {
        id: service.source.id(),
        provider: domain::Provider::Elevenlabs,
        route: Webhook::ElevenlabsCall.name(),
        authentication: "token".to_owned(),
        received_at: app.clock.now(),
        remote_addr: None,
        request_target: "/webhooks/elevenlabs/call".to_owned(),
        headers: "{}".to_owned(),
        body: Bytes::from(body),
        reprocess_of: None,
    };
    let id = aside.id.to_string();
    let claim = Claim::Quarantined {
        identity,
        reason: "an older reading".to_owned(),
    };
    let entry = Entry::Delivery(Box::new(aside), claim);
    service.writer.append(entry).await.unwrap();
    let got = ok(reprocess(&app, &id)).await["data"].take();
    assert_eq!(
        (&got["status"], &got["delivery_id"], &got["position"]),
        (&json!("duplicate"), &sent["delivery_id"], &sent["position"])
    );
    assert_eq!(app.count(FACTS).await, 1);
    app.stop().await;
}

#[tokio::test]
async fn both_readings_answer_the_original_bytes_and_point_at_each_other() {
    let app = TestApp::start().await;
    let body = fixture("twilio/whatsapp.inbound.text.form");
    let id = put_aside(&app, Webhook::TwilioIncoming, FORM, body.clone()).await;
    let received = app.clock.now().to_rfc3339_opts(SecondsFormat::AutoSi, true);
    app.clock.advance(Duration::days(3));
    let second = ok(reprocess(&app, &id)).await["data"]["delivery_id"].take();
    let (first, second) = (
        delivery(&app, &id).await,
        delivery(&app, second.as_str().unwrap()).await,
    );
    for got in [&first, &second] {
        assert_eq!(got["body"], String::from_utf8(body.clone()).unwrap());
        assert_eq!(got["route"], Webhook::TwilioIncoming.name());
        assert_eq!(
            got["received_at"], received,
            "when it came, not when it was read"
        );
        assert_eq!(got["headers"]["content-type"], FORM);
    }
    let links = |got: &Value| {
        json!([
            got["verdict"],
            got["authentication"],
            got["reprocess_of"],
            got["reprocessed_as"],
            got["reason"]
        ])
    };
    assert_eq!(
        links(&first),
        json!([
            "quarantined",
            "token",
            null,
            second["id"],
            "this program was younger then"
        ])
    );
    assert_eq!(
        links(&second),
        json!(["accepted", "reprocess", id, null, null])
    );
    // A fact without a time of its own happened when it first came.
    let events = app.read("/api/ledger/events?aggregate_type=chat").await;
    let events = events["data"].as_array().unwrap();
    assert!(!events.is_empty());
    for event in events {
        assert_eq!(event["occurred_at"], received, "{event}");
        assert_eq!(event["delivery_id"], second["id"], "{event}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_recording_that_was_put_aside_can_be_heard_after() {
    let app = TestApp::start().await;
    let body = fixture("elevenlabs/post_call_audio.json");
    let id = put_aside(&app, Webhook::ElevenlabsCall, "application/json", body).await;
    ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    app.settle().await;
    let audio = || app.get_as("agent", &format!("/api/interactions/{CALL}/audio"));
    assert_eq!(audio().send().await.unwrap().status(), 404);
    let got = ok(reprocess(&app, &id)).await;
    assert_eq!(got["data"]["status"], "accepted", "{got}");
    let sound = audio().send().await.unwrap();
    assert_eq!(sound.status(), 200);
    assert_eq!(
        sound.bytes().await.unwrap().as_ref(),
        b"ID3\x04\0\0\0\0\0\0"
    );
    let part = audio().header("range", "bytes=0-2").send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), part.bytes().await.unwrap().as_ref()),
        (206, &b"ID3"[..])
    );
    app.stop().await;
}

#[tokio::test]
async fn only_a_quarantined_delivery_can_be_read_again() {
    let app = TestApp::start().await;
    for _ in 0..2 {
        ok(app.elevenlabs(fixture("elevenlabs/post_call_audio.json"))).await;
    }
    let stranger = app
        .client
        .post(format!("{}/webhooks/elevenlabs/call", app.url))
        .body("{}");
    assert_eq!(answer(stranger).await.0, 401);
    let aside = put_aside_call(&app).await;
    let read = ok(reprocess(&app, &aside)).await["data"]["delivery_id"].take();
    let resent = ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    assert_eq!(resent["status"], "duplicate");
    let before = app.count("select count(*) from deliveries").await;
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select id::text, verdict from deliveries where verdict <> 'quarantined' order by id",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let verdicts: Vec<&str> = rows.iter().map(|(_, verdict)| verdict.as_str()).collect();
    for verdict in ["accepted", "duplicate", "rejected"] {
        assert!(verdicts.contains(&verdict), "{verdicts:?}");
    }
    assert!(
        rows.iter().any(|(id, _)| *id == read.as_str().unwrap()),
        "a second reading is one"
    );
    for (id, verdict) in &rows {
        let message =
            format!("Only a quarantined delivery can be read again; this one is {verdict}");
        let expected = (409, "not_quarantined", message.as_str(), Value::Null);
        assert_error(verdict, reprocess(&app, id), expected).await;
    }
    let unknown = (404, "not_found", "There is no such delivery", Value::Null);
    assert_error("unknown", reprocess(&app, UNKNOWN_ID), unknown).await;
    for role in ["agent", "supervisor", "auditor", "service"] {
        let request = app.post_as(
            role,
            &format!("/api/deliveries/{aside}/reprocess"),
            &json!({}),
        );
        let expected = (403, "forbidden", "This needs the role admin", Value::Null);
        assert_error(role, request, expected).await;
    }
    assert_eq!(app.count("select count(*) from deliveries").await, before);
    app.stop().await;
}
