//! Working through one lane: its effects one after another, until none is due.

use std::sync::Arc;
use std::time::Duration;

use projections::effects::{self, Effect};
use uuid::Uuid;

use super::Sessions;
use super::attempt::{Step, Worker};
use crate::app::App;

/// The read models that the next step depends on.
const READ_MODELS: &[&str] = &["effects", "conversations"];
/// How long a step waits until its read models show the last one.
const READABLE_WITHIN: Duration = Duration::from_secs(10);
/// What is longer is not waited for here: others want to be worked on.
const LONG: Duration = Duration::from_secs(1);
/// The pause after a failure of our own, such as a database that is away.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Works through a lane that this holder has leased, and lets it go.
pub async fn work(app: Arc<App>, sessions: Arc<Sessions>, holder: Uuid, lane: String) {
    let worker = Worker {
        app: &app,
        sessions: &sessions,
    };
    match until_idle(&worker, holder, &lane).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(lane, error, "could not settle an effect, will try again");
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }
    let released = async {
        let mut conn = app.pool.acquire().await?;
        effects::release_lane(&mut conn, holder, &lane).await
    };
    if let Err(error) = released.await {
        tracing::debug!(lane, %error, "could not let a lane go; its lease will run out");
    }
}

/// Whether the lane is to be let go; one that has to wait for long keeps its
/// lease for as long, and nobody works on it meanwhile.
async fn until_idle(worker: &Worker<'_>, holder: Uuid, lane: &str) -> anyhow::Result<bool> {
    let app = worker.app;
    while !app.stopping.is_cancelled() {
        let Some(effect) = next(app, lane).await? else {
            break;
        };
        match worker.step(&effect).await? {
            Step::Taken(position) => {
                let readable = app.engine.wait_for(READ_MODELS, position, READABLE_WITHIN);
                // Nobody folds any more once the process stops.
                let readable = app.stopping.run_until_cancelled(readable).await;
                if !readable.unwrap_or(Ok(true))? {
                    tracing::warn!(lane, "the read models lag behind, leaving a lane");
                    break;
                }
            }
            Step::Later(pause) if pause > LONG => {
                let until = app.source.now() + pause;
                let lanes = [lane.to_owned()];
                let mut conn = app.pool.acquire().await?;
                effects::keep_lanes(&mut conn, holder, &lanes, until).await?;
                return Ok(false);
            }
            Step::Later(pause) => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = app.stopping.cancelled() => {}
                }
            }
        }
    }
    Ok(true)
}

/// The next effect of a lane, if it is due.
async fn next(app: &App, lane: &str) -> anyhow::Result<Option<Effect>> {
    let mut conn = app.pool.acquire().await?;
    let head = effects::head(&mut conn, lane).await?;
    let now = app.source.now();
    Ok(head.filter(|effect| effect.due_at.is_none_or(|due| due <= now)))
}
