//! How a recipient stands: what the provider's list said of them, joined with
//! what webhooks and the carrier said of their calls.
//!
//! Three rules make the result independent of the order of the facts:
//!
//! 1. **Attempts are kept apart by conversation.** A retry calls somebody
//!    again in a new conversation, so a late fact of an earlier call can only
//!    change that call.
//! 2. **Of what the list said, the latest by the provider's own time counts**
//!    ([`Sighting`], in the order of its fields). The current attempt is the
//!    one of the latest sighting; a sighting without a conversation is a
//!    recipient that waits. A call that only a webhook told of is current once
//!    it ended after that sighting.
//! 3. **Of several sources on one call, a fixed one is believed**, see
//!    [`Attempt`].

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::call::{CallFacts, Leg, is_final, is_plausible};
use crate::call::Outcome;

/// The provider's word for a recipient, in ours. An unknown one counts as
/// being called: something has happened, and it has not ended.
pub fn outcome_of(provider_status: &str) -> Outcome {
    provider_status.parse().unwrap_or(match provider_status {
        "" | "scheduled" => Outcome::Pending,
        "canceled" => Outcome::Cancelled,
        // dispatched, initiated, and what is yet to be invented.
        _ => Outcome::InProgress,
    })
}

/// What the list said of a recipient at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sighting {
    /// When the provider last changed the entry.
    pub updated_at_unix: i64,
    /// How often the batch had been retried.
    pub retry_count: i64,
    /// How the recipient stood.
    pub status: Outcome,
}

/// All that is known of one recipient, but for the facts of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sightings {
    /// The latest without a conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting: Option<Sighting>,
    /// The calls, by conversation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    calls: BTreeMap<String, CallSeen>,
}

/// What the list said of one call; nothing, where only a webhook told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct CallSeen {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_unix: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Sighting>,
}

/// What others than the list know of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// The provider's webhooks.
    pub facts: Option<&'a CallFacts>,
    /// The carrier's callbacks.
    pub leg: Option<&'a Leg>,
}

/// How a recipient stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In our words.
    pub status: Outcome,
    /// The current call; `None` while they wait for one.
    pub conversation_id: Option<String>,
    /// Every call that was tried, in their order.
    pub attempts: Vec<Attempt>,
}

/// One call that was tried. Its status is that of the first source in this
/// list that knows its end:
///
/// 1. the report of the session, but where the list says that a machine
///    answered and the report that the call was completed, it was a machine;
/// 2. the word that it could not be started;
/// 3. the provider's list;
/// 4. the carrier's callbacks.
///
/// While none knows, it is in progress; once a later attempt has taken its
/// place it has failed, for only failed calls are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The provider's id of the session.
    pub conversation_id: String,
    /// How it stands.
    pub status: Outcome,
    /// When it began, or was first heard of.
    pub began_at: Option<DateTime<Utc>>,
    /// When it ended, as far as webhooks or the carrier told.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it lasted, in seconds.
    pub duration_secs: Option<i64>,
    /// Why it could not be started.
    pub failure_reason: Option<String>,
    /// The carrier's id of the telephone leg.
    pub call_sid: Option<String>,
}

/// By which the latest of a recipient's calls, and of their waiting, is told.
type Place<'a> = (i64, bool, i64, bool, Option<Outcome>, &'a str);

impl Sightings {
    /// Takes in what the list said.
    pub fn see(&mut self, conversation_id: Option<&str>, sighting: Sighting) {
        let Some(conversation_id) = conversation_id else {
            self.waiting = self.waiting.max(Some(sighting));
            return;
        };
        let call = self.calls.entry(conversation_id.to_owned()).or_default();
        let at = sighting.updated_at_unix;
        call.first_unix = Some(call.first_unix.map_or(at, |first| first.min(at)));
        call.last = call.last.max(Some(sighting));
    }

    /// Takes in that a webhook named this recipient for a call.
    pub fn claim(&mut self, conversation_id: &str) {
        self.calls.entry(conversation_id.to_owned()).or_default();
    }

    /// Whether a sighting says anything that is not known. That a later retry
    /// left an entry as it was is no news.
    pub fn is_news(&self, conversation_id: Option<&str>, sighting: Sighting) -> bool {
        let known = match conversation_id {
            None => self.waiting,
            Some(id) => self.calls.get(id).and_then(|call| call.last),
        };
        let said = |s: Sighting| (s.updated_at_unix, s.status);
        match known {
            Some(known) => said(sighting) != said(known) && sighting > known,
            // An older wait than the latest call tells nothing of that call;
            // a call that was not known always matters.
            None => conversation_id.is_some() || self.latest() <= Some(sighting),
        }
    }

    /// The calls that were tried, by conversation.
    pub fn conversations(&self) -> impl Iterator<Item = &str> {
        self.calls.keys().map(String::as_str)
    }

    /// How the recipient stands, given what others know of each call.
    pub fn standing<'a>(&self, told: impl Fn(&str) -> Told<'a>) -> Standing {
        let mut calls: Vec<_> = self
            .calls
            .iter()
            .map(|(id, call)| {
                let told = told(id);
                (call.place(id, told), id, call, told)
            })
            .collect();
        calls.sort_by(|a, b| a.0.cmp(&b.0));
        let waiting = self.waiting.map(|sighting| (place(sighting, ""), sighting));
        let current = calls.last().map(|(place, ..)| *place);
        let waiting = waiting.filter(|(place, _)| current < Some(*place));
        let count = calls.len();
        let attempts: Vec<_> = calls
            .into_iter()
            .enumerate()
            .map(|(n, (_, id, call, told))| {
                let replaced = n + 1 < count || waiting.is_some();
                call.attempt(id, told, replaced)
            })
            .collect();
        let (status, conversation_id) = match (waiting, attempts.last()) {
            (Some((_, sighting)), _) => (sighting.status, None),
            (None, Some(call)) => (call.status, Some(call.conversation_id.clone())),
            (None, None) => (Outcome::Pending, None),
        };
        Standing {
            status,
            conversation_id,
            attempts,
        }
    }

    fn latest(&self) -> Option<Sighting> {
        let calls = self.calls.values().filter_map(|call| call.last);
        calls.max().max(self.waiting)
    }
}

fn place(sighting: Sighting, conversation_id: &str) -> Place<'_> {
    (
        sighting.updated_at_unix,
        // Listed: of a call that only a webhook knows, the clock says less.
        true,
        sighting.retry_count,
        // Being called comes after waiting.
        !conversation_id.is_empty(),
        Some(sighting.status),
        conversation_id,
    )
}

impl CallSeen {
    fn place<'a>(&self, id: &'a str, told: Told<'_>) -> Place<'a> {
        if let Some(sighting) = self.last {
            return place(sighting, id);
        }
        let ended = told.facts.and_then(CallFacts::ended_at);
        let ended_unix = ended.map_or(i64::MIN, |ended| ended.timestamp());
        (ended_unix, false, 0, true, None, id)
    }

    fn attempt(&self, id: &str, told: Told<'_>, replaced: bool) -> Attempt {
        let facts = told.facts;
        let failure = facts.and_then(|facts| facts.failure.as_ref());
        let reported = facts
            .and_then(|facts| facts.report.as_ref())
            .and_then(|report| report.duration_secs);
        let first_seen = self
            .first_unix
            .and_then(|unix| DateTime::from_timestamp(unix, 0))
            .filter(is_plausible);
        let first_heard = [
            first_seen,
            failure.map(|failure| failure.at),
            facts
                .and_then(|facts| facts.report.as_ref())
                .map(|report| report.at),
        ];
        let first_heard = first_heard.into_iter().flatten().min();
        Attempt {
            conversation_id: id.to_owned(),
            status: self.status(told, replaced),
            began_at: facts.and_then(CallFacts::started_at).or(first_heard),
            ended_at: facts
                .and_then(CallFacts::ended_at)
                .or(told.leg.and_then(Leg::ended_at)),
            duration_secs: reported.or(told.leg.and_then(Leg::duration_secs)),
            failure_reason: failure.map(|failure| failure.reason.clone()),
            call_sid: facts.and_then(CallFacts::call_sid).map(str::to_owned),
        }
    }

    fn status(&self, told: Told<'_>, replaced: bool) -> Outcome {
        let seen = self.last.map(|sighting| sighting.status);
        let report = told.facts.and_then(|facts| facts.report.as_ref());
        let report = report.map(|report| report.outcome);
        let leg = told.leg.map(Leg::outcome);
        if report == Some(Outcome::Completed) && seen == Some(Outcome::Voicemail) {
            return Outcome::Voicemail;
        }
        let failure = told.facts.and_then(|facts| facts.failure.as_ref());
        let failure = failure.map(|_| Outcome::Failed);
        let ends = [report, failure, seen, leg].into_iter().flatten();
        let mut ends = ends.filter(|outcome| is_final(*outcome));
        match ends.next() {
            Some(end) => end,
            None if replaced => Outcome::Failed,
            None => report.max(seen).max(leg).unwrap_or(Outcome::InProgress),
        }
    }
}
