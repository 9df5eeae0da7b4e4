//! Batches of calls, from an order to the provider's answer and beyond.
//!
//! There is no queue beside the ledger: an order is on it before anything is
//! sent, and the batch's own events say what is left to do. Whoever comes by,
//! the request that gave the order or a worker after a crash, drives it on; see
//! [`drive`]. An order that may have arrived is looked up before it is sent
//! again; see `lookup`.
//!
//! Invariants: every attempt is on the ledger before it goes out; no
//! transaction is open while the provider is asked; an order that was answered
//! with an error to whoever gave it is not carried out afterwards, unless the
//! answer says that it is still under way.

mod drive;
mod live;
mod lookup;
mod monitor;
mod reconcile;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::batch::{self, Batch, Command, Order, Refused, Requested, Snapshot};

pub use drive::{Pause, drive, drive_open_orders};
pub use live::{
    Live, News, READ_MODELS, Status, read as read_status, read_as_of as read_status_as_of,
};
pub use monitor::Monitor;
pub use reconcile::{Recovered, reconcile, recover_call};

use crate::app::App;
use crate::ledger::{CommandError, events};

/// How long a cancellation waits for what became of the recipients.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// Which of the orders to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Order the calls.
    Submit,
    /// Stop them.
    Cancel,
    /// Call those again who were not reached.
    Retry,
}

/// How an order stands when the wait for it is over.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The provider did it, and said this of the batch.
    Done(Box<Snapshot>),
    /// The provider refused it for good, or was not reached. It was not and
    /// will not be carried out.
    Refused(Refused),
    /// Nobody knows yet. The worker goes on driving it, to one of the others.
    UnderWay,
}

/// An order, and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered {
    /// Our id of the batch.
    pub batch_id: String,
    /// How the order stands.
    pub outcome: Outcome,
    /// How many calls it stopped or began anew; 0 of a submit.
    pub calls: u32,
    /// The position of the batch's last event: wait for it with
    /// [`App::readable`] before the answer.
    pub position: i64,
}

/// Why an order was not taken. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state of the batch does not allow it.
    #[error(transparent)]
    Refused(#[from] batch::Error),
    /// The ledger did not take it, or did not answer.
    #[error(transparent)]
    Ledger(anyhow::Error),
}

impl From<CommandError<batch::Error>> for Error {
    fn from(error: CommandError<batch::Error>) -> Self {
        match error {
            CommandError::Refused(refusal) => Self::Refused(refusal),
            CommandError::Ledger(words) => Self::Ledger(anyhow::anyhow!(words)),
        }
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::Ledger(error)
    }
}

/// How long a request waits for an order, where it has no reason to wait
/// less: until the provider has answered, or has not and was searched once.
pub fn patience(app: &App) -> Duration {
    app.elevenlabs.policy().one_request() + Duration::from_secs(10)
}

/// Orders a batch: puts it on the ledger, sends it, and waits for the outcome,
/// `wait` at most. The order lives on when the caller goes away. The same order
/// under the same `batch_id` again joins the first. `metadata` holds `actor`
/// and `request_id`.
///
/// # Errors
/// [`Error`].
pub async fn submit(
    app: &Arc<App>,
    order: Requested,
    metadata: HashMap<String, String>,
    wait: Duration,
) -> Result<Ordered, Error> {
    let id = order.batch_id.clone();
    let request = || Command::Request(Box::new(order.clone()));
    match app.store.execute::<Batch>(&id, request, metadata).await {
        Ok(_) => {}
        Err(CommandError::Refused(batch::Error::AlreadyRequested)) => {
            let known: Batch = app.store.load(&id).await?;
            if !known
                .requested()
                .is_some_and(|known| is_same(known, &order))
            {
                return Err(batch::Error::AlreadyRequested.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    outcome(app, id, Kind::Submit, wait).await
}

/// Stops a batch, by our id, as [`submit`] orders one.
///
/// # Errors
/// [`Error`].
pub async fn cancel(
    app: &Arc<App>,
    batch_id: &str,
    metadata: HashMap<String, String>,
    wait: Duration,
) -> Result<Ordered, Error> {
    let requested_by = metadata.get("actor").cloned().unwrap_or_default();
    let request = || Command::RequestCancel {
        requested_by: requested_by.clone(),
    };
    app.store
        .execute::<Batch>(batch_id, request, metadata)
        .await?;
    let mut ordered = outcome(app, batch_id.to_owned(), Kind::Cancel, wait).await?;
    if let Outcome::Done(batch) = &ordered.outcome {
        // The answer tells nothing of the recipients. If they cannot be looked
        // at now, the monitor will.
        let look = monitor::observe(app, batch_id, &batch.id);
        if let Ok(Ok(Some(position))) = tokio::time::timeout(LOOK_WITHIN, look).await {
            ordered.position = ordered.position.max(position);
        }
    }
    Ok(ordered)
}

/// Calls those of a batch again who were not reached, by our id, as [`submit`]
/// orders one.
///
/// # Errors
/// [`Error`].
pub async fn retry(
    app: &Arc<App>,
    batch_id: &str,
    metadata: HashMap<String, String>,
    wait: Duration,
) -> Result<Ordered, Error> {
    let requested_by = metadata.get("actor").cloned().unwrap_or_default();
    let request = || Command::RequestRetry {
        requested_by: requested_by.clone(),
    };
    app.store
        .execute::<Batch>(batch_id, request, metadata)
        .await?;
    outcome(app, batch_id.to_owned(), Kind::Retry, wait).await
}

/// Whether it is the same order, whoever gave it and when.
fn is_same(known: &Requested, order: &Requested) -> bool {
    let order = Requested {
        requested_at: known.requested_at,
        requested_by: known.requested_by.clone(),
        ..order.clone()
    };
    *known == order
}

/// Drives a batch until the order is settled, or the wait is over.
async fn outcome(app: &Arc<App>, id: String, kind: Kind, wait: Duration) -> Result<Ordered, Error> {
    // A task of its own: a caller that goes away must not cut an attempt short.
    let driver = tokio::spawn(drive::until_settled(app.clone(), id.clone(), wait));
    match tokio::time::timeout(wait, driver).await {
        Ok(Ok(Err(error))) => {
            tracing::warn!(
                batch_id = id,
                error = format!("{error:#}"),
                "could not drive an order; the worker will"
            );
        }
        Ok(Err(error)) => tracing::error!(batch_id = id, %error, "driving an order broke"),
        Ok(Ok(Ok(()))) | Err(_) => {}
    }
    standing(app, id, kind).await
}

/// How an order stands.
async fn standing(app: &App, id: String, kind: Kind) -> Result<Ordered, Error> {
    let batch: Batch = app.store.load(&id).await?;
    let names = kind.events();
    let last = events::last_of(&app.pool, &app.opener, "batch", &id, &names.all()).await?;
    let position = last.as_ref().map_or(0, |event| event.position);
    let done = last.filter(|event| event.event_type == names.done);
    let mut calls = 0;
    let outcome = match kind.order(&batch) {
        Order::Failed(refused) if !refused.retryable => Outcome::Refused(refused.clone()),
        _ => match done.map(|event| serde_json::from_value(event.payload)) {
            Some(Ok(batch::Event::Submitted(event))) => Outcome::Done(Box::new(event.batch)),
            Some(Ok(batch::Event::Cancelled(event))) => {
                calls = event.cancelled_count;
                Outcome::Done(Box::new(event.batch))
            }
            Some(Ok(batch::Event::Retried(event))) => {
                calls = event.retried_count;
                Outcome::Done(Box::new(event.batch))
            }
            _ => Outcome::UnderWay,
        },
    };
    Ok(Ordered {
        batch_id: id,
        outcome,
        calls,
        position,
    })
}

/// The names of the events of one kind of order.
struct Names {
    attempted: &'static str,
    rest: [&'static str; 3],
    done: &'static str,
}

impl Names {
    fn all(&self) -> Vec<&'static str> {
        let [requested, uncertain, failed] = self.rest;
        vec![self.attempted, requested, uncertain, failed, self.done]
    }
}

impl Kind {
    /// All of them, in the order in which they are carried out.
    const ALL: [Self; 3] = [Self::Submit, Self::Cancel, Self::Retry];

    fn order(self, batch: &Batch) -> &Order {
        match self {
            Self::Submit => batch.submit(),
            Self::Cancel => batch.cancel(),
            Self::Retry => batch.retry(),
        }
    }

    const fn events(self) -> Names {
        match self {
            Self::Submit => Names {
                attempted: "batch.submit_attempted",
                rest: [
                    "batch.requested",
                    "batch.submit_uncertain",
                    "batch.submit_failed",
                ],
                done: "batch.submitted",
            },
            Self::Cancel => Names {
                attempted: "batch.cancel_attempted",
                rest: [
                    "batch.cancel_requested",
                    "batch.cancel_uncertain",
                    "batch.cancel_failed",
                ],
                done: "batch.cancelled",
            },
            Self::Retry => Names {
                attempted: "batch.retry_attempted",
                rest: [
                    "batch.retry_requested",
                    "batch.retry_uncertain",
                    "batch.retry_failed",
                ],
                done: "batch.retried",
            },
        }
    }
}
