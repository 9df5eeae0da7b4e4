//! What may be asked of a challenge.

use chrono::{DateTime, Utc};

use super::Requested;

/// What may be asked of a challenge.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make it; done already for a known one.
    Request(Requested),
    /// Count a guess, to look at it then. Whoever is not refused may look at
    /// one guess.
    Attempt {
        /// Which: the next, from 1. Of two who take the same one is refused.
        attempt: u32,
        /// Now.
        at: DateTime<Utc>,
    },
    /// The guess was right.
    Verify {
        /// Which.
        attempt: u32,
        /// When it was made.
        at: DateTime<Utc>,
    },
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such challenge.
    #[error("there is no such challenge")]
    Unknown,
    /// The id is that of a challenge for another number or purpose.
    #[error("the challenge is another one")]
    AlreadyRequested,
    /// The right code was given before.
    #[error("the code was used already")]
    AlreadyUsed,
    /// Its time is over.
    #[error("the code has expired")]
    Expired,
    /// There is no guess left.
    #[error("there were too many attempts")]
    AttemptsExceeded,
    /// Somebody else made that guess: take the next.
    #[error("another attempt was counted in the meantime")]
    Overtaken,
    /// That guess was never counted.
    #[error("that attempt was never counted")]
    NotAttempted,
}
