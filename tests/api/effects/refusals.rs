//! Every refusal of Twilio's has an outcome: again, by a template, never again
//! to this client, or a dead letter. Those of PROVIDERS.md, section 3.6.

use std::collections::BTreeMap;

use bitacora::providers::twilio::refusals::{REFUSALS, remedy};
use domain::effect::Remedy;
use sandbox::Control;
use serde_json::json;

use super::{World, calm};

/// What the stand-in can raise when it is asked, and what it tells later.
async fn outcomes(world: &World, code: u32, at: usize) -> String {
    let phone = format!("+57310{at:07}");
    let messages = BTreeMap::from([(phone.clone(), Some(code))]);
    let open_window = vec![phone.clone()];
    world
        .control(Control {
            messages,
            open_window,
            ..Control::default()
        })
        .await;
    let (_, answer) = world.completes(&format!("rcpt_{at}"), &phone).await;
    let settled = format!(
        "select count(*) from events where event_type in ('effect.failed', 'effect.bounced')
          and aggregate_id = '{}' and payload ->> 'code' = '{code}'",
        domain::effect::first_message_id(&format!("rcpt_{at}")),
    );
    world
        .until(
            &format!("refusals by {code}, answered {answer}"),
            &settled,
            1,
        )
        .await;
    let sql = "select payload ->> 'remedy' from events
               where event_type in ('effect.failed', 'effect.bounced') and aggregate_id = $1
               order by position limit 1";
    let decided: String = sqlx::query_scalar(sql)
        .bind(domain::effect::first_message_id(&format!("rcpt_{at}")))
        .fetch_one(&world.api.pool)
        .await
        .unwrap();
    // Or a remedy that tries again would go on for ever.
    let messages = BTreeMap::from([(phone, None)]);
    world
        .control(Control {
            messages,
            ..Control::default()
        })
        .await;
    decided
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_leads_to_what_the_table_says() {
    let world = World::start(calm(), 21).await;
    // Raised by the sandbox for a number; the others need another request than ours.
    let not_ours = [20003, 20404, 20429, 20500, 20503];
    for (at, (code, expected, _)) in REFUSALS.iter().enumerate() {
        if not_ours.contains(code) {
            continue;
        }
        let decided = outcomes(&world, *code, at).await;
        // There is no template to send in this world.
        let expected = match expected {
            Remedy::Template => Remedy::DeadLetter,
            expected => *expected,
        };
        assert_eq!(decided, expected.as_str(), "{code}");
        assert_eq!(remedy(&code.to_string()), REFUSALS[at].1);
    }
    world.until_settled().await;
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
