//! `Idempotency-Key`: whoever repeats a request gets the first answer. Contract,
//! section 0.

use std::time::Duration;

use futures_util::future::{join, join_all};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::errors::header;
use crate::harness::TestApp;
use crate::harness::app::answer;
use crate::replicas::two;

fn ask(app: &TestApp) -> RequestBuilder {
    let body = json!({"phone_number": "+573001234567", "purpose": "login"});
    let request = app.post_as("service", "/api/otp", &body);
    request.header("Idempotency-Key", "key-1")
}

/// As a kill leaves it: the key is held, and nobody will note an answer.
async fn hold(app: &TestApp) {
    let until = app.clock.now() + chrono::Duration::seconds(15);
    let held = sqlx::query(
        "update idempotency_keys set status = null, headers = null, body = null, held_until = $1",
    );
    let held = held.bind(until).execute(&app.pool).await.unwrap();
    assert_eq!(held.rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_requests_at_once_get_the_same_answer() {
    let apps = two([|_| {}, |_| {}]).await;
    let answers = join_all((0..10).map(|n| answer(ask(&apps[n % 2])))).await;
    assert_eq!(answers[0].0, 202, "{}", answers[0].1);
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    let made = "select count(*) from events where event_type = 'otp.requested'";
    assert_eq!(apps[0].count(made).await, 1);
    for app in apps {
        app.stop().await;
    }
}

#[tokio::test]
async fn what_a_kill_cut_short_is_taken_over_when_its_hold_is_over() {
    let app = TestApp::start().await;
    let (status, first) = answer(ask(&app)).await;
    assert_eq!(status, 202, "{first}");

    // While it is held, a repeat waits, and is told when to come again.
    hold(&app).await;
    let response = ask(&app).send().await.unwrap();
    assert_eq!(response.status(), 409);
    assert_eq!(header(&response, "retry-after"), Some("5"));
    let refusal: Value = response.json().await.unwrap();
    assert_eq!(refusal["code"], "idempotency_in_progress");

    // One that still waits when the hold runs out takes over.
    let over = async { app.clock.advance(chrono::Duration::seconds(15)) };
    let ((status, again), ()) = join(answer(ask(&app)), over).await;
    assert_eq!(status, 202, "{again}");
    let challenge = |answer: &Value| answer["data"]["challenge_id"].clone();
    assert_eq!(challenge(&again), challenge(&first));
    assert_eq!(app.count("select count(*) from otp_requests").await, 1);
    app.stop().await;
}

/// The message is queued and no worker sends it: the answer takes 8 seconds.
#[tokio::test]
async fn a_request_that_takes_long_keeps_its_key() {
    let app = TestApp::start().await;
    let request = || {
        let body = json!({
            "agent_id": "agent_1",
            "recipient": {"id": "rcpt_1", "phone_number": "+573001234567"},
        });
        let request = app.post_as("service", "/api/call-completed", &body);
        request.header("Idempotency-Key", "key-1")
    };
    let hold = "select extract(epoch from held_until)::bigint from idempotency_keys";
    let began = app.clock.now().timestamp();
    // Bounded: 20 seconds each.
    let held_beyond = async |unix: i64| {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..400 {
            looks.tick().await;
            let until = sqlx::query_scalar::<_, i64>(hold);
            match until.fetch_optional(&app.pool).await.unwrap() {
                Some(until) if until > unix => return until,
                _ => {}
            }
        }
        panic!("the key is not held beyond {unix}");
    };
    let renewed = async {
        held_beyond(began).await;
        app.clock.advance(chrono::Duration::seconds(10));
        held_beyond(began + 15).await
    };
    let (first, until) = join(answer(request()), renewed).await;
    assert_eq!((first.0, until), (202, began + 25), "{}", first.1);
    assert_eq!(answer(request()).await, first);
    app.stop().await;
}
