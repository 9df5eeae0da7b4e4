//! Every refusal of Twilio's has an outcome: again, by a template, never again
//! to this client, or a dead letter. Those of PROVIDERS.md, section 3.6.

use std::collections::BTreeMap;

use bitacora::providers::twilio::refusals::{REFUSALS, remedy};
use domain::effect::Remedy;
use sandbox::{Control, Fault};
use serde_json::json;

use super::{World, calm};

/// Raised by the account or by Twilio itself, and not by a number.
const OF_ANY_REQUEST: [u32; 5] = [20003, 20404, 20429, 20500, 20503];

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_leads_to_what_the_table_says() {
    let mut world = World::start(calm(), 21).await;
    world.workers.remove(0).stop().await;
    world
        .add_worker_with(|config| {
            config.api = false;
            config.effects = crate::harness::app::hurried();
            // The whole schedule, of many codes, in seconds.
            config.effects.hurry = 1_000;
        })
        .await;
    let codes = REFUSALS.iter().map(|(code, ..)| *code);
    let codes: Vec<_> = codes
        .filter(|code| !OF_ANY_REQUEST.contains(code))
        .collect();
    let phone = |code: &u32| format!("+5731000{code}");
    let messages = codes.iter().map(|code| (phone(code), Some(*code)));
    world
        .control(Control {
            messages: messages.collect(),
            open_window: codes.iter().map(phone).collect(),
            ..Control::default()
        })
        .await;
    let recipients = codes.iter().map(|code| (code.to_string(), phone(code)));
    let recipients: Vec<_> = recipients.collect();
    let calls = recipients
        .iter()
        .map(|(code, phone)| world.completes(code, phone));
    futures_util::future::join_all(calls).await;
    let decided = "select count(distinct aggregate_id) from events
                   where event_type in ('effect.failed', 'effect.bounced')";
    world
        .until("decisions", decided, i64::try_from(codes.len()).unwrap())
        .await;
    for code in &codes {
        let sql = "select payload ->> 'code', payload ->> 'remedy' from events
                   where event_type in ('effect.failed', 'effect.bounced') and aggregate_id = $1
                   order by position limit 1";
        let first: (String, String) = sqlx::query_as(sql)
            .bind(domain::effect::first_message_id(&code.to_string()))
            .fetch_one(&world.api.pool)
            .await
            .unwrap();
        // There is no template to send in this world.
        let expected = match remedy(&code.to_string()) {
            Remedy::Template => Remedy::DeadLetter,
            expected => expected,
        };
        assert_eq!(first, (code.to_string(), expected.to_string()));
    }
    // What is tried again ends too, as one dead letter each.
    let dead = "select count(*) from effects where state = 'dead'";
    world
        .until("dead letters", dead, i64::try_from(codes.len()).unwrap())
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_any_request_are_tried_again_where_that_may_help() {
    let world = World::start(calm(), 24).await;
    for (at, (status, code)) in [
        (401, 20003),
        (404, 20404),
        (429, 20429),
        (500, 20500),
        (503, 20503),
    ]
    .into_iter()
    .enumerate()
    {
        let phone = format!("+57310{at:07}");
        let open_window = vec![phone.clone()];
        world
            .control(Control {
                open_window,
                ..Control::default()
            })
            .await;
        world
            .script("twilio.message_create", 1, Fault::Refuse(status))
            .await;
        let (answered, body) = world.completes(&code.to_string(), &phone).await;
        let helps = remedy(&code.to_string()) == Remedy::Retry;
        assert_eq!(answered, if helps { 200 } else { 502 }, "{code}: {body}");
        assert_eq!(world.sent_to(&phone).len(), usize::from(helps), "{code}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_once_is_told_to_whoever_asked() {
    let world = World::start(calm(), 22).await;
    let phone = "+573109999999";
    let messages = BTreeMap::from([(phone.to_owned(), Some(21211))]);
    world
        .control(Control {
            messages,
            ..Control::default()
        })
        .await;
    let (status, refused) = world.completes("rcpt_1", phone).await;
    assert_eq!(status, 502, "{refused}");
    assert_eq!(refused["success"], false);
    assert_eq!(refused["error"], "Failed to send WhatsApp message");
    assert!(
        refused["details"]
            .as_str()
            .unwrap()
            .contains("not a valid phone number")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_the_window_a_template_goes_where_words_were_refused() {
    let mut world = World::start(calm(), 23).await;
    world.workers.remove(0).stop().await;
    world
        .add_worker_with(|config| {
            config.api = false;
            config.effects = crate::harness::app::hurried();
            config.first_content_sid = Some(format!("HX{}", "0".repeat(32)));
        })
        .await;
    // The API of this world knows of no template, so words go first.
    let (status, sent) = world.completes("rcpt_1", "+573101111111").await;
    assert_eq!(
        (status, &sent["status"]),
        (200, &json!("message_sent")),
        "{sent}"
    );
    let again = "select count(*) from events where event_type = 'effect.sent'
                 and payload ->> 'content_sid' is not null";
    world.until("sent as a template", again, 1).await;
    world.until_settled().await;
    let messages = &world.sent()["+573101111111"];
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].error_code, Some(63016));
    assert!(messages[1].content_sid.is_some());
    assert_eq!(messages[1].body, r#"{"1":"Ana"}"#);
    world.stop().await;
}
