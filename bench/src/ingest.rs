//! Taking webhooks, against the floor and against stock: rounds of each in
//! turn, so that what slows the machine for a minute slows all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::floor;
use crate::load::{self, Outcome, Pace};
use crate::median::median;
use crate::process::{self, Service};
use crate::server::{Server, service};
use crate::webhook;

/// Connections to the service, as the issue has it.
pub const CONNECTIONS: usize = 128;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Size of each body.
    pub bytes: usize,
    /// Whether every fifth is one that came before.
    pub duplicates: bool,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of each.
    pub rounds: usize,
    /// Webhooks to the service in one round.
    pub webhooks: u64,
    /// Seconds of pgbench in one round.
    pub seconds: u64,
}

/// Medians over the rounds.
#[derive(Debug, Default)]
pub struct Measured {
    /// Webhooks a second.
    pub rate: f64,
    /// Transactions a second of the floor.
    pub floor: f64,
    /// Webhooks a second of stock; 0 if it took no part.
    pub stock: f64,
    /// Our rate in each round, over stock's in the same.
    pub over_stock: f64,
    /// Our rate in each round, over the floor's in the same.
    pub over_floor: f64,
    /// Half of the answers came within so many milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 came within so many milliseconds.
    pub p99_ms: f64,
    /// The same, over the median of the same round.
    pub p99_over_p50: f64,
    /// Microseconds of processor time for each webhook, by who spent it.
    pub cpu_us: BTreeMap<&'static str, f64>,
    /// The most memory that the service had, in MiB.
    pub memory_mib: f64,
}

/// Rounds of webhooks to the service, in turn with the floor and with stock.
pub struct Contest<'a> {
    /// Where all of them are.
    pub server: &'a Server,
    /// The service's program.
    pub program: &'a str,
    /// Arguments of `serve`.
    pub arguments: &'a [&'a str],
    /// The service's database; made if it is not there.
    pub database: &'a str,
    /// What is sent.
    pub variant: Variant,
    /// How much.
    pub effort: Effort,
    /// Whether stock takes part.
    pub with_stock: bool,
}

/// Measures; `next` numbers conversations.
///
/// # Errors
/// When something does not start, or a webhook is not answered 200.
pub async fn measure(contest: &Contest<'_>, next: &mut u64) -> anyhow::Result<Measured> {
    let Contest {
        server,
        program,
        arguments,
        database,
        variant,
        effort,
        with_stock,
    } = *contest;
    server.make(database).await?;
    let arguments = [&["serve"], arguments].concat();
    let ours = Service::start(&mut service(
        program,
        &arguments,
        &server.database(database),
    ))?;
    let stock = match with_stock {
        true => Some(start_stock(server).await?),
        false => None,
    };
    // Plans, pages and connections are made in a round that does not count. One
    // checkpoint before all, and not before each: right after it every page that
    // is touched is logged whole, of which a server that runs all day sees little.
    server.run("postgres", "checkpoint").await?;
    let mut rounds = Rounds::default();
    send(&ours, requests(next, effort.webhooks / 4, variant)).await?;
    if let Some(stock) = &stock {
        send(stock, requests(next, effort.webhooks / 40, variant)).await?;
    }
    for round in 0..effort.rounds {
        rounds.floor.push(
            floor::insert(
                server,
                variant.bytes,
                variant.duplicates,
                *next,
                effort.seconds,
            )
            .await?,
        );
        let requests_now = requests(next, effort.webhooks, variant);
        let before = (ours.cpu(), process::postgres_cpu(server.postmaster));
        let outcome = send(&ours, requests_now).await?;
        let after = (ours.cpu(), process::postgres_cpu(server.postmaster));
        rounds.push(&outcome, after.0 - before.0, after.1 - before.1);
        if let Some(stock) = &stock {
            let outcome = send(stock, requests(next, effort.webhooks / 10, variant)).await?;
            rounds.stock.push(outcome.rate());
        }
        eprintln!(
            "  round {}: {:.0}/s, floor {:.0}/s, stock {:.0}/s",
            round + 1,
            rounds.rate[round],
            rounds.floor[round],
            rounds.stock.last().copied().unwrap_or_default(),
        );
    }
    let mut measured = rounds.medians();
    measured.memory_mib = ours.memory_kib().1 as f64 / 1024.0;
    Ok(measured)
}

/// Stock, on an empty database of its own.
///
/// # Errors
/// When it does not start.
pub async fn start_stock(server: &Server) -> anyhow::Result<Service> {
    server.drop("stock").await?;
    server.make("stock").await?;
    Service::start(
        Command::new(std::env::current_exe()?)
            .arg("stock")
            .env("DATABASE_URL", server.database("stock")),
    )
}

/// Signed requests of new conversations.
pub fn requests(next: &mut u64, count: u64, variant: Variant) -> Vec<bytes::Bytes> {
    let at = chrono::Utc::now().timestamp();
    let first = *next;
    let mut made: Vec<bytes::Bytes> = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for n in 0..count {
        if variant.duplicates && n % 5 == 4 {
            // Of a moment ago or of long ago: any that was sent in this round.
            let seed = (first + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let earlier = seed % n;
            made.push(made[usize::try_from(earlier).unwrap_or(0)].clone());
        } else {
            made.push(webhook::request(
                &webhook::body(*next, at, variant.bytes),
                at,
            ));
            *next += 1;
        }
    }
    made
}

/// Sends them all as fast as they are answered.
///
/// # Errors
/// When one is not answered 200.
pub async fn send(service: &Service, requests: Vec<bytes::Bytes>) -> anyhow::Result<Outcome> {
    let count = requests.len();
    let outcome = run(service.address, requests, CONNECTIONS, Pace::Closed).await?;
    if outcome.accepted() != count {
        bail!("{count} were sent, and answered {:?}", outcome.statuses);
    }
    Ok(outcome)
}

/// The load generator, on a thread of its own.
///
/// # Errors
/// As [`load::run`].
pub async fn run(
    address: SocketAddr,
    requests: Vec<bytes::Bytes>,
    connections: usize,
    pace: Pace,
) -> anyhow::Result<Outcome> {
    tokio::task::spawn_blocking(move || load::run(address, requests, connections, pace)).await?
}

#[derive(Default)]
struct Rounds {
    rate: Vec<f64>,
    floor: Vec<f64>,
    stock: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu: BTreeMap<&'static str, Vec<f64>>,
}

impl Rounds {
    fn push(&mut self, outcome: &Outcome, service: Duration, postgres: Duration) {
        self.rate.push(outcome.rate());
        self.p50.push(outcome.latency_ms(0.5));
        self.p99.push(outcome.latency_ms(0.99));
        for (who, time) in [
            ("service", service),
            ("PostgreSQL", postgres),
            ("load generator", outcome.cpu),
        ] {
            let each = time.as_secs_f64() * 1e6 / outcome.accepted() as f64;
            self.cpu.entry(who).or_default().push(each);
        }
    }

    fn medians(self) -> Measured {
        let over = |above: &[f64], below: &[f64]| -> Vec<f64> {
            above.iter().zip(below).map(|(a, b)| a / b).collect()
        };
        Measured {
            over_floor: median(&over(&self.rate, &self.floor)),
            over_stock: median(&over(&self.rate, &self.stock)),
            p99_over_p50: median(&over(&self.p99, &self.p50)),
            rate: median(&self.rate),
            floor: median(&self.floor),
            stock: median(&self.stock),
            p50_ms: median(&self.p50),
            p99_ms: median(&self.p99),
            cpu_us: self
                .cpu
                .iter()
                .map(|(who, us)| (*who, median(us)))
                .collect(),
            memory_mib: 0.0,
        }
    }
}
