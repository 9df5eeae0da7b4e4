//! Pages of the ledger, read and parsed once for all projections that are at
//! about the same position: as a rule, all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::{PgConnection, PgPool};

use super::BATCH_EVENTS_MAX;
use super::turn::Turn;
use crate::feed::{self, Page};
use crate::keys::Opener;

/// How many are kept: that which is folded, and the next.
const KEPT_MAX: usize = 2;

/// The latest pages. What is on the ledger never changes, so neither does a page
/// that stands.
pub(super) struct Pages {
    pool: PgPool,
    opener: Opener,
    kept: Mutex<Kept>,
    /// Held by whoever reads one: who wants the same waits for it. Whoever waits
    /// has a connection, so who reads never waits for one.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    pages: VecDeque<Arc<Page>>,
    /// The position after which the next page is being read already.
    reading_after: Option<i64>,
}

impl Pages {
    pub(super) fn new(pool: PgPool, opener: Opener) -> Arc<Self> {
        Arc::new(Self {
            pool,
            opener,
            kept: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        })
    }

    /// The page after a position. If more follows, that is begun to be read,
    /// while the caller is busy with this one.
    pub(super) async fn after(
        self: &Arc<Self>,
        conn: &mut PgConnection,
        position: i64,
    ) -> anyhow::Result<Arc<Page>> {
        let page = match self.standing(conn, position).await? {
            Some(page) => page,
            None => self.read(conn, position).await?,
        };
        if page.is_full() && self.kept().begin_after(page.upto()) {
            tokio::spawn(self.clone().read_ahead(page.upto()));
        }
        Ok(page)
    }

    /// Nobody is told of a failure: whoever wants the page reads it then.
    async fn read_ahead(self: Arc<Self>, position: i64) {
        if let Ok(mut turn) = Turn::begin(&self.pool).await {
            if let Ok(conn) = turn.conn() {
                let _ = self.read(conn, position).await;
            }
            let _ = turn.roll_back().await;
        }
        let mut kept = self.kept();
        if kept.reading_after == Some(position) {
            kept.reading_after = None;
        }
    }

    /// Reads the page after a position, unless somebody has just done so.
    async fn read(&self, conn: &mut PgConnection, position: i64) -> anyhow::Result<Arc<Page>> {
        let _reading = self.reading.lock().await;
        if let Some(page) = self.standing(conn, position).await? {
            return Ok(page);
        }
        let page = Arc::new(feed::page(conn, &self.opener, position, BATCH_EVENTS_MAX).await?);
        self.kept().keep(&page);
        Ok(page)
    }

    /// The page after a position, if it is kept and still stands.
    async fn standing(
        &self,
        conn: &mut PgConnection,
        position: i64,
    ) -> anyhow::Result<Option<Arc<Page>>> {
        let found = self.kept().holding(position);
        match found {
            Some(page) if page.stands(conn).await? => Ok(Some(page)),
            Some(_) => {
                self.kept().pages.clear();
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn holding(&self, position: i64) -> Option<Arc<Page>> {
        let mut pages = self.pages.iter();
        pages
            .find(|page| page.holds_what_follows(position))
            .cloned()
    }

    /// Whether the page after a position is to be read ahead: nobody has it, and
    /// nobody is at it.
    fn begin_after(&mut self, position: i64) -> bool {
        let is_coming = self.reading_after == Some(position) || self.holding(position).is_some();
        if !is_coming {
            self.reading_after = Some(position);
        }
        !is_coming
    }

    fn keep(&mut self, page: &Arc<Page>) {
        if page.is_empty() {
            // Everything is folded: large pages would only be in the way.
            self.pages.clear();
            return;
        }
        self.pages.push_back(page.clone());
        if self.pages.len() > KEPT_MAX {
            self.pages.pop_front();
        }
    }
}
