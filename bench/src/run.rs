//! One run of the benchmark: what is measured, in which order, how much.

use std::time::Duration;

use crate::Options;
use crate::ingest::{self, Contest, Effort, Measured, Variant};
use crate::process::Service;
use crate::report::{self, Report};
use crate::server::{Server, service};

/// How much of everything.
pub struct Scale {
    pub effort: Effort,
    /// Events of the backlog and of the rebuild.
    pub backlog: u64,
    /// Events of stock's replay: its rate does not depend on how many.
    pub replay: u64,
    /// Events that are there before the rate is measured again.
    pub full: u64,
    /// Interactions among which one person is erased.
    pub interactions: u64,
    pub endurance: Duration,
    pub seconds: u64,
}

impl Scale {
    pub const FULL: Self = Self {
        effort: Effort {
            rounds: 5,
            webhooks: 60_000,
            seconds: 6,
        },
        backlog: 1_000_000,
        replay: 100_000,
        full: 5_000_000,
        interactions: 100_000,
        endurance: Duration::from_secs(600),
        seconds: 20,
    };
    pub const QUICK: Self = Self {
        effort: Effort {
            rounds: 3,
            webhooks: 20_000,
            seconds: 3,
        },
        backlog: 100_000,
        replay: 10_000,
        full: 200_000,
        interactions: 10_000,
        endurance: Duration::from_secs(60),
        seconds: 6,
    };
}

/// A webhook as most are.
pub const USUAL: Variant = Variant {
    bytes: 1536,
    duplicates: false,
};

/// A run.
pub struct Bench {
    pub options: Options,
    pub scale: Scale,
    pub server: Server,
    pub report: Report,
    /// The number of the next conversation.
    pub next: u64,
}

impl Bench {
    /// Measures and writes the report.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let machine = report::machine(&self.server).await?;
        eprintln!("making the files of PostgreSQL's log, as a server that has run has them");
        self.server.warm_up().await?;
        self.ingest().await?;
        self.protection().await?;
        self.erasure().await?;
        self.visible_and_overload().await?;
        self.backlog_and_rebuild().await?;
        self.full().await?;
        self.memory().await?;
        let how = format!(
            "**How**: {} rounds of each in turn, medians; {} webhooks over {} connections against {} s of pgbench with 64 \
             clients; the files of the log made and a checkpoint before the first round.{}",
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

    /// Whether a group of measures was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|only| only == name)
    }

    /// Webhooks that a service takes a second as this moment is: these machines
    /// are now and then half as fast as minutes before.
    pub async fn top(&mut self, arguments: &[&str], database: &str) -> anyhow::Result<f64> {
        self.server.make(database).await?;
        let arguments = [&["serve"], arguments].concat();
        let url = self.server.database(database);
        let service = Service::start(&mut service(&self.options.program, &arguments, &url))?;
        let webhooks = self.scale.effort.webhooks;
        ingest::send(
            &service,
            ingest::requests(&mut self.next, webhooks / 4, USUAL),
        )
        .await?;
        let requests = ingest::requests(&mut self.next, webhooks, USUAL);
        Ok(ingest::send(&service, requests).await?.rate())
    }

    /// Webhooks a second, in rounds.
    pub async fn measure(
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
}
