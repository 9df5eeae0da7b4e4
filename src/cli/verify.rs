//! `bitacora verify`: whether the ledger is what was sealed.

use std::fs::{self, File};
use std::io::{BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use domain::log::{Proof, Verifiers};
use sqlx::PgPool;
use tlog_tiles::record_hash;

use super::{PLAIN_PROGRESS_INTERVAL, WrongSetting, progress_bar};
use crate::config::{LogKeys, LogSettings};
use crate::export::verify::verify;
use crate::ledger::log::{self, Finding, Outside, Report};

/// What is compared with what.
#[derive(Args)]
pub struct VerifyArgs {
    /// A file to verify alone, with no database: a tlog-proof, or an export.
    pub(super) file: Option<PathBuf>,

    /// A checkpoint that was kept outside, again for each: what it covers must still be there.
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) log: LogSettings,
}

/// The ledger is not what was sealed.
#[derive(Debug, thiserror::Error)]
#[error("NOT AS SEALED: {0}")]
pub struct NotAsSealed(pub Finding);

/// Something that is verified alone is not what it says.
#[derive(Debug, thiserror::Error)]
#[error("NOT PROVED: {0}")]
pub struct NotProved(pub String);

impl VerifyArgs {
    /// The keys that are believed, if any are.
    pub(super) fn known_keys(&self) -> anyhow::Result<Verifiers> {
        let keys = LogKeys::new(&self.log).map_err(|error| WrongSetting(format!("{error:#}")))?;
        Ok(keys.verifiers)
    }

    /// The keys that are believed: there must be one.
    pub(super) fn keys(&self) -> anyhow::Result<Verifiers> {
        let keys = self.known_keys()?;
        if keys.keys().is_empty() {
            return Err(WrongSetting(
                "no key is known to verify by: set LOG_VERIFIER_KEYS (or LOG_SIGNING_KEY)"
                    .to_owned(),
            )
            .into());
        }
        Ok(keys)
    }

    /// The heads from outside, each signed by a key that is believed.
    pub(super) fn outside(&self, keys: &Verifiers) -> anyhow::Result<Vec<Outside>> {
        let read = |path: &PathBuf| {
            let name = path.display().to_string();
            let note = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
            let head = keys
                .open(&note)
                .map_err(|why| NotProved(format!("{name}: {why}")))?;
            Ok(Outside { name, head })
        };
        self.checkpoints.iter().map(read).collect()
    }
}

/// Verifies the database.
pub(super) async fn database(
    pool: PgPool,
    keys: Verifiers,
    outside: Vec<Outside>,
) -> anyhow::Result<()> {
    let bar = progress_bar("verify", "leaves");
    let plain = !std::io::stderr().is_terminal();
    let (began, mut said) = (Instant::now(), Instant::now());
    let report = log::verify(&pool, &keys, &outside, |done, of| {
        bar.set_length(of);
        bar.set_position(done);
        if plain && said.elapsed() >= PLAIN_PROGRESS_INTERVAL {
            said = Instant::now();
            println!("verify: leaf {done} of {of}");
        }
    })
    .await?;
    bar.finish_and_clear();
    show(&report, began.elapsed().as_secs_f64());
    match report.finding {
        Some(finding) => Err(NotAsSealed(finding).into()),
        None => Ok(()),
    }
}

fn show(report: &Report, seconds: f64) {
    println!(
        "{} leaves are as they were sealed: {} events and {} deliveries, under {} signed heads, in {seconds:.1} s",
        report.leaves, report.events, report.deliveries, report.heads
    );
    for name in &report.confirmed {
        println!("{name}: all that it covers is here, unchanged");
    }
    if report.finding.is_none() && report.unsealed > 0 {
        println!("not sealed yet, because newer: {} rows", report.unsealed);
    }
}

/// Verifies a file alone.
pub(super) fn file(path: &Path, keys: &Verifiers) -> anyhow::Result<()> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let not_proved = |why: String| NotProved(format!("{shown}: {why}"));
    let proof = Proof::read(&text).map_err(|why| not_proved(why.to_string()))?;
    let Some(entry) = &proof.entry else {
        bail!(
            "{shown} does not bring its entry (the line `extra`), so there is nothing to compare"
        );
    };
    let head = proof
        .verify(keys, record_hash(entry))
        .map_err(|why| not_proved(why.to_string()))?;
    println!(
        "{shown}: the entry is leaf {} of {}, which had {} leaves when it was signed",
        proof.index, head.origin, head.size
    );
    Ok(())
}

/// Whether a file is an export, by how it begins.
pub(super) fn is_export(path: &Path) -> anyhow::Result<bool> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let mut first = [0];
    let read = std::io::Read::read(&mut &file, &mut first);
    Ok(read.with_context(|| format!("cannot read {shown}"))? == 1 && first == *b"{")
}

/// Verifies an export alone.
pub(super) fn export(path: &Path, keys: &Verifiers) -> anyhow::Result<()> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let bar = progress_bar("verify", "rows");
    let verified = verify(BufReader::new(file), keys, |rows| bar.set_position(rows));
    bar.finish_and_clear();
    let verified = verified.map_err(|error| NotProved(format!("{shown}: {error:#}")))?;
    println!(
        "{shown}: {} {} are as they were sealed, leaves of {}, which had {} leaves (up to position {}) when it was signed",
        verified.rows, verified.exported, verified.origin, verified.size, verified.position
    );
    if verified.is_own_word {
        println!(
            "The key is known from the file alone: set LOG_VERIFIER_KEYS to the log's to know who signed."
        );
    }
    Ok(())
}
