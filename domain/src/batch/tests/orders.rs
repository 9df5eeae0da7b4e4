//! Sending an order: never twice blindly.

use super::*;

#[test]
fn an_order_is_requested_attempted_and_submitted() {
    let mut batch = requested();
    assert_eq!(batch.status(), Status::Pending);
    let attempt = || Command::AttemptSubmit { looked_up: None };
    assert_eq!(
        tell(&mut batch, attempt()),
        Ok(vec!["batch.submit_attempted"])
    );
    let report = || Command::ReportSubmitted {
        adopted: false,
        batch: snapshot("pending", 0, 1),
    };
    assert_eq!(tell(&mut batch, report()), Ok(vec!["batch.submitted"]));
    assert_eq!(batch.provider_batch_id(), Some("btcal_1"));
    assert_eq!(tell(&mut batch, report()), Ok(vec![]), "it is done");
    assert_eq!(tell(&mut batch, attempt()), Err(Error::AlreadySubmitted));
}

#[test]
fn the_same_order_twice_is_one_and_another_under_its_id_is_refused() {
    let mut batch = requested();
    assert_eq!(tell(&mut batch, Command::Request(order(3))), Ok(vec![]));
    let other = tell(&mut batch, Command::Request(order(2)));
    assert_eq!(other, Err(Error::AlreadyRequested));
}

#[test]
fn an_order_has_1_to_10_000_recipients() {
    let batch = Batch::default();
    for n in [0, RECIPIENTS_MAX + 1] {
        let refused = batch.decide(Command::Request(order(n)));
        assert_eq!(refused, Err(Error::RecipientsOutOfRange), "{n}");
    }
    assert!(
        batch
            .decide(Command::Request(order(RECIPIENTS_MAX)))
            .is_ok()
    );
}

#[test]
fn only_one_may_send_at_a_time() {
    let mut batch = requested();
    tell(&mut batch, Command::AttemptSubmit { looked_up: None }).unwrap();
    for looked_up in [None, Some(1)] {
        let second = tell(&mut batch, Command::AttemptSubmit { looked_up });
        assert_eq!(second, Err(Error::UnderWay));
    }
}

#[test]
fn an_uncertain_attempt_is_looked_up_before_the_next() {
    let mut batch = requested();
    tell(&mut batch, Command::AttemptSubmit { looked_up: None }).unwrap();
    let uncertain = || Command::ReportSubmitUncertain {
        attempt: 1,
        reason: "timed out".into(),
    };
    assert_eq!(
        tell(&mut batch, uncertain()),
        Ok(vec!["batch.submit_uncertain"])
    );
    assert_eq!(tell(&mut batch, uncertain()), Ok(vec![]));
    let blind = tell(&mut batch, Command::AttemptSubmit { looked_up: None });
    assert_eq!(blind, Err(Error::Uncertain));
    tell(&mut batch, Command::AttemptSubmit { looked_up: Some(1) }).unwrap();
    assert_eq!(batch.submit(), &Order::Attempted(2));
    assert_eq!(
        tell(&mut batch, uncertain()),
        Ok(vec![]),
        "that was the first"
    );
}

#[test]
fn what_was_found_at_the_provider_is_adopted() {
    let mut batch = requested();
    tell(&mut batch, Command::AttemptSubmit { looked_up: None }).unwrap();
    let reason = "killed".into();
    tell(
        &mut batch,
        Command::ReportSubmitUncertain { attempt: 1, reason },
    )
    .unwrap();
    let found = Command::ReportSubmitted {
        adopted: true,
        batch: snapshot("in_progress", 0, 9),
    };
    let events = batch.decide(found).unwrap();
    let [Event::Submitted(submitted)] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(submitted.adopted && submitted.attempt == 1);
}

#[test]
fn a_second_batch_for_one_order_is_not_taken_for_the_first() {
    let mut batch = submitted();
    let other = Snapshot {
        id: "btcal_2".into(),
        ..snapshot("pending", 0, 2)
    };
    let report = tell(
        &mut batch,
        Command::ReportSubmitted {
            adopted: false,
            batch: other,
        },
    );
    assert!(matches!(report, Err(Error::SubmittedAsAnother { .. })));
}

#[test]
fn a_refusal_for_now_is_tried_again_and_one_for_good_is_not() {
    let mut batch = requested();
    tell(&mut batch, Command::AttemptSubmit { looked_up: None }).unwrap();
    tell(&mut batch, Command::ReportSubmitFailed(refused(1, true))).unwrap();
    assert_eq!(batch.status(), Status::Pending);
    tell(&mut batch, Command::AttemptSubmit { looked_up: None }).unwrap();
    let failed = || Command::ReportSubmitFailed(refused(2, false));
    assert_eq!(tell(&mut batch, failed()), Ok(vec!["batch.submit_failed"]));
    assert_eq!(tell(&mut batch, failed()), Ok(vec![]));
    assert_eq!(batch.status(), Status::Failed);
    let again = tell(&mut batch, Command::AttemptSubmit { looked_up: Some(1) });
    assert_eq!(again, Err(Error::SubmitRefused));
}

#[test]
fn nothing_is_reported_of_an_attempt_that_was_not_made() {
    let mut batch = requested();
    let uncertain = Command::ReportSubmitUncertain {
        attempt: 1,
        reason: "?".into(),
    };
    assert_eq!(tell(&mut batch, uncertain), Err(Error::NotAttempted));
    let failed = Command::ReportSubmitFailed(refused(1, true));
    assert_eq!(tell(&mut batch, failed), Err(Error::NotAttempted));
    let nobody = Batch::default().decide(Command::AttemptCancel);
    assert_eq!(nobody, Err(Error::Unknown));
}

#[test]
fn an_order_recognises_its_own_batch_at_the_provider() {
    let order = order(3);
    assert!(order.resembles(&snapshot("pending", 0, 1)));
    let older = Snapshot {
        created_at_unix: CREATED - 3_600,
        ..snapshot("completed", 0, 1)
    };
    assert!(
        !order.resembles(&older),
        "an older one of the name is another order"
    );
    let other = Snapshot {
        name: "Noviembre".into(),
        ..snapshot("pending", 0, 1)
    };
    assert!(!order.resembles(&other));
}

#[test]
fn recipients_are_recognised_by_our_ids_or_else_by_their_numbers() {
    let order = order(3);
    let list: Vec<_> = (0..3).map(|n| seen(n, None, "pending", 1)).collect();
    assert!(order.has_recipients(&list));
    assert!(!order.has_recipients(&list[..2]));
    let with_ids = |id: fn(usize) -> String| -> Vec<_> {
        let ids = list.iter().enumerate();
        ids.map(|(n, seen)| RecipientSeen {
            id: id(n),
            ..seen.clone()
        })
        .collect()
    };
    let theirs = with_ids(|n| format!("rcpt_{n}"));
    assert!(
        order.has_recipients(&theirs),
        "the provider's own ids, our numbers"
    );
    let another_of_ours = with_ids(|n| format!("rcpt_{}_{n}", "0".repeat(32)));
    assert!(
        !order.has_recipients(&another_of_ours),
        "the same people in another order"
    );
}
