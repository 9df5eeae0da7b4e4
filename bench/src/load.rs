//! The load generator: HTTP/1.1 over kept-alive connections, on one thread.
//!
//! Requests are made before the clock starts, and of an answer no more than
//! its status and its length is read, so that of the two cores that everything
//! shares the generator takes little.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How fast requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The next as soon as the last is answered.
    Closed,
    /// So many a second, whether or not the earlier ones are answered; the
    /// time that a request waits for its turn counts.
    Open(f64),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many answers had each status.
    pub statuses: BTreeMap<u16, usize>,
    /// How long each answer of status 200 took, in microseconds, sorted.
    pub latencies: Vec<u32>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// The busiest processor time of the generator itself.
    pub cpu: Duration,
}

impl Outcome {
    /// Answers of status 200.
    pub fn accepted(&self) -> usize {
        self.latencies.len()
    }

    /// Answers of status 200 a second.
    pub fn rate(&self) -> f64 {
        self.accepted() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency below which this share of the answers lies, in milliseconds.
    pub fn latency_ms(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies
            .get(at)
            .map_or(0.0, |us| f64::from(*us) / 1000.0)
    }
}

/// Sends all requests, each once, over so many connections.
///
/// # Errors
/// When a connection cannot be made or breaks.
pub fn run(
    address: SocketAddr,
    requests: Vec<Bytes>,
    connections: usize,
    pace: Pace,
) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async move {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Connection::open(address).await?);
        }
        let shared = Rc::new(Shared {
            next: Cell::new(0),
            requests,
            outcome: RefCell::default(),
            began: Instant::now(),
            pace,
        });
        let cpu = thread_cpu();
        let workers: Vec<_> = open
            .into_iter()
            .map(|connection| tokio::task::spawn_local(send(connection, shared.clone())))
            .collect();
        for worker in workers {
            worker.await??;
        }
        let mut outcome = shared.outcome.take();
        outcome.elapsed = shared.began.elapsed();
        outcome.cpu = thread_cpu().saturating_sub(cpu);
        outcome.latencies.sort_unstable();
        Ok(outcome)
    })
}

struct Shared {
    next: Cell<usize>,
    requests: Vec<Bytes>,
    outcome: RefCell<Outcome>,
    began: Instant,
    pace: Pace,
}

async fn send(mut connection: Connection, shared: Rc<Shared>) -> anyhow::Result<()> {
    loop {
        let number = shared.next.get();
        let Some(request) = shared.requests.get(number) else {
            return Ok(());
        };
        shared.next.set(number + 1);
        let due = match shared.pace {
            Pace::Closed => Instant::now(),
            Pace::Open(rate) => {
                let due = shared.began + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                due
            }
        };
        let status = connection.ask(request).await?;
        let took = due.elapsed();
        let mut outcome = shared.outcome.borrow_mut();
        *outcome.statuses.entry(status).or_default() += 1;
        if status == 200 {
            let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            outcome.latencies.push(micros);
        }
    }
}

/// A connection that is kept alive.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let buffer = Vec::with_capacity(4096);
        Ok(Self { stream, buffer })
    }

    /// Sends a request, reads the answer to its end, gives its status.
    ///
    /// # Errors
    /// When the connection breaks, or the answer tells no length.
    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut end = None;
        loop {
            if end.is_some_and(|end| self.buffer.len() >= end) {
                return Ok(std::str::from_utf8(&self.buffer[9..12])?.parse()?);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the service closed the connection");
            }
            if end.is_none()
                && let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n")
            {
                let head = std::str::from_utf8(&self.buffer[..at])?.to_ascii_lowercase();
                let mut lines = head.lines();
                let length = lines
                    .find_map(|line| line.strip_prefix("content-length:"))
                    .context("an answer without content-length")?;
                end = Some(at + 4 + length.trim().parse::<usize>()?);
            }
        }
    }
}

/// Processor time of this thread so far.
fn thread_cpu() -> Duration {
    crate::process::cpu_of("/proc/thread-self/stat").unwrap_or_default()
}
