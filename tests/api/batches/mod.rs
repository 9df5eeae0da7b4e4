//! Batches against the stand-in of the providers: contract, sections 3 and 5.

mod campaign;
mod orders;
mod status;

use std::time::Duration;

use sandbox::{
    AGENT_SURVEY as AGENT, CallOutcome, Control, Fault, PHONE_TWILIO as LINE, Rates, Sandbox,
    Scripted,
};
use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::app::{BEGINNING_UNIX, ELEVENLABS_SECRET, Options, answer, ok};

const SUBMIT: &str = "/api/batch-calling/submit";

/// The service and the stand-in that it calls.
struct Pair {
    app: TestApp,
    sandbox: Sandbox,
}

impl Pair {
    async fn start(rates: Rates) -> Self {
        Self::with(rates, |options| options).await
    }

    async fn with(rates: Rates, change: impl FnOnce(Options) -> Options) -> Self {
        Self::of(rates, |world| world, change).await
    }

    async fn of(
        rates: Rates,
        world: impl FnOnce(sandbox::Options) -> sandbox::Options,
        change: impl FnOnce(Options) -> Options,
    ) -> Self {
        let options = sandbox::Options {
            manual_clock: true,
            clock_start_unix: Some(BEGINNING_UNIX as u64),
            elevenlabs_webhook_secret: ELEVENLABS_SECRET.to_owned(),
            rates,
            ..Default::default()
        };
        let sandbox = Sandbox::start(world(options)).await.unwrap();
        let options = Options {
            providers_url: Some(sandbox.url()),
            ..Options::default()
        };
        let app = TestApp::with(change(options)).await;
        let pair = Self { app, sandbox };
        pair.control(Control {
            webhook_base: Some(pair.app.url.clone()),
            ..Control::default()
        })
        .await;
        pair
    }

    async fn control(&self, control: Control) {
        self.sandbox.control(control).await.unwrap();
    }

    /// The next requests of an operation go wrong.
    async fn script(&self, operation: &str, times: u32, fault: Fault) {
        let operation = operation.to_owned();
        let script = vec![Scripted {
            operation,
            times,
            fault,
        }];
        self.control(Control {
            script,
            ..Control::default()
        })
        .await;
    }

    /// How the calls to some numbers turn out.
    async fn fates(&self, fates: &[(&str, CallOutcome)]) {
        let calls = fates
            .iter()
            .map(|(number, outcome)| ((*number).to_owned(), Some(*outcome)));
        self.control(Control {
            calls: calls.collect(),
            ..Control::default()
        })
        .await;
    }

    /// Time passes on both sides.
    async fn pass(&self, secs: u64) {
        self.app
            .clock
            .advance(chrono::Duration::seconds(i64::try_from(secs).unwrap()));
        self.sandbox.advance(Duration::from_secs(secs)).await;
    }

    /// Every call comes to its end, and every webhook that comes has come.
    async fn call_everybody(&self) {
        self.sandbox.settle().await;
        let ahead = self.sandbox.truth().now_unix_ms / 1000;
        let behind = self.app.clock.now().timestamp();
        let secs = i64::try_from(ahead).unwrap() - behind;
        self.app
            .clock
            .advance(chrono::Duration::seconds(secs.max(0)));
        self.app.settle().await;
    }

    /// The monitor looks at the provider, once.
    async fn look(&self) {
        let mut monitor = bitacora::batches::Monitor::default();
        monitor.run_once(self.app.app()).await.unwrap();
        self.app.settle().await;
    }

    /// Submits and gives the provider's id.
    async fn submit(&self, name: &str, numbers: &[&str]) -> String {
        let request = self.app.post_as("service", SUBMIT, &order(name, numbers));
        let answer = ok(request).await;
        answer["data"]["id"].as_str().unwrap().to_owned()
    }

    async fn status(&self, id: &str) -> Value {
        let path = format!("/api/batch-calls/{id}/status");
        let answer = ok(self.app.get_as("service", &path)).await;
        assert_eq!(
            answer["message"],
            "Estado del batch call obtenido exitosamente"
        );
        answer["data"].clone()
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        answer(self.app.post_as("supervisor", path, &json!({}))).await
    }
}

/// A world in which everybody answers and every webhook comes.
fn kind() -> Rates {
    Rates {
        failed: 0.0,
        voicemail: 0.0,
        never: 0.0,
        twice: 0.0,
        late: 0.0,
        out_of_order: 0.0,
        refused: 0.0,
        hang: 0.0,
        ..Rates::default()
    }
}

fn order(name: &str, numbers: &[&str]) -> Value {
    let recipients: Vec<_> = numbers
        .iter()
        .map(|number| json!({"phone_number": number, "dynamic_variables": {"nombre": "Juan"}}))
        .collect();
    json!({
        "call_name": name,
        "agent_id": AGENT,
        "agent_phone_number_id": LINE,
        "recipients": recipients,
        "scheduled_time_unix": null,
        "phone_provider": "twilio",
    })
}
