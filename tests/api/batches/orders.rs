//! Giving orders: what is answered, and that nothing is ordered twice.

use std::collections::HashMap;

use bitacora::batches;
use bitacora::providers::http::Error;
use domain::PhoneNumber;
use domain::batch::{Batch, Command, Recipient, Requested};
use sandbox::{CallOutcome, Fault};
use serde_json::{Value, json};

use super::{AGENT, LINE, Pair, SUBMIT, kind, order};
use crate::harness::app::{Options, answer, ok};
use crate::harness::read_models::assert_equal_a_rebuild;

const ANA: &str = "+573001234567";
const LUIS: &str = "+573007654321";

#[tokio::test]
async fn an_order_is_answered_with_the_fields_of_the_call_manager() {
    let pair = Pair::start(kind()).await;
    let body = order("Campaña Marketing Octubre", &[ANA, LUIS]);
    let response = pair
        .app
        .post_as("service", SUBMIT, &body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("x-ledger-position"));
    let answer: Value = response.json().await.unwrap();
    let truth = pair.sandbox.truth();
    let made = truth.batches[0].created_at_unix;
    assert_eq!(
        answer,
        json!({"success": true, "data": {
            "id": truth.batches[0].id,
            "phone_number_id": LINE,
            "name": "Campaña Marketing Octubre",
            "agent_id": AGENT,
            "created_at_unix": made,
            "scheduled_time_unix": made,
            "total_calls_dispatched": 0,
            "total_calls_scheduled": 2,
            "last_updated_at_unix": made,
            "status": "pending",
            "agent_name": answer["data"]["agent_name"],
            "phone_provider": "twilio",
        }})
    );
    let id = truth.batches[0].id.clone();
    let seen = pair.app.read(&format!("/api/batch-calling/{id}")).await;
    assert_eq!(seen["data"]["recipients"][0]["phone_number"], ANA);
    let (status, missing) = answer_of(&pair, "/api/batch-calling/btcal_nobody").await;
    assert_eq!((status, &missing["code"]), (404, &json!("not_found")));
}

async fn answer_of(pair: &Pair, path: &str) -> (u16, Value) {
    answer(pair.app.get_as("service", path)).await
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let pair = Pair::start(kind()).await;
    let body = json!({
        "call_name": " ",
        "agent_id": 7,
        "recipients": [{"phone_number": "3001234567"}, {"phone_number": ANA, "dynamic_variables": []}, 3],
        "scheduled_time_unix": "soon",
        "phone_provider": "pigeon",
    });
    let (status, refused) = answer(pair.app.post_as("service", SUBMIT, &body)).await;
    assert_eq!(
        (status, &refused["code"]),
        (400, &json!("validation_error"))
    );
    let fields: Vec<_> = refused["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "call_name",
            "agent_id",
            "agent_phone_number_id",
            "recipients[0].phone_number",
            "recipients[1].dynamic_variables",
            "recipients[2]",
            "scheduled_time_unix",
            "phone_provider",
        ]
    );
    let (status, _) = answer(pair.app.post_as("service", SUBMIT, &order("Nadie", &[]))).await;
    assert_eq!(status, 400);
    let (status, _) = answer(
        pair.app
            .post_as("auditor", SUBMIT, &order("Auditor", &[ANA])),
    )
    .await;
    assert_eq!(status, 403);
    assert_eq!(
        pair.sandbox
            .truth()
            .request_count("elevenlabs.batch_submit"),
        0
    );
}

#[tokio::test]
async fn a_refusal_is_502_with_the_providers_words_and_is_final() {
    let pair = Pair::start(kind()).await;
    let mut body = order("Sin agente", &[ANA]);
    body["agent_id"] = json!("agent_nobody");
    let (status, refused) = answer(pair.app.post_as("service", SUBMIT, &body)).await;
    assert_eq!((status, &refused["code"]), (502, &json!("provider_error")));
    assert!(
        refused["details"]
            .as_str()
            .is_some_and(|words| !words.is_empty()),
        "{refused}"
    );
    batches::drive_open_orders(pair.app.app()).await.unwrap();
    let truth = pair.sandbox.truth();
    assert_eq!(truth.request_count("elevenlabs.batch_submit"), 1);
    assert!(truth.batches.is_empty());
    // Nobody of it waits to be called.
    pair.app.settle().await;
    let list = pair.app.read("/api/batch-calls").await["data"].take();
    assert_eq!(list[0]["status"], "failed", "{list}");
    let seen = pair.status(list[0]["batch_id"].as_str().unwrap()).await;
    assert_eq!(seen["recipients"][0]["status"], "failed", "{seen}");
    assert_eq!(
        (&seen["counts"]["failed"], &seen["counts"]["pending"]),
        (&json!(1), &json!(0))
    );
    assert_equal_a_rebuild(&pair.app.pool).await;
}

#[tokio::test]
async fn a_provider_that_breaks_and_says_so_is_asked_again() {
    let pair = Pair::start(kind()).await;
    pair.script("elevenlabs.batch_submit", 1, Fault::RefuseAfterWork(500))
        .await;
    pair.submit("Roto", &[ANA]).await;
    assert_eq!(
        pair.sandbox.truth().batches.len(),
        1,
        "it had done it, and was looked up"
    );
    pair.script("elevenlabs.batch_submit", 1, Fault::Refuse(503))
        .await;
    pair.submit("Roto otra vez", &[ANA]).await;
    let truth = pair.sandbox.truth();
    assert_eq!(truth.batches.len(), 2);
    assert_eq!(truth.request_count("elevenlabs.batch_submit"), 3);
}

#[tokio::test]
async fn a_provider_that_is_not_reached_is_502_and_never_asked_later() {
    let pair = Pair::with(kind(), |options| Options {
        providers_url: Some("http://127.0.0.1:9".to_owned()),
        ..options
    })
    .await;
    let (status, refused) =
        answer(pair.app.post_as("service", SUBMIT, &order("Lejos", &[ANA]))).await;
    assert_eq!((status, &refused["code"]), (502, &json!("provider_error")));
    pair.app.settle().await;
    assert_eq!(
        pair.app
            .count("select count(*) from batches where has_open_order")
            .await,
        0
    );
}

#[tokio::test]
async fn an_ambiguous_time_out_ends_in_one_batch() {
    let pair = Pair::start(kind()).await;
    // An older batch of the same name, agent and people is another order.
    let older = pair.submit("Ambiguo", &[ANA, LUIS]).await;
    pair.pass(600).await;
    pair.script("elevenlabs.batch_submit", 1, Fault::HangAfterWork)
        .await;
    let adopted = pair.submit("Ambiguo", &[ANA, LUIS]).await;
    assert_ne!(adopted, older);
    let truth = pair.sandbox.truth();
    assert_eq!(truth.batches.len(), 2);
    assert_eq!(truth.request_count("elevenlabs.batch_submit"), 2);
    let adoptions = "select count(*) from events where event_type = 'batch.submitted' and payload ->> 'adopted' = 'true'";
    assert_eq!(pair.app.count(adoptions).await, 1);
    pair.look().await;
    assert_eq!(
        pair.app
            .count("select count(*) from events where event_type = 'batch.discovered'")
            .await,
        0
    );
}

#[tokio::test]
async fn what_has_not_arrived_is_sent_again_only_when_it_cannot_arrive_any_more() {
    let pair = Pair::with(kind(), |options| Options {
        config: |config| config.worker = false,
        ..options
    })
    .await;
    pair.script("elevenlabs.batch_submit", 1, Fault::Hang).await;
    let app = pair.app.app();
    let order = requested(&pair, "Perdido");
    let id = order.batch_id.clone();
    app.store
        .execute::<Batch>(
            &id,
            || Command::Request(Box::new(order.clone())),
            HashMap::new(),
        )
        .await
        .unwrap();
    let submits = || {
        pair.sandbox
            .truth()
            .request_count("elevenlabs.batch_submit")
    };
    assert!(batches::drive(app, &id).await.unwrap().is_some());
    assert!(batches::drive(app, &id).await.unwrap().is_some());
    assert_eq!(submits(), 1);
    pair.pass(60).await;
    assert_eq!(batches::drive(app, &id).await.unwrap(), None);
    assert_eq!(submits(), 2);
    assert_eq!(pair.sandbox.truth().batches.len(), 1);
}

fn requested(pair: &Pair, name: &str) -> Requested {
    let recipient = |number: &str| Recipient {
        phone_number: PhoneNumber::parse(number).unwrap(),
        dynamic_variables: serde_json::Map::new(),
        client_id: None,
    };
    Requested {
        batch_id: pair.app.app().source.id().to_string(),
        call_name: name.to_owned(),
        agent_id: AGENT.to_owned(),
        agent_phone_number_id: LINE.to_owned(),
        scheduled_time_unix: None,
        phone_provider: None,
        group: None,
        requested_by: "service".to_owned(),
        requested_at: pair.app.clock.now(),
        recipients: vec![recipient(ANA), recipient(LUIS)],
    }
}

/// How far a process came with an order before it was killed.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Killed {
    OnceRequested,
    OnceAttempted,
    TakenByTheProvider,
    KnownUncertain,
    Recorded,
}

#[tokio::test]
async fn a_kill_at_every_step_of_a_submit_ends_in_one_batch() {
    let pair = Pair::with(kind(), |options| Options {
        config: |config| config.worker = false,
        ..options
    })
    .await;
    let app = pair.app.app();
    let steps = [
        Killed::OnceRequested,
        Killed::OnceAttempted,
        Killed::TakenByTheProvider,
        Killed::KnownUncertain,
        Killed::Recorded,
    ];
    for (n, killed) in steps.into_iter().enumerate() {
        let order = requested(&pair, &format!("{killed:?}"));
        let id = order.batch_id.clone();
        let at = || HashMap::from([("at".to_owned(), pair.app.clock.now().to_rfc3339())]);
        let tell = async |command: Command| {
            app.store
                .execute::<Batch>(&id, || command.clone(), at())
                .await
                .unwrap();
        };
        tell(Command::Request(Box::new(order.clone()))).await;
        if killed >= Killed::OnceAttempted {
            tell(Command::AttemptSubmit { looked_up: None }).await;
        }
        let mut taken = None;
        if killed >= Killed::TakenByTheProvider {
            taken = Some(app.elevenlabs.submit_batch(&order).await.unwrap());
        }
        if killed == Killed::KnownUncertain {
            let reason = "it timed out".to_owned();
            tell(Command::ReportSubmitUncertain { attempt: 1, reason }).await;
        }
        if killed == Killed::Recorded {
            let batch = taken.clone().unwrap();
            tell(Command::ReportSubmitted {
                adopted: false,
                batch,
            })
            .await;
        }
        // While whoever attempted it may still be at it, nobody else sends.
        if killed == Killed::OnceAttempted {
            assert!(
                batches::drive(app, &id).await.unwrap().is_some(),
                "{killed:?}"
            );
            assert_eq!(pair.sandbox.truth().batches.len(), n, "{killed:?}");
        }
        pair.pass(60).await;
        // Two replicas come by at once.
        let (one, other) = tokio::join!(batches::drive(app, &id), batches::drive(app, &id));
        one.unwrap();
        other.unwrap();
        assert_eq!(batches::drive(app, &id).await.unwrap(), None, "{killed:?}");
        let truth = pair.sandbox.truth();
        let named = truth.batches.iter().filter(|it| it.name == order.call_name);
        let ids: Vec<_> = named.map(|it| it.id.clone()).collect();
        assert_eq!(ids.len(), 1, "{killed:?}");
        let batch: Batch = app.store.load(&id).await.unwrap();
        assert_eq!(
            batch.provider_batch_id(),
            Some(ids[0].as_str()),
            "{killed:?}"
        );
    }
}

#[tokio::test]
async fn the_same_idempotency_key_orders_once() {
    let pair = Pair::start(kind()).await;
    let send = || {
        let request = pair
            .app
            .post_as("service", SUBMIT, &order("Una vez", &[ANA]));
        request.header("Idempotency-Key", "llave-1")
    };
    let first = ok(send()).await;
    assert_eq!(ok(send()).await, first);
    // The first process was killed before it could keep its answer.
    sqlx::query("delete from idempotency_keys")
        .execute(&pair.app.pool)
        .await
        .unwrap();
    assert_eq!(ok(send()).await["data"]["id"], first["data"]["id"]);
    assert_eq!(pair.sandbox.truth().batches.len(), 1);
}

#[tokio::test]
async fn a_batch_is_cancelled_once_and_not_after_its_end() {
    let pair = Pair::start(kind()).await;
    let id = pair.submit("Parar", &[ANA, LUIS]).await;
    let (status, stopped) = pair.post(&format!("/api/batch-calls/{id}/cancel")).await;
    assert_eq!(status, 200, "{stopped}");
    assert_eq!(
        stopped,
        json!({"success": true, "message": "Batch call cancelado exitosamente",
               "data": {"batch_id": id, "status": "cancelled", "cancelled_count": 2}})
    );
    let counts = &pair.status(&id).await["counts"];
    assert_eq!(
        (&counts["cancelled"], &counts["pending"]),
        (&json!(2), &json!(0)),
        "who was not called is shown so at once"
    );
    let (status, again) = pair.post(&format!("/api/batch-calling/{id}/cancel")).await;
    assert_eq!(
        (status, &again["code"]),
        (409, &json!("batch_already_cancelled"))
    );
    let (status, _) = pair.post("/api/batch-calls/btcal_nobody/cancel").await;
    assert_eq!(status, 404);
    assert_eq!(
        pair.sandbox
            .truth()
            .request_count("elevenlabs.batch_cancel"),
        1
    );
}

#[tokio::test]
async fn a_cancel_of_which_no_answer_came_is_looked_up() {
    let pair = Pair::start(kind()).await;
    let id = pair.submit("Parar", &[ANA]).await;
    pair.script("elevenlabs.batch_cancel", 1, Fault::HangAfterWork)
        .await;
    let (status, stopped) = pair.post(&format!("/api/batch-calling/{id}/cancel")).await;
    assert_eq!(
        (status, &stopped["data"]["status"]),
        (200, &json!("cancelled")),
        "{stopped}"
    );
}

#[tokio::test]
async fn a_retry_calls_again_who_was_not_reached() {
    let pair = Pair::start(kind()).await;
    pair.fates(&[(ANA, CallOutcome::Answered), (LUIS, CallOutcome::NoAnswer)])
        .await;
    let id = pair.submit("Reintento", &[ANA, LUIS]).await;
    let retry = format!("/api/batch-calls/{id}/retry");
    let (status, running) = pair.post(&retry).await;
    assert_eq!(
        (status, &running["code"]),
        (409, &json!("batch_still_running"))
    );
    pair.call_everybody().await;
    pair.look().await;
    assert_eq!(pair.status(&id).await["status"], "partially_completed");
    pair.fates(&[(LUIS, CallOutcome::Answered)]).await;
    // The provider did it, and we never heard: the count of retries tells.
    pair.script("elevenlabs.batch_retry", 1, Fault::HangAfterWork)
        .await;
    let (status, again) = pair.post(&retry).await;
    assert_eq!(status, 200, "{again}");
    assert_eq!(
        again,
        json!({"success": true, "message": "Batch call reintentado exitosamente",
               "data": {"batch_id": id, "status": "retrying", "retried_count": 1}})
    );
    pair.call_everybody().await;
    pair.look().await;
    assert_eq!(pair.status(&id).await["status"], "completed");
    assert_eq!(pair.sandbox.truth().batches[0].retry_count, 1);
    let (status, nothing) = pair.post(&retry).await;
    assert_eq!(
        (status, &nothing["code"]),
        (409, &json!("nothing_to_retry"))
    );
    let (status, over) = pair.post(&format!("/api/batch-calls/{id}/cancel")).await;
    assert_eq!(
        (status, &over["code"]),
        (409, &json!("batch_already_finished"))
    );
}

#[tokio::test]
async fn each_failure_of_the_provider_is_told_apart() {
    let pair = Pair::start(kind()).await;
    let client = &pair.app.app().elevenlabs;
    let order = requested(&pair, "Errores");
    let mut failures = Vec::new();
    for fault in [
        Fault::Refuse(422),
        Fault::Refuse(429),
        Fault::Refuse(500),
        Fault::Hang,
    ] {
        pair.script("elevenlabs.batch_submit", 1, fault).await;
        let error = client.submit_batch(&order).await.unwrap_err();
        failures.push((
            error.status(),
            error.may_have_happened(),
            error.is_passing(),
        ));
    }
    assert_eq!(
        failures,
        [
            (Some(422), false, false),
            (Some(429), false, true),
            (Some(500), true, true),
            (None, true, true),
        ]
    );
    let missing = client.get_batch("btcal_nobody").await.unwrap_err();
    assert_eq!(missing.status(), Some(404));
    let no_id = client.get_batch("../agents").await.unwrap_err();
    assert!(matches!(no_id, Error::NotSent(_)));
    assert!(pair.sandbox.truth().batches.is_empty());
}
