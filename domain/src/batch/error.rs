//! Why a command to a batch was refused.

use super::RECIPIENTS_MAX;

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such batch.
    #[error("there is no such batch")]
    Unknown,
    /// The id is taken by another order.
    #[error("another batch was ordered under this id")]
    AlreadyRequested,
    /// Nobody to call, or too many.
    #[error("a batch has 1 to {RECIPIENTS_MAX} recipients")]
    RecipientsOutOfRange,
    /// The provider does not have it yet.
    #[error("the batch has not been submitted to the provider yet")]
    NotSubmitted,
    /// The provider has it, and there is nothing to send.
    #[error("the batch has been submitted already")]
    AlreadySubmitted,
    /// The provider refused it for good.
    #[error("the batch was refused by the provider")]
    SubmitRefused,
    /// Two batches at the provider claim to be this one.
    #[error("the batch was submitted as {known}, not as {claimed}")]
    SubmittedAsAnother {
        /// The provider's id on the ledger.
        known: String,
        /// The other.
        claimed: String,
    },
    /// Somebody is sending this very order.
    #[error("an attempt is under way")]
    UnderWay,
    /// An attempt may have arrived and must be looked up first.
    #[error("an earlier attempt is uncertain and has not been looked up")]
    Uncertain,
    /// There is no such attempt.
    #[error("there is no such attempt")]
    NotAttempted,
    /// Nobody asked for it.
    #[error("nobody asked for it")]
    NotRequested,
    /// It was stopped before.
    #[error("the batch is cancelled already")]
    AlreadyCancelled,
    /// It came to its end.
    #[error("the batch has finished already")]
    AlreadyFinished,
    /// It goes on: first it must end.
    #[error("the batch is still running")]
    StillRunning,
    /// Nobody failed to be reached.
    #[error("no call of the batch has failed: there is nothing to retry")]
    NothingToRetry,
}

impl Error {
    /// The code under which the API reports it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "batch_not_found",
            Self::AlreadyRequested => "batch_already_requested",
            Self::RecipientsOutOfRange => "validation_error",
            Self::NotSubmitted => "batch_not_submitted",
            Self::AlreadySubmitted => "batch_already_submitted",
            Self::SubmitRefused => "batch_refused",
            Self::SubmittedAsAnother { .. } => "batch_submitted_as_another",
            Self::UnderWay => "attempt_under_way",
            Self::Uncertain => "attempt_uncertain",
            Self::NotAttempted => "not_attempted",
            Self::NotRequested => "not_requested",
            Self::AlreadyCancelled => "batch_already_cancelled",
            Self::AlreadyFinished => "batch_already_finished",
            Self::StillRunning => "batch_still_running",
            Self::NothingToRetry => "nothing_to_retry",
        }
    }
}
