//! The fold, without a database.

use domain::effect::{self, Remedy};
use domain::event::Recorded;
use domain::message;
use domain::otp::Status;
use proptest::prelude::*;

use super::Challenge;
use super::fold::Tables;
use crate::facts::*;

fn recorded((n, told): (usize, &Told)) -> Recorded {
    let fact = told.fact.clone();
    Recorded {
        position: n as i64 + 1,
        aggregate_type: fact.stream.aggregate_type.to_owned(),
        aggregate_id: fact.stream.aggregate_id,
        sequence: 1,
        event: fact.event,
        occurred_at: fact.occurred_at.unwrap(),
        recorded_at: at(1_000),
        delivery_id: None,
        provider: told.provider,
    }
}

fn fold(facts: &[Told]) -> Challenge {
    let mut tables = Tables::default();
    for recorded in facts.iter().enumerate().map(recorded) {
        tables.fold(&recorded, &phones());
        tables.settle();
    }
    tables.challenges.now.remove("otp_1").unwrap()
}

fn failed(remedy: Remedy, secs: i64) -> Told {
    let failed = effect::Failed {
        attempt: 1,
        status: Some(400),
        code: Some("21211".into()),
        message: "Invalid 'To' Phone Number".into(),
        remedy,
        retry_at: None,
    };
    of_code(1, effect::Event::Failed(failed), secs)
}

#[test]
fn a_challenge_stands_as_far_as_it_has_come() {
    let whole = whole_code(1);
    let stood: Vec<_> = (1..=8).map(|n| fold(&whole[..n]).status).collect();
    use Status::*;
    assert_eq!(
        stood,
        [
            Requested, Sent, Sent, Sent, Delivered, Delivered, Delivered, Verified
        ]
    );
    let row = fold(&whole);
    assert_eq!((row.attempts, row.attempts_max), (2, 3));
    assert_eq!(row.provider_message_id.as_deref(), Some("SMcode1"));
    assert_eq!((row.created_at, row.expires_at), (at(60), at(360)));
    assert_eq!(
        (row.sent_at, row.delivered_at, row.verified_at),
        (Some(at(61)), Some(at(65)), Some(at(75)))
    );
}

#[test]
fn without_a_guess_left_it_is_exhausted_unless_the_last_was_right() {
    let guesses = |n| (1..=n).map(|attempt| code_attempted(1, attempt, 70));
    let mut facts = vec![code_requested(1, 60)];
    facts.extend(guesses(2));
    assert_eq!(fold(&facts).status, Status::Requested);
    facts.extend(guesses(3).skip(2));
    assert_eq!(fold(&facts).status, Status::Exhausted);
    facts.push(code_verified(1, 3, 70));
    assert_eq!(fold(&facts).status, Status::Verified);
}

#[test]
fn what_is_tried_again_has_not_failed() {
    let mut facts = vec![code_requested(1, 60), failed(Remedy::Retry, 61)];
    assert_eq!(fold(&facts).status, Status::Requested);
    facts.push(failed(Remedy::DeadLetter, 62));
    let row = fold(&facts);
    assert_eq!((row.status, row.failed_at), (Status::Failed, Some(at(62))));
    assert_eq!(row.error_code.as_deref(), Some("21211"));
    let retried = effect::Retried {
        retried_by: "user:7".into(),
    };
    facts.push(of_code(1, effect::Event::Retried(retried), 63));
    let row = fold(&facts);
    assert_eq!((row.status, row.failed_at), (Status::Requested, None));
    facts.push(code_sent(1, "SM1", 64));
    assert_eq!(fold(&facts).status, Status::Sent);
    let dropped = effect::Dropped {
        reason: "it has expired".into(),
    };
    let dropped = of_code(1, effect::Event::Dropped(dropped), 61);
    assert_eq!(
        fold(&[code_requested(1, 60), dropped]).status,
        Status::Failed
    );
}

#[test]
fn a_carrier_that_could_not_deliver_it_is_heard() {
    let mut facts = whole_code(1)[..2].to_vec();
    facts.push(sms_status("SMcode1", message::Status::Undelivered, 64));
    let row = fold(&facts);
    assert_eq!((row.status, row.failed_at), (Status::Failed, Some(at(64))));
    assert_eq!(row.error_code.as_deref(), Some("63016"));
    facts.push(sms_status("SMcode1", message::Status::Delivered, 65));
    let row = fold(&facts);
    assert_eq!((row.status, row.failed_at), (Status::Delivered, None));
}

proptest! {
    /// Each stream has its order, but callbacks come whenever they like, in
    /// one batch with the others or not.
    #[test]
    fn any_order_of_callbacks_ends_in_the_same_row(
        order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle(),
        places in proptest::collection::vec(0..6_usize, 5),
    ) {
        let ours: Vec<_> = whole_code(1).into_iter().filter(|it| it.provider.is_none()).collect();
        use message::Status::*;
        let callbacks = [Queued, Sent, Undelivered, Delivered, Failed];
        let callback = |n: usize| sms_status("SMcode1", callbacks[n], 62 + n as i64);
        let mut facts = ours.clone();
        for (n, place) in order.into_iter().zip(places) {
            facts.insert(place, callback(n));
        }
        let expected = [ours, (0..5).map(callback).collect()].concat();
        prop_assert_eq!(fold(&facts), fold(&expected));
    }
}
