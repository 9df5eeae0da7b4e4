//! Against the stand-in of the provider.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sandbox::{Control, Fault, Inbound, Rates, Sandbox, Scripted};
use serde_json::json;

use super::*;

const ANA: &str = "+573001234567";
const LUIS: &str = "+573007654321";
const OURS: &str = "+14155550100";
const OUR_WHATSAPP: &str = "+14155238886";
const CALLBACK: &str = "https://cc.example.com/webhooks/twilio/sms/status";
const TEMPLATE: &str = "HX00000000000000000000000000000001";
const BEGINNING_UNIX: i64 = 1_761_694_200;
const CREATE: &str = "twilio.message_create";
const LIST: &str = "twilio.message_list";

/// A provider whose clock the test holds, and a client of it that gives up
/// soon.
pub(in crate::providers::twilio) struct Pair {
    pub(in crate::providers::twilio) sandbox: Sandbox,
    pub(in crate::providers::twilio) client: Client,
}

impl Pair {
    pub(in crate::providers::twilio) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let options = sandbox::Options {
            manual_clock: true,
            clock_start_unix: Some(BEGINNING_UNIX.unsigned_abs()),
            // Nobody listens here.
            rates: Rates {
                never: 1.0,
                ..Rates::ideal()
            },
            ..Default::default()
        };
        let mut settings = settings("http://127.0.0.1", &options);
        let sandbox = Sandbox::start(options).await.unwrap();
        settings.base_url = sandbox.url().parse().unwrap();
        change(&mut settings);
        Self {
            client: client(&settings),
            sandbox,
        }
    }

    pub(in crate::providers::twilio) async fn control(&self, control: Control) {
        self.sandbox.control(control).await.unwrap();
    }

    async fn script(&self, operation: &str, fault: Fault) {
        let script = vec![Scripted {
            operation: operation.to_owned(),
            times: 1,
            fault,
        }];
        self.control(Control {
            script,
            ..Control::default()
        })
        .await;
    }

    /// The form of the last request to send.
    fn last_form(&self) -> Vec<(String, String)> {
        let truth = self.sandbox.truth();
        let sent = truth.requests[CREATE].requests.last().unwrap();
        form_urlencoded::parse(sent.body.as_bytes())
            .into_owned()
            .collect()
    }
}

fn settings(base_url: &str, options: &sandbox::Options) -> Settings {
    Settings {
        base_url: base_url.parse().unwrap(),
        account_sid: Some(options.twilio_account_sid.clone()),
        auth_token: Some(options.twilio_auth_token.clone()),
        sms_from: Some(options.twilio_from_number.clone()),
        whatsapp_from: Some(options.twilio_whatsapp_from.clone()),
        status_callback: CALLBACK.to_owned(),
        policy: Policy {
            connect_timeout: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            pause_first: Duration::from_millis(1),
            ..Policy::default()
        },
    }
}

fn client(settings: &Settings) -> Client {
    let now = || at(0);
    let source = clock::Source::new(now, StdRng::seed_from_u64(1));
    Client::new(settings, source).unwrap()
}

fn at(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(BEGINNING_UNIX + secs, 0).unwrap()
}

pub(in crate::providers::twilio) fn sms<'a>(to: &'a str, words: &'a str) -> Outgoing<'a> {
    Outgoing {
        channel: Channel::Sms,
        to,
        content: Content::Text(words),
    }
}

fn whatsapp<'a>(to: &'a str, words: &'a str) -> Outgoing<'a> {
    Outgoing {
        channel: Channel::Whatsapp,
        ..sms(to, words)
    }
}

fn ids(found: &[Accepted]) -> Vec<&str> {
    found.iter().map(|it| it.message_id.as_str()).collect()
}

#[tokio::test]
async fn an_sms_is_taken_with_our_number_and_callback() {
    let pair = Pair::start().await;
    let words = "Su código: 1 + 1 = dos & «tres»";
    let taken = pair.client.send(&sms(ANA, words)).await.unwrap();
    let expected = Accepted {
        message_id: taken.message_id.clone(),
        status: Status::Queued,
        our_address: OURS.to_owned(),
        created_at: Some(at(0)),
        error_code: None,
    };
    assert_eq!(taken, expected);
    let form = json!([
        ["To", ANA],
        ["From", OURS],
        ["StatusCallback", CALLBACK],
        ["Body", words]
    ]);
    assert_eq!(json!(pair.last_form()), form);
    let truth = &pair.sandbox.truth().messages[0];
    assert_eq!(truth.sid.as_ref(), Some(&taken.message_id));
    assert_eq!((truth.to.as_str(), truth.body.as_str()), (ANA, words));
}

#[tokio::test]
async fn a_template_goes_by_whatsapp_with_its_variables_and_no_text() {
    // People write their sender in both ways.
    for written in ["+14155238886", "whatsapp:+14155238886"] {
        let pair = Pair::with(|it| it.whatsapp_from = Some(written.to_owned())).await;
        let variables = Map::from_iter([("1".to_owned(), json!("Ana"))]);
        let template = Outgoing {
            content: Content::Template {
                content_sid: TEMPLATE,
                variables: &variables,
            },
            ..whatsapp(ANA, "")
        };
        let taken = pair.client.send(&template).await.unwrap();
        assert_eq!(taken.our_address, OUR_WHATSAPP);
        let form = json!([
            ["To", "whatsapp:+573001234567"],
            ["From", "whatsapp:+14155238886"],
            ["StatusCallback", CALLBACK],
            ["ContentSid", TEMPLATE],
            ["ContentVariables", r#"{"1":"Ana"}"#]
        ]);
        assert_eq!(json!(pair.last_form()), form);
        let found = pair.client.find_sent(&template, at(0)).await.unwrap();
        assert_eq!(ids(&found), [&taken.message_id]);
    }
}

#[tokio::test]
async fn without_a_sender_an_account_or_a_token_nothing_is_sent() {
    type Change = fn(&mut Settings);
    let cases: [(Change, bool, bool); 5] = [
        (|_| {}, true, true),
        (|it| it.sms_from = None, false, true),
        (|it| it.whatsapp_from = None, true, false),
        (|it| it.account_sid = None, false, false),
        (|it| it.auth_token = None, false, false),
    ];
    for (change, by_sms, by_whatsapp) in cases {
        let pair = Pair::with(change).await;
        let client = &pair.client;
        for (channel, good) in [
            (Channel::Sms, by_sms),
            (Channel::Whatsapp, by_whatsapp),
            (Channel::Call, false),
        ] {
            assert_eq!(client.is_configured(channel), good, "{channel}");
            if !good {
                let message = Outgoing {
                    channel,
                    ..sms(ANA, "hola")
                };
                let refused = client.send(&message).await.unwrap_err();
                assert_eq!(refused, Error::NotConfigured);
                let refused = client.find_sent(&message, at(0)).await.unwrap_err();
                assert_eq!(refused, Error::NotConfigured);
            }
        }
        assert_eq!(pair.sandbox.truth().request_count(CREATE), 0);
    }
}

#[tokio::test]
async fn each_failure_says_whether_the_message_may_have_gone_out() {
    let pair = Pair::start().await;
    for (fault, shown, may_have_happened, is_passing, sent) in [
        (
            Fault::TwilioCode(21211),
            "the provider answered 400 21211",
            false,
            false,
            0,
        ),
        (
            Fault::TwilioCode(20003),
            "the provider answered 401 20003",
            false,
            false,
            0,
        ),
        (
            Fault::Refuse(429),
            "the provider wants fewer requests: 429 20429",
            false,
            true,
            0,
        ),
        (
            Fault::Refuse(503),
            "the provider answered 503 20503",
            true,
            true,
            0,
        ),
        (
            Fault::RefuseAfterWork(500),
            "the provider answered 500 20500",
            true,
            true,
            1,
        ),
        (
            Fault::Hang,
            "the provider's answer did not come: it timed out",
            true,
            true,
            0,
        ),
        (
            Fault::HangAfterWork,
            "the provider's answer did not come: it timed out",
            true,
            true,
            1,
        ),
    ] {
        let before = pair.sandbox.truth().messages.len();
        pair.script(CREATE, fault.clone()).await;
        let error = pair.client.send(&sms(ANA, "hola")).await.unwrap_err();
        assert_eq!(error.to_string(), shown, "{fault:?}");
        assert_eq!(error.may_have_happened(), may_have_happened, "{fault:?}");
        assert_eq!(error.is_passing(), is_passing, "{fault:?}");
        let really = pair.sandbox.truth().messages.len() - before;
        assert_eq!(really, sent, "{fault:?}");
    }
    assert_eq!(pair.sandbox.truth().request_count(CREATE), 7, "none twice");
}

#[tokio::test]
async fn nobody_there_is_not_sent_and_a_strange_answer_is_uncertain() {
    let nobody = Pair::with(|it| it.base_url = "http://127.0.0.1:9".parse().unwrap()).await;
    let error = nobody.client.send(&sms(ANA, "hola")).await.unwrap_err();
    assert!(matches!(error, Error::NotSent(_)), "{error}");
    assert!(!error.may_have_happened());

    for strange in ["", "[]", "{}", r#"{"sid":""}"#, r#"{"sid":"no id"}"#] {
        let document = lenient::object::<Document>(strange.as_bytes());
        assert!(
            document.map_or(true, |it| it.accepted(OURS).is_none()),
            "{strange}"
        );
    }
    for strange in ["", "[]", "{}", r#"{"messages":null}"#] {
        let page = read_page(strange.as_bytes());
        assert_eq!(
            page.err(),
            Some(UNREADABLE),
            "no list is no empty list: {strange}"
        );
    }
}

#[tokio::test]
async fn what_was_carried_out_and_not_answered_is_found_exactly() {
    let pair = Pair::start().await;
    pair.client.send(&sms(ANA, "otra cosa")).await.unwrap();
    pair.client.send(&sms(LUIS, "hola")).await.unwrap();
    let sent = sms(ANA, "hola\n");
    pair.script(CREATE, Fault::HangAfterWork).await;
    pair.client.send(&sent).await.unwrap_err();
    // Their own words are no message of ours.
    pair.control(Control {
        inbound: vec![Inbound {
            channel: sandbox::Channel::Sms,
            from: ANA.to_owned(),
            body: "hola".to_owned(),
            ..Inbound::default()
        }],
        ..Control::default()
    })
    .await;
    let found = pair.client.find_sent(&sent, at(0)).await.unwrap();
    let truth = pair.sandbox.truth();
    let really = truth
        .messages
        .iter()
        .find(|it| it.body == "hola\n")
        .unwrap();
    assert_eq!(ids(&found), [really.sid.as_deref().unwrap()]);
    assert_eq!(
        (found[0].status, found[0].created_at),
        (Status::Queued, Some(at(0)))
    );
    assert_eq!(found[0].our_address, OURS);

    let by_whatsapp = whatsapp(ANA, "hola\n");
    let found = pair.client.find_sent(&by_whatsapp, at(0)).await.unwrap();
    assert_eq!(found, [], "of another channel");
}

#[tokio::test]
async fn what_was_not_carried_out_is_not_found() {
    let pair = Pair::start().await;
    let sent = whatsapp(ANA, "hola");
    pair.script(CREATE, Fault::Hang).await;
    pair.client.send(&sent).await.unwrap_err();
    assert_eq!(pair.client.find_sent(&sent, at(0)).await.unwrap(), []);
}

#[tokio::test]
async fn messages_of_the_same_words_are_told_apart_by_time_and_id() {
    let pair = Pair::start().await;
    let message = sms(ANA, "hola");
    let first = pair.client.send(&message).await.unwrap();
    pair.sandbox.advance(Duration::from_secs(90)).await;
    let second = pair.client.send(&message).await.unwrap();
    assert_ne!(first.message_id, second.message_id);
    let since = |secs| pair.client.find_sent(&message, at(secs));
    let both = since(0).await.unwrap();
    assert_eq!(ids(&both), [&first.message_id, &second.message_id]);
    assert_eq!(both[0].status, Status::Delivered);
    let within = at(0) + chrono::Duration::milliseconds(900);
    let both = pair.client.find_sent(&message, within).await.unwrap();
    assert_eq!(both.len(), 2, "the provider tells the second, not more");
    assert_eq!(ids(&since(1).await.unwrap()), [&second.message_id]);
    assert_eq!(ids(&since(90).await.unwrap()), [&second.message_id]);
    assert_eq!(since(91).await.unwrap(), []);
}

#[tokio::test]
async fn the_list_is_read_to_its_end_or_to_what_is_too_old() {
    let mut pair = Pair::start().await;
    assert_eq!(pair.client.page_size, 50);
    pair.client.page_size = 2;
    let message = sms(ANA, "hola");
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.push(pair.client.send(&message).await.unwrap().message_id);
        pair.sandbox.advance(Duration::from_secs(10)).await;
    }
    let requests = || pair.sandbox.truth().request_count(LIST);
    let found = pair.client.find_sent(&message, at(0)).await.unwrap();
    assert_eq!(ids(&found), sent);
    assert_eq!(requests(), 3, "two and two and one");
    let found = pair.client.find_sent(&message, at(40)).await.unwrap();
    assert_eq!(ids(&found), sent[4..]);
    assert_eq!(requests(), 4, "the first page has one that is too old");

    pair.client.page_size = 1;
    for _ in 0..PAGES_MAX {
        pair.client.send(&sms(ANA, "más")).await.unwrap();
    }
    let endless = pair.client.find_sent(&message, at(0)).await.unwrap_err();
    assert!(endless.may_have_happened(), "we do not know: {endless}");
}

#[tokio::test]
async fn looking_is_repeated_where_that_may_help() {
    let pair = Pair::start().await;
    let message = sms(ANA, "hola");
    pair.client.send(&message).await.unwrap();
    pair.script(LIST, Fault::Refuse(503)).await;
    pair.script(LIST, Fault::Refuse(429)).await;
    assert_eq!(
        pair.client.find_sent(&message, at(0)).await.unwrap().len(),
        1
    );
    assert_eq!(pair.sandbox.truth().request_count(LIST), 3);
}

#[test]
fn a_trial_accounts_prefix_and_other_directions_are_known() {
    let is_like = |document: Value| {
        let document: Document = serde_json::from_value(document).unwrap();
        document.is_like(&sms(ANA, "hola"))
    };
    let trial = format!("{TRIAL_PREFIX}hola");
    assert!(is_like(json!({"body": trial, "direction": "outbound-api"})));
    assert!(is_like(
        json!({"body": "hola", "direction": "outbound-reply"})
    ));
    assert!(!is_like(json!({"body": "hola", "direction": "inbound"})));
    assert!(!is_like(
        json!({"body": "hola, Ana", "direction": "outbound-api"})
    ));
    assert!(!is_like(json!({"direction": "outbound-api"})));
}

#[test]
fn the_next_page_is_asked_of_the_same_host() {
    let page = |next: &str| {
        let page = json!({"messages": [], "next_page_uri": next});
        read_page(page.to_string().as_bytes()).unwrap().next
    };
    let query = Some("Page=1&PageToken=PASM1".to_owned());
    assert_eq!(page("/2010-04-01/x.json?Page=1&PageToken=PASM1"), query);
    assert_eq!(
        page("https://elsewhere.example.com/?Page=1&PageToken=PASM1"),
        query
    );
    assert_eq!(page(""), None);
}

#[test]
fn the_token_is_never_printed() {
    let options = sandbox::Options::default();
    let settings = settings("https://api.twilio.com", &options);
    let shown = format!("{settings:?}");
    assert!(!shown.contains(&options.twilio_auth_token), "{shown}");
    assert!(shown.contains(r#"auth_token: Some("hidden")"#), "{shown}");
}
