//! Following the ledger: each event once, whatever happens on the way.

use std::time::Duration;

use domain::Provider;
use domain::message::Status;
use projections::Progress;
use projections::engine::{Rebuild, State};
use sqlx::Connection;

use crate::facts::*;
use crate::harness::*;
use crate::talk::whole_talk;

const NAME: &str = "interactions";

/// A ledger's worth of everything, in an order that the seed decides.
pub fn mixture(dice: &mut Dice) -> Vec<Told> {
    let mut facts: Vec<_> = (1..=6).flat_map(whole_call).collect();
    facts.extend([failed(7, 30), progressed(7, 1, "no-answer", 29)]);
    for contact in [CLIENT, "+573007654321"] {
        facts.extend(whole_chat(contact));
        facts.extend([
            received(contact, None, "¿Hola?", 60),
            received(contact, None, "¿Hola?", 60),
        ]);
    }
    facts.extend(whole_sms("SM7"));
    facts.extend(whole_talk(CLIENT));
    facts.extend(whole_talk("+573007654321"));
    facts.extend((1..=3).flat_map(whole_code));
    facts.extend([
        written(Provider::Twilio, CLIENT, "SMours", 41),
        status(CLIENT, "SMours", Status::Delivered, 42),
        written(Provider::Builderbot, CLIENT, "BB1", 43),
        act("user:1", "login", 5),
        act("service", "reveal_interaction", 6),
        person(1),
        person(2),
    ]);
    dice.shuffle(&mut facts);
    facts
}

#[tokio::test]
async fn replay_gives_the_same_rows_as_live_running() {
    for seed in 0..6 {
        let database = Database::create().await;
        let engine = database.engine();
        let mut dice = Dice(seed);
        let mut facts = mixture(&mut dice);
        while !facts.is_empty() {
            let some = 1 + dice.below(9);
            let some = facts.split_off(facts.len().saturating_sub(some));
            append(&database.pool, &some).await;
            engine.settle().await.unwrap();
        }
        let live = dump(&database.pool).await;
        assert!(live.len() > 60, "{live:#?}");
        for name in engine.names() {
            let Rebuild::Done { differences, .. } = engine.rebuild(name, |_| ()).await.unwrap()
            else {
                panic!("{name} was not rebuilt")
            };
            assert_eq!(differences, Some(vec![]), "{name}, seed {seed}");
        }
        assert_eq!(dump(&database.pool).await, live, "seed {seed}");
    }
}

#[tokio::test]
async fn what_fails_or_dies_half_way_counts_nothing_twice() {
    let database = Database::create().await;
    let tampered = Tampered::new(1, 1);
    let engine = tampered.engine(&database.pool);
    append(&database.pool, &whole_call(1)).await;

    let error = engine.run_once(NAME).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("positions 1 to 6"),
        "{error:#}"
    );
    assert_eq!(count(&database.pool, "interaction_events").await, 0);
    let status = engine.statuses().await.unwrap().remove(0);
    assert_eq!(status.state, State::Stopped);
    assert!(status.error.unwrap().contains("caught fire"));

    // Cut off in the middle of a turn, as by a kill.
    for polls in 1..40 {
        cut_off(engine.run_once(NAME), polls).await;
    }
    // The server may take a moment to notice that the other sessions are gone.
    while engine.run_once(NAME).await.unwrap() == Progress::HeldElsewhere {
        tokio::task::yield_now().await;
    }
    engine.settle().await.unwrap();
    assert_eq!(count(&database.pool, "interaction_events").await, 6);
    assert_eq!(engine.statuses().await.unwrap()[0].state, State::Live);
    assert_eq!(engine.run_once(NAME).await.unwrap(), Progress::Idle);
}

/// Polls a future so many times and then drops it.
async fn cut_off<T>(future: impl Future<Output = T>, polls: usize) {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            std::task::Poll::Pending if left > 0 => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_on_one_ledger_do_the_work_of_one() {
    let database = Database::create().await;
    let engines = [database.engine(), database.engine()];
    let appending = async {
        for seed in 0..4 {
            for few in mixture(&mut Dice(seed)).chunks(5) {
                append(&database.pool, few).await;
            }
        }
    };
    let following = |engine: projections::Engine| {
        tokio::spawn(async move {
            for _ in 0..150 {
                for (name, turn) in engine.run_all(engine.names()).await {
                    turn.unwrap_or_else(|error| panic!("{name}: {error:#}"));
                }
            }
        })
    };
    let [a, b] = engines.clone().map(following);
    appending.await;
    a.await.unwrap();
    b.await.unwrap();
    engines[0].settle().await.unwrap();
    let live = dump(&database.pool).await;
    for name in engines[0].names() {
        engines[0].rebuild(name, |_| ()).await.unwrap();
    }
    assert_eq!(dump(&database.pool).await, live);
}

#[tokio::test]
async fn one_replica_leads_and_the_others_go_on() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &whole_call(1)).await;
    engine.settle().await.unwrap();
    let mut leading = database.pool.acquire().await.unwrap();
    let mut leader = leading.begin().await.unwrap();
    sqlx::query("select from projection_checkpoints for update")
        .execute(&mut *leader)
        .await
        .unwrap();
    assert_eq!(
        engine.run_once(NAME).await.unwrap(),
        Progress::HeldElsewhere
    );
    leader.rollback().await.unwrap();
    assert_eq!(engine.run_once(NAME).await.unwrap(), Progress::Idle);
}

#[tokio::test]
async fn what_wants_nothing_of_a_page_is_moved_on_unless_it_is_not_ours_to_move() {
    let database = Database::create().await;
    let engine = database.engine();
    let turn = async || -> std::collections::BTreeMap<_, _> {
        let turns = engine.run_all(engine.names()).await.into_iter();
        turns.map(|(name, turn)| (name, turn.unwrap())).collect()
    };
    let positions = async |at: i64| {
        let sql = "select name from projection_checkpoints where position = $1 order by name";
        let names = sqlx::query_scalar(sql).bind(at).fetch_all(&database.pool);
        names.await.unwrap() as Vec<String>
    };
    append(&database.pool, &whole_call(1)).await;
    turn().await;
    let all = positions(6).await;
    assert_eq!(all.len(), engine.names().count());

    append(&database.pool, &whole_call(2)).await;
    let (events, position) = (0, 12);
    let turns = turn().await;
    assert_eq!(turns["users"], Progress::Worked { events, position });
    assert_ne!(turns[NAME], turns["users"]);
    assert_eq!(positions(12).await, all);

    // Another replica has one in hand, and a newer program another.
    let mut other = database.pool.acquire().await.unwrap();
    let mut other = other.begin().await.unwrap();
    let sql = "select from projection_checkpoints where name = 'users' for update";
    sqlx::query(sql).execute(&mut *other).await.unwrap();
    let sql = "update projection_checkpoints set version = 99 where name = 'groups'";
    sqlx::query(sql).execute(&database.pool).await.unwrap();
    append(&database.pool, &whole_call(3)).await;
    let turns = turn().await;
    assert_eq!(turns["users"], Progress::HeldElsewhere);
    assert_eq!(turns["groups"], Progress::Superseded);
    assert_eq!(positions(12).await, ["groups", "users"]);
    assert_eq!(positions(18).await.len(), all.len() - 2);

    // It has gone back to before, as after a crash: nothing is passed over.
    let sql = "update projection_checkpoints set position = 3 where name = 'users'";
    sqlx::query(sql).execute(&mut *other).await.unwrap();
    other.commit().await.unwrap();
    append(&database.pool, &[person(1)]).await;
    turn().await;
    turn().await;
    assert_eq!(positions(12).await, ["groups"]);
    assert_eq!(positions(19).await.len(), all.len() - 1);
    assert_eq!(count(&database.pool, "users").await, 1);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_stops_what_reads_it_and_nothing_else() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &whole_call(1)).await;
    let sql = "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
               values ('call', 'conv_1', 99, 'call.completed', '99', '{}', '{}')";
    sqlx::query(sql).execute(&database.pool).await.unwrap();
    append(&database.pool, &[person(1)]).await;

    let error = format!("{:#}", engine.run_once(NAME).await.unwrap_err());
    assert!(
        error.contains("the event at position 7 cannot be read"),
        "{error}"
    );
    assert!(error.contains("older than the ledger"), "{error}");
    assert!(matches!(
        engine.run_once("users").await.unwrap(),
        Progress::Worked {
            events: 1,
            position: 8
        }
    ));
}

#[tokio::test]
async fn a_text_with_nul_or_without_end_is_stored_and_searched() {
    let database = Database::create().await;
    let engine = database.engine();
    // As many different words as fit: the worst for a tsvector.
    let letters: Vec<char> = ('\u{4e00}'..'\u{9f00}').chain('a'..='z').collect();
    let words = |n: usize| {
        format!(
            "{}{} ",
            letters[n % letters.len()],
            letters[n / letters.len()]
        )
    };
    let endless: String = (0..60_000).map(words).collect();
    let urls: String = (0..40_000)
        .map(|n| format!("http://a{n}.co/b-c?d={n}.5e3 "))
        .collect();
    append(
        &database.pool,
        &[
            received(CLIENT, Some("SM\u{0}1"), "con\u{0}nul", 1),
            received(CLIENT, Some(&"x".repeat(9_000)), &endless, 2),
            received(CLIENT, Some("SM3"), &urls, 3),
            received(CLIENT, Some("SM4"), &"é".repeat(3_000_000), 4),
        ],
    )
    .await;
    engine.settle().await.unwrap();
    let sql = "select content from messages where id = 'SM1'";
    let content: String = sqlx::query_scalar(sql)
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(content, "connul");
    assert_eq!(count(&database.pool, "messages").await, 4);
}

#[tokio::test]
async fn one_who_waits_for_a_position_sees_it_folded() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &whole_call(1)).await;
    let names: Vec<_> = engine.names().collect();
    let soon = Duration::from_millis(60);
    assert!(!engine.wait_for(&names, 6, soon).await.unwrap());
    let (waited, settled) = tokio::join!(
        engine.wait_for(&names, 6, Duration::from_secs(20)),
        engine.settle()
    );
    settled.unwrap();
    assert!(waited.unwrap());
}

#[tokio::test]
async fn the_lag_is_what_has_yet_to_be_looked_at() {
    let database = Database::create().await;
    let engine = database.engine();
    append(&database.pool, &whole_call(1)).await;
    let behind = engine.statuses().await.unwrap().remove(0);
    assert_eq!((behind.position, behind.head, behind.lag_events), (0, 6, 6));
    assert!(behind.lag_seconds > 0.0);
    engine.settle().await.unwrap();
    for status in engine.statuses().await.unwrap() {
        assert_eq!(
            (status.position, status.lag_events, status.lag_seconds),
            (6, 0, 0.0),
            "{status:?}"
        );
    }
}
