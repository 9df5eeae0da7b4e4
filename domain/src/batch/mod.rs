//! Batches: many calls ordered at once, and what became of each.
//!
//! A batch that we order is a stream of decisions (`batch.requested`, every
//! attempt to send it, cancelling, retrying) and of observations (what the
//! provider's lists say). Its id is ours; the provider's comes with its answer.
//! The provider offers no idempotency key, so an order of which nobody knows
//! whether it arrived is *uncertain* and is looked up before it is sent again.
//!
//! How recipients stand is no decision: it is folded from what the provider
//! lists, from webhooks and from the carrier, and any order of the same facts
//! ends the same. See [`recipient`] and [`status`].

mod call;
mod command;
mod decide;
mod error;
mod event;
mod order;
pub mod recipient;
mod state;
pub mod status;

#[cfg(test)]
mod tests;

pub use call::{CallFacts, Leg};
pub use command::Command;
pub use error::Error;
pub use event::{
    Attempted, CancelRequested, Cancelled, Discovered, Event, GroupPart, Observed, PhoneProvider,
    Recipient, RecipientSeen, Refused, Requested, Retried, RetryRequested, Snapshot, Submitted,
    Uncertain,
};
pub use order::Order;
pub use recipient::{Attempt, Sighting, Sightings, Standing, Told};
pub use state::Batch;
pub use status::{Counts, ProviderStatus, Source, Status, Word};

/// Most recipients of one batch. The provider's limit.
pub const RECIPIENTS_MAX: usize = 10_000;

/// The id under which a batch that somebody else made is recorded: the same on
/// every replica, whoever finds it first.
pub fn discovered_id(provider_batch_id: &str) -> String {
    let name = format!("elevenlabs:{provider_batch_id}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}
