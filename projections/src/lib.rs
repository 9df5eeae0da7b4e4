//! The read models of Bitácora and the engine that folds them from the ledger.
//!
//! Each read model is one file: its row, the SQL that writes it and the SQL
//! that reads it. What an event does to the rows is decided by pure folds, so
//! that the same code answers live reads, replays and questions about the past.
//!
//! Nothing here writes to the ledger, calls a provider or knows HTTP. A
//! projection never refuses a fact; an event that it cannot read stops it,
//! loudly, at that position. Every row is a function of the ledger alone: no
//! clock, no random number and no sequence goes into one.

pub mod audit_log;
pub mod batches;
pub mod call_details;
pub mod conversations;
mod copy;
pub mod effects;
pub mod engine;
pub mod feed;
pub mod groups;
mod interaction;
pub mod interaction_events;
pub mod interactions;
pub mod keys;
pub mod messages;
pub mod otp_challenges;
pub mod past;
mod rows;
pub mod search;
mod sql;
pub mod subjects;
mod text;
mod time;
pub mod users;

#[cfg(test)]
#[path = "../tests/database/campaign.rs"]
mod campaign;
#[cfg(test)]
#[path = "../tests/database/facts.rs"]
#[expect(dead_code, reason = "the tests with a database use the rest")]
mod facts;
#[cfg(test)]
#[path = "../tests/database/talk.rs"]
#[expect(dead_code, reason = "the tests with a database use the rest")]
mod talk;

use std::sync::Arc;

use domain::PhoneIndex;

pub use engine::{Engine, Progress, Projection};
pub use keys::Opener;

/// Every projection there is, in the order in which they are listed.
pub fn all(phones: &PhoneIndex) -> Vec<Arc<dyn Projection>> {
    vec![
        Arc::new(interactions::Interactions::new(phones.clone())),
        Arc::new(audit_log::AuditLog),
        Arc::new(otp_challenges::OtpChallenges::new(phones.clone())),
        Arc::new(batches::Batches),
        Arc::new(users::Users),
        Arc::new(groups::Groups::new(phones.clone())),
        Arc::new(effects::Effects::new(phones.clone())),
        Arc::new(conversations::Conversations::new(phones.clone())),
    ]
}
