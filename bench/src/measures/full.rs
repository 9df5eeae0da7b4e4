//! A ledger on which much is already.

use crate::process::Service;
use crate::report::{Line, Target};
use crate::run::{Bench, USUAL};
use crate::server::service;
use crate::{backlog, list};

impl Bench {
    pub(crate) async fn full(&mut self) -> anyhow::Result<()> {
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
                    value: measured.over_floor,
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
}
