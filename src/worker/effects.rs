//! The loop that settles what we owe the outside: takes lanes that have work,
//! each with a task of its own, and keeps hold of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::effects::{self, Policy, Sessions};

/// How many times a lease is renewed before it would run out.
const RENEWALS: u32 = 3;

/// The least time between two looks for work: what comes together is taken
/// together.
const SPACING: Duration = Duration::from_millis(25);

/// Settles effects until the process stops; what is being sent then is seen to
/// its end.
pub async fn settle(app: Arc<App>) {
    let policy = app.config.effects;
    let holder = app.source.id();
    let sessions = Arc::new(Sessions::new(policy.sessions_max));
    let mut lanes = Lanes::default();
    let mut moved = app.engine.moved();
    let mut renewed = Instant::now();
    while !app.stopping.is_cancelled() {
        moved.borrow_and_update();
        if renewed.elapsed() >= policy.lease / RENEWALS {
            match lanes.renew(&app, &policy, holder).await {
                Ok(()) => renewed = Instant::now(),
                Err(error) => tracing::debug!(%error, "could not renew leases"),
            }
        }
        sessions.sweep(policy.session_idle);
        match take(&app, &policy, holder, policy.lanes_max - lanes.len()).await {
            Ok(taken) => {
                for lane in taken {
                    let work = effects::work(app.clone(), sessions.clone(), holder, lane.clone());
                    lanes.spawn(lane, work);
                }
            }
            Err(error) => tracing::debug!(%error, "could not look for effects"),
        }
        tokio::time::sleep(SPACING).await;
        tokio::select! {
            () = tokio::time::sleep(policy.poll) => {}
            changed = moved.changed() => if changed.is_err() { break },
            () = lanes.ended() => {}
            () = app.stopping.cancelled() => {}
        }
    }
    while lanes.len() > 0 {
        lanes.ended().await;
    }
}

/// The lanes that are being worked on, each by a task.
#[derive(Default)]
struct Lanes {
    tasks: JoinSet<()>,
    names: HashMap<task::Id, String>,
}

impl Lanes {
    fn len(&self) -> usize {
        self.names.len()
    }

    fn spawn(&mut self, lane: String, work: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(work).id();
        self.names.insert(id, lane);
    }

    /// Waits until some have ended; for ever while there are none.
    async fn ended(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        self.forget(ended);
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
    }

    fn forget(&mut self, ended: Result<(task::Id, ()), task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "the work on a lane broke off");
                error.id()
            }
        };
        self.names.remove(&id);
    }

    /// Keeps hold of the lanes that are being worked on, and of no others: a
    /// lease that could not be given back must run out.
    async fn renew(&self, app: &App, policy: &Policy, holder: Uuid) -> sqlx::Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let lanes: Vec<_> = self.names.values().cloned().collect();
        let until = app.source.now() + policy.lease;
        let mut conn = app.pool.acquire().await?;
        projections::effects::keep_lanes(&mut conn, holder, &lanes, until).await
    }
}

async fn take(app: &App, policy: &Policy, holder: Uuid, room: usize) -> sqlx::Result<Vec<String>> {
    if room == 0 {
        return Ok(vec![]);
    }
    let now = app.source.now();
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    let mut conn = app.pool.acquire().await?;
    projections::effects::take_lanes(&mut conn, holder, now, now + policy.lease, limit).await
}
