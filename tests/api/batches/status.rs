//! How batches stand: by webhooks, by the monitor, by the reconciler, and as
//! they change.

use std::time::Duration;

use bitacora::batches;
use futures_util::StreamExt;
use sandbox::{CallOutcome, Fault, Rates};
use serde_json::{Value, json};

use super::{Pair, kind};
use crate::harness::app::{Options, answer, ok};
use crate::harness::past::Past;
use crate::harness::read_models::assert_equal_a_rebuild;

const ANA: &str = "+573001234567";
const LUIS: &str = "+573007654321";
const EVA: &str = "+573009999999";

#[tokio::test]
async fn a_batch_that_was_called_is_shown_with_what_was_said() {
    let pair = Pair::start(kind()).await;
    pair.fates(&[
        (ANA, CallOutcome::Answered),
        (LUIS, CallOutcome::Busy),
        (EVA, CallOutcome::Voicemail),
    ])
    .await;
    let id = pair.submit("Campaña", &[ANA, LUIS, EVA]).await;
    pair.call_everybody().await;
    pair.look().await;
    let seen = pair.status(&id).await;
    assert_eq!(seen["status"], "partially_completed");
    assert_eq!(
        seen["counts"],
        json!({"total": 3, "pending": 0, "in_progress": 0, "completed": 1, "failed": 1,
               "cancelled": 0, "voicemail": 1})
    );
    let ana = &seen["recipients"][0];
    assert_eq!(
        (&ana["phone_number"], &ana["status"]),
        (&json!(ANA), &json!("completed"))
    );
    assert_eq!(ana["variables"], json!({"nombre": "Juan"}));
    assert!(!ana["transcript"].as_array().unwrap().is_empty());
    assert!(ana["summary"].is_string() && ana["audio_url"].is_string());
    let list = ok(pair
        .app
        .get_as("service", "/api/batch-calls?status=partially_completed"))
    .await;
    assert_eq!(
        list["message"],
        "Lista de batch calls obtenida exitosamente"
    );
    assert_eq!(list["data"][0]["batch_id"], json!(id));
    assert_eq!(list["data"][0]["recipients_count"], 3);
    let masked = ok(pair
        .app
        .get_as("agent", &format!("/api/batch-calls/{id}/status")))
    .await;
    assert_eq!(
        masked["data"]["recipients"][0]["phone_number"],
        "+57******4567"
    );
}

#[tokio::test]
async fn webhooks_that_never_come_are_made_good_and_counted() {
    let pair = Pair::start(Rates {
        never: 1.0,
        ..kind()
    })
    .await;
    pair.fates(&[(ANA, CallOutcome::Answered), (LUIS, CallOutcome::NoAnswer)])
        .await;
    let id = pair.submit("Sin webhooks", &[ANA, LUIS]).await;
    pair.call_everybody().await;
    pair.look().await;
    let app = pair.app.app();
    assert_eq!(
        batches::reconcile(app).await.unwrap(),
        0,
        "they may still come"
    );
    pair.pass(600).await;
    let before = counted(&pair).await;
    assert_eq!(batches::reconcile(app).await.unwrap(), 2);
    assert_eq!(counted(&pair).await - before, 2);
    pair.app.settle().await;
    assert_eq!(batches::reconcile(app).await.unwrap(), 0, "each once");
    let seen = pair.status(&id).await;
    let ana = &seen["recipients"][0];
    assert!(!ana["transcript"].as_array().unwrap().is_empty(), "{seen}");
    let call = ana["conversation_id"].as_str().unwrap();
    let audio = pair
        .app
        .get_as("auditor", &format!("/api/interactions/{call}/audio"));
    assert_eq!(audio.send().await.unwrap().status(), 200);
    let fetched = "select count(*) from deliveries where authentication = 'fetched'";
    assert_eq!(
        pair.app.count(fetched).await,
        3,
        "two reports and a recording"
    );
}

async fn counted(pair: &Pair) -> i64 {
    let request = pair.app.get_as("service", "/metrics");
    let text = request.send().await.unwrap().text().await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("bitacora_missing_webhooks_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_completed_call_without_its_webhook_is_fetched_for_whoever_asks() {
    let pair = Pair::start(Rates {
        never: 1.0,
        ..kind()
    })
    .await;
    let id = pair.submit("Sin esperar", &[ANA]).await;
    pair.call_everybody().await;
    pair.look().await;
    pair.pass(20).await;
    let seen = pair.status(&id).await;
    assert!(
        !seen["recipients"][0]["transcript"]
            .as_array()
            .unwrap()
            .is_empty(),
        "{seen}"
    );
}

#[tokio::test]
async fn what_others_ordered_is_found_and_watched() {
    let pair = Pair::start(kind()).await;
    let body = json!({
        "call_name": "Desde el panel", "agent_id": super::AGENT, "agent_phone_number_id": super::LINE,
        "recipients": [{"phone_number": ANA}],
    });
    let url = format!("{}/v1/convai/batch-calling/submit", pair.sandbox.url());
    let request = pair
        .app
        .client
        .post(url)
        .header("xi-api-key", "k")
        .json(&body);
    let theirs = ok(request).await["id"].as_str().unwrap().to_owned();
    pair.look().await;
    pair.call_everybody().await;
    pair.look().await;
    assert_eq!(pair.status(&theirs).await["status"], "completed");
    let events = pair
        .app
        .count("select count(*) from events where aggregate_type = 'batch'")
        .await;
    pair.look().await;
    let after = pair
        .app
        .count("select count(*) from events where aggregate_type = 'batch'")
        .await;
    assert_eq!(after, events, "nothing new is nothing recorded");
}

/// The events of a stream: name, id, data.
struct Stream {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Stream {
    async fn open(pair: &Pair, path: &str) -> Self {
        let response = pair.app.get_as("supervisor", path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.bytes_stream().boxed(),
            text: String::new(),
        }
    }

    /// The next event; `None` once the stream is closed.
    async fn next(&mut self) -> Option<(String, Option<i64>, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
                };
                let name = field("event: ");
                let id = field("id: ").map(|id| id.parse().unwrap());
                let data = field("data: ").map(|data| serde_json::from_str(&data).unwrap());
                self.text = rest.to_owned();
                if let (Some(name), Some(data)) = (name, data) {
                    return Some((name, id, data));
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.body.next());
            let chunk = chunk.await.expect("no event came")?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test]
async fn a_stream_tells_every_change_and_ends_with_the_batch() {
    let pair = Pair::start(kind()).await;
    let id = pair.submit("En vivo", &[ANA]).await;
    let path = format!("/api/batch-calls/{id}/status/stream");
    let mut stream = Stream::open(&pair, &path).await;
    let (name, _, connected) = stream.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &connected["message"]),
        ("connected", &json!("Conexión SSE establecida"))
    );
    assert_eq!(connected["batchId"], json!(id));
    let (name, first, update) = stream.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &update["success"]),
        ("status-update", &json!(true))
    );
    assert_eq!(update["data"]["status"], "pending");
    pair.call_everybody().await;
    pair.look().await;
    let mut last = first;
    let ended = loop {
        let (name, id, data) = stream.next().await.unwrap();
        assert!(id >= last, "ids rise");
        last = id;
        if name == "batch-completed" {
            break data;
        }
        assert_eq!(name, "status-update");
    };
    assert_eq!(
        (&ended["message"], &ended["finalStatus"]),
        (&json!("Batch call completed"), &json!("completed"))
    );
    assert_eq!(ended["data"]["batch_id"], json!(id));
    assert!(stream.next().await.is_none(), "it closes");
    let (status, _) = answer(
        pair.app
            .get_as("service", "/api/batch-calls/nobody/status/stream"),
    )
    .await;
    assert_eq!(status, 404);
    let token = pair.app.token("agent");
    let url = format!("{}{path}?access_token={token}", pair.app.url);
    let by_query = pair.app.client.get(url).send().await.unwrap();
    assert_eq!(by_query.status(), 200);
}

#[tokio::test]
async fn a_stream_is_closed_after_its_time() {
    let pair = Pair::with(kind(), |options| Options {
        config: |config| config.sse_timeout = Duration::from_secs(1),
        ..options
    })
    .await;
    let id = pair.submit("Largo", &[ANA]).await;
    let mut stream = Stream::open(&pair, &format!("/api/batch-calls/{id}/status/stream")).await;
    let mut names = Vec::new();
    while let Some((name, ..)) = stream.next().await {
        names.push(name);
    }
    assert_eq!(names.first().map(String::as_str), Some("connected"));
    assert_eq!(names.last().map(String::as_str), Some("timeout"));
}

#[tokio::test]
async fn a_batch_that_somebody_deleted_at_the_provider_is_left_alone() {
    let pair = Pair::with(kind(), |options| Options {
        // Only we look.
        config: |config| config.batch_poll = Duration::from_secs(3600),
        ..options
    })
    .await;
    let gone = pair.submit("Borrada", &[ANA]).await;
    let url = format!("{}/v1/convai/batch-calling/{gone}", pair.sandbox.url());
    let delete = pair.app.client.delete(url).header("xi-api-key", "k");
    assert_eq!(delete.send().await.unwrap().status().as_u16(), 204);
    let there = pair.submit("Otra", &[LUIS]).await;
    pair.sandbox.settle().await;

    let mut monitor = batches::Monitor::default();
    let asked = || pair.sandbox.truth().request_count("elevenlabs.batch_get");
    for _ in 0..5 {
        monitor.run_once(pair.app.app()).await.unwrap();
    }
    pair.app.settle().await;
    let after_some = asked();
    for _ in 0..5 {
        monitor.run_once(pair.app.app()).await.unwrap();
    }
    assert_eq!(asked(), after_some, "not asked for again and again");
    assert_eq!(pair.status(&there).await["status"], "completed");
    assert_eq!(pair.status(&gone).await["counts"]["total"], 1);

    // Neither is a cancellation looked up for ever of which no answer came.
    pair.script("elevenlabs.batch_cancel", 1, Fault::Hang).await;
    let (status, refused) = pair.post(&format!("/api/batch-calls/{gone}/cancel")).await;
    assert_eq!(status, 502, "{refused}");
}

#[tokio::test]
async fn a_batch_of_the_past_is_shown_as_it_was_shown_then() {
    let pair = Pair::start(kind()).await;
    let app = &pair.app;
    pair.fates(&[(ANA, CallOutcome::Answered), (LUIS, CallOutcome::Busy)])
        .await;
    let first = pair.submit("Primera", &[ANA, LUIS]).await;
    let ours = "select aggregate_id from events where event_type = 'batch.requested'";
    let ours: String = sqlx::query_scalar(ours).fetch_one(&app.pool).await.unwrap();
    let paths = [
        format!("/api/batch-calls/{first}/status"),
        format!("/api/batch-calling/{first}"),
        format!("/api/batch-calling/{ours}"),
    ];
    let mut past = Past::default();
    past.keep(app, &paths).await;
    pair.look().await;
    past.keep(app, &paths).await;
    pair.pass(5).await;
    pair.look().await;
    past.keep(app, &paths).await;
    pair.call_everybody().await;
    past.keep(app, &paths).await;
    pair.look().await;
    past.keep(app, &paths).await;
    pair.post(&format!("/api/batch-calls/{first}/retry")).await;
    past.keep(app, &paths).await;
    // The same people again: a call is of one batch only.
    let second = pair.submit("Segunda", &[ANA, LUIS]).await;
    pair.call_everybody().await;
    pair.look().await;
    let second = format!("/api/batch-calls/{second}/status");
    past.keep(app, &[paths.as_slice(), &[second]].concat())
        .await;
    assert!(past.different() >= 10, "{}", past.different());
    past.is_answered_again(app).await;
    assert_equal_a_rebuild(&app.pool).await;
    past.is_answered_again(app).await;
    for path in paths {
        let (status, body) = answer(app.get_as("agent", &format!("{path}?as_of=0"))).await;
        assert_eq!(
            (status, &body["message"]),
            (404, &json!("Batch call no encontrado"))
        );
    }
}
