//! Projecting a backlog: a worker is started on a ledger that is full and
//! read models that are empty.

use std::time::{Duration, Instant};

use anyhow::bail;
use sqlx::{Connection, PgConnection};

use crate::load::{self, Pace};
use crate::process::{self, Service};
use crate::server::{Server, service};
use crate::webhook;

/// Webhooks that go through the service; the others are copies of what it made
/// of these, under names of their own.
const TEMPLATES: u64 = 2_000;
/// How long a backlog may take.
const TIMEOUT: Duration = Duration::from_secs(1_800);
/// How often it is asked whether it is folded.
const POLL: Duration = Duration::from_millis(100);

/// What it took.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Events that were folded.
    pub events: u64,
    /// From the start of the worker to the last checkpoint at the head.
    pub elapsed: Duration,
    /// Processor time of the service.
    pub service_cpu: Duration,
    /// Processor time of PostgreSQL.
    pub postgres_cpu: Duration,
    /// The most memory that the service had, in KiB.
    pub memory_kib: u64,
}

impl Outcome {
    /// Events a second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of processor time for each event: service and PostgreSQL.
    pub fn cpu_us(&self) -> (f64, f64) {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / self.events as f64;
        (each(self.service_cpu), each(self.postgres_cpu))
    }
}

/// A database with so many webhooks on its ledger and nothing folded, made
/// anew or copied from the last time that as many were asked for.
///
/// # Errors
/// When the service or the server fails.
pub async fn filled(
    server: &Server,
    program: &str,
    webhooks: u64,
    bytes: usize,
) -> anyhow::Result<String> {
    let full = format!("backlog_{webhooks}_{bytes}");
    if !server.has(&full).await? {
        let filling = format!("{full}_filling");
        fill(server, program, &filling, webhooks, bytes).await?;
        let rename = format!("alter database {filling} rename to {full}");
        server.run("postgres", &rename).await?;
    }
    let name = "backlog";
    let drop = format!("drop database if exists {name} with (force)");
    server.run("postgres", &drop).await?;
    let copy = format!("create database {name} template {full} strategy file_copy");
    server.run("postgres", &copy).await?;
    server.run("postgres", "checkpoint").await?;
    Ok(server.database(name))
}

async fn fill(
    server: &Server,
    program: &str,
    database: &str,
    webhooks: u64,
    bytes: usize,
) -> anyhow::Result<()> {
    let drop = format!("drop database if exists {database} with (force)");
    server.run("postgres", &drop).await?;
    server
        .run("postgres", &format!("create database {database}"))
        .await?;
    let templates = TEMPLATES.min(webhooks);
    let url = server.database(database);
    let taken = {
        let service = Service::start(&mut service(program, &["serve", "--api"], &url))?;
        let at = chrono::Utc::now().timestamp();
        let requests = (0..templates)
            .map(|n| webhook::request(&webhook::body(n, at, bytes), at))
            .collect();
        let address = service.address;
        let sent =
            tokio::task::spawn_blocking(move || load::run(address, requests, 16, Pace::Closed));
        sent.await??.accepted() as u64
    };
    if taken != templates {
        bail!("the service took {taken} of {templates} webhooks");
    }
    // Copies differ in the ids of conversation, telephone leg and delivery, by
    // digits of which the templates leave all but the last few 0.
    for copies in (1..webhooks / templates).collect::<Vec<_>>().chunks(25) {
        let (first, last) = (copies[0], copies[copies.len() - 1]);
        let sql = format!(
            "with template as materialized (
                 select e.*, e.payload::text as words, e.payload ->> 'call_sid' as sid from events e
                 where position <= (select min(position) from events) + {templates} - 1
                   and event_type = 'call.completed'
             )
             insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version,
                 payload, metadata, occurred_at, delivery_id)
             select aggregate_type, n || right(aggregate_id, -6), sequence, event_type, event_version,
                 replace(replace(words, aggregate_id, n || right(aggregate_id, -6)), sid,
                     'CA' || c || right(sid, -8))::json,
                 metadata, occurred_at, md5(delivery_id::text || c)::uuid
             from generate_series({first}, {last}) as copy,
                  lateral (select 'conv_' || lpad(copy::text, 6, 'b') as n,
                                  lpad(copy::text, 6, '0') as c) as named,
                  template
             order by copy, position;
             insert into deliveries (id, provider, route, verdict, authentication, dedup_key, position,
                 received_at, request_target, headers, body, body_bytes)
             select md5(id::text || lpad(copy::text, 6, '0'))::uuid, provider, route, verdict,
                 authentication, sha256(dedup_key || copy::text::bytea), position, received_at,
                 request_target, headers, body, body_bytes
             from generate_series({first}, {last}) as copy,
                  (select * from deliveries order by seq limit {templates}) as template"
        );
        server.run(database, &sql).await?;
    }
    server.run(database, "vacuum (analyze) events").await
}

/// Starts a worker on the database and waits until everything is folded.
///
/// # Errors
/// When the worker ends, or is not done in half an hour.
pub async fn run(server: &Server, program: &str, database_url: &str) -> anyhow::Result<Outcome> {
    let mut conn = PgConnection::connect(database_url).await?;
    let sql = "select count(*), max(position) from events";
    let (events, head): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut conn).await?;
    let began = Instant::now();
    let postgres = process::postgres_cpu(server.postmaster);
    let service = Service::start(&mut service(program, &["serve", "--worker"], database_url))?;
    let sql = "select coalesce(min(position), 0), count(*) from projection_checkpoints
               where build = 'live'";
    loop {
        let (folded, projections): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut conn).await?;
        if folded >= head && projections >= 8 {
            break;
        }
        if began.elapsed() > TIMEOUT {
            bail!("{folded} of {head} events are folded after {TIMEOUT:?}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(Outcome {
        events: u64::try_from(events)?,
        elapsed: began.elapsed(),
        service_cpu: service.cpu(),
        postgres_cpu: process::postgres_cpu(server.postmaster) - postgres,
        memory_kib: service.memory_kib().1,
    })
}
