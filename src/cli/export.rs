//! `bitacora export`: a file of the ledger, for whoever has a shell.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use domain::delivery::Verdict;
use domain::phone::PhoneNumber;
use domain::{Channel, Direction, PhoneIndex, Provider};
use projections::Opener;
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::mpsc;

use super::{PLAIN_PROGRESS_INTERVAL, WrongSetting, kept_master_keys, progress_bar, write_down};
use crate::config::{LogKeys, LogSettings, Settings};
use crate::export::{self, Export, Filters, Format, Kind, Made, Order};
use crate::{clock, kept_keys, ledger};

/// What is exported, and where to.
#[derive(Args)]
pub struct ExportArgs {
    /// What is exported.
    #[arg(long)]
    kind: Kind,
    /// In what form.
    #[arg(long, default_value = "jsonl")]
    format: Format,
    /// The file; standard output if not given.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Show whole phone numbers, and what providers sent; JSON lines of events and deliveries can
    /// then be verified by `bitacora verify FILE`.
    #[arg(long)]
    reveal: bool,
    /// Of interactions: call, whatsapp or sms.
    #[arg(long)]
    channel: Option<Channel>,
    /// Of interactions.
    #[arg(long)]
    status: Option<String>,
    /// Of interactions: inbound or outbound.
    #[arg(long)]
    direction: Option<Direction>,
    /// Of interactions: the client's whole number, in E.164.
    #[arg(long, value_parser = PhoneNumber::parse)]
    phone: Option<PhoneNumber>,
    /// Of interactions: the voice agent.
    #[arg(long)]
    agent_id: Option<String>,
    /// Of interactions: the batch of the call.
    #[arg(long)]
    batch_id: Option<String>,
    /// Of interactions: words, as in a web search.
    #[arg(long)]
    q: Option<String>,
    /// Of events: only those behind this position.
    #[arg(long)]
    after: Option<i64>,
    /// Of events: of this type, such as call.completed.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Of events: of this kind of aggregate.
    #[arg(long)]
    aggregate_type: Option<String>,
    /// Of events: of this aggregate.
    #[arg(long)]
    aggregate_id: Option<String>,
    /// Of deliveries: accepted, duplicate, quarantined or rejected.
    #[arg(long)]
    verdict: Option<Verdict>,
    /// Of interactions and deliveries: elevenlabs, twilio or builderbot.
    #[arg(long)]
    provider: Option<Provider>,
    /// Begun, recorded or received at or after this time, such as 2025-10-28T23:29:50Z.
    #[arg(long)]
    from: Option<DateTime<Utc>>,
    /// Begun, recorded or received before or at this time.
    #[arg(long)]
    to: Option<DateTime<Utc>>,

    #[command(flatten)]
    pub(super) log: LogSettings,
}

impl ExportArgs {
    fn order(self, phones: &PhoneIndex) -> anyhow::Result<(Order, Option<PathBuf>)> {
        let filters = Filters {
            channel: self.channel,
            status: self.status,
            direction: self.direction,
            phone_key: self.phone.map(|number| phones.key(number.as_str())),
            agent_id: self.agent_id,
            batch_id: self.batch_id,
            q: self.q,
            after: self.after,
            event_type: self.event_type,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            verdict: self.verdict,
            provider: self.provider,
            from: self.from,
            to: self.to,
        };
        let order = Order::new(self.kind, self.format, !self.reveal, filters);
        let order = order
            .map_err(|wrong| anyhow::Error::from(wrong).context(format!("--{}", wrong.field)))?;
        Ok((order, self.output))
    }
}

pub(super) async fn run(
    pool: PgPool,
    mut args: ExportArgs,
    settings: &Settings,
    source: clock::Source,
) -> anyhow::Result<()> {
    kept_keys::fill_log_key(&pool, &mut args.log, None).await?;
    let opener = Opener::new(kept_master_keys(&pool, settings, &source).await?);
    let mut key = [0; 32];
    source.fill(&mut key);
    let phones = ledger::phone_index(&pool, &key).await?;
    let keys = LogKeys::new(&args.log).map_err(|error| WrongSetting(format!("{error:#}")))?;
    let (order, output) = args.order(&phones)?;
    // Before anything is on record.
    let mut file = open(output)?;
    let target = order.kind().as_str().to_owned();
    let mut detail = order.record();
    detail["reveal"] = json!(!order.masked);
    let record = async |outcome: &str, detail: &serde_json::Value| {
        let (target, detail) = (target.clone(), Some(detail.to_string()));
        write_down(&pool, &source, "export", target, outcome, detail).await
    };
    record("begun", &detail).await?;
    let mut made = Made::default();
    let ended = async {
        let export = Export::begin((&pool, &opener), &keys.verifiers, order).await?;
        let position = export.position;
        write(export, &mut made, &mut *file).await?;
        anyhow::Ok(position)
    };
    let ended = ended.await;
    detail["rows"] = json!(made.rows);
    detail["bytes"] = json!(made.bytes);
    let outcome = if ended.is_ok() { "ok" } else { "cut_short" };
    record(outcome, &detail).await?;
    let position = ended?;
    eprintln!(
        "{} rows up to position {position}, {} bytes",
        made.rows, made.bytes
    );
    Ok(())
}

fn open(output: Option<PathBuf>) -> anyhow::Result<Box<dyn Write + Send>> {
    let Some(path) = output else {
        return Ok(Box::new(std::io::stdout()));
    };
    let file = std::fs::File::create(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(file))
}

async fn write(
    export: Export,
    made: &mut Made,
    file: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let (parts, receiver) = export::parts();
    let make = async {
        let ended = export.make(&parts, made).await;
        drop(parts);
        ended
    };
    let (ended, written) = tokio::join!(make, take(receiver, file));
    written?;
    ended
}

/// Writes what comes, and says how far it is.
async fn take(
    mut receiver: mpsc::Receiver<export::Part>,
    file: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let bar = progress_bar("export", "bytes");
    let (mut bytes, mut said) = (0_u64, std::time::Instant::now());
    while let Some(part) = receiver.recv().await {
        let Some(part) = part else {
            bail!("the export was cut short");
        };
        tokio::task::block_in_place(|| file.write_all(&part)).context("cannot write the export")?;
        bytes += part.len() as u64;
        bar.set_position(bytes);
        if !std::io::stderr().is_terminal() && said.elapsed() >= PLAIN_PROGRESS_INTERVAL {
            said = std::time::Instant::now();
            eprintln!("export: {bytes} bytes");
        }
    }
    bar.finish_and_clear();
    file.flush().context("cannot write the export")
}
