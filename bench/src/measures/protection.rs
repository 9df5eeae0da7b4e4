//! What sealing the ledger and encrypting personal data cost.

use std::time::Duration;

use super::latency::settled;
use crate::ingest::{requests, send};
use crate::median::median;
use crate::process::{self, Service};
use crate::report::{Line, Target};
use crate::run::{Bench, USUAL};
use crate::server::service;

/// One of the two services, and what was measured of it.
struct Side {
    database: &'static str,
    service: Service,
    rates: Vec<f64>,
    /// Microseconds of processor time for each webhook.
    service_us: Vec<f64>,
    postgres_us: Vec<f64>,
}

impl Side {
    fn of(database: &'static str, service: Service) -> Self {
        Self {
            database,
            service,
            rates: vec![],
            service_us: vec![],
            postgres_us: vec![],
        }
    }

    fn figures(&self) -> String {
        format!(
            "{:.0}/s (processor time each: service {:.0} µs, PostgreSQL {:.0} µs)",
            median(&self.rates),
            median(&self.service_us),
            median(&self.postgres_us)
        )
    }
}

impl Bench {
    /// Two services, one that seals and encrypts and one that does neither,
    /// take rounds of webhooks in turn. Both fold what they take.
    pub(crate) async fn protection(&mut self) -> anyhow::Result<()> {
        if !self.wants("protection") {
            return Ok(());
        }
        eprintln!("protection");
        let mut sides = vec![];
        for (database, protected) in [("open", false), ("protected", true)] {
            self.server.make(database).await?;
            let url = self.server.database(database);
            let mut command = service(&self.options.program, &["serve"], &url);
            if !protected {
                command
                    .env("LOG_SEAL_SECONDS", "0")
                    .env("SUBJECT_ENCRYPTION", "false");
            }
            sides.push(Side::of(database, Service::start(&mut command)?));
        }
        for side in &sides {
            // Plans, pages and connections are made in a round that does not
            // count.
            let warming = requests(&mut self.next, self.scale.effort.webhooks / 4, USUAL);
            send(&side.service, warming).await?;
            settled(&self.server, side.database).await?;
        }
        for _ in 0..self.scale.effort.rounds {
            for side in &mut sides {
                self.round(side).await?;
            }
        }
        let (open, protected) = (&sides[0], &sides[1]);
        let ratios = protected.rates.iter().zip(&open.rates);
        let ratios: Vec<f64> = ratios.map(|(on, off)| on / off).collect();
        self.report.add(Line {
            measure: "webhooks a second, sealed, encrypted and folded, against folded alone".into(),
            target: Some(Target::AtLeast(0.85)),
            value: median(&ratios),
            unit: "×",
            figures: format!("{} against {}", protected.figures(), open.figures()),
        });
        drop(sides);
        self.server.drop("open").await?;
        self.server.drop("protected").await
    }

    async fn round(&mut self, side: &mut Side) -> anyhow::Result<()> {
        self.server.run("postgres", "checkpoint").await?;
        let webhooks = self.scale.effort.webhooks;
        let sent = requests(&mut self.next, webhooks, USUAL);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / webhooks as f64;
        let service = side.service.cpu();
        let postgres = process::postgres_cpu(self.server.postmaster);
        side.rates.push(send(&side.service, sent).await?.rate());
        side.service_us.push(each(side.service.cpu() - service));
        let postgres = process::postgres_cpu(self.server.postmaster) - postgres;
        side.postgres_us.push(each(postgres));
        // What is left to fold is no load on the next round.
        settled(&self.server, side.database).await
    }
}
