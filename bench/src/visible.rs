//! From the answer to a webhook until its call can be read, and from the start
//! of the program to the first webhook that is accepted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::time::interval;

use crate::ingest::{self, CONNECTIONS, Variant};
use crate::load::{self, Pace};
use crate::process::Service;
use crate::server::{Server, TOKEN, service};
use crate::webhook;

/// How often one webhook of the stream is followed, and how often it is looked
/// for: seldom enough that the looking is no load of its own.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long is waited for one to be seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it took, over all that were followed.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// How many were followed.
    pub followed: usize,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 were seen within so many milliseconds.
    pub p99_ms: f64,
}

/// Sends webhooks at a rate for so many seconds, and follows some.
///
/// # Errors
/// When the service fails, or one is not seen within a minute.
pub async fn measure(
    service: &Service,
    rate: f64,
    seconds: u64,
    bytes: usize,
    next: &mut u64,
) -> anyhow::Result<Delays> {
    let variant = Variant {
        bytes,
        duplicates: false,
    };
    let requests = ingest::requests(next, (rate * seconds as f64) as u64, variant);
    let followed: Vec<u64> = (0..seconds * 1000 / SAMPLE_EVERY.as_millis() as u64)
        .map(|n| *next + n)
        .collect();
    *next += followed.len() as u64;
    let address = service.address;
    let load = tokio::spawn(ingest::run(
        address,
        requests,
        CONNECTIONS,
        Pace::Open(rate),
    ));
    let mut turns = interval(SAMPLE_EVERY);
    let mut following = Vec::new();
    for number in followed {
        turns.tick().await;
        following.push(tokio::spawn(follow(address, number, bytes)));
    }
    let mut delays = Vec::new();
    for one in following {
        delays.push(one.await??.as_secs_f64() * 1000.0);
    }
    let outcome = load.await??;
    if outcome.statuses.keys().any(|status| *status != 200) {
        bail!("answered {:?} at half the top rate", outcome.statuses);
    }
    delays.sort_by(f64::total_cmp);
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share).round() as usize];
    Ok(Delays {
        followed: delays.len(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
    })
}

/// Sends one webhook and reads its call until it is there.
async fn follow(address: SocketAddr, number: u64, bytes: usize) -> anyhow::Result<Duration> {
    let at = chrono::Utc::now().timestamp();
    let webhook = webhook::request(&webhook::body(number, at, bytes), at);
    let mut connection = load::Connection::open(address).await?;
    if connection.ask(&webhook).await? != 200 {
        bail!("a webhook that was to be followed was refused");
    }
    let durable = Instant::now();
    let read = Bytes::from(format!(
        "GET /api/interactions/{} HTTP/1.1\r\nhost: localhost\r\nx-service-token: {TOKEN}\r\n\r\n",
        webhook::conversation_id(number)
    ));
    let mut turns = interval(LOOK_EVERY);
    while durable.elapsed() < PATIENCE {
        match connection.ask(&read).await? {
            200 => return Ok(durable.elapsed()),
            404 => turns.tick().await,
            status => bail!("reading a call was answered {status}"),
        };
    }
    bail!("a call was not seen within {PATIENCE:?}")
}

/// From the start of the program to its first 200, the database being up and
/// its tables there.
///
/// # Errors
/// When it does not start.
pub async fn start_up(
    server: &Server,
    program: &str,
    database: &str,
    next: &mut u64,
) -> anyhow::Result<Duration> {
    let at = chrono::Utc::now().timestamp();
    let webhook = webhook::request(&webhook::body(*next, at, 1536), at);
    *next += 1;
    let began = Instant::now();
    let started = Service::start(&mut service(
        program,
        &["serve"],
        &server.database(database),
    ))?;
    let mut connection = load::Connection::open(started.address).await?;
    let status = connection
        .ask(&webhook)
        .await
        .context("the first webhook")?;
    match status {
        200 => Ok(began.elapsed()),
        status => bail!("the first webhook was answered {status}"),
    }
}
