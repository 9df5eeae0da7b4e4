//! How many webhooks are taken.

use crate::ingest::{Measured, Variant};
use crate::report::{Line, Target};
use crate::run::{Bench, USUAL};

impl Bench {
    pub(crate) async fn ingest(&mut self) -> anyhow::Result<()> {
        if self.wants("ingest") {
            eprintln!("ingest");
            let api = self.measure(&["--api"], "ingest_api", USUAL, true).await?;
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
            self.report.add(Line {
                measure: "webhooks a second while they are folded into the read models as well, against stock".into(),
                target: Some(Target::AtLeast(5.0)),
                value: all.over_stock,
                unit: "×",
                figures: format!("{:.0}/s against {:.0}/s; {}", all.rate, all.stock, figures(&all)),
            });
            self.report.add(Line {
                measure: "taken alone (`--api`), against stock".into(),
                target: None,
                value: api.over_stock,
                unit: "×",
                figures: format!("{:.0}/s against {:.0}/s", api.rate, api.stock),
            });
            self.server.drop("ingest_api").await?;
            self.server.drop("ingest").await?;
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
