//! Keeps the read models up with the ledger.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use projections::effects::QueueCounts;
use projections::{Progress, engine::Rebuild};
use tokio::time::Instant;

use crate::app::App;

/// How long a projection that failed waits before it tries again, at first and
/// at most.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long new events gather while there is no backlog. Of the time in which
/// an event is to be seen, 250 ms, a small part.
const TURN_PAUSE: Duration = Duration::from_millis(10);
/// From how many events in a turn on there is a backlog.
const FULL_TURN_EVENTS: usize = projections::engine::BATCH_EVENTS_MAX as usize / 2;
/// How often it is asked whether a rebuild is due.
const REBUILD_CHECK: Duration = Duration::from_secs(1);
/// How often lags are measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// Folds what is new into all projections, as soon as it is there.
pub async fn follow(app: Arc<App>) {
    let mut news = app.news.clone();
    let mut stopped: HashMap<&'static str, Retry> = HashMap::new();
    loop {
        news.borrow_and_update();
        let now = Instant::now();
        let is_due = |name: &&str| stopped.get(name).is_none_or(|retry| retry.at <= now);
        let turns = app.engine.run_all(app.engine.names().filter(is_due)).await;
        let mut most = None;
        for (name, progress) in turns {
            match progress {
                Ok(progress) => {
                    stopped.remove(name);
                    // A rebuild is the business of `rebuild_when_due`.
                    if let Progress::Worked { events, .. } = progress {
                        most = most.max(Some(events));
                    }
                }
                Err(error) => {
                    tracing::error!(
                        projection = name,
                        error = format!("{error:#}"),
                        "a projection has stopped, and will try again"
                    );
                    stopped.entry(name).or_default().put_off(now);
                }
            }
        }
        match most {
            Some(events) if events >= FULL_TURN_EVENTS => {}
            // Many events at a time cost less than one by one, and whatever
            // writes them to the ledger goes first.
            Some(_) => tokio::time::sleep(TURN_PAUSE).await,
            // The news come at an interval too: so does the next try.
            None => drop(news.changed().await),
        }
    }
}

/// When a projection that has stopped is tried again.
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            pause: RETRY_FIRST,
        }
    }
}

impl Retry {
    fn put_off(&mut self, now: Instant) {
        self.at = now + self.pause;
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }
}

/// Rebuilds whatever is asked to be, or is of an older version.
pub async fn rebuild_when_due(app: Arc<App>) {
    loop {
        tokio::time::sleep(REBUILD_CHECK).await;
        let due = match app.engine.rebuilds_due().await {
            Ok(due) => due,
            Err(error) => {
                tracing::debug!(
                    error = format!("{error:#}"),
                    "could not ask whether a rebuild is due"
                );
                continue;
            }
        };
        if due.is_empty() {
            continue;
        }
        tracing::info!(projections = ?due, "rebuilding projections");
        match app.engine.rebuild_all(&due, |_| {}).await {
            Ok(rebuilt) => {
                for (name, rebuilt) in rebuilt {
                    tell(name, rebuilt);
                }
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a rebuild could not be begun")
            }
        }
    }
}

fn tell(name: &'static str, rebuilt: anyhow::Result<Rebuild>) {
    match rebuilt {
        Ok(Rebuild::Done {
            position,
            differences,
        }) => {
            let differing = differences
                .iter()
                .flatten()
                .filter(|d| d.only_before + d.only_after > 0)
                .count();
            tracing::info!(
                projection = name,
                position,
                differing_tables = differing,
                "rebuilt a projection"
            );
        }
        Ok(Rebuild::HeldElsewhere | Rebuild::Superseded) => {}
        Err(error) => tracing::error!(
            projection = name,
            error = format!("{error:#}"),
            "a rebuild failed; the live tables are as they were"
        ),
    }
}

/// Measures how far each projection is behind.
pub async fn measure(app: Arc<App>) {
    loop {
        if let Ok(statuses) = app.engine.statuses().await {
            for status in statuses {
                metrics::gauge!("bitacora_projection_lag_events", "projection" => status.name)
                    .set(status.lag_events as f64);
                metrics::gauge!("bitacora_projection_lag_seconds", "projection" => status.name)
                    .set(status.lag_seconds);
            }
        }
        if let Ok(counts) = queue_counts(&app).await {
            for (state, count) in [
                ("waiting", counts.waiting),
                ("active", counts.active),
                ("failed", counts.failed),
            ] {
                metrics::gauge!("bitacora_effects", "state" => state).set(count as f64);
            }
        }
        tokio::time::sleep(MEASURE_INTERVAL).await;
    }
}

async fn queue_counts(app: &App) -> sqlx::Result<QueueCounts> {
    let mut conn = app.pool.acquire().await?;
    projections::effects::queue_counts(&mut conn, app.source.now()).await
}
