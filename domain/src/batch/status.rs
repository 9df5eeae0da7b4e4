//! How a batch stands as a whole.
//!
//! The provider's latest word decides whether a batch runs, has ended or was
//! stopped; of an ended one the recipients decide how it ended:
//!
//! | provider's word | recipients | status |
//! |---|---|---|
//! | none yet | – | `pending`; `failed` once the order is refused for good |
//! | answer to a retry; `pending` after a retry | – | `retrying` |
//! | `pending` | some have been called | `in_progress` |
//! | `pending`, `in_progress`, unknown | otherwise | as the provider says |
//! | `cancelled` | – | `cancelled` |
//! | `completed` | none failed, cancelled or open | `completed` |
//! | `completed`, `failed` | some reached, some not | `partially_completed` |
//! | `completed`, `failed` | none reached | `failed` |
//!
//! Reached is who completed the call or whose machine answered. That all calls
//! are over does not end a batch before the provider says so: it may be about
//! to call somebody again.

use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::call::Outcome;
use crate::words::vocabulary;

vocabulary! {
    /// How a batch stands.
    Status {
        /// Not begun.
        Pending = "pending",
        /// Calls are being made.
        InProgress = "in_progress",
        /// Those who were not reached are about to be called again.
        Retrying = "retrying",
        /// Everybody was reached.
        Completed = "completed",
        /// Somebody was reached, and somebody was not.
        PartiallyCompleted = "partially_completed",
        /// Nobody was reached.
        Failed = "failed",
        /// Stopped.
        Cancelled = "cancelled",
    }
}

vocabulary! {
    /// How a batch stands in the provider's words, in the order in which the
    /// later of two said at the same moment is told.
    ProviderStatus {
        /// Not begun.
        Pending = "pending",
        /// Calls are being made; also what we take an unknown word for.
        InProgress = "in_progress",
        /// No more calls are made.
        Completed = "completed",
        /// It broke.
        Failed = "failed",
        /// Stopped.
        Cancelled = "cancelled",
    }
}

vocabulary! {
    /// On what occasion the provider spoke; the last is trusted most.
    Source {
        /// It was found without its state being told.
        Discovery = "discovery",
        /// It answered our order.
        Submit = "submit",
        /// It answered a retry: its word is about the time before.
        Retry = "retry",
        /// It answered a cancellation.
        Cancel = "cancel",
        /// We looked.
        List = "list",
    }
}

impl Status {
    /// Whether the batch has ended. A retry may begin it anew.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::PartiallyCompleted | Self::Failed | Self::Cancelled
        )
    }
}

impl ProviderStatus {
    /// The provider's word; an unknown one counts as running.
    pub fn of(word: &str) -> Self {
        word.parse().unwrap_or(match word {
            "" => Self::Pending,
            "canceled" => Self::Cancelled,
            _ => Self::InProgress,
        })
    }

    /// Whether no more calls are made.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// The provider's word on a batch as a whole. The greatest counts: a later
/// retry, a later change, then more calls made; the fields are in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Word {
    /// How often it was retried.
    pub retry_count: i64,
    /// When the provider last changed it.
    pub last_updated_at_unix: i64,
    /// Calls that are over.
    pub finished: i64,
    /// Calls placed.
    pub dispatched: i64,
    /// How it stands.
    pub status: ProviderStatus,
    /// On what occasion it was said.
    pub source: Source,
}

impl Word {
    /// What a snapshot says.
    pub fn of(batch: &Snapshot, source: Source) -> Self {
        Self {
            retry_count: batch.retry_count,
            last_updated_at_unix: batch.last_updated_at_unix,
            finished: batch.total_calls_finished.unwrap_or_default(),
            dispatched: batch.total_calls_dispatched,
            status: ProviderStatus::of(&batch.status),
            source,
        }
    }

    /// Whether nothing more is to be expected from looking: the batch has
    /// ended, and what was said came with all of its recipients.
    pub fn is_settled(&self) -> bool {
        self.source == Source::List && self.status.is_final()
    }
}

/// How many recipients stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    pub total: i64,
    /// Not called yet.
    pub pending: i64,
    /// Being called.
    pub in_progress: i64,
    /// Talked with.
    pub completed: i64,
    /// Not reached.
    pub failed: i64,
    /// Given up before.
    pub cancelled: i64,
    /// A machine answered.
    pub voicemail: i64,
}

impl Counts {
    /// One recipient more.
    pub fn add(&mut self, outcome: Outcome) {
        self.total += 1;
        *self.of(outcome) += 1;
    }

    /// One recipient less.
    pub fn remove(&mut self, outcome: Outcome) {
        self.total -= 1;
        *self.of(outcome) -= 1;
    }

    const fn of(&mut self, outcome: Outcome) -> &mut i64 {
        match outcome {
            Outcome::Pending => &mut self.pending,
            Outcome::InProgress => &mut self.in_progress,
            Outcome::Completed => &mut self.completed,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::Failed => &mut self.failed,
            Outcome::Voicemail => &mut self.voicemail,
        }
    }

    const fn reached(&self) -> i64 {
        self.completed + self.voicemail
    }
}

/// How a batch stands: see the table above. `refused` when the provider will
/// never have it.
pub fn derive(word: Option<&Word>, refused: bool, counts: &Counts) -> Status {
    let Some(word) = word else {
        return if refused {
            Status::Failed
        } else {
            Status::Pending
        };
    };
    let retried = word.retry_count > 0;
    match word.status {
        ProviderStatus::Cancelled => Status::Cancelled,
        _ if word.source == Source::Retry => Status::Retrying,
        ProviderStatus::Completed | ProviderStatus::Failed => {
            let failed = word.status == ProviderStatus::Failed;
            match counts.reached() {
                0 if failed || counts.total > 0 => Status::Failed,
                reached if reached < counts.total || failed => Status::PartiallyCompleted,
                _ => Status::Completed,
            }
        }
        ProviderStatus::Pending if retried => Status::Retrying,
        ProviderStatus::Pending if counts.pending < counts.total => Status::InProgress,
        ProviderStatus::Pending => Status::Pending,
        ProviderStatus::InProgress => Status::InProgress,
    }
}
