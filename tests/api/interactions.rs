//! Interactions as a person sees them: contract, section 2.

use std::collections::HashSet;

use domain::{Provider, StreamId};
use serde_json::{Value, json};

use crate::harness::app::{Options, answer, ok};
use crate::harness::{TestApp, fixture};
use crate::ingest::{every_fixture, send_fixture};

/// The numbers of clients in the fixtures, without their `+`.
pub const CLIENT_NUMBERS: [&str; 3] = ["5491133334444", "5491112345678", "919812345678"];
const CALL: &str = "conv_0001example00000000000000000";
const LEG: &str = "CA00000000000000000000000000000001";

/// Sends a fixture and waits until the read models show it.
async fn send(app: &TestApp, name: &str) -> Value {
    let path = every_fixture()
        .into_iter()
        .find(|(found, _)| found == name)
        .unwrap()
        .1;
    let answer = ok(send_fixture(app, name, path)).await;
    app.settle().await;
    answer
}

pub async fn send_everything(app: &TestApp) {
    for (name, path) in every_fixture() {
        ok(send_fixture(app, &name, path)).await;
    }
    app.settle().await;
}

async fn detail(app: &TestApp, id: &str) -> Value {
    app.read(&format!("/api/interactions/{id}")).await["data"].take()
}

async fn ids(app: &TestApp, query: &str) -> Vec<String> {
    let list = app.read(&format!("/api/interactions?{query}")).await;
    list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

/// `?name=value&…`, encoded.
fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

fn chat(app: &TestApp, provider: Provider, contact: &str) -> String {
    StreamId::chat(provider, contact, &app.app().phone_index).aggregate_id
}

fn of(values: &Value, field: &str) -> Vec<Value> {
    values
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value[field].clone())
        .collect()
}

#[tokio::test]
async fn the_list_shows_what_every_fixture_tells() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    let (ours, theirs) = (
        chat(&app, Provider::Twilio, "+5491133334444"),
        chat(&app, Provider::Builderbot, "+5491112345678"),
    );
    let group = chat(&app, Provider::Builderbot, "120363041234567890@g.us");
    let (conv, batch) = (
        |n: u32| format!("conv_{n:04}example00000000000000000"),
        |n: u32| json!(format!("btcal_{n:04}example0000000000000000")),
    );
    let agent = || json!("agent_0001example0000000000000000");
    let (ana, juan, ravi) = ("+54*******4444", "+54*******5678", "+91******5678");
    let luis = || json!("Luis confirma la cita.");
    let pays = || json!("El cliente acuerda pagar el 3 de noviembre.");
    let no = || Value::Null;
    // id, channel, provider, direction, status, phone, agent, batch, started, ended, last event, seconds, summary, messages
    let row = |id: &str,
               what: [&str; 2],
               who: [Value; 5],
               when: [&str; 3],
               secs: Value,
               summary: Value,
               count: i64| {
        let time = |at: &str| {
            if at.is_empty() {
                Value::Null
            } else {
                json!(format!("2025-10-28T{at}Z"))
            }
        };
        let [direction, status, phone, agent, batch] = who;
        let conversation = if id.starts_with("conv_") {
            json!(id)
        } else {
            Value::Null
        };
        json!({
            "id": id, "channel": what[0], "provider": what[1], "direction": direction, "status": status,
            "phone_number": phone, "agent_id": agent, "batch_id": batch, "conversation_id": conversation,
            "started_at": time(when[0]), "ended_at": time(when[1]), "last_event_at": time(when[2]),
            "duration_secs": secs, "summary": summary, "message_count": count,
        })
    };
    let (by_phone, by_11labs) = (["call", "twilio"], ["call", "elevenlabs"]);
    let mut expected = vec![
        row(
            &conv(1),
            by_11labs,
            [
                json!("outbound"),
                json!("completed"),
                json!(ana),
                agent(),
                batch(1),
            ],
            ["23:27:54", "23:29:28", "23:29:55"],
            json!(94),
            pays(),
            2,
        ),
        row(
            &conv(2),
            by_11labs,
            [no(), json!("failed"), json!(ana), agent(), no()],
            ["23:28:40", "23:28:40", "23:28:40"],
            no(),
            no(),
            0,
        ),
        row(
            &conv(3),
            by_11labs,
            [no(), json!("failed"), json!(ana), agent(), no()],
            ["23:28:40", "23:28:40", "23:28:40"],
            no(),
            no(),
            0,
        ),
        row(
            &conv(4),
            by_11labs,
            [no(), json!("failed"), no(), agent(), no()],
            ["23:28:40", "23:28:40", "23:28:40"],
            no(),
            no(),
            0,
        ),
        row(
            &conv(11),
            by_11labs,
            [
                json!("outbound"),
                json!("voicemail"),
                json!(ravi),
                agent(),
                batch(2),
            ],
            ["23:30:00", "23:30:21", "23:31:40"],
            json!(21),
            no(),
            1,
        ),
        row(
            &conv(12),
            by_11labs,
            [json!("inbound"), json!("failed"), json!(ana), agent(), no()],
            ["23:31:40", "23:31:43", "23:31:50"],
            json!(3),
            no(),
            0,
        ),
        row(
            &conv(13),
            by_11labs,
            [
                json!("outbound"),
                json!("completed"),
                json!(ana),
                agent(),
                batch(1),
            ],
            ["23:27:54", "23:29:28", "23:29:50"],
            json!(94),
            pays(),
            0,
        ),
        row(
            &conv(14),
            by_11labs,
            [no(), json!("completed"), no(), agent(), no()],
            ["23:31:40", "23:32:10", "23:32:10"],
            json!(30),
            luis(),
            0,
        ),
        row(
            &conv(15),
            ["whatsapp", "elevenlabs"],
            [
                json!("inbound"),
                json!("completed"),
                json!(ana),
                agent(),
                no(),
            ],
            ["23:31:40", "23:32:20", "23:32:20"],
            json!(40),
            luis(),
            2,
        ),
        row(
            &conv(16),
            ["sms", "elevenlabs"],
            [
                json!("outbound"),
                json!("completed"),
                json!(ana),
                agent(),
                no(),
            ],
            ["23:31:40", "23:32:30", "23:32:30"],
            json!(50),
            luis(),
            2,
        ),
        row(
            &conv(18),
            by_11labs,
            [
                json!("outbound"),
                json!("voicemail"),
                json!(ana),
                agent(),
                no(),
            ],
            ["23:32:40", "23:32:48", "23:32:50"],
            json!(8),
            no(),
            0,
        ),
        row(
            "CA00000000000000000000000000000031",
            by_phone,
            [
                json!("inbound"),
                json!("in_progress"),
                json!(ana),
                no(),
                no(),
            ],
            ["23:28:00", "", "23:28:00"],
            no(),
            no(),
            0,
        ),
        row(
            "CA00000000000000000000000000000032",
            by_phone,
            [json!("outbound"), json!("failed"), json!(ana), no(), no()],
            ["23:28:40", "23:28:40", "23:28:40"],
            json!(0),
            no(),
            0,
        ),
        row(
            "SM00000000000000000000000000000011",
            ["sms", "twilio"],
            [json!("inbound"), json!("delivered"), json!(ana), no(), no()],
            ["23:30:00", "", "23:30:00"],
            no(),
            no(),
            1,
        ),
        row(
            "MM00000000000000000000000000000025",
            ["sms", "twilio"],
            [json!("inbound"), json!("received"), json!(ana), no(), no()],
            ["23:30:00", "", "23:30:00"],
            no(),
            no(),
            1,
        ),
        row(
            &ours,
            ["whatsapp", "twilio"],
            [json!("inbound"), json!("active"), json!(ana), no(), no()],
            ["23:30:00", "", "23:30:00"],
            no(),
            no(),
            5,
        ),
        row(
            &theirs,
            ["whatsapp", "builderbot"],
            [json!("inbound"), json!("active"), json!(juan), no(), no()],
            ["23:27:54", "", "23:30:00"],
            no(),
            no(),
            9,
        ),
        row(
            &group,
            ["whatsapp", "builderbot"],
            [
                json!("inbound"),
                json!("active"),
                json!("*******************g.us"),
                no(),
                no(),
            ],
            ["23:30:00", "", "23:30:00"],
            no(),
            no(),
            1,
        ),
    ];
    // The provider's documentation has an example of its own, of another day.
    let mut abc = row(
        "abc",
        by_11labs,
        [no(), json!("completed"), no(), json!("xyz"), no()],
        ["", "", ""],
        json!(22),
        json!("The conversation begins with a fun fact."),
        2,
    );
    for (field, value) in [
        ("conversation_id", "abc"),
        ("started_at", "2025-02-14T12:48:17Z"),
        ("ended_at", "2025-02-14T12:48:39Z"),
        ("last_event_at", "2025-02-14T12:48:17Z"),
    ] {
        abc[field] = json!(value);
    }
    expected.push(abc);
    let key = |row: &Value| {
        (
            row["started_at"].as_str().unwrap().to_owned(),
            row["id"].as_str().unwrap().to_owned(),
        )
    };
    expected.sort_by_key(|row| std::cmp::Reverse(key(row)));
    let list = app.read("/api/interactions").await;
    let rows = list["data"].as_array().unwrap();
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected);
    }
    assert_eq!(
        (rows.len(), &list["next_cursor"], &list["success"]),
        (expected.len(), &Value::Null, &json!(true))
    );
    app.stop().await;
}

#[tokio::test]
async fn a_call_has_its_recording_its_transcript_and_its_timeline() {
    let app = TestApp::start().await;
    for name in [
        "elevenlabs/post_call_audio.json",
        "elevenlabs/post_call_transcription.json",
        "twilio/voice.status.completed.form",
    ] {
        send(&app, name).await;
    }
    let got = detail(&app, CALL).await;
    let expected = json!({
        "duration_secs": 94,
        "recording_url": format!("/api/interactions/{CALL}/audio"),
        "has_audio": true,
        "transcript": [
            {"role": "agent", "message": "Hola Ana, ¿tienes un minuto?", "time_in_call_secs": 0},
            {"role": "user", "message": "Sí, decime.", "time_in_call_secs": 3},
            {"role": "agent", "time_in_call_secs": 6, "tools": ["consultar_saldo"]},
            {"role": "agent", "time_in_call_secs": 7, "tools": ["consultar_saldo"]},
        ],
        "summary": "El cliente acuerda pagar el 3 de noviembre.",
        "summary_title": "Acuerdo de pago",
        "analysis": {
            "evaluation_criteria_results": {
                "compromiso": {"criteria_id": "compromiso", "result": "success", "rationale": "El cliente confirma fecha de pago."},
            },
            "data_collection_results": {
                "fecha_pago": {
                    "data_collection_id": "fecha_pago", "value": "2025-11-03", "rationale": "Dicho en el turno 4.",
                    "json_schema": {"type": "string", "description": "Fecha de pago"},
                },
            },
        },
        "call_successful": "success",
        "termination_reason": "end_call tool was called.",
        "failure_reason": null,
        "error": null,
        "language": "es",
        "cost_credits": 512,
        "agent_name": "Cobranzas",
        "agent_number": "+14155550100",
        "phone_number_id": "phnum_0001example0000000000000000",
        "carrier": "twilio",
        "call_sid": LEG,
        "carrier_status": "completed",
        "sip_status": null,
        "provider_status": "done",
        "dynamic_variables": {
            "client_name": "Ana García", "client_id": 42, "system__call_sid": LEG, "system__conversation_id": CALL,
            "system__caller_id": "+14155550100", "system__called_number": "+54*******4444",
        },
        "batch_recipient_id": "rcpt_0001example00000000000000000",
    });
    assert_eq!(got["call"], expected);
    assert_eq!(got["messages"], json!([]));
    assert_eq!(of(&got["events"], "position"), [1, 2, 3]);
    assert_eq!(
        of(&got["events"], "type"),
        ["call.audio_received", "call.completed", "call.progressed"]
    );
    assert_eq!(
        of(&got["events"], "provider"),
        ["elevenlabs", "elevenlabs", "twilio"]
    );
    let happened = [
        "2025-10-28T23:29:55Z",
        "2025-10-28T23:29:50Z",
        "2025-10-28T23:29:50Z",
    ];
    assert_eq!(of(&got["events"], "occurred_at"), happened);
    let deliveries: Vec<String> =
        sqlx::query_scalar("select id::text from deliveries order by position")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert_eq!(of(&got["events"], "delivery_id"), deliveries);
    assert!(
        got["events"]
            .as_array()
            .unwrap()
            .iter()
            .all(|event| event.get("raw").is_none()),
        "only when asked for"
    );
    app.stop().await;
}

#[tokio::test]
async fn a_whatsapp_conversation_has_its_messages_in_order_with_all_they_carry() {
    let app = TestApp::start().await;
    // The fixtures share one id: each gets its own, and comes a second later.
    let told = [
        ("whatsapp.inbound.text.form", "SM01"),
        ("whatsapp.inbound.media.form", "SM02"),
        ("whatsapp.inbound.location.form", "SM03"),
        ("whatsapp.inbound.button_reply.form", "SM04"),
        ("whatsapp.inbound.reply_forwarded.form", "SM05"),
        ("whatsapp.inbound.voice.form", "SM06"),
    ];
    for (name, sid) in told {
        let form = String::from_utf8(fixture(&format!("twilio/{name}"))).unwrap();
        let pairs = form_urlencoded::parse(form.as_bytes()).into_owned();
        let pairs = pairs.map(|(name, value)| {
            if name == "MessageSid" {
                (name, sid.to_owned())
            } else {
                (name, value)
            }
        });
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        ok(app.twilio("/webhook/twilio/incoming", form)).await;
        app.clock.advance(chrono::Duration::seconds(1));
    }
    app.settle().await;
    let id = chat(&app, Provider::Twilio, "+5491133334444");
    let got = detail(&app, &id).await;
    let media = |sid: &str, item: &str| {
        format!(
            "https://api.twilio.com/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages/{sid}/Media/{item}"
        )
    };
    let (jpg, ogg) = (
        media(
            "SM00000000000000000000000000000011",
            "ME00000000000000000000000000000001",
        ),
        media(
            "SM00000000000000000000000000000021",
            "ME00000000000000000000000000000021",
        ),
    );
    let place = json!({"latitude": "-34.6037", "longitude": "-58.3816", "address": "Av. Corrientes 1", "label": "Obelisco"});
    let expected: [(&str, &str, &str, Value, Value); 6] = [
        (
            "SM01",
            "text",
            "Sí me interesa, ¿cuál es el precio?",
            json!([]),
            json!({"contact_name": "Ana"}),
        ),
        (
            "SM02",
            "image",
            "",
            json!([{"url": jpg, "content_type": "image/jpeg"}]),
            json!({"contact_name": "Ana"}),
        ),
        (
            "SM03",
            "location",
            "",
            json!([]),
            json!({"contact_name": "Ana", "location": place}),
        ),
        (
            "SM04",
            "button",
            "Confirmar",
            json!([]),
            json!({"contact_name": "Ana", "button": {"text": "Confirmar", "payload": "confirm_42"}, "reply_to": "MM00000000000000000000000000000009"}),
        ),
        (
            "SM05",
            "text",
            "¿Y esto?",
            json!([]),
            json!({"contact_name": "Ana", "reply_to": "SM00000000000000000000000000000009", "forwarded": true}),
        ),
        (
            "SM06",
            "voice",
            "",
            json!([{"url": ogg, "content_type": "audio/ogg"}]),
            json!({"contact_name": "Ana"}),
        ),
    ];
    let expected: Vec<Value> = expected
        .into_iter()
        .enumerate()
        .map(|(at, (id, kind, content, media, details))| {
            json!({
                "id": id, "provider_message_id": id, "direction": "inbound", "status": "received", "provider": "twilio",
                "kind": kind, "content": content, "media": media, "details": details,
                "error_code": null, "error_message": null, "created_at": format!("2025-10-28T23:30:0{at}Z"),
                "sent_at": null, "delivered_at": null, "read_at": null, "failed_at": null,
            })
        })
        .collect();
    assert_eq!(got["messages"], json!(expected));
    assert_eq!(
        (&got["call"], &got["message_count"], &got["status"]),
        (&Value::Null, &json!(6), &json!("active"))
    );
    app.stop().await;
}

#[tokio::test]
async fn each_filter_and_all_together_show_what_they_say() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    let everything = ids(&app, "").await;
    let short = |id: &str| match id {
        id if id == chat(&app, Provider::Twilio, "+5491133334444") => "ours".to_owned(),
        id if id == chat(&app, Provider::Builderbot, "+5491112345678") => "theirs".to_owned(),
        id if id.starts_with("wa_") => "group".to_owned(),
        id => id
            .trim_end_matches("example00000000000000000")
            .replace("000000000000000000000000000000", ""),
    };
    let ana = [
        "conv_0001",
        "conv_0002",
        "conv_0003",
        "conv_0012",
        "conv_0013",
        "conv_0015",
        "conv_0016",
        "conv_0018",
        "CA31",
        "CA32",
        "SM11",
        "MM25",
        "ours",
    ];
    let rows: Vec<(Vec<(&str, &str)>, Vec<&str>)> = vec![
        (vec![("channel", "sms")], vec!["conv_0016", "SM11", "MM25"]),
        (
            vec![("channel", "whatsapp")],
            vec!["conv_0015", "ours", "theirs", "group"],
        ),
        (
            vec![("status", "voicemail")],
            vec!["conv_0011", "conv_0018"],
        ),
        (vec![("status", "unheard of")], vec![]),
        (
            vec![("direction", "inbound")],
            vec![
                "conv_0012",
                "conv_0015",
                "CA31",
                "SM11",
                "MM25",
                "ours",
                "theirs",
                "group",
            ],
        ),
        (vec![("provider", "builderbot")], vec!["theirs", "group"]),
        (
            vec![("provider", "twilio")],
            vec!["CA31", "CA32", "SM11", "MM25", "ours"],
        ),
        (vec![("phone", "+5491133334444")], ana.to_vec()),
        // A plus sign that nobody encoded, and none at all.
        (vec![("phone", " 5491133334444")], ana.to_vec()),
        (vec![("phone", "919812345678")], vec!["conv_0011"]),
        (vec![("phone", "+573001234567")], vec![]),
        (vec![("agent_id", "xyz")], vec!["abc"]),
        (
            vec![("batch_id", "btcal_0001example0000000000000000")],
            vec!["conv_0001", "conv_0013"],
        ),
        (vec![("to", "2025-10-28T23:27:53Z")], vec!["abc"]),
        // Both ends belong to it, in any time zone.
        (
            vec![
                ("from", "2025-10-28T23:27:54Z"),
                ("to", "2025-10-28T23:28:00Z"),
            ],
            vec!["conv_0001", "conv_0013", "CA31", "theirs"],
        ),
        (
            vec![
                ("from", "2025-10-28T18:28:00-05:00"),
                ("to", "2025-10-28T18:28:00-05:00"),
            ],
            vec!["CA31"],
        ),
        (vec![("from", "2025-10-28T23:32:41Z")], vec![]),
        (
            vec![
                ("channel", "call"),
                ("status", "failed"),
                ("direction", "outbound"),
                ("provider", "twilio"),
                ("phone", "+5491133334444"),
                ("from", "2025-10-28T00:00:00Z"),
                ("to", "2025-10-29T00:00:00Z"),
            ],
            vec!["CA32"],
        ),
        (
            vec![("channel", "call"), ("provider", "builderbot")],
            vec![],
        ),
        // What is empty does not filter.
        (
            vec![
                ("agent_id", "xyz"),
                ("status", ""),
                ("phone", ""),
                ("from", ""),
                ("q", ""),
            ],
            vec!["abc"],
        ),
    ];
    for (filters, expected) in rows {
        let got = ids(&app, &query(&filters)).await;
        let in_order: Vec<_> = everything
            .iter()
            .filter(|id| got.contains(id))
            .cloned()
            .collect();
        assert_eq!(got, in_order, "{filters:?}: the newest first");
        let got: HashSet<String> = got.iter().map(|id| short(id)).collect();
        assert_eq!(
            got,
            expected.into_iter().map(str::to_owned).collect(),
            "{filters:?}"
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps_or_repeats_while_new_rows_come() {
    let app = TestApp::start().await;
    // Many begin at the same moment: the cursor must tell those apart too.
    let more = |from: i32, to: i32| {
        format!(
            "insert into interactions (id, channel, status, started_at, last_event_at, message_count, first_position, last_position)
             select 'i' || n, 'call', 'completed', to_timestamp(1761694000 + n / 40), now(), 0, n, n
               from generate_series({from}, {to}) as n"
        )
    };
    sqlx::query(&more(1, 700)).execute(&app.pool).await.unwrap();
    let expected: Vec<String> =
        sqlx::query_scalar("select id from interactions order by started_at desc, id desc")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    for limit in [7, 50, 200] {
        let (mut got, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app
                .read(&format!(
                    "/api/interactions?channel=call&limit={limit}&cursor={cursor}"
                ))
                .await;
            let rows = page["data"].as_array().unwrap();
            got.extend(
                rows.iter()
                    .map(|row| row["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next_cursor"].as_str() else {
                break;
            };
            assert_eq!(rows.len(), limit, "a page that is followed is full");
            cursor = next.to_owned();
            // They are newer, so they belong before the first page.
            let at = 1_000_000 + i32::try_from(got.len() + limit * 10_000).unwrap();
            sqlx::query(&more(at, at)).execute(&app.pool).await.unwrap();
        }
        let newer: HashSet<String> = got
            .iter()
            .filter(|id| !expected.contains(id))
            .cloned()
            .collect();
        got.retain(|id| !newer.contains(id));
        assert_eq!(got, expected, "limit {limit}");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_last_page_says_so_even_when_it_is_full() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    let page = app.read("/api/interactions?limit=19").await;
    assert_eq!(
        (page["data"].as_array().unwrap().len(), &page["next_cursor"]),
        (19, &Value::Null)
    );
    let page = app.read("/api/interactions?limit=18").await;
    let last = app
        .read(&format!(
            "/api/interactions?limit=18&cursor={}",
            page["next_cursor"].as_str().unwrap()
        ))
        .await;
    assert_eq!(
        (of(&last["data"], "id"), &last["next_cursor"]),
        (vec![json!("abc")], &Value::Null)
    );
    app.stop().await;
}

/// The carrier's callbacks and the agent's report tell of the same call, in
/// whichever order they come.
#[tokio::test]
async fn a_call_is_one_interaction_in_whatever_order_it_is_told() {
    let names = [
        "twilio/voice.status.completed.form",
        "elevenlabs/post_call_transcription.json",
        "elevenlabs/post_call_audio.json",
    ];
    let mut first: Option<Value> = None;
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let app = TestApp::start().await;
        for at in order {
            send(&app, names[at]).await;
        }
        assert_eq!(ids(&app, "").await, [CALL], "{order:?}");
        let mut got = detail(&app, CALL).await;
        assert_eq!(
            detail(&app, LEG).await,
            got,
            "{order:?}: by the carrier's id"
        );
        let mut types = of(&got["events"], "type");
        types.sort_by_key(ToString::to_string);
        assert_eq!(
            types,
            ["call.audio_received", "call.completed", "call.progressed"],
            "{order:?}"
        );
        got.as_object_mut().unwrap().remove("events");
        let first = first.get_or_insert_with(|| got.clone());
        assert_eq!(&got, first, "{order:?}");
        app.stop().await;
    }
}

#[tokio::test]
async fn statuses_in_any_order_never_go_back_and_are_all_on_the_timeline() {
    let app = TestApp::start().await;
    let mut orders = vec![vec![]];
    for _ in 0..4 {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..4)
                    .filter(|n| !order.contains(n))
                    .map(|n| [order.clone(), vec![n]].concat())
            })
            .collect();
    }
    let words = ["queued", "sent", "delivered", "read"];
    let status = |sid: &str, word: &str| {
        let form = format!(
            "MessageSid={sid}&MessageStatus={word}&From=whatsapp%3A%2B14155238886&To=whatsapp%3A%2B5491133334444"
        );
        ok(app.twilio("/webhooks/twilio/sms/status", form))
    };
    for (n, order) in orders.iter().enumerate() {
        for at in order {
            assert_eq!(
                status(&format!("SM{n}"), words[*at]).await["status"],
                "accepted",
                "{order:?}"
            );
        }
    }
    for (sid, first, second) in [
        ("SMf1", "failed", "sent"),
        ("SMf2", "undelivered", "sent"),
        ("SMf3", "sent", "failed"),
        ("SMf4", "undelivered", "delivered"),
    ] {
        for word in [first, second] {
            status(sid, word).await;
        }
    }
    app.settle().await;
    let got = detail(&app, &chat(&app, Provider::Twilio, "+5491133334444")).await;
    let messages = got["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 24 + 4);
    for message in messages {
        let id = message["id"].as_str().unwrap();
        let expected = match id {
            "SMf1" | "SMf3" => "failed",
            "SMf2" => "undelivered",
            "SMf4" => "delivered",
            _ => "read",
        };
        assert_eq!(message["status"], expected, "{id}");
        if expected == "read" {
            assert!(
                ["sent_at", "delivered_at", "read_at"]
                    .iter()
                    .all(|at| !message[*at].is_null()),
                "{message}"
            );
        }
    }
    assert_eq!(
        got["events"].as_array().unwrap().len(),
        24 * 4 + 4 * 2,
        "every callback is there"
    );
    app.stop().await;
}

#[tokio::test]
async fn search_finds_words_as_people_type_them() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    let form = String::from_utf8(fixture("twilio/whatsapp.inbound.text.form"))
        .unwrap()
        .replace("SM00000000000000000000000000000011", "SM77");
    ok(app.twilio("/webhook/twilio/incoming", form)).await;
    app.settle().await;
    let (ours, theirs) = (
        chat(&app, Provider::Twilio, "+5491133334444"),
        chat(&app, Provider::Builderbot, "+5491112345678"),
    );
    let (call, no_transcript) = (
        CALL.to_owned(),
        "conv_0013example00000000000000000".to_owned(),
    );
    let conv = |n: u32| format!("conv_{n:04}example00000000000000000");
    let rows: Vec<(&str, &str, Vec<String>)> = vec![
        ("a message", "precio", vec![ours.clone()]),
        ("with an accent", "cuál", vec![ours.clone()]),
        ("without it", "cual", vec![ours.clone()]),
        ("with a wrong one", "précio", vec![ours.clone()]),
        ("in capitals", "PRECIO", vec![ours.clone()]),
        ("another form of the word", "precios", vec![ours.clone()]),
        ("two words, anywhere", "precio interesa", vec![ours.clone()]),
        ("two words, one missing", "precio perro", vec![]),
        ("a phrase", "\"es el precio\"", vec![ours.clone()]),
        ("no such phrase", "\"precio el es\"", vec![]),
        ("a message of ours", "pedido", vec![theirs.clone()]),
        (
            "a summary",
            "acuerda noviembre",
            vec![no_transcript.clone(), call.clone()],
        ),
        ("a transcript", "decime", vec![call.clone()]),
        (
            "not this word",
            "noviembre -decime",
            vec![no_transcript.clone()],
        ),
        (
            "either",
            "precio or decime",
            vec![ours.clone(), call.clone()],
        ),
        (
            "a text session",
            "hablo con Luis",
            vec![conv(16), conv(15), conv(11)],
        ),
        ("another language", "\"fun fact\"", vec!["abc".to_owned()]),
        ("nothing like it", "zzzz", vec![]),
        ("only marks", "&|!():*'\"<->", vec![]),
        ("an open quotation", "\"es el precio", vec![ours.clone()]),
        ("SQL", "'; drop table interactions; --", vec![]),
    ];
    for (what, q, expected) in rows {
        let got: HashSet<String> = ids(&app, &query(&[("q", q)])).await.into_iter().collect();
        assert_eq!(got, expected.into_iter().collect(), "{what}: {q}");
    }
    assert_eq!(
        ids(
            &app,
            &query(&[("q", "noviembre"), ("status", "completed"), ("limit", "1")])
        )
        .await,
        [no_transcript],
        "with filters and pages"
    );
    app.stop().await;
}

/// Every answer in which a client's number could stand.
async fn whatever_may_hold_a_number(app: &TestApp, extra: &str) -> Vec<(String, String)> {
    let mut paths = vec![
        format!("/api/interactions?limit=200{extra}"),
        format!("/api/ledger/events?limit=200{extra}"),
    ];
    for id in ids(app, "limit=200").await {
        paths.extend([
            format!("/api/interactions/{id}?x{extra}"),
            format!("/api/interactions/{id}?raw=true{extra}"),
            format!("/api/interactions/{id}?as_of=9999{extra}"),
        ]);
    }
    let mut answers = Vec::new();
    for path in paths {
        let text = app.read(&path).await.to_string();
        answers.push((path, text));
    }
    answers
}

#[tokio::test]
async fn no_answer_shows_a_whole_number_unless_it_is_revealed() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    for (path, text) in whatever_may_hold_a_number(&app, "").await {
        for number in CLIENT_NUMBERS {
            assert!(!text.contains(number), "{path} shows {number}:\n{text}");
        }
    }
    let revealed: String = whatever_may_hold_a_number(&app, "&reveal=true")
        .await
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    for number in CLIENT_NUMBERS {
        assert!(revealed.contains(number), "{number} can be revealed");
    }
    app.stop().await;
}

#[tokio::test]
async fn numbers_are_shown_where_masking_is_switched_off() {
    let config = |config: &mut bitacora::config::Config| config.mask_phone_numbers = false;
    let app = TestApp::with(Options {
        config,
        ..Options::default()
    })
    .await;
    send(&app, "elevenlabs/post_call_transcription.json").await;
    let row = &app.read("/api/interactions").await["data"][0];
    assert_eq!(row["phone_number"], "+5491133334444");
    let got = detail(&app, CALL).await;
    assert_eq!(got["phone_number"], "+5491133334444");
    assert_eq!(
        got["events"][0]["payload"]["phone_number"],
        "+5491133334444"
    );
    assert_eq!(
        got["call"]["dynamic_variables"]["system__called_number"],
        "+5491133334444"
    );
    assert_eq!(
        app.read("/api/ledger/events").await["data"][0]["payload"]["phone_number"],
        "+5491133334444"
    );
    app.stop().await;
}

/// Who, what, when, and the refusals too.
#[tokio::test]
async fn a_reveal_is_put_on_record_before_it_is_shown() {
    let app = TestApp::start().await;
    send(&app, "elevenlabs/post_call_transcription.json").await;
    let path = format!("/api/interactions/{CALL}?reveal=true");
    for (role, status, phone) in [
        ("agent", 403, Value::Null),
        ("service", 403, Value::Null),
        ("supervisor", 200, json!("+5491133334444")),
        ("auditor", 200, json!("+5491133334444")),
        ("admin", 200, json!("+5491133334444")),
    ] {
        let (got, body) = answer(
            app.get_as(role, &path)
                .header("X-Request-Id", format!("as-{role}")),
        )
        .await;
        assert_eq!(
            (got, &body["data"]["phone_number"]),
            (status, &phone),
            "{role}"
        );
    }
    answer(app.get_as(
        "supervisor",
        "/api/interactions?reveal=true&phone=%2B5491133334444",
    ))
    .await;
    app.settle().await;
    let log = app.read("/api/audit-log").await;
    let now = app
        .clock
        .now()
        .to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    let record = |position: i64, actor: &str, role: Value, outcome: &str, id: &str| {
        json!({
            "position": position, "occurred_at": now, "actor": actor, "role": role, "action": "reveal_interaction", "target": CALL,
            "outcome": outcome, "from": "127.0.0.1", "request_id": id, "detail": null,
        })
    };
    let list = &log["data"][0];
    assert_eq!(
        (&list["action"], &list["target"], &list["outcome"]),
        (&json!("reveal_interactions"), &Value::Null, &json!("ok"))
    );
    let expected = json!([
        record(6, "user:7", json!("admin"), "ok", "as-admin"),
        record(5, "user:7", json!("auditor"), "ok", "as-auditor"),
        record(4, "user:7", json!("supervisor"), "ok", "as-supervisor"),
        record(3, "service", Value::Null, "forbidden", "as-service"),
        record(2, "user:7", json!("agent"), "forbidden", "as-agent"),
    ]);
    assert_eq!(
        Value::Array(log["data"].as_array().unwrap()[1..].to_vec()),
        expected
    );
    let ledger: Vec<Value> =
        sqlx::query_scalar("select payload from events where event_type = 'audit.recorded'")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert_eq!(ledger.len(), 6, "they are on the ledger");
    assert!(
        !format!("{ledger:?}").contains("5491133334444"),
        "and hold no number"
    );
    app.stop().await;
}

#[tokio::test]
async fn raw_shows_what_the_provider_sent_with_numbers_masked() {
    let app = TestApp::start().await;
    send(&app, "elevenlabs/post_call_transcription.json").await;
    send(&app, "twilio/voice.status.completed.form").await;
    let got = app
        .read(&format!("/api/interactions/{CALL}?raw=true"))
        .await;
    let events = got["data"]["events"].as_array().unwrap();
    let sent = String::from_utf8(fixture("elevenlabs/post_call_transcription.json"))
        .unwrap()
        .replace("5491133334444", "54*******4444");
    assert_eq!(
        events[0]["raw"],
        serde_json::from_str::<Value>(&sent).unwrap()
    );
    let form = String::from_utf8(fixture("twilio/voice.status.completed.form"))
        .unwrap()
        .replace("5491133334444", "54*******4444");
    assert_eq!(events[1]["raw"], form, "what is no JSON is text");
    app.stop().await;
}

#[tokio::test]
async fn a_recording_can_be_heard_from_any_moment_on() {
    let app = TestApp::start().await;
    send(&app, "elevenlabs/post_call_transcription.json").await;
    let audio = format!("/api/interactions/{CALL}/audio");
    let (status, _) = answer(app.get_as("agent", &audio)).await;
    assert_eq!(status, 404, "it has not come yet");
    send(&app, "elevenlabs/post_call_audio.json").await;
    send(&app, "twilio/voice.status.completed.form").await;
    let sound = b"ID3\x04\0\0\0\0\0\0";
    let rows: [(Option<&str>, u16, &[u8], Option<&str>); 9] = [
        (None, 200, sound, None),
        (Some("bytes=0-2"), 206, b"ID3", Some("bytes 0-2/10")),
        (
            Some("bytes=3-"),
            206,
            b"\x04\0\0\0\0\0\0",
            Some("bytes 3-9/10"),
        ),
        (Some("bytes=-1"), 206, b"\0", Some("bytes 9-9/10")),
        (Some("bytes=0-999"), 206, sound, Some("bytes 0-9/10")),
        (Some("bytes=10-"), 416, b"", Some("bytes */10")),
        (Some("bytes=5-2"), 416, b"", Some("bytes */10")),
        (Some("bytes=0-0,2-3"), 200, sound, None),
        (Some("chapters=1-2"), 200, sound, None),
    ];
    for (range, status, expected, content_range) in rows {
        for path in [audio.clone(), format!("/api/interactions/{LEG}/audio")] {
            let mut request = app.get_as("agent", &path);
            if let Some(range) = range {
                request = request.header("range", range);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{range:?}");
            let header = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            assert_eq!(
                header("content-range").as_deref(),
                content_range,
                "{range:?}"
            );
            if status < 300 {
                assert_eq!(
                    header("content-type").as_deref(),
                    Some("audio/mpeg"),
                    "{range:?}"
                );
                assert_eq!(
                    header("accept-ranges").as_deref(),
                    Some("bytes"),
                    "{range:?}"
                );
            }
            assert_eq!(response.bytes().await.unwrap(), expected, "{range:?}");
        }
    }
    app.stop().await;
}

/// The answer of every step is kept, with the position and the time; asked
/// about later, each step gives its answer again.
#[tokio::test]
async fn the_past_is_answered_as_it_was_answered_then() {
    let app = TestApp::start().await;
    let steps = [
        "twilio/voice.status.completed.form",
        "elevenlabs/post_call_audio.json",
        "twilio/whatsapp.inbound.button.form",
        "elevenlabs/post_call_transcription.json",
        "twilio/whatsapp.status.sent.form",
        "twilio/whatsapp.status.read.form",
        "twilio/whatsapp.status.delivered.form",
        "elevenlabs/call_initiation_failure.sip.json",
        "twilio/whatsapp.inbound.reply_forwarded.form",
    ];
    let chat = chat(&app, Provider::Twilio, "+5491133334444");
    let asked = [
        LEG,
        CALL,
        chat.as_str(),
        "conv_0003example00000000000000000",
    ];
    let mut kept = Vec::new();
    for step in steps {
        app.clock.advance(chrono::Duration::seconds(5));
        send(&app, step).await;
        let (position, now): (i64, chrono::DateTime<chrono::Utc>) =
            sqlx::query_as("select max(position), clock_timestamp() from events")
                .fetch_one(&app.pool)
                .await
                .unwrap();
        for id in asked {
            let (status, mut body) =
                answer(app.get_as("agent", &format!("/api/interactions/{id}"))).await;
            body.as_object_mut().unwrap().remove("request_id");
            kept.push((step, id, position, now, status, body));
        }
    }
    let changes: HashSet<String> = kept.iter().map(|(.., body)| body.to_string()).collect();
    assert!(
        changes.len() > steps.len(),
        "the answers change as facts come"
    );
    for (step, id, position, now, status, then) in kept {
        let now = now.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        for as_of in [position.to_string(), now] {
            let (got, mut body) =
                answer(app.get_as("agent", &format!("/api/interactions/{id}?as_of={as_of}"))).await;
            body.as_object_mut().unwrap().remove("request_id");
            assert_eq!(
                (got, body),
                (status, then.clone()),
                "{id} as of {as_of}, after {step}"
            );
        }
    }
    for as_of in ["0", "2020-01-01T00:00:00Z"] {
        assert_eq!(
            answer(app.get_as("agent", &format!("/api/interactions/{chat}?as_of={as_of}")))
                .await
                .0,
            404,
            "{as_of}: before everything"
        );
    }
    app.stop().await;
}
