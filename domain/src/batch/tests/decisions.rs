//! Cancelling, retrying, observing.

use super::*;

fn cancel() -> Command {
    Command::RequestCancel { requested_by: by() }
}

fn retry() -> Command {
    Command::RequestRetry { requested_by: by() }
}

#[test]
fn a_running_batch_is_cancelled_once() {
    let mut batch = submitted();
    let list = [
        seen(0, Some("conv_0"), "completed", 60),
        seen(1, Some("conv_1"), "in_progress", 61),
        seen(2, None, "pending", 0),
    ];
    tell(&mut batch, observe("in_progress", 0, 61, &list)).unwrap();
    assert_eq!(
        tell(&mut batch, cancel()),
        Ok(vec!["batch.cancel_requested"])
    );
    assert_eq!(tell(&mut batch, cancel()), Ok(vec![]), "it is on its way");
    assert_eq!(
        tell(&mut batch, Command::AttemptCancel),
        Ok(vec!["batch.cancel_attempted"])
    );
    let report = || Command::ReportCancelled {
        batch: snapshot("cancelled", 0, 70),
    };
    let events = batch.decide(report()).unwrap();
    let [Event::Cancelled(cancelled)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(cancelled.cancelled_count, 2);
    batch.apply(events[0].clone());
    assert_eq!(tell(&mut batch, report()), Ok(vec![]));
    assert_eq!(tell(&mut batch, cancel()), Err(Error::AlreadyCancelled));
    assert_eq!(batch.status(), Status::Cancelled);
}

#[test]
fn what_cannot_be_cancelled_is_refused_by_name() {
    assert_eq!(tell(&mut requested(), cancel()), Err(Error::NotSubmitted));
    assert_eq!(tell(&mut finished(), cancel()), Err(Error::AlreadyFinished));
    let mut refused_for_good = requested();
    tell(
        &mut refused_for_good,
        Command::AttemptSubmit { looked_up: None },
    )
    .unwrap();
    tell(
        &mut refused_for_good,
        Command::ReportSubmitFailed(refused(1, false)),
    )
    .unwrap();
    assert_eq!(
        tell(&mut refused_for_good, cancel()),
        Err(Error::AlreadyFinished)
    );
    assert_eq!(tell(&mut Batch::default(), cancel()), Err(Error::Unknown));
}

#[test]
fn an_uncertain_cancellation_may_be_repeated_and_a_refused_one_asked_for_again() {
    let mut batch = submitted();
    tell(&mut batch, cancel()).unwrap();
    tell(&mut batch, Command::AttemptCancel).unwrap();
    assert_eq!(
        tell(&mut batch, Command::AttemptCancel),
        Err(Error::UnderWay)
    );
    let reason = "timed out".into();
    tell(
        &mut batch,
        Command::ReportCancelUncertain { attempt: 1, reason },
    )
    .unwrap();
    tell(&mut batch, Command::AttemptCancel).unwrap();
    tell(&mut batch, Command::ReportCancelFailed(refused(2, false))).unwrap();
    assert_eq!(
        tell(&mut batch, Command::AttemptCancel),
        Err(Error::NotRequested)
    );
    assert_eq!(
        tell(&mut batch, cancel()),
        Ok(vec!["batch.cancel_requested"])
    );
}

#[test]
fn those_who_were_not_reached_are_called_again() {
    let mut batch = finished();
    assert_eq!(batch.status(), Status::PartiallyCompleted);
    assert_eq!(tell(&mut batch, retry()), Ok(vec!["batch.retry_requested"]));
    assert_eq!(tell(&mut batch, retry()), Ok(vec![]), "it is on its way");
    tell(&mut batch, Command::AttemptRetry { looked_up: None }).unwrap();
    let report = || Command::ReportRetried {
        batch: snapshot("pending", 1, 90),
    };
    let events = batch.decide(report()).unwrap();
    let [Event::Retried(retried)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(retried.retried_count, 1, "a voicemail is not a failure");
    batch.apply(events[0].clone());
    assert_eq!(batch.status(), Status::Retrying);
    assert_eq!(tell(&mut batch, report()), Ok(vec![]));
    assert_eq!(tell(&mut batch, retry()), Err(Error::StillRunning));
}

#[test]
fn a_batch_may_be_retried_and_cancelled_again() {
    let mut batch = finished();
    for round in 1..=3_i64 {
        tell(&mut batch, retry()).unwrap();
        assert_eq!(batch.retry_from(), round - 1);
        tell(&mut batch, Command::AttemptRetry { looked_up: None }).unwrap();
        let answer = snapshot("pending", round, 100 * round);
        tell(&mut batch, Command::ReportRetried { batch: answer }).unwrap();
        assert_eq!(
            tell(&mut batch, cancel()),
            Ok(vec!["batch.cancel_requested"])
        );
        tell(&mut batch, Command::AttemptCancel).unwrap();
        let answer = snapshot("cancelled", round, 100 * round + 1);
        tell(&mut batch, Command::ReportCancelled { batch: answer }).unwrap();
        let list = [seen(1, Some("conv_1"), "failed", 61)];
        tell(
            &mut batch,
            observe("cancelled", round, 100 * round + 1, &list),
        )
        .unwrap();
    }
}

#[test]
fn what_cannot_be_retried_is_refused_by_name() {
    assert_eq!(tell(&mut requested(), retry()), Err(Error::NotSubmitted));
    assert_eq!(tell(&mut submitted(), retry()), Err(Error::StillRunning));
    let mut all_well = submitted();
    let list = [0, 1, 2].map(|n| seen(n, Some(&format!("conv_{n}")), "completed", 60));
    tell(&mut all_well, observe("completed", 0, 60, &list)).unwrap();
    assert_eq!(all_well.status(), Status::Completed);
    assert_eq!(tell(&mut all_well, retry()), Err(Error::NothingToRetry));
}

#[test]
fn an_uncertain_retry_is_looked_up_before_the_next() {
    let mut batch = finished();
    tell(&mut batch, retry()).unwrap();
    tell(&mut batch, Command::AttemptRetry { looked_up: None }).unwrap();
    let reason = "timed out".into();
    tell(
        &mut batch,
        Command::ReportRetryUncertain { attempt: 1, reason },
    )
    .unwrap();
    let blind = tell(&mut batch, Command::AttemptRetry { looked_up: None });
    assert_eq!(blind, Err(Error::Uncertain));
    tell(&mut batch, Command::AttemptRetry { looked_up: Some(1) }).unwrap();
}

#[test]
fn only_what_is_new_in_a_list_is_recorded() {
    let mut batch = submitted();
    let mut list = [
        seen(0, Some("conv_0"), "initiated", 10),
        seen(1, None, "dispatched", 10),
        seen(2, None, "pending", 0),
    ];
    let whole = observe("in_progress", 0, 10, &list);
    assert_eq!(tell(&mut batch, whole.clone()), Ok(vec!["batch.observed"]));
    assert_eq!(
        tell(&mut batch, whole.clone()),
        Ok(vec![]),
        "another replica saw the same"
    );
    list[1] = seen(1, Some("conv_1"), "initiated", 11);
    let events = batch.decide(observe("in_progress", 0, 11, &list)).unwrap();
    let [Event::Observed(observed)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(observed.recipients, [list[1].clone()]);
    batch.apply(events[0].clone());
    assert_eq!(
        tell(&mut batch, whole),
        Ok(vec![]),
        "it was slow, and tells nothing new"
    );
}

#[test]
fn a_list_of_another_batch_is_refused() {
    let mut other = submitted();
    let list = Command::Observe {
        batch: Snapshot {
            id: "btcal_9".into(),
            ..snapshot("pending", 0, 1)
        },
        recipients: vec![],
    };
    assert!(matches!(
        tell(&mut other, list),
        Err(Error::SubmittedAsAnother { .. })
    ));
    let too_early = tell(&mut requested(), observe("pending", 0, 1, &[]));
    assert_eq!(too_early, Err(Error::NotSubmitted));
}

#[test]
fn a_batch_made_elsewhere_is_known_by_its_id_and_then_by_its_name() {
    let mut batch = Batch::default();
    let discover = |through: &str, batch: Snapshot| {
        Command::Discover(Discovered {
            through: through.into(),
            batch,
        })
    };
    let id_only = Snapshot {
        id: "btcal_1".into(),
        ..Snapshot::default()
    };
    let webhook = discover("webhook", id_only);
    assert_eq!(
        tell(&mut batch, webhook.clone()),
        Ok(vec!["batch.discovered"])
    );
    assert_eq!(tell(&mut batch, webhook), Ok(vec![]));
    let workspace = discover("workspace", snapshot("in_progress", 0, 5));
    assert_eq!(
        tell(&mut batch, workspace.clone()),
        Ok(vec!["batch.discovered"])
    );
    assert_eq!(tell(&mut batch, workspace), Ok(vec![]));
    let mut line = seen(0, None, "pending", 5);
    line.dynamic_variables.insert("name".into(), "Ana".into());
    let events = batch
        .decide(observe("in_progress", 0, 6, &[line.clone()]))
        .unwrap();
    let [Event::Observed(observed)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        observed.recipients,
        [line],
        "nobody else knows the variables"
    );
    assert_eq!(
        tell(&mut batch, cancel()),
        Ok(vec!["batch.cancel_requested"])
    );
    assert_eq!(discovered_id("btcal_1"), discovered_id("btcal_1"));
    assert_ne!(discovered_id("btcal_1"), discovered_id("btcal_2"));
}
