//! The fold, without a database: all rows are in memory all the time.

use domain::batch::{self, Discovered, Refused, Status, Uncertain};
use domain::call::Outcome;
use domain::event::Recorded;
use proptest::prelude::*;

use super::fold::Tables;
use super::row::Batch;
use crate::campaign::Campaign;
use crate::facts::*;

/// Folds facts in this order, so many at a time.
fn fold(facts: &[Told], at_a_time: usize) -> Tables {
    let mut tables = Tables::default();
    for few in ledger(facts).chunks(at_a_time) {
        let few: Vec<_> = few.iter().collect();
        tables.take_facts(&few);
        tables.take_recipients(&few);
        tables.settle(&few);
        tables.written();
    }
    tables
}

fn ledger(facts: &[Told]) -> Vec<Recorded> {
    let record = |(n, told): (usize, &Told)| {
        let fact = told.fact.clone();
        Recorded {
            position: n as i64 + 1,
            aggregate_type: fact.stream.aggregate_type.to_owned(),
            aggregate_id: fact.stream.aggregate_id,
            sequence: 1,
            event: fact.event,
            occurred_at: fact.occurred_at.unwrap_or(at(0)),
            recorded_at: at(1_000),
            delivery_id: None,
            provider: told.provider,
        }
    };
    facts.iter().enumerate().map(record).collect()
}

fn only(tables: &Tables) -> &Batch {
    assert_eq!(tables.batches.now.len(), 1);
    tables.batches.now.values().next().unwrap()
}

fn statuses(tables: &Tables) -> Vec<Outcome> {
    let mut rows: Vec<_> = tables.recipients.now.values().collect();
    rows.sort_by_key(|row| row.place);
    rows.into_iter().map(|row| row.status).collect()
}

const ENDS: [Outcome; 4] = [
    Outcome::Completed,
    Outcome::Completed,
    Outcome::Voicemail,
    Outcome::Failed,
];

#[test]
fn an_order_is_pending_until_the_provider_says_otherwise() {
    let campaign = Campaign::new(1, 3);
    let tables = fold(&[campaign.requested()], 1);
    let row = only(&tables);
    assert_eq!((row.status, row.batch_id.as_ref()), (Status::Pending, None));
    assert_eq!((row.counts.total, row.counts.pending), (3, 3));
    assert_eq!((row.has_open_order, row.is_unsettled), (true, false));
    assert_eq!(row.shown_id(), campaign.id());

    let tables = fold(&campaign.submitted(), 9);
    let row = only(&tables);
    assert_eq!(row.shown_id(), "btcal_1");
    assert_eq!((row.has_open_order, row.is_unsettled), (false, true));
    assert_eq!(row.agent_name.as_deref(), Some("Cobranzas"));
    assert_eq!((row.group_id, row.created_at), (Some(55), at(1)));
}

#[test]
fn what_the_provider_refused_for_good_has_failed() {
    let campaign = Campaign::new(1, 3);
    let refused = Refused {
        attempt: 1,
        status: Some(422),
        message: "no".into(),
        retryable: false,
    };
    let mut facts = campaign.submitted();
    facts.pop();
    let uncertain = Uncertain {
        attempt: 1,
        reason: "timed out".into(),
    };
    facts.push(campaign.event(batch::Event::SubmitUncertain(uncertain), 3));
    assert!(only(&fold(&facts, 1)).has_open_order);
    facts.push(campaign.event(batch::Event::SubmitFailed(refused), 4));
    let tables = fold(&facts, 1);
    let row = only(&tables);
    assert_eq!(row.status, Status::Failed);
    assert_eq!((row.has_open_order, row.is_unsettled), (false, false));
}

#[test]
fn a_campaign_ends_as_its_recipients_did() {
    let campaign = Campaign::new(1, 4);
    let facts = [campaign.stream(), campaign.webhooks()].concat();
    let tables = fold(&facts, 100);
    let row = only(&tables);
    assert_eq!(row.status, Status::PartiallyCompleted);
    assert_eq!(statuses(&tables), ENDS);
    let counts = row.counts;
    assert_eq!(
        (
            counts.total,
            counts.completed,
            counts.voicemail,
            counts.failed
        ),
        (4, 2, 1, 1)
    );
    assert_eq!((row.retry_count, row.is_unsettled), (1, false));
    let second: Vec<_> = tables
        .attempts
        .now
        .values()
        .filter(|row| row.client_id == Some(1))
        .collect();
    let outcomes: Vec<_> = second.iter().map(|row| row.status).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Completed]);
    assert_eq!(second[0].failure_reason.as_deref(), Some("no-answer"));
    assert_eq!(second[1].duration_secs, Some(30));
    assert!(
        tables
            .attempts
            .now
            .values()
            .all(|row| row.missing_since.is_none())
    );
}

#[test]
fn a_call_that_the_list_ended_and_no_webhook_told_of_is_missing() {
    let campaign = Campaign::new(1, 4);
    let tables = fold(&campaign.stream(), 3);
    assert_eq!(statuses(&tables), ENDS, "the list alone is enough");
    let missing = tables.attempts.now.values();
    assert_eq!(missing.filter(|row| row.missing_since.is_some()).count(), 6);
}

#[test]
fn a_provider_that_keeps_not_our_ids_is_understood_by_the_numbers() {
    let ours = Campaign::new(1, 8);
    let theirs = Campaign {
        keeps_ids: false,
        ..ours
    };
    let facts = |campaign: Campaign| [campaign.webhooks(), campaign.stream()].concat();
    let [ours, theirs] = [ours, theirs].map(|campaign| fold(&facts(campaign), 5));
    assert_eq!(theirs.recipients.now.len(), 8);
    assert_eq!(statuses(&theirs), statuses(&ours));
    assert_eq!(only(&theirs).counts, only(&ours).counts);
    for row in theirs.recipients.now.values() {
        assert!(row.id.starts_with("rcpt_theirs"), "{row:?}");
        assert!(row.client_id.is_some() && !row.variables.is_empty());
    }
}

#[test]
fn a_discovered_batch_that_turns_out_to_be_an_order_is_shown_once() {
    let campaign = Campaign::new(1, 4);
    let found = batch::discovered_id(&campaign.provider_id());
    let discovered = Discovered {
        through: "workspace".into(),
        batch: campaign.snapshot("in_progress", 0, 15),
    };
    let discovered = batch::Event::Discovered(Box::new(discovered));
    let discovered = campaign.event_of(found.clone(), discovered, 16);
    for facts in [
        [vec![discovered.clone()], campaign.stream()].concat(),
        [campaign.stream(), vec![discovered]].concat(),
    ] {
        let tables = fold(&facts, 2);
        assert_eq!(tables.batches.now[&found].duplicate_of, Some(campaign.id()));
        assert_eq!(tables.batches.now[&campaign.id()].duplicate_of, None);
    }
}

/// The stream in its order, the webhooks wherever the dice put them.
fn any_order(campaign: Campaign) -> impl Strategy<Value = Vec<Told>> {
    let webhooks = Just(campaign.webhooks()).prop_shuffle();
    webhooks.prop_flat_map(move |webhooks| {
        let stream = campaign.stream();
        let places = proptest::collection::vec(0..=webhooks.len(), stream.len());
        (Just(webhooks), Just(stream), places).prop_map(|(webhooks, stream, mut places)| {
            places.sort_unstable();
            let mut facts = webhooks;
            for (place, event) in places.into_iter().zip(stream).rev() {
                facts.insert(place, event);
            }
            facts
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_the_same_facts_ends_in_the_same_rows(
        (facts, keeps_ids) in any::<bool>().prop_flat_map(|keeps_ids| {
            let campaign = Campaign { keeps_ids, ..Campaign::new(1, 8) };
            (any_order(campaign), Just(keeps_ids))
        }),
        at_a_time in 1..20_usize,
    ) {
        let campaign = Campaign { keeps_ids, ..Campaign::new(1, 8) };
        let in_order = [campaign.stream(), campaign.webhooks()].concat();
        let (expected, tables) = (fold(&in_order, 1_000), fold(&facts, at_a_time));
        prop_assert_eq!(&tables.batches.now, &expected.batches.now);
        prop_assert_eq!(&tables.recipients.now, &expected.recipients.now);
        prop_assert_eq!(&tables.attempts.now, &expected.attempts.now);
    }
}
