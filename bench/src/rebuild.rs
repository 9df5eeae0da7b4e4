//! Rebuilding every read model from the ledger, by `bitacora replay`.

use std::time::{Duration, Instant};

use anyhow::bail;
use sqlx::{Connection, PgConnection};

use crate::backlog::Outcome;
use crate::process;
use crate::server::{Server, service};

/// Rebuilds everything in a database that is folded.
///
/// # Errors
/// When the rebuild fails or reports rows that differ.
pub async fn run(server: &Server, program: &str, database_url: &str) -> anyhow::Result<Outcome> {
    let mut conn = PgConnection::connect(database_url).await?;
    let sql = "select count(*) from events";
    let events: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
    let own = process::cpu_of("/proc/self/stat")?;
    let postgres = process::postgres_cpu(server.postmaster);
    let began = Instant::now();
    let mut command = service(program, &["replay", "--all"], database_url);
    let child = command.stdout(std::process::Stdio::piped()).spawn()?;
    let mut memory_kib = 0;
    let id = child.id();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    while !ended.is_finished() {
        memory_kib = process::memory_kib(id).1.max(memory_kib);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = ended.await??;
    let elapsed = began.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || said.contains("differ") {
        bail!("the rebuild failed: {said}");
    }
    Ok(Outcome {
        events: u64::try_from(events)?,
        elapsed,
        // Of a child that has ended, its time is its parent's.
        service_cpu: process::cpu_of("/proc/self/stat")? - own,
        postgres_cpu: process::postgres_cpu(server.postmaster) - postgres,
        memory_kib,
    })
}
