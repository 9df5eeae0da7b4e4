//! Whole campaigns, drawn from many seeds, against what the stand-in of the
//! provider really did: calls that fail and calls that meet a machine, webhooks
//! late, twice, overtaken or never, and a retry of those who were not reached.

use std::collections::BTreeMap;

use bitacora::batches;
use sandbox::{BatchTruth, Rates, Truth};
use serde_json::{Value, json};

use super::{AGENT, LINE, Pair};
use crate::harness::app::{Options, answer, ok};
use crate::harness::read_models::assert_equal_a_rebuild;

const SEEDS: u64 = 10;
const CLIENTS: usize = 200;
/// One step of the clocks, in seconds.
const STEP_SECS: u64 = 60;
/// More steps than any campaign takes.
const STEPS_MAX: usize = 600;

#[tokio::test]
async fn a_campaign_ends_as_the_provider_saw_it_whatever_the_seed() {
    for seed in 1..=SEEDS {
        let pair = world(seed).await;
        let group = group(&pair).await;
        let called = ok(pair.app.post_as(
            "service",
            &format!("/api/groups/{group}/call"),
            &json!({"userId": user(&pair).await}),
        ))
        .await;
        let batch = called["data"]["batchId"].as_str().unwrap().to_owned();
        to_the_end(&pair, seed).await;
        assert_agrees(&pair, group, &batch, &format!("seed {seed}")).await;
        // Who was not reached is called again.
        let (status, body) = pair.post(&format!("/api/batch-calls/{batch}/retry")).await;
        assert_eq!(status, 200, "seed {seed}: {body}");
        to_the_end(&pair, seed).await;
        assert_agrees(&pair, group, &batch, &format!("seed {seed}, retried")).await;
        assert_equal_a_rebuild(&pair.app.pool).await;
        pair.app.stop().await;
        pair.sandbox.stop().await;
    }
}

/// A world in which a good deal goes wrong.
async fn world(seed: u64) -> Pair {
    let rates = Rates {
        failed: 0.2,
        voicemail: 0.15,
        never: 0.15,
        twice: 0.15,
        late: 0.15,
        out_of_order: 0.15,
        ..Rates::default()
    };
    let of_seed = |options: sandbox::Options| sandbox::Options {
        seed,
        concurrency: 40,
        voice_callbacks: seed % 2 == 1,
        twilio_auth_token: crate::harness::app::TWILIO_AUTH_TOKEN.to_owned(),
        public_url: Some(crate::harness::app::PUBLIC_URL.to_owned()),
        ..options
    };
    Pair::of(rates, of_seed, |options| Options { seed, ..options }).await
}

async fn group(pair: &Pair) -> i64 {
    let clients: Vec<Value> = (0..CLIENTS)
        .map(|n| json!({"name": format!("Cliente {n}"), "phone": format!("300{n:07}")}))
        .collect();
    let new = json!({"name": "Campaña", "agentId": AGENT, "phoneNumberId": LINE});
    let (status, made) = answer(pair.app.post_as("service", "/api/groups", &new)).await;
    assert_eq!(status, 201, "{made}");
    let id = made["data"]["id"].as_i64().unwrap();
    let path = format!("/api/groups/{id}/clients");
    let (status, added) = answer(
        pair.app
            .post_as("service", &path, &json!({"clients": clients})),
    )
    .await;
    assert!(status < 300, "{added}");
    id
}

async fn user(pair: &Pair) -> i64 {
    let new = json!({
        "name": "Ana", "email": "ana@example.com", "password": "contraseña larga", "role": "agent",
    });
    let (status, made) = answer(pair.app.post_as("admin", "/api/users", &new)).await;
    assert_eq!(status, 201, "{made}");
    made["data"]["id"].as_i64().unwrap()
}

/// Lets the time pass until nothing more happens at the provider, and the
/// service has looked, now and then and at the end.
async fn to_the_end(pair: &Pair, seed: u64) {
    let mut steps = 0;
    while pair.sandbox.truth().pending > 0 {
        assert!(steps < STEPS_MAX, "seed {seed}: the campaign does not end");
        pair.pass(STEP_SECS).await;
        // How often the monitor gets to look differs from seed to seed.
        if steps % (1 + seed as usize % 5) == 0 {
            pair.look().await;
        }
        steps += 1;
    }
    pair.look().await;
    pair.pass(900).await;
    batches::reconcile(pair.app.app()).await.unwrap();
    pair.app.settle().await;
    let again = batches::reconcile(pair.app.app()).await.unwrap();
    assert_eq!(again, 0, "seed {seed}: each is made good once");
}

/// Everything that the service says of the batch is what the provider did.
async fn assert_agrees(pair: &Pair, group: i64, batch: &str, when: &str) {
    let truth = pair.sandbox.truth();
    assert_eq!(truth.batches.len(), 1, "{when}: one batch was ordered");
    let really = &truth.batches[0];
    let told = pair.status(batch).await;
    let said = told["recipients"].as_array().unwrap();
    assert_eq!(said.len(), CLIENTS, "{when}");
    let said: BTreeMap<&str, &Value> = said
        .iter()
        .map(|it| (it["phone_number"].as_str().unwrap(), it))
        .collect();
    let spoken = seconds_spoken(&truth, really);
    for recipient in &really.recipients {
        let number = recipient.phone_number.as_deref().unwrap();
        let said = said[number];
        assert_eq!(
            said["status"], recipient.status,
            "{when}: {said} of {recipient:?}"
        );
        assert_eq!(
            said["conversation_id"].as_str(),
            recipient.conversation_id.as_deref(),
            "{when}: {said}"
        );
        if recipient.status == "completed" {
            let id = recipient.conversation_id.as_deref().unwrap();
            assert_eq!(
                said["duration_secs"].as_u64(),
                Some(spoken[id]),
                "{when}: {said}"
            );
            assert!(
                !said["transcript"].as_array().unwrap().is_empty(),
                "{when}: {said}"
            );
            assert!(said["summary"].is_string(), "{when}: {said}");
            assert!(said["audio_url"].is_string(), "{when}: {said}");
        }
    }
    let path = format!("/api/groups/{group}/call-stats");
    let stats = ok(pair.app.get_as("service", &path)).await["data"].take();
    let count = |status: &str| {
        let of_it = really.recipients.iter().filter(|it| it.status == status);
        of_it.count() as u64
    };
    for status in [
        "completed",
        "failed",
        "voicemail",
        "in_progress",
        "pending",
        "cancelled",
    ] {
        assert_eq!(
            stats[status].as_u64(),
            Some(count(status)),
            "{when}: {status}: {stats}"
        );
        assert_eq!(told["counts"][status], stats[status], "{when}: {status}");
    }
    assert_eq!(stats["total"].as_u64(), Some(CLIENTS as u64), "{when}");
    let total: u64 = spoken.values().sum();
    assert_eq!(
        stats["total_duration_secs"].as_u64(),
        Some(total),
        "{when}: {stats}"
    );
    let expected = match count("completed") + count("voicemail") {
        0 => "failed",
        reached if reached == CLIENTS as u64 => "completed",
        _ => "partially_completed",
    };
    assert_eq!(told["status"], expected, "{when}");
}

/// How long each completed call lasted, by conversation.
fn seconds_spoken<'a>(truth: &'a Truth, batch: &'a BatchTruth) -> BTreeMap<&'a str, u64> {
    let lasted: BTreeMap<&str, u64> = truth
        .conversations
        .iter()
        .map(|it| (it.id.as_str(), it.duration_secs))
        .collect();
    let completed = batch
        .recipients
        .iter()
        .filter(|it| it.status == "completed");
    completed
        .filter_map(|it| it.conversation_id.as_deref())
        .map(|id| (id, lasted[id]))
        .collect()
}
