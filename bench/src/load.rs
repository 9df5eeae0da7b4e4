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
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await.context("connecting")?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let shared = Rc::new(Shared {
            next: Cell::new(0),
            requests,
            outcome: RefCell::default(),
            began: Instant::now(),
            pace,
        });
        let cpu = thread_cpu();
        let workers: Vec<_> = streams
            .into_iter()
            .map(|stream| tokio::task::spawn_local(send(stream, shared.clone())))
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

async fn send(mut stream: TcpStream, shared: Rc<Shared>) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
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
        stream.write_all(request).await?;
        let status = answer(&mut stream, &mut buffer).await?;
        let took = due.elapsed();
        let mut outcome = shared.outcome.borrow_mut();
        *outcome.statuses.entry(status).or_default() += 1;
        if status == 200 {
            outcome
                .latencies
                .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }
}

/// Reads an answer to its end; gives its status.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    let mut head_end = None;
    loop {
        if let Some(end) = head_end
            && buffer.len() >= end
        {
            let status = std::str::from_utf8(&buffer[9..12])?.parse()?;
            return Ok(status);
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("the service closed the connection");
        }
        if head_end.is_none()
            && let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&buffer[..at])?.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .context("an answer without content-length")?;
            head_end = Some(at + 4 + length.trim().parse::<usize>()?);
        }
    }
}

/// Processor time of this thread so far.
fn thread_cpu() -> Duration {
    crate::process::cpu_of("/proc/thread-self/stat").unwrap_or_default()
}
