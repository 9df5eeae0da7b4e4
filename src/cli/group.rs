//! `bitacora group`: groups from documents, for whoever has a shell.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Subcommand;
use domain::group::{PREFIX_DEFAULT, Settings};
use sqlx::PgPool;

use super::{ACTOR, PLAIN_PROGRESS_INTERVAL, progress_bar, put_on_record};
use crate::import::{self, Imported, ROWS_MAX};
use crate::{clock, groups};

/// Rejected rows that are printed, at most.
const REJECTED_SHOWN_MAX: usize = 20;

/// What may be done with groups.
#[derive(Subcommand)]
pub enum GroupCommand {
    /// Make a group of the clients in a document: xlsx, xls, ods or csv.
    ///
    /// Headers in Spanish or English: name, phone, email, empresa, cargo; every other column is a variable.
    Import {
        /// The group's name.
        #[arg(long)]
        name: String,
        /// The country code of numbers that have none.
        #[arg(long, default_value = PREFIX_DEFAULT)]
        prefix: String,
        /// The agent that calls its clients.
        #[arg(long)]
        agent_id: Option<String>,
        /// The provider's id of the number that they are called from.
        #[arg(long)]
        phone_number_id: Option<String>,
        /// The document.
        file: PathBuf,
    },
}

pub(super) async fn run(
    pool: PgPool,
    command: GroupCommand,
    of: &crate::config::Settings,
    source: clock::Source,
) -> anyhow::Result<()> {
    let GroupCommand::Import {
        name,
        prefix,
        agent_id,
        phone_number_id,
        file,
    } = command;
    let settings = Settings {
        name,
        agent_id,
        phone_number_id,
        prefix,
        variables: serde_json::Map::new(),
    };
    // Before a large document is read in vain.
    let settings = settings.checked().map_err(|error| match error.field() {
        Some(field) => anyhow::anyhow!("--{field} {error}"),
        None => error.into(),
    })?;
    let prefix = settings.prefix.clone();
    let imported = tokio::task::spawn_blocking(move || read(&file, &prefix)).await??;
    let clients = imported.clients.len();
    println!("writing {clients} clients");
    let metadata = HashMap::from([("actor".to_owned(), ACTOR.to_owned())]);
    let (_, store) = super::store_of(&pool, of, &source).await?;
    let made = groups::create(&pool, &store, settings, imported.clients, metadata).await;
    let target = match &made {
        Ok((id, _)) => format!("group:{id}"),
        Err(_) => "group".to_owned(),
    };
    put_on_record(&pool, &source, "create_group", target, &made).await?;
    let (id, _) = made?;
    for rejected in imported.rejected.iter().take(REJECTED_SHOWN_MAX) {
        println!("  row {}: {}", rejected.row, rejected.reason);
    }
    let hidden = imported.rejected.len().saturating_sub(REJECTED_SHOWN_MAX);
    if hidden > 0 {
        println!("  and {hidden} more");
    }
    println!(
        "Group {id} has {clients} clients; {} rows were rejected.",
        imported.rejected.len()
    );
    Ok(())
}

/// Reads a document, and says how far it is.
fn read(file: &Path, prefix: &str) -> anyhow::Result<Imported> {
    let shown = file.display();
    let document = std::fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let bar = progress_bar("import", "rows");
    bar.set_length(ROWS_MAX as u64);
    let mut said = Instant::now();
    let imported = import::read(&document, prefix, &mut |rows| {
        bar.set_position(rows as u64);
        if bar.is_hidden() && said.elapsed() >= PLAIN_PROGRESS_INTERVAL {
            said = Instant::now();
            println!("import: {rows} rows read");
        }
    });
    bar.finish_and_clear();
    imported.with_context(|| format!("{shown} cannot be imported"))
}
