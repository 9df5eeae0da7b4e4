//! More than the service can take, and for longer than a moment.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::ingest::{self, CONNECTIONS, Variant};
use crate::load::{Outcome, Pace};
use crate::process::Service;
use crate::server::Server;

const VARIANT: Variant = Variant {
    bytes: 1536,
    duplicates: false,
};

/// What became of twice the top rate.
#[derive(Debug)]
pub struct Overloaded {
    /// Webhooks that were offered, a second.
    pub offered: f64,
    /// Those that were taken, a second.
    pub taken: f64,
    /// Those that were answered 503, a second.
    pub refused: f64,
    /// Answers of 200: the median, and 99 of 100, in milliseconds.
    pub latency_ms: (f64, f64),
    /// The most memory that the service had, in MiB.
    pub memory_mib: f64,
    /// Acknowledged, and not on the ledger.
    pub lost: i64,
}

/// Offers so many webhooks a second. 1024 wait in the service's queue at most,
/// so more connections than that must wait for answers.
///
/// # Errors
/// When an answer is neither 200 nor 503.
pub async fn measure(
    server: &Server,
    service: &Service,
    database: &str,
    rate: f64,
    seconds: u64,
    next: &mut u64,
) -> anyhow::Result<Overloaded> {
    const WAITING: usize = 2_000;
    let events = "select count(*) from events";
    let before: i64 = server.ask(database, events).await?.parse()?;
    let requests = ingest::requests(next, (rate * seconds as f64) as u64, VARIANT);
    let outcome = ingest::run(service.address, requests, WAITING, Pace::Open(rate)).await?;
    let refused = outcome.statuses.get(&503).copied().unwrap_or(0);
    let answered: usize = outcome.statuses.values().sum();
    if outcome.accepted() + refused != answered {
        bail!("answered {:?}", outcome.statuses);
    }
    let after: i64 = server.ask(database, events).await?.parse()?;
    let elapsed = outcome.elapsed.as_secs_f64();
    Ok(Overloaded {
        offered: rate,
        taken: outcome.rate(),
        refused: refused as f64 / elapsed,
        latency_ms: (outcome.latency_ms(0.5), outcome.latency_ms(0.99)),
        memory_mib: service.memory_kib().1 as f64 / 1024.0,
        lost: i64::try_from(outcome.accepted())? - (after - before),
    })
}

/// Memory at full load, in MiB, each minute.
///
/// # Errors
/// When the service fails.
pub async fn endure(
    service: &Service,
    how_long: Duration,
    next: &mut u64,
) -> anyhow::Result<Vec<f64>> {
    const ROUND: u64 = 60_000;
    let began = Instant::now();
    let mut memory = Vec::new();
    let mut requests = ingest::requests(next, ROUND, VARIANT);
    while began.elapsed() < how_long {
        let sending = ingest::run(service.address, requests, CONNECTIONS, Pace::Closed);
        let sending = tokio::spawn(sending);
        // Made while the others are sent: the load does not pause.
        requests = ingest::requests(next, ROUND, VARIANT);
        let outcome: Outcome = sending.await??;
        if outcome.accepted() as u64 != ROUND {
            bail!("answered {:?}", outcome.statuses);
        }
        let minute = began.elapsed().as_secs() / 60;
        if memory.len() as u64 <= minute {
            memory.push(service.memory_kib().0 as f64 / 1024.0);
        }
    }
    memory.first().context("no time was given")?;
    Ok(memory)
}
