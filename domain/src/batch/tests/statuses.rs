//! How a batch stands as a whole.

use super::*;
use proptest::prelude::*;

fn counts(of: &[(Outcome, i64)]) -> Counts {
    let mut counts = Counts::default();
    for (outcome, n) in of {
        (0..*n).for_each(|_| counts.add(*outcome));
    }
    counts
}

fn listed(status: &str, of: &[(Outcome, i64)]) -> Status {
    let word = Word::of(&snapshot(status, 0, 1), Source::List);
    status::derive(Some(&word), false, &counts(of))
}

#[test]
fn how_a_batch_ended_is_told_by_its_recipients() {
    use Outcome::*;
    for (word, of, status) in [
        ("completed", &[(Completed, 3)][..], Status::Completed),
        (
            "completed",
            &[(Completed, 2), (Voicemail, 1)],
            Status::Completed,
        ),
        (
            "completed",
            &[(Completed, 2), (Failed, 1)],
            Status::PartiallyCompleted,
        ),
        (
            "completed",
            &[(Voicemail, 2), (Pending, 1)],
            Status::PartiallyCompleted,
        ),
        ("completed", &[(Failed, 3)], Status::Failed),
        ("completed", &[], Status::Completed),
        ("failed", &[(Failed, 3)], Status::Failed),
        ("failed", &[], Status::Failed),
        (
            "failed",
            &[(Completed, 1), (Failed, 2)],
            Status::PartiallyCompleted,
        ),
        ("cancelled", &[(Completed, 3)], Status::Cancelled),
        ("pending", &[(Pending, 3)], Status::Pending),
        (
            "pending",
            &[(Pending, 2), (InProgress, 1)],
            Status::InProgress,
        ),
        ("in_progress", &[(Completed, 3)], Status::InProgress),
        ("paused_by_martians", &[(Pending, 3)], Status::InProgress),
    ] {
        assert_eq!(listed(word, of), status, "{word} {of:?}");
    }
}

#[test]
fn a_retry_is_told_until_calls_are_made_again() {
    let none = Counts::default();
    let stale_answer = Word::of(&snapshot("completed", 1, 9), Source::Retry);
    assert_eq!(
        status::derive(Some(&stale_answer), false, &none),
        Status::Retrying
    );
    let waiting = Word::of(&snapshot("pending", 1, 9), Source::List);
    assert_eq!(
        status::derive(Some(&waiting), false, &none),
        Status::Retrying
    );
    let calling = Word::of(&snapshot("in_progress", 1, 9), Source::List);
    assert_eq!(
        status::derive(Some(&calling), false, &none),
        Status::InProgress
    );
}

#[test]
fn a_look_from_before_a_retry_does_not_undo_it() {
    let old = Word::of(&snapshot("completed", 0, 60), Source::List);
    let retried = Word::of(&snapshot("pending", 1, 61), Source::Retry);
    assert_eq!(old.max(retried), retried);
    assert!(old.is_settled() && !retried.is_settled());
    let stopped = Word::of(&snapshot("cancelled", 1, 61), Source::Cancel);
    assert!(!stopped.is_settled(), "its recipients are not known yet");
}

proptest! {
    #[test]
    fn counting_one_in_and_out_again_changes_nothing(of in proptest::collection::vec(0..Outcome::ALL.len(), 0..9)) {
        let mut counts = Counts::default();
        of.iter().for_each(|n| counts.add(Outcome::ALL[*n]));
        prop_assert_eq!(counts.total, of.len() as i64);
        of.iter().for_each(|n| counts.remove(Outcome::ALL[*n]));
        prop_assert_eq!(counts, Counts::default());
    }
}
