//! Processes that are measured: the service, and PostgreSQL.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a service may take to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Ticks a second in `/proc/*/stat`: 100 on every Linux (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Processor time by a `stat` file of proc(5), children that have ended
/// included.
pub fn cpu_of(stat: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(stat)?;
    // The name, in brackets, may hold anything; what follows does not.
    let (_, fields) = stat.rsplit_once(')').context("not a stat file")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u32 = fields[11..15]
        .iter()
        .filter_map(|ticks| ticks.parse::<u32>().ok())
        .sum();
    Ok(TICK * ticks)
}

/// The service, started as a user starts it.
pub struct Service {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start until it was ready.
    pub ready_after: Duration,
}

impl Service {
    /// Starts a program that listens on `PORT`, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in half a minute.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = fs::File::create(std::env::temp_dir().join("bitacora-bench.log"))?;
        let began = Instant::now();
        let child = command
            .env("HOST", "127.0.0.1")
            .env("PORT", address.port().to_string())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut service = Self {
            child,
            address,
            ready_after: Duration::ZERO,
        };
        while !is_ready(address) {
            if let Some(status) = service.child.try_wait()? {
                bail!(
                    "the service ended with {status}: see {}/bitacora-bench.log",
                    std::env::temp_dir().display()
                );
            }
            if began.elapsed() > START_TIMEOUT {
                bail!("the service is not ready after {START_TIMEOUT:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        service.ready_after = began.elapsed();
        Ok(service)
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        cpu_of(&format!("/proc/{}/stat", self.child.id())).unwrap_or_default()
    }

    /// Resident memory, in KiB: now, and the most there ever was.
    pub fn memory_kib(&self) -> (u64, u64) {
        memory_kib(self.child.id())
    }
}

/// Resident memory of a process, in KiB: now, and the most there ever was.
pub fn memory_kib(process: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    let mut answer = [0; 12];
    let asked =
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer.ends_with(b" 200")
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// Processor time of a PostgreSQL server and all its processes.
pub fn postgres_cpu(postmaster: u32) -> Duration {
    let mut sum = cpu_of(&format!("/proc/{postmaster}/stat")).unwrap_or_default();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let stat = entry.path().join("stat");
        let Ok(text) = fs::read_to_string(&stat) else {
            continue;
        };
        let Some((_, fields)) = text.rsplit_once(')') else {
            continue;
        };
        if fields.split_whitespace().nth(1) == Some(&postmaster.to_string()) {
            sum += cpu_of(&stat.to_string_lossy()).unwrap_or_default();
        }
    }
    sum
}
