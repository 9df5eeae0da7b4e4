//! Webhooks in: contract, section 1.

use std::time::Duration;

use bitacora::ledger::{Limits, deliveries};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::harness::app::{
    BUILDERBOT_TOKEN, ELEVENLABS_SECRET, ELEVENLABS_TOKEN, Options, TWILIO_TOKEN, answer, ok,
    opener,
};
use crate::harness::{TestApp, fixture, postgres, sign};

/// Every fixture that is a webhook, with the path it is posted to.
pub fn every_fixture() -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for provider in ["elevenlabs", "twilio", "builderbot"] {
        let dir = format!("{}/tests/fixtures/{provider}", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = match (provider, name.as_str()) {
                ("elevenlabs", _) => "/webhooks/elevenlabs/call",
                ("builderbot", _) => "/webhooks/builderbot/whatsapp",
                (_, name) if name.starts_with("voice") => "/webhooks/twilio/voice/status",
                (_, name) if name.contains("inbound") => "/webhook/twilio/incoming",
                _ => "/webhooks/twilio/sms/status",
            };
            found.push((format!("{provider}/{name}"), path));
        }
    }
    found.sort();
    found
}

/// Sends a fixture as its provider would sign it. A JSON body of Twilio's goes
/// with the token: what it signs then is tested with the signatures.
pub fn send_fixture(app: &TestApp, name: &str, path: &str) -> reqwest::RequestBuilder {
    let body = fixture(name);
    match name.split('/').next().unwrap() {
        "elevenlabs" => app.elevenlabs(body),
        "builderbot" => app.builderbot(body),
        _ if name.ends_with(".json") => app
            .client
            .post(format!("{}{path}", app.url))
            .header("content-type", "application/json")
            .header("X-Webhook-Token", TWILIO_TOKEN)
            .body(body),
        _ => app.twilio(path, body),
    }
}

pub fn call(conversation: &str, event_timestamp: i64) -> Vec<u8> {
    let mut body: Value =
        serde_json::from_slice(&fixture("elevenlabs/post_call_transcription.json")).unwrap();
    body["event_timestamp"] = event_timestamp.into();
    body["data"]["conversation_id"] = conversation.into();
    body["data"]["metadata"]["phone_call"]["call_sid"] = format!("CA{conversation}").into();
    body.to_string().into_bytes()
}

#[tokio::test]
async fn every_fixture_is_taken_as_its_provider_signs_it() {
    let app = TestApp::start().await;
    for (name, path) in every_fixture() {
        let (status, body) = answer(send_fixture(&app, &name, path)).await;
        assert_eq!(status, 200, "{name}: {body}");
    }
    let kept = app.count("select count(*) from deliveries").await;
    assert_eq!(
        kept,
        i64::try_from(every_fixture().len()).unwrap(),
        "each is on the ledger, whatever its verdict"
    );
    assert_eq!(
        app.count("select count(*) from deliveries where verdict = 'rejected'")
            .await,
        0
    );
    app.settle().await;
    app.stop().await;
}

#[tokio::test]
async fn the_answer_tells_delivery_and_position_and_a_duplicate_tells_the_first_ones() {
    let app = TestApp::start().await;
    let first = ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    assert_eq!(first["success"], true);
    assert_eq!(first["status"], "accepted");
    assert_eq!(first["position"], 1);
    let again = ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    assert_eq!(again["status"], "duplicate");
    assert_eq!(again["delivery_id"], first["delivery_id"]);
    assert_eq!(again["position"], first["position"]);
    assert_eq!(app.count("select count(*) from events").await, 1);
    let bodies: (i64, i64) = sqlx::query_as("select count(*), count(body) from deliveries")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(
        bodies,
        (2, 1),
        "both requests are kept, the same bytes once"
    );
    app.stop().await;
}

#[tokio::test]
async fn fifty_copies_at_once_are_one_event() {
    let app = TestApp::start().await;
    for (body, path) in [
        (
            fixture("elevenlabs/post_call_transcription.json"),
            "elevenlabs",
        ),
        (fixture("twilio/whatsapp.status.read.form"), "twilio"),
        (fixture("builderbot/message.incoming.json"), "builderbot"),
    ] {
        let before = app.count("select count(*) from events").await;
        let copies = (0..50).map(|_| {
            let request = match path {
                "elevenlabs" => app.elevenlabs(body.clone()),
                "twilio" => app.twilio("/webhooks/twilio/sms/status", body.clone()),
                _ => app.builderbot(body.clone()),
            };
            ok(request)
        });
        let answers = join_all(copies).await;
        let accepted = answers
            .iter()
            .filter(|answer| answer["status"] == "accepted")
            .count();
        let ids: std::collections::HashSet<_> = answers
            .iter()
            .map(|answer| answer["delivery_id"].to_string())
            .collect();
        assert_eq!((accepted, ids.len()), (1, 1), "{path}");
        assert!(
            answers
                .iter()
                .all(|answer| answer["position"] == answers[0]["position"]),
            "{path}"
        );
        assert_eq!(
            app.count("select count(*) from events").await,
            before + 1,
            "{path}"
        );
    }
    app.stop().await;
}

/// Contract, section 1: what "duplicate" means, for each provider.
#[tokio::test]
async fn what_is_the_same_is_told_by_the_providers_own_ids() {
    let app = TestApp::start().await;
    let twilio = |path: &str, form: &str| app.twilio(path, form.to_owned());
    let (status, voice, incoming) = (
        "/webhooks/twilio/sms/status",
        "/webhooks/twilio/voice/status",
        "/webhook/twilio/incoming",
    );
    let base = "From=%2B14155550100&To=%2B5491133334444";
    let cases = [
        ("a first", app.elevenlabs(call("conv_a", 1)), "accepted"),
        (
            "the same type, conversation and time",
            app.elevenlabs(call("conv_a", 1)),
            "duplicate",
        ),
        (
            "a later analysis",
            app.elevenlabs(call("conv_a", 2)),
            "accepted",
        ),
        (
            "another conversation",
            app.elevenlabs(call("conv_b", 1)),
            "accepted",
        ),
        (
            "a status",
            twilio(status, &format!("MessageSid=SM1&MessageStatus=sent&{base}")),
            "accepted",
        ),
        (
            "the same status",
            twilio(
                status,
                &format!("MessageSid=SM1&MessageStatus=sent&{base}&Extra=1"),
            ),
            "duplicate",
        ),
        (
            "the next status",
            twilio(
                status,
                &format!("MessageSid=SM1&MessageStatus=delivered&{base}"),
            ),
            "accepted",
        ),
        (
            "a failure",
            twilio(
                status,
                &format!("MessageSid=SM2&MessageStatus=failed&ErrorCode=30003&{base}"),
            ),
            "accepted",
        ),
        (
            "with another code",
            twilio(
                status,
                &format!("MessageSid=SM2&MessageStatus=failed&ErrorCode=30005&{base}"),
            ),
            "accepted",
        ),
        (
            "a call",
            twilio(
                voice,
                &format!("CallSid=CA1&CallStatus=ringing&SequenceNumber=1&{base}"),
            ),
            "accepted",
        ),
        (
            "the same call",
            twilio(
                voice,
                &format!("CallSid=CA1&CallStatus=ringing&SequenceNumber=1&{base}"),
            ),
            "duplicate",
        ),
        (
            "the next callback",
            twilio(
                voice,
                &format!("CallSid=CA1&CallStatus=completed&SequenceNumber=2&{base}"),
            ),
            "accepted",
        ),
        (
            "without a number",
            twilio(voice, &format!("CallSid=CA2&CallStatus=completed&{base}")),
            "accepted",
        ),
        (
            "without a number again",
            twilio(voice, &format!("CallSid=CA2&CallStatus=completed&{base}")),
            "duplicate",
        ),
    ];
    for (what, request, expected) in cases {
        assert_eq!(ok(request).await["status"], expected, "{what}");
    }
    let inbound = format!("MessageSid=SM9&Body=hola&NumMedia=0&{base}");
    for _ in 0..2 {
        assert_eq!(
            ok(twilio(incoming, &inbound)).await,
            crate::ingest::empty_twiml()
        );
    }
    assert_eq!(
        app.count("select count(*) from events where aggregate_id = 'SM9'")
            .await,
        1
    );
    app.stop().await;
}

fn empty_twiml() -> Value {
    Value::String(r#"<?xml version="1.0" encoding="UTF-8"?><Response></Response>"#.to_owned())
}

#[tokio::test]
async fn the_same_words_after_ten_minutes_are_a_new_message() {
    let app = TestApp::start().await;
    let hello = || app.builderbot(fixture("builderbot/message.incoming.json"));
    assert_eq!(ok(hello()).await["status"], "accepted");
    app.clock.advance(chrono::Duration::seconds(599));
    assert_eq!(ok(hello()).await["status"], "duplicate");
    app.clock.advance(chrono::Duration::seconds(2));
    assert_eq!(
        ok(hello()).await["status"],
        "accepted",
        "ten minutes after the first one"
    );
    app.settle().await;
    assert_eq!(app.count("select message_count from interactions").await, 2);
    app.stop().await;
}

#[tokio::test]
async fn twilio_inbound_gets_empty_twiml_in_every_authentic_case() {
    let app = TestApp::start().await;
    for path in ["/webhook/twilio/incoming", "/webhooks/twilio/incoming"] {
        for body in [
            &b"MessageSid=SM1&From=%2B57300&Body=x"[..],
            b"",
            b"\xff\xfe not a form",
        ] {
            let response = app.twilio(path, body).send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "text/xml");
            assert_eq!(Value::String(response.text().await.unwrap()), empty_twiml());
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn what_is_authentic_and_not_understood_is_kept_byte_for_byte() {
    let app = TestApp::start().await;
    let strange: [&[u8]; 5] = [
        b"{\"type\":\"answering_machine_detection\",\"event_timestamp\":1,\"data\":{\"conversation_id\":\"conv_1\"}}",
        b"{\"type\":\"post_call_transcription\"}",
        b"{ this is not JSON",
        b"",
        b"\x00\xff\xfe",
    ];
    for body in strange {
        let answer = ok(app.elevenlabs(body)).await;
        assert_eq!(answer["status"], "quarantined", "{body:?}");
        assert!(answer["position"].is_i64(), "{answer}");
        let id = answer["delivery_id"].as_str().unwrap();
        let kept = deliveries::body(&app.pool, &opener(), id.parse().unwrap()).await;
        assert_eq!(kept.unwrap().unwrap(), body);
    }
    assert_eq!(ok(app.elevenlabs(strange[0])).await["status"], "duplicate");
    app.stop().await;
}

/// A row for each way to be authentic, or not.
#[tokio::test]
async fn who_is_authentic() {
    let app = TestApp::start().await;
    let body = fixture("elevenlabs/post_call_audio.json");
    let now = app.clock.now().timestamp();
    let signature = |at: i64| sign::elevenlabs(ELEVENLABS_SECRET, at, &body);
    let rows: Vec<(&str, Vec<(&str, String)>, u16)> = vec![
        ("nothing", vec![], 401),
        (
            "the token",
            vec![("X-Webhook-Token", ELEVENLABS_TOKEN.into())],
            200,
        ),
        (
            "another provider's token",
            vec![("X-Webhook-Token", TWILIO_TOKEN.into())],
            401,
        ),
        (
            "an empty token",
            vec![("X-Webhook-Token", String::new())],
            401,
        ),
        (
            "a signature",
            vec![("ElevenLabs-Signature", signature(now))],
            200,
        ),
        (
            "29 minutes old",
            vec![("ElevenLabs-Signature", signature(now - 29 * 60))],
            200,
        ),
        (
            "31 minutes old",
            vec![("ElevenLabs-Signature", signature(now - 31 * 60))],
            401,
        ),
        (
            "6 minutes ahead",
            vec![("ElevenLabs-Signature", signature(now + 6 * 60))],
            401,
        ),
        (
            "another secret",
            vec![(
                "ElevenLabs-Signature",
                sign::elevenlabs("other", now, &body),
            )],
            401,
        ),
        (
            "no signature at all",
            vec![("ElevenLabs-Signature", "nonsense".into())],
            401,
        ),
        (
            "a wrong signature beside the right token",
            vec![
                ("X-Webhook-Token", ELEVENLABS_TOKEN.into()),
                (
                    "ElevenLabs-Signature",
                    sign::elevenlabs("other", now, &body),
                ),
            ],
            401,
        ),
    ];
    for (what, headers, expected) in rows {
        let mut request = app
            .client
            .post(format!("{}/webhooks/elevenlabs/call", app.url))
            .body(body.clone());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (status, answer) = answer(request).await;
        assert_eq!(status, expected, "{what}: {answer}");
        if status == 401 {
            assert_eq!(
                (&answer["code"], &answer["error"]),
                (&json!("unauthorized"), &json!("Unauthorized")),
                "{what}"
            );
        }
    }
    let builderbot = format!("{}/webhooks/builderbot/whatsapp", app.url);
    for (url, expected) in [
        (builderbot.clone(), 401),
        (format!("{builderbot}?token={BUILDERBOT_TOKEN}"), 200),
        (format!("{builderbot}?token=wrong"), 401),
    ] {
        let request = app
            .client
            .post(&url)
            .body(fixture("builderbot/status.ready.json"));
        assert_eq!(answer(request).await.0, expected, "{url}");
    }
    app.stop().await;
}

#[tokio::test]
async fn with_nothing_configured_nobody_is_authentic() {
    let config =
        |config: &mut bitacora::config::Config| config.provider_secrets = Default::default();
    let app = TestApp::with(Options {
        config,
        ..Options::default()
    })
    .await;
    for (name, path) in every_fixture() {
        let (status, _) = answer(send_fixture(&app, &name, path)).await;
        assert_eq!(status, 401, "{name}");
    }
    app.stop().await;
}

#[tokio::test]
async fn rejected_deliveries_are_kept_within_a_quota_without_secrets() {
    let limits = Limits {
        rejected_per_hour_max: 3,
        ..Limits::default()
    };
    let app = TestApp::with(Options {
        limits,
        ..Options::default()
    })
    .await;
    let url = format!("{}/webhooks/builderbot/whatsapp?token=guess&x=1", app.url);
    for _ in 0..5 {
        let request = app
            .client
            .post(&url)
            .header("X-Webhook-Token", "a guess")
            .header("X-Other", "kept");
        let (status, _) = answer(request.body(vec![b'x'; 10_000])).await;
        assert_eq!(status, 401);
    }
    let rows: Vec<(String, i32, String, Value, String)> = sqlx::query_as(
        "select reason, body_bytes, request_target, headers, verdict from deliveries order by id",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    for (reason, length, target, headers, verdict) in rows {
        assert!(reason.starts_with("wrong_token"), "{reason}");
        assert_eq!((length, verdict.as_str()), (2048, "rejected"));
        assert_eq!(target, "/webhooks/builderbot/whatsapp?token=[removed]&x=1");
        assert_eq!(
            (&headers["x-webhook-token"], &headers["x-other"]),
            (&json!("[removed]"), &json!("kept"))
        );
    }
    app.clock.advance(chrono::Duration::minutes(61));
    assert_eq!(answer(app.client.post(&url)).await.0, 401);
    assert_eq!(
        app.count("select count(*) from deliveries").await,
        4,
        "the quota is one of each hour"
    );
    app.stop().await;
}

#[tokio::test]
async fn bodies_have_a_limit_of_their_provider() {
    let app = TestApp::start().await;
    let sizes = [
        ("/webhooks/elevenlabs/call", 32 << 20),
        ("/webhooks/builderbot/whatsapp", 1 << 20),
        ("/webhooks/twilio/sms/status", 1 << 20),
    ];
    for (path, limit) in sizes {
        let token = match path {
            "/webhooks/elevenlabs/call" => ELEVENLABS_TOKEN,
            "/webhooks/builderbot/whatsapp" => BUILDERBOT_TOKEN,
            _ => TWILIO_TOKEN,
        };
        for (size, expected) in [(limit, 200), (limit + 1, 413)] {
            let request = app
                .client
                .post(format!("{}{path}", app.url))
                .header("X-Webhook-Token", token);
            let (status, answer) = answer(request.body(vec![b' '; size])).await;
            assert_eq!(status, expected, "{path} {size}: {answer}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn a_recording_may_come_in_chunks() {
    let app = TestApp::start().await;
    let body = fixture("elevenlabs/post_call_audio.json");
    let signature = sign::elevenlabs(ELEVENLABS_SECRET, app.clock.now().timestamp(), &body);
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
        body.chunks(7).map(|chunk| Ok(chunk.to_vec())).collect();
    let request = app
        .client
        .post(format!("{}/webhooks/elevenlabs/call", app.url))
        .header("ElevenLabs-Signature", signature)
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(
            chunks,
        )));
    assert_eq!(ok(request).await["status"], "accepted");
    app.stop().await;
}

#[tokio::test]
async fn a_full_queue_answers_503_at_once_and_loses_nothing_it_took() {
    let limits = Limits {
        queue_entries_max: 4,
        ..Limits::default()
    };
    let app = TestApp::with(Options {
        limits,
        ..Options::default()
    })
    .await;
    // Whoever holds the ledger's lock holds up the writer.
    let mut holder = bitacora::transaction::begin(&app.pool).await.unwrap();
    sqlx::query("select ledger_lock()")
        .execute(&mut *holder)
        .await
        .unwrap();
    let call = |at: usize| app.elevenlabs(call(&format!("conv_{at}"), 1)).send();
    let mut sent = Vec::new();
    while app.app().writer.has_room() {
        sent.push(tokio::spawn(call(sent.len())));
        tokio::task::yield_now().await;
    }
    for at in 0..5 {
        let refused = call(1_000_000 + at).await.unwrap();
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
    }
    holder.rollback().await.unwrap();
    let answers = join_all(sent).await;
    let statuses: Vec<_> = answers
        .into_iter()
        .map(|it| it.unwrap().unwrap().status().as_u16())
        .collect();
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    let taken = statuses.iter().filter(|status| **status == 200).count();
    // What was queued, and what the writer had in hand.
    assert!(taken > limits.queue_entries_max, "{statuses:?}");
    assert_eq!(
        app.count("select count(*) from events").await,
        i64::try_from(taken).unwrap()
    );
    app.stop().await;
}

/// As a restart of the database does to every connection that lies idle.
#[tokio::test]
async fn connections_that_died_while_idle_cost_nobody_an_answer() {
    let app = TestApp::start().await;
    for round in 0..3 {
        let sent = ok(app.elevenlabs(call(&format!("conv_{round}"), 1))).await;
        assert_eq!(sent["status"], "accepted");
        let ended = postgres::end_connections(&app.database()).await;
        assert!(ended >= 1, "the writer has a connection of its own");
    }
    let sent = ok(app.elevenlabs(call("conv_last", 1))).await;
    assert_eq!(
        (&sent["status"], &sent["position"]),
        (&json!("accepted"), &json!(4))
    );
    app.stop().await;
}

/// A signature's form is easily forged: what it brings must not fill the memory.
#[tokio::test]
async fn a_body_is_only_read_while_there_is_room_for_it() {
    let limits = Limits {
        queue_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let app = TestApp::with(Options {
        limits,
        ..Options::default()
    })
    .await;
    let forged = |time: i64| {
        app.client
            .post(format!("{}/webhooks/elevenlabs/call", app.url))
            .header(
                "ElevenLabs-Signature",
                format!("t={time},v0={}", "0".repeat(64)),
            )
            .body(vec![b' '; 8 << 20])
    };
    let (status, refused) = answer(forged(app.clock.now().timestamp())).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (503, Some("unavailable"))
    );
    // One of another time is refused by its header alone.
    let (status, _) = answer(forged(1)).await;
    assert_eq!(status, 401);
    // The room is free again.
    ok(app.elevenlabs(fixture("elevenlabs/post_call_audio.json"))).await;
    app.stop().await;
}

#[tokio::test]
async fn what_is_refused_for_its_size_is_answered_though_its_sender_still_sends() {
    let app = TestApp::start().await;
    for (path, credential, size, expected) in [
        ("/webhooks/elevenlabs/call", ELEVENLABS_TOKEN, 48 << 20, 413),
        ("/webhooks/twilio/sms/status", TWILIO_TOKEN, 2 << 20, 413),
        ("/webhooks/elevenlabs/call", "wrong", 32 << 20, 401),
    ] {
        // Two bodies: one that says how large it is, and one that does not.
        let chunks = vec![vec![b' '; 1 << 20]; size >> 20];
        let chunks = chunks.into_iter().map(Ok::<_, std::io::Error>);
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        for body in [reqwest::Body::from(vec![b' '; size]), chunked] {
            let request = app
                .client
                .post(format!("{}{path}", app.url))
                .header("X-Webhook-Token", credential);
            let (status, answer) = answer(request.body(body)).await;
            assert_eq!(status, expected, "{path} {size}: {answer}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_holds_up_no_refusal() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let app = TestApp::start().await;
    let host = app.url.strip_prefix("http://").unwrap();
    for (path, token, bytes, expected) in [
        (
            "/webhooks/elevenlabs/call",
            ELEVENLABS_TOKEN,
            99_999_999_999_u64,
            "413",
        ),
        ("/api/auth/login", "none", 99_999_999_999, "413"),
        ("/webhooks/elevenlabs/call", "wrong", 100, "401"),
    ] {
        let mut connection = tokio::net::TcpStream::connect(host).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             x-webhook-token: {token}\r\ncontent-length: {bytes}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        let answered = connection.read_exact(&mut first);
        tokio::time::timeout(std::time::Duration::from_secs(30), answered)
            .await
            .unwrap_or_else(|_| panic!("{path} is not answered"))
            .unwrap();
        assert_eq!(&first[9..], expected.as_bytes(), "{path}");
    }
    app.stop().await;
}

/// Without statistics PostgreSQL takes a ledger for small, and once planned to
/// hash the whole of it to find a few duplicates.
#[tokio::test]
async fn duplicates_are_looked_up_by_key_on_a_ledger_without_statistics() {
    let app = TestApp::start().await;
    for round in 0..6 {
        let webhooks = (0..40).map(|n| {
            // Every fifth was there in the round before.
            let number = if n % 5 == 0 {
                round * 40 + n
            } else {
                (round + 1) * 40 + n
            };
            ok(app.elevenlabs(call(&format!("conv_{number}"), 1_763_000_000 + number)))
        });
        join_all(webhooks).await;
    }
    let url = postgres::named(&app.database());
    app.stop().await;
    // A session tells its counts at its end at the latest.
    let mut conn = PgConnection::connect(&url).await.unwrap();
    let others = "select count(*) from pg_stat_activity where datname = current_database()
                   and backend_type = 'client backend' and pid <> pg_backend_pid()";
    let alone = async {
        while sqlx::query_scalar::<_, i64>(others)
            .fetch_one(&mut conn)
            .await
            .unwrap()
            > 0
        {}
    };
    tokio::time::timeout(Duration::from_secs(30), alone)
        .await
        .unwrap();
    let sql = "select seq_scan, idx_scan from pg_stat_user_tables where relname = 'deliveries'";
    let (whole, by_key): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut conn).await.unwrap();
    assert!(by_key > 240, "{by_key} look-ups by key");
    assert_eq!(whole, 0, "the whole table was read");
}
