//! The ledger: it only grows, in one order, and can be read by the auditor as
//! a list, as a stream and byte for byte. Contract, section 8.

use std::collections::BTreeMap;
use std::time::Duration;

use bitacora::ledger::{self, Entry, Limits, Store, Writer, events};
use domain::user::{self, Registered, Role, User};
use futures_util::future::join_all;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};

use crate::harness::app::{BUILDERBOT_TOKEN, ELEVENLABS_TOKEN, Options, answer, ok};
use crate::harness::{TestApp, fixture, postgres};
use crate::ingest::{every_fixture, send_fixture};
use crate::interactions::send_everything;

/// What a reader of a stream waits for at most.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn nothing_on_the_ledger_can_be_changed_by_anybody() {
    // As the service runs: on a database that its own, ordinary role owns.
    let url = postgres::database_of_an_ordinary_role().await;
    let pool = PgPool::connect(&url).await.unwrap();
    ledger::migrate(&pool).await.unwrap();
    let app = TestApp::with(Options {
        database_url: Some(url.clone()),
        ..Options::default()
    })
    .await;
    send_everything(&app).await;
    let before = contents(&pool).await;
    let statements: Vec<String> = [("events", "aggregate_id"), ("deliveries", "provider")]
        .into_iter()
        .flat_map(|(table, column)| {
            [
                format!("update {table} set {column} = {column}"),
                format!("update {table} set {column} = '' where false"),
                format!("delete from {table}"),
                format!("truncate {table}"),
                format!("truncate {table} cascade"),
            ]
        })
        .collect();
    let owner = PgConnection::connect(&url).await.unwrap();
    let superuser = PgConnection::connect(&postgres::as_superuser(&url))
        .await
        .unwrap();
    for (who, mut conn) in [("the service", owner), ("a superuser", superuser)] {
        for granted in [false, true] {
            if granted {
                // An owner can give itself every right: the triggers stay.
                let grant = "grant all on events, deliveries to current_user";
                sqlx::query(grant).execute(&mut conn).await.unwrap();
            }
            for sql in &statements {
                let error = sqlx::query(sql).execute(&mut conn).await.expect_err(sql);
                let code = error
                    .as_database_error()
                    .unwrap()
                    .code()
                    .unwrap()
                    .into_owned();
                assert_eq!(
                    code, "42501",
                    "{who}, rights granted: {granted}: {sql}: {error}"
                );
                let by_trigger = error.to_string().contains("the ledger only grows");
                assert_eq!(
                    by_trigger,
                    granted || who == "a superuser",
                    "{who}: {sql}: {error}"
                );
            }
        }
    }
    assert_eq!(contents(&pool).await, before);
    app.stop().await;
}

async fn contents(pool: &PgPool) -> Vec<String> {
    let sql = "select e::text from events e union all select d::text from deliveries d order by 1";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

/// An audit record of `who`, ready to be appended.
fn fact(who: usize, n: usize) -> Entry {
    let recorded = domain::audit::Recorded {
        actor: format!("user:{who}"),
        role: None,
        action: format!("act_{n}"),
        target: None,
        outcome: "ok".into(),
        from: None,
        request_id: None,
        detail: None,
    };
    let fact = domain::Fact {
        stream: domain::StreamId::audit(format!("user:{who}")),
        event: domain::Event::Audit(domain::audit::Event::Recorded(recorded)),
        occurred_at: None,
    };
    Entry::Facts(vec![fact], json!({}))
}

/// A reader that always asks for what comes after the last one it saw sees
/// everything, whoever writes and however long a transaction stays open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_seen_a_position_is_never_shown_a_smaller_one() {
    const WRITERS: usize = 16;
    const EACH: usize = 12;
    let pool = bitacora::app::connect(&postgres::fresh_database().await, 24)
        .await
        .unwrap();
    // It draws the first position, and commits only when others wait to.
    let mut first = pool.begin().await.unwrap();
    let slow = "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
                values ('line', 'slow', 1, 'line.status_changed', '1', '{}', '{}') returning position";
    let slow: i64 = sqlx::query_scalar(slow)
        .fetch_one(&mut *first)
        .await
        .unwrap();

    let writing = tokio::spawn({
        let pool = pool.clone();
        async move {
            let (one, one_task) = Writer::start(pool.clone(), Limits::default());
            let (other, other_task) = Writer::start(pool.clone(), Limits::default());
            join_all((0..WRITERS).map(|who| {
                let (pool, writer) = (
                    pool.clone(),
                    if who % 4 < 2 {
                        one.clone()
                    } else {
                        other.clone()
                    },
                );
                async move {
                    for n in 0..EACH {
                        // Half through the batch writers, half through postgres-es.
                        if who % 2 == 0 {
                            writer.append(fact(who, n)).await.unwrap();
                        } else {
                            let id = i32::try_from(who * 1000 + n).unwrap();
                            register(&pool, id).await;
                        }
                    }
                }
            }))
            .await;
            drop((one, other));
            one_task.drained().await;
            other_task.drained().await;
        }
    });
    // Either somebody waits for the lock, or somebody got past it: a mistake
    // that the reader below then sees.
    let blocked_or_past = "select exists (select from pg_locks where locktype = 'advisory' and not granted
                                           and database = (select oid from pg_database where datname = current_database()))
                           or exists (select from events)";
    while !sqlx::query_scalar::<_, bool>(blocked_or_past)
        .fetch_one(&pool)
        .await
        .unwrap()
    {
        tokio::task::yield_now().await;
    }
    let total = WRITERS * EACH + 1;
    let mut seen = Vec::new();
    seen.extend(read_on(&pool, 0).await);
    first.commit().await.unwrap();
    while seen.len() < total
        && !(writing.is_finished() && read_on(&pool, last(&seen)).await.is_empty())
    {
        seen.extend(read_on(&pool, last(&seen)).await);
    }
    writing.await.unwrap();
    let all: Vec<i64> = sqlx::query_scalar("select position from events order by position")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!((seen.first(), all.len()), (Some(&slow), total));
    assert_eq!(
        seen, all,
        "the reader saw every event, in the order of positions"
    );
    assert_no_gaps(&pool).await;
}

fn last(seen: &[i64]) -> i64 {
    seen.last().copied().unwrap_or_default()
}

async fn read_on(pool: &PgPool, after: i64) -> Vec<i64> {
    let filter = events::Filter {
        after,
        ..Default::default()
    };
    events::list(pool, &crate::harness::app::opener(), &filter, 1000)
        .await
        .unwrap()
        .into_iter()
        .map(|event| event.position)
        .collect()
}

/// As stock cqrs-es and postgres-es append.
async fn register(pool: &PgPool, user_id: i32) {
    let registered = || Registered {
        user_id,
        name: "Ana".into(),
        email: format!("{user_id}@example.com"),
        role: Role::Agent,
        agent_id: None,
    };
    let store = Store::new(pool.clone());
    let command = || user::Command::Register(registered());
    store
        .execute::<User>(&user_id.to_string(), command, Default::default())
        .await
        .unwrap();
}

async fn assert_no_gaps(pool: &PgPool) {
    let sql = "select aggregate_type || ' ' || aggregate_id, array_agg(sequence order by position) from events group by 1";
    let streams: Vec<(String, Vec<i64>)> = sqlx::query_as(sql).fetch_all(pool).await.unwrap();
    for (stream, sequences) in streams {
        let expected: Vec<i64> = (1..=i64::try_from(sequences.len()).unwrap()).collect();
        assert_eq!(sequences, expected, "{stream}");
    }
}

#[tokio::test]
async fn sequences_have_no_gaps_whatever_came_and_however_often() {
    let app = TestApp::start().await;
    for round in 0..3 {
        let sent = every_fixture()
            .into_iter()
            .map(|(name, path)| ok(send_fixture(&app, &name, path)));
        join_all(sent).await;
        app.clock.advance(chrono::Duration::minutes(11 * round));
    }
    assert_no_gaps(&app.pool).await;
    app.stop().await;
}

#[tokio::test]
async fn the_auditor_reads_events_whole() {
    let app = TestApp::start().await;
    let sent = ok(app.twilio(
        "/webhooks/twilio/voice/status",
        fixture("twilio/voice.status.completed.form"),
    ))
    .await;
    let list = app.read("/api/ledger/events").await;
    let recorded_at = list["data"][0]["recorded_at"].clone();
    assert!(
        recorded_at.as_str().unwrap().ends_with('Z'),
        "{recorded_at}"
    );
    let expected = json!({
        "success": true,
        "next_cursor": null,
        "data": [{
            "position": 1,
            "aggregate_type": "call",
            "aggregate_id": "CA00000000000000000000000000000001",
            "sequence": 1,
            "type": "call.progressed",
            "version": "1",
            "occurred_at": "2025-10-28T23:29:50Z",
            "recorded_at": recorded_at,
            "delivery_id": sent["delivery_id"],
            "payload": {
                "type": "call.progressed", "call_sid": "CA00000000000000000000000000000001", "outcome": "completed",
                "provider_status": "completed", "sequence_number": 3, "direction": "outbound",
                "phone_number": "+54*******4444", "agent_number": "+14155550100", "duration_secs": 94,
            },
            "metadata": {"provider": "twilio"},
        }],
    });
    assert_eq!(list, expected);
    app.stop().await;
}

#[tokio::test]
async fn events_are_found_by_each_filter_and_page_by_page() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    let all = app.read("/api/ledger/events?limit=200").await["data"].take();
    let all = all.as_array().unwrap().clone();
    let positions: Vec<i64> = all
        .iter()
        .map(|event| event["position"].as_i64().unwrap())
        .collect();
    assert!(
        positions.is_sorted() && positions.len() > 35,
        "{positions:?}"
    );
    let where_is = |field: &str, value: &str| {
        all.iter()
            .filter(|event| event[field] == value)
            .map(|event| event["position"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let (third, fifth) = (
        all[2]["recorded_at"].as_str().unwrap(),
        all[4]["recorded_at"].as_str().unwrap(),
    );
    let rows: Vec<(String, Vec<i64>)> = vec![
        (
            "type=call.completed".into(),
            where_is("type", "call.completed"),
        ),
        ("type=nothing".into(), vec![]),
        (
            "aggregate_type=line".into(),
            where_is("aggregate_type", "line"),
        ),
        (
            "aggregate_id=SM00000000000000000000000000000011".into(),
            where_is("aggregate_id", "SM00000000000000000000000000000011"),
        ),
        (
            "aggregate_type=sms&aggregate_id=SM00000000000000000000000000000011".into(),
            where_is("aggregate_id", "SM00000000000000000000000000000011"),
        ),
        (
            "aggregate_type=call&aggregate_id=SM00000000000000000000000000000011".into(),
            vec![],
        ),
        (format!("after={}", positions[9]), positions[10..].to_vec()),
        (format!("from={third}"), positions[2..].to_vec()),
        (format!("to={third}"), positions[..3].to_vec()),
        (
            format!("from={third}&to={fifth}&after=0"),
            positions[2..5].to_vec(),
        ),
        (
            "from=2000-01-01T00:00:00Z&to=2000-01-02T00:00:00Z".into(),
            vec![],
        ),
    ];
    for (filter, expected) in rows {
        let got = app
            .read(&format!("/api/ledger/events?limit=200&{filter}"))
            .await;
        let got: Vec<i64> = got["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["position"].as_i64().unwrap())
            .collect();
        assert_eq!(got, expected, "{filter}");
        assert!(expected.len() < positions.len(), "{filter} filters");
    }
    for (filter, expected) in [
        ("", positions.clone()),
        (
            "&type=message.received",
            where_is("type", "message.received"),
        ),
    ] {
        let (mut got, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app
                .read(&format!(
                    "/api/ledger/events?limit=5{filter}&cursor={cursor}"
                ))
                .await;
            got.extend(
                page["data"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|event| event["position"].as_i64().unwrap()),
            );
            let Some(next) = page["next_cursor"].as_str() else {
                break;
            };
            next.clone_into(&mut cursor);
        }
        assert_eq!(got, expected, "{filter}");
    }
    app.stop().await;
}

/// Server-sent events as a browser reads them.
struct Stream {
    response: Response,
    buffer: String,
}

impl Stream {
    async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            buffer: String::new(),
        }
    }

    /// The next event: its id, its name, its data. `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let fields: BTreeMap<_, _> = block
                    .lines()
                    .filter_map(|line| line.split_once(": "))
                    .collect();
                let event = fields.get("data").map(|data| {
                    (
                        fields["id"].to_owned(),
                        fields["event"].to_owned(),
                        serde_json::from_str(data).unwrap(),
                    )
                });
                self.buffer = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    None => continue, // A comment.
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .expect("the stream is silent");
            self.buffer
                .push_str(std::str::from_utf8(&chunk.expect("the stream broke")?).unwrap());
        }
    }

    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.next().await.unwrap().0);
        }
        ids
    }
}

fn status_callback(app: &TestApp, sid: &str) -> RequestBuilder {
    let form =
        format!("MessageSid={sid}&MessageStatus=sent&From=%2B14155550100&To=%2B5491133334444");
    app.twilio("/webhooks/twilio/sms/status", form)
}

#[tokio::test]
async fn the_stream_tells_new_events_as_the_list_shows_them() {
    let app = TestApp::start().await;
    ok(status_callback(&app, "SMold")).await;
    let mut stream = Stream::open(app.get_as("auditor", "/api/ledger/stream")).await;
    for n in 2..5 {
        let sent = ok(status_callback(&app, &format!("SM{n}"))).await;
        let (id, name, data) = stream.next().await.unwrap();
        assert_eq!((id, name.as_str()), (sent["position"].to_string(), "event"));
        let listed = app
            .read(&format!("/api/ledger/events?after={}", n - 1))
            .await;
        assert_eq!(data, listed["data"][0], "masked, and in the same words");
        assert_eq!(data["payload"]["contact"], "+54*******4444");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_cut_goes_on_where_it_was() {
    let app = TestApp::start().await;
    for n in 0..5 {
        ok(status_callback(&app, &format!("SM{n}"))).await;
    }
    let resumed = app
        .get_as("admin", "/api/ledger/stream")
        .header("Last-Event-ID", "2");
    assert_eq!(Stream::open(resumed).await.ids(3).await, ["3", "4", "5"]);
    assert_eq!(
        Stream::open(app.get_as("admin", "/api/ledger/stream?after=0"))
            .await
            .ids(5)
            .await,
        ["1", "2", "3", "4", "5"]
    );
    // What the browser knows is newer than what the page asked for at first.
    let both = app
        .get_as("admin", "/api/ledger/stream?after=0")
        .header("Last-Event-ID", "4");
    let mut both = Stream::open(both).await;
    assert_eq!(both.ids(1).await, ["5"]);
    ok(status_callback(&app, "SM6")).await;
    assert_eq!(both.ids(1).await, ["6"], "and then with what is new");
    app.stop().await;
}

#[tokio::test]
async fn the_stream_is_for_auditors_by_header_or_by_query() {
    let app = TestApp::start().await;
    let path = "/api/ledger/stream?after=0";
    for (role, status) in [
        ("nobody", 401),
        ("agent", 403),
        ("supervisor", 403),
        ("service", 403),
    ] {
        assert_eq!(answer(app.get_as(role, path)).await.0, status, "{role}");
    }
    ok(status_callback(&app, "SM1")).await;
    let in_query = |token: &str| {
        app.client
            .get(format!("{}{path}&access_token={token}", app.url))
    };
    assert_eq!(
        Stream::open(in_query(&app.token("auditor")))
            .await
            .ids(1)
            .await,
        ["1"]
    );
    assert_eq!(answer(in_query(&app.token("agent"))).await.0, 403);
    assert_eq!(answer(in_query("garbage")).await.0, 401);
    app.stop().await;
}

#[tokio::test]
async fn streams_end_when_the_service_stops() {
    let mut app = TestApp::start().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(Stream::open(app.get_as("auditor", "/api/ledger/stream")).await);
    }
    let running = app.running.take().unwrap();
    let stopping = tokio::spawn(running.stop());
    for mut stream in streams {
        assert!(stream.next().await.is_none(), "it ends, and does not break");
    }
    tokio::time::timeout(PATIENCE, stopping)
        .await
        .expect("nothing holds it up")
        .unwrap();
}

#[tokio::test]
async fn deliveries_are_found_by_verdict_provider_and_time() {
    let app = TestApp::start().await;
    let at = |app: &TestApp| {
        app.clock
            .now()
            .to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
    };
    let mut sent = Vec::new();
    let mut times = Vec::new();
    let stranger = || {
        app.client
            .post(format!("{}/webhooks/builderbot/whatsapp", app.url))
            .body("x")
    };
    for request in [
        app.elevenlabs(fixture("elevenlabs/post_call_audio.json")),
        app.elevenlabs(fixture("elevenlabs/post_call_audio.json")),
        app.elevenlabs(fixture("elevenlabs/unknown_type.json")),
        status_callback(&app, "SM1"),
        app.builderbot(fixture("builderbot/message.incoming.json")),
        stranger(),
    ] {
        app.clock.advance(chrono::Duration::seconds(1));
        times.push(at(&app));
        sent.push(answer(request).await);
    }
    let list = app.read("/api/deliveries").await["data"].take();
    let newest_first: Vec<Value> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].clone())
        .collect();
    let id = |n: usize| newest_first[5 - n].clone();
    assert_eq!(
        sent.iter().map(|(status, _)| *status).collect::<Vec<_>>(),
        [200, 200, 200, 200, 200, 401]
    );
    let row = |n: usize,
               provider: &str,
               route: &str,
               verdict: &str,
               by: &str,
               position: Value,
               bytes: usize| {
        json!({
            "id": id(n), "provider": provider, "route": route, "verdict": verdict, "reason": list[5 - n]["reason"], "authentication": by,
            "duplicate_of": if verdict == "duplicate" { id(0) } else { Value::Null }, "reprocess_of": null, "reprocessed_as": null,
            "position": position, "received_at": times[n], "remote_addr": "127.0.0.1", "body_bytes": bytes,
        })
    };
    let length = |name: &str| fixture(name).len();
    let audio = length("elevenlabs/post_call_audio.json");
    let expected = json!([
        row(
            5,
            "builderbot",
            "builderbot/whatsapp",
            "rejected",
            "none",
            Value::Null,
            1
        ),
        row(
            4,
            "builderbot",
            "builderbot/whatsapp",
            "accepted",
            "token",
            json!(4),
            length("builderbot/message.incoming.json")
        ),
        row(
            3,
            "twilio",
            "twilio/sms_status",
            "accepted",
            "signature",
            json!(3),
            list[2]["body_bytes"].as_u64().unwrap() as usize
        ),
        row(
            2,
            "elevenlabs",
            "elevenlabs/call",
            "quarantined",
            "signature",
            json!(2),
            length("elevenlabs/unknown_type.json")
        ),
        row(
            1,
            "elevenlabs",
            "elevenlabs/call",
            "duplicate",
            "signature",
            json!(1),
            audio
        ),
        row(
            0,
            "elevenlabs",
            "elevenlabs/call",
            "accepted",
            "signature",
            json!(1),
            audio
        ),
    ]);
    assert_eq!(list, expected);
    let reasons: Vec<bool> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["reason"].is_string())
        .collect();
    assert_eq!(reasons, [true, false, false, true, false, false], "{list}");
    for (filter, expected) in [
        ("verdict=accepted".to_owned(), vec![4, 3, 0]),
        ("verdict=duplicate".to_owned(), vec![1]),
        ("verdict=quarantined".to_owned(), vec![2]),
        ("verdict=rejected".to_owned(), vec![5]),
        ("provider=elevenlabs".to_owned(), vec![2, 1, 0]),
        ("provider=builderbot&verdict=rejected".to_owned(), vec![5]),
        ("provider=twilio&verdict=duplicate".to_owned(), vec![]),
        (format!("from={}", times[3]), vec![5, 4, 3]),
        (format!("to={}", times[1]), vec![1, 0]),
        (
            format!("from={}&to={}&provider=elevenlabs", times[1], times[4]),
            vec![2, 1],
        ),
    ] {
        let got = app.read(&format!("/api/deliveries?{filter}")).await["data"].take();
        let got: Vec<Value> = got
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].clone())
            .collect();
        assert_eq!(
            got,
            expected.into_iter().map(id).collect::<Vec<_>>(),
            "{filter}"
        );
    }
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app
            .read(&format!("/api/deliveries?limit=4&cursor={cursor}"))
            .await;
        paged.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["id"].clone()),
        );
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        next.clone_into(&mut cursor);
    }
    assert_eq!(paged, newest_first);
    app.stop().await;
}

#[tokio::test]
async fn a_delivery_is_shown_byte_for_byte_without_its_secrets() {
    let app = TestApp::start().await;
    let bytes = b"{\"type\":\"post_call_transcription\"\xff}";
    let sent = ok(app
        .client
        .post(format!("{}/webhooks/elevenlabs/call?x=1", app.url))
        .header("X-Webhook-Token", ELEVENLABS_TOKEN)
        .header("Authorization", "Bearer of-a-proxy")
        .header("Cookie", "session=secret")
        .header("X-Service-Token", "secret")
        .header("X-Kept", "yes")
        .header("content-type", "application/json")
        .body(bytes.to_vec()))
    .await;
    let id = sent["delivery_id"].as_str().unwrap();
    let got = app.read(&format!("/api/deliveries/{id}")).await["data"].take();
    assert_eq!(got["body"], Value::Null, "it is no UTF-8");
    assert_eq!(
        got["body_base64"],
        "eyJ0eXBlIjoicG9zdF9jYWxsX3RyYW5zY3JpcHRpb24i/30="
    );
    assert_eq!(got["request_target"], "/webhooks/elevenlabs/call?x=1");
    let headers = got["headers"].as_object().unwrap();
    for (name, value) in [
        ("x-webhook-token", "[removed]"),
        ("authorization", "[removed]"),
        ("cookie", "[removed]"),
        ("x-service-token", "[removed]"),
        ("x-kept", "yes"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!(
        got["signature"],
        json!({"present": false, "valid": null, "reason": null})
    );
    let sent = ok(app
        .client
        .post(format!(
            "{}/webhooks/builderbot/whatsapp?token={BUILDERBOT_TOKEN}&y=2",
            app.url
        ))
        .body("{}"))
    .await;
    let got = app
        .read(&format!(
            "/api/deliveries/{}",
            sent["delivery_id"].as_str().unwrap()
        ))
        .await["data"]
        .take();
    assert_eq!(
        (&got["request_target"], &got["body"]),
        (
            &json!("/webhooks/builderbot/whatsapp?token=[removed]&y=2"),
            &json!("{}")
        )
    );
    let everything: Vec<String> = sqlx::query_scalar("select d::text from deliveries d")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    for secret in [
        ELEVENLABS_TOKEN,
        BUILDERBOT_TOKEN,
        "of-a-proxy",
        "session=secret",
    ] {
        assert!(
            !everything.concat().contains(secret),
            "{secret} is not in the table either"
        );
    }
    app.stop().await;
}

/// With today's secrets: one that was rotated away makes an old signature wrong.
#[tokio::test]
async fn a_stored_signature_can_be_checked_again_and_a_repeat_shows_the_first_ones_bytes() {
    let database_url = postgres::fresh_database().await;
    let app = TestApp::with(Options {
        database_url: Some(database_url.clone()),
        ..Options::default()
    })
    .await;
    let body = fixture("elevenlabs/post_call_transcription.json");
    let mut ids = Vec::new();
    for _ in 0..2 {
        ok(app.elevenlabs(body.clone())).await;
    }
    ok(status_callback(&app, "SM1")).await;
    // Hours later the time in the signature is old, and it was right all the same.
    app.clock.advance(chrono::Duration::hours(5));
    let list = app.read("/api/deliveries").await["data"].take();
    for row in list.as_array().unwrap() {
        let id = row["id"].as_str().unwrap().to_owned();
        let got = app.read(&format!("/api/deliveries/{id}")).await["data"].take();
        assert_eq!(
            got["signature"],
            json!({"present": true, "valid": true, "reason": null}),
            "{row}"
        );
        if row["provider"] == "elevenlabs" {
            assert_eq!(
                got["body"],
                String::from_utf8(body.clone()).unwrap(),
                "{row}"
            );
        }
        ids.push(id);
    }
    app.stop().await;
    let config = |config: &mut bitacora::config::Config| {
        config.provider_secrets.elevenlabs =
            bitacora::providers::Credentials::new([], ["wsec_new".to_owned()]);
        config.provider_secrets.twilio =
            bitacora::providers::Credentials::new([], ["another".to_owned()]);
    };
    let app = TestApp::with(Options {
        database_url: Some(database_url),
        config,
        seed: 2,
        ..Options::default()
    })
    .await;
    for id in ids {
        let got = app.read(&format!("/api/deliveries/{id}")).await["data"].take();
        assert_eq!(
            (&got["signature"]["present"], &got["signature"]["valid"]),
            (&json!(true), &json!(false)),
            "{got}"
        );
        assert!(got["signature"]["reason"].is_string(), "{got}");
    }
    app.stop().await;
}

/// Of every provider that signs and in every form, whatever became of it.
#[tokio::test]
async fn every_signature_that_was_right_is_found_right_again() {
    let app = TestApp::start().await;
    for _ in 0..2 {
        for (name, path) in every_fixture() {
            ok(send_fixture(&app, &name, path)).await;
        }
    }
    for strange in ["{}", "[1]", "no json"] {
        let sent = ok(app.elevenlabs(strange)).await;
        let id = sent["delivery_id"].as_str().unwrap().to_owned();
        answer(app.post_as(
            "admin",
            &format!("/api/deliveries/{id}/reprocess"),
            &json!({}),
        ))
        .await;
    }
    app.clock.advance(chrono::Duration::days(40));
    let sql = "select id, provider, verdict, authentication from deliveries";
    let rows: Vec<(uuid::Uuid, String, String, String)> =
        sqlx::query_as(sql).fetch_all(&app.pool).await.unwrap();
    let (mut right, mut verdicts) = (0, std::collections::BTreeSet::new());
    for (id, provider, verdict, authentication) in rows {
        let got = app.read(&format!("/api/deliveries/{id}")).await["data"].take();
        let signature = &got["signature"];
        let signed = authentication == "signature";
        assert_eq!(signature["present"], json!(signed), "{got}");
        assert_eq!(
            signature["valid"],
            json!(signed.then_some(true)),
            "{provider} {got}"
        );
        right += usize::from(signed);
        verdicts.extend(signed.then_some((provider, verdict)));
    }
    let seen: Vec<_> = verdicts.iter().map(|(a, b)| format!("{a} {b}")).collect();
    for expected in [
        "elevenlabs accepted",
        "elevenlabs duplicate",
        "elevenlabs quarantined",
        "twilio accepted",
        "twilio duplicate",
    ] {
        assert!(seen.iter().any(|it| it == expected), "{expected}: {seen:?}");
    }
    assert!(right > 20, "{right}");
    app.stop().await;
    // A key that is not set any more leaves nothing to check with.
    let config = |config: &mut bitacora::config::Config| {
        config.provider_secrets.elevenlabs =
            bitacora::providers::Credentials::new(["token".to_owned()], []);
    };
    let app = TestApp::with(Options {
        config,
        ..Options::default()
    })
    .await;
    let token = app
        .client
        .post(format!("{}/webhooks/elevenlabs/call", app.url));
    let token = token
        .header("X-Webhook-Token", "token")
        .header("ElevenLabs-Signature", "t=1,v0=00");
    let sent = ok(token.body(fixture("elevenlabs/post_call_audio.json"))).await;
    let got = app
        .read(&format!(
            "/api/deliveries/{}",
            sent["delivery_id"].as_str().unwrap()
        ))
        .await;
    let signature = &got["data"]["signature"];
    assert_eq!(
        (&signature["present"], &signature["valid"]),
        (&json!(true), &Value::Null),
        "{signature}"
    );
    assert!(signature["reason"].is_string());
    app.stop().await;
}

#[tokio::test]
async fn reading_a_delivery_is_put_on_record() {
    let app = TestApp::start().await;
    let sent = ok(app.elevenlabs(fixture("elevenlabs/post_call_audio.json"))).await;
    let id = sent["delivery_id"].as_str().unwrap();
    answer(app.get_as("agent", &format!("/api/deliveries/{id}"))).await;
    app.read(&format!("/api/deliveries/{id}")).await;
    app.settle().await;
    let log = app.read("/api/audit-log?action=get_delivery").await["data"].take();
    let outcomes: Vec<(&str, &str)> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["role"].as_str().unwrap(),
                row["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(outcomes, [("auditor", "ok"), ("agent", "forbidden")]);
    assert!(
        log.as_array()
            .unwrap()
            .iter()
            .all(|row| row["target"] == id),
        "{log}"
    );
    app.stop().await;
}
