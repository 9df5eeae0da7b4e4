//! Messages: their ways, their callbacks, and the people who write back.

mod support;

use bitacora_sandbox::{Options, Rates, Truth, twilio_signature};
use serde_json::json;
use support::{INCOMING, Pair, STATUS, options};

const SMS_FROM: &str = "+14155550100";
const WHATSAPP_FROM: &str = "whatsapp:+14155238886";
const PERSON: &str = "+573001234567";

fn sms(body: &str) -> [(&str, &str); 3] {
    [("To", PERSON), ("From", SMS_FROM), ("Body", body)]
}

fn whatsapp(body: &str) -> [(&str, &str); 3] {
    [
        ("To", "whatsapp:+573001234567"),
        ("From", WHATSAPP_FROM),
        ("Body", body),
    ]
}

#[expect(
    clippy::unwrap_used,
    reason = "this is test code, although no test itself"
)]
fn statuses(pair: &Pair) -> Vec<String> {
    let got = pair.got_at(STATUS);
    got.iter()
        .map(|g| g.field("MessageStatus").unwrap())
        .collect()
}

#[tokio::test]
async fn an_sms_is_sent_and_delivered_and_a_whatsapp_read() {
    let pair = Pair::ideal().await;
    assert_eq!(pair.message(&sms("hola")).await.0, 201);
    pair.sandbox.settle().await;
    assert_eq!(statuses(&pair), ["sent", "delivered"]);
    pair.control(json!({"open_window": [PERSON]})).await;
    pair.message(&whatsapp("hola")).await;
    pair.sandbox.settle().await;
    assert_eq!(statuses(&pair)[2..], ["sent", "delivered", "read"]);
}

#[tokio::test]
async fn a_messaging_service_accepts_before_it_queues() {
    let pair = Pair::ideal().await;
    let fields = [
        ("To", PERSON),
        ("MessagingServiceSid", "MG1"),
        ("Body", "x"),
    ];
    let (_, body) = pair.message(&fields).await;
    assert_eq!(
        (&body["status"], &body["from"]),
        (&json!("accepted"), &json!(null))
    );
    pair.sandbox.settle().await;
    assert_eq!(statuses(&pair), ["queued", "sent", "delivered"]);
}

#[tokio::test]
async fn every_twilio_webhook_is_signed_over_the_public_address() {
    let mut options = options(1, Rates::ideal());
    options.public_url = Some("https://cc.example.com".to_owned());
    let pair = Pair::start(options).await;
    pair.message(&sms("hola")).await;
    let own = [(
        "StatusCallback",
        "https://cc.example.com/mi/propia?x=1#rc=2",
    )];
    pair.message(&[&sms("hola")[..], &own[..]].concat()).await;
    pair.control(json!({"inbound": [{"from": PERSON, "body": "¿qué tal?"}]}))
        .await;
    pair.sandbox.settle().await;
    let token = Options::default().twilio_auth_token;
    assert_eq!(pair.got().len(), 5);
    for got in pair.got() {
        let query = if got.path == "/mi/propia" { "?x=1" } else { "" };
        let url = format!("https://cc.example.com{}{query}", got.path);
        let expected = twilio_signature(&token, &url, &got.form());
        assert_eq!(got.header("x-twilio-signature"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn free_text_outside_the_window_is_taken_and_then_fails() {
    let pair = Pair::ideal().await;
    assert_eq!(pair.message(&whatsapp("hola")).await.0, 201);
    pair.sandbox.settle().await;
    let last = pair.got_at(STATUS).pop().unwrap();
    assert_eq!(last.field("ErrorCode").as_deref(), Some("63016"));
    let status = last.field("MessageStatus").unwrap();
    assert!(status == "failed" || status == "undelivered");
    let sid = format!("HX{}", "a".repeat(32));
    let template = [
        ("To", "whatsapp:+573001234567"),
        ("From", WHATSAPP_FROM),
        ("ContentSid", &sid),
    ];
    pair.message(&template).await;
    pair.sandbox.settle().await;
    assert_eq!(pair.truth().messages[1].status, "read");
}

#[tokio::test]
async fn the_window_closes_a_day_after_the_last_message() {
    let pair = Pair::ideal().await;
    pair.control(json!({"inbound": [{"from": PERSON, "body": "hola"}], "advance_secs": 1}))
        .await;
    for (hours, status) in [(23, "read"), (2, "63016")] {
        pair.control(json!({"advance_secs": hours * 3_600})).await;
        pair.message(&whatsapp("¿sigue ahí?")).await;
        pair.sandbox
            .advance(std::time::Duration::from_secs(120))
            .await;
        let last = pair.truth().messages.pop().unwrap();
        let code = last.error_code.map(|c| c.to_string());
        assert_eq!(code.unwrap_or(last.status), status);
    }
}

#[tokio::test]
async fn stop_ends_the_sending_and_start_begins_it_again() {
    let pair = Pair::ideal().await;
    for (word, status) in [("stop ", 400), ("START", 201)] {
        let inbound = json!([{"channel": "sms", "from": PERSON, "body": word}]);
        pair.control(json!({"inbound": inbound, "settle": true}))
            .await;
        let (got, body) = pair.message(&sms("hola")).await;
        assert_eq!(got, status);
        assert!(got == 201 || body["code"] == 21610, "{body}");
    }
}

#[tokio::test]
async fn phones_answer_as_often_as_they_are_told_to() {
    let rates = Rates {
        phone_replies: 2,
        ..Rates::ideal()
    };
    let pair = Pair::start(options(5, rates)).await;
    pair.control(json!({"open_window": [PERSON]})).await;
    for _ in 0..4 {
        pair.message(&whatsapp("hola")).await;
        pair.sandbox.settle().await;
    }
    let got = pair.got_at(INCOMING);
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|g| !g.field("Body").unwrap().is_empty()));
}

#[tokio::test]
async fn duplicates_are_the_same_bytes_with_the_same_token() {
    let rates = Rates {
        twice: 1.0,
        ..Rates::ideal()
    };
    let pair = Pair::start(options(5, rates)).await;
    pair.control(json!({"inbound": [{"from": PERSON, "body": "hola"}], "settle": true}))
        .await;
    let got = pair.got_at(INCOMING);
    assert_eq!((got.len(), &got[0].body), (2, &got[1].body));
    let token = |n: usize| got[n].header("i-twilio-idempotency-token");
    assert!(token(0).is_some() && token(0) == token(1));
}

#[tokio::test]
async fn a_connection_that_fails_is_tried_once_more() {
    let pair = Pair::ideal().await;
    pair.control(json!({"webhook_base": "http://127.0.0.1:1"}))
        .await;
    pair.message(&sms("hola")).await;
    pair.sandbox.settle().await;
    let truth: Truth = pair.truth();
    for webhook in &truth.webhooks {
        let errors: Vec<_> = webhook
            .attempts
            .iter()
            .map(|a| a.error.as_deref())
            .collect();
        assert_eq!(errors, [Some("connect"); 2]);
    }
}

#[tokio::test]
async fn builderbot_sends_and_people_answer_with_the_token_in_the_url() {
    let mut options = options(
        1,
        Rates {
            phone_replies: 1,
            ..Rates::ideal()
        },
    );
    options.builderbot_webhook_token = Some("secreto,viejo".to_owned());
    let pair = Pair::start(options).await;
    let url = format!("{}/api/v2/p1/messages", pair.sandbox.url());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body =
        json!({"messages": {"content": "hola"}, "number": "573001234567", "checkIfExists": false});
    let send = |key: &str| {
        http.post(&url)
            .header("x-api-builderbot", key)
            .json(&body)
            .send()
    };
    assert_eq!(send("").await.unwrap().status(), 401);
    assert_eq!(send("bb-1").await.unwrap().status(), 200);
    pair.sandbox.settle().await;
    let events: Vec<_> = pair
        .got()
        .iter()
        .map(|g| g.json()["eventName"].clone())
        .collect();
    assert_eq!(events, ["message.outgoing", "message.incoming"]);
    let truth = serde_json::to_string(&pair.truth()).unwrap();
    assert!(!truth.contains("secreto"), "the truth holds no secret");
}
