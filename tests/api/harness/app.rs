//! The service in this process, on a database of its own, with a clock that
//! the test holds.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bitacora::clock::Source;
use bitacora::config::{Config, LogKeys, TextMode};
use bitacora::erasure::Retention;
use bitacora::ledger::Limits;
use bitacora::otp::OtpSettings;
use bitacora::providers::elevenlabs::client::text::Timing;
use bitacora::providers::http::Policy;
use bitacora::providers::{Credentials, Secrets, builderbot, elevenlabs, twilio};
use bitacora::serve::{self, Running};
use bitacora::{app, effects, telemetry};
use chrono::{DateTime, Utc};
use domain::sealed::MasterKeys;
use metrics_exporter_prometheus::PrometheusHandle;
use projections::Opener;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{postgres, sign};

/// When every test begins, unless it says otherwise: a little after the
/// fixtures' events.
pub const BEGINNING_UNIX: i64 = 1_761_694_200;

pub const ELEVENLABS_TOKEN: &str = "elevenlabs-token";
pub const ELEVENLABS_SECRET: &str = "wsec_for_tests_0001";
pub const BUILDERBOT_TOKEN: &str = "builderbot-token";
pub const TWILIO_TOKEN: &str = "twilio-token";
pub const TWILIO_AUTH_TOKEN: &str = "twilio-auth-token-for-tests-0001";
pub const SERVICE_TOKEN: &str = "service-token";
pub const JWT_SECRET: &str = "a-secret-for-tests-of-at-least-32-characters";
pub const MASTER_KEY: &str = "a-master-key-for-tests-of-at-least-32-characters";
pub const PUBLIC_URL: &str = "https://cc.example.com";

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0.load(Ordering::SeqCst)).unwrap()
    }

    pub fn advance(&self, by: chrono::Duration) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }
}

pub struct TestApp {
    pub url: String,
    pub pool: PgPool,
    pub clock: TestClock,
    pub running: Option<Running>,
    pub client: reqwest::Client,
}

/// How the service is started, where a test cares.
pub struct Options {
    pub database_url: Option<String>,
    pub limits: Limits,
    pub config: fn(&mut Config),
    /// Where the providers' stand-in is.
    pub providers_url: Option<String>,
    /// Two replicas must not draw the same ids.
    pub seed: u64,
    /// Whether time passes by itself.
    pub clock: Clock,
}

/// Whose clock the service goes by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The test's: it stands still until it is moved.
    Stands,
    /// The machine's.
    Runs,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            database_url: None,
            limits: Limits::default(),
            config: |_| {},
            providers_url: None,
            seed: 1,
            clock: Clock::Stands,
        }
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let database_url = match options.database_url {
            Some(url) => url,
            None => postgres::fresh_database().await,
        };
        let pool = app::connect(&database_url, 12).await.unwrap();
        let began = match options.clock {
            Clock::Stands => BEGINNING_UNIX * 1000,
            Clock::Runs => Source::system().now().timestamp_millis(),
        };
        let clock = TestClock(Arc::new(AtomicI64::new(began)));
        let source = {
            let clock = clock.clone();
            let standing = move || clock.now();
            let system = Source::system();
            let rng = StdRng::seed_from_u64(options.seed);
            match options.clock {
                Clock::Stands => Source::new(standing, rng),
                Clock::Runs => Source::new(move || system.now(), rng),
            }
        };
        let mut config = config();
        (options.config)(&mut config);
        if let Some(url) = options.providers_url {
            config.elevenlabs.base_url = url.parse().unwrap();
            config.twilio.base_url = url.parse().unwrap();
            config.builderbot.base_url = url.parse().unwrap();
        }
        let running = serve::start(config, pool.clone(), source, metrics(), options.limits)
            .await
            .unwrap();
        let url = format!("http://{}", running.address);
        Self {
            url,
            pool,
            clock,
            running: Some(running),
            client: reqwest::Client::new(),
        }
    }

    /// The name of its database.
    pub fn database(&self) -> String {
        let options = self.pool.connect_options();
        options.get_database().unwrap().to_owned()
    }

    pub fn app(&self) -> &bitacora::app::App {
        &self.running.as_ref().unwrap().app
    }

    /// Waits until every read model shows the whole ledger.
    pub async fn settle(&self) {
        let head: i64 = sqlx::query_scalar("select coalesce(max(position), 0) from events")
            .fetch_one(&self.pool)
            .await
            .unwrap();
        let names: Vec<&str> = self.app().engine.names().collect();
        let settled = self
            .app()
            .engine
            .wait_for(&names, head, Duration::from_secs(30))
            .await
            .unwrap();
        assert!(
            settled,
            "the read models did not catch up; {:?}",
            self.app().engine.statuses().await
        );
    }

    pub async fn stop(mut self) {
        self.running.take().unwrap().stop().await;
    }

    /// The process dies where it stands.
    pub fn kill(mut self) {
        self.running.take().unwrap().kill();
    }

    // A provider's hand.

    /// A webhook of ElevenLabs, signed.
    pub fn elevenlabs(&self, body: impl Into<Vec<u8>>) -> RequestBuilder {
        let body = body.into();
        let signature = sign::elevenlabs(ELEVENLABS_SECRET, self.clock.now().timestamp(), &body);
        self.client
            .post(format!("{}/webhooks/elevenlabs/call", self.url))
            .header("content-type", "application/json")
            .header("ElevenLabs-Signature", signature)
            .body(body)
    }

    /// A webhook of Twilio, signed.
    pub fn twilio(&self, path: &str, form: impl Into<Vec<u8>>) -> RequestBuilder {
        let form = form.into();
        let signature = sign::twilio(TWILIO_AUTH_TOKEN, &format!("{PUBLIC_URL}{path}"), &form);
        self.client
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("X-Twilio-Signature", signature)
            .body(form)
    }

    /// A webhook of builderbot, with its token.
    pub fn builderbot(&self, body: impl Into<Vec<u8>>) -> RequestBuilder {
        self.client
            .post(format!(
                "{}/webhooks/builderbot/whatsapp?token={BUILDERBOT_TOKEN}",
                self.url
            ))
            .header("content-type", "application/json")
            .body(body.into())
    }

    // A caller's hand.

    pub fn get_as(&self, role: &str, path: &str) -> RequestBuilder {
        self.credential(self.client.get(format!("{}{path}", self.url)), role)
    }

    pub fn post_as(&self, role: &str, path: &str, body: &Value) -> RequestBuilder {
        self.credential(self.client.post(format!("{}{path}", self.url)), role)
            .json(body)
    }

    fn credential(&self, request: RequestBuilder, role: &str) -> RequestBuilder {
        match role {
            "nobody" => request,
            "service" => request.header("X-Service-Token", SERVICE_TOKEN),
            role => request.bearer_auth(self.token(role)),
        }
    }

    /// A login token for user 7 with this role.
    pub fn token(&self, role: &str) -> String {
        let now = self.clock.now().timestamp();
        let claims = json!({"sub": "7", "role": role, "iat": now, "exp": now + 3600});
        let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    }

    /// The answer to a GET as an auditor, which must be 200.
    pub async fn read(&self, path: &str) -> Value {
        let response = self.get_as("auditor", path).send().await.unwrap();
        let status = response.status();
        let body = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

/// The answer of a request that must be 200.
pub async fn ok(request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let status = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).unwrap_or(Value::String(body))
}

/// The status and body of a request that may fail.
pub async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response: Response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&body).unwrap_or(Value::String(body)),
    )
}

pub fn master_keys() -> MasterKeys {
    MasterKeys::new([MASTER_KEY])
}

/// What reads the ledger of a test.
pub fn opener() -> Opener {
    Opener::new(Some(master_keys()))
}

pub fn config() -> Config {
    let secrets = |token: &str, keys: &[&str]| {
        Credentials::new([token.to_owned()], keys.iter().map(|key| (*key).to_owned()))
    };
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        public_url: PUBLIC_URL.to_owned(),
        provider_secrets: Secrets {
            elevenlabs: secrets(ELEVENLABS_TOKEN, &[ELEVENLABS_SECRET]),
            builderbot: secrets(BUILDERBOT_TOKEN, &[]),
            twilio: secrets(TWILIO_TOKEN, &[TWILIO_AUTH_TOKEN]),
        },
        elevenlabs: elevenlabs(),
        text_mode: TextMode::Websocket,
        twilio: twilio(),
        builderbot: builderbot(),
        builderbot_reply: true,
        first_content_sid: None,
        default_agent_id: Some(sandbox::AGENT_COLLECTIONS.to_owned()),
        otp: OtpSettings::default(),
        // Nothing is sent, and nothing told of it on the ledger, but in the
        // tests of what we owe: they say how.
        effects: effects::Policy {
            lanes_max: 0,
            ..effects::Policy::default()
        },
        batch_poll: Duration::from_secs(10),
        reconcile_every: Duration::from_secs(300),
        reconcile_grace: Duration::from_secs(120),
        sse_timeout: Duration::from_secs(1800),
        timezone: "America/Bogota".parse().unwrap(),
        service_tokens: vec![SERVICE_TOKEN.to_owned()],
        jwt_secrets: vec![JWT_SECRET.to_owned()],
        // Sealed by the tests of the log themselves.
        log: LogKeys::default(),
        seal_every: Duration::from_secs(1),
        retention: Retention::NONE,
        master_keys: Some(master_keys()),
        seals: true,
        mask_phone_numbers: true,
        cors_allowed_origins: vec!["https://app.example.com".to_owned()],
        metrics_addr: None,
        trust_proxy: false,
        api: true,
        worker: true,
    }
}

/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Providers are given up soon.
fn policy() -> Policy {
    Policy {
        connect_timeout: Duration::from_millis(500),
        timeout: Duration::from_millis(500),
        pause_first: Duration::from_millis(1),
        ..Policy::default()
    }
}

fn elevenlabs() -> elevenlabs::client::Settings {
    elevenlabs::client::Settings {
        base_url: NOWHERE.parse().unwrap(),
        api_key: Some("a-key-for-tests".to_owned()),
        policy: policy(),
    }
}

/// The account and the numbers that the stand-in has.
fn twilio() -> twilio::client::Settings {
    let theirs = sandbox::Options::default();
    twilio::client::Settings {
        base_url: NOWHERE.parse().unwrap(),
        account_sid: Some(theirs.twilio_account_sid),
        auth_token: Some(TWILIO_AUTH_TOKEN.to_owned()),
        sms_from: Some(theirs.twilio_from_number),
        whatsapp_from: Some(theirs.twilio_whatsapp_from),
        status_callback: format!("{PUBLIC_URL}/webhooks/twilio/sms/status"),
        policy: policy(),
    }
}

/// The project that the stand-in has.
fn builderbot() -> builderbot::client::Settings {
    builderbot::client::Settings {
        base_url: NOWHERE.parse().unwrap(),
        api_key: Some("a-key-for-tests".to_owned()),
        project_id: Some(sandbox::Options::default().builderbot_project_id),
        policy: policy(),
    }
}

/// One recorder for the process: the metrics of all tests together.
fn metrics() -> PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS
        .get_or_init(|| telemetry::start_metrics().unwrap())
        .clone()
}

/// A worker that waits no longer than it must against the stand-in.
pub fn hurried() -> effects::Policy {
    let ms = Duration::from_millis;
    effects::Policy {
        lease: ms(1_500),
        poll: ms(50),
        send_within: ms(2_000),
        outcome_within: ms(200),
        arrives_within: ms(300),
        mirrored_within: ms(3_000),
        look_again: ms(50),
        timing: Timing {
            greeting: ms(250),
            silence: ms(2_000),
            settling: ms(20),
            ..Timing::default()
        },
        hurry: 50,
        ..effects::Policy::default()
    }
}

/// A stand-in of the providers that knows our secrets, and calls us by the
/// address that Twilio signs.
pub fn sandbox_options() -> sandbox::Options {
    sandbox::Options {
        elevenlabs_webhook_secret: ELEVENLABS_SECRET.to_owned(),
        twilio_auth_token: TWILIO_AUTH_TOKEN.to_owned(),
        builderbot_webhook_token: Some(BUILDERBOT_TOKEN.to_owned()),
        public_url: Some(PUBLIC_URL.to_owned()),
        ..sandbox::Options::default()
    }
}

/// A fixture with other words in it.
pub fn fixture_of(path: &str, swaps: &[(&str, &str)]) -> Vec<u8> {
    let text = String::from_utf8(super::fixture(path)).unwrap();
    let text = swaps
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to));
    text.into_bytes()
}
