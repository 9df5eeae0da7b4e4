//! Memory over time.

use crate::overload;
use crate::process::Service;
use crate::report::{Line, Target};
use crate::run::Bench;
use crate::server::service;

impl Bench {
    pub(crate) async fn memory(&mut self) -> anyhow::Result<()> {
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
