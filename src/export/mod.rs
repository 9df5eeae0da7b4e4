//! Exports: interactions, events or deliveries by filter, as one file.
//!
//! A file is of one position of the ledger, whatever comes meanwhile, and is
//! made page by page: memory does not grow with it. Whoever asks (HTTP or the
//! command line) puts the export on record before the first byte, and its end.
//! docs/EXPORT.md has the format, docs/adr/0021 the reasons.

mod encode;
mod file;
mod order;
mod pages;
mod parquet;
mod proofs;
mod table;
pub mod verify;

use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use domain::log::Verifiers;
use projections::Opener;
use sqlx::PgPool;
use tokio::sync::mpsc;

use self::encode::Encoder;
use self::file::{Footer, Header};
use self::pages::Pages;
pub use order::{Filters, Format, Kind, Misplaced, Order};

/// For how long whoever reads the file may take no more of it.
const STALLED: Duration = Duration::from_secs(120);
/// Parts of a file that wait to be read.
const PARTS: usize = 2;

/// A file that is about to be made.
pub struct Export {
    order: Order,
    pages: Pages,
    /// The position that it is of.
    pub position: i64,
}

/// How far a file has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Rows in it.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// A part of a file; `None`: there is no more of it, and it is not whole.
pub type Part = Option<Bytes>;

/// Where the parts of a file go.
pub struct Parts(mpsc::Sender<Part>);

/// The parts of a file to come.
pub fn parts() -> (Parts, mpsc::Receiver<Part>) {
    let (sender, receiver) = mpsc::channel(PARTS);
    (Parts(sender), receiver)
}

impl Parts {
    pub(crate) async fn send(&self, part: Vec<u8>) -> anyhow::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let sent = self.0.send_timeout(Some(part.into()), STALLED).await;
        match sent {
            Ok(()) => Ok(()),
            Err(_) => bail!("nobody reads the export any more"),
        }
    }

    /// Says that the file is not whole.
    pub async fn cut_short(self) {
        // Whoever has gone need not hear of it.
        drop(self.0.send_timeout(None, STALLED).await);
    }
}

impl Export {
    /// Fixes the position of a file. `keys` are those of the transparency log:
    /// one of them signed its head.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(
        pool: (&PgPool, &Opener),
        keys: &Verifiers,
        order: Order,
    ) -> anyhow::Result<Self> {
        let pages = Pages::begin(pool, keys, &order).await?;
        Ok(Self {
            position: pages.position(),
            order,
            pages,
        })
    }

    /// Makes the file, part by part; `made` is told how far it has come.
    ///
    /// # Errors
    /// When the database does not answer, or nobody reads the file any more.
    pub async fn make(mut self, parts: &Parts, made: &mut Made) -> anyhow::Result<()> {
        let header = Header::of(&self.order, &self.pages);
        let mut encoder = Encoder::new(&self.order, header)?;
        loop {
            let page = self.pages.next(&self.order).await?;
            if page.is_empty() {
                break;
            }
            made.rows += page.len() as u64;
            encoder.add(page)?;
            deliver(parts, encoder.take()?, made).await?;
        }
        let (skipped, checkpoint) = self.pages.end().await?;
        let footer = Footer {
            rows: made.rows,
            skipped,
            checkpoint,
        };
        deliver(parts, encoder.finish(&footer)?, made).await
    }
}

async fn deliver(parts: &Parts, part: Vec<u8>, made: &mut Made) -> anyhow::Result<()> {
    made.bytes += part.len() as u64;
    parts.send(part).await
}
