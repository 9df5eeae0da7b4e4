//! What makes the world go: the loop that follows the clock, and the hand that moves it.
//!
//! Locks are never held over an `await`: a step happens under the lock, what it has to send is sent
//! without it, and what became of that is written down under the lock again.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    clock::Clock,
    http::Answer,
    webhooks::{self, Parcel},
    world::{Step, World},
};

/// How long a provider waits for the service's answer to a webhook. Twilio's limit; ElevenLabs
/// publishes none.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// How many webhooks are under way at once.
const WEBHOOKS_AT_ONCE: usize = 32;

/// How far ahead "until nothing is left to happen" looks.
const SETTLE_HORIZON_MS: u64 = 24 * 60 * 60 * 1000;

/// Size of the pieces of a chunked body.
const CHUNK_BYTES: usize = 16 * 1024;

/// What the server, the driver and the handle share.
pub(crate) struct Shared {
    world: Mutex<World>,
    pub(crate) clock: Arc<Clock>,
    /// Told when something new may be due.
    pub(crate) wake: Notify,
    stopped: watch::Sender<bool>,
    in_flight: watch::Sender<usize>,
    at_once: Semaphore,
    /// What waits for an earlier parcel about the same entity; a lane exists while one is under way.
    lanes: Mutex<HashMap<String, VecDeque<Parcel>>>,
    client: reqwest::Client,
}

impl Shared {
    pub(crate) fn new(world: World) -> Result<Arc<Self>, reqwest::Error> {
        Ok(Arc::new(Self {
            clock: world.clock.clone(),
            world: Mutex::new(world),
            wake: Notify::new(),
            stopped: watch::Sender::new(false),
            in_flight: watch::Sender::new(0),
            at_once: Semaphore::new(WEBHOOKS_AT_ONCE),
            lanes: Mutex::default(),
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(WEBHOOK_TIMEOUT)
                .build()?,
        }))
    }

    /// The world, to oneself. A panic elsewhere does not end it: tests want to see what is left.
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// Returns when the sandbox stops.
    pub(crate) async fn stopped(&self) {
        // An error means that the sender is gone, which is a stop too.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Never answers: the client goes away, or the sandbox does.
    pub(crate) async fn hang(&self) -> Answer {
        self.stopped().await;
        Answer::empty(503)
    }

    /// Follows the clock until the sandbox stops.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let due = self.lock().next_due();
            let next = async {
                match due {
                    Some(due) => self.clock.wait_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stopped() => return,
                () = self.wake.notified() => continue,
                () = next => {}
            }
            while let Some(parcel) = self.next_until(self.clock.now_ms()) {
                if let Some(parcel) = parcel {
                    self.dispatch(parcel);
                }
            }
        }
    }

    /// Moves the clock on, and lets everything happen that is due by then, in order.
    pub(crate) async fn advance(&self, by_ms: u64) -> usize {
        let until = self.clock.now_ms() + by_ms;
        let steps = self.happen_until(until).await;
        self.clock.jump_to(until);
        steps
    }

    /// Lets everything happen until nothing is left to happen (within a day of the world's time).
    pub(crate) async fn settle(&self) -> usize {
        let horizon = self.clock.now_ms() + SETTLE_HORIZON_MS;
        let mut in_flight = self.in_flight.subscribe();
        let mut steps = 0;
        loop {
            steps += self.happen_until(horizon).await;
            if *in_flight.borrow_and_update() == 0 {
                return steps;
            }
            // What the loop in the background has sent may lead to more.
            let _ = in_flight.changed().await;
        }
    }

    /// Sends every planned webhook now, and lets nothing else happen.
    pub(crate) async fn fire_webhooks(&self) -> usize {
        webhooks::resume(&mut self.lock());
        let steps = self.lock().take_deliveries();
        let count = steps.len();
        for step in steps {
            self.happen(step).await;
        }
        count
    }

    async fn happen_until(&self, until_ms: u64) -> usize {
        let mut steps = 0;
        loop {
            let next = self.lock().take_next(until_ms);
            let Some((due, step)) = next else {
                return steps;
            };
            self.clock.jump_to(due);
            self.happen(step).await;
            steps += 1;
        }
    }

    async fn happen(&self, step: Step) {
        let parcel = self.lock().happen(step);
        if let Some(parcel) = parcel {
            self.in_flight.send_modify(|n| *n += 1);
            self.send(parcel).await;
        }
    }

    /// Sends a parcel in the background, after earlier ones about the same entity.
    fn dispatch(self: &Arc<Self>, parcel: Parcel) {
        self.in_flight.send_modify(|n| *n += 1);
        let shared = self.clone();
        if !parcel.in_order {
            tokio::spawn(async move { shared.send(parcel).await });
            return;
        }
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get_mut(&parcel.entity) {
            lane.push_back(parcel);
        } else {
            lanes.insert(parcel.entity.clone(), VecDeque::new());
            tokio::spawn(shared.drain(parcel));
        }
    }

    /// Sends the parcels of one lane, one after the other.
    async fn drain(self: Arc<Self>, first: Parcel) {
        let entity = first.entity.clone();
        let mut next = Some(first);
        while let Some(parcel) = next {
            self.send(parcel).await;
            let mut lanes = self.lanes();
            next = lanes.get_mut(&entity).and_then(VecDeque::pop_front);
            if next.is_none() {
                lanes.remove(&entity);
            }
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Parcel>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next step due by `until_ms`, happened: `Some(None)` if it had nothing to send.
    fn next_until(&self, until_ms: u64) -> Option<Option<Parcel>> {
        let mut world = self.lock();
        let (_, step) = world.take_next(until_ms)?;
        Some(world.happen(step))
    }

    async fn send(&self, parcel: Parcel) {
        let permit = self.at_once.acquire().await;
        let result = self.request(&parcel).await;
        drop(permit);
        if let Err(error) = result {
            tracing::debug!(webhook = parcel.webhook, error, "a webhook got no answer");
        }
        webhooks::handed_over(&mut self.lock(), &parcel, result);
        self.in_flight.send_modify(|n| *n -= 1);
        self.wake.notify_one();
    }

    async fn request(&self, parcel: &Parcel) -> Result<u16, &'static str> {
        let mut request = self.client.post(&parcel.url);
        for (name, value) in &parcel.headers {
            request = request.header(*name, value);
        }
        let body = if parcel.chunked {
            in_chunks(&parcel.body)
        } else {
            parcel.body.clone().into()
        };
        let response = request.body(body).send().await.map_err(|error| {
            if error.is_connect() {
                "connect"
            } else if error.is_timeout() {
                "timeout"
            } else {
                "other"
            }
        })?;
        let status = response.status().as_u16();
        // Read to the end, so that the connection can be used again.
        let _ = response.bytes().await;
        Ok(status)
    }
}

fn in_chunks(body: &Bytes) -> reqwest::Body {
    let pieces: Vec<Result<Bytes, Infallible>> = (0..body.len())
        .step_by(CHUNK_BYTES)
        .map(|from| Ok(body.slice(from..body.len().min(from + CHUNK_BYTES))))
        .collect();
    reqwest::Body::wrap_stream(stream::iter(pieces))
}
