//! How a recipient stands: any order of the same facts ends the same.

use std::collections::BTreeMap;

use super::*;
use crate::call::{Completed, InitiationFailed, Medium, Progressed};
use proptest::prelude::*;
use proptest::sample::select;

/// Anything that anybody may tell of a recipient.
#[derive(Clone, Debug)]
enum Fact {
    /// The provider's list: conversation, status, time, retry count.
    Listed(Option<&'static str>, Outcome, i64, i64),
    /// The report of a session: how it ended, begin and end.
    Reported(&'static str, Outcome, i64, i64),
    /// A session could not be started.
    NotStarted(&'static str, i64),
    /// The carrier, of the leg of a session.
    Leg(&'static str, Outcome, i64),
}

#[derive(Default)]
struct Known {
    sightings: Sightings,
    facts: BTreeMap<String, CallFacts>,
    legs: BTreeMap<String, Leg>,
}

impl Known {
    fn of<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Self {
        let mut known = Self::default();
        facts.into_iter().for_each(|fact| known.take(fact));
        known
    }

    fn take(&mut self, fact: &Fact) {
        match *fact {
            Fact::Listed(conversation, status, secs, retry_count) => {
                let sighting = Sighting {
                    updated_at_unix: CREATED + secs,
                    retry_count,
                    status,
                };
                self.sightings.see(conversation, sighting);
            }
            Fact::Reported(id, outcome, began, ended) => {
                self.sightings.claim(id);
                let facts = self.facts.entry(id.into()).or_default();
                facts.report(at(ended + 5), &report(id, outcome, began, ended));
            }
            Fact::NotStarted(id, secs) => {
                let facts = self.facts.entry(id.into()).or_default();
                facts.failure(at(secs), &failure(id));
            }
            Fact::Leg(id, outcome, secs) => {
                let leg = Leg::of(at(secs), &progressed(id, outcome));
                let leg = match self.legs.remove(id) {
                    Some(known) => known.and(leg),
                    None => leg,
                };
                self.legs.insert(id.into(), leg);
            }
        }
    }

    fn standing(&self) -> Standing {
        self.sightings.standing(|id| Told {
            facts: self.facts.get(id),
            leg: self.legs.get(id),
        })
    }

    fn status(&self) -> (Outcome, Option<String>) {
        let standing = self.standing();
        (standing.status, standing.conversation_id)
    }
}

fn report(id: &str, outcome: Outcome, began: i64, ended: i64) -> Completed {
    let report = serde_json::json!({
        "conversation_id": id, "agent_id": "agent_1", "outcome": outcome,
        "provider_status": "done", "medium": Medium::Voice, "call_sid": format!("CA_{id}"),
        "started_at": at(began), "duration_secs": ended - began,
    });
    serde_json::from_value(report).unwrap()
}

fn failure(id: &str) -> InitiationFailed {
    let failure = serde_json::json!({
        "conversation_id": id, "reason": "no-answer", "call_sid": format!("CA_{id}"),
    });
    serde_json::from_value(failure).unwrap()
}

fn progressed(id: &str, outcome: Outcome) -> Progressed {
    let leg = serde_json::json!({
        "call_sid": format!("CA_{id}"), "outcome": outcome, "provider_status": "?",
    });
    serde_json::from_value(leg).unwrap()
}

use Fact::{Leg as LegSaid, Listed, NotStarted, Reported};
use Outcome::{Completed as Done, Failed, InProgress, Pending, Voicemail};

#[test]
fn a_late_failure_of_the_first_call_does_not_undo_the_second() {
    let known = Known::of(&[
        Listed(Some("conv_a"), InProgress, 10, 0),
        Listed(None, Pending, 60, 1),
        Listed(Some("conv_b"), Done, 90, 1),
        NotStarted("conv_a", 20),
    ]);
    assert_eq!(known.status(), (Done, Some("conv_b".into())));
    let standing = known.standing();
    let attempts: Vec<_> = standing.attempts.iter().map(|a| a.status).collect();
    assert_eq!(attempts, [Failed, Done]);
    assert_eq!(
        standing.attempts[0].failure_reason.as_deref(),
        Some("no-answer")
    );
}

#[test]
fn who_is_to_be_called_again_waits() {
    let known = Known::of(&[
        Listed(Some("conv_a"), Failed, 20, 0),
        Listed(None, Pending, 20, 1),
    ]);
    assert_eq!(
        known.status(),
        (Pending, None),
        "even within the same second"
    );
    let first_time = Known::of(&[
        Listed(None, Pending, 20, 0),
        Listed(Some("conv_a"), InProgress, 20, 0),
    ]);
    assert_eq!(first_time.status(), (InProgress, Some("conv_a".into())));
}

#[test]
fn a_webhook_may_be_faster_than_the_list() {
    let mut known = Known::of(&[Listed(None, InProgress, 5, 0)]);
    known.take(&Reported("conv_a", Done, 6, 50));
    assert_eq!(known.status(), (Done, Some("conv_a".into())));
}

#[test]
fn a_webhook_of_a_call_before_the_retry_does_not_end_the_waiting() {
    let known = Known::of(&[
        Listed(None, Pending, 60, 1),
        Reported("conv_a", Failed, 6, 50),
    ]);
    assert_eq!(known.status(), (Pending, None));
}

#[test]
fn a_machine_that_answered_is_no_person() {
    let carrier_first = [
        LegSaid("conv_a", Done, 30),
        Listed(Some("conv_a"), Voicemail, 31, 0),
    ];
    assert_eq!(Known::of(&carrier_first).status().0, Voicemail);
    let report_last = [
        Listed(Some("conv_a"), Voicemail, 31, 0),
        Reported("conv_a", Done, 5, 30),
    ];
    assert_eq!(Known::of(&report_last).status().0, Voicemail);
}

#[test]
fn a_call_that_outlived_the_cancelling_of_its_batch_was_completed() {
    let known = Known::of(&[
        Listed(Some("conv_a"), Outcome::Cancelled, 20, 0),
        Reported("conv_a", Done, 5, 50),
    ]);
    assert_eq!(known.status().0, Done);
}

#[test]
fn the_providers_words_are_read_as_ours() {
    for (word, outcome) in [
        ("pending", Pending),
        ("dispatched", InProgress),
        ("initiated", InProgress),
        ("in_progress", InProgress),
        ("completed", Done),
        ("failed", Failed),
        ("cancelled", Outcome::Cancelled),
        ("voicemail", Voicemail),
        ("yet_to_be_invented", InProgress),
    ] {
        assert_eq!(recipient::outcome_of(word), outcome, "{word}");
        let seen = RecipientSeen::new("r", word, 0);
        let kept = seen.provider_status.as_deref().unwrap_or(outcome.as_str());
        assert_eq!(kept, word);
    }
}

/// Any facts, sensible or not, on three calls within ten seconds.
fn any_fact() -> impl Strategy<Value = Fact> {
    let id = || select(vec!["conv_a", "conv_b", "conv_c"]);
    let outcome = || select(Outcome::ALL.to_vec());
    prop_oneof![
        (proptest::option::of(id()), outcome(), 0..10_i64, 0..3_i64)
            .prop_map(|(id, o, at, retry)| Listed(id, o, at, retry)),
        (id(), outcome(), 0..10_i64, 0..5_i64).prop_map(|(id, o, began, secs)| Reported(
            id,
            o,
            began,
            began + secs
        )),
        (id(), 0..10_i64).prop_map(|(id, at)| NotStarted(id, at)),
        (id(), outcome(), 0..10_i64).prop_map(|(id, o, at)| LegSaid(id, o, at)),
    ]
}

/// A story as a provider tells it: each call of the list fails but the last,
/// which ends in some way, and everybody reports all of it.
#[derive(Clone, Debug)]
struct Story {
    facts: Vec<Fact>,
    end: Outcome,
    calls: usize,
}

fn story() -> impl Strategy<Value = Story> {
    let end = select(vec![Done, Failed, Voicemail]);
    let gaps = proptest::collection::vec(0..3_i64, 12);
    (1..=3_usize, end, gaps).prop_map(|(calls, end, gaps)| tell_story(calls, end, &gaps))
}

fn tell_story(calls: usize, end: Outcome, gaps: &[i64]) -> Story {
    let mut clock = 0;
    let mut gaps = gaps.iter();
    let mut facts = Vec::new();
    for (n, id) in ["conv_a", "conv_b", "conv_c"]
        .into_iter()
        .take(calls)
        .enumerate()
    {
        let mut pass = || {
            clock += gaps.next().copied().unwrap_or_default();
            clock
        };
        let retry = n as i64;
        let outcome = if n + 1 == calls { end } else { Failed };
        facts.push(Listed(None, Pending, pass(), retry));
        facts.push(Listed(None, InProgress, pass(), retry));
        let dialled = pass();
        facts.push(Listed(Some(id), InProgress, dialled, retry));
        facts.push(LegSaid(id, InProgress, dialled));
        let ended = pass();
        facts.push(Listed(Some(id), outcome, ended, retry));
        facts.push(match outcome {
            Failed => NotStarted(id, ended),
            // The report knows nothing of machines.
            _ => Reported(id, Done, dialled, ended),
        });
        let leg = if outcome == Failed { Failed } else { Done };
        facts.push(LegSaid(id, leg, ended));
    }
    Story { facts, end, calls }
}

proptest! {
    #[test]
    fn any_order_of_the_same_facts_ends_the_same(
        (facts, shuffled) in proptest::collection::vec(any_fact(), 0..14)
            .prop_flat_map(|facts| (Just(facts.clone()), Just(facts).prop_shuffle()))
    ) {
        prop_assert_eq!(Known::of(&facts).standing(), Known::of(&shuffled).standing());
    }

    #[test]
    fn the_same_fact_again_changes_nothing(
        facts in proptest::collection::vec(any_fact(), 1..10)
    ) {
        let twice = facts.iter().chain(&facts);
        prop_assert_eq!(Known::of(twice).standing(), Known::of(&facts).standing());
    }

    #[test]
    fn a_whole_story_ends_as_it_ended_in_whatever_order_it_is_told(
        (story, told) in story().prop_flat_map(|story| (Just(story.clone()), Just(story.facts).prop_shuffle()))
    ) {
        let standing = Known::of(&told).standing();
        prop_assert_eq!(standing.status, story.end);
        prop_assert_eq!(standing.attempts.len(), story.calls);
        let earlier = &standing.attempts[..story.calls - 1];
        prop_assert!(earlier.iter().all(|attempt| attempt.status == Failed));
    }

    /// Whoever polls seldom misses sightings; the last one is always seen.
    #[test]
    fn a_story_with_holes_ends_the_same_once_its_last_line_was_seen(
        (story, kept) in story().prop_flat_map(|story| {
            let n = story.facts.len();
            (Just(story), proptest::collection::vec(any::<bool>(), n))
        })
    ) {
        let last_line = story.facts.len() - 3;
        let facts = story.facts.iter().enumerate();
        let facts = facts.filter(|(n, _)| *n == last_line || kept[*n]).map(|(_, fact)| fact);
        prop_assert_eq!(Known::of(facts).standing().status, story.end);
    }

    /// Two replicas poll; what either records the other need not.
    #[test]
    fn what_is_dropped_as_no_news_would_have_changed_nothing(
        (story, lines) in story().prop_flat_map(|story| {
            let lines: Vec<_> = story.facts.iter().filter(|f| matches!(f, Listed(..))).cloned().collect();
            (Just(story), Just(lines).prop_shuffle())
        })
    ) {
        let mut kept = Known::default();
        for line in &lines {
            let Listed(id, status, secs, retry_count) = *line else { continue };
            let sighting = Sighting { updated_at_unix: CREATED + secs, retry_count, status };
            if kept.sightings.is_news(id, sighting) {
                kept.take(line);
            }
        }
        prop_assert_eq!(kept.status(), Known::of(&lines).status(), "{:?}", story);
    }
}
