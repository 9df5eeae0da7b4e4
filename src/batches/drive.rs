//! Drives a batch's open orders on: the next step follows from the ledger
//! alone, so that anybody may take it at any time, after any crash.
//!
//! | the order is | step |
//! |---|---|
//! | wanted, or failed and may be tried again | record an attempt, send, record the outcome |
//! | attempted, a while ago | whoever sent it is gone: record that it is uncertain |
//! | uncertain | look it up; found: adopt; surely not there: attempt again |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::batch::{Batch, Command, Error as Refusal, Order, Refused, Snapshot};
use futures_util::StreamExt;
use projections::batches;

use super::{Kind, lookup};
use crate::app::App;
use crate::ledger::{CommandError, events};
use crate::providers::http;

/// An attempt goes out this soon after it is on the ledger, or not at all: a
/// process that was held up must not send what another has taken over.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// For how long after its time-out an attempt is left to whoever made it.
const OUTCOME_WITHIN: Duration = Duration::from_secs(5);
/// For how long after that the provider may still carry an attempt out of which
/// it gave no answer. What is not there by then is sent again.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);
/// When to look again at what somebody else is doing.
const LOOK_SOON: Duration = Duration::from_millis(500);
/// When to look again for an attempt that is not there and may still arrive.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Batches that are read at once.
pub(super) const PAGE: i64 = 100;
/// Requests to the provider at one time, of one kind of background work.
pub(super) const AT_ONCE: usize = 4;

/// Nothing is to be done before this has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause(pub Duration);

/// Takes every step that can be taken now. `None` once no order is open.
///
/// # Errors
/// When the ledger does not answer. What was done is on it, and the next who
/// drives goes on there.
pub async fn drive(app: &App, batch_id: &str) -> anyhow::Result<Option<Pause>> {
    let driver = Driver {
        app,
        id: batch_id,
        policy: *app.elevenlabs.policy(),
    };
    for kind in Kind::ALL {
        if let Some(pause) = driver.carry_out(kind).await? {
            return Ok(Some(pause));
        }
    }
    Ok(None)
}

/// Drives until no order is open, for about `wait` at most.
pub(super) async fn until_settled(
    app: Arc<App>,
    batch_id: String,
    wait: Duration,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + wait;
    while let Some(Pause(pause)) = drive(&app, &batch_id).await? {
        let now = tokio::time::Instant::now();
        if now + pause >= deadline {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = app.stopping.cancelled() => break,
        }
    }
    Ok(())
}

/// Drives every batch on that has an open order.
///
/// # Errors
/// When the read models do not answer.
pub async fn drive_open_orders(app: &App) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let mut conn = app.pool.acquire().await?;
        let page = batches::open_orders(&mut conn, after.as_ref(), PAGE).await?;
        drop(conn);
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.cursor());
        let work = futures_util::stream::iter(page).map(|batch| async move {
            if let Err(error) = drive(app, &batch.id).await {
                let error = format!("{error:#}");
                tracing::warn!(batch_id = batch.id, error, "could not drive an order on");
            }
        });
        work.buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

struct Driver<'a> {
    app: &'a App,
    id: &'a str,
    policy: http::Policy,
}

/// What one attempt came to.
enum Sent {
    /// It is on the ledger what became of it.
    Settled,
    /// It failed, may be tried again, and not before this.
    Failed(Duration),
    /// It may have arrived.
    Uncertain {
        /// The provider broke, and said so: it does no more for this attempt.
        answered: bool,
    },
}

impl Driver<'_> {
    /// Takes every step of one kind of order.
    async fn carry_out(&self, kind: Kind) -> anyhow::Result<Option<Pause>> {
        // The attempt that the provider broke at, and said so.
        let mut answered = None;
        loop {
            let batch: Batch = self.app.store.load(self.id).await?;
            let order = kind.order(&batch);
            let looked_up = match order {
                Order::None | Order::Done => return Ok(None),
                Order::Failed(refused) if !refused.retryable => return Ok(None),
                Order::Wanted | Order::Failed(_) => None,
                Order::Attempted(attempt) => {
                    let age = self.age(kind).await?;
                    let left = self.is_alone_for().saturating_sub(age);
                    if !left.is_zero() {
                        return Ok(Some(Pause(left.min(LOOK_SOON))));
                    }
                    let reason = "whoever sent it did not say what became of it";
                    self.uncertain(kind, *attempt, reason).await?;
                    continue;
                }
                Order::Uncertain(attempt) => {
                    match lookup::find(self.app, kind, self.id, &batch).await {
                        Ok(Some(found)) => {
                            self.report(kind.done(true, found)).await?;
                            continue;
                        }
                        Ok(None) => {}
                        Err(error) => {
                            tracing::warn!(batch_id = self.id, %error, "could not look an order up");
                            return Ok(Some(Pause(LOOK_AGAIN)));
                        }
                    }
                    // To stop what is stopped harms nobody.
                    let may_arrive = kind != Kind::Cancel
                        && answered != Some(*attempt)
                        && self.age(kind).await? < self.is_alone_for() + ARRIVES_WITHIN;
                    if may_arrive {
                        return Ok(Some(Pause(LOOK_AGAIN)));
                    }
                    if *attempt >= self.policy.attempts_max {
                        self.give_up(kind, *attempt).await?;
                        return Ok(None);
                    }
                    Some(*attempt)
                }
            };
            let attempt = order.attempt() + 1;
            if !self.may_send(kind, looked_up).await? {
                // Somebody else is at it.
                return Ok(Some(Pause(LOOK_SOON)));
            }
            match self.send(kind, attempt, &batch).await? {
                Sent::Settled => {}
                Sent::Failed(pause) => tokio::time::sleep(pause).await,
                Sent::Uncertain { answered: true } => {
                    answered = Some(attempt);
                    tokio::time::sleep(self.pause(attempt)).await;
                }
                Sent::Uncertain { answered: false } => {}
            }
        }
    }

    /// Puts an attempt on the ledger. Whoever gets `true` may send, alone.
    async fn may_send(&self, kind: Kind, looked_up: Option<u32>) -> anyhow::Result<bool> {
        let command = || match kind {
            Kind::Submit => Command::AttemptSubmit { looked_up },
            Kind::Cancel => Command::AttemptCancel,
            Kind::Retry => Command::AttemptRetry { looked_up },
        };
        let began = tokio::time::Instant::now();
        match self.execute(command).await {
            Ok(()) if began.elapsed() < SEND_WITHIN => Ok(true),
            Ok(()) => {
                tracing::warn!(
                    batch_id = self.id,
                    "an attempt took too long to record and is not sent"
                );
                Ok(false)
            }
            Err(CommandError::Refused(refusal)) => {
                tracing::debug!(batch_id = self.id, %refusal, "not sending");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends an order and puts on the ledger what became of it.
    async fn send(&self, kind: Kind, attempt: u32, batch: &Batch) -> anyhow::Result<Sent> {
        let error = match self.ask(kind, batch).await {
            Ok(answer) => {
                self.report(kind.done(false, answer)).await?;
                return Ok(Sent::Settled);
            }
            Err(error) => error,
        };
        tracing::warn!(batch_id = self.id, ?kind, attempt, %error, "an order failed");
        if error.may_have_happened() {
            self.uncertain(kind, attempt, &error.to_string()).await?;
            let answered = error.status().is_some();
            return Ok(Sent::Uncertain { answered });
        }
        // Already stopped, perhaps by an attempt of which no answer came.
        if kind == Kind::Cancel
            && error.refusal().is_some()
            && let Ok(Some(stopped)) = lookup::find(self.app, kind, self.id, batch).await
        {
            self.report(kind.done(true, stopped)).await?;
            return Ok(Sent::Settled);
        }
        let pause = match &error {
            http::Error::RateLimited { retry_after, .. } => {
                self.pause(attempt).max(retry_after.unwrap_or_default())
            }
            _ => self.pause(attempt),
        };
        let refused = Refused {
            attempt,
            status: error.status(),
            message: words(&error),
            retryable: error.is_passing()
                && attempt < self.policy.attempts_max
                && pause <= self.policy.pause_max,
        };
        let retryable = refused.retryable;
        self.failed(kind, refused).await?;
        Ok(if retryable {
            Sent::Failed(pause)
        } else {
            Sent::Settled
        })
    }

    async fn ask(&self, kind: Kind, batch: &Batch) -> Result<Snapshot, http::Error> {
        let client = &self.app.elevenlabs;
        match (kind, batch.requested(), batch.provider_batch_id()) {
            (Kind::Submit, Some(order), _) => client.submit_batch(order).await,
            (Kind::Cancel, _, Some(id)) => client.cancel_batch(id).await,
            (Kind::Retry, _, Some(id)) => client.retry_batch(id).await,
            // The aggregate lets neither be attempted.
            _ => Err(http::Error::NotSent("the batch has no id at the provider")),
        }
    }

    async fn uncertain(&self, kind: Kind, attempt: u32, reason: &str) -> anyhow::Result<()> {
        self.report(|| {
            let reason = reason.to_owned();
            match kind {
                Kind::Submit => Command::ReportSubmitUncertain { attempt, reason },
                Kind::Cancel => Command::ReportCancelUncertain { attempt, reason },
                Kind::Retry => Command::ReportRetryUncertain { attempt, reason },
            }
        })
        .await
    }

    async fn failed(&self, kind: Kind, refused: Refused) -> anyhow::Result<()> {
        self.report(|| {
            let refused = refused.clone();
            match kind {
                Kind::Submit => Command::ReportSubmitFailed(refused),
                Kind::Cancel => Command::ReportCancelFailed(refused),
                Kind::Retry => Command::ReportRetryFailed(refused),
            }
        })
        .await
    }

    /// The last attempt is surely not at the provider, and was one of too many.
    async fn give_up(&self, kind: Kind, attempt: u32) -> anyhow::Result<()> {
        let names = kind.events();
        let [_, uncertain, _] = names.rest;
        let last = events::last_of(
            &self.app.pool,
            &self.app.opener,
            "batch",
            self.id,
            &[uncertain],
        )
        .await?;
        let reason = last.and_then(|event| Some(event.payload["reason"].as_str()?.to_owned()));
        let refused = Refused {
            attempt,
            status: None,
            message: reason.unwrap_or_default(),
            retryable: false,
        };
        self.failed(kind, refused).await
    }

    /// Puts on the ledger what became of an attempt. What is known there
    /// already, or known better, is no error.
    async fn report(&self, command: impl Fn() -> Command) -> anyhow::Result<()> {
        match self.execute(command).await {
            Ok(()) => Ok(()),
            Err(CommandError::Refused(refusal @ Refusal::SubmittedAsAnother { .. })) => {
                tracing::error!(batch_id = self.id, %refusal, "an order is at the provider twice");
                Ok(())
            }
            Err(CommandError::Refused(refusal)) => {
                tracing::warn!(batch_id = self.id, %refusal, "the outcome of an attempt came too late");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn execute(&self, command: impl Fn() -> Command) -> Result<(), CommandError<Refusal>> {
        // By our own clock: what is waited for is counted by it too.
        let at = self.app.source.now().to_rfc3339();
        let metadata = HashMap::from([
            ("actor".to_owned(), "worker".to_owned()),
            (AT.to_owned(), at),
        ]);
        let store = &self.app.store;
        store.execute::<Batch>(self.id, command, metadata).await?;
        Ok(())
    }

    /// How long ago the last attempt was put on the ledger.
    async fn age(&self, kind: Kind) -> anyhow::Result<Duration> {
        let names = [kind.events().attempted];
        let last =
            events::last_of(&self.app.pool, &self.app.opener, "batch", self.id, &names).await?;
        let at = last.and_then(|event| {
            let at = event.metadata[AT].as_str()?;
            Some(DateTime::parse_from_rfc3339(at).ok()?.to_utc())
        });
        let age = self.app.source.now() - at.unwrap_or(DateTime::<Utc>::MIN_UTC);
        Ok(age.to_std().unwrap_or_default())
    }

    /// How long an attempt is left to whoever made it.
    fn is_alone_for(&self) -> Duration {
        SEND_WITHIN + self.policy.one_request() + OUTCOME_WITHIN
    }

    /// The pause after an attempt, doubled after each.
    fn pause(&self, attempt: u32) -> Duration {
        let factor = 1 << attempt.saturating_sub(1).min(8);
        (self.policy.pause_first * factor).min(self.policy.pause_max)
    }
}

/// When a command was given, by our clock, in the metadata of its events.
const AT: &str = "at";

impl Kind {
    /// The command that reports an order done.
    fn done(self, adopted: bool, batch: Snapshot) -> impl Fn() -> Command {
        move || {
            let batch = batch.clone();
            match self {
                Self::Submit => Command::ReportSubmitted { adopted, batch },
                Self::Cancel => Command::ReportCancelled { batch },
                Self::Retry => Command::ReportRetried { batch },
            }
        }
    }
}

/// The provider's words, or why there are none.
fn words(error: &http::Error) -> String {
    match error.refusal() {
        Some(refusal) if !refusal.message.is_empty() => refusal.message.clone(),
        _ => error.to_string(),
    }
}
