//! What was measured, as `docs/BENCHMARKS.md`.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::server::Server;

/// One line of the table.
#[derive(Debug)]
pub struct Line {
    /// What was measured.
    pub measure: String,
    /// What the issue asks for, if it asks.
    pub target: Option<Target>,
    /// What came out, in the unit of the target.
    pub value: f64,
    /// Its unit: `×`, `ms`, `MiB`, `s`.
    pub unit: &'static str,
    /// The absolute figures behind it.
    pub figures: String,
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// So much or more.
    AtLeast(f64),
    /// Less than this.
    Under(f64),
}

impl Line {
    fn reached(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtLeast(least) => self.value >= least,
            Target::Under(most) => self.value < most,
        })
    }
}

/// Everything that one run measured.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Adds a line, and says it.
    pub fn add(&mut self, line: Line) {
        eprintln!(
            "{}: {}{} ({})",
            line.measure,
            number(line.value),
            line.unit,
            line.figures
        );
        self.lines.push(line);
    }

    /// The document.
    pub fn markdown(&self, machine: &str, how: &str) -> String {
        let mut text = format!(
            "# Benchmarks\n\nWritten by `make bench`; what the figures mean, and why those that are missed are missed, is \
             in [PERFORMANCE.md](PERFORMANCE.md). Ratios count: both sides of each were measured in turn, in the same \
             run, on the same server. Absolute figures are of this machine on that day.\n\n{machine}\n\n{how}\n\n\
             | measure | asked | measured | | figures |\n|---|---|---|---|---|\n"
        );
        for line in &self.lines {
            let asked = match line.target {
                Some(Target::AtLeast(least)) => format!("≥ {}{}", number(least), line.unit),
                Some(Target::Under(most)) => format!("< {}{}", number(most), line.unit),
                None => String::new(),
            };
            let reached = match line.reached() {
                Some(true) => "✓",
                Some(false) => "✗",
                None => "",
            };
            let Line {
                measure,
                value,
                unit,
                figures,
                ..
            } = line;
            let _ = writeln!(
                text,
                "| {measure} | {asked} | **{}{unit}** | {reached} | {figures} |",
                number(*value)
            );
        }
        text
    }

    /// Writes the document.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &str, machine: &str, how: &str) -> anyhow::Result<()> {
        Ok(fs::write(path, self.markdown(machine, how))?)
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The machine and the server, in two sentences.
///
/// # Errors
/// When the server does not answer.
pub async fn machine(server: &Server) -> anyhow::Result<String> {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = file("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("?", |(_, value)| value)
            .to_owned()
    };
    let cores = std::thread::available_parallelism()?;
    let meminfo = file("/proc/meminfo");
    let memory: u64 = meminfo
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0);
    let kernel = file("/proc/sys/kernel/osrelease");
    let commit = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output()?;
    let mut settings = vec![];
    for name in [
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "shared_buffers",
        "max_wal_size",
        "min_wal_size",
        "checkpoint_timeout",
    ] {
        settings.push(format!(
            "{name} {}",
            server
                .ask("postgres", &format!("current_setting('{name}')"))
                .await?
        ));
    }
    Ok(format!(
        "**Machine**: {} × {} shared by PostgreSQL, service and load generator; {} GiB; Linux {}; {}. Commit {}.\n\n\
         **PostgreSQL** {}: {}.",
        cores,
        field("model name"),
        memory >> 20,
        kernel.trim(),
        chrono::Utc::now().format("%Y-%m-%d %H:%M UTC"),
        String::from_utf8_lossy(&commit.stdout).trim(),
        server
            .ask("postgres", "current_setting('server_version')")
            .await?,
        settings.join(", "),
    ))
}
