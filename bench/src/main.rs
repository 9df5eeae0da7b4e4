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
mod floor;
mod ingest;
mod list;
mod load;
mod median;
mod overload;
mod process;
mod rebuild;
mod report;
mod server;
mod stock;
mod visible;
mod webhook;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::ingest::{Contest, Effort, Measured, Variant};
use crate::load::Pace;
use crate::process::Service;
use crate::report::{Line, Report, Target};
use crate::server::{Server, service};

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
    /// Only these: ingest, duplicates, large, visible, overload, backlog,
    /// rebuild, full, list, memory, start.
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

/// How much of everything.
struct Scale {
    effort: Effort,
    /// Events of the backlog and of the rebuild.
    backlog: u64,
    /// Events of stock's replay: its rate does not depend on how many.
    replay: u64,
    /// Events that are there before the rate is measured again.
    full: u64,
    endurance: Duration,
    seconds: u64,
}

impl Scale {
    const FULL: Self = Self {
        effort: Effort {
            rounds: 5,
            webhooks: 60_000,
            seconds: 6,
        },
        backlog: 1_000_000,
        replay: 100_000,
        full: 5_000_000,
        endurance: Duration::from_secs(600),
        seconds: 20,
    };
    const QUICK: Self = Self {
        effort: Effort {
            rounds: 3,
            webhooks: 20_000,
            seconds: 3,
        },
        backlog: 100_000,
        replay: 10_000,
        full: 200_000,
        endurance: Duration::from_secs(60),
        seconds: 6,
    };
}

const USUAL: Variant = Variant {
    bytes: 1536,
    duplicates: false,
};

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
        top: 0.0,
        top_folding: 0.0,
        server,
        options,
    };
    bench.run().await
}

struct Bench {
    options: Options,
    scale: Scale,
    server: Server,
    report: Report,
    /// The number of the next conversation.
    next: u64,
    /// The top rate of ingest alone, once it was measured.
    top: f64,
    /// The top rate while the same process folds.
    top_folding: f64,
}

impl Bench {
    async fn run(&mut self) -> anyhow::Result<()> {
        let machine = report::machine(&self.server).await?;
        // The log's files are made once and used again from then on.
        eprintln!("warming the server up");
        floor::insert(
            &self.server,
            8192,
            false,
            u64::from(u32::MAX) / 8,
            self.scale.seconds,
        )
        .await?;
        self.server.drop("floor").await?;
        self.ingest().await?;
        self.visible_and_overload().await?;
        self.backlog_and_rebuild().await?;
        self.full().await?;
        self.memory().await?;
        let how = format!(
            "**How**: {} rounds of each in turn, medians; {} webhooks over {} connections against {} s of pgbench with 64 \
             clients; a checkpoint before each.{}",
            self.scale.effort.rounds,
            self.scale.effort.webhooks,
            ingest::CONNECTIONS,
            self.scale.effort.seconds,
            if self.options.quick {
                " **Quick run: small numbers, not the figures that count.**"
            } else {
                ""
            },
        );
        self.report.write(&self.options.output, &machine, &how)
    }

    fn wants(&self, name: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|only| only == name)
    }

    async fn measure(
        &mut self,
        arguments: &[&str],
        database: &str,
        variant: Variant,
        with_stock: bool,
    ) -> anyhow::Result<Measured> {
        let contest = Contest {
            server: &self.server,
            program: &self.options.program,
            arguments,
            database,
            variant,
            effort: self.scale.effort,
            with_stock,
        };
        ingest::measure(&contest, &mut self.next).await
    }

    async fn ingest(&mut self) -> anyhow::Result<()> {
        if self.wants("ingest") {
            eprintln!("ingest");
            let api = self.measure(&["--api"], "ingest_api", USUAL, false).await?;
            self.top = api.rate;
            self.report.add(Line {
                measure: "durable, verified, deduplicated 1.5 KiB webhooks a second, 128 connections, against the floor".into(),
                target: Some(Target::AtLeast(1.0)),
                value: api.over_floor,
                unit: "×",
                figures: figures(&api),
            });
            self.report.add(Line {
                measure: "p99 of the answer at that load, against its median".into(),
                target: Some(Target::Under(8.0)),
                value: api.p99_over_p50,
                unit: "×",
                figures: format!("{:.1} ms against {:.1} ms", api.p99_ms, api.p50_ms),
            });
            let all = self.measure(&[], "ingest", USUAL, true).await?;
            self.top_folding = all.rate;
            let stock = all.stock.unwrap_or(f64::NAN);
            self.report.add(Line {
                measure: "webhooks a second while they are folded into the read models as well, against stock".into(),
                target: Some(Target::AtLeast(5.0)),
                value: all.rate / stock,
                unit: "×",
                figures: format!("{:.0}/s against {stock:.0}/s; {}", all.rate, figures(&all)),
            });
            self.report.add(Line {
                measure: "taken alone (`--api`), against stock".into(),
                target: None,
                value: api.rate / stock,
                unit: "×",
                figures: format!("{:.0}/s against {stock:.0}/s", api.rate),
            });
            self.server.drop("ingest_api").await?;
        }
        let with_duplicates = Variant {
            duplicates: true,
            ..USUAL
        };
        let large = Variant {
            bytes: 8192,
            ..USUAL
        };
        for (name, variant, measure) in [
            (
                "duplicates",
                with_duplicates,
                "the same with 20 % duplicates, against the floor with the same",
            ),
            (
                "large",
                large,
                "the same with 8 KiB bodies, against the floor with the same",
            ),
        ] {
            if !self.wants(name) {
                continue;
            }
            eprintln!("{name}");
            let measured = self.measure(&["--api"], name, variant, false).await?;
            self.report.add(Line {
                measure: measure.into(),
                target: Some(Target::AtLeast(0.9)),
                value: measured.over_floor,
                unit: "×",
                figures: figures(&measured),
            });
            self.server.drop(name).await?;
        }
        self.server.drop("floor").await
    }

    async fn visible_and_overload(&mut self) -> anyhow::Result<()> {
        if self.top == 0.0 {
            // Not measured in this run.
            (self.top, self.top_folding) = (8_000.0, 6_000.0);
        }
        let database = "ingest";
        self.server.make(database).await?;
        if self.wants("visible") {
            eprintln!("visible");
            let service = Service::start(&mut service(
                &self.options.program,
                &["serve"],
                &self.server.database(database),
            ))?;
            settled(&self.server, database).await?;
            let delays = visible::measure(
                &service,
                self.top_folding / 2.0,
                self.scale.seconds * 2,
                1536,
                &mut self.next,
            )
            .await?;
            self.report.add(Line {
                measure:
                    "commit to visible in `GET /api/interactions/{id}` at half the top rate, p99"
                        .into(),
                target: Some(Target::Under(250.0)),
                value: delays.p99_ms,
                unit: " ms",
                figures: format!(
                    "median {:.0} ms, {} followed at {:.0}/s",
                    delays.p50_ms,
                    delays.followed,
                    self.top_folding / 2.0
                ),
            });
        }
        if self.wants("overload") {
            eprintln!("overload");
            let service = Service::start(&mut service(
                &self.options.program,
                &["serve"],
                &self.server.database(database),
            ))?;
            let over = overload::measure(
                &self.server,
                &service,
                database,
                self.top_folding * 2.0,
                self.scale.seconds,
                &mut self.next,
            )
            .await?;
            self.report.add(Line {
                measure: "acknowledged at twice the top rate, and not on the ledger".into(),
                target: Some(Target::Under(1.0)),
                value: over.lost as f64,
                unit: "",
                figures: format!(
                    "offered {:.0}/s: {:.0}/s taken (median {:.0} ms, p99 {:.0} ms), {:.0}/s answered 503; memory at most {:.0} MiB",
                    over.offered, over.taken, over.latency_ms.0, over.latency_ms.1, over.refused, over.memory_mib,
                ),
            });
        }
        if self.wants("start") {
            let mut times = vec![];
            for _ in 0..5 {
                times.push(
                    visible::start_up(
                        &self.server,
                        &self.options.program,
                        database,
                        &mut self.next,
                    )
                    .await?
                    .as_secs_f64(),
                );
            }
            self.report.add(Line {
                measure: "start to first accepted webhook, the database being up".into(),
                target: Some(Target::Under(1.0)),
                value: median::median(&times),
                unit: " s",
                figures: format!("five starts, {:.2} to {:.2} s", min(&times), max(&times)),
            });
        }
        self.server.drop(database).await
    }

    async fn backlog_and_rebuild(&mut self) -> anyhow::Result<()> {
        if !self.wants("backlog") && !self.wants("rebuild") {
            return Ok(());
        }
        eprintln!("backlog: filling a ledger");
        let (server, program) = (&self.server, &self.options.program);
        let database = backlog::filled(server, program, self.scale.backlog, 1536).await?;
        eprintln!("backlog: projecting it");
        let folded = backlog::run(server, program, &database).await?;
        let (service_us, postgres_us) = folded.cpu_us();
        let line = Line {
            measure: format!(
                "projecting a backlog of {} events, against the top ingest rate",
                folded.events
            ),
            target: Some(Target::AtLeast(2.0)),
            value: folded.rate() / self.top,
            unit: "×",
            figures: format!(
                "{:.0}/s against {:.0}/s; processor time each: service {service_us:.0} µs, PostgreSQL {postgres_us:.0} µs; memory at most {} MiB",
                folded.rate(),
                self.top,
                folded.memory_kib >> 10,
            ),
        };
        self.report.add(line);
        if self.wants("rebuild") {
            eprintln!("rebuild");
            let rebuilt = rebuild::run(&self.server, &self.options.program, &database).await?;
            self.server.drop("stock").await?;
            self.server.make("stock").await?;
            let url = self.server.database("stock");
            stock::fill(
                &url,
                0,
                self.scale.replay,
                chrono::Utc::now().timestamp(),
                1536,
            )
            .await?;
            let (events, took) = stock::replay(&url).await?;
            let stock = events as f64 / took.as_secs_f64();
            let (service_us, postgres_us) = rebuilt.cpu_us();
            self.report.add(Line {
                measure: format!("rebuild of every read model from {} events, against stock's QueryReplay", rebuilt.events),
                target: Some(Target::AtLeast(20.0)),
                value: rebuilt.rate() / stock,
                unit: "×",
                figures: format!(
                    "{:.0}/s against {stock:.0}/s (over {events}); processor time each: service {service_us:.0} µs, PostgreSQL {postgres_us:.0} µs; memory at most {} MiB",
                    rebuilt.rate(), rebuilt.memory_kib >> 10,
                ),
            });
            self.server.drop("stock").await?;
        }
        self.server.drop("backlog").await?;
        self.server
            .drop(&format!("backlog_{}_1536", self.scale.backlog))
            .await
    }

    async fn full(&mut self) -> anyhow::Result<()> {
        if !self.wants("full") && !self.wants("list") {
            return Ok(());
        }
        eprintln!("full: filling a ledger with {} events", self.scale.full);
        let (server, program) = (&self.server, &self.options.program);
        backlog::filled(server, program, self.scale.full, 1536).await?;
        self.server
            .drop(&format!("backlog_{}_1536", self.scale.full))
            .await?;
        eprintln!("full: folding it");
        let database = self.server.database("backlog");
        backlog::run(&self.server, &self.options.program, &database).await?;
        self.sizes("backlog").await?;
        if self.wants("full") {
            // Both in one run: an empty ledger, then the full one, in turn.
            let empty = self.measure(&["--api"], "empty", USUAL, false).await?;
            let full = self.measure(&["--api"], "backlog", USUAL, false).await?;
            self.report.add(Line {
                measure: format!(
                    "rate with {} events already there, against an empty ledger",
                    self.scale.full
                ),
                target: Some(Target::AtLeast(0.9)),
                value: full.over_floor / empty.over_floor,
                unit: "×",
                figures: format!(
                    "{:.2}× of the floor against {:.2}×; {:.0}/s against {:.0}/s",
                    full.over_floor, empty.over_floor, full.rate, empty.rate,
                ),
            });
            self.server.drop("empty").await?;
        }
        if self.wants("list") {
            let service = Service::start(&mut service(
                &self.options.program,
                &["serve", "--api"],
                &database,
            ))?;
            for filter in list::FILTERS {
                let measured = list::measure(
                    &self.server,
                    &service,
                    "backlog",
                    filter,
                    self.scale.effort.rounds,
                    self.scale.effort.seconds,
                )
                .await?;
                self.report.add(Line {
                    measure: format!("`GET /api/interactions?{filter}` at {} interactions, against pgbench running its SQL", self.scale.full),
                    target: Some(Target::AtLeast(0.5)),
                    value: measured.rate / measured.floor,
                    unit: "×",
                    figures: format!("{:.0}/s against {:.0}/s", measured.rate, measured.floor),
                });
            }
        }
        self.server.drop("backlog").await
    }

    /// What a million calls take on disk.
    async fn sizes(&mut self, database: &str) -> anyhow::Result<()> {
        let millions = self.scale.full as f64 / 1e6;
        let of = |what: &str, which: &str| {
            format!(
                "select coalesce(sum({what}(c.oid)), 0) / 1048576 from pg_class c
                   join pg_namespace n on n.oid = c.relnamespace
                  where n.nspname = 'public' and c.relkind = 'r' and c.relname {which}"
            )
        };
        let mut figures = vec![];
        let mut total = 0.0;
        for (name, which) in [
            ("events", "= 'events'".to_owned()),
            ("deliveries", "= 'deliveries'".to_owned()),
            ("read models", "not in ('events', 'deliveries')".to_owned()),
        ] {
            let mut sizes = vec![];
            for what in ["pg_table_size", "pg_indexes_size"] {
                let mib: f64 = self
                    .server
                    .ask(database, &of(what, &which))
                    .await?
                    .parse()?;
                sizes.push(mib / millions);
                total += mib / millions;
            }
            figures.push(format!(
                "{name} {:.0} and {:.0} of indexes",
                sizes[0], sizes[1]
            ));
        }
        self.report.add(Line {
            measure: "on disk, a million calls of 1.5 KiB".into(),
            target: None,
            value: total,
            unit: " MiB",
            figures: figures.join("; "),
        });
        Ok(())
    }

    async fn memory(&mut self) -> anyhow::Result<()> {
        if !self.wants("memory") {
            return Ok(());
        }
        eprintln!("memory: full load for {:?}", self.scale.endurance);
        self.server.make("endurance").await?;
        let service = Service::start(&mut service(
            &self.options.program,
            &["serve"],
            &self.server.database("endurance"),
        ))?;
        let memory = overload::endure(&service, self.scale.endurance, &mut self.next).await?;
        let most = service.memory_kib().1 as f64 / 1024.0;
        let each: Vec<String> = memory.iter().map(|mib| format!("{mib:.0}")).collect();
        self.report.add(Line {
            measure: format!(
                "memory of the service at full load over {} s, at most",
                self.scale.endurance.as_secs()
            ),
            target: Some(Target::Under(150.0)),
            value: most,
            unit: " MiB",
            figures: format!("in each minute: {}", each.join(", ")),
        });
        drop(service);
        self.server.drop("endurance").await
    }
}

/// Waits until every projection has folded all that there is.
async fn settled(server: &Server, database: &str) -> anyhow::Result<()> {
    let behind = "select count(*) from projection_checkpoints
                   where build = 'live' and position < (select coalesce(max(position), 0) from events)";
    while server.ask(database, behind).await? != "0" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn figures(measured: &Measured) -> String {
    let cpu: Vec<String> = measured
        .cpu_us
        .iter()
        .map(|(who, us)| format!("{who} {us:.0}"))
        .collect();
    format!(
        "{:.0}/s against {:.0}/s; median {:.1} ms; processor time each, µs: {}; memory at most {:.0} MiB",
        measured.rate,
        measured.floor,
        measured.p50_ms,
        cpu.join(", "),
        measured.memory_mib,
    )
}

fn min(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

fn max(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
