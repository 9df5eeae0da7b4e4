//! The benchmark: the service against what PostgreSQL alone can do (the floor)
//! and against the stock framework, all in one run on one server.
//!
//! `make bench` starts a PostgreSQL with everything on that makes a commit
//! durable, and runs this. It takes about an hour; `-- --quick` takes minutes
//! and says less.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark looks at real clocks"
)]

mod backlog;
mod client;
mod floor;
mod ingest;
mod list;
mod load;
mod measures;
mod median;
mod overload;
mod process;
mod rebuild;
mod report;
mod run;
mod server;
mod stock;
mod visible;
mod webhook;

use std::net::SocketAddr;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::load::Pace;
use crate::report::Report;
use crate::run::{Bench, Scale, USUAL};
use crate::server::Server;

/// Measures Bitácora on the PostgreSQL of TEST_DATABASE_URL and writes
/// docs/BENCHMARKS.md.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// The service's program.
    #[arg(long, default_value = "target/release/bitacora")]
    program: String,
    /// Where to write what was measured.
    #[arg(long, default_value = "docs/BENCHMARKS.md")]
    output: String,
    /// Small numbers: a look, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Only these: ingest, duplicates, large, protection, erasure, visible,
    /// overload, start, backlog, rebuild, full, list, memory.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// The stock competitor alone, on DATABASE_URL, HOST and PORT.
    Stock,
    /// The load generator alone, against a service that runs.
    ///
    /// The service must have this ELEVENLABS_WEBHOOK_SECRET:
    /// wsec_benchmark_0123456789abcdef0123456789abcdef
    Load {
        /// Where the service listens, such as 127.0.0.1:3000.
        address: SocketAddr,
        /// How many webhooks.
        #[arg(long, default_value_t = 50_000)]
        webhooks: u64,
        /// Over how many connections.
        #[arg(long, default_value_t = 128)]
        connections: usize,
        /// How many a second; as fast as they are answered if not given.
        #[arg(long)]
        rate: Option<f64>,
        /// The number of the first conversation: another one sends others.
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let variable = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
    match options.command {
        Some(Command::Stock) => {
            let listen = SocketAddr::new(variable("HOST")?.parse()?, variable("PORT")?.parse()?);
            return stock::serve(&variable("DATABASE_URL")?, listen).await;
        }
        Some(Command::Load {
            address,
            webhooks,
            connections,
            rate,
            mut first,
        }) => {
            let requests = ingest::requests(&mut first, webhooks, USUAL);
            let pace = rate.map_or(Pace::Closed, Pace::Open);
            let outcome = ingest::run(address, requests, connections, pace).await?;
            println!(
                "{:.0}/s, median {:.1} ms, p99 {:.1} ms, answers {:?}",
                outcome.rate(),
                outcome.latency_ms(0.5),
                outcome.latency_ms(0.99),
                outcome.statuses
            );
            return Ok(());
        }
        None => {}
    }
    let server = Server::at(&variable("TEST_DATABASE_URL")?).await?;
    let mut bench = Bench {
        scale: if options.quick {
            Scale::QUICK
        } else {
            Scale::FULL
        },
        report: Report::default(),
        next: 0,
        server,
        options,
    };
    bench.run().await
}
