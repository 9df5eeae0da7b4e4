//! How watched batches stand, as they change: one reader for the whole process,
//! however many watch. It hears of new events from the one listener, finds
//! which batches they concern, and reads each of those once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use projections::batches::{self, Batch, Enriched};
use projections::past::AsOf;
use tokio::sync::{Notify, watch};

use crate::app::App;
use crate::ledger::events;

/// The least time between two reads of what changed: changes that come together
/// are shown together.
const SPACING: Duration = Duration::from_millis(500);
/// Streams that grew, read at once.
const GROWN_MAX: i64 = 5_000;
/// How long to wait for the read models before the read is tried again.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(5);

/// The read models that a status is read from.
pub const READ_MODELS: [&str; 2] = ["batches", "interactions"];

/// How a batch stood at one time.
#[derive(Debug)]
pub struct Status {
    /// At which position of the ledger.
    pub position: i64,
    /// When it was read.
    pub read_at: DateTime<Utc>,
    /// The batch.
    pub batch: Batch,
    /// Its recipients.
    pub recipients: Vec<Enriched>,
    /// What is sent of it, made once for all who watch.
    pub frames: [OnceLock<Bytes>; FRAMES],
}

/// Forms in which a status is sent; see `http::status_stream`.
pub const FRAMES: usize = 4;

/// What is known of a watched batch.
#[derive(Clone, Debug)]
pub enum News {
    /// Nothing yet.
    Reading,
    /// So it stands.
    Stands(Arc<Status>),
    /// It could not be read, and will be again.
    Failed,
}

type Watched = HashMap<String, watch::Sender<News>>;

/// All batches that somebody watches, by our ids.
#[derive(Debug, Default)]
pub struct Live {
    watched: Mutex<Watched>,
    /// Somebody watches a batch that nobody watched.
    added: Notify,
    started: OnceLock<()>,
}

/// How a batch stands now; `None` where it is unknown.
///
/// # Errors
/// When the read models do not answer.
pub async fn read(app: &App, batch_id: &str, position: i64) -> anyhow::Result<Option<Status>> {
    let mut conn = app.pool.acquire().await?;
    let Some(batch) = batches::find(&mut conn, batch_id).await? else {
        return Ok(None);
    };
    let recipients = batches::recipients(&mut conn, &batch.id).await?;
    Ok(Some(Status {
        position,
        read_at: app.source.now(),
        batch,
        recipients,
        frames: Default::default(),
    }))
}

/// How the batch with this id, the provider's or ours, stood; `None` where it
/// was unknown.
///
/// # Errors
/// When the ledger does not answer.
pub async fn read_as_of(app: &App, id: &str, then: AsOf) -> anyhow::Result<Option<Status>> {
    let mut conn = app.pool.acquire().await?;
    let position = then.position(&mut conn).await?;
    let then = AsOf::Position(position);
    let found = batches::as_of(&mut conn, &app.opener, id, then).await?;
    Ok(found.map(|(batch, recipients)| Status {
        position,
        read_at: app.source.now(),
        batch,
        recipients,
        frames: Default::default(),
    }))
}

impl Live {
    /// Watches a batch, by our id of it.
    pub fn watch(app: &Arc<App>, batch_id: &str) -> watch::Receiver<News> {
        let live = &app.live;
        live.started.get_or_init(|| {
            // Holds the application no longer than the process serves.
            let (app, stopping) = (app.clone(), app.stopping.clone());
            tokio::spawn(async move {
                stopping.run_until_cancelled(follow(&app)).await;
            });
        });
        let mut watched = live.lock();
        if let Some(sender) = watched.get(batch_id) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(News::Reading);
        watched.insert(batch_id.to_owned(), sender);
        live.added.notify_one();
        receiver
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what nobody watches any more. Gives what is left, and of that
    /// what has not been read.
    fn watched(&self) -> (HashSet<String>, HashSet<String>) {
        let mut watched = self.lock();
        watched.retain(|_, sender| sender.receiver_count() > 0);
        let unread = watched
            .iter()
            .filter(|(_, sender)| !matches!(&*sender.borrow(), News::Stands(_)));
        let unread = unread.map(|(id, _)| id.clone()).collect();
        (watched.keys().cloned().collect(), unread)
    }

    fn tell(&self, batch_id: &str, news: News) {
        if let Some(sender) = self.lock().get(batch_id) {
            sender.send_replace(news);
        }
    }
}

/// Reads what changes for as long as the process serves.
async fn follow(app: &App) {
    let mut news = app.news.clone();
    let mut position = None;
    loop {
        news.borrow_and_update();
        if let Err(error) = step(app, &mut position).await {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "could not read how watched batches stand, will try again"
            );
        }
        tokio::time::sleep(SPACING).await;
        tokio::select! {
            _ = news.changed() => {}
            () = app.live.added.notified() => {}
        }
    }
}

async fn step(app: &App, position: &mut Option<i64>) -> anyhow::Result<()> {
    let (watched, mut changed) = app.live.watched();
    if watched.is_empty() {
        // Whoever comes next is read for whole.
        *position = None;
        return Ok(());
    }
    let after = match *position {
        Some(position) => position,
        None => events::head(&app.pool).await?,
    };
    let grown = events::grown(&app.pool, after, GROWN_MAX).await?;
    let upto = grown.last().map_or(after, |(position, ..)| *position);
    let is_first = position.is_none();
    if (is_first || upto > after)
        && !app
            .engine
            .wait_for(&READ_MODELS, upto, CAUGHT_UP_WITHIN)
            .await?
    {
        anyhow::bail!("the read models are behind");
    }
    let of = |kind: &str| {
        let streams = grown.iter().filter(move |(_, it, _)| it == kind);
        streams.map(|(.., id)| id.as_str()).collect::<Vec<_>>()
    };
    changed.extend(
        of("batch")
            .into_iter()
            .filter(|id| watched.contains(*id))
            .map(str::to_owned),
    );
    let calls = of("call");
    if !calls.is_empty() {
        let mut conn = app.pool.acquire().await?;
        let theirs = batches::of_calls(&mut conn, &calls).await?;
        changed.extend(theirs.into_iter().filter(|id| watched.contains(id)));
    }
    for id in changed {
        let news = match read(app, &id, upto).await {
            Ok(Some(status)) => News::Stands(Arc::new(status)),
            Ok(None) => News::Failed,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(batch_id = id, error, "could not read how a batch stands");
                News::Failed
            }
        };
        app.live.tell(&id, news);
    }
    *position = Some(upto);
    Ok(())
}
