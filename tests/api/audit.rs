//! Who did what, when, from where, with what outcome. Contract, section 8.

use chrono::{Duration, SecondsFormat};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::erasure::ZOE;
use crate::errors::UNKNOWN_ID;
use crate::harness::app::{answer, ok};
use crate::harness::{TestApp, fixture};
use crate::reprocess::put_aside_call;

const CALL: &str = "conv_0001example00000000000000000";
const EMAIL: &str = "ana@example.com";
const PASSWORD: &str = "una contraseña larga";

fn login(app: &TestApp, email: &str, password: &str) -> RequestBuilder {
    let body = json!({"email": email, "password": password});
    app.post_as("nobody", "/api/auth/login", &body)
}

fn new_user(role: &str) -> Value {
    json!({"name": "Ana García", "email": EMAIL, "password": PASSWORD, "role": role})
}

/// The whole log, the oldest first.
async fn log(app: &TestApp) -> Vec<Value> {
    app.settle().await;
    let page = app.read("/api/audit-log?limit=200").await;
    assert_eq!(page["next_cursor"], Value::Null);
    let mut rows = page["data"].as_array().unwrap().clone();
    rows.reverse();
    rows
}

/// Everything that must be on record, done and refused, in one day's work.
#[tokio::test]
async fn commands_logins_reveals_and_refusals_are_on_record() {
    let app = TestApp::start().await;
    ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    let strange = ok(app.elevenlabs("{}")).await["delivery_id"].take();
    let strange = strange.as_str().unwrap();
    app.settle().await;
    let (detail, list) = (
        format!("/api/interactions/{CALL}"),
        "/api/interactions?reveal=true",
    );
    let revealed = format!("{detail}?reveal=true");
    let delivery = format!("/api/deliveries/{strange}");
    let unknown = format!("/api/deliveries/{UNKNOWN_ID}");
    let (again, unknown_again) = (
        format!("{delivery}/reprocess"),
        format!("{unknown}/reprocess"),
    );
    let replay = "/api/projections/messages/replay";
    let nobody = "email:";
    let nothing = || json!({});
    let post = |role: &str, path: &str, body: Value| app.post_as(role, path, &body);
    // request, status, who, role, action, target, outcome
    let rows: Vec<(RequestBuilder, u16, &str, Value, &str, Value, &str)> = vec![
        (
            post("admin", "/api/users", new_user("supervisor")),
            201,
            "user:7",
            json!("admin"),
            "create_user",
            json!("user:1"),
            "ok",
        ),
        (
            post("admin", "/api/users", new_user("agent")),
            409,
            "user:7",
            json!("admin"),
            "create_user",
            Value::Null,
            "email_taken",
        ),
        (
            post("admin", "/api/users", new_user("root")),
            400,
            "user:7",
            json!("admin"),
            "create_user",
            Value::Null,
            "validation_error",
        ),
        (
            post("supervisor", "/api/users", new_user("agent")),
            403,
            "user:7",
            json!("supervisor"),
            "create_user",
            Value::Null,
            "forbidden",
        ),
        (
            post("service", "/api/users", new_user("agent")),
            403,
            "service",
            Value::Null,
            "create_user",
            Value::Null,
            "forbidden",
        ),
        (
            login(&app, EMAIL, PASSWORD),
            200,
            "user:1",
            json!("supervisor"),
            "login",
            json!("user:1"),
            "ok",
        ),
        (
            login(&app, EMAIL, "wrong"),
            401,
            "anonymous",
            Value::Null,
            "login",
            json!(nobody),
            "unauthorized",
        ),
        (
            app.get_as("supervisor", list),
            200,
            "user:7",
            json!("supervisor"),
            "reveal_interactions",
            Value::Null,
            "ok",
        ),
        (
            app.get_as("auditor", &revealed),
            200,
            "user:7",
            json!("auditor"),
            "reveal_interaction",
            json!(CALL),
            "ok",
        ),
        (
            app.get_as("agent", &revealed),
            403,
            "user:7",
            json!("agent"),
            "reveal_interaction",
            json!(CALL),
            "forbidden",
        ),
        (
            app.get_as("service", list),
            403,
            "service",
            Value::Null,
            "reveal_interactions",
            Value::Null,
            "forbidden",
        ),
        (
            app.get_as("auditor", "/api/ledger/events?reveal=true"),
            200,
            "user:7",
            json!("auditor"),
            "reveal_ledger_events",
            json!("after:0"),
            "ok",
        ),
        (
            app.get_as("auditor", &delivery),
            200,
            "user:7",
            json!("auditor"),
            "get_delivery",
            json!(strange),
            "ok",
        ),
        (
            app.get_as("supervisor", &delivery),
            403,
            "user:7",
            json!("supervisor"),
            "get_delivery",
            json!(strange),
            "forbidden",
        ),
        (
            app.get_as("admin", &unknown),
            404,
            "user:7",
            json!("admin"),
            "get_delivery",
            json!(UNKNOWN_ID),
            "not_found",
        ),
        (
            post("admin", &again, nothing()),
            200,
            "user:7",
            json!("admin"),
            "reprocess_delivery",
            json!(strange),
            "ok",
        ),
        (
            post("auditor", &again, nothing()),
            403,
            "user:7",
            json!("auditor"),
            "reprocess_delivery",
            json!(strange),
            "forbidden",
        ),
        (
            post("admin", &unknown_again, nothing()),
            404,
            "user:7",
            json!("admin"),
            "reprocess_delivery",
            json!(UNKNOWN_ID),
            "not_found",
        ),
        (
            post("admin", replay, nothing()),
            202,
            "user:7",
            json!("admin"),
            "replay_projection",
            json!("interactions"),
            "ok",
        ),
        (
            post("supervisor", replay, nothing()),
            403,
            "user:7",
            json!("supervisor"),
            "replay_projection",
            json!("interactions"),
            "forbidden",
        ),
        (
            post("admin", "/api/projections/nothing/replay", nothing()),
            404,
            "user:7",
            json!("admin"),
            "replay_projection",
            Value::Null,
            "not_found",
        ),
    ];
    let mut expected = Vec::new();
    for (n, (request, status, actor, role, action, target, outcome)) in rows.into_iter().enumerate()
    {
        app.clock.advance(Duration::milliseconds(1234));
        let id = format!("request-{n}");
        let (got, body) = answer(request.header("X-Request-Id", &id)).await;
        assert_eq!(got, status, "{n} {action}: {body}");
        // Nothing on the ledger but its record tells of a rebuild.
        let begun = (action == "replay_projection" && outcome == "ok").then_some("begun");
        expected.extend(begun.into_iter().chain([outcome]).map(|outcome| json!({
            "occurred_at": app.clock.now().to_rfc3339_opts(SecondsFormat::AutoSi, true),
            "actor": actor, "role": role, "action": action, "target": target, "outcome": outcome,
            "from": "127.0.0.1", "request_id": id, "detail": null,
        })));
    }
    // None of these is a command, a login or a reveal.
    for request in [
        app.get_as("agent", "/api/interactions"),
        app.get_as("agent", &detail),
        app.get_as("auditor", "/api/audit-log"),
        app.get_as("auditor", "/api/deliveries"),
        app.get_as("nobody", &revealed),
    ] {
        request.send().await.unwrap();
    }
    let mut got = log(&app).await;
    let mut last = 0;
    for row in &mut got {
        let position = row.as_object_mut().unwrap().remove("position").unwrap();
        let position = position.as_i64().unwrap();
        assert!(position > last, "in the ledger's order");
        last = position;
        // Whose address was tried is told by a key only.
        let target = row["target"].as_str().unwrap_or_default();
        if let Some(key) = target.strip_prefix(nobody) {
            assert!(key.len() >= 32 && !key.contains('@'), "{key}");
            row["target"] = nobody.into();
        }
    }
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected);
    }
    app.stop().await;
}

#[tokio::test]
async fn attempts_on_one_address_are_told_together_and_name_nobody() {
    let app = TestApp::start().await;
    for email in [EMAIL, " ANA@example.com", "eva@example.com"] {
        assert_eq!(answer(login(&app, email, "wrong")).await.0, 401);
    }
    for _ in 0..7 {
        answer(login(&app, EMAIL, "wrong")).await;
    }
    assert_eq!(answer(login(&app, EMAIL, "wrong")).await.0, 429);
    let rows = log(&app).await;
    let targets: Vec<&Value> = rows.iter().map(|row| &row["target"]).collect();
    assert_eq!(targets[0], targets[1], "in any case");
    assert_ne!(targets[0], targets[2]);
    assert_eq!(targets[0], targets[10]);
    assert_eq!(rows[10]["outcome"], "too_many_requests");
    let text = serde_json::to_string(&rows).unwrap();
    assert!(
        !text.contains("example.com") && !text.contains("wrong"),
        "{text}"
    );
    app.stop().await;
}

#[tokio::test]
async fn audit_records_are_events_of_the_same_ledger() {
    let app = TestApp::start().await;
    app.post_as("admin", "/api/users", &new_user("agent"))
        .send()
        .await
        .unwrap();
    ok(login(&app, EMAIL, PASSWORD)).await;
    answer(login(&app, EMAIL, "wrong")).await;
    answer(app.get_as("supervisor", "/api/interactions?reveal=true")).await;
    let rows = log(&app).await;
    let events = app.read("/api/ledger/events?type=audit.recorded").await;
    let events = events["data"].as_array().unwrap();
    assert_eq!((rows.len(), events.len()), (4, 4));
    for (row, event) in rows.iter().zip(events) {
        assert_eq!(event["aggregate_type"], "audit");
        assert_eq!(event["position"], row["position"]);
        assert_eq!(event["occurred_at"], row["occurred_at"]);
        for field in [
            "actor",
            "role",
            "action",
            "target",
            "outcome",
            "from",
            "request_id",
        ] {
            assert_eq!(event["payload"][field], row[field], "{field}: {event}");
        }
    }
    app.stop().await;
}

/// The times are those of the ledger, in whose order the records stand.
#[tokio::test]
async fn records_are_found_by_actor_action_and_time_the_newest_first_and_page_by_page() {
    let app = TestApp::start().await;
    app.post_as("admin", "/api/users", &new_user("admin"))
        .send()
        .await
        .unwrap();
    for n in 0..3 {
        ok(login(&app, EMAIL, PASSWORD)).await;
        answer(app.get_as(
            ["agent", "supervisor", "service"][n],
            "/api/interactions?reveal=true",
        ))
        .await;
    }
    app.settle().await;
    let written: Vec<(i64, chrono::DateTime<chrono::Utc>)> =
        sqlx::query_as("select position, recorded_at from events where event_type = 'audit.recorded' order by position")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    let position = |at: usize| written[at].0;
    let time = |at: usize| written[at].1.to_rfc3339_opts(SecondsFormat::Micros, true);
    assert_eq!(written.len(), 7);
    // 0 creates; 1, 3, 5 log in as user:1; 2, 4 (user:7) and 6 (service) reveal.
    for (filter, expected) in [
        (String::new(), vec![6, 5, 4, 3, 2, 1, 0]),
        ("actor=user:1".into(), vec![5, 3, 1]),
        ("actor=user:7".into(), vec![4, 2, 0]),
        ("actor=service".into(), vec![6]),
        ("actor=user".into(), vec![]),
        ("action=login".into(), vec![5, 3, 1]),
        ("action=reveal_interactions".into(), vec![6, 4, 2]),
        ("action=reveal".into(), vec![]),
        ("actor=user:7&action=reveal_interactions".into(), vec![4, 2]),
        (format!("from={}", time(4)), vec![6, 5, 4]),
        (format!("to={}", time(2)), vec![2, 1, 0]),
        (format!("from={}&to={}", time(2), time(4)), vec![4, 3, 2]),
        (
            format!("from={}&to={}&action=login", time(2), time(4)),
            vec![3],
        ),
        (format!("from={}&to={}", time(4), time(2)), vec![]),
        ("from=9999-12-31T23:59:59Z".into(), vec![]),
        ("to=0001-01-01T00:00:00Z".into(), vec![]),
        ("actor=&action=&from=&to=".into(), vec![6, 5, 4, 3, 2, 1, 0]),
    ] {
        let expected: Vec<i64> = expected.into_iter().map(position).collect();
        for limit in [1, 2, 7, 200] {
            let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
            loop {
                let page = app
                    .read(&format!(
                        "/api/audit-log?{filter}&limit={limit}&cursor={cursor}"
                    ))
                    .await;
                let rows = page["data"].as_array().unwrap();
                assert!(rows.len() <= limit, "{page}");
                seen.extend(rows.iter().map(|row| row["position"].as_i64().unwrap()));
                pages += 1;
                assert!(pages < 10, "pages without end");
                match page["next_cursor"].as_str() {
                    Some(next) => next.clone_into(&mut cursor),
                    None => break,
                }
            }
            assert_eq!(seen, expected, "{filter}, {limit} a page");
            assert_eq!(
                pages,
                expected.len().div_ceil(limit).max(1),
                "{filter}, {limit} a page"
            );
        }
    }
    app.stop().await;
}

/// A page stays where it is when new records come.
#[tokio::test]
async fn the_next_page_follows_the_one_before_whatever_was_written_meanwhile() {
    let app = TestApp::start().await;
    let reveal = || answer(app.get_as("admin", "/api/interactions?reveal=true"));
    for _ in 0..5 {
        assert_eq!(reveal().await.0, 200);
    }
    app.settle().await;
    let first = app.read("/api/audit-log?limit=2").await;
    reveal().await;
    app.settle().await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = app
        .read(&format!("/api/audit-log?limit=200&cursor={cursor}"))
        .await;
    let positions = |page: &Value| -> Vec<i64> {
        let rows = page["data"].as_array().unwrap();
        rows.iter()
            .map(|row| row["position"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(
        (positions(&first), positions(&second)),
        (vec![5, 4], vec![3, 2, 1])
    );
    app.stop().await;
}

#[tokio::test]
async fn a_command_that_fails_tells_up_to_where_it_is_on_record() {
    let app = TestApp::start().await;
    let asked = json!({"phone_number": "+573001234567", "purpose": "login"});
    let (_, asked) = answer(app.post_as("service", "/api/otp", &asked)).await;
    let id = asked["data"]["challenge_id"].as_str().unwrap();
    let code: u32 = app.app().otp.code(id).as_str().parse().unwrap();
    let wrong = json!({"challenge_id": id, "code": format!("{:06}", (code + 1) % 1_000_000)});
    let unknown = json!({"challenge_id": "otp_x", "code": "123456"});
    for (role, path, body, status) in [
        ("service", "/api/otp/verify", &wrong, 400),
        ("service", "/api/otp/verify", &unknown, 404),
        ("auditor", "/api/otp/verify", &wrong, 403),
        ("agent", "/api/users", &json!({}), 403),
    ] {
        let response = app.post_as(role, path, body).send().await.unwrap();
        assert_eq!(response.status(), status, "{role} {path}");
        let position = crate::errors::header(&response, "x-ledger-position");
        let last = app.count("select max(position) from events").await;
        assert_eq!(position, Some(last.to_string().as_str()), "{role} {path}");
    }
    app.stop().await;
}

/// The ledger takes facts and decisions, and no record.
async fn refuse_records(app: &TestApp) {
    let sql = "
        create function refuse_record() returns trigger language plpgsql as
            $$ begin raise exception 'no records' using errcode = '53100'; end $$;
        create trigger refuse_records before insert on events
            for each row when (new.event_type = 'audit.recorded') execute function refuse_record()";
    sqlx::raw_sql(sql).execute(&app.pool).await.unwrap();
}

/// What there is, beside records.
async fn everything(app: &TestApp) -> Vec<i64> {
    let mut there = Vec::new();
    for sql in [
        "select count(*) from events",
        "select count(*) from deliveries",
        "select count(*) from subject_keys where wrapped_key is null",
        "select count(*) from projection_checkpoints where build = 'rebuild'",
        "select epoch from subject_epoch",
    ] {
        there.push(app.count(sql).await);
    }
    there
}

#[tokio::test]
async fn what_cannot_be_put_on_record_is_neither_done_nor_shown() {
    let app = TestApp::start().await;
    let aside = put_aside_call(&app).await;
    ok(app.builderbot(fixture("builderbot/message.incoming.json"))).await;
    let form = ZOE.of("twilio/whatsapp.inbound.text.form");
    ok(app.twilio("/webhook/twilio/incoming", form)).await;
    app.settle().await;
    let id: String = sqlx::query_scalar("select id from interactions where phone_key = $1")
        .bind(app.app().phone_index.key(&ZOE.number()))
        .fetch_one(&app.pool)
        .await
        .unwrap();
    refuse_records(&app).await;
    let before = everything(&app).await;
    let interaction = format!("/api/interactions/{id}");
    let get = |path: &str| app.get_as("admin", path);
    let post = |path: &str| app.post_as("admin", path, &json!({"reason": "Caso 114"}));
    let person = format!("/api/subjects/%2B{}", ZOE.digits);
    for request in [
        get("/api/interactions?reveal=true"),
        get(&format!("{interaction}?reveal=true")),
        get(&format!("{interaction}?raw=true")),
        get("/api/ledger/events?reveal=true"),
        get(&format!("/api/deliveries/{aside}")),
        get("/api/export?kind=interactions"),
        get("/api/export?kind=deliveries&reveal=true"),
        get(&format!("{person}/export")),
        post(&format!("{person}/erase")),
        post("/api/projections/messages/replay"),
        post(&format!("/api/deliveries/{aside}/reprocess")),
        // Refusals are told as such only once they are on record, too.
        app.get_as("agent", "/api/export?kind=interactions"),
        app.get_as("agent", "/api/export?kind=nothing"),
    ] {
        let asked = request.try_clone().unwrap().build().unwrap();
        let asked = format!("{} {}", asked.method(), asked.url());
        let (status, body) = answer(request).await;
        assert_eq!(status, 503, "{asked}: {body}");
        let body = body.to_string();
        for trace in [ZOE.digits, ZOE.words, "conv_0001"] {
            assert!(!body.contains(trace), "{asked}: {body}");
        }
        assert_eq!(everything(&app).await, before, "{asked}");
    }
    app.stop().await;
}

/// So a process that ends between a command and the record of it leaves none
/// without a name: here no record comes, and every event has one.
#[tokio::test]
async fn what_a_command_writes_names_who_gave_it() {
    let app = TestApp::start().await;
    let form = ZOE.of("twilio/whatsapp.inbound.text.form");
    ok(app.twilio("/webhook/twilio/incoming", form)).await;
    app.settle().await;
    refuse_records(&app).await;
    let before = app.count("select max(position) from events").await;
    let conversation = format!("/api/conversations/%2B{}", ZOE.digits);
    let number = ZOE.number();
    let agent = sandbox::AGENT_COLLECTIONS;
    let commands = [
        (
            "/api/users".to_owned(),
            new_user("agent"),
            "user.registered",
        ),
        (
            "/api/groups".to_owned(),
            json!({"name": "Clientes"}),
            "group.created",
        ),
        (
            "/api/groups/1/clients".to_owned(),
            json!({"clients": [{"name": "Ana", "phone": number, "email": "a@example.com"}]}),
            "group.clients_added",
        ),
        (
            "/api/otp".to_owned(),
            json!({"phone_number": number, "purpose": "login"}),
            "otp.requested",
        ),
        (
            "/api/batch-calling/submit".to_owned(),
            json!({"call_name": "Campaña", "agent_id": agent, "agent_phone_number_id": "p",
                   "recipients": [{"phone_number": number}]}),
            "batch.requested",
        ),
        (
            format!("{conversation}/messages"),
            json!({"content": "Hola"}),
            "conversation.message_written",
        ),
        (
            format!("{conversation}/escalate"),
            json!({"reason": "Lo pide"}),
            "conversation.escalated",
        ),
    ];
    for (n, (path, body, event)) in commands.into_iter().enumerate() {
        let id = format!("request-{n}");
        let request = app.post_as("admin", &path, &body);
        let (status, answered) = answer(request.header("X-Request-Id", &id)).await;
        assert_eq!(status, 503, "{path}: {answered}");
        let sql = "select count(*) from events where event_type = $1 and position > $2
                   and metadata->>'actor' = 'user:7' and metadata->>'request_id' = $3";
        let there: i64 = sqlx::query_scalar(sql)
            .bind(event)
            .bind(before)
            .bind(&id)
            .fetch_one(&app.pool)
            .await
            .unwrap();
        assert_eq!(there, 1, "{path}: {event}");
        app.settle().await;
    }
    let sql =
        "select event_type from events where delivery_id is null and metadata->>'actor' is null";
    let nobodys: Vec<String> = sqlx::query_scalar(sql).fetch_all(&app.pool).await.unwrap();
    assert_eq!(nobodys, [""; 0]);
    app.stop().await;
}

/// Where an operation is recorded under another name than its own.
const RECORDED_AS: [(&str, &str); 4] = [
    ("list_interactions", "reveal_interactions"),
    ("get_interaction", "reveal_interaction"),
    ("list_ledger_events", "reveal_ledger_events"),
    ("cancel_provider_batch", "cancel_batch"),
];
/// What reads more than lists show, beside whatever takes `reveal`.
const REVEALING: [&str; 3] = ["get_delivery", "export", "export_subject"];

/// A body of the documentation's example.
fn example(document: &Value, operation: &Value) -> Option<Value> {
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    let name = body["$ref"].as_str()?.rsplit('/').next()?;
    Some(document["components"]["schemas"][name]["example"].clone())
}

/// Who acted, what it was, and with what outcome; the newest last.
async fn acts(app: &TestApp) -> Vec<(String, String, String, Value)> {
    let sql = "select payload from events where event_type = 'audit.recorded' order by position";
    let rows: Vec<Value> = sqlx::query_scalar(sql).fetch_all(&app.pool).await.unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = rows.iter();
    rows.map(|row| {
        (
            text(&row["actor"]),
            text(&row["action"]),
            text(&row["outcome"]),
            row.clone(),
        )
    })
    .collect()
}

/// Every operation of the document that changes or reveals something, as
/// somebody who may and as somebody who may not.
#[tokio::test]
async fn no_operation_changes_or_reveals_anything_unrecorded() {
    let app = TestApp::start().await;
    ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    app.settle().await;
    let document: Value = serde_json::from_str(&bitacora::http::openapi()).unwrap();
    let (mut walked, mut missing) = (0, Vec::new());
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap_or_default();
            let parameters = operation["parameters"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let reveals = parameters.iter().any(|it| it["name"] == "reveal");
            let is_get = method == "get";
            if path.starts_with("/webhook")
                || (is_get && !reveals && !REVEALING.contains(&name))
                // On record by the words that it is given.
                || name == "login"
                || operation["requestBody"]["content"]["multipart/form-data"].is_object()
            {
                continue;
            }
            walked += 1;
            let action = RECORDED_AS.iter().find(|(operation, _)| *operation == name);
            let action = action.map_or(name, |(_, action)| action);
            let mut url = path.clone();
            for (parameter, value) in [
                ("{phoneNumber}", "%2B573001234567"),
                ("{phone}", "%2B573001234567"),
                ("{batchId}", "btcal_1"),
                ("{name}", "messages"),
                ("{position}", "1"),
                (
                    "{id}",
                    if path.contains("deliveries") {
                        UNKNOWN_ID
                    } else if path.contains("interactions") {
                        CALL
                    } else {
                        "1"
                    },
                ),
                ("{userId}", "1"),
                ("{groupId}", "1"),
            ] {
                url = url.replace(parameter, value);
            }
            if is_get {
                url += if name == "export" {
                    "?kind=events&reveal=true"
                } else {
                    "?reveal=true"
                };
            }
            for role in ["admin", "auditor", "agent"] {
                let before = acts(&app).await.len();
                let body = example(&document, operation).unwrap_or_else(|| json!({}));
                let request = match method.as_str() {
                    "get" => app.get_as(role, &url),
                    "post" => app.post_as(role, &url, &body),
                    method => {
                        let method = method.to_uppercase().parse().unwrap();
                        let request = app.client.request(method, format!("{}{url}", app.url));
                        request.bearer_auth(app.token(role)).json(&body)
                    }
                };
                let response = request.send().await.unwrap();
                let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
                let code = serde_json::from_str::<Value>(&text).unwrap_or_default()["code"].clone();
                let told: Vec<_> = acts(&app).await.split_off(before);
                let mut told_of_it = told.iter().filter(|(_, recorded, ..)| recorded == action);
                let is_whole = told_of_it.any(|(actor, _, outcome, row)| {
                    let outcome_is_told = match code.as_str() {
                        Some(code) => outcome == code,
                        None => outcome == "ok" || outcome == "begun",
                    };
                    outcome_is_told
                        && actor == "user:7"
                        && row["role"] == role
                        && (row["from"].is_string() || row["sealed"].is_string())
                        && row["request_id"].is_string()
                });
                // What cannot be read is no command, and what is not there is not shown.
                let is_nothing = status == 400 || (is_get && status == 404 && reveals);
                if !is_whole && !is_nothing {
                    missing.push(format!("{role}: {name} ({url}) {status} {code}: {told:?}"));
                }
            }
        }
    }
    assert!(walked > 25, "{walked}");
    assert!(missing.is_empty(), "{walked} walked; {missing:#?}");
    app.stop().await;
}
