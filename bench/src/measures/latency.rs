//! How long things take, and what happens when there is too much.

use std::time::Duration;

use crate::process::Service;
use crate::report::{Line, Target};
use crate::run::Bench;
use crate::server::{Server, service};
use crate::{median, overload, visible};

impl Bench {
    pub(crate) async fn visible_and_overload(&mut self) -> anyhow::Result<()> {
        let database = "latency";
        self.server.make(database).await?;
        if self.wants("visible") {
            eprintln!("visible");
            let half = self.top(&[], database).await? / 2.0;
            let service = self.settled_service(database).await?;
            let delays =
                visible::measure(&service, half, self.scale.seconds * 2, 1536, &mut self.next)
                    .await?;
            self.report.add(Line {
                measure:
                    "commit to visible in `GET /api/interactions/{id}` at half the top rate, p99"
                        .into(),
                target: Some(Target::Under(250.0)),
                value: delays.p99_ms,
                unit: " ms",
                figures: format!(
                    "median {:.0} ms, {} followed at {half:.0}/s",
                    delays.p50_ms, delays.followed,
                ),
            });
        }
        if self.wants("overload") {
            eprintln!("overload");
            let twice = self.top(&[], database).await? * 2.0;
            let service = self.settled_service(database).await?;
            let over = overload::measure(
                &self.server,
                &service,
                database,
                twice,
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

    /// A service that has folded all that there is.
    async fn settled_service(&self, database: &str) -> anyhow::Result<Service> {
        let url = self.server.database(database);
        let service = Service::start(&mut service(&self.options.program, &["serve"], &url))?;
        settled(&self.server, database).await?;
        Ok(service)
    }
}

/// Waits until every projection has folded all that there is.
pub(super) async fn settled(server: &Server, database: &str) -> anyhow::Result<()> {
    let behind = "select count(*) from projection_checkpoints
                   where build = 'live' and position < (select coalesce(max(position), 0) from events)";
    while server.ask(database, behind).await? != "0" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn min(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

fn max(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
