//! Kills and stops: whatever was acknowledged is on the ledger, and whatever
//! is sent again is there once.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use bitacora::clock::Source;
use bitacora::ledger::{self, Claim, Delivery, Entry, Limits, Step, write_batch};
use bitacora::local_postgres::{Durability, LocalPostgres};
use bitacora::providers::{self, Outcome, Webhook};
use futures_util::stream::{self, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::harness::app::{
    BEGINNING_UNIX, ELEVENLABS_SECRET, Options, PUBLIC_URL, SERVICE_TOKEN, TWILIO_AUTH_TOKEN,
    answer, opener,
};
use crate::harness::program::Program;
use crate::harness::read_models::assert_equal_a_rebuild;
use crate::harness::{TestApp, fixture, postgres, sign};
use crate::ingest::{every_fixture, send_fixture};

/// What is waited for at most.
const PATIENCE: Duration = Duration::from_secs(60);

const STEPS: [Step; 3] = [Step::Begin, Step::Committed, Step::Durable];

async fn app_on(database_url: &str) -> TestApp {
    TestApp::with(Options {
        database_url: Some(database_url.to_owned()),
        ..Options::default()
    })
    .await
}

/// What the first writer has in hand when it is killed: every fixture. Sets
/// the database's key of phones, under which conversations are told apart.
async fn batch(pool: &PgPool) -> Vec<Entry> {
    let index = ledger::phone_index(pool, &[7; 32]).await.unwrap();
    let received_at = chrono::DateTime::from_timestamp(BEGINNING_UNIX, 0).unwrap();
    let entry = |(n, (name, path)): (u128, (String, &str))| {
        let body = fixture(&name);
        let webhook = match path {
            "/webhooks/elevenlabs/call" => Webhook::ElevenlabsCall,
            "/webhooks/builderbot/whatsapp" => Webhook::BuilderbotWhatsapp,
            "/webhooks/twilio/voice/status" => Webhook::TwilioVoiceStatus,
            "/webhook/twilio/incoming" => Webhook::TwilioIncoming,
            _ => Webhook::TwilioSmsStatus,
        };
        let content_type = match name.ends_with(".form") {
            true => "application/x-www-form-urlencoded",
            false => "application/json",
        };
        let normalised = providers::normalise(webhook, &body, Some(content_type), &index);
        let identity = normalised.identity;
        let claim = match normalised.outcome {
            Outcome::Facts(facts) => Claim::Facts { identity, facts },
            Outcome::Quarantined { reason } => Claim::Quarantined { identity, reason },
        };
        let delivery = Delivery {
            id: Uuid::from_u128(n + 1),
            provider: webhook.provider(),
            route: webhook.name(),
            authentication: "signature".to_owned(),
            received_at,
            remote_addr: None,
            request_target: path.to_owned(),
            headers: "{}".to_owned(),
            body: body.into(),
            reprocess_of: None,
        };
        Entry::Delivery(Box::new(delivery), claim)
    };
    (0..).zip(every_fixture()).map(entry).collect()
}

/// The meaning of the ledger: its events without what each telling has of its own.
async fn meaning(pool: &PgPool) -> Vec<String> {
    let filter = ledger::events::Filter::default();
    let events = ledger::events::list(pool, &opener(), &filter, 1000).await;
    let told = events.unwrap().into_iter().map(|event| {
        let is_one_telling = event.aggregate_type == "delivery";
        format!(
            "{} {} {} {} {} {:?} {}",
            event.aggregate_type,
            if is_one_telling {
                ""
            } else {
                &event.aggregate_id
            },
            event.sequence,
            event.event_type,
            event.event_version,
            event.occurred_at,
            if is_one_telling {
                json!(null)
            } else {
                event.payload
            },
        )
    });
    told.collect()
}

async fn verdicts(pool: &PgPool) -> BTreeMap<String, i64> {
    let sql = "select verdict, count(*) from deliveries group by verdict";
    let counts: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(pool).await.unwrap();
    counts.into_iter().collect()
}

/// Sends every fixture in turn; gives the answers.
async fn send_all(app: &TestApp) -> Vec<Value> {
    let mut answers = Vec::new();
    for (name, path) in every_fixture() {
        let (status, body) = answer(send_fixture(app, &name, path)).await;
        assert_eq!(status, 200, "{name}: {body}");
        answers.push(body);
    }
    answers
}

#[tokio::test]
async fn a_kill_before_any_step_loses_nothing_and_writes_nothing_twice() {
    let database_url = postgres::fresh_database().await;
    batch(&PgPool::connect(&database_url).await.unwrap()).await;
    let unharmed = app_on(&database_url).await;
    send_all(&unharmed).await;
    let expected = meaning(&unharmed.pool).await;
    let first_verdicts = verdicts(&unharmed.pool).await;
    let sent = i64::try_from(every_fixture().len()).unwrap();
    unharmed.stop().await;

    for killed_before in STEPS {
        let database_url = postgres::fresh_database().await;
        let pool = PgPool::connect(&database_url).await.unwrap();
        let entries = batch(&pool).await;
        let mut conn = PgConnection::connect(&database_url).await.unwrap();
        let kill = |step| match step == killed_before {
            true => Err(sqlx::Error::WorkerCrashed),
            false => Ok(()),
        };
        let written = write_batch(&mut conn, Limits::default(), entries, kill).await;
        assert!(matches!(written, Err(sqlx::Error::WorkerCrashed)));
        // The process is gone: its connection breaks without a word.
        drop(conn);

        let durable = killed_before != Step::Begin;
        let app = app_on(&database_url).await;
        let answers = send_all(&app).await;
        assert_eq!(meaning(&pool).await, expected, "{killed_before:?}");
        let mut expected_verdicts = first_verdicts.clone();
        if durable {
            *expected_verdicts.entry("duplicate".to_owned()).or_default() += sent;
            for (n, answer) in answers.iter().enumerate().filter(|(_, a)| a.is_object()) {
                assert_eq!(answer["status"], "duplicate", "{n}: {answer}");
            }
        }
        assert_eq!(
            verdicts(&pool).await,
            expected_verdicts,
            "{killed_before:?}"
        );

        send_all(&app).await;
        *expected_verdicts.entry("duplicate".to_owned()).or_default() += sent;
        assert_eq!(meaning(&pool).await, expected, "{killed_before:?}");
        assert_eq!(
            verdicts(&pool).await,
            expected_verdicts,
            "{killed_before:?}"
        );
        app.settle().await;
        app.stop().await;
        assert_equal_a_rebuild(&pool).await;
    }
}

/// As when the connection is lost between the commit and its answer: the writer
/// tries the same batch again.
#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_found_when_it_is_tried_again() {
    let database_url = postgres::fresh_database().await;
    let pool = PgPool::connect(&database_url).await.unwrap();
    let mut conn = PgConnection::connect(&database_url).await.unwrap();
    let entries = batch(&pool).await;
    let first = write_batch(&mut conn, Limits::default(), entries.clone(), |_| Ok(()));
    let first = first.await.unwrap();
    let (meant, counted) = (meaning(&pool).await, verdicts(&pool).await);
    let again = write_batch(&mut conn, Limits::default(), entries, |_| Ok(()));
    assert_eq!(again.await.unwrap(), first);
    assert_eq!(meaning(&pool).await, meant);
    assert_eq!(verdicts(&pool).await, counted);
}

#[tokio::test]
async fn what_cannot_be_committed_is_not_acknowledged() {
    let app = TestApp::start().await;
    for refuse in [
        "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'the commit fails' using errcode = 'disk_full'; end $$",
        "create constraint trigger refuse after insert on deliveries
             deferrable initially deferred for each row execute function refuse()",
    ] {
        sqlx::query(refuse).execute(&app.pool).await.unwrap();
    }
    let client = reqwest::Client::new();
    let (status, body) = answer(delivery(&client, &app.url, 2)).await;
    assert_eq!(status, 503, "{body}");
    let drop = "drop trigger refuse on deliveries";
    sqlx::query(drop).execute(&app.pool).await.unwrap();
    let (status, body) = answer(delivery(&client, &app.url, 2)).await;
    assert_eq!((status, &body["status"]), (200, &json!("accepted")));
}

/// Delivery `n` of a load, signed by one of two providers.
fn delivery(client: &reqwest::Client, url: &str, n: usize) -> RequestBuilder {
    if n.is_multiple_of(2) {
        let path = "/webhooks/twilio/sms/status";
        let form =
            format!("MessageSid=SM{n}&MessageStatus=sent&From=%2B14155550100&To=%2B5491133334444");
        let signature = sign::twilio(
            TWILIO_AUTH_TOKEN,
            &format!("{PUBLIC_URL}{path}"),
            form.as_bytes(),
        );
        return client
            .post(format!("{url}{path}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("X-Twilio-Signature", signature)
            .body(form);
    }
    let mut body: Value =
        serde_json::from_slice(&fixture("elevenlabs/post_call_transcription.json")).unwrap();
    body["data"]["conversation_id"] = json!(format!("conv_{n}"));
    body["data"]["metadata"]["phone_call"]["call_sid"] = json!(format!("CA{n}"));
    let body = body.to_string();
    let now = Source::system().now().timestamp();
    let signature = sign::elevenlabs(ELEVENLABS_SECRET, now, body.as_bytes());
    client
        .post(format!("{url}/webhooks/elevenlabs/call"))
        .header("content-type", "application/json")
        .header("ElevenLabs-Signature", signature)
        .body(body)
}

/// More than is acknowledged before anything is stopped.
const LOAD: usize = 1500;
const AT_ONCE: usize = 32;
const ACKNOWLEDGED_BEFORE_THE_END: usize = 200;

/// Sends the load and, once some are acknowledged, does `then` once. Gives
/// what was answered to each delivery: the body of a 200.
async fn send_load(url: &str, then: impl AsyncFnOnce()) -> BTreeMap<usize, Value> {
    let client = reqwest::Client::new();
    let send = |n| {
        let request = delivery(&client, url, n);
        async move {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            assert!(matches!(status, 200 | 503), "{n}: {status}");
            let body: Value = response.json().await.ok()?;
            (status == 200).then_some((n, body))
        }
    };
    let mut outcomes = stream::iter(0..LOAD).map(send).buffer_unordered(AT_ONCE);
    let (mut acknowledged, mut then) = (BTreeMap::new(), Some(then));
    while let Some(outcome) = outcomes.next().await {
        acknowledged.extend(outcome);
        if acknowledged.len() >= ACKNOWLEDGED_BEFORE_THE_END
            && let Some(then) = then.take()
        {
            then().await;
        }
    }
    assert!(
        acknowledged.len() < LOAD,
        "it ended in the middle of the load"
    );
    acknowledged
}

/// Each delivery of the load has its event, once, at an end of its own stream.
async fn assert_each_once(pool: &PgPool) {
    let sql = "select aggregate_id, count(*) from events group by 1";
    let events: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(pool).await.unwrap();
    assert_eq!(events.len(), LOAD);
    for (stream, count) in events {
        assert_eq!(count, 1, "{stream}");
    }
}

#[tokio::test]
async fn a_killed_program_has_lost_nothing_that_it_acknowledged() {
    let database_url = postgres::fresh_database().await;
    let pool = PgPool::connect(&database_url).await.unwrap();
    let program = Program::serve(&database_url).await;
    let url = program.url.clone();
    let acknowledged = send_load(&url, async || program.kill().await).await;

    let program = Program::serve(&database_url).await;
    let client = reqwest::Client::new();
    let again = |n| {
        let request = delivery(&client, &program.url, n);
        async move { (n, answer(request).await) }
    };
    let answers: Vec<_> = stream::iter(0..LOAD)
        .map(again)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for (n, (status, body)) in answers {
        assert_eq!(status, 200, "{n}: {body}");
        if let Some(first) = acknowledged.get(&n) {
            assert_eq!(body["status"], "duplicate", "{n}");
            assert_eq!(body["delivery_id"], first["delivery_id"], "{n}");
            assert_eq!(body["position"], first["position"], "{n}");
        }
    }
    assert_each_once(&pool).await;
    program.terminate();
    let (status, log) = program.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_equal_a_rebuild(&pool).await;
}

#[tokio::test]
async fn a_stopped_program_has_answered_for_everything_on_the_ledger() {
    let database_url = postgres::fresh_database().await;
    let pool = PgPool::connect(&database_url).await.unwrap();
    let program = Program::serve(&database_url).await;
    let acknowledged = send_load(&program.url, async || program.terminate()).await;
    let (status, log) = program.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");

    let sql = "select id::text from deliveries order by id";
    let kept: Vec<String> = sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap();
    let mut told: Vec<&str> = acknowledged
        .values()
        .filter_map(|body| body["delivery_id"].as_str())
        .collect();
    told.sort_unstable();
    assert_eq!(told, kept, "what is on the ledger is what was acknowledged");
    assert_equal_a_rebuild(&pool).await;
}

#[tokio::test]
async fn what_was_received_before_the_stop_is_written_and_answered() {
    const IN_FLIGHT: usize = 20;
    const BATCHES_AT_ONCE: usize = 2;
    let database_url = postgres::fresh_database().await;
    let pool = PgPool::connect(&database_url).await.unwrap();
    let program = Program::serve(&database_url).await;
    // Nobody can append until this is over.
    let mut holder = bitacora::transaction::begin(&pool).await.unwrap();
    sqlx::query("select ledger_lock()")
        .execute(&mut *holder)
        .await
        .unwrap();
    let client = reqwest::Client::new();
    let send = |n| tokio::spawn(answer(delivery(&client, &program.url, n)));
    let mut in_flight = vec![];
    for n in 0..BATCHES_AT_ONCE {
        in_flight.push(send(n));
        until(async || waiting_for_the_lock(&pool).await == in_flight.len()).await;
    }
    in_flight.extend((BATCHES_AT_ONCE..IN_FLIGHT).map(send));
    until(async || queued(&client, &program.url).await == IN_FLIGHT - BATCHES_AT_ONCE).await;
    program.terminate();
    let url = format!("{}/livez", program.url);
    until(async || client.get(&url).send().await.is_err()).await;
    assert!(in_flight.iter().all(|answer| !answer.is_finished()));
    holder.rollback().await.unwrap();
    for answer in in_flight {
        let (status, body) = answer.await.unwrap();
        assert_eq!(
            (status, &body["status"]),
            (200, &json!("accepted")),
            "{body}"
        );
    }
    let (status, log) = program.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let events: i64 = sqlx::query_scalar("select count(*) from events")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(usize::try_from(events), Ok(IN_FLIGHT));
}

/// As when a caller goes away, or the process stops, just then.
#[tokio::test]
async fn a_transaction_that_is_cut_short_as_it_begins_is_left_to_nobody() {
    let url = postgres::fresh_database().await;
    let pool = bitacora::app::connect(&url, 1).await.unwrap();
    for polls in 1..20 {
        {
            let mut beginning = std::pin::pin!(bitacora::transaction::begin(&pool));
            let mut left = polls;
            std::future::poll_fn(|cx| {
                left -= 1;
                match beginning.as_mut().poll(cx) {
                    Poll::Pending if left > 0 => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            })
            .await;
        }
        let sql = "select count(*) from pg_stat_activity
                   where state <> 'active' and xact_start is not null and datname = current_database()";
        let mut conn = PgConnection::connect(&url).await.unwrap();
        until(async || pool.size() as usize == pool.num_idle()).await;
        let open: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
        assert_eq!(open, 0, "cut short after {polls} polls");
    }
}

/// Waits for what is going to be, with an end.
async fn until(mut it_is_so: impl AsyncFnMut() -> bool) {
    let mut turns = tokio::time::interval(Duration::from_millis(10));
    let waiting = async {
        while !it_is_so().await {
            turns.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

async fn waiting_for_the_lock(pool: &PgPool) -> usize {
    let sql = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                 and database = (select oid from pg_database where datname = current_database())";
    let waiting: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
    usize::try_from(waiting).unwrap()
}

/// How many deliveries wait in the program's queue, not yet in a batch.
async fn queued(client: &reqwest::Client, url: &str) -> usize {
    let metrics = client
        .get(format!("{url}/metrics"))
        .header("X-Service-Token", SERVICE_TOKEN);
    let (_, metrics) = answer(metrics).await;
    let metrics = metrics.as_str().unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("bitacora_ingest_queue_deliveries "));
    line.unwrap().parse().unwrap()
}

/// Everything at once, as when the machine loses its power: what was on the
/// disk is what is left.
#[tokio::test]
async fn a_killed_server_has_lost_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    // The server may run as another user than we do.
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let start = async || {
        let password = "test".to_owned();
        let server = LocalPostgres::start(dir.path(), password, Durability::Durable);
        server.await.unwrap()
    };
    let server = start().await;
    let url = server.url();
    let program = Program::serve(&url).await;
    let process = format!("/proc/{}", server.process_id().unwrap());
    let acknowledged = send_load(&program.url, async || kill_server(&process)).await;
    program.kill().await;
    drop(server);
    until(async || !Path::new(&process).exists()).await;

    let server = start().await;
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let sql = "select id::text, position from deliveries";
    let kept: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&pool).await.unwrap();
    let kept: BTreeMap<_, _> = kept.into_iter().collect();
    for (n, answer) in &acknowledged {
        let position = kept.get(answer["delivery_id"].as_str().unwrap());
        assert_eq!(position, answer["position"].as_i64().as_ref(), "{n}");
    }
    pool.close().await;
    server.stop().await.unwrap();
}

/// Kills every process of the server, the first one first: none of them can
/// write anything any more.
fn kill_server(process: &str) {
    let first = process.trim_start_matches("/proc/");
    let others = std::fs::read_to_string(format!("{process}/task/{first}/children")).unwrap();
    for pid in std::iter::once(first).chain(others.split_whitespace()) {
        // One that has ended by itself is as good.
        let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
    }
}
