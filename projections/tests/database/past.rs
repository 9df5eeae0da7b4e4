//! What was known then.

use projections::interactions::{self, AsOf};

use crate::facts::*;
use crate::harness::*;
use crate::live::mixture;

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
