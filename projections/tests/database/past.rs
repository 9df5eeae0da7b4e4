//! What was known then.

use std::collections::{BTreeMap, BTreeSet};

use domain::batch;
use projections::interactions::{self, AsOf};
use projections::{batches, conversations};
use sqlx::PgConnection;

use crate::batches::shuffled;
use crate::campaign::Campaign;
use crate::facts::*;
use crate::harness::*;
use crate::live::mixture;
use crate::talk::{talk_id, whole_talk};

#[tokio::test]
async fn the_past_is_answered_as_it_was_answered_then() {
    let database = Database::create().await;
    let engine = database.engine();
    let mut ids: Vec<_> = (1..=7).flat_map(|n| [conversation(n), sid(n)]).collect();
    ids.extend([chat_id(CLIENT), "SM7".into(), "unheard of".into()]);
    let mut answers = Vec::new();
    for fact in mixture(&mut Dice(3)) {
        append(&database.pool, &[fact]).await;
        engine.settle().await.unwrap();
        let mut conn = database.pool.acquire().await.unwrap();
        let sql = "select max(recorded_at) from events";
        let recorded_at = sqlx::query_scalar(sql).fetch_one(&mut *conn).await.unwrap();
        for id in &ids {
            let answer = interactions::detail(&mut conn, &projections::Opener::default(), id)
                .await
                .unwrap();
            answers.push((head(&database.pool).await, recorded_at, id, answer));
        }
    }
    let mut conn = database.pool.acquire().await.unwrap();
    for (position, recorded_at, id, answer) in answers {
        for then in [AsOf::Position(position), AsOf::Time(recorded_at)] {
            let now = interactions::as_of(&mut conn, &projections::Opener::default(), id, then)
                .await
                .unwrap();
            assert_eq!(now, answer, "{id} as of {position}");
        }
    }
}

#[tokio::test]
async fn before_its_first_event_nothing_was_known() {
    let database = Database::create().await;
    append(&database.pool, &whole_call(1)).await;
    database.engine().settle().await.unwrap();
    let mut conn = database.pool.acquire().await.unwrap();
    for (id, position) in [("CA1", 0), ("conv_1", 4), ("conv_2", 6)] {
        let then = AsOf::Position(position);
        let known = interactions::as_of(&mut conn, &projections::Opener::default(), id, then)
            .await
            .unwrap();
        assert_eq!(known, None, "{id} as of {position}");
    }
    let long_ago = AsOf::Time(chrono::DateTime::<chrono::Utc>::MIN_UTC);
    assert_eq!(
        interactions::as_of(
            &mut conn,
            &projections::Opener::default(),
            "conv_1",
            long_ago
        )
        .await
        .unwrap(),
        None
    );
}

/// A way to ask about batches and conversations, now and of the past.
async fn known(conn: &mut PgConnection, id: &str, then: Option<AsOf>) -> String {
    let phones = phones();
    if id.starts_with("conv_local_") {
        let shown = match then {
            None => conversations::shown(conn, id, 7).await.unwrap(),
            Some(then) => {
                conversations::as_of(conn, &projections::Opener::default(), id, 7, then, &phones)
                    .await
                    .unwrap()
            }
        };
        let shown = shown.map(|(context, answers)| (context, BTreeMap::from_iter(answers)));
        return format!("{shown:#?}");
    }
    let shown = match then {
        Some(then) => batches::as_of(conn, &projections::Opener::default(), id, then)
            .await
            .unwrap(),
        None => match batches::find(conn, id).await.unwrap() {
            Some(batch) => {
                let recipients = batches::recipients(conn, &batch.id).await.unwrap();
                Some((batch, recipients))
            }
            None => None,
        },
    };
    format!("{shown:#?}")
}

/// Keeps what was answered while facts come, one by one, and asks again.
async fn asks_again(facts: &[Told], ids: &[String], projections: &[&str]) {
    let database = Database::create().await;
    let engine = database.engine();
    let mut kept = Vec::new();
    for fact in facts {
        append(&database.pool, std::slice::from_ref(fact)).await;
        engine.settle().await.unwrap();
        let mut conn = database.pool.acquire().await.unwrap();
        let sql = "select max(recorded_at) from events";
        let recorded_at = sqlx::query_scalar(sql).fetch_one(&mut *conn).await.unwrap();
        let position = head(&database.pool).await;
        for id in ids {
            let answer = known(&mut conn, id, None).await;
            kept.push((position, recorded_at, id, answer));
        }
    }
    let different: BTreeSet<_> = kept.iter().map(|(.., answer)| answer).collect();
    let different = different.len();
    assert!(different > facts.len().min(60) / 4, "{different} answers");
    for rebuilt in [false, true] {
        for name in projections.iter().filter(|_| rebuilt) {
            engine.rebuild(name, |_| ()).await.unwrap();
        }
        let mut conn = database.pool.acquire().await.unwrap();
        // Each once, and some again.
        let some = kept.iter().step_by(1 + 6 * usize::from(rebuilt));
        for (position, recorded_at, id, answer) in some {
            let by_time = AsOf::Time(*recorded_at);
            for then in [AsOf::Position(*position), by_time] {
                let now = known(&mut conn, id, Some(then)).await;
                let lines = now.lines().zip(answer.lines());
                let different = lines.filter(|(now, then)| now != then);
                let different: Vec<_> = different.take(8).collect();
                assert!(now == *answer, "{id} as of {position}: {different:#?}");
            }
        }
        let long_ago = AsOf::Position(0);
        for id in ids {
            assert_eq!(known(&mut conn, id, Some(long_ago)).await, "None");
        }
    }
}

#[tokio::test]
async fn batches_of_the_past_are_shown_as_they_were_shown_then() {
    let campaigns = [Campaign::new(1, 9), Campaign::new(2, 6)];
    let ids = campaigns.iter().flat_map(|it| [it.id(), it.provider_id()]);
    let ids: Vec<_> = ids.chain(["unheard of".to_owned()]).collect();
    let facts = shuffled(&mut Dice(1));
    asks_again(&facts, &ids, &["batches", "interactions"]).await;
}

#[tokio::test]
async fn a_discovered_batch_is_shown_as_it_was_before_it_was_known_for_an_order() {
    let campaign = Campaign::new(1, 2);
    let other = "0190a0b0-0000-7000-8000-00000000d15c".to_owned();
    let discovered = batch::Event::Discovered(Box::new(batch::Discovered {
        through: "workspace".into(),
        batch: campaign.snapshot("in_progress", 0, 8),
    }));
    let mut facts = vec![
        campaign.requested(),
        campaign.event_of(other.clone(), discovered, 8),
    ];
    facts.push(campaign.reported(0, 0, 9, 20));
    facts.extend(campaign.stream().split_off(1));
    let ids = [campaign.id(), campaign.provider_id(), other];
    asks_again(&facts, &ids, &["batches", "interactions"]).await;
}

#[tokio::test]
async fn conversations_of_the_past_are_shown_as_they_were_shown_then() {
    const OTHER: &str = "+573007654321";
    let ids = [talk_id(CLIENT), talk_id(OTHER), talk_id("+573000000000")];
    let mut facts = whole_talk(CLIENT);
    facts.extend(whole_chat(CLIENT));
    facts.extend(whole_talk(OTHER).split_off(10));
    facts.push(received(CLIENT, None, "¿Hola?", 60));
    Dice(1).shuffle(&mut facts);
    asks_again(&facts, &ids, &["conversations", "effects"]).await;
}
