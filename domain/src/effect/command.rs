//! What may be asked of an effect.

use chrono::{DateTime, Utc};

use super::{Answered, Bounced, Failed, Sent};

/// What may be asked of an effect.
#[derive(Clone, Debug)]
pub enum Command {
    /// Put an attempt on record, to make it then. Whoever is not refused may
    /// make it, alone.
    Attempt {
        /// Which attempt it will be, from 1.
        attempt: u32,
        /// The uncertain attempt that was looked up and not found.
        looked_up: Option<u32>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Nobody knows what became of an attempt.
    ReportUncertain {
        /// Which.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// An attempt came to nothing.
    ReportFailed(Failed),
    /// The provider took the message.
    ReportSent(Box<Sent>),
    /// The agent answered.
    ReportAnswered(Box<Answered>),
    /// The provider could not deliver what it took.
    ReportBounced(Bounced),
    /// It is not owed any more.
    Drop {
        /// Why.
        reason: String,
    },
    /// Try once more what was given up.
    Retry {
        /// Who asks: `user:7` or `service`.
        retried_by: String,
    },
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not as whoever asks believes it to be.
    #[error("others have gone on with it meanwhile")]
    Stale,
    /// Another attempt is being made.
    #[error("an attempt is under way")]
    UnderWay,
    /// The last attempt must be looked up first.
    #[error("nobody knows what became of the last attempt: look it up first")]
    Uncertain,
    /// It is done, or not owed any more.
    #[error("it is settled")]
    Settled,
    /// It was given up; a person may have it tried again.
    #[error("it was given up")]
    Dead,
    /// That attempt was never made, or is not the last one.
    #[error("that is not the last attempt")]
    NotAttempted,
    /// Only what was given up can be tried again.
    #[error("only what was given up can be tried again")]
    NotDead,
}

impl Error {
    /// The contract's code for it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Stale => "effect_stale",
            Self::UnderWay => "effect_under_way",
            Self::Uncertain => "effect_uncertain",
            Self::Settled => "effect_settled",
            Self::Dead => "effect_dead",
            Self::NotAttempted => "effect_not_attempted",
            Self::NotDead => "effect_not_dead",
        }
    }
}
