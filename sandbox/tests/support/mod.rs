//! The other side of the sandbox: a service that takes webhooks, and asks for things.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "this is test code, although no test itself"
)]

use std::sync::{Arc, Mutex};

use bitacora_sandbox::{Control, Options, Rates, Sandbox, Truth};
use poem::{
    Request, Response, Server,
    endpoint::make,
    http::StatusCode,
    listener::{Acceptor, Listener, TcpListener},
};
use serde_json::{Value, json};

/// The first moment of every test.
pub const START_UNIX: u64 = 1_761_694_070;

pub const ELEVENLABS: &str = "/webhooks/elevenlabs/call";
pub const STATUS: &str = "/webhooks/twilio/sms/status";
pub const INCOMING: &str = "/webhook/twilio/incoming";

/// A webhook, as the service got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub path: String,
    pub headers: poem::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    pub fn field(&self, name: &str) -> Option<String> {
        let form = self.form();
        let found = form.into_iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A sandbox with a manual clock, and a service for it to call.
pub struct Pair {
    pub sandbox: Sandbox,
    pub service_url: String,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<Vec<u16>>>,
    http: reqwest::Client,
}

/// Options for a test: a manual clock that starts at [`START_UNIX`].
pub fn options(seed: u64, rates: Rates) -> Options {
    Options {
        seed,
        rates,
        manual_clock: true,
        clock_start_unix: Some(START_UNIX),
        ..Options::default()
    }
}

impl Pair {
    pub async fn start(mut options: Options) -> Self {
        let got = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let service_url = service(got.clone(), answers.clone()).await;
        options.webhook_base = service_url.clone();
        let sandbox = Sandbox::start(options).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            sandbox,
            service_url,
            got,
            answers,
            http,
        }
    }

    pub async fn ideal() -> Self {
        Self::start(options(1, Rates::ideal())).await
    }

    /// The HTTP statuses that the service answers with next; then 200.
    pub fn will_answer(&self, statuses: &[u16]) {
        let mut answers = self.answers.lock().unwrap();
        answers.extend(statuses.iter().rev());
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub fn got_at(&self, path: &str) -> Vec<Got> {
        let all = self.got();
        all.into_iter().filter(|got| got.path == path).collect()
    }

    pub fn truth(&self) -> Truth {
        self.sandbox.truth()
    }

    pub async fn control(&self, control: Value) {
        let control: Control = serde_json::from_value(control).unwrap();
        self.sandbox.control(control).await.unwrap();
    }

    /// An ElevenLabs request: status and body.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = method.parse().unwrap();
        let url = format!("{}{path}", self.sandbox.url());
        let request = self.http.request(method, url).header("xi-api-key", "k");
        let response = request.json(&body).send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Submits a batch; returns its id.
    pub async fn submit(&self, name: &str, numbers: &[String]) -> String {
        let (status, body) = self
            .ask(
                "POST",
                "/v1/convai/batch-calling/submit",
                batch(name, numbers),
            )
            .await;
        assert_eq!(status, 200, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    /// A Twilio message: status and body.
    pub async fn message(&self, fields: &[(&str, &str)]) -> (u16, Value) {
        let options = Options::default();
        let sid = options.twilio_account_sid;
        let url = format!(
            "{}/2010-04-01/Accounts/{sid}/Messages.json",
            self.sandbox.url()
        );
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self
            .http
            .post(url)
            .basic_auth(sid, Some(options.twilio_auth_token));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(form).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

/// A submit's body.
pub fn batch(name: &str, numbers: &[String]) -> Value {
    let person = |number: &String| {
        json!({
            "phone_number": number,
            "conversation_initiation_client_data": {
                "dynamic_variables": {"client_name": "Ana García", "client_id": 42}
            },
        })
    };
    json!({
        "call_name": name,
        "agent_id": bitacora_sandbox::AGENT_COLLECTIONS,
        "agent_phone_number_id": bitacora_sandbox::PHONE_TWILIO,
        "recipients": numbers.iter().map(person).collect::<Vec<_>>(),
    })
}

/// So many telephone numbers.
pub fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("+57300{n:07}")).collect()
}

async fn service(got: Arc<Mutex<Vec<Got>>>, answers: Arc<Mutex<Vec<u16>>>) -> String {
    let acceptor = TcpListener::bind("127.0.0.1:0")
        .into_acceptor()
        .await
        .unwrap();
    let local = acceptor.local_addr();
    let addr = local[0].as_socket_addr().copied().unwrap();
    let app = make(move |request: Request| {
        let (got, answers) = (got.clone(), answers.clone());
        async move {
            let path = request.uri().path().to_owned();
            let (parts, body) = request.into_parts();
            let body = body.into_vec().await.unwrap();
            let headers = parts.headers;
            got.lock().unwrap().push(Got {
                path,
                headers,
                body,
            });
            let status = answers.lock().unwrap().pop().unwrap_or(200);
            let status = StatusCode::from_u16(status).unwrap();
            Ok::<_, poem::Error>(Response::builder().status(status).finish())
        }
    });
    tokio::spawn(Server::new_with_acceptor(acceptor).run(app));
    format!("http://{addr}")
}
