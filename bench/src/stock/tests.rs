//! On the server at `TEST_DATABASE_URL`; each test has a database of its own.

use poem::{Request, Response};
use sqlx::Connection;

use super::*;

const BYTES: usize = 1536;

/// A row of `events`, and the payload of its view.
type Row = (String, String, i64, String, String, String, String);

async fn database(name: &str) -> (String, PgPool) {
    let server = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL");
    let mut connection = PgConnection::connect(&server).await.unwrap();
    for sql in ["drop database if exists", "create database"] {
        let sql = format!("{sql} {name}");
        sqlx::query(&sql).execute(&mut connection).await.unwrap();
    }
    let options: sqlx::postgres::PgConnectOptions = server.parse().unwrap();
    let url = sqlx::ConnectOptions::to_url_lossy(&options.database(name)).to_string();
    let pool = default_postgress_pool(&url).await;
    create_tables(&pool).await.unwrap();
    (url, pool)
}

async fn send(pool: &PgPool, number: u64, at: i64, tampered: bool) -> (StatusCode, Value) {
    let body = webhook::body(number, at, BYTES);
    let http = webhook::request(&body, at);
    let head = std::str::from_utf8(&http[..http.len() - body.len()]).unwrap();
    let signature = head
        .lines()
        .find_map(|it| it.strip_prefix("elevenlabs-signature: "))
        .unwrap();
    let body = if tampered {
        [body, vec![b' ']].concat()
    } else {
        body
    };
    let request = Request::builder()
        .method(poem::http::Method::POST)
        .uri_str(webhook::PATH)
        .header("elevenlabs-signature", signature)
        .body(body);
    let answer: Response = routes(pool.clone()).get_response(request).await;
    let status = answer.status();
    (status, answer.into_body().into_json().await.unwrap())
}

async fn rows(pool: &PgPool) -> Vec<Row> {
    sqlx::query_as(
        "select aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text, \
         metadata::text from events order by aggregate_id",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn views(pool: &PgPool) -> Vec<(String, i64, String)> {
    let sql = format!("select view_id, version, payload::text from {VIEW_TABLE} order by view_id");
    sqlx::query_as(&sql).fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn a_webhook_is_kept_once_and_only_if_it_is_signed() {
    let (_, pool) = database("stock_webhook").await;
    let at = now().timestamp();
    let (status, _) = send(&pool, 7, at, true).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = send(&pool, 7, at - SIGNATURE_AGE_SECS_MAX - 60, false).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "too old");
    assert_eq!(rows(&pool).await, []);
    let first = send(&pool, 7, at, false).await;
    assert_eq!(first, (StatusCode::OK, json!({"success": true})));
    let second = send(&pool, 7, at, false).await;
    let duplicate = json!({"success": true, "duplicate": true});
    assert_eq!(second, (StatusCode::OK, duplicate));
    assert_eq!(rows(&pool).await.len(), 1);
    let views = views(&pool).await;
    assert_eq!(views.len(), 1);
    let view: Interaction = serde_json::from_str(&views[0].2).unwrap();
    assert_eq!(view.id, webhook::conversation_id(7));
    assert_eq!(view.phone_number.as_deref(), Some("+573000055433"));
    assert_eq!(view.last_event_at.timestamp(), at);
}

#[tokio::test]
async fn what_is_filled_and_replayed_is_what_is_served() {
    let (url, pool) = database("stock_fill").await;
    let at = now().timestamp();
    for number in 3..6 {
        assert_eq!(send(&pool, number, at, false).await.0, StatusCode::OK);
    }
    let (served, seen) = (rows(&pool).await, views(&pool).await);
    assert_eq!((served.len(), seen.len()), (3, 3));
    sqlx::query("truncate events").execute(&pool).await.unwrap();
    fill(&url, 3, 3, at, BYTES).await.unwrap();
    let filled = rows(&pool).await;
    // The metadata has a time and a random id in it: the same names, as long.
    let names = |row: &Row| {
        let metadata: HashMap<String, String> = serde_json::from_str(&row.6).unwrap();
        let mut names: Vec<_> = metadata
            .into_iter()
            .map(|(name, value)| (name, value.len()))
            .collect();
        names.sort();
        names
    };
    for (served, filled) in served.iter().zip(&filled) {
        assert_eq!(names(served), names(filled));
    }
    let without_metadata = |rows: Vec<Row>| -> Vec<Row> {
        let cleared =
            |row: Row| Row::from((row.0, row.1, row.2, row.3, row.4, row.5, String::new()));
        rows.into_iter().map(cleared).collect()
    };
    assert_eq!(without_metadata(served), without_metadata(filled));
    let (events, _) = replay(&url).await.unwrap();
    assert_eq!(events, 3);
    assert_eq!(views(&pool).await, seen);
}
