//! Looks at the provider's lists: how the batches that it is calling stand, and
//! which it has that nobody ordered here. Only what is new gets on the ledger.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use domain::batch::{self, Batch, Command, Discovered, Snapshot};
use futures_util::StreamExt;
use projections::batches;

use super::drive::{AT_ONCE, PAGE};
use crate::app::App;
use crate::ledger::{CommandError, events};
use crate::providers::http;

/// Pages of the workspace's list that are read, at the first look.
const PAGES_MAX: usize = 50;
/// How often in a row a batch that the provider had may be missing there before
/// it counts as deleted, and is not asked for any more by this process.
const MISSING_MAX: u32 = 3;
/// How long to wait for the read model before the look is left for the next.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(5);

/// Looks, and remembers which batches need not be asked for again.
#[derive(Debug, Default)]
pub struct Monitor {
    /// By the provider's ids.
    known: HashSet<String>,
    /// By our ids: how often in a row the provider did not have it.
    missing: HashMap<String, u32>,
}

impl Monitor {
    /// One look at everything.
    ///
    /// # Errors
    /// When the database or the provider's list of batches does not answer. A
    /// batch that cannot be read harms no other.
    pub async fn run_once(&mut self, app: &App) -> anyhow::Result<()> {
        self.discover(app).await?;
        self.observe_unsettled(app).await
    }

    /// Takes on record what others made. The list is newest first, so the first
    /// page without anything new ends it.
    async fn discover(&mut self, app: &App) -> anyhow::Result<()> {
        let mut last_doc: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let page = app
                .elevenlabs
                .list_batches(None, last_doc.as_deref())
                .await?;
            let unknown = page
                .batches
                .iter()
                .filter(|it| !self.known.contains(&it.id));
            let unknown: Vec<_> = unknown.cloned().collect();
            if unknown.is_empty() {
                break;
            }
            self.take(app, unknown).await?;
            last_doc = page.next_doc;
            if last_doc.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn take(&mut self, app: &App, found: Vec<Snapshot>) -> anyhow::Result<()> {
        // What made a batch that was listed is on the ledger by now: an attempt
        // is recorded before it goes out. So once the read model is here it
        // shows every order that one of these may be.
        let head = events::head(&app.pool).await?;
        let caught_up = app.engine.wait_for(&["batches"], head, CAUGHT_UP_WITHIN);
        if !caught_up.await? {
            anyhow::bail!("the read model of batches is behind");
        }
        let open = open_submits(app).await?;
        for batch in found {
            let mut conn = app.pool.acquire().await?;
            let known = batches::find(&mut conn, &batch.id).await?.is_some();
            drop(conn);
            if known {
                self.known.insert(batch.id);
            } else if !open
                .iter()
                .any(|order| order.requested().is_some_and(|it| it.resembles(&batch)))
            {
                let id = batch.id.clone();
                discovered(app, batch).await?;
                self.known.insert(id);
            }
        }
        Ok(())
    }

    /// Looks at every batch that the provider may still change.
    async fn observe_unsettled(&mut self, app: &App) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let mut conn = app.pool.acquire().await?;
            let page = batches::unsettled(&mut conn, after.as_ref(), PAGE).await?;
            drop(conn);
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.cursor());
            let there = page.iter().filter_map(|row| {
                let is_gone = self.missing.get(&row.id) >= Some(&MISSING_MAX);
                let provider_batch_id = row.batch_id.as_ref().filter(|_| !is_gone)?;
                Some((row.id.clone(), provider_batch_id.clone()))
            });
            let there: Vec<_> = there.collect();
            let work =
                futures_util::stream::iter(there).map(|(id, provider_batch_id)| async move {
                    let seen = observe(app, &id, &provider_batch_id).await;
                    (id, seen)
                });
            let mut work = work.buffer_unordered(AT_ONCE);
            while let Some((id, seen)) = work.next().await {
                match seen {
                    Ok(Some(_)) => {
                        self.missing.remove(&id);
                    }
                    Ok(None) => *self.missing.entry(id).or_default() += 1,
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(batch_id = id, error, "could not look at a batch");
                    }
                }
            }
        }
    }
}

async fn discovered(app: &App, batch: Snapshot) -> anyhow::Result<()> {
    let id = batch::discovered_id(&batch.id);
    let through = "workspace".to_owned();
    let found = Discovered { through, batch };
    let command = || Command::Discover(found.clone());
    match app.store.execute::<Batch>(&id, command, metadata()).await {
        Ok(_) | Err(CommandError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The orders that may be at the provider without our knowing as what.
async fn open_submits(app: &App) -> anyhow::Result<Vec<Batch>> {
    let (mut open, mut after) = (Vec::new(), None);
    loop {
        let mut conn = app.pool.acquire().await?;
        let page = batches::open_orders(&mut conn, after.as_ref(), PAGE).await?;
        drop(conn);
        let Some(last) = page.last() else {
            return Ok(open);
        };
        after = Some(last.cursor());
        for row in page.iter().filter(|row| row.batch_id.is_none()) {
            open.push(app.store.load::<Batch>(&row.id).await?);
        }
    }
}

/// Looks at one batch. Gives the position of its last event, or `None` if the
/// provider does not have it: somebody deleted it, and what is known of it stays.
///
/// # Errors
/// When the provider or the ledger does not answer.
pub(super) async fn observe(
    app: &App,
    id: &str,
    provider_batch_id: &str,
) -> anyhow::Result<Option<i64>> {
    let seen = match app.elevenlabs.get_batch(provider_batch_id).await {
        Ok(seen) => seen,
        Err(http::Error::Refused(refusal)) if refusal.status == 404 => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let command = || Command::Observe {
        batch: seen.batch.clone(),
        recipients: seen.recipients.clone(),
    };
    let position = app.store.execute::<Batch>(id, command, metadata()).await?;
    Ok(Some(position))
}

fn metadata() -> HashMap<String, String> {
    HashMap::from([("actor".to_owned(), "worker".to_owned())])
}
