//! Against the stand-in of the provider.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sandbox::{Control, Fault, Rates, Sandbox, Scripted};

use super::*;

const ANA: &str = "+573001234567";
const PROJECT: &str = "00000000-0000-4000-8000-000000000001";
const KEY: &str = "bb-00000000-0000-4000-8000-000000000002";
const SEND: &str = "builderbot.message_send";

struct Pair {
    sandbox: Sandbox,
    client: Client,
}

impl Pair {
    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let options = sandbox::Options {
            manual_clock: true,
            builderbot_api_key: Some(KEY.to_owned()),
            // Nobody listens here.
            rates: Rates {
                never: 1.0,
                ..Rates::ideal()
            },
            ..Default::default()
        };
        let sandbox = Sandbox::start(options).await.unwrap();
        let mut settings = settings(&sandbox.url());
        change(&mut settings);
        let source = clock::Source::new(|| chrono::DateTime::UNIX_EPOCH, StdRng::seed_from_u64(1));
        Self {
            client: Client::new(&settings, source).unwrap(),
            sandbox,
        }
    }

    async fn send(&self, words: &str) -> Result<(), Error> {
        let number = PhoneNumber::parse(ANA).unwrap();
        self.client.send(&number, words).await
    }
}

fn settings(base_url: &str) -> Settings {
    Settings {
        base_url: base_url.parse().unwrap(),
        api_key: Some(KEY.to_owned()),
        project_id: Some(PROJECT.to_owned()),
        policy: Policy {
            connect_timeout: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            ..Policy::default()
        },
    }
}

#[tokio::test]
async fn a_text_is_sent_to_the_digits_of_a_number() {
    let pair = Pair::with(|_| {}).await;
    pair.send("¿Qué tal?").await.unwrap();
    let truth = pair.sandbox.truth();
    let request = &truth.requests[SEND].requests[0];
    assert_eq!(request.path, format!("/api/v2/{PROJECT}/messages"));
    let body: Value = serde_json::from_str(&request.body).unwrap();
    let expected = json!({"messages": {"content": "¿Qué tal?"}, "number": "573001234567",
                          "checkIfExists": false});
    assert_eq!(body, expected);
    assert_eq!(truth.messages[0].body, "¿Qué tal?");
}

#[tokio::test]
async fn without_a_key_or_a_project_nothing_is_sent() {
    let changes: [fn(&mut Settings); 2] = [|it| it.api_key = None, |it| it.project_id = None];
    for change in changes {
        let pair = Pair::with(change).await;
        assert!(!pair.client.is_configured());
        assert_eq!(pair.send("hola").await, Err(Error::NotConfigured));
        assert_eq!(pair.sandbox.truth().request_count(SEND), 0);
    }
    assert!(Pair::with(|_| {}).await.client.is_configured());
}

#[tokio::test]
async fn each_failure_says_whether_the_message_may_have_gone_out() {
    let pair = Pair::with(|_| {}).await;
    for (fault, status, may_have_happened, sent) in [
        (Fault::Refuse(400), Some(400), false, 0),
        (Fault::Refuse(429), Some(429), false, 0),
        (Fault::RefuseAfterWork(500), Some(500), true, 1),
        (Fault::Hang, None, true, 0),
        (Fault::HangAfterWork, None, true, 1),
    ] {
        let before = pair.sandbox.truth().messages.len();
        let script = vec![Scripted {
            operation: SEND.to_owned(),
            times: 1,
            fault: fault.clone(),
        }];
        let control = Control {
            script,
            ..Control::default()
        };
        pair.sandbox.control(control).await.unwrap();
        let error = pair.send("hola").await.unwrap_err();
        assert_eq!(error.status(), status, "{fault:?}");
        assert_eq!(error.may_have_happened(), may_have_happened, "{fault:?}");
        let really = pair.sandbox.truth().messages.len() - before;
        assert_eq!(really, sent, "{fault:?}");
    }
    assert_eq!(pair.sandbox.truth().request_count(SEND), 5, "none twice");
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_the_providers_words() {
    let pair = Pair::with(|it| it.api_key = Some("bb-wrong".to_owned())).await;
    let error = pair.send("hola").await.unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!(
        (refusal.status, refusal.message.as_str()),
        (401, "Unauthorized")
    );
}

#[test]
fn an_answer_that_speaks_of_an_error_is_none_of_success() {
    for bad in [
        json!({"error": "invalid api key"}),
        json!({"error": {"message": "the session is closed"}}),
        json!({"success": true, "error": true}),
        json!({"error": 401}),
        json!({"error": ["no such project"]}),
    ] {
        assert!(is_refusal(&bad), "{bad}");
    }
    let said = json!({"error": {"message": "the session is closed"}});
    assert_eq!(words(&said).1, "the session is closed");
    for good in [
        json!({"success": true, "error": null}),
        json!({"error": false}),
        json!({"error": " "}),
        json!({"error": []}),
        json!({"error": {}}),
        json!({"message": "queued"}),
        json!([{"error": "of another form"}]),
        json!("ok"),
        Value::Null,
    ] {
        assert!(!is_refusal(&good), "{good}");
    }
}

#[test]
fn the_address_is_taken_with_and_without_its_path() {
    for (given, expected) in [
        (
            "https://app.builderbot.cloud",
            "https://app.builderbot.cloud",
        ),
        (
            "https://app.builderbot.cloud/",
            "https://app.builderbot.cloud",
        ),
        (
            "https://app.builderbot.cloud/api/v2",
            "https://app.builderbot.cloud",
        ),
        (
            "https://app.builderbot.cloud/api/v2/",
            "https://app.builderbot.cloud",
        ),
        (
            "https://proxy.example.com/bot/api/v2//",
            "https://proxy.example.com/bot",
        ),
        (
            "https://proxy.example.com/api",
            "https://proxy.example.com/api",
        ),
    ] {
        let url = messages_url(&given.parse().unwrap(), "p-1").unwrap();
        assert_eq!(url.as_str(), format!("{expected}/api/v2/p-1/messages"));
    }
}

#[test]
fn the_key_is_never_printed() {
    let shown = format!("{:?}", settings(DEFAULT_BASE_URL));
    assert!(!shown.contains(KEY) && shown.contains("hidden"), "{shown}");
}
