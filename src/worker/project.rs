//! Keeps the read models up with the ledger.

use std::sync::Arc;
use std::time::Duration;

use projections::effects::QueueCounts;
use projections::{Progress, engine::Rebuild};

use crate::app::App;

/// How long a projection that failed waits before it tries again, at first and
/// at most.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often it is asked whether a rebuild is due.
const REBUILD_CHECK: Duration = Duration::from_secs(1);
/// How often lags are measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// Folds what is new into one projection, as soon as it is there.
pub async fn follow(app: Arc<App>, name: &'static str) {
    let mut news = app.news.clone();
    let mut retry = RETRY_FIRST;
    loop {
        news.borrow_and_update();
        let progress = app.engine.run_once(name).await;
        let pause = match progress {
            Ok(Progress::Worked { .. }) => {
                retry = RETRY_FIRST;
                continue;
            }
            // A rebuild is the business of `rebuild_when_due`.
            Ok(
                Progress::Idle
                | Progress::HeldElsewhere
                | Progress::NeedsRebuild
                | Progress::Superseded,
            ) => {
                retry = RETRY_FIRST;
                None
            }
            Err(error) => {
                tracing::error!(
                    projection = name,
                    error = format!("{error:#}"),
                    "a projection has stopped, and will try again"
                );
                let pause = retry;
                retry = (retry * 2).min(RETRY_MAX);
                Some(pause)
            }
        };
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => drop(news.changed().await),
        }
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
        for name in due {
            rebuild(&app, name).await;
        }
    }
}

async fn rebuild(app: &App, name: &'static str) {
    tracing::info!(projection = name, "rebuilding a projection");
    match app.engine.rebuild(name, |_| {}).await {
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
