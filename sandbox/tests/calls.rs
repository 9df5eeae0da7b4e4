//! Batches and their calls: lifecycles, seeds, and the truth about them.

mod support;

use std::{collections::BTreeMap, time::Duration};

use bitacora_sandbox::{
    CallOutcome, Options, Rates, Span, Truth, WebhookKind, elevenlabs_signature,
};
use serde_json::{Value, json};
use support::{ELEVENLABS, Pair, START_UNIX, numbers, options};

/// A world in which everything goes wrong now and then.
fn unruly() -> Rates {
    Rates {
        failed: 0.3,
        voicemail: 0.2,
        never: 0.15,
        twice: 0.15,
        late: 0.15,
        out_of_order: 0.15,
        ..Rates::default()
    }
}

async fn campaign(seed: u64, people: usize) -> (Pair, Truth) {
    let pair = Pair::start(options(seed, unruly())).await;
    pair.submit("Campaña", &numbers(people)).await;
    pair.sandbox.settle().await;
    let truth = pair.truth();
    (pair, truth)
}

/// The truth without what differs from process to process: ports.
#[expect(
    clippy::unwrap_used,
    reason = "this is test code, although no test itself"
)]
fn story(mut truth: Truth) -> Value {
    for webhook in &mut truth.webhooks {
        webhook.url.clear();
    }
    serde_json::to_value(truth).unwrap()
}

#[tokio::test]
async fn the_same_seed_tells_the_same_story() {
    for seed in [1, 2, 3] {
        let (_, first) = campaign(seed, 40).await;
        let (_, second) = campaign(seed, 40).await;
        assert_eq!(story(first), story(second));
    }
    let (one, another) = (campaign(1, 40).await.1, campaign(2, 40).await.1);
    assert_ne!(one.batches[0].recipients, another.batches[0].recipients);
}

#[tokio::test]
async fn fates_do_not_depend_on_when_a_batch_was_submitted() {
    let outcomes = |truth: &Truth, name: &str| -> Vec<_> {
        let batch = truth.batches.iter().find(|b| b.name == name).unwrap();
        let of = |r: &bitacora_sandbox::RecipientTruth| (r.conversation_id.clone(), r.outcome);
        batch.recipients.iter().map(of).collect()
    };
    let ordered = Pair::start(options(9, unruly())).await;
    ordered.submit("A", &numbers(20)).await;
    ordered.submit("B", &numbers(20)).await;
    ordered.sandbox.settle().await;
    let swapped = Pair::start(options(9, unruly())).await;
    swapped.submit("B", &numbers(20)).await;
    swapped.sandbox.advance(Duration::from_secs(40)).await;
    swapped.submit("A", &numbers(20)).await;
    swapped.sandbox.settle().await;
    for name in ["A", "B"] {
        assert_eq!(
            outcomes(&ordered.truth(), name),
            outcomes(&swapped.truth(), name)
        );
    }
}

#[tokio::test]
async fn the_truth_agrees_with_itself_and_with_what_the_service_got() {
    for seed in 1..=5 {
        let (pair, truth) = campaign(seed, 60).await;
        assert_eq!(truth.pending, 0);
        let batch = &truth.batches[0];
        assert_eq!(batch.status, "completed");
        let told = |kind: WebhookKind, id: &str| {
            let all = truth.webhooks.iter();
            all.filter(|w| w.kind == kind && w.entity == id).count()
        };
        for recipient in &batch.recipients {
            let id = recipient.conversation_id.as_deref().unwrap();
            let conversation = truth.conversations.iter().find(|c| c.id == id).unwrap();
            assert_eq!(
                conversation.recipient_id.as_deref(),
                Some(recipient.id.as_str())
            );
            let (status, held, ended) = match recipient.outcome.unwrap() {
                CallOutcome::Answered => ("completed", "done", true),
                CallOutcome::Voicemail => ("voicemail", "done", true),
                _ => ("failed", "failed", false),
            };
            assert_eq!(
                (recipient.status.as_str(), conversation.status.as_str()),
                (status, held)
            );
            assert_eq!(told(WebhookKind::Transcription, id), usize::from(ended));
            assert_eq!(told(WebhookKind::Audio, id), usize::from(ended));
            assert_eq!(told(WebhookKind::CallFailure, id), usize::from(!ended));
        }
        for webhook in &truth.webhooks {
            let sent = if webhook.never {
                0
            } else {
                1 + usize::from(webhook.twice)
            };
            assert_eq!(webhook.attempts.len(), sent, "{webhook:?}");
        }
        let sent: usize = truth.webhooks.iter().map(|w| w.attempts.len()).sum();
        assert_eq!(pair.got().len(), sent);
        assert!(truth.webhooks.iter().any(|w| w.never));
        assert!(truth.webhooks.iter().any(|w| w.twice));
    }
}

#[tokio::test]
async fn a_batch_goes_through_its_statuses_and_counts_its_calls() {
    let pair = Pair::ideal().await;
    let path = format!(
        "/v1/convai/batch-calling/{}",
        pair.submit("Pasos", &numbers(25)).await
    );
    assert_eq!(pair.get(&path).await["status"], "pending");
    pair.sandbox.advance(Duration::from_secs(20)).await;
    let running = pair.get(&path).await;
    assert_eq!(running["status"], "in_progress");
    assert_eq!(running["total_calls_scheduled"], 25);
    assert_eq!(
        running["total_calls_dispatched"], 10,
        "the concurrency is 10"
    );
    let statuses: Vec<_> = running["recipients"].as_array().unwrap().iter().collect();
    assert!(statuses.iter().any(|r| r["status"] == "in_progress"));
    assert!(
        statuses
            .iter()
            .any(|r| r["status"] == "pending" && r["conversation_id"].is_null())
    );
    pair.sandbox.settle().await;
    let done = pair.get(&path).await;
    assert_eq!(
        (&done["status"], &done["total_calls_finished"]),
        (&json!("completed"), &json!(25))
    );
}

#[tokio::test]
async fn a_batch_waits_for_its_hour() {
    let pair = Pair::ideal().await;
    let mut body = support::batch("Mañana", &numbers(1));
    body["scheduled_time_unix"] = json!(START_UNIX + 3_600);
    pair.ask("POST", "/v1/convai/batch-calling/submit", body)
        .await;
    pair.sandbox.advance(Duration::from_secs(3_599)).await;
    assert_eq!(pair.truth().batches[0].status, "pending");
    pair.sandbox.advance(Duration::from_secs(2)).await;
    assert_eq!(pair.truth().batches[0].status, "in_progress");
}

#[tokio::test]
async fn cancelling_cuts_calls_off_unless_they_survive() {
    for (survivor, webhooks) in [(0.0, 0), (1.0, 20)] {
        let rates = Rates {
            cancel_survivor: survivor,
            ..Rates::ideal()
        };
        let pair = Pair::start(options(4, rates)).await;
        let id = pair.submit("Cancelada", &numbers(30)).await;
        pair.sandbox.advance(Duration::from_secs(25)).await;
        let path = format!("/v1/convai/batch-calling/{id}/cancel");
        let (status, body) = pair.ask("POST", &path, Value::Null).await;
        assert_eq!((status, &body["status"]), (200, &json!("cancelled")));
        pair.sandbox.settle().await;
        let truth = pair.truth();
        assert!(
            truth.batches[0]
                .recipients
                .iter()
                .all(|r| r.status == "cancelled")
        );
        // Ten calls were being held: each that survives tells of itself twice.
        assert_eq!(pair.got().len(), webhooks);
        assert_eq!(pair.ask("POST", &path, Value::Null).await.0, 400);
    }
}

#[tokio::test]
async fn a_retry_calls_only_those_who_were_not_reached() {
    let pair = Pair::ideal().await;
    let numbers = numbers(3);
    pair.control(json!({"calls": {&numbers[0]: "no-answer", &numbers[1]: "voicemail"}}))
        .await;
    let id = pair.submit("Otra vez", &numbers).await;
    pair.sandbox.settle().await;
    pair.control(json!({"calls": {&numbers[0]: null}})).await;
    let path = format!("/v1/convai/batch-calling/{id}/retry");
    assert_eq!(
        pair.ask("POST", &path, Value::Null).await.1["retry_count"],
        1
    );
    assert_eq!(
        pair.ask("POST", &path, Value::Null).await.0,
        400,
        "it is running"
    );
    pair.sandbox.settle().await;
    let batch = &pair.truth().batches[0];
    let of = |r: &bitacora_sandbox::RecipientTruth| (r.status.clone(), r.attempts);
    let expected = [("completed", 2), ("voicemail", 1), ("completed", 1)];
    let found: Vec<_> = batch.recipients.iter().map(of).collect();
    assert_eq!(found, expected.map(|(status, n)| (status.to_owned(), n)));
}

#[tokio::test]
async fn an_override_that_the_agent_forbids_fails_the_batch() {
    let pair = Pair::ideal().await;
    let mut body = support::batch("Prohibida", &numbers(1));
    body["recipients"][0]["conversation_initiation_client_data"]["conversation_config_override"] =
        json!({"tts": {"voice_id": "x"}});
    pair.ask("POST", "/v1/convai/batch-calling/submit", body)
        .await;
    pair.sandbox.settle().await;
    assert_eq!(pair.truth().batches[0].status, "failed");
    assert!(pair.got().is_empty());
}

#[tokio::test]
async fn every_webhook_is_signed_over_its_exact_bytes() {
    let (pair, _) = campaign(2, 20).await;
    let secret = Options::default().elevenlabs_webhook_secret;
    for got in pair.got_at(ELEVENLABS) {
        let header = got.header("elevenlabs-signature").unwrap();
        let t = header
            .strip_prefix("t=")
            .and_then(|h| h.split_once(','))
            .unwrap()
            .0;
        let t: u64 = t.parse().unwrap();
        assert_eq!(header, elevenlabs_signature(&secret, t, &got.body));
        let told = got.json()["event_timestamp"].as_u64().unwrap();
        assert!(t >= told && t < told + 24 * 3_600);
    }
}

#[tokio::test]
async fn a_webhook_out_of_order_is_overtaken_by_the_next_one() {
    let pair = Pair::ideal().await;
    let how = json!({"elevenlabs.transcription": {"out_of_order": 1.0}});
    pair.control(json!({"webhook_rates": how})).await;
    pair.submit("Al revés", &numbers(1)).await;
    pair.sandbox.settle().await;
    let kinds: Vec<_> = pair
        .got()
        .iter()
        .map(|g| g.json()["type"].clone())
        .collect();
    assert_eq!(kinds, ["post_call_audio", "post_call_transcription"]);
    // It goes as soon as it is overtaken, not when it would have gone without a next one.
    let webhooks = pair.truth().webhooks;
    let went = |n: usize| webhooks[n].attempts[0].at_unix_ms;
    assert!(went(0) - went(1) <= 1);
}

#[tokio::test]
async fn a_late_webhook_is_late_and_signed_when_it_goes() {
    let rates = Rates {
        late: 1.0,
        late_secs: Span::new(3_600, 3_600),
        ..Rates::ideal()
    };
    let pair = Pair::start(options(1, rates)).await;
    pair.submit("Tarde", &numbers(1)).await;
    pair.sandbox.settle().await;
    let got = &pair.got()[0];
    let told = got.json()["event_timestamp"].as_u64().unwrap();
    let header = got.header("elevenlabs-signature").unwrap();
    assert!(
        header.starts_with(&format!("t={},", told + 3_600)),
        "{header} {told}"
    );
}

#[tokio::test]
async fn retries_follow_the_providers_schedule_only_when_they_are_on() {
    for (on, answers, attempts) in [
        (false, vec![500], 1),
        (true, vec![500, 503, 429, 500, 500], 5),
        (true, vec![404], 1),
    ] {
        let mut options = options(1, Rates::ideal());
        options.elevenlabs_retries = on;
        options.elevenlabs_audio = false;
        let pair = Pair::start(options).await;
        pair.submit("Reintento", &numbers(1)).await;
        pair.will_answer(&answers);
        pair.sandbox.settle().await;
        let webhook = pair.truth().webhooks[0].clone();
        assert_eq!(webhook.attempts.len(), attempts);
        let began = webhook.attempts[0].at_unix_ms;
        let after = |n: usize| (webhook.attempts[n].at_unix_ms - began) / 1000;
        if attempts == 5 {
            assert!((30..=33).contains(&after(1)) && (1_800..=1_990).contains(&after(4)));
        }
    }
}

#[tokio::test]
async fn pages_of_batches_and_conversations_lose_and_repeat_nothing() {
    let pair = Pair::ideal().await;
    for n in 0..7 {
        pair.submit(&format!("Página {n}"), &numbers(2)).await;
    }
    pair.sandbox.settle().await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut query = String::new();
    loop {
        let path = format!("/v1/convai/batch-calling/workspace?limit=3{query}");
        let page = pair.get(&path).await;
        for batch in page["batch_calls"].as_array().unwrap() {
            *seen
                .entry(batch["id"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        let Some(next) = page["next_doc"].as_str() else {
            break;
        };
        query = format!("&last_doc={next}");
    }
    assert_eq!(seen.values().copied().collect::<Vec<_>>(), [1; 7]);
    let (mut ids, mut query) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/convai/conversations?page_size=4{query}");
        let page = pair.get(&path).await;
        let conversations = page["conversations"].as_array().unwrap().clone();
        ids.extend(
            conversations
                .iter()
                .map(|c| c["conversation_id"].to_string()),
        );
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("&cursor={next}");
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 14);
}

#[tokio::test]
async fn voice_callbacks_tell_the_steps_of_a_call_in_their_order() {
    let mut options = options(1, Rates::ideal());
    options.voice_callbacks = true;
    let pair = Pair::start(options).await;
    pair.submit("Voz", &numbers(1)).await;
    pair.sandbox.settle().await;
    let got = pair.got_at("/webhooks/twilio/voice/status");
    let steps: Vec<_> = got
        .iter()
        .map(|g| {
            (
                g.field("SequenceNumber").unwrap(),
                g.field("CallStatus").unwrap(),
            )
        })
        .collect();
    let expected = ["initiated", "ringing", "in-progress", "completed"];
    let expected: Vec<_> = expected
        .iter()
        .enumerate()
        .map(|(n, s)| (n.to_string(), s.to_string()))
        .collect();
    assert_eq!(steps, expected);
    assert!(got[3].field("CallDuration").is_some());
}
