//! Read model `effects`: what we owe the outside; and the projection of that
//! name, which is the policy that decides it.
//!
//! A debt follows from the ledger: a client wrote and the agent speaks, so an
//! answer is owed; a call goes on by WhatsApp, so a first message is. What was
//! done about it follows from the effect's own stream. So the queue is a
//! function of the ledger alone: it is enqueued in the transaction that moves
//! the checkpoint, a rebuild ends in the same rows, and what is done is never
//! owed again. docs/adr/0014.
//!
//! The worker settles effects lane by lane, in the order of `(ord, part)`: an
//! answer's messages come before the answer to what the client wrote next.

mod fold;
mod queue;
mod row;
mod store;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use domain::PhoneIndex;
use domain::event::Recorded;
use sqlx::PgConnection;

pub use queue::{
    Cursor, Filter, QueueCounts, head, keep_lanes, known_messages, list, queue_counts,
    release_lane, take_lanes,
};
pub use row::{Author, Effect, Lane, Request, State, get, lane};

use crate::engine::Projection;

/// What was owed once some events were folded.
#[derive(Default)]
pub(crate) struct Past(fold::Tables);

impl Past {
    /// Events must come in their order.
    pub(crate) fn fold(&mut self, recorded: &Recorded, phones: &PhoneIndex) {
        self.0.fold(recorded, phones);
    }

    /// Where an effect stood, if it was known.
    pub(crate) fn state(&self, id: &str) -> Option<State> {
        self.0.effects.now.get(id).map(|row| row.state)
    }
}

/// The projection `effects`.
pub struct Effects {
    phones: PhoneIndex,
}

impl Effects {
    /// With the key under which numbers are looked up.
    pub fn new(phones: PhoneIndex) -> Self {
        Self { phones }
    }
}

#[async_trait]
impl Projection for Effects {
    fn name(&self) -> &'static str {
        "effects"
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &[
            "effects",
            "effect_lanes",
            "effect_callbacks",
            "effect_totals",
        ]
    }

    fn event_types(&self) -> &'static [&'static str] {
        &[
            "message.received",
            "message.status_changed",
            "conversation.started",
            "conversation.escalated",
            "conversation.resumed",
            "conversation.closed",
            "conversation.message_written",
            "otp.requested",
            "otp.verified",
            "effect.attempted",
            "effect.uncertain",
            "effect.failed",
            "effect.sent",
            "effect.answered",
            "effect.bounced",
            "effect.duplicated",
            "effect.dropped",
            "effect.retried",
        ]
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        let mut tables = store::load(conn, batch, &self.phones).await?;
        for recorded in batch {
            tables.fold(recorded, &self.phones);
        }
        store::save(conn, &tables).await
    }
}
