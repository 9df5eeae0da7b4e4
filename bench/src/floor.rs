//! The floor: what PostgreSQL does when pgbench asks it and nobody is between.

use std::process::Command;

use anyhow::{Context, bail};

use crate::server::Server;
use crate::webhook;

/// Clients of pgbench, as the issue has it.
const CLIENTS: u32 = 64;

/// The table: one primary key of the shape of the ledger's, one unique text.
const TABLE: &str = "create table if not exists floor (
    aggregate_type text not null, aggregate_id text not null, sequence bigint not null,
    dedup_key text not null unique, body text not null,
    primary key (aggregate_type, aggregate_id, sequence))";

/// Transactions a second of one prepared INSERT of a body of so many bytes.
/// `number` sets the keys of this round apart from those of all others. With
/// duplicates, every fifth INSERT has an earlier one's key and does nothing.
///
/// # Errors
/// When pgbench is not there or fails.
pub async fn insert(
    server: &Server,
    bytes: usize,
    duplicates: bool,
    number: u64,
    seconds: u64,
) -> anyhow::Result<f64> {
    server.make("floor").await?;
    server.run("floor", TABLE).await?;
    let (repeat, on_conflict) = match duplicates {
        true => (
            "\\set d random(1, 5)\n\\if :d = 1\n\\set n :n - random(1, :i)\n\\endif\n",
            " on conflict do nothing",
        ),
        false => ("", ""),
    };
    let script = format!(
        "\\set i :i + 1\n\\set n :round + :client_id * 10000000 + :i\n{repeat}\
         insert into floor values ('call', 'conv_bench' || :n, 1, 'call:' || :n, :body){on_conflict};\n"
    );
    let body = String::from_utf8(webhook::body(number, 1_763_000_000, bytes))?;
    pgbench(
        server,
        "floor",
        &script,
        &[
            ("body", body),
            ("i", "0".to_owned()),
            ("round", (number * 1_000_000_000).to_string()),
        ],
        CLIENTS,
        seconds,
    )
}

/// Transactions a second of a script.
///
/// # Errors
/// When pgbench is not there or fails.
pub fn pgbench(
    server: &Server,
    database: &str,
    script: &str,
    variables: &[(&str, String)],
    clients: u32,
    seconds: u64,
) -> anyhow::Result<f64> {
    let file = std::env::temp_dir().join("bitacora-bench.sql");
    std::fs::write(&file, script)?;
    let mut command = Command::new(server.program("pgbench"));
    command.args(["-n", "-M", "prepared", "-j", "2"]);
    command.args(["-c", &clients.to_string(), "-T", &seconds.to_string()]);
    for (name, value) in variables {
        command.arg("-D").arg(format!("{name}={value}"));
    }
    let output = command
        .arg("-f")
        .arg(&file)
        .arg(server.database(database))
        .output()
        .context("pgbench")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let tps = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let Some(tps) = tps.filter(|_| output.status.success()) else {
        bail!("pgbench: {said}{}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(tps.split_whitespace().next().unwrap_or_default().parse()?)
}
