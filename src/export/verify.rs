//! Whether a file is what the ledger held: without a database.

use std::io::BufRead;

use anyhow::{Context, bail, ensure};
use domain::log::{Cover, Hash, Verifiers};
use serde_json::Value;

use super::file::{FORM, Footer, Header, Proved};

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Its rows.
    pub rows: u64,
    /// What they are: `events` or `deliveries`.
    pub exported: String,
    /// The ledger up to this position.
    pub position: i64,
    /// Leaves of the log that they are among.
    pub size: u64,
    /// What the log is called.
    pub origin: String,
    /// Whether the key that signed its head is known from the file alone.
    pub is_own_word: bool,
}

/// Checks a file of JSON lines: that every row is a leaf of the log, in their
/// order, and that the log's head is signed by one of the keys. Without any the
/// file's own word is taken for it, which says nothing of who signed.
/// `progress` is told the rows.
///
/// # Errors
/// What is wrong, with the line at which it is.
pub fn verify(
    file: impl BufRead,
    keys: &Verifiers,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Verified> {
    let mut lines = file.lines().zip(1_u64..);
    let (first, _) = lines.next().context("the file is empty")?;
    let header: Header =
        serde_json::from_str(&first?).context("line 1 is no header of an export")?;
    ensure!(
        header.kind == "header" && header.form == FORM,
        "line 1 is no header of {FORM}"
    );
    ensure!(
        !header.masked,
        "the export is masked, so its rows are not as they are stored: only one with reveal=true can be verified"
    );
    ensure!(
        header.origin.is_some(),
        "the export has no proofs: nothing was sealed, or it is of a read model"
    );
    let own = header.public_key.into_iter();
    let (verifiers, is_own_word) = match keys.keys().is_empty() {
        true => (Verifiers::new(own).context("the key in line 1")?, true),
        false => (keys.clone(), false),
    };
    let (mut cover, mut rows) = (Cover::default(), 0_u64);
    for (line, number) in lines {
        let line = line?;
        let row: Value = serde_json::from_str(&line)
            .with_context(|| format!("line {number} is cut short or is no JSON"))?;
        if row["kind"] == "footer" {
            let footer: Footer = serde_json::from_value(row)?;
            ensure!(
                footer.rows == rows,
                "the export has {rows} rows and says that it has {}",
                footer.rows
            );
            let note = footer.checkpoint.context("the export has no checkpoint")?;
            let head = verifiers
                .open(&note)
                .context("the checkpoint is not believed")?;
            ensure!(
                cover.skip_to(head.size, &hashes(&footer.skipped)?),
                "the proof at the end of the export is not whole"
            );
            ensure!(
                cover.root() == head.root,
                "the rows are not those that were sealed: one was changed, removed, inserted or put elsewhere"
            );
            return Ok(Verified {
                rows,
                exported: header.exported,
                position: header.position,
                size: head.size,
                origin: head.origin,
                is_own_word,
            });
        }
        let row: Proved = serde_json::from_value(row)
            .with_context(|| format!("line {number} is no row of the ledger"))?;
        let leaf = row
            .leaf
            .with_context(|| format!("line {number} has no leaf"))?;
        let skipped = hashes(&row.skipped)?;
        ensure!(
            cover.skip_to(leaf, &skipped),
            "line {number} does not follow the one before: a row was removed, inserted or put elsewhere"
        );
        cover.push_leaf(row.line.hash());
        rows += 1;
        progress(rows);
    }
    bail!("the file ends before its end: it is not whole")
}

fn hashes(texts: &[String]) -> anyhow::Result<Vec<Hash>> {
    let hashes = texts.iter().map(|text| Hash::parse_hash(text));
    let hashes: Result<_, _> = hashes.collect();
    hashes.ok().context("a hash of the proof is malformed")
}
