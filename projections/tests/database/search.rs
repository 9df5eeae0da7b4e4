//! The vectors that we make are those that PostgreSQL makes.

use projections::search::Lexicon;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::facts::{CLIENT, received};
use crate::harness::*;

/// Words of many kinds; more of them than there are places for, and one that is
/// too long to be indexed.
fn texts() -> Vec<String> {
    let talk =
        "(hola|Señora|pagó|12|3e5|0x1F|a1b2|1a|²|①|ﬁn|fin|по|漢字|\\PC{0,3}|[a-z0-9ñ]{1,9}){0,9}";
    let talk = proptest::collection::vec(talk, 0..24).prop_map(|words| words.join(" "));
    let mut runner = TestRunner::deterministic();
    let mut texts: Vec<String> = (0..400)
        .map(|_| talk.new_tree(&mut runner).unwrap().current())
        .collect();
    texts.push("uno dos tres cuatro ".repeat(9_000));
    texts.push(format!("uno {} dos", "x".repeat(3_000)));
    texts.push("nunca jamás ".repeat(400));
    texts
}

#[tokio::test]
async fn a_vector_is_what_postgresql_makes_of_the_same_words() {
    let database = Database::create().await;
    let mut conn = database.pool.acquire().await.unwrap();
    let texts = texts();
    let lexicon = Lexicon::default();
    // Each twice: asked, and known.
    for _ in 0..2 {
        // What belongs together may be in pieces.
        let words = texts.iter().map(|text| text.split_inclusive("hola"));
        let made = lexicon.vectors(&mut conn, words.clone()).await.unwrap();
        let made: Vec<_> = made.iter().map(|vector| vector.to_string()).collect();
        let plain: Vec<_> = words.map(projections::search::words).collect();
        let sql = "select plain from unnest($1::text[], $2::text[]) as t (made, plain)
                   where made::tsvector is distinct from to_tsvector('bitacora', plain)";
        let wrong: Vec<String> = sqlx::query_scalar(sql)
            .bind(made)
            .bind(plain)
            .fetch_all(&mut *conn)
            .await
            .unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[tokio::test]
async fn so_is_one_that_is_copied() {
    let database = Database::create().await;
    let engine = database.engine();
    let texts: Vec<String> = texts()
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    let ids: Vec<String> = (0..texts.len()).map(|n| format!("SM{n}")).collect();
    let messages = ids.iter().zip(&texts).zip(1..);
    let messages = messages.map(|((id, text), n)| received(CLIENT, Some(id), text, n));
    append(&database.pool, &messages.collect::<Vec<_>>()).await;
    engine.settle().await.unwrap();
    let plain = texts
        .iter()
        .map(|text| projections::search::words([text.as_str()]));
    let sql = "select plain from unnest($1::text[], $2::text[]) as t (id, plain)
               left join messages using (id)
               where search is distinct from to_tsvector('bitacora', plain)";
    let wrong: Vec<String> = sqlx::query_scalar(sql)
        .bind(ids)
        .bind(plain.collect::<Vec<_>>())
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
