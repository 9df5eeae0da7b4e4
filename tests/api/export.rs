//! Exports: every kind in every form, of one position, on record.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitacora::export::verify::verify;
use bitacora::export::{self, Export, Filters, Format, Kind, Made, Order};
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Value, json};

use crate::harness::app::{answer, ok, opener};
use crate::harness::program::{SETTINGS, add_ana, run};
use crate::harness::{TestApp, fixture, postgres};
use crate::interactions::send_everything;
use crate::log::{seal_all, verifiers};

const CALL: &str = "elevenlabs/post_call_transcription.json";

async fn file(app: &TestApp, query: &str) -> Vec<u8> {
    let response = app.get_as("auditor", &format!("/api/export?{query}"));
    let response = response.send().await.unwrap();
    assert_eq!(response.status(), 200, "{query}");
    response.bytes().await.unwrap().to_vec()
}

/// Header, rows and footer.
fn lines(file: &[u8]) -> (Value, Vec<Value>, Value) {
    let text = std::str::from_utf8(file).unwrap();
    assert!(text.ends_with('\n'));
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (header, footer) = (lines.remove(0), lines.pop().unwrap());
    assert_eq!(
        (&header["kind"], &header["form"]),
        (&json!("header"), &json!("bitacora.export/v1"))
    );
    assert_eq!(
        (&footer["kind"], &footer["rows"]),
        (&json!("footer"), &json!(lines.len()))
    );
    (header, lines, footer)
}

/// Names of columns, and rows as text.
fn csv_rows(file: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_reader(file);
    let names = reader.headers().unwrap().iter().map(str::to_owned);
    let names = names.collect();
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        row.iter().map(str::to_owned).collect()
    });
    (names, rows.collect())
}

/// What its metadata says, and rows as text, as CSV has them.
fn parquet_rows(file: Vec<u8>) -> (Value, Value, Vec<Vec<String>>) {
    let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
    let about = reader.metadata().file_metadata().key_value_metadata();
    let about = |key: &str| {
        let found = about.unwrap().iter().find(|about| about.key == key);
        serde_json::from_str(found.unwrap().value.as_ref().unwrap()).unwrap()
    };
    let shown = |field: &Field| match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Long(number) => number.to_string(),
        Field::TimestampMicros(micros) => chrono::DateTime::from_timestamp_micros(*micros)
            .unwrap()
            .to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        Field::Bytes(bytes) => STANDARD.encode(bytes.data()),
        other => panic!("{other:?}"),
    };
    let rows = reader.get_row_iter(None).unwrap();
    let rows = rows.map(|row| {
        let row = row.unwrap();
        row.get_column_iter()
            .map(|(_, field)| shown(field))
            .collect()
    });
    (about("bitacora"), about("bitacora.end"), rows.collect())
}

/// A cell of JSON lines as CSV has it.
fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A cell as it is where nothing is sealed.
fn opened<'a>(row: &'a Value, name: &str) -> &'a Value {
    let is_sealed = !row["opened"].is_null() && matches!(name, "payload" | "body");
    &row[if is_sealed { "opened" } else { name }]
}

fn same_time(a: &str, b: &str) -> bool {
    let read = |text| chrono::DateTime::parse_from_rfc3339(text).ok();
    a == b || (read(a).is_some() && read(a) == read(b))
}

/// What was exported; who, how, and with what outcome.
async fn on_record(app: &TestApp) -> Vec<(String, String, String, Value)> {
    app.settle().await;
    let sql = "select actor, coalesce(target, ''), outcome, coalesce(detail, '{}') from audit_log
               where action = 'export' order by position";
    let rows: Vec<(String, String, String, String)> =
        sqlx::query_as(sql).fetch_all(&app.pool).await.unwrap();
    let rows = rows.into_iter().map(|(actor, target, outcome, detail)| {
        (
            actor,
            target,
            outcome,
            serde_json::from_str(&detail).unwrap(),
        )
    });
    rows.collect()
}

#[tokio::test]
async fn every_kind_is_the_same_in_every_form() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    for (kind, count) in [
        ("interactions", "select count(*) from interactions"),
        ("events", "select count(*) from events"),
        ("deliveries", "select count(*) from deliveries"),
    ] {
        for reveal in ["", "&reveal=true"] {
            let head = app.count("select max(position) from events").await;
            let expected = app.count(count).await;
            let query = format!("kind={kind}{reveal}");
            let (header, rows, _) = lines(&file(&app, &query).await);
            assert_eq!(rows.len() as i64, expected, "{query}");
            assert_eq!(header["exported"], kind);
            assert_eq!(header["masked"], json!(reveal.is_empty()));
            assert!(header["position"].as_i64().unwrap() >= head.min(1));
            let until = format!("{query}&to={}", "2999-01-01T00:00:00Z");
            let until = match kind {
                // What comes meanwhile are the records of the exports.
                "events" => {
                    let last = rows.last().unwrap()["recorded_at"].as_str().unwrap();
                    format!("{query}&to={last}")
                }
                _ => until,
            };
            let (names, cells) = csv_rows(&file(&app, &format!("{until}&format=csv")).await);
            assert_eq!(cells.len(), rows.len(), "{query}");
            let hidden = kind == "deliveries" && reveal.is_empty();
            assert_eq!(
                hidden,
                !names.contains(&"body".to_owned()) && kind == "deliveries"
            );
            for (row, cells) in rows.iter().zip(&cells) {
                for (name, cell) in names.iter().zip(cells) {
                    assert!(
                        same_time(&as_text(opened(row, name)), cell),
                        "{name}: {row} {cell}"
                    );
                }
                assert_eq!(hidden, kind == "deliveries" && row.get("headers").is_none());
            }
            let (about, end, table) =
                parquet_rows(file(&app, &format!("{until}&format=parquet")).await);
            assert_eq!(
                (&about["exported"], &end["rows"]),
                (&json!(kind), &json!(rows.len()))
            );
            assert_eq!(table, cells, "{query}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn interactions_are_those_of_the_list_with_its_filters() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    for query in [
        "",
        "&channel=whatsapp",
        "&provider=elevenlabs&status=completed",
        "&phone=%2B5491133334444",
        "&q=pago",
        "&from=2025-10-01T00:00:00Z&to=2025-11-30T00:00:00Z",
    ] {
        let list = app
            .read(&format!("/api/interactions?limit=200{query}"))
            .await;
        let (_, rows, _) = lines(&file(&app, &format!("kind=interactions{query}")).await);
        let listed = list["data"].as_array().unwrap();
        assert_eq!(rows.len(), listed.len(), "{query}");
        for (row, listed) in rows.iter().zip(listed) {
            for (name, value) in listed.as_object().unwrap() {
                let (a, b) = (as_text(&row[name]), as_text(value));
                assert!(same_time(&a, &b), "{query} {name}: {a} {b}");
            }
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn revealed_rows_are_as_they_are_stored_and_others_hold_no_number() {
    let app = TestApp::start().await;
    ok(app.elevenlabs(fixture(CALL))).await;
    app.settle().await;
    let (_, rows, _) = lines(&file(&app, "kind=events&type=call.completed&reveal=true").await);
    let sql =
        "select payload::text, metadata::text from events where event_type = 'call.completed'";
    let (payload, metadata): (String, String) =
        sqlx::query_as(sql).fetch_one(&app.pool).await.unwrap();
    assert_eq!((rows.len(), &rows[0]["payload"]), (1, &json!(payload)));
    assert_eq!(rows[0]["metadata"], json!(metadata));
    let (_, rows, _) = lines(&file(&app, "kind=deliveries&reveal=true").await);
    let sql = "select body from deliveries";
    let body: Vec<u8> = sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap();
    assert_eq!(rows[0]["body"], json!(STANDARD.encode(body)));
    let number = "+573001234567";
    let digits = &number[3..];
    for kind in ["interactions", "events&type=call.completed", "deliveries"] {
        for format in ["jsonl", "csv"] {
            let query = format!("kind={kind}&format={format}");
            let text = String::from_utf8(file(&app, &query).await).unwrap();
            assert!(!text.contains(digits), "{query}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn an_export_is_on_record_before_its_first_byte_and_at_its_end() {
    let app = TestApp::start().await;
    ok(app.elevenlabs(fixture(CALL))).await;
    app.settle().await;
    for (role, status, outcome) in [
        ("agent", 403, "forbidden"),
        ("supervisor", 403, "forbidden"),
        ("service", 403, "forbidden"),
        ("nobody", 401, ""),
    ] {
        let request = app.get_as(role, "/api/export?kind=deliveries&provider=elevenlabs");
        assert_eq!(answer(request).await.0, status, "{role}");
        let last = on_record(&app).await.pop();
        match outcome {
            "" => assert!(last.is_some()),
            outcome => {
                let (_, target, told, detail) = last.unwrap();
                assert_eq!((target.as_str(), told.as_str()), ("deliveries", outcome));
                assert_eq!(detail["filter"], json!({"provider": "elevenlabs"}));
            }
        }
    }
    // Who may not is told that, whatever was asked.
    let wrong = "/api/export?kind=nothing";
    assert_eq!(answer(app.get_as("agent", wrong)).await.0, 403);
    let refused = on_record(&app).await;
    assert_eq!(refused.last().unwrap().2, "forbidden");
    let refused = refused.len();
    let phone = "phone=%2B573001234567&q=secreto";
    let made = file(&app, &format!("kind=interactions&{phone}&reveal=true")).await;
    let mut rows = on_record(&app).await.split_off(refused);
    let (end, begun) = (rows.pop().unwrap(), rows.pop().unwrap());
    assert!(rows.is_empty());
    for (row, outcome) in [(&begun, "begun"), (&end, "ok")] {
        assert_eq!(
            (row.0.as_str(), row.1.as_str(), row.2.as_str()),
            ("user:7", "interactions", outcome)
        );
        assert_eq!(row.3["reveal"], true);
        let told = row.3.to_string();
        assert!(
            !told.contains("3001234567") && !told.contains("secreto"),
            "{told}"
        );
    }
    assert_eq!(begun.3["rows"], Value::Null);
    assert_eq!(end.3["rows"], 0);
    assert_eq!(end.3["bytes"], json!(made.len()));
    app.stop().await;
}

#[tokio::test]
async fn what_is_asked_wrongly_is_named() {
    let app = TestApp::start().await;
    for (query, field, says) in [
        (
            "kind=calls",
            "kind",
            "must be one of: interactions, events, deliveries",
        ),
        ("kind=", "kind", "is missing"),
        (
            "kind=events&format=xml",
            "format",
            "must be one of: jsonl, csv, parquet",
        ),
        (
            "kind=events&channel=call",
            "channel",
            "is no filter of events",
        ),
        (
            "kind=interactions&after=4",
            "after",
            "is no filter of interactions",
        ),
        ("kind=deliveries&q=pago", "q", "is no filter of deliveries"),
        (
            "kind=events&from=hoy",
            "from",
            "must be a time like 2025-10-28T23:29:50Z",
        ),
        (
            "kind=deliveries&verdict=lost",
            "verdict",
            "must be one of: accepted, duplicate, quarantined, rejected",
        ),
    ] {
        let (status, body) = answer(app.get_as("auditor", &format!("/api/export?{query}"))).await;
        assert_eq!(status, 400, "{query}: {body}");
        let text = body.to_string();
        assert!(
            text.contains(field) && text.contains(says),
            "{query}: {text}"
        );
    }
    app.stop().await;
}

async fn collected(pool: &sqlx::PgPool, order: Order, between: impl AsyncFnOnce()) -> Vec<u8> {
    let export = Export::begin((pool, &opener()), &verifiers(), order)
        .await
        .unwrap();
    between().await;
    let (parts, mut receiver) = export::parts();
    let mut made = Made::default();
    let make = async {
        export.make(&parts, &mut made).await.unwrap();
        drop(parts);
    };
    let take = async {
        let mut file = Vec::new();
        while let Some(part) = receiver.recv().await {
            file.extend_from_slice(&part.expect("it is whole"));
        }
        file
    };
    tokio::join!(make, take).1
}

#[tokio::test]
async fn what_comes_meanwhile_is_not_in_the_file() {
    let app = TestApp::start().await;
    ok(app.elevenlabs(fixture(CALL))).await;
    app.settle().await;
    for kind in [Kind::Interactions, Kind::Events, Kind::Deliveries] {
        let order = Order::new(kind, Format::Jsonl, false, Filters::default()).unwrap();
        seal_all(&app.pool).await;
        let before = collected(&app.pool, order.clone(), async || {}).await;
        let meanwhile = async || {
            let sid = format!(
                "SM{:032}",
                app.count("select count(*) from deliveries").await
            );
            let form = format!(
                "MessageSid={sid}&SmsSid={sid}&From=whatsapp%3A%2B573001234567&To=whatsapp%3A%2B14155238886&Body=Hola"
            );
            ok(app.twilio("/webhook/twilio/incoming", form)).await;
            app.settle().await;
            seal_all(&app.pool).await;
        };
        let during = collected(&app.pool, order.clone(), meanwhile).await;
        assert_eq!(String::from_utf8(during), String::from_utf8(before.clone()));
        let after = collected(&app.pool, order, async || {}).await;
        assert!(after.len() > before.len(), "{kind:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn an_export_that_nobody_reads_to_its_end_is_cut_short() {
    let app = TestApp::start().await;
    send_everything(&app).await;
    let order = Order::new(Kind::Deliveries, Format::Jsonl, false, Filters::default()).unwrap();
    let export = Export::begin((&app.pool, &app.app().opener), &verifiers(), order)
        .await
        .unwrap();
    let (parts, receiver) = export::parts();
    drop(receiver);
    let ended = export.make(&parts, &mut Made::default()).await;
    assert_eq!(
        ended.unwrap_err().to_string(),
        "nobody reads the export any more"
    );
    app.stop().await;
}

#[tokio::test]
async fn the_command_writes_a_file_and_is_on_record() {
    let url = postgres::fresh_database().await;
    let settings = [SETTINGS, &[("DATABASE_URL", url.as_str())]].concat();
    let ended = add_ana("ana@example.com", &settings, "una contraseña larga").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let path = path.to_str().unwrap();
    let ended = run(
        &["export", "--kind", "events", "--reveal", "-o", path],
        &settings,
        "",
    )
    .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (_, rows, _) = lines(&std::fs::read(path).unwrap());
    let types: BTreeSet<_> = rows
        .iter()
        .map(|row| row["event_type"].as_str().unwrap())
        .collect();
    assert!(types.contains("user.registered"), "{types:?}");
    let ended = run(
        &["export", "--kind", "events", "--format", "csv"],
        &settings,
        "",
    )
    .await;
    assert_eq!(ended.code, Some(0));
    let (names, cells) = csv_rows(ended.stdout.as_bytes());
    assert_eq!(
        (names[0].as_str(), cells.len()),
        ("position", rows.len() + 2)
    );
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let sql = "select payload ->> 'outcome' from events
               where event_type = 'audit.recorded' and payload ->> 'action' = 'export' order by position";
    let told: Vec<String> = sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap();
    assert_eq!(told, ["begun", "ok", "begun", "ok"]);
    for (args, code) in [
        (&["export", "--kind", "events", "--channel", "call"][..], 2),
        (&["export", "--kind", "calls"], 2),
        (&["export", "--kind", "events", "-o", "/nowhere/at/all"], 1),
    ] {
        let ended = run(args, &settings, "").await;
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    }
    let told: Vec<String> = sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap();
    assert_eq!(told.len(), 4, "nothing was exported");
}

/// Every file that proves itself, of what is sealed in several turns.
async fn proved_files(app: &TestApp) -> Vec<Vec<u8>> {
    ok(app.elevenlabs(fixture(CALL))).await;
    seal_all(&app.pool).await;
    send_everything(app).await;
    seal_all(&app.pool).await;
    // Not sealed yet, so not in a file that proves itself.
    ok(app.elevenlabs("{}")).await;
    let mut files = Vec::new();
    for query in [
        "events",
        "deliveries",
        "events&type=call.completed",
        "events&after=5&aggregate_type=chat",
        "deliveries&verdict=quarantined",
        "events&type=nothing.happened",
    ] {
        files.push(file(app, &format!("kind={query}&reveal=true")).await);
    }
    files
}

#[tokio::test]
async fn a_file_proves_itself_without_a_database_and_a_changed_one_does_not() {
    let app = TestApp::with(crate::log::unsealed()).await;
    let files = proved_files(&app).await;
    let leaves = app.count("select max(size) from log_checkpoints").await;
    for file in &files {
        let verified = verify(file.as_slice(), &verifiers(), |_| ()).unwrap();
        let (header, rows, _) = lines(file);
        assert_eq!(
            (verified.rows, verified.size as i64),
            (rows.len() as u64, leaves)
        );
        assert_eq!(verified.origin, "example.com/tests");
        assert!(!verified.is_own_word);
        assert_eq!(header["public_key"], verifiers().keys()[0]);
        // By the file's own word too.
        let own = verify(file.as_slice(), &Default::default(), |_| ()).unwrap();
        assert!(own.is_own_word);
    }
    let counts: Vec<_> = files.iter().map(|file| lines(file).1.len()).collect();
    assert!(
        counts[0] > 30 && counts[1] > 20 && counts[2] > 1 && counts[3] > 1,
        "{counts:?}"
    );
    assert_eq!(counts[5], 0);

    let sealed = String::from_utf8(files[0].clone()).unwrap();
    let all: Vec<&str> = sealed.lines().collect();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = all.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        lines.join("\n") + "\n"
    };
    let replaced = |n: usize, from: &str, to: &str| {
        let changed = all[n].replacen(from, to, 1);
        assert_ne!(changed, all[n], "{from}");
        with(&|lines| lines[n] = changed.clone())
    };
    let last = all.len() - 1;
    let not_sealed = "the rows are not those that were sealed";
    let not_behind = "does not follow the one before";
    let other_key = domain::log::note::signer_key("example.com/tests", &[9; 32]).unwrap();
    let other = domain::log::Signer::new(&other_key, None).unwrap();
    let forged = other
        .sign(leaves as u64, domain::log::Hash([7; 32]))
        .unwrap();
    for (what, file, says) in [
        (
            "payload",
            replaced(3, "\"payload\":\"{", "\"payload\":\"{ "),
            not_sealed,
        ),
        (
            "metadata",
            replaced(3, "\"metadata\":\"{", "\"metadata\":\"{ "),
            not_sealed,
        ),
        (
            "type",
            replaced(3, "\"event_type\":\"", "\"event_type\":\"x"),
            not_sealed,
        ),
        (
            "time",
            replaced(3, "\"recorded_at\":\"2", "\"recorded_at\":\"3"),
            not_sealed,
        ),
        ("order", with(&|lines| lines.swap(3, 4)), not_behind),
        ("removed", with(&|lines| drop(lines.remove(3))), not_behind),
        (
            "inserted",
            with(&|lines| lines.insert(3, lines[3].clone())),
            not_behind,
        ),
        (
            "last removed",
            with(&|lines| drop(lines.remove(last - 1))),
            "the export has",
        ),
        (
            "tail cut",
            with(&|lines| lines.truncate(last)),
            "the file ends before its end",
        ),
        (
            "line cut",
            sealed[..sealed.len() - 9].to_owned(),
            "is cut short",
        ),
        (
            "a head of another key",
            with(&|lines| {
                let mut end: Value = serde_json::from_str(&lines[last]).unwrap();
                end["checkpoint"] = json!(forged);
                lines[last] = end.to_string();
            }),
            "the checkpoint is not believed",
        ),
        (
            "no header",
            with(&|lines| drop(lines.remove(0))),
            "line 1 is no header",
        ),
    ] {
        let refused = verify(file.as_bytes(), &verifiers(), |_| ());
        let why = format!("{:#}", refused.expect_err(what));
        assert!(why.contains(says), "{what}: {why}");
    }
    let masked = file(&app, "kind=events").await;
    let refused = verify(masked.as_slice(), &verifiers(), |_| ()).unwrap_err();
    assert!(refused.to_string().contains("masked"), "{refused}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.jsonl");
    let name = path.to_str().unwrap();
    let known =
        [("LOG_VERIFIER_KEYS", verifiers().keys()[0].as_str())].map(|(a, b)| (a, b.to_owned()));
    let known: Vec<_> = known.iter().map(|(a, b)| (*a, b.as_str())).collect();
    for (text, settings, code, says) in [
        (sealed.clone(), &known[..], 0, "are as they were sealed"),
        (sealed.clone(), &[], 0, "known from the file alone"),
        (with(&|lines| lines.swap(3, 4)), &known[..], 3, not_behind),
    ] {
        std::fs::write(&path, text).unwrap();
        let ended = run(&["verify", name], settings, "").await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(format!("{ended:?}").contains(says), "{ended:?}");
    }
    app.stop().await;
}
