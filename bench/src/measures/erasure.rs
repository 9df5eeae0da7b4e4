//! One person among many is erased: how long it takes, what is left of them,
//! and what the log says of it. Then, of the same ledger, an export of all.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::Value;

use super::latency::settled;
use crate::client;
use crate::ingest::{requests, send};
use crate::process::Service;
use crate::report::{Line, Target};
use crate::run::{Bench, USUAL};
use crate::server::{Server, service};
use crate::webhook;

const DATABASE: &str = "erasure";
/// Webhooks that are made before they are sent.
const AT_ONCE: u64 = 20_000;
/// How often the person was called.
const CALLS: u64 = 3;
/// The person, as nobody else is called and nothing else is written.
const DIGITS: &str = "573998877665";
const NAME: &str = "Zwqtrk";
const WORD: &str = "xklmprst";
/// How long read models may take to be folded anew.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(1800);

impl Bench {
    pub(crate) async fn erasure(&mut self) -> anyhow::Result<()> {
        if !self.wants("erasure") {
            return Ok(());
        }
        let interactions = self.scale.interactions;
        eprintln!("erasure: one person among {interactions} interactions");
        self.server.drop(DATABASE).await?;
        self.server.make(DATABASE).await?;
        let url = self.server.database(DATABASE);
        let running = Service::start(&mut service(&self.options.program, &["serve"], &url))?;
        let first = self.fill(&running, interactions).await?;
        settled(&self.server, DATABASE).await?;
        let folder = std::env::temp_dir().join(format!("bitacora-erasure-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let measured = self.erase_one(&running, first, &folder).await;
        drop(running);
        std::fs::remove_dir_all(&folder)?;
        measured?;
        self.export_all(&url).await?;
        self.server.drop(DATABASE).await
    }

    /// Calls of as many persons, and in their midst those of one. Gives the
    /// number of the first of these.
    async fn fill(&mut self, service: &Service, interactions: u64) -> anyhow::Result<u64> {
        let others = interactions - CALLS;
        self.call_others(service, others / 2).await?;
        let first = self.next;
        self.next += CALLS;
        let theirs: anyhow::Result<_> = (first..self.next).map(call).collect();
        send(service, theirs?).await?;
        self.call_others(service, others - others / 2).await?;
        Ok(first)
    }

    async fn call_others(&mut self, service: &Service, count: u64) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            let now = left.min(AT_ONCE);
            send(service, requests(&mut self.next, now, USUAL)).await?;
            left -= now;
        }
        Ok(())
    }

    async fn erase_one(
        &mut self,
        service: &Service,
        first: u64,
        folder: &Path,
    ) -> anyhow::Result<()> {
        let interactions = self.scale.interactions;
        sealed(&self.server).await?;
        let (lines, _) = traces(&self.server)?;
        ensure!(lines > 0, "the person is not even found before");
        let head = folder.join("before.txt");
        let path = "/api/ledger/checkpoint";
        std::fs::write(&head, client::get(service.address, path).await?.end)?;

        let began = Instant::now();
        let path = format!("/api/subjects/%2B{DIGITS}/erase");
        let reason = r#"{"reason": "Benchmark"}"#.to_owned();
        let answer = client::ask(service.address, "POST", path, reason).await?;
        let destroyed = began.elapsed();
        ensure!(answer.status == 202, "{} {}", answer.status, answer.end);
        let answer: Value = serde_json::from_str(&answer.end)?;
        clean(&self.server).await?;
        let clean = began.elapsed();
        self.report.add(Line {
            measure: format!("erasing one person among {interactions} interactions, until their keys are destroyed"),
            target: None,
            value: destroyed.as_secs_f64() * 1e3,
            unit: " ms",
            figures: format!("{} keys, of {CALLS} calls", answer["data"]["keys_destroyed"]),
        });
        self.report.add(Line {
            measure: "the same, until every read model is folded anew without them".into(),
            target: None,
            value: clean.as_secs_f64(),
            unit: " s",
            figures: "all projections, beside the live tables".into(),
        });
        settled(&self.server, DATABASE).await?;
        sealed(&self.server).await?;
        let (left, bytes) = traces(&self.server)?;
        self.report.add(Line {
            measure: "lines of a pg_dump that have their number, name or words, after it".into(),
            target: Some(Target::Under(1.0)),
            value: left as f64,
            unit: "",
            figures: format!("{lines} before; in text and in hex, of {} MiB", bytes >> 20),
        });
        self.verify(service, first, folder, &head).await
    }

    /// Whether the ledger is as it was sealed, by a head from before; and the
    /// proofs of what was erased, and of what was not.
    async fn verify(
        &mut self,
        service: &Service,
        first: u64,
        folder: &Path,
        head: &Path,
    ) -> anyhow::Result<()> {
        let log = client::get(service.address, "/api/ledger/log").await?;
        let log: Value = serde_json::from_str(&log.end)?;
        let key = log["data"]["verifier_keys"][0].as_str().context("no key")?;
        let url = self.server.database(DATABASE);
        let mut command = Command::new(&self.options.program);
        let verified = command
            .args(["verify", "--checkpoint"])
            .arg(head)
            .env("DATABASE_URL", &url)
            .env("LOG_VERIFIER_KEYS", key)
            .output()?;
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        let mut wrong = u32::from(!verified.status.success());
        let sql = "select array_to_json(array[
                       (select min(position) from events),
                       (select min(position) from events where aggregate_id = '{}'),
                       (select max(position) from events where event_type = 'subject.erased')])";
        let sql = sql.replace("{}", &webhook::conversation_id(first));
        let positions: Vec<i64> = serde_json::from_str(&self.server.ask(DATABASE, &sql).await?)?;
        for position in positions {
            let path = format!("/api/ledger/events/{position}/proof");
            let file = folder.join("proof.txt");
            std::fs::write(&file, client::get(service.address, &path).await?.end)?;
            let mut command = Command::new(&self.options.program);
            let proved = command
                .arg("verify")
                .arg(&file)
                .env("LOG_VERIFIER_KEYS", key)
                .output()?;
            wrong += u32::from(!proved.status.success());
        }
        let said = said
            .lines()
            .find(|line| line.contains("as they were sealed"));
        self.report.add(Line {
            measure: "what does not verify after it: the ledger by a head from before, or a proof (of an erased event, another, the erasure)".into(),
            target: Some(Target::Under(1.0)),
            value: f64::from(wrong),
            unit: "",
            figures: said.unwrap_or("bitacora verify failed").to_owned(),
        });
        Ok(())
    }

    /// What a service that does nothing else takes for it.
    async fn export_all(&mut self, url: &str) -> anyhow::Result<()> {
        let service = Service::start(&mut service(&self.options.program, &["serve"], url))?;
        let idle = service.memory_kib().1 as f64 / 1024.0;
        let began = Instant::now();
        let path = "/api/export?kind=events&format=jsonl&reveal=true";
        let file = client::get(service.address, path).await?;
        let took = began.elapsed();
        let footer = file.end.lines().last().unwrap_or_default();
        let footer: Value = serde_json::from_str(footer).context("no footer")?;
        ensure!(footer["checkpoint"].is_string(), "not proved: {footer}");
        self.report.add(Line {
            measure:
                "memory of the service while it exports all of these events with proofs, at most"
                    .into(),
            target: None,
            value: service.memory_kib().1 as f64 / 1024.0,
            unit: " MiB",
            figures: format!(
                "{idle:.0} MiB before; {} rows, {} MiB in {:.1} s",
                footer["rows"],
                file.bytes >> 20,
                took.as_secs_f64()
            ),
        });
        Ok(())
    }
}

/// A call of the person, in which they are named.
fn call(number: u64) -> anyhow::Result<Bytes> {
    let at = chrono::Utc::now().timestamp();
    let mut report: Value = serde_json::from_slice(&webhook::body(number, at, USUAL.bytes))?;
    let data = &mut report["data"];
    data["metadata"]["phone_call"]["external_number"] = format!("+{DIGITS}").into();
    data["transcript"][0]["message"] = format!("Hola, {NAME}").into();
    data["transcript"][1]["message"] = format!("Hola, me {WORD} la cuota").into();
    data["analysis"]["transcript_summary"] = format!("{NAME} quiere {WORD}").into();
    Ok(webhook::request(&serde_json::to_vec(&report)?, at))
}

/// The lines of a dump in which the person is, and its bytes.
fn traces(server: &Server) -> anyhow::Result<(u64, usize)> {
    let traces = [&DIGITS[2..], NAME, WORD].map(str::to_lowercase);
    let traces = traces.iter().flat_map(|it| [it.clone(), hex::encode(it)]);
    let traces: Vec<String> = traces.collect();
    let mut dump = Command::new(server.program("pg_dump"))
        .args(["--dbname", &server.database(DATABASE)])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::with_capacity(1 << 20, dump.stdout.take().context("no output")?);
    let (mut line, mut found, mut bytes) = (vec![], 0, 0);
    while lines.read_until(b'\n', &mut line)? > 0 {
        bytes += line.len();
        let text = String::from_utf8_lossy(&line).to_lowercase();
        found += u64::from(traces.iter().any(|trace| text.contains(trace)));
        line.clear();
    }
    ensure!(dump.wait()?.success(), "pg_dump failed");
    Ok((found, bytes))
}

/// Waits until nothing in a read model was read before the erasure.
async fn clean(server: &Server) -> anyhow::Result<()> {
    let before = "select count(*) from projection_checkpoints
                   where build = 'live' and epoch < (select epoch from subject_epoch)";
    until(server, before, "0").await
}

/// Waits until all events are under a signed head.
async fn sealed(server: &Server) -> anyhow::Result<()> {
    let sql = "select (select max(position) from events) = (select max(last_position) from log_checkpoints)
                  and (select max(seq) from deliveries) = (select max(last_seq) from log_checkpoints)";
    until(server, sql, "true").await
}

async fn until(server: &Server, sql: &str, wanted: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    while server.ask(DATABASE, sql).await.ok().as_deref() != Some(wanted) {
        ensure!(
            began.elapsed() < CLEAN_TIMEOUT,
            "it does not come to: {sql}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
