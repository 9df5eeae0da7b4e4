//! Settling what we owe the outside: messages to send, turns of the agent to
//! ask for. What is owed is decided by the projection `effects`; here it is
//! done, lane by lane, by as many workers on as many replicas as there are.
//!
//! | an effect is | step |
//! |---|---|
//! | waiting | put an attempt on the ledger, make it, put the outcome there |
//! | attempted, a while ago | whoever made it is gone: it is uncertain |
//! | uncertain | look the message up at the provider; found: adopt it; surely not there: attempt again |
//! | bounced | decide by the provider's code what follows |
//!
//! Invariants: no transaction is open while a provider is asked; an attempt is
//! on the ledger before it is made; the next effect of a lane is not begun
//! before the last is settled. A lease on a lane only saves work: what two
//! workers do at once is told apart by the effect's stream.

mod attempt;
mod lane;
mod message;
mod outcome;
mod schedule;
mod sessions;
mod turn;

use std::time::Duration;

use crate::providers::elevenlabs::client::text::Timing;

pub use lane::work;
pub use sessions::Sessions;

/// The waits of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// For how long a lane is held without word of its worker.
    pub lease: Duration,
    /// How often it is looked for work without news of any.
    pub poll: Duration,
    /// Lanes that one process works on at once.
    pub lanes_max: usize,
    /// An attempt is made this soon after it is on the ledger, or not at all:
    /// a process that was held up must not send what another has taken over.
    pub send_within: Duration,
    /// For how long after its time-out an attempt is left to whoever made it.
    pub outcome_within: Duration,
    /// For how long after that the provider may still carry out an attempt of
    /// which it gave no answer. What is not there by then is sent again.
    pub arrives_within: Duration,
    /// For how long builderbot's own webhook may tell of an attempt. What it
    /// has not told by then nobody will ever know.
    pub mirrored_within: Duration,
    /// How long before it looks again at what may still change by itself.
    pub look_again: Duration,
    /// How long to wait for what in a session with the agent.
    pub timing: Timing,
    /// Sessions with the agent that are kept open unused, at most.
    pub sessions_max: usize,
    /// For how long an unused session with the agent is kept.
    pub session_idle: Duration,
    /// Divides every pause before another attempt: 1, but for tests.
    pub hurry: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(12),
            poll: Duration::from_millis(250),
            lanes_max: 64,
            send_within: Duration::from_secs(3),
            outcome_within: Duration::from_secs(3),
            arrives_within: Duration::from_secs(15),
            mirrored_within: Duration::from_secs(60),
            look_again: Duration::from_secs(1),
            timing: Timing::default(),
            sessions_max: 50,
            session_idle: Duration::from_secs(120),
            hurry: 1,
        }
    }
}
