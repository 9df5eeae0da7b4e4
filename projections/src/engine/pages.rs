//! Pages of the ledger, read and parsed once for all projections that are at
//! about the same position: as a rule, all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;

use super::{BATCH_EVENTS_MAX, Turn};
use crate::feed::{self, Page};
use crate::keys::Opener;

/// How many are kept: for those who lag a little, and the next.
const KEPT_MAX: usize = 3;

/// The latest pages. What is on the ledger never changes, so neither does a page
/// that stands.
pub(super) struct Pages {
    pool: PgPool,
    opener: Opener,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    pages: VecDeque<Arc<Page>>,
    /// The position after which the next page is being read already.
    reading_after: Option<i64>,
}

impl Pages {
    pub(super) fn new(pool: PgPool, opener: Opener) -> Arc<Self> {
        let kept = Mutex::default();
        Arc::new(Self { pool, opener, kept })
    }

    /// The page after a position. If more follows, that is begun to be read,
    /// while the caller is busy with this one.
    ///
    /// Whoever waits here has a connection: so who reads never waits for one.
    pub(super) async fn after(
        self: &Arc<Self>,
        conn: &mut PgConnection,
        position: i64,
    ) -> anyhow::Result<Arc<Page>> {
        let mut kept = self.kept.lock().await;
        let mut found = kept.holding(position);
        if let Some(page) = &found {
            // Asked without the lock, for all that fold together ask this.
            drop(kept);
            let stands = page.stands(conn).await?;
            kept = self.kept.lock().await;
            if !stands {
                kept.pages.clear();
                found = None;
            }
        }
        let page = match found {
            Some(page) => page,
            None => kept.read(conn, &self.opener, position).await?,
        };
        let next = page.upto();
        let is_coming = kept.reading_after == Some(next) || kept.holding(next).is_some();
        if page.is_full() && !is_coming {
            kept.reading_after = Some(next);
            tokio::spawn(self.clone().read_ahead(next));
        }
        Ok(page)
    }

    /// Nobody is told of a failure: whoever wants the page reads it then.
    async fn read_ahead(self: Arc<Self>, position: i64) {
        let turn = Turn::begin(&self.pool).await;
        let mut kept = self.kept.lock().await;
        if let Ok(mut turn) = turn {
            if kept.holding(position).is_none()
                && let Ok(conn) = turn.conn()
            {
                let _ = kept.read(conn, &self.opener, position).await;
            }
            let _ = turn.roll_back().await;
        }
        if kept.reading_after == Some(position) {
            kept.reading_after = None;
        }
    }
}

impl Kept {
    fn holding(&self, position: i64) -> Option<Arc<Page>> {
        let mut pages = self.pages.iter();
        pages
            .find(|page| page.holds_what_follows(position))
            .cloned()
    }

    async fn read(
        &mut self,
        conn: &mut PgConnection,
        opener: &Opener,
        position: i64,
    ) -> anyhow::Result<Arc<Page>> {
        let page = feed::page(conn, opener, position, BATCH_EVENTS_MAX).await?;
        let page = Arc::new(page);
        if page.is_empty() {
            // Everything is folded: large pages would only be in the way.
            self.pages.clear();
            return Ok(page);
        }
        self.pages.push_back(page.clone());
        if self.pages.len() > KEPT_MAX {
            self.pages.pop_front();
        }
        Ok(page)
    }
}
