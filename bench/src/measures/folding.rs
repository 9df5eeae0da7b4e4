//! Folding a backlog, and folding everything anew.

use crate::report::{Line, Target};
use crate::run::Bench;
use crate::{backlog, rebuild, stock};

/// Where the top rate is measured.
const TOP: &str = "top";

impl Bench {
    pub(crate) async fn backlog_and_rebuild(&mut self) -> anyhow::Result<()> {
        if !self.wants("backlog") && !self.wants("rebuild") {
            return Ok(());
        }
        eprintln!("backlog: filling a ledger");
        let program = self.options.program.clone();
        let database = backlog::filled(&self.server, &program, self.scale.backlog, 1536).await?;
        eprintln!("backlog: projecting it");
        let before = self.top(&["--api"], TOP).await?;
        let folded = backlog::run(&self.server, &program, &database).await?;
        let top = f64::midpoint(before, self.top(&["--api"], TOP).await?);
        self.server.drop(TOP).await?;
        let (service_us, postgres_us) = folded.cpu_us();
        let line = Line {
            measure: format!(
                "projecting a backlog of {} events, against the top ingest rate",
                folded.events
            ),
            target: Some(Target::AtLeast(2.0)),
            value: folded.rate() / top,
            unit: "×",
            figures: format!(
                "{:.0}/s against {top:.0}/s, before and after; processor time each: service {service_us:.0} µs, PostgreSQL {postgres_us:.0} µs; memory at most {} MiB",
                folded.rate(),
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
}
