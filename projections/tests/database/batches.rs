//! Batches: the same rows whatever the order, and little work for each event.

use std::time::{Duration, Instant};

use domain::call::Outcome;
use projections::batches;
use projections::engine::Rebuild;
use sqlx::PgPool;

use crate::campaign::Campaign;
use crate::facts::Told;
use crate::harness::*;

const NAME: &str = "batches";
const TABLES: [&str; 5] = [
    "batches",
    "batch_recipients",
    "call_attempts",
    "batch_calls",
    "batch_legs",
];

async fn rows(pool: &PgPool) -> Vec<String> {
    let mut rows = Vec::new();
    for table in TABLES {
        let sql = format!("select '{table}: ' || t::text from {table} t order by 1");
        rows.extend(
            sqlx::query_scalar::<_, String>(&sql)
                .fetch_all(pool)
                .await
                .unwrap(),
        );
    }
    rows
}

/// Two campaigns at once, each stream in its order and the webhooks anywhere.
pub fn shuffled(dice: &mut Dice) -> Vec<Told> {
    let theirs = Campaign {
        keeps_ids: false,
        ..Campaign::new(2, 6)
    };
    let campaigns = [Campaign::new(1, 9), theirs];
    let mut facts: Vec<_> = campaigns.iter().flat_map(Campaign::webhooks).collect();
    dice.shuffle(&mut facts);
    for campaign in campaigns {
        let stream = campaign.stream();
        let mut places: Vec<_> = stream.iter().map(|_| dice.below(facts.len() + 1)).collect();
        places.sort_unstable();
        for (place, event) in places.into_iter().zip(stream).rev() {
            facts.insert(place, event);
        }
    }
    facts
}

#[tokio::test]
async fn any_order_of_the_same_facts_ends_in_the_same_rows_and_so_does_replay() {
    let mut expected = None;
    for seed in 0..4 {
        let database = Database::create().await;
        let engine = database.engine();
        let mut dice = Dice(seed);
        let facts = shuffled(&mut dice);
        let mut rest = facts.as_slice();
        while !rest.is_empty() {
            let (some, later) = rest.split_at(rest.len().min(1 + dice.below(9)));
            append(&database.pool, some).await;
            engine.run_once(NAME).await.unwrap();
            rest = later;
        }
        let live = rows(&database.pool).await;
        assert!(live.len() > 60, "{live:#?}");
        let Rebuild::Done { differences, .. } = engine.rebuild(NAME, |_| ()).await.unwrap() else {
            panic!("not rebuilt")
        };
        assert_eq!(differences, Some(vec![]), "seed {seed}");
        assert_eq!(rows(&database.pool).await, live, "seed {seed}");
        assert_eq!(expected.get_or_insert_with(|| live.clone()), &live);
    }
}

#[tokio::test]
async fn a_large_batch_is_folded_set_wise_and_a_small_change_rewrites_little() {
    let database = Database::create().await;
    let engine = database.engine();
    let campaign = Campaign::new(1, 10_000);
    let all = |status: &str, secs| {
        (0..campaign.recipients)
            .map(|r| campaign.seen(r, Some(0), status, secs))
            .collect()
    };
    append(&database.pool, &campaign.submitted()).await;
    let submit = folded(&engine).await;
    let observed = campaign.observed("in_progress", 0, 20, all("initiated", 10));
    append(&database.pool, &[observed]).await;
    let observe = folded(&engine).await;
    assert_eq!(count(&database.pool, "call_attempts").await, 10_000);

    let before = versions(&database.pool).await;
    let five = (7..12).map(|r| campaign.seen(r, Some(0), "completed", 40));
    let observed = campaign.observed("in_progress", 0, 40, five.collect());
    append(&database.pool, &[observed]).await;
    let five = folded(&engine).await;
    append(&database.pool, &[campaign.reported(3, 0, 12, 20)]).await;
    let one = folded(&engine).await;
    let after = versions(&database.pool).await;
    let rewritten = after.difference(&before).count();
    assert_eq!(rewritten, 2 * (5 + 1), "recipients and their calls");

    println!("submit {submit:?}, observe all {observe:?}, five {five:?}, a report {one:?}");
    // Wide enough for a busy machine; row by row takes minutes.
    assert!(submit + observe < Duration::from_secs(20));
    assert!(five + one < Duration::from_secs(5));
    let mut conn = database.pool.acquire().await.unwrap();
    let row = batches::find(&mut conn, "btcal_1").await.unwrap().unwrap();
    assert_eq!((row.counts.completed, row.counts.in_progress), (6, 9_994));
}

async fn folded(engine: &projections::Engine) -> Duration {
    let begun = Instant::now();
    engine.run_once(NAME).await.unwrap();
    begun.elapsed()
}

/// Which transaction wrote each row.
async fn versions(pool: &PgPool) -> std::collections::HashSet<String> {
    let sql = "select 'r ' || id || ' ' || xmin::text from batch_recipients
               union all select 'a ' || conversation_id || ' ' || xmin::text from call_attempts";
    let versions: Vec<String> = sqlx::query_scalar(sql).fetch_all(pool).await.unwrap();
    versions.into_iter().collect()
}

#[tokio::test]
async fn a_call_that_is_in_no_batch_leaves_at_most_a_narrow_row() {
    let database = Database::create().await;
    let engine = database.engine();
    let calls: Vec<_> = (1..=20)
        .flat_map(|n| {
            let mut facts = crate::facts::whole_call(n);
            let mut incoming = crate::facts::completed(n + 100);
            incoming.batch_id = None;
            incoming.direction = Some(domain::Direction::Inbound);
            facts.push(crate::facts::report(incoming, 50));
            facts
        })
        .collect();
    append(&database.pool, &calls).await;
    engine.run_once(NAME).await.unwrap();
    for (table, expected) in TABLES.into_iter().zip([0, 0, 0, 20, 20]) {
        assert_eq!(count(&database.pool, table).await, expected, "{table}");
    }
}

#[tokio::test]
async fn a_batch_of_which_two_streams_tell_is_found_and_listed_once() {
    let database = Database::create().await;
    let campaign = Campaign::new(1, 4);
    let found = domain::batch::discovered_id(&campaign.provider_id());
    let discovered = domain::batch::Discovered {
        through: "webhook".into(),
        batch: campaign.snapshot("in_progress", 0, 15),
    };
    let discovered = domain::batch::Event::Discovered(Box::new(discovered));
    append(
        &database.pool,
        &[campaign.event_of(found.clone(), discovered, 16)],
    )
    .await;
    let engine = database.engine();
    engine.run_once(NAME).await.unwrap();
    let mut conn = database.pool.acquire().await.unwrap();
    let alone = batches::find(&mut conn, "btcal_1").await.unwrap().unwrap();
    assert_eq!((alone.id.as_str(), alone.is_unsettled), (&*found, true));

    append(&database.pool, &campaign.stream()).await;
    engine.run_once(NAME).await.unwrap();
    for id in ["btcal_1", &found, &campaign.id()] {
        let row = batches::find(&mut conn, id).await.unwrap().unwrap();
        assert_eq!(row.id, campaign.id(), "{id}");
    }
    let any = batches::Filter::default();
    let all = batches::list(&mut conn, &any, None, 9).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(batches::unsettled(&mut conn, None, 9).await.unwrap(), []);
    let missing = batches::missing_calls(&mut conn, crate::facts::at(0), crate::facts::at(999), 99);
    assert_eq!(missing.await.unwrap().len(), 6);
    assert_eq!(batches::find(&mut conn, "btcal_2").await.unwrap(), None);
}

#[tokio::test]
async fn who_was_called_is_shown_with_what_was_said() {
    let database = Database::create().await;
    let campaign = Campaign::new(1, 4);
    append(&database.pool, &campaign.stream()).await;
    append(&database.pool, &campaign.webhooks()).await;
    database.engine().settle().await.unwrap();
    let mut conn = database.pool.acquire().await.unwrap();
    let shown = batches::recipients(&mut conn, &campaign.id())
        .await
        .unwrap();
    let phones: Vec<_> = shown.iter().map(|row| row.phone_number.clone()).collect();
    let ordered: Vec<_> = (0..4).map(|r| Some(campaign.phone(r))).collect();
    assert_eq!(phones, ordered);

    let second = &shown[1];
    assert_eq!(second.status, Outcome::Completed);
    assert_eq!(second.conversation_id, Some(campaign.conversation(1, 1)));
    assert_eq!(
        (second.call_duration, second.duration_secs),
        (Some(30), Some(30))
    );
    assert_eq!((second.attempts, second.client_id), (2, Some(1)));
    assert_eq!(second.variables["name"], "Cliente 1");
    assert!(second.has_report && second.has_audio && second.summary.is_some());
    let said: Vec<_> = second.transcript.iter().map(|turn| &*turn.role).collect();
    assert_eq!(said, ["agent", "user"]);

    let never = &shown[3];
    assert_eq!((never.status, never.has_report), (Outcome::Failed, false));
    assert_eq!((never.duration_secs, never.transcript.len()), (None, 0));
    let of_calls = [
        campaign.conversation(3, 0),
        "CA1x0x0".into(),
        "other".into(),
    ];
    let of_calls: Vec<_> = of_calls.iter().map(String::as_str).collect();
    let found = batches::of_calls(&mut conn, &of_calls).await.unwrap();
    assert_eq!(found, [campaign.id()]);
}
