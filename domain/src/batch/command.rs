//! What may be asked of a batch.

use super::{Discovered, RecipientSeen, Refused, Requested, Snapshot};

/// What may be asked of a batch. The names say who asks: people *request*;
/// whoever talks to the provider *attempts* before and *reports* after.
///
/// A command whose work is done gives no event and no error, except the
/// attempts: who gets no error from an attempt has the right to send, alone.
#[derive(Clone, Debug)]
pub enum Command {
    /// Order calls.
    Request(Box<Requested>),
    /// Send the order now.
    AttemptSubmit {
        /// The attempt that the provider was searched for, in vain. Without it
        /// an uncertain one is not followed by another.
        looked_up: Option<u32>,
    },
    /// The provider has it: it answered, or the order was found there.
    ReportSubmitted {
        /// Whether it was found instead of answered.
        adopted: bool,
        /// The provider's words.
        batch: Snapshot,
    },
    /// No answer came to the last attempt.
    ReportSubmitUncertain {
        /// Which attempt; another is none of this command's business.
        attempt: u32,
        /// Why nobody knows.
        reason: String,
    },
    /// The provider refused it, or was certainly not reached.
    ReportSubmitFailed(Refused),
    /// Stop it.
    RequestCancel {
        /// Who asks: `user:7` or `service`.
        requested_by: String,
    },
    /// Say so to the provider now.
    AttemptCancel,
    /// The provider stopped it.
    ReportCancelled {
        /// The provider's words.
        batch: Snapshot,
    },
    /// No answer came to the last attempt.
    ReportCancelUncertain {
        /// Which attempt.
        attempt: u32,
        /// Why nobody knows.
        reason: String,
    },
    /// The provider did not stop it.
    ReportCancelFailed(Refused),
    /// Call those again who were not reached.
    RequestRetry {
        /// Who asks: `user:7` or `service`.
        requested_by: String,
    },
    /// Say so to the provider now.
    AttemptRetry {
        /// The attempt since which the provider's count of retries was looked
        /// at and has not risen. Without it an uncertain one is not followed by
        /// another.
        looked_up: Option<u32>,
    },
    /// The provider calls them again.
    ReportRetried {
        /// The provider's words.
        batch: Snapshot,
    },
    /// No answer came to the last attempt.
    ReportRetryUncertain {
        /// Which attempt.
        attempt: u32,
        /// Why nobody knows.
        reason: String,
    },
    /// The provider does not call them again.
    ReportRetryFailed(Refused),
    /// What the provider's list says, all of it: what is not new is dropped.
    Observe {
        /// The batch.
        batch: Snapshot,
        /// All of its recipients.
        recipients: Vec<RecipientSeen>,
    },
    /// Somebody made a batch without us. Its stream's id is
    /// [`discovered_id`](super::discovered_id).
    Discover(Discovered),
}
