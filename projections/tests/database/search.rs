//! The vectors that we make are those that PostgreSQL makes.

use projections::search::Lexicon;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::harness::*;

#[tokio::test]
async fn a_vector_is_what_postgresql_makes_of_the_same_words() {
    let database = Database::create().await;
    let mut conn = database.pool.acquire().await.unwrap();
    let talk =
        "(hola|Señora|pagó|12|3e5|0x1F|a1b2|1a|²|①|ﬁn|fin|по|漢字|\\PC{0,3}|[a-z0-9ñ]{1,9}){0,9}";
    let talk = proptest::collection::vec(talk, 0..12).prop_map(|words| words.join(" "));
    let talk = proptest::collection::vec(talk, 1..4);
    let mut runner = TestRunner::deterministic();
    let mut texts: Vec<Vec<String>> = (0..400)
        .map(|_| talk.new_tree(&mut runner).unwrap().current())
        .collect();
    // More words than there are places for, and one too long to be indexed.
    texts.push(vec!["uno dos tres cuatro ".repeat(9_000)]);
    texts.push(vec![
        "uno ".to_owned(),
        "x".repeat(3_000),
        " dos".to_owned(),
    ]);
    texts.push(vec!["nunca jamás ".repeat(400)]);
    let lexicon = Lexicon::default();
    // Each twice: asked, and known.
    for _ in 0..2 {
        let words = texts.iter().map(|texts| texts.iter().map(String::as_str));
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
