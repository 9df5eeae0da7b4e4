//! The right to be forgotten: what is left of a person who was erased, and what
//! is not. docs/adr/0020.

use std::process::Command;

use base64::Engine as _;
use sandbox::{AGENT_SURVEY, PHONE_TWILIO, Sandbox};
use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::app::{BEGINNING_UNIX, Options, answer, fixture_of, ok};
use crate::harness::read_models::assert_equal_a_rebuild;
use crate::replicas::two;

/// A person: no stem and no accent changes these words.
pub struct Person {
    pub digits: &'static str,
    pub name: &'static str,
    pub words: &'static str,
    /// What tells their fixtures' ids apart.
    pub n: &'static str,
}

pub const ZOE: Person = Person {
    digits: "573007654321",
    name: "Zwqtrk",
    words: "xklmprst",
    n: "7",
};
pub const EVA: Person = Person {
    digits: "573001112233",
    name: "Evvbnmk",
    words: "qqwwrrtt",
    n: "8",
};

impl Person {
    pub fn number(&self) -> String {
        format!("+{}", self.digits)
    }

    /// Whatever a number may be found by, a name, and words.
    fn traces(&self) -> Vec<String> {
        let local = &self.digits[2..];
        let spaced = format!("{} {} {}", &local[..3], &local[3..6], &local[6..]);
        [local, &spaced, self.name, self.words]
            .map(str::to_lowercase)
            .to_vec()
    }

    pub fn of(&self, path: &str) -> Vec<u8> {
        let swaps = [
            ("5491133334444", self.digits),
            ("5491112345678", self.digits),
            ("Ana", self.name),
            ("Juan", self.name),
            ("0001example", &format!("000{}example", self.n)),
            ("000000000000011", &format!("00000000000001{}", self.n)),
            ("00000000000001\"", &format!("0000000000000{}\"", self.n)),
            ("00000000000001&", &format!("0000000000000{}&", self.n)),
            ("acuerda", self.words),
            ("confirma", self.words),
            ("interesa", self.words),
            ("ayuda", self.words),
        ];
        fixture_of(path, &swaps)
    }
}

async fn world() -> (TestApp, Sandbox) {
    let options = sandbox::Options {
        manual_clock: true,
        clock_start_unix: Some(BEGINNING_UNIX.unsigned_abs()),
        ..sandbox::Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    let app = TestApp::with(Options {
        providers_url: Some(sandbox.url()),
        ..Options::default()
    })
    .await;
    (app, sandbox)
}

/// Everything that a person can leave behind.
async fn traffic(app: &TestApp, person: &Person) {
    for path in [
        "elevenlabs/post_call_transcription.json",
        "elevenlabs/post_call_audio.json",
        "elevenlabs/call_initiation_failure.twilio.json",
    ] {
        ok(app.elevenlabs(person.of(path))).await;
    }
    ok(app.twilio(
        "/webhook/twilio/incoming",
        person.of("twilio/whatsapp.inbound.text.form"),
    ))
    .await;
    ok(app.twilio(
        "/webhooks/twilio/sms/status",
        person.of("twilio/whatsapp.status.delivered.form"),
    ))
    .await;
    ok(app.twilio(
        "/webhooks/twilio/sms/status",
        person.of("twilio/sms.status.sent.form"),
    ))
    .await;
    ok(app.twilio(
        "/webhooks/twilio/voice/status",
        person.of("twilio/voice.status.completed.form"),
    ))
    .await;
    ok(app.builderbot(person.of("builderbot/message.incoming.json"))).await;
    // Not understood, not authentic, and once more.
    ok(app
        .elevenlabs(json!({"type": "new", "name": person.name, "to": person.digits}).to_string()))
    .await;
    let stranger = app
        .client
        .post(format!("{}/webhooks/elevenlabs/call", app.url));
    answer(stranger.body(person.of("elevenlabs/post_call_transcription.json"))).await;
    ok(app.elevenlabs(person.of("elevenlabs/post_call_transcription.json"))).await;
    app.settle().await;

    let number = person.number();
    let as_service = |path: &str, body: Value| {
        let request = app.post_as("service", path, &body);
        request.header("Idempotency-Key", format!("{path} {}", person.n))
    };
    let (status, body) = answer(as_service(
        "/api/otp",
        json!({"phone_number": number, "purpose": "login"}),
    ))
    .await;
    assert!(status < 300, "{body}");
    let recipients = json!([{"phone_number": number, "dynamic_variables": {"nombre": person.name}},
                            {"phone_number": "+573009998877", "dynamic_variables": {"nombre": "Otra"}}]);
    let order = json!({"call_name": "Campaña", "agent_id": AGENT_SURVEY,
                       "agent_phone_number_id": PHONE_TWILIO, "recipients": recipients});
    let (status, body) = answer(as_service("/api/batch-calling/submit", order)).await;
    assert!(status < 300, "{body}");
    // What the provider lists of it is recorded too.
    let mut monitor = bitacora::batches::Monitor::default();
    monitor.run_once(app.app()).await.unwrap();
    let csv = format!(
        "Nombre;Teléfono;Email\n{0};{1};{0}@example.com\n",
        person.name, person.digits
    );
    let csv = base64::engine::general_purpose::STANDARD.encode(csv);
    let group = json!({"name": "Clientes", "base64": csv});
    let group = app.post_as("supervisor", "/api/groups", &group);
    let (status, body) =
        answer(group.header("Idempotency-Key", format!("group {}", person.n))).await;
    assert!(status < 300, "{body}");
    let conversation = format!("/api/conversations/%2B{}", person.digits);
    let write = json!({"content": format!("Hola {} {}", person.name, person.words)});
    let (status, body) =
        answer(app.post_as("agent", &format!("{conversation}/messages"), &write)).await;
    assert!(status < 300, "{body}");
    let why = json!({"reason": format!("{} lo pide", person.name)});
    ok(app.post_as("agent", &format!("{conversation}/escalate"), &why)).await;
    ok(app.get_as(
        "supervisor",
        &format!("/api/interactions?phone=%2B{}&reveal=true", person.digits),
    ))
    .await;
    app.settle().await;
}

/// Tables of any schema, and of whatever kind, in a row of which a text stands.
async fn tables_with(app: &TestApp, text: &str) -> Vec<String> {
    let sql = "select format('%I.%I', table_schema, table_name) from information_schema.tables
               where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&app.pool).await.unwrap();
    assert!(tables.len() > 30, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        // A row's text has all its columns; those of bytes are in hex.
        let sql = format!(
            "select exists (select from {table} t where strpos(lower(t::text), $1) > 0 or strpos(lower(t::text), $2) > 0)"
        );
        let is_there: bool = sqlx::query_scalar(&sql)
            .bind(text)
            .bind(hex::encode(text))
            .fetch_one(&app.pool)
            .await
            .unwrap();
        if is_there {
            found.push(table);
        }
    }
    found
}

/// As somebody sees it who gets hold of a backup.
fn dump(app: &TestApp) -> String {
    let options = app.pool.connect_options();
    let bin = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let bin = bin.map(|dir| dir.unwrap().path().join("bin/pg_dump")).max();
    let dumped = Command::new(bin.unwrap_or_else(|| "pg_dump".into()))
        .args([
            "--host",
            options.get_host(),
            "--port",
            &options.get_port().to_string(),
        ])
        .args([
            "--username",
            options.get_username(),
            "--inserts",
            &app.database(),
        ])
        .env("PGPASSWORD", "postgres")
        .output()
        .unwrap();
    assert!(
        dumped.status.success(),
        "{}",
        String::from_utf8_lossy(&dumped.stderr)
    );
    String::from_utf8_lossy(&dumped.stdout).to_lowercase()
}

/// Does what the worker does by itself within a second or so.
pub async fn purge(app: &TestApp) {
    let engine = &app.app().engine;
    // The worker may be at it too, and whoever comes second waits for it.
    let mut turns = tokio::time::interval(std::time::Duration::from_millis(50));
    for _ in 0..200 {
        turns.tick().await;
        let due = engine.rebuilds_due().await.unwrap();
        if due.is_empty() {
            return;
        }
        for (name, rebuilt) in engine.rebuild_all(&due, |_| ()).await.unwrap() {
            rebuilt.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    }
    panic!("the read models do not come to an end");
}

pub async fn erase(app: &TestApp, person: &Person) -> (u16, Value) {
    let path = format!("/api/subjects/%2B{}/erase", person.digits);
    answer(app.post_as("admin", &path, &json!({"reason": "Caso 114"}))).await
}

/// What is counted, of everybody.
async fn statistics(app: &TestApp) -> Vec<Value> {
    let mut told = Vec::new();
    for sql in [
        "select to_jsonb(array_agg(q order by bucket)) from conversation_quarters q",
        "select to_jsonb(array_agg(t order by status)) from conversation_totals t",
        "select jsonb_agg(to_jsonb(e) order by e.state) from (select state, count(*) from effects where state not in ('waiting', 'dropped') group by 1) e",
        "select jsonb_agg(to_jsonb(i) order by i.channel, i.status) from (select channel, status, count(*), sum(message_count), sum(duration_secs) from interactions group by 1, 2) i",
        "select jsonb_agg(jsonb_build_array(status, recipients_count, pending, completed, failed) order by id) from batches",
        "select jsonb_agg(jsonb_build_array(id, clients_count) order by id) from groups",
        "select jsonb_agg(jsonb_build_array(status, attempts) order by challenge_id) from otp_challenges",
    ] {
        let value: Option<Value> = sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap();
        told.push(json!({ sql: value }));
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_found_of_a_person_who_was_erased() {
    let (app, _sandbox) = world().await;
    traffic(&app, &ZOE).await;
    traffic(&app, &EVA).await;
    for trace in ZOE.traces() {
        let found = tables_with(&app, &trace).await;
        let sealed = ["public.events", "public.deliveries"];
        assert!(
            !found.iter().any(|table| sealed.contains(&table.as_str())),
            "{trace}: {found:?}"
        );
    }
    for table in [
        "interactions",
        "messages",
        "group_clients",
        "batch_recipients",
        "conversation_state",
        "conversation_messages",
        "otp_challenges",
        "call_details",
        "effects",
    ] {
        let traces = [ZOE.digits, "zwqtrk", "xklmprst"];
        let mut found = Vec::new();
        for trace in traces {
            found.extend(tables_with(&app, trace).await);
        }
        assert!(
            found.contains(&format!("public.{table}")),
            "the search finds nothing in {table}"
        );
    }
    let listed = "select count(*) from events where event_type = 'batch.observed'";
    assert!(
        app.count(listed).await > 0,
        "the provider's lists are not on the ledger"
    );
    let before = statistics(&app).await;
    let events = app.count("select count(*) from events").await;

    let (status, body) = erase(&app, &ZOE).await;
    assert_eq!(status, 202, "{body}");
    assert!(
        body["data"]["keys_destroyed"].as_i64().unwrap() >= 5,
        "{body}"
    );
    app.settle().await;
    purge(&app).await;

    for trace in ZOE.traces() {
        assert_eq!(tables_with(&app, &trace).await, [""; 0], "{trace}");
        assert!(!dump(&app).contains(&trace), "{trace}");
    }
    assert_eq!(statistics(&app).await, before);
    assert_eq!(
        app.count("select count(*) from events").await,
        events + 3,
        "the erasure, and its records before and after"
    );
    let key = app.app().phone_index.key(&ZOE.number());
    let still: i64 = sqlx::query_scalar("select (select count(*) from subject_keys where subject like '%' || $1)
                                              + (select count(*) from interactions where phone_key = $1)
                                              + (select count(*) from otp_requests where phone_key = $1)")
        .bind(key)
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(still, 0);
    assert_equal_a_rebuild(&app.pool).await;

    // Of nobody else anything is gone.
    for trace in EVA.traces().iter().filter(|trace| !trace.contains(' ')) {
        assert!(!tables_with(&app, trace).await.is_empty(), "{trace}");
    }
    let path = format!("/api/interactions?phone=%2B{}&reveal=true", EVA.digits);
    assert!(app.read(&path).await["data"].as_array().unwrap().len() > 4);
    // Everything can still be read, and reads as nobody's.
    let path = "/api/interactions/conv_0007example00000000000000000";
    let call = &app.read(path).await["data"];
    assert_eq!(
        (&call["phone_number"], &call["status"]),
        (&json!(null), &json!("completed")),
        "{call}"
    );
    let events = ok(app.get_as("auditor", "/api/ledger/events?limit=200")).await;
    assert!(events.to_string().contains("[erased]"));

    let sql = "select delivery_id from events where aggregate_id = $1 limit 1";
    let id: uuid::Uuid = sqlx::query_scalar(sql)
        .bind("conv_0007example00000000000000000")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    let delivery = &app.read(&format!("/api/deliveries/{id}")).await["data"];
    let shown = (&delivery["erased"], &delivery["body"]);
    assert_eq!(shown, (&json!(true), &json!("")), "{delivery}");
    assert_eq!(delivery["signature"]["valid"], json!(null), "{delivery}");

    let (status, body) = erase(&app, &ZOE).await;
    assert_eq!(
        (status, &body["code"]),
        (404, &json!("not_found")),
        "{body}"
    );
    app.stop().await;
}

/// Not only once the read models are folded anew, which may take minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_shown_of_a_person_from_the_answer_on() {
    let (app, _sandbox) = world().await;
    traffic(&app, &ZOE).await;
    traffic(&app, &EVA).await;
    let reads = |person: &Person| {
        let call = format!("conv_000{}example00000000000000000", person.n);
        [
            format!("/api/interactions?phone=%2B{}&reveal=true", person.digits),
            format!("/api/interactions?q={}&reveal=true", person.words),
            format!("/api/interactions/{call}?reveal=true"),
            format!("/api/conversations/%2B{}", person.digits),
            "/api/groups/1/clients?reveal=true".to_owned(),
            "/api/groups/2/clients?reveal=true".to_owned(),
        ]
    };
    let shown = async |person: &Person| {
        let mut shown = String::new();
        for path in reads(person) {
            let read = ok(app.get_as("supervisor", &path)).await;
            shown += &read.to_string().to_lowercase();
        }
        let traces = person.traces();
        let is_there = traces.iter().map(|trace| shown.contains(trace));
        is_there.collect::<Vec<_>>()
    };
    let (zoe, eva) = (shown(&ZOE).await, shown(&EVA).await);
    assert!(zoe[0] && zoe[2] && zoe[3], "{zoe:?}");
    assert_eq!(erase(&app, &ZOE).await.0, 202);
    assert_eq!(shown(&ZOE).await, [false; 4]);
    assert_eq!(shown(&EVA).await, eva);
    app.settle().await;
    purge(&app).await;
    assert_eq!(shown(&ZOE).await, [false; 4]);
    assert_eq!(shown(&EVA).await, eva);
    assert_equal_a_rebuild(&app.pool).await;
    app.stop().await;
}

#[tokio::test]
async fn whoever_comes_back_is_somebody_new() {
    let app = TestApp::start().await;
    let hear = |sid: &str| {
        let body = format!(
            "MessageSid=SM{sid}&From=whatsapp%3A%2B{}&To=whatsapp%3A%2B14155238886&Body={}",
            ZOE.digits, ZOE.words
        );
        app.twilio("/webhook/twilio/incoming", body)
    };
    ok(hear("1")).await;
    app.settle().await;
    assert_eq!(erase(&app, &ZOE).await.0, 202);
    ok(hear("2")).await;
    app.settle().await;
    purge(&app).await;
    let path = format!("/api/conversations/%2B{}", ZOE.digits);
    let said = app.read(&path).await;
    let said: Vec<_> = said["conversation"]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["content"].clone())
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said.contains(&json!("[erased]")) && said.contains(&json!(ZOE.words)),
        "{said:?}"
    );
    assert_eq!(erase(&app, &ZOE).await.0, 202);
    app.settle().await;
    purge(&app).await;
    assert_eq!(tables_with(&app, ZOE.words).await, [""; 0]);
    assert_equal_a_rebuild(&app.pool).await;
    app.stop().await;
}

#[tokio::test]
async fn only_an_admin_erases_and_only_who_is_known() {
    let app = TestApp::start().await;
    let path = format!("/api/subjects/%2B{}/erase", ZOE.digits);
    let why = json!({"reason": "Caso 114"});
    for role in ["agent", "supervisor", "auditor", "service"] {
        assert_eq!(
            answer(app.post_as(role, &path, &why)).await.0,
            403,
            "{role}"
        );
    }
    assert_eq!(answer(app.post_as("admin", &path, &why)).await.0, 404);
    assert_eq!(
        answer(app.post_as("admin", &path, &json!({"reason": " "})))
            .await
            .0,
        400
    );
    assert_eq!(
        answer(app.post_as("admin", "/api/subjects/nobody/erase", &why))
            .await
            .0,
        400
    );
    app.settle().await;
    let log = app.read("/api/audit-log?action=erase_subject").await;
    // Of the one who is unknown, that it began too.
    assert_eq!(log["data"].as_array().unwrap().len(), 8);
    assert!(!log.to_string().contains(&ZOE.digits[2..]));
    app.stop().await;
}

/// The other replica has the key in memory, by which nobody may seal any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_replica_seals_under_a_key_that_was_destroyed() {
    let [a, b] = two([|_| {}, |_| {}]).await;
    let hear = |app: &TestApp, sid: &str| {
        let body = format!(
            "MessageSid=SM{sid}&From=whatsapp%3A%2B{}&To=whatsapp%3A%2B14155238886&Body={}",
            ZOE.digits, ZOE.words
        );
        app.twilio("/webhook/twilio/incoming", body)
    };
    ok(hear(&a, "1")).await;
    ok(hear(&b, "2")).await;
    let conversation = format!("/api/conversations/%2B{}", ZOE.digits);
    let write = json!({"content": "Primera"});
    a.settle().await;
    b.settle().await;
    let (status, body) =
        answer(b.post_as("agent", &format!("{conversation}/messages"), &write)).await;
    assert!(status < 300, "{body}");
    a.settle().await;
    assert_eq!(erase(&a, &ZOE).await.0, 202);
    // By the batch writer, and by a decision.
    ok(hear(&b, "3")).await;
    a.settle().await;
    b.settle().await;
    purge(&a).await;
    let write = json!({"content": "Segunda"});
    let (status, body) =
        answer(b.post_as("agent", &format!("{conversation}/messages"), &write)).await;
    assert!(status < 300, "{body}");
    a.settle().await;
    let said = a.read(&conversation).await;
    let mut said: Vec<_> = said["conversation"]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["content"].as_str().unwrap().to_owned())
        .collect();
    said.sort();
    assert_eq!(
        said,
        ["Segunda", "[erased]", "[erased]", "[erased]", ZOE.words]
    );
    assert_equal_a_rebuild(&a.pool).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_a_channel_brought_goes_after_its_time() {
    let app = TestApp::with(Options {
        config: |config| config.retention.call = Some(chrono::Days::new(30)),
        ..Options::default()
    })
    .await;
    traffic_of_two_channels(&app).await;
    app.clock.advance(chrono::Duration::days(29));
    assert_eq!(bitacora::erasure::retain(app.app()).await.unwrap(), 0);
    app.clock.advance(chrono::Duration::days(2));
    assert!(bitacora::erasure::retain(app.app()).await.unwrap() > 0);
    assert_eq!(bitacora::erasure::retain(app.app()).await.unwrap(), 0);
    app.settle().await;
    purge(&app).await;
    assert_eq!(tables_with(&app, EVA.words).await, [""; 0]);
    assert!(!tables_with(&app, ZOE.words).await.is_empty());
    assert_equal_a_rebuild(&app.pool).await;
    app.stop().await;
}

async fn traffic_of_two_channels(app: &TestApp) {
    ok(app.elevenlabs(EVA.of("elevenlabs/post_call_transcription.json"))).await;
    let form = ZOE.of("twilio/whatsapp.inbound.text.form");
    ok(app.twilio("/webhook/twilio/incoming", form)).await;
    app.settle().await;
    assert!(!tables_with(app, EVA.words).await.is_empty());
}
