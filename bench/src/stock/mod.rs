//! The stock competitor: the same webhook, handled as the documentation of
//! cqrs-es 0.5 and postgres-es 0.5 teaches. What it follows:
//!
//! - The event store, the tables and the pool:
//!   <https://doc.rust-cqrs.org/application_event_store.html> and `db/init.sql` of
//!   <https://docs.rs/crate/postgres-es/0.5.0/source/db/init.sql>.
//! - The view, a [`GenericQuery`] on a [`PostgresViewRepository`]:
//!   <https://doc.rust-cqrs.org/application_persisted_views.html>.
//! - The metadata: <https://doc.rust-cqrs.org/application_metadata.html>.
//! - How HTTP, framework and error handler hang together, the official demo:
//!   <https://github.com/serverlesstechnology/cqrs/tree/main/demo>.
//! - The status of each error: the documentation of [`AggregateError`].
//! - The replay: that of [`QueryReplay`],
//!   <https://docs.rs/cqrs-es/0.5.0/cqrs_es/persist/struct.QueryReplay.html>
//!   (the book's chapter on it is not written yet).
//!
//! The pool is [`default_postgress_pool`], so these defaults are in force: at
//! most 10 connections (its own), opened when wanted, each asked whether it
//! lives whenever it is taken (`test_before_acquire`), 30 s to wait for one,
//! 100 prepared statements kept on each (all sqlx's).
//!
//! What is known of stock and left as it is: it keeps no raw delivery; the view
//! is written after the events, in a transaction of its own; and of a command
//! that finds the same conversation completed meanwhile nothing is retried.

mod conversation;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::{DateTime, Utc};
use cqrs_es::persist::{GenericQuery, QueryReplay, SerializedEvent};
use cqrs_es::{Aggregate, AggregateError, EventEnvelope, Query};
use hmac::{Hmac, Mac};
use poem::http::{HeaderMap, StatusCode};
use poem::listener::TcpListener;
use poem::web::{Data, Json};
use poem::{Endpoint, EndpointExt, Route, Server, get, handler, post};
use postgres_es::{
    PostgresCqrs, PostgresEventRepository, PostgresViewRepository, default_postgress_pool,
    postgres_cqrs,
};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::{PgConnection, PgPool};

use crate::webhook;
use conversation::{Command, Conversation, Event, Interaction, Webhook};

/// How old a signature may be: the provider's own limit.
const SIGNATURE_AGE_SECS_MAX: i64 = 30 * 60;
/// So many rows are filled in at once.
const FILL_CHUNK_ROWS: u64 = 2000;
/// The table of the view.
const VIEW_TABLE: &str = "interaction_view";

type ViewRepository = PostgresViewRepository<Interaction, Conversation>;
type InteractionQuery = GenericQuery<ViewRepository, Interaction, Conversation>;

/// Serves until it is killed.
///
/// # Errors
/// When the port is taken or the tables cannot be made.
///
/// # Panics
/// When there is no database: so does [`default_postgress_pool`].
pub async fn serve(database_url: &str, listen: SocketAddr) -> anyhow::Result<()> {
    let pool = default_postgress_pool(database_url).await;
    create_tables(&pool).await?;
    Server::new(TcpListener::bind(listen))
        .run(routes(pool))
        .await?;
    Ok(())
}

/// Replays every event into an emptied view. Gives how many there are, and how
/// long it took.
///
/// # Errors
/// When an event is not in the view afterwards.
///
/// # Panics
/// When there is no database: so does [`default_postgress_pool`].
pub async fn replay(database_url: &str) -> anyhow::Result<(u64, Duration)> {
    let pool = default_postgress_pool(database_url).await;
    create_tables(&pool).await?;
    sqlx::query(&format!("truncate {VIEW_TABLE}"))
        .execute(&pool)
        .await?;
    let began = Instant::now();
    let mut replay = QueryReplay::new(
        PostgresEventRepository::new(pool.clone()),
        interaction_query(pool.clone()),
    );
    replay.use_error_handler(Box::new(|error| eprintln!("stock: replay: {error}")));
    replay.replay_all().await?;
    let elapsed = began.elapsed();
    // Each conversation has one event, so rows of the view are as many. Counted
    // because the replay ends as if all was well when its reader panics.
    let counts =
        format!("select (select count(*) from events), (select count(*) from {VIEW_TABLE})");
    let (events, rows): (i64, i64) = sqlx::query_as(&counts).fetch_one(&pool).await?;
    pool.close().await;
    ensure!(
        events == rows,
        "{events} events, but {rows} rows of the view"
    );
    Ok((events.try_into()?, elapsed))
}

/// Fills the table of events, fast, with what [`serve`] would have written for
/// `count` webhooks from this number on, sent at `at` (Unix seconds), each of
/// so many bytes. Leaves the view as it is: [`replay`] makes it.
///
/// # Errors
/// When the database does not answer, or has one of these events.
pub async fn fill(
    database_url: &str,
    from_number: u64,
    count: u64,
    at: i64,
    bytes: usize,
) -> anyhow::Result<()> {
    let pool = default_postgress_pool(database_url).await;
    create_tables(&pool).await?;
    let end = from_number + count;
    let made = |first: u64| {
        let numbers = first..end.min(first + FILL_CHUNK_ROWS);
        tokio::task::spawn_blocking(move || Rows::of(numbers, at, bytes))
    };
    let mut transaction = pool.begin().await?;
    let mut next = made(from_number);
    for first in (from_number..end).step_by(FILL_CHUNK_ROWS as usize) {
        let rows = next.await??;
        // Made while PostgreSQL takes these.
        next = made(end.min(first + FILL_CHUNK_ROWS));
        rows.insert(&mut transaction).await?;
    }
    transaction.commit().await?;
    // What autovacuum would have done by and by.
    sqlx::query("vacuum (analyze) events")
        .execute(&pool)
        .await?;
    pool.close().await;
    Ok(())
}

/// The tables of postgres-es's `db/init.sql`; it needs none for snapshots here.
async fn create_tables(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query(
        "create table if not exists events (
            aggregate_type text                         not null,
            aggregate_id   text                         not null,
            sequence       bigint check (sequence >= 0) not null,
            event_type     text                         not null,
            event_version  text                         not null,
            payload        json                         not null,
            metadata       json                         not null,
            primary key (aggregate_type, aggregate_id, sequence)
        )",
    )
    .execute(pool)
    .await?;
    sqlx::query(&format!(
        "create table if not exists {VIEW_TABLE} (
            view_id text                        not null,
            version bigint check (version >= 0) not null,
            payload json                        not null,
            primary key (view_id)
        )"
    ))
    .execute(pool)
    .await?;
    Ok(())
}

fn interaction_query(pool: PgPool) -> InteractionQuery {
    let mut query = InteractionQuery::new(Arc::new(ViewRepository::new(VIEW_TABLE, pool)));
    query.use_error_handler(Box::new(|error| eprintln!("stock: view: {error}")));
    query
}

fn routes(pool: PgPool) -> impl Endpoint {
    let queries: Vec<Box<dyn Query<Conversation>>> =
        vec![Box::new(interaction_query(pool.clone()))];
    let cqrs = Arc::new(postgres_cqrs(pool, queries, ()));
    Route::new()
        .at("/readyz", get(ready))
        .at(webhook::PATH, post(receive))
        .data(cqrs)
}

#[handler]
fn ready() -> StatusCode {
    StatusCode::OK
}

/// Takes a webhook.
#[handler]
async fn receive(
    headers: &HeaderMap,
    body: Vec<u8>,
    Data(cqrs): Data<&Arc<PostgresCqrs<Conversation>>>,
) -> (StatusCode, Json<Value>) {
    let refused = |status, why: &str| (status, Json(json!({"success": false, "message": why})));
    let received_at = now();
    if !is_signed(headers, &body, received_at) {
        return refused(StatusCode::UNAUTHORIZED, "the signature is wrong");
    }
    let Ok((conversation_id, command)) = command(&body) else {
        return refused(StatusCode::BAD_REQUEST, "the report cannot be read");
    };
    let done = cqrs
        .execute_with_metadata(&conversation_id, command, metadata(received_at))
        .await;
    match done {
        Ok(()) => (StatusCode::OK, Json(json!({"success": true}))),
        Err(AggregateError::UserError(conversation::Error::AlreadyCompleted)) => {
            let answer = json!({"success": true, "duplicate": true});
            (StatusCode::OK, Json(answer))
        }
        Err(AggregateError::AggregateConflict) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "try again")
        }
        Err(error) => {
            eprintln!("stock: {error}");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "try again")
        }
    }
}

/// Whether `elevenlabs-signature: t=<unix seconds>,v0=<hex>` holds the
/// HMAC-SHA256 of `<t>.<body>`. The comparison takes constant time.
fn is_signed(headers: &HeaderMap, body: &[u8], received_at: DateTime<Utc>) -> bool {
    let header = headers.get("elevenlabs-signature");
    let parts = header
        .and_then(|it| it.to_str().ok()?.strip_prefix("t="))
        .and_then(|it| it.split_once(",v0="));
    let Some((time, signature)) = parts else {
        return false;
    };
    let (Ok(seconds), Ok(signature)) = (time.parse::<i64>(), hex::decode(signature)) else {
        return false;
    };
    let mut mac =
        Hmac::<Sha256>::new_from_slice(webhook::SECRET.as_bytes()).expect("any length is a key");
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    received_at.timestamp().abs_diff(seconds) <= SIGNATURE_AGE_SECS_MAX.unsigned_abs()
        && mac.verify_slice(&signature).is_ok()
}

/// The conversation that a body is of, and what it tells it.
fn command(body: &[u8]) -> anyhow::Result<(String, Command)> {
    let webhook: Webhook = serde_json::from_slice(body)?;
    ensure!(webhook.kind == "post_call_transcription", "another type");
    let command = Command::Receive {
        reported_at: webhook.event_timestamp,
        report: Box::new(webhook.data),
    };
    let Command::Receive { report, .. } = &command;
    Ok((report.conversation_id.clone(), command))
}

/// What is kept beside an event.
fn metadata(received_at: DateTime<Utc>) -> HashMap<String, String> {
    HashMap::from([
        ("received_at".to_owned(), received_at.to_rfc3339()),
        ("delivery_id".to_owned(), delivery_id()),
    ])
}

#[expect(clippy::disallowed_methods, reason = "as the book has it")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

#[expect(clippy::disallowed_methods, reason = "as the book has it")]
fn delivery_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// Rows of `events`, one a conversation, column by column.
#[derive(Default)]
struct Rows {
    ids: Vec<String>,
    payloads: Vec<Value>,
    metadata: Vec<Value>,
}

impl Rows {
    /// The rows of the webhooks with these numbers: through the types of
    /// [`serve`] and the framework's own serialization.
    fn of(numbers: Range<u64>, at: i64, bytes: usize) -> anyhow::Result<Self> {
        let mut rows = Self::default();
        for number in numbers {
            let (aggregate_id, command) = command(&webhook::body(number, at, bytes))?;
            let Command::Receive {
                reported_at,
                report,
            } = command;
            let event = SerializedEvent::try_from(&EventEnvelope::<Conversation> {
                aggregate_id,
                sequence: 1,
                payload: Event::Completed {
                    reported_at,
                    report,
                },
                metadata: metadata(now()),
            })?;
            rows.ids.push(event.aggregate_id);
            rows.payloads.push(event.payload);
            rows.metadata.push(event.metadata);
        }
        Ok(rows)
    }

    /// Writes them at once. Bound as `jsonb` and cast to `json` as postgres-es's
    /// own INSERT has it, so the text that is kept is the same.
    async fn insert(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::query(
            "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata) \
             select $1, id, 1, $2, $3, payload, metadata from unnest($4::text[], $5::jsonb[], $6::jsonb[]) as rows (id, payload, metadata)",
        )
        .bind(Conversation::TYPE)
        .bind(Event::COMPLETED)
        .bind(Event::VERSION)
        .bind(self.ids)
        .bind(self.payloads)
        .bind(self.metadata)
        .execute(connection)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
