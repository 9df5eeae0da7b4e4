//! What goes wrong on demand and by chance, and what can be taken in hand.

mod support;

use std::time::Duration;

use bitacora_sandbox::{Error, Options, Rates, Sandbox, Span, serve};
use serde_json::{Value, json};
use support::{Pair, numbers, options};

const SUBMIT: &str = "/v1/convai/batch-calling/submit";

#[tokio::test]
async fn a_hung_submit_is_carried_out_and_a_lost_one_is_not() {
    let pair = Pair::ideal().await;
    let url = format!("{}{SUBMIT}", pair.sandbox.url());
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_millis(150));
    let http = http.build().unwrap();
    for (fault, batches) in [("hang", 0), ("hang_after_work", 1)] {
        let script = json!([{"operation": "elevenlabs.batch_submit", "fault": fault}]);
        pair.control(json!({"script": script})).await;
        let body = support::batch("Ambigua", &numbers(1));
        let request = http.post(&url).header("xi-api-key", "k").json(&body);
        assert!(request.send().await.unwrap_err().is_timeout());
        assert_eq!(pair.truth().batches.len(), batches);
    }
    let truth = pair.truth();
    let operation = &truth.requests["elevenlabs.batch_submit"];
    assert_eq!((operation.count, operation.carried_out), (2, 1));
    assert!(
        operation
            .requests
            .iter()
            .all(|request| request.answer.is_none())
    );
}

#[tokio::test]
async fn a_refusal_after_work_is_a_lie_that_the_truth_knows() {
    let pair = Pair::ideal().await;
    let fault = json!({"refuse_after_work": 500});
    let script = json!([{"operation": "elevenlabs.batch_submit", "fault": fault}]);
    pair.control(json!({"script": script})).await;
    let (status, body) = pair
        .ask("POST", SUBMIT, support::batch("x", &numbers(1)))
        .await;
    assert_eq!(
        (status, &body["detail"]["type"]),
        (500, &json!("internal_error"))
    );
    assert_eq!(pair.truth().batches.len(), 1);
}

#[tokio::test]
async fn scripted_faults_come_in_their_order_and_end() {
    let pair = Pair::ideal().await;
    pair.control(json!({"script": [
        {"operation": "elevenlabs.phone_number_list", "times": 2, "fault": {"refuse": 429}},
        {"operation": "*", "fault": {"refuse": 503}},
    ]}))
    .await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let (status, _) = pair
            .ask("GET", "/v1/convai/phone-numbers", Value::Null)
            .await;
        statuses.push(status);
    }
    assert_eq!(statuses, [429, 429, 503, 200]);
}

#[tokio::test]
async fn chance_refuses_the_same_requests_of_the_same_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let rates = Rates {
            refused: 0.5,
            ..Rates::ideal()
        };
        let pair = Pair::start(options(3, rates)).await;
        let mut statuses = Vec::new();
        for _ in 0..20 {
            let (status, _) = pair
                .ask("GET", "/v1/convai/phone-numbers", Value::Null)
                .await;
            statuses.push(status);
        }
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    for status in [200, 429, 500] {
        assert!(runs[0].contains(&status), "{:?}", runs[0]);
    }
}

#[tokio::test]
async fn paused_webhooks_wait_until_they_are_let_go() {
    let pair = Pair::ideal().await;
    pair.control(json!({"pause_webhooks": true})).await;
    pair.submit("Pausa", &numbers(2)).await;
    pair.sandbox.settle().await;
    assert_eq!((pair.got().len(), pair.truth().pending), (0, 4));
    assert_eq!(pair.sandbox.fire_webhooks().await, 4);
    assert_eq!((pair.got().len(), pair.truth().pending), (4, 0));
}

#[tokio::test]
async fn firing_webhooks_lets_nothing_else_happen() {
    let rates = Rates {
        late: 1.0,
        late_secs: Span::new(600, 600),
        ..Rates::ideal()
    };
    let pair = Pair::start(options(1, rates)).await;
    pair.submit("Una", &numbers(1)).await;
    pair.sandbox.advance(Duration::from_secs(400)).await;
    let before = pair.truth();
    assert_eq!(
        (pair.got().len(), before.batches[0].status.as_str()),
        (0, "completed")
    );
    assert!(pair.sandbox.fire_webhooks().await > 0);
    assert_eq!(pair.truth().now_unix_ms, before.now_unix_ms);
    assert!(!pair.got().is_empty());
}

#[tokio::test]
async fn a_control_with_a_mistake_does_nothing_and_says_so() {
    let pair = Pair::ideal().await;
    let url = format!("{}/sandbox/control", pair.sandbox.url());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for wrong in [json!({"settel": true}), json!({"rates": {"nevr": 1}})] {
        let response = http.post(&url).json(&wrong).send().await.unwrap();
        assert_eq!(response.status(), 400);
        let body: Value = response.json().await.unwrap();
        assert!(
            body["error"].as_str().unwrap().contains("unknown field"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_speak_the_providers_language() {
    let pair = Pair::ideal().await;
    let ask = |method: &'static str, path: &'static str| pair.ask(method, path, Value::Null);
    let words = |detail: &str| json!({"detail": detail});
    assert_eq!(
        ask("GET", "/v1/convai/nada").await,
        (404, words("Not Found"))
    );
    assert_eq!(
        ask("PUT", "/v1/convai/phone-numbers").await,
        (405, words("Method Not Allowed"))
    );
    let (status, body) = ask("GET", "/2010-04-01/Accounts/AC1/Nada/1/2/3/4.json").await;
    assert_eq!((status, &body["code"]), (404, &json!(20404)));
}

#[tokio::test]
async fn impossible_options_are_refused_in_words() {
    let slow = Options {
        speed: 0.0,
        ..Options::default()
    };
    let Err(Error::Options(words)) = Sandbox::start(slow).await else {
        panic!("started at speed 0");
    };
    assert!(words.contains("speed"));
    let rates = Rates {
        failed: 0.6,
        voicemail: 0.6,
        ..Rates::default()
    };
    assert!(Sandbox::start(options(1, rates)).await.is_err());
}

#[tokio::test]
async fn serving_ends_when_it_is_told_to_even_with_a_hung_request() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(options(1, Rates::ideal()), async {
        let _ = stopped.await;
    }));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();

    let pair = Pair::ideal().await;
    let script = json!([{"operation": "elevenlabs.phone_number_list", "fault": "hang"}]);
    pair.control(json!({"script": script})).await;
    let url = format!("{}/v1/convai/phone-numbers", pair.sandbox.url());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let hung = tokio::spawn(http.get(url).header("xi-api-key", "k").send());
    while pair.truth().request_count("elevenlabs.phone_number_list") == 0 {
        tokio::task::yield_now().await;
    }
    pair.sandbox.stop().await;
    // It ended, one way or the other.
    let _ = hung.await.unwrap();
}
