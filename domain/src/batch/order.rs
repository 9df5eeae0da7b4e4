//! Where one order to the provider stands: to submit, to cancel, to retry.

use serde::{Deserialize, Serialize};

use super::{Error, Refused, Uncertain};

/// Where one order to the provider stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Nobody asked for it.
    #[default]
    None,
    /// Asked for, never sent.
    Wanted,
    /// This attempt is being sent, or was when the process died.
    Attempted(u32),
    /// This attempt may have arrived.
    Uncertain(u32),
    /// This attempt has certainly not arrived.
    Failed(Refused),
    /// The provider did it.
    Done,
}

impl Order {
    /// The last attempt, 0 before the first.
    pub const fn attempt(&self) -> u32 {
        match self {
            Self::Attempted(attempt) | Self::Uncertain(attempt) => *attempt,
            Self::Failed(refused) => refused.attempt,
            Self::None | Self::Wanted | Self::Done => 0,
        }
    }

    /// Whether it is on its way: asked for, and neither done nor given up.
    pub const fn is_open(&self) -> bool {
        match self {
            Self::Wanted | Self::Attempted(_) | Self::Uncertain(_) => true,
            Self::Failed(refused) => refused.retryable,
            Self::None | Self::Done => false,
        }
    }

    /// The number of the next attempt, if now is the time for one; else why
    /// not: `done` or `given_up` in the words of the order.
    pub(super) fn next_attempt(
        &self,
        looked_up: Option<u32>,
        done: Error,
        given_up: Error,
    ) -> Result<u32, Error> {
        match self {
            Self::None => Err(Error::NotRequested),
            Self::Done => Err(done),
            Self::Attempted(_) => Err(Error::UnderWay),
            Self::Uncertain(attempt) if looked_up != Some(*attempt) => Err(Error::Uncertain),
            Self::Failed(refused) if !refused.retryable => Err(given_up),
            Self::Wanted | Self::Uncertain(_) | Self::Failed(_) => Ok(self.attempt() + 1),
        }
    }

    /// Whether it is news that nobody knows what became of an attempt.
    pub(super) fn is_uncertain_now(&self, attempt: u32) -> Result<bool, Error> {
        match self {
            Self::Attempted(current) if *current == attempt => Ok(true),
            Self::Done => Ok(false),
            _ if attempt <= self.attempt() && attempt > 0 => Ok(false),
            _ => Err(Error::NotAttempted),
        }
    }

    /// Whether it is news that an attempt has failed.
    pub(super) fn has_failed_now(&self, attempt: u32) -> Result<bool, Error> {
        match self {
            Self::Attempted(current) | Self::Uncertain(current) if *current == attempt => Ok(true),
            _ => self.is_uncertain_now(attempt),
        }
    }

    pub(super) fn uncertain(&mut self, event: &Uncertain) {
        *self = Self::Uncertain(event.attempt);
    }

    pub(super) fn failed(&mut self, event: Refused) {
        *self = Self::Failed(event);
    }
}
