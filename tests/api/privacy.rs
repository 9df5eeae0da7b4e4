//! What nobody may read in the logs and the metrics, and who may see a whole
//! phone number. Contract, sections 0 and 2.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Once;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use crate::harness::app::{
    BUILDERBOT_TOKEN, ELEVENLABS_SECRET, ELEVENLABS_TOKEN, JWT_SECRET, SERVICE_TOKEN,
    TWILIO_AUTH_TOKEN, TWILIO_TOKEN, answer, ok,
};
use crate::harness::{TestApp, fixture, sign};
use crate::ingest::{every_fixture, send_fixture};
use crate::interactions::{CLIENT_NUMBERS, send_everything};

const EMAIL: &str = "ana.garcia@example.com";
const PASSWORD: &str = "una-contraseña-larga";
const GUESS: &str = "esta-no-es-la-contraseña";
/// A number that is in no fixture.
const NUMBER: &str = "573001234567";
const MASKED: &str = "+57******4567";
const WORDS: &str = "Palabras que solo la clienta conoce";

thread_local! {
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Keeps what is logged on a thread that asked for it, and drops the rest.
struct Captured;

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.as_mut().map(|log| log.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes all log lines of this thread, on which the whole service of a test
/// runs, as they are written in production, but at the level `debug`. One
/// subscriber for the process: what is enabled is remembered for all threads.
pub fn capture() {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        let filter = "info,bitacora=debug,bitacora_projections=debug,sqlx=warn,poem=debug";
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(|| Captured)
            .json()
            .flatten_event(true)
            .init();
    });
    LOG.set(Some(Vec::new()));
}

pub fn captured() -> String {
    String::from_utf8(LOG.take().unwrap()).unwrap()
}

/// Every text of the fixtures in which somebody speaks, is named or is called:
/// sentences, and long runs of digits.
fn private_texts() -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for (name, _) in every_fixture() {
        let body = fixture(&name);
        if name.ends_with(".json") {
            leaves(&serde_json::from_slice(&body).unwrap(), &mut texts);
        } else {
            texts.extend(form_urlencoded::parse(&body).map(|(_, value)| value.into_owned()));
        }
    }
    let numbers: BTreeSet<String> = texts
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_ascii_digit()))
        .filter(|digits| (11..=13).contains(&digits.len()) && !digits.starts_with('0'))
        .map(str::to_owned)
        .collect();
    texts.retain(|text| text.contains(' ') && text.len() >= 8);
    texts.extend(numbers);
    texts.extend(CLIENT_NUMBERS.map(str::to_owned));
    texts
}

fn leaves(value: &Value, texts: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(texts.insert(text.clone())),
        Value::Array(values) => values.iter().for_each(|value| leaves(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| leaves(value, texts)),
        _ => {}
    }
}

/// Requests with all that is private, in all the places where it may stand.
fn indiscreet_requests(app: &TestApp, jwt: &str) -> Vec<RequestBuilder> {
    let post = |path: &str| app.client.post(format!("{}{path}", app.url));
    let get = |path: &str| app.client.get(format!("{}{path}", app.url));
    let login = |password: &str| {
        app.post_as(
            "nobody",
            "/api/auth/login",
            &json!({"email": EMAIL, "password": password}),
        )
    };
    let signature = format!("t={},v0=5ec3e7516e", app.clock.now().timestamp());
    let speaks =
        json!({"type": format!("{WORDS} +{NUMBER} {EMAIL}"), "data": {"text": WORDS}}).to_string();
    let nul = format!(
        r#"{{"eventName":"message.incoming","data":{{"body":"{WORDS} \u0000","from":"{NUMBER}","name":"{WORDS}","key":{{"id":"A1"}}}}}}"#
    );
    let inbound = format!(
        "MessageSid=SM0001&From=whatsapp%3A%2B{NUMBER}&To=whatsapp%3A%2B14155238886&Body={}",
        WORDS.replace(' ', "+")
    );
    let mut requests = vec![
        // Strangers, of each provider.
        post("/webhooks/elevenlabs/call")
            .header("X-Webhook-Token", GUESS.replace('ñ', "n"))
            .body(speaks.clone()),
        post("/webhooks/elevenlabs/call")
            .header("ElevenLabs-Signature", &signature)
            .body(speaks.clone()),
        post("/webhooks/elevenlabs/call")
            .header("ElevenLabs-Signature", "no signature 5ec3e7516e")
            .body(speaks.clone()),
        post(&format!(
            "/webhooks/builderbot/whatsapp?token=a-wrong-token&phone={NUMBER}"
        ))
        .body(nul.clone()),
        post("/webhook/twilio/incoming")
            .header("X-Twilio-Signature", "5ec3e7516e=")
            .body(inbound.clone()),
        post("/webhooks/twilio/sms/status").body(inbound.clone()),
        // What is authentic and not understood, or hardly.
        app.elevenlabs(speaks.clone()),
        app.elevenlabs(format!("{{\"{WORDS}\": {NUMBER}")),
        app.builderbot(nul),
        app.builderbot(json!({"eventName": speaks, "data": WORDS}).to_string()),
        app.twilio("/webhook/twilio/incoming", inbound.clone()),
        app.twilio("/webhooks/twilio/sms/status", inbound.clone()),
        app.twilio("/webhooks/twilio/voice/status", inbound),
        // Logins and people.
        login(PASSWORD),
        login(GUESS),
        app.post_as(
            "admin",
            "/api/users",
            &json!({"name": WORDS, "email": EMAIL, "password": PASSWORD, "role": "agent"}),
        ),
        app.post_as(
            "admin",
            "/api/users",
            &json!({"name": WORDS, "email": EMAIL, "password": PASSWORD, "role": WORDS}),
        ),
        post("/api/auth/login")
            .header("content-type", "application/json")
            .body(format!("{{\"password\":\"{GUESS}\",")),
        post(&format!("/api/auth/login?password={PASSWORD}")).body(PASSWORD),
        // Credentials where they belong and where they do not.
        get(&format!(
            "/api/ledger/stream?access_token={jwt}&after=999999"
        )),
        get(&format!(
            "/api/interactions?access_token={jwt}&token={SERVICE_TOKEN}"
        )),
        get(&format!("/{jwt}/{SERVICE_TOKEN}")),
        get("/api/interactions").bearer_auth(format!("{jwt}x")),
        get("/api/interactions").header("X-Service-Token", JWT_SECRET),
    ];
    let encoded = WORDS.replace(' ', "%20");
    for path in [
        format!("/api/interactions?phone=%2B{NUMBER}"),
        format!("/api/interactions?phone=%2B{NUMBER}&reveal=true"),
        format!("/api/interactions?phone={NUMBER}-"),
        format!("/api/interactions?q={encoded}&agent_id={EMAIL}&status={NUMBER}"),
        format!("/api/interactions?cursor={NUMBER}&limit={NUMBER}"),
        format!("/api/interactions/%2B{NUMBER}"),
        format!("/api/interactions/{encoded}/audio"),
        format!("/api/interactions/x?as_of={NUMBER}{NUMBER}"),
        format!("/api/deliveries/{NUMBER}"),
        format!("/api/audit-log?actor={EMAIL}&action={encoded}"),
        format!("/api/ledger/events?aggregate_id={NUMBER}"),
        format!("/api/conversations/%2B{NUMBER}"),
    ] {
        requests.push(app.get_as("admin", &path));
    }
    requests.push(app.post_as(
        "admin",
        &format!("/api/projections/{NUMBER}/replay"),
        &json!({}),
    ));
    requests
}

#[tokio::test]
async fn neither_logs_nor_metrics_tell_who_said_what_or_any_secret() {
    capture();
    let app = TestApp::start().await;
    let user = json!({"name": WORDS, "email": EMAIL, "password": PASSWORD, "role": "admin"});
    assert_eq!(
        answer(app.post_as("admin", "/api/users", &user)).await.0,
        201
    );
    let session = ok(app.post_as(
        "nobody",
        "/api/auth/login",
        &json!({"email": EMAIL, "password": PASSWORD}),
    ))
    .await;
    let jwt = session["token"].as_str().unwrap();

    let mut signatures = Vec::new();
    for (name, path) in every_fixture() {
        ok(send_fixture(&app, &name, path)).await;
        let body = fixture(&name);
        if name.starts_with("elevenlabs/") {
            let signature = sign::elevenlabs(ELEVENLABS_SECRET, app.clock.now().timestamp(), &body);
            signatures.push(signature.split_once("v0=").unwrap().1.to_owned());
            let forged = app
                .client
                .post(format!("{}{path}", app.url))
                .header("ElevenLabs-Signature", format!("{signature}0"));
            assert_eq!(answer(forged.body(body)).await.0, 401, "{name}");
        } else {
            let stranger = app
                .client
                .post(format!("{}{path}?token=a-wrong-token", app.url));
            assert_eq!(answer(stranger.body(body)).await.0, 401, "{name}");
        }
    }
    let mut statuses = BTreeSet::new();
    for request in indiscreet_requests(&app, jwt) {
        // A stream's answer has no end.
        statuses.insert(request.send().await.unwrap().status().as_u16());
    }
    assert_eq!(
        statuses,
        BTreeSet::from([200, 400, 401, 404, 409, 415]),
        "and nothing broke"
    );
    app.settle().await;
    let metrics = app
        .get_as("service", "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let deliveries: Vec<String> =
        sqlx::query_scalar("select id::text from deliveries where verdict = 'quarantined'")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    for id in deliveries {
        answer(app.post_as(
            "admin",
            &format!("/api/deliveries/{id}/reprocess"),
            &json!({}),
        ))
        .await;
    }
    app.stop().await;

    let log = captured();
    for line in log.lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok(),
            "no JSON: {line}"
        );
    }
    for told in [
        "answered",
        "rejected a delivery",
        "quarantined a delivery",
        "\"route\":\"/api/auth/login\"",
        "\"route\":\"none\"",
    ] {
        assert!(log.contains(told), "{told} is not captured:\n{log}");
    }
    let mut secrets = private_texts();
    assert!(secrets.len() > 40, "{secrets:?}");
    secrets.extend(signatures);
    let known = [
        EMAIL,
        "ana.garcia",
        PASSWORD,
        GUESS,
        "esta-no-es",
        NUMBER,
        WORDS,
        "solo la clienta",
        "Palabras",
        jwt,
        "5ec3e7516e",
        ELEVENLABS_TOKEN,
        ELEVENLABS_SECRET,
        BUILDERBOT_TOKEN,
        TWILIO_TOKEN,
        TWILIO_AUTH_TOKEN,
        SERVICE_TOKEN,
        JWT_SECRET,
        "a-wrong-token",
        "a-key-for-tests",
        "access_token",
    ];
    secrets.extend(known.map(str::to_owned));
    // The log escapes what is no plain text.
    let escaped = |text: &str| json!(text).to_string().trim_matches('"').to_owned();
    for (what, text) in [("the log", &log), ("/metrics", &metrics)] {
        for secret in &secrets {
            let line = text
                .lines()
                .find(|line| line.contains(secret.as_str()) || line.contains(&escaped(secret)));
            assert_eq!(line, None, "{what} tells {secret:?}");
        }
    }
}

/// Everywhere the same form, and the whole number for those who may see it.
#[tokio::test]
async fn a_number_is_shown_by_its_country_and_last_four_digits() {
    let app = TestApp::start().await;
    let form = format!(
        "MessageSid=SM0001&From=whatsapp%3A%2B{NUMBER}&To=whatsapp%3A%2B14155238886&Body=Soy+%2B{NUMBER}&WaId={NUMBER}"
    );
    ok(app.twilio("/webhook/twilio/incoming", form)).await;
    app.settle().await;
    let whole = format!("+{NUMBER}");
    let list = format!("/api/interactions?phone=%2B{NUMBER}");
    let id = app.read(&list).await["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let detail = format!("/api/interactions/{id}?raw=true");
    for role in ["agent", "supervisor", "admin", "auditor", "service"] {
        let row = ok(app.get_as(role, &list)).await;
        assert_eq!(row["data"][0]["phone_number"], MASKED, "{role}");
        let got = ok(app.get_as(role, &detail)).await;
        assert_eq!(got["data"]["phone_number"], MASKED, "{role}");
        assert_eq!(
            got["data"]["messages"][0]["content"],
            format!("Soy {MASKED}"),
            "{role}"
        );
        for answer in [row, got] {
            assert!(!answer.to_string().contains(NUMBER), "{role}: {answer}");
        }
        let may = ["supervisor", "admin", "auditor"].contains(&role);
        let (status, row) = answer(app.get_as(role, &format!("{list}&reveal=true"))).await;
        assert_eq!(status, if may { 200 } else { 403 }, "{role}");
        let (status, got) = answer(app.get_as(role, &format!("{detail}&reveal=true"))).await;
        assert_eq!(status, if may { 200 } else { 403 }, "{role}");
        if may {
            assert_eq!(row["data"][0]["phone_number"], whole, "{role}");
            assert_eq!(got["data"]["phone_number"], whole, "{role}");
            assert_eq!(
                got["data"]["messages"][0]["content"],
                format!("Soy {whole}"),
                "{role}"
            );
        } else {
            assert!(
                !format!("{row}{got}").contains(NUMBER),
                "{role}: {row} {got}"
            );
        }
        // Only `true` reveals.
        let (_, row) = answer(app.get_as(role, &format!("{list}&reveal=false"))).await;
        assert_eq!(row["data"][0]["phone_number"], MASKED, "{role}");
    }
    app.stop().await;
}

/// Country codes of one, two and three digits, from every provider.
#[tokio::test]
async fn masks_keep_the_country_code_and_tell_no_more() {
    let app = TestApp::start().await;
    for (n, (number, masked)) in [
        ("14155550123", "+1******0123"),
        ("34600123456", "+34*****3456"),
        ("593991234567", "+593*****4567"),
        ("5491133334444", "+54*******4444"),
    ]
    .into_iter()
    .enumerate()
    {
        let form = format!("MessageSid=SM{n}&From=%2B{number}&To=%2B{NUMBER}&Body=x");
        ok(app.twilio("/webhook/twilio/incoming", form)).await;
        app.settle().await;
        let list = app.read("/api/interactions?limit=200").await;
        let shown: Vec<&str> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|row| row["phone_number"].as_str())
            .collect();
        assert!(shown.contains(&masked), "{number}: {shown:?}");
        assert!(!list.to_string().contains(number), "{list}");
    }
    send_everything(&app).await;
    let list = app.read("/api/interactions?limit=200").await;
    for row in list["data"].as_array().unwrap() {
        let Some(shown) = row["phone_number"].as_str() else {
            continue;
        };
        let (code, last) = (
            shown.trim_start_matches('+').split('*').next().unwrap(),
            shown.rsplit('*').next().unwrap(),
        );
        let stars = shown.matches('*').count();
        assert!(code.len() <= 3 && last.len() <= 4 && stars >= 2, "{row}");
    }
    app.stop().await;
}
