//! What is known of one call, whoever told it and in whatever order.
//!
//! Both types only ever grow towards the greatest of what was said, so that
//! the order of the facts changes nothing.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::call::{Completed, InitiationFailed, Outcome, Progressed};

/// What the provider's webhooks said of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFacts {
    /// The latest report of the finished session.
    pub report: Option<Report>,
    /// The latest word that it could not be started.
    pub failure: Option<Failure>,
}

/// The report of a finished session. The latest counts; of two at the same
/// time the greater, so the fields' order is part of the meaning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Report {
    /// When it was made.
    pub at: DateTime<Utc>,
    /// How the call ended.
    pub outcome: Outcome,
    /// When the call began.
    pub started_at: Option<DateTime<Utc>>,
    /// How long it lasted, in seconds.
    pub duration_secs: Option<i64>,
    /// The carrier's id of the telephone leg.
    pub call_sid: Option<String>,
    /// The provider's id of the batch.
    pub batch_id: Option<String>,
    /// The provider's id of the recipient.
    pub batch_recipient_id: Option<String>,
    /// The client's number. Personal.
    pub phone_number: Option<String>,
}

/// The word that a session could not be started. The latest counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// When it was said.
    pub at: DateTime<Utc>,
    /// `busy`, `no-answer`, `unknown`, ….
    pub reason: String,
    /// The carrier's id of the telephone leg.
    pub call_sid: Option<String>,
}

impl CallFacts {
    /// Takes a report in.
    pub fn report(&mut self, at: DateTime<Utc>, report: &Completed) {
        let report = Report {
            at,
            outcome: report.outcome,
            started_at: report.started_at.filter(is_plausible),
            duration_secs: report.duration_secs.filter(|secs| *secs >= 0),
            call_sid: report.call_sid.clone().filter(|sid| !sid.is_empty()),
            batch_id: report.batch_id.clone(),
            batch_recipient_id: report.batch_recipient_id.clone(),
            phone_number: report.phone_number.clone(),
        };
        self.report = self.report.take().max(Some(report));
    }

    /// Takes in that it could not be started.
    pub fn failure(&mut self, at: DateTime<Utc>, failed: &InitiationFailed) {
        let failure = Failure {
            at,
            reason: failed.reason.clone(),
            call_sid: failed.call_sid.clone().filter(|sid| !sid.is_empty()),
        };
        self.failure = self.failure.take().max(Some(failure));
    }

    /// The carrier's id of the telephone leg, where anybody named it.
    pub fn call_sid(&self) -> Option<&str> {
        let report = self.report.as_ref().and_then(|r| r.call_sid.as_deref());
        report.or(self.failure.as_ref().and_then(|f| f.call_sid.as_deref()))
    }

    /// When the call began, by the report.
    pub(super) fn started_at(&self) -> Option<DateTime<Utc>> {
        self.report.as_ref().and_then(|report| report.started_at)
    }

    /// When the call was over, as well as webhooks tell it.
    pub(super) fn ended_at(&self) -> Option<DateTime<Utc>> {
        let report = self.report.as_ref().map(|report| {
            let duration = report.duration_secs.and_then(TimeDelta::try_seconds);
            let ended = report.started_at.zip(duration);
            let ended = ended.and_then(|(began, lasted)| began.checked_add_signed(lasted));
            ended.filter(is_plausible).unwrap_or(report.at)
        });
        report.or(self.failure.as_ref().map(|failure| failure.at))
    }
}

/// What the carrier said of a telephone leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    state: LegState,
    duration_secs: Option<i64>,
    ended_at: Option<DateTime<Utc>>,
}

/// How far a leg has come; the greatest counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct LegState {
    rank: u8,
    sequence_number: Option<i64>,
    at: DateTime<Utc>,
    outcome: Outcome,
}

impl Leg {
    /// A leg of which this is known.
    pub fn of(at: DateTime<Utc>, progressed: &Progressed) -> Self {
        let outcome = progressed.outcome;
        Self {
            state: LegState {
                rank: rank(outcome),
                sequence_number: progressed.sequence_number,
                at,
                outcome,
            },
            duration_secs: progressed.duration_secs.filter(|secs| *secs >= 0),
            ended_at: is_final(outcome).then_some(at),
        }
    }

    /// The leg, with what else is known of it.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            state: self.state.max(other.state),
            duration_secs: self.duration_secs.max(other.duration_secs),
            ended_at: match (self.ended_at, other.ended_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }

    /// How it stands.
    pub const fn outcome(&self) -> Outcome {
        self.state.outcome
    }

    /// How long it lasted, in seconds.
    pub const fn duration_secs(&self) -> Option<i64> {
        self.duration_secs
    }

    /// When it was first reported ended.
    pub const fn ended_at(&self) -> Option<DateTime<Utc>> {
        self.ended_at
    }
}

/// The order in which a leg passes through its states. Where a carrier reports
/// two ends, the one that says more counts.
const fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Pending => 0,
        Outcome::InProgress => 1,
        Outcome::Cancelled => 2,
        Outcome::Failed => 3,
        Outcome::Completed => 4,
        Outcome::Voicemail => 5,
    }
}

/// Whether nothing more happens after it.
pub(super) const fn is_final(outcome: Outcome) -> bool {
    rank(outcome) > rank(Outcome::InProgress)
}

/// Whether a call can have happened then; a provider may write nonsense.
pub(super) fn is_plausible(at: &DateTime<Utc>) -> bool {
    (1970..=9999).contains(&at.year())
}
