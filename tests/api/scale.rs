//! Every list at a million rows: the very functions that answer requests are
//! called, and PostgreSQL tells how much they read.

use std::time::Instant;

use bitacora::ledger::{deliveries, events};
use bitacora::worker::statistics;
use chrono::{DateTime, Utc};
use domain::conversation::Status;
use domain::{Channel, Direction, Provider};
use projections::{Engine, audit_log, conversations, interactions, users};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::harness::postgres;

const ROWS: i64 = 1_000_000;
/// Conversations, and messages in one of them.
const TALKS: i64 = 200_000;
/// What a page may read: the interactions of the rarest filter, or of the
/// rare words of a search.
const ROWS_READ_MAX: i64 = 60_000;
/// Rows of a page, and one that tells whether there are more.
const LIMIT: i64 = 51;

/// When row `n` happened: a second after the one before.
fn at(n: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + n, 0).unwrap()
}

/// The id of delivery `n`.
fn delivery(n: i64) -> Uuid {
    let millis = u64::try_from(at(n).timestamp_millis()).unwrap();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

#[tokio::test]
async fn every_list_reads_few_rows_of_a_million() {
    let begun = Instant::now();
    let database_url = postgres::fresh_database().await;
    fill(&database_url).await;
    println!("filled in {:?}", begun.elapsed());
    // One connection, for what it reads is counted in its transaction.
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&database_url).await.unwrap();
    for (q, found) in [("rarísima", 25), ("hola", 51)] {
        let filter = interactions::Filter {
            q: text(q),
            ..Default::default()
        };
        let mut conn = pool.acquire().await.unwrap();
        let list = interactions::list(&mut conn, &filter, None, LIMIT);
        assert_eq!(list.await.unwrap().len(), found, "the rows are there: {q}");
    }
    let mut wrong = Vec::new();
    for filter in interaction_filters() {
        for after in [None, Some(ROWS / 2)] {
            let cursor = after.map(|n| interactions::Cursor {
                started_at: at(n),
                id: "x".into(),
            });
            let list = async || {
                let mut conn = pool.acquire().await.unwrap();
                let list = interactions::list(&mut conn, &filter, cursor.as_ref(), LIMIT);
                list.await.unwrap().len()
            };
            wrong.extend(reads_much(&pool, &format!("{filter:?} {after:?}"), list).await);
        }
    }
    for filter in audit_filters() {
        for before in [None, Some(ROWS / 2)] {
            let list = async || {
                let mut conn = pool.acquire().await.unwrap();
                let list = audit_log::list(&mut conn, &filter, before, LIMIT);
                list.await.unwrap().len()
            };
            wrong.extend(reads_much(&pool, &format!("{filter:?} {before:?}"), list).await);
        }
    }
    for filter in conversation_filters() {
        for after in [None, Some(TALKS / 2)] {
            let cursor = after.map(|n| conversations::Cursor {
                last_message_at: at(n),
                id: "x".into(),
            });
            let list = async || {
                let mut conn = pool.acquire().await.unwrap();
                let list = conversations::list(&mut conn, &filter, cursor.as_ref(), LIMIT);
                list.await.unwrap().len()
            };
            wrong.extend(reads_much(&pool, &format!("{filter:?} {after:?}"), list).await);
        }
    }
    let newest = async || {
        let mut conn = pool.acquire().await.unwrap();
        let newest = conversations::newest(&mut conn, "t1", LIMIT);
        newest.await.unwrap().len()
    };
    wrong.extend(reads_much(&pool, "the newest messages", newest).await);
    let day = async || {
        let mut conn = pool.acquire().await.unwrap();
        let day = conversations::between(&mut conn, at(0), at(86_400)).await;
        usize::try_from(day.unwrap().sent).unwrap()
    };
    wrong.extend(reads_much(&pool, "the numbers of a day", day).await);
    for after in [None, Some(5_000)] {
        let list = async || {
            let mut conn = pool.acquire().await.unwrap();
            let list = users::list(&mut conn, after, LIMIT);
            list.await.unwrap().len()
        };
        wrong.extend(reads_much(&pool, &format!("users {after:?}"), list).await);
    }
    for filter in event_filters() {
        for after in [0, ROWS / 2] {
            let filter = events::Filter {
                after,
                ..filter.clone()
            };
            let list = async || {
                events::list(&pool, &crate::harness::app::opener(), &filter, LIMIT)
                    .await
                    .unwrap()
                    .len()
            };
            wrong.extend(reads_much(&pool, &format!("{filter:?}"), list).await);
        }
    }
    for filter in delivery_filters() {
        for before in [None, Some(delivery(ROWS / 2))] {
            let filter = deliveries::Filter {
                before,
                ..filter.clone()
            };
            let list = async || deliveries::list(&pool, &filter, LIMIT).await.unwrap().len();
            wrong.extend(reads_much(&pool, &format!("{filter:?}"), list).await);
        }
    }
    // It is asked every few seconds, and planned otherwise after some times.
    let engine = projections_behind(&pool).await;
    for _ in 0..8 {
        let statuses = async || engine.statuses().await.unwrap().len();
        wrong.extend(reads_much(&pool, "how far projections are", statuses).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An engine of which one projection is at the end, one a little and one far
/// behind, and all others have yet to begin.
async fn projections_behind(pool: &PgPool) -> Engine {
    let sql = "insert into projection_checkpoints (name, build, version, position)
               select * from unnest($1::text[], array['live', 'live', 'live'], array[1, 1, 1],
                                    $2::bigint[])";
    sqlx::query(sql)
        .bind(vec!["interactions", "batches", "users"])
        .bind(vec![ROWS, ROWS - 100, ROWS / 2])
        .execute(pool)
        .await
        .unwrap();
    let phones = domain::PhoneIndex::new(&[7; 32]);
    Engine::new(pool.clone(), projections::all(&phones))
}

/// What a list read, if that is a whole table or more than a page may.
async fn reads_much(
    pool: &PgPool,
    what: &str,
    list: impl AsyncFnOnce() -> usize,
) -> Option<String> {
    sqlx::query("begin").execute(pool).await.unwrap();
    let (scans_before, rows_before) = read(pool).await;
    let begun = Instant::now();
    let rows = list().await;
    let took = begun.elapsed();
    let (scans, rows_read) = read(pool).await;
    sqlx::query("rollback").execute(pool).await.unwrap();
    let (scans, rows_read) = (scans - scans_before, rows_read - rows_before);
    let told =
        format!("{what}: {rows} rows, {scans} whole tables, {rows_read} rows read, {took:?}");
    println!("{told}");
    (scans > 0 || rows_read > ROWS_READ_MAX).then_some(told)
}

/// How often this transaction has read a table whole, and how many rows; but
/// for the table that has one row for each projection.
async fn read(pool: &PgPool) -> (i64, i64) {
    let sql = "select sum(seq_scan)::bigint, sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint
                 from pg_stat_xact_user_tables where relname <> 'projection_checkpoints'";
    sqlx::query_as(sql).fetch_one(pool).await.unwrap()
}

/// One filter for each way of setting one.
fn filters<F: Default>(ways: &[fn(&mut F)]) -> Vec<F> {
    let filter = |set: &fn(&mut F)| {
        let mut filter = F::default();
        set(&mut filter);
        filter
    };
    ways.iter().map(filter).collect()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A stretch of rows, a thousandth of all.
fn stretch() -> [Option<DateTime<Utc>>; 2] {
    [Some(at(1_000)), Some(at(2_000))]
}

/// Each alone, all together, and what people ask for together.
fn interaction_filters() -> Vec<interactions::Filter> {
    filters(&[
        |_| {},
        |f| f.channel = Some(Channel::Sms),
        |f| f.status = text("completed"),
        |f| f.status = text("voicemail"),
        |f| f.status = text("no such"),
        |f| f.direction = Some(Direction::Inbound),
        |f| f.provider = Some(Provider::Builderbot),
        |f| f.phone_key = text("phone_77"),
        |f| f.agent_id = text("agent_7"),
        |f| f.batch_id = text("batch_77"),
        |f| f.from = stretch()[0],
        |f| f.to = stretch()[1],
        |f| [f.from, f.to] = stretch(),
        |f| (f.channel, f.status) = (Some(Channel::Call), text("voicemail")),
        |f| (f.channel, f.status) = (Some(Channel::Call), text("completed")),
        |f| (f.channel, f.direction) = (Some(Channel::Sms), Some(Direction::Inbound)),
        |f| (f.batch_id, f.status) = (text("batch_77"), text("failed")),
        |f| (f.agent_id, f.status, f.from) = (text("agent_7"), text("failed"), stretch()[0]),
        |f| (f.phone_key, f.channel) = (text("phone_77"), Some(Channel::Sms)),
        |f| (f.provider, f.status) = (Some(Provider::Builderbot), text("voicemail")),
        |f| {
            (f.channel, f.status) = (Some(Channel::Call), text("completed"));
            (f.direction, f.provider) = (Some(Direction::Outbound), Some(Provider::Elevenlabs));
            (f.agent_id, f.phone_key) = (text("agent_7"), text("phone_77"));
            (f.batch_id, f.q) = (text("batch_77"), text("hola"));
            [f.from, f.to] = stretch();
        },
        |f| f.q = text("rarisima"),
        |f| f.q = text("desconocida"),
        |f| f.q = text("hola"),
        |f| f.q = text("hola -adios"),
        |f| f.q = text("hola rarisima"),
        |f| f.q = text("\"hola mundo\""),
        |f| f.q = text("palabra77"),
        |f| (f.channel, f.q) = (Some(Channel::Sms), text("hola")),
        |f| (f.status, f.q) = (text("voicemail"), text("hola")),
        |f| (f.q, [f.from, f.to]) = (text("palabra77"), stretch()),
    ])
}

fn conversation_filters() -> Vec<conversations::Filter> {
    filters(&[
        |_| {},
        |f| f.status = Some(Status::Active),
        |f| f.status = Some(Status::Escalated),
        |f| f.status = Some(Status::Closed),
        |f| f.ids = Some(vec!["t77".into(), "nobody".into()]),
        |f| f.name = text("rarisima"),
        |f| f.name = text("mundo"),
        |f| f.name = text("desconocida"),
        |f| (f.status, f.name) = (Some(Status::Escalated), text("mundo")),
    ])
}

fn audit_filters() -> Vec<audit_log::Filter> {
    filters(&[
        |_| {},
        |f| f.actor = text("user:7"),
        |f| f.actor = text("nobody"),
        |f| f.action = text("login"),
        |f| f.from = stretch()[0],
        |f| f.to = stretch()[1],
        |f| [f.from, f.to] = stretch(),
        |f| {
            (f.actor, f.action) = (text("user:7"), text("login"));
            [f.from, f.to] = stretch();
        },
    ])
}

fn event_filters() -> Vec<events::Filter> {
    filters(&[
        |_| {},
        |f| f.event_type = text("call.completed"),
        |f| f.event_type = text("user.registered"),
        |f| f.event_type = text("no.such"),
        |f| f.aggregate_type = text("call"),
        |f| f.aggregate_type = text("user"),
        |f| f.aggregate_type = text("nothing"),
        |f| f.aggregate_id = text("id_77"),
        |f| f.aggregate_id = text("nobody"),
        |f| (f.aggregate_type, f.aggregate_id) = (text("call"), text("id_77")),
        |f| (f.event_type, f.aggregate_id) = (text("call.completed"), text("id_77")),
        |f| (f.event_type, f.aggregate_type) = (text("user.registered"), text("user")),
        |f| f.from = stretch()[0],
        |f| f.to = stretch()[1],
        |f| [f.from, f.to] = stretch(),
        |f| (f.event_type, [f.from, f.to]) = (text("call.completed"), stretch()),
        |f| (f.aggregate_type, [f.from, f.to]) = (text("user"), stretch()),
    ])
}

fn delivery_filters() -> Vec<deliveries::Filter> {
    let verdicts = ["accepted", "duplicate", "quarantined", "rejected"];
    let providers = ["elevenlabs", "twilio", "builderbot"];
    let mut filters = Vec::new();
    for verdict in verdicts.into_iter().map(text).chain([None]) {
        for provider in providers.into_iter().map(text).chain([None]) {
            for [from, to] in [[None, None], stretch()] {
                filters.push(deliveries::Filter {
                    verdict: verdict.clone(),
                    provider: provider.clone(),
                    from,
                    to,
                    before: None,
                });
            }
        }
    }
    filters
}

/// Rows as some busy years leave them, set-wise; no fold is that fast.
async fn fill(database_url: &str) {
    let run = async |sql: String| {
        let mut conn = PgConnection::connect(database_url).await.unwrap();
        let at = "create function pg_temp.at(n bigint) returns timestamptz immutable language sql
                  return to_timestamp(1700000000 + n)";
        for sql in [at, &sql] {
            sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
        }
    };
    tokio::join!(run(fill_read_models()), run(fill_ledger()));
    let pool = PgPool::connect(database_url).await.unwrap();
    statistics::analyze_new(&pool).await.unwrap();
}

/// The indexes are made again when the rows are there.
fn fill_read_models() -> String {
    format!(
        "
        set maintenance_work_mem = '256MB';
        create temp table kept_indexes as
            select indexdef, format('drop index %I', indexname) as dropping from pg_indexes
            where schemaname = 'public' and indexdef not like 'CREATE UNIQUE%'
              and tablename in ('interactions', 'call_details', 'messages', 'audit_log',
                  'conversation_state', 'conversation_messages');
        do $$ declare doing text; begin
            for doing in select dropping from kept_indexes loop execute doing; end loop;
        end $$;
        create temp table words as
            select word, to_tsvector('bitacora', 'hola mundo ' || word) as search
            from (select 'palabra' || n as word from generate_series(0, 4999) as n
                  union all select 'rarisima') as word;
        insert into interactions (id, channel, provider, direction, status, phone_key, agent_id,
            batch_id, started_at, last_event_at, message_count, first_position, last_position)
        select 'i' || n, (array['call','whatsapp','sms'])[1 + (n % 10 > 6)::int + (n % 10 > 8)::int],
            (array['elevenlabs','twilio'])[1 + (n % 10 > 6)::int],
            (array['outbound','inbound'])[1 + (n % 100 = 0)::int],
            case when n % 25000 = 0 then 'voicemail' when n % 9 = 0 then 'failed' else 'completed' end,
            'phone_' || n % 50000, case when n % 10 < 7 then 'agent_' || n % 20 end,
            case when n % 3 = 0 then 'batch_' || n / 500 end,
            pg_temp.at(n), pg_temp.at(n), 1, n, n
        from generate_series(1, {ROWS}) as n;
        insert into call_details (interaction_id, transcript, has_audio, analysis,
            dynamic_variables, sources, search)
        select 'i' || n, '[]', false, '{{}}', '{{}}', '{{}}',
            search
        from generate_series(1, {ROWS}) as n
        join words on word = case when n % 40000 = 6 then 'rarisima' else 'palabra' || n % 5000 end
        where n % 10 < 7;
        insert into messages (interaction_id, id, direction, status, media, details, created_at,
            updated_at, first_position, search)
        select 'i' || n, 'm' || n, 'inbound', 'received', '[]', '{{}}', pg_temp.at(n), pg_temp.at(n), n,
            search
        from generate_series(1, {ROWS}) as n join words on word = 'palabra' || n % 5000
        where n % 10 >= 7;
        insert into audit_log (position, occurred_at, recorded_at, actor, action, outcome)
        select n, pg_temp.at(n), pg_temp.at(n), 'user:' || n % 500, (array['login','reveal'])[1 + n % 2], 'ok'
        from generate_series(1, {ROWS}) as n;
        insert into conversation_state (id, phone_number, phone_key, status, started_at,
            last_message_at, message_count, metadata, opted_out, told, search)
        select 't' || n, '+57' || n, 'phone_' || n,
            case when n % 40000 = 7 then 'closed' when n % 50 = 7 then 'escalated' else 'active' end,
            pg_temp.at(n), pg_temp.at(n), 1, '{{}}', false, '{{}}', search
        from generate_series(1, {TALKS}) as n
        join words on word = case when n % 10000 = 6 then 'rarisima' else 'palabra' || n % 5000 end;
        insert into conversation_messages (id, conversation_id, direction, content, metadata, kind,
            media, status, author, created_at, position, part)
        select 'm' || n, 't' || case when n % 2 = 0 then 1 else n end, 'inbound', 'Hola', '{{}}', 'text',
            '[]', 'received', 'client', pg_temp.at(n), n, 0
        from generate_series(1, {TALKS}) as n;
        insert into conversation_quarters
        select to_timestamp(900 * n), 1, 1, 1, 1, 1, 1, 1
        from generate_series(1888000, 1898000) as n;
        insert into users (id, name, email, role, created_at)
        select n, 'Ana', n || '@example.com', 'agent', pg_temp.at(n) from generate_series(1, 10000) as n;
        do $$ declare doing text; begin
            for doing in select indexdef from kept_indexes loop execute doing; end loop;
        end $$;"
    )
}

fn fill_ledger() -> String {
    format!(
        "
        insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version,
            payload, metadata, recorded_at)
        select case when n % 50000 = 0 then 'user' when n % 10 < 7 then 'call' else 'chat' end,
            'id_' || n / 4, n, case when n % 50000 = 0 then 'user.registered' when n % 10 < 7 then 'call.completed' else 'message.received' end,
            '1', '{{}}', '{{}}', pg_temp.at(n)
        from generate_series(1, {ROWS}) as n;
        insert into deliveries (id, provider, route, verdict, reason, authentication, dedup_key, position,
            received_at, request_target, headers, body, body_bytes)
        select (lpad(to_hex((1700000000 + n::bigint) * 1000), 12, '0') || '70008000000000000000')::uuid,
            case when n % 10 < 7 then 'elevenlabs' when n % 50000 = 8 then 'builderbot' else 'twilio' end, 'route',
            case when n % 100 = 8 then 'duplicate' when n % 20000 = 19 then 'quarantined' when n % 500 = 9 then 'rejected' else 'accepted' end,
            null, 'signature', null, n, pg_temp.at(n), '/', '{{}}', 'x', 1
        from generate_series(1, {ROWS}) as n;"
    )
}
