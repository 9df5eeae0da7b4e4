//! Read models `batches`, `batch_recipients` and `call_attempts`: what was
//! ordered, how each recipient stands, and every call that was tried; and the
//! projection `batches`, which folds them.
//!
//! Three sources tell of a recipient: the batch's own stream (what the
//! provider's list said), webhooks about conversations, and the carrier's
//! callbacks about legs. What each said is kept, in `batch_recipients.seen`,
//! `batch_calls` and `batch_legs`; the rows that people read follow from all
//! of it by [`domain::batch::Sightings::standing`]. So webhooks may come before
//! or after whatever joins them to a batch, in any order, and the rows end the
//! same. Only the events of one batch's own stream are taken in their order.
//!
//! A batch that was not ordered here appears once its own stream says so
//! (`batch.discovered`), not because a webhook names it: what webhooks said is
//! joined then. If it turns out to be one of our orders, both streams stay and
//! the order is the one that is shown (`duplicate_of`).
//!
//! A call that is certainly in no batch costs nothing here: an incoming one,
//! or a session without a telephone. Of any other outgoing call a narrow row
//! is kept.

mod attempts;
mod calls;
mod change;
mod fold;
mod list;
mod past;
mod recipients;
mod row;
mod stats;
mod store;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use domain::event::Recorded;
use sqlx::PgConnection;

pub use attempts::{
    HistoryCursor, HistoryEntry, MissingCall, call_history, missing_calls, missing_recordings,
};
pub use list::{Cursor, Filter, explain, for_group, list, of_calls, open_orders, unsettled};
pub use past::as_of;
pub use recipients::{Enriched, Spoken, recipients};
pub use row::{Batch, find};
pub use stats::{CallStats, DayStats, call_stats};

use crate::engine::Projection;

/// The projection `batches`.
pub struct Batches;

#[async_trait]
impl Projection for Batches {
    fn name(&self) -> &'static str {
        "batches"
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &[
            "batches",
            "batch_recipients",
            "call_attempts",
            "batch_calls",
            "batch_legs",
        ]
    }

    fn event_types(&self) -> &'static [&'static str] {
        &[
            "batch.requested",
            "batch.submit_attempted",
            "batch.submitted",
            "batch.submit_uncertain",
            "batch.submit_failed",
            "batch.cancel_requested",
            "batch.cancel_attempted",
            "batch.cancelled",
            "batch.cancel_uncertain",
            "batch.cancel_failed",
            "batch.retry_requested",
            "batch.retry_attempted",
            "batch.retried",
            "batch.retry_uncertain",
            "batch.retry_failed",
            "batch.observed",
            "batch.discovered",
            "call.completed",
            "call.initiation_failed",
            "call.progressed",
        ]
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        let mut tables = store::load_named(conn, batch).await?;
        tables.take_facts(batch);
        store::load_recipients(conn, &mut tables, batch).await?;
        tables.take_recipients(batch);
        store::load_calls(conn, &mut tables).await?;
        tables.settle(batch);
        store::save(conn, &tables).await
    }
}
