//! What we owe the outside, settled against the stand-in of the providers:
//! contract, sections 6 and 7; DESIGN, decision 9.

mod burst;
mod codes;
mod conversations;
mod refusals;
mod uncertain;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bitacora::config::Config;
use sandbox::{Channel, Control, Fault, Inbound, MessageTruth, Rates, Sandbox, Scripted};
use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::app::{Clock, Options, answer, hurried, ok};
use crate::harness::postgres::fresh_database;
use crate::harness::read_models::assert_equal_a_rebuild;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(240);

/// How fast the stand-in's world goes.
const SPEED: f64 = 500.0;

/// The service, workers that may be killed, and the stand-in of the providers.
/// Time passes: the providers' a lot faster than ours.
struct World {
    api: TestApp,
    workers: Vec<TestApp>,
    sandbox: Sandbox,
    database_url: String,
    seed: u64,
}

impl World {
    /// With one worker.
    async fn start(rates: Rates, seed: u64) -> Self {
        Self::with(rates, seed, |_| {}).await
    }

    async fn with(rates: Rates, seed: u64, world: impl FnOnce(&mut sandbox::Options)) -> Self {
        let mut options = sandbox::Options {
            speed: SPEED,
            seed,
            rates,
            ..crate::harness::app::sandbox_options()
        };
        world(&mut options);
        let sandbox = Sandbox::start(options).await.unwrap();
        let database_url = fresh_database().await;
        let api = TestApp::with(Options {
            database_url: Some(database_url.clone()),
            providers_url: Some(sandbox.url()),
            clock: Clock::Runs,
            config: |config| config.worker = false,
            seed: seed << 8,
            ..Options::default()
        })
        .await;
        let webhook_base = Some(api.url.clone());
        let control = Control {
            webhook_base,
            public_url: Some(crate::harness::app::PUBLIC_URL.to_owned()),
            ..Control::default()
        };
        sandbox.control(control).await.unwrap();
        let mut world = Self {
            api,
            workers: vec![],
            sandbox,
            database_url,
            seed,
        };
        world.add_worker().await;
        world
    }

    async fn add_worker(&mut self) {
        self.add_worker_with(|config| {
            config.api = false;
            config.effects = hurried();
            patient(config);
        })
        .await;
    }

    async fn add_worker_with(&mut self, config: fn(&mut Config)) {
        self.seed += 1;
        let worker = TestApp::with(Options {
            database_url: Some(self.database_url.clone()),
            providers_url: Some(self.sandbox.url()),
            clock: Clock::Runs,
            config,
            seed: self.seed,
            ..Options::default()
        });
        self.workers.push(worker.await);
    }

    /// One worker dies where it stands, and another begins.
    async fn kill_a_worker(&mut self) {
        let worker = self.workers.remove(0);
        worker.kill();
        self.add_worker().await;
    }

    async fn control(&self, control: Control) {
        self.sandbox.control(control).await.unwrap();
    }

    /// The next requests of an operation go wrong.
    async fn script(&self, operation: &str, times: u32, fault: Fault) {
        let script = vec![Scripted {
            operation: operation.to_owned(),
            times,
            fault,
        }];
        self.control(Control {
            script,
            ..Control::default()
        })
        .await;
    }

    /// People write to us.
    async fn hear(&self, letters: impl IntoIterator<Item = (Channel, String, String)>) {
        let inbound = letters.into_iter().map(|(channel, from, body)| Inbound {
            channel,
            from,
            body,
            ..Inbound::default()
        });
        self.control(Control {
            inbound: inbound.collect(),
            ..Control::default()
        })
        .await;
    }

    async fn hears(&self, from: &str, body: &str) {
        let letter = (Channel::Whatsapp, from.to_owned(), body.to_owned());
        self.hear([letter]).await;
    }

    /// A call with this recipient goes on by WhatsApp.
    async fn completes(&self, recipient: &str, phone: &str) -> (u16, Value) {
        let body = json!({
            "batch_id": "btcal_1",
            "agent_id": sandbox::AGENT_SURVEY,
            "recipient": {"id": recipient, "phone_number": phone, "status": "completed"},
            "call_metadata": {"client_name": "Ana García"},
        });
        answer(self.api.post_as("service", "/api/call-completed", &body)).await
    }

    /// Waits until a count is what it should be; nothing comes by itself
    /// faster than it is looked for.
    async fn until(&self, what: &str, sql: &str, wanted: i64) {
        let began = Instant::now();
        loop {
            let count = self.api.count(sql).await;
            if count == wanted {
                return;
            }
            if began.elapsed() > PATIENCE {
                panic!("{what}: {count} and not {wanted}\n{}", self.queue().await);
            }
            self.tick().await;
        }
    }

    /// Waits for the next thing that any worker folds, or for a moment.
    async fn tick(&self) {
        match self.workers.first() {
            Some(worker) => {
                let mut moved = worker.app().engine.moved();
                let _ = tokio::time::timeout(Duration::from_millis(100), moved.changed()).await;
            }
            None => tokio::task::yield_now().await,
        }
    }

    /// Waits until nothing is owed any more and the read models show it all.
    async fn until_settled(&self) {
        let head = "select coalesce(max(position), 0) from events";
        loop {
            // What is not folded yet is not owed yet either.
            let before = self.api.count(head).await;
            self.workers[0].settle().await;
            let open = "select count(*) from effects
                        where state in ('waiting', 'attempted', 'uncertain', 'bounced')";
            self.until("effects are open", open, 0).await;
            if self.api.count(head).await == before {
                return;
            }
        }
    }

    /// What is open, for a test that fails.
    async fn queue(&self) -> String {
        let sql = "select coalesce(string_agg(concat_ws(' ', id, state, attempts, due_at, error_code, left(error_message, 60)), chr(10)), '')
                   from (select * from effects where state <> 'done' order by ord, part limit 20) as open";
        sqlx::query_scalar(sql)
            .fetch_one(&self.api.pool)
            .await
            .unwrap()
    }

    /// What we sent to each number, in the providers' order.
    fn sent(&self) -> BTreeMap<String, Vec<MessageTruth>> {
        let mut sent: BTreeMap<String, Vec<MessageTruth>> = BTreeMap::new();
        for message in self.sandbox.truth().messages {
            if message.direction == "outbound" {
                let number = message.to.trim_start_matches("whatsapp:");
                let number = format!("+{}", number.trim_start_matches('+'));
                sent.entry(number).or_default().push(message);
            }
        }
        sent
    }

    fn sent_to(&self, phone: &str) -> Vec<String> {
        let sent = self.sent();
        let messages = sent.get(phone).map(Vec::as_slice).unwrap_or_default();
        messages
            .iter()
            .map(|message| message.body.clone())
            .collect()
    }

    async fn conversation(&self, phone: &str) -> Value {
        let path = format!("/api/conversations/{phone}");
        ok(self.api.get_as("service", &path)).await["conversation"].clone()
    }

    async fn stop(self) {
        for worker in self.workers {
            worker.stop().await;
        }
        self.sandbox.stop().await;
        self.api.stop().await;
    }

    /// Stops everything, and folds the whole ledger anew: the rows are the same.
    async fn stop_and_compare(mut self) {
        for worker in std::mem::take(&mut self.workers) {
            worker.stop().await;
        }
        self.sandbox.stop().await;
        // What it sent last may still be on its way into the ledger.
        self.api.stop().await;
        let pool = bitacora::app::connect(&self.database_url, 4).await.unwrap();
        assert_equal_a_rebuild(&pool).await;
        pool.close().await;
    }
}

/// Nothing goes wrong unless a test says so, and nobody writes by themselves.
fn calm() -> Rates {
    Rates {
        phone_answers: 0.0,
        ..Rates::ideal()
    }
}

/// Machines that run tests are busy: what is only slow must not count as lost.
fn patient(config: &mut Config) {
    let timeout = Duration::from_millis(1_500);
    config.twilio.policy.timeout = timeout;
    config.builderbot.policy.timeout = timeout;
    config.elevenlabs.policy.timeout = timeout;
}
