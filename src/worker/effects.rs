//! The loop that settles what we owe the outside: takes lanes that have work,
//! each with a task of its own, and keeps hold of them.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::effects::{self, Policy, Sessions};

/// How many times a lease is renewed before it would run out.
const RENEWALS: u32 = 3;

/// Settles effects until the process stops; what is being sent then is seen to
/// its end.
pub async fn settle(app: Arc<App>) {
    let policy = app.config.effects;
    let holder = app.source.id();
    let sessions = Arc::new(Sessions::default());
    let mut lanes = JoinSet::new();
    let mut moved = app.engine.moved();
    let mut renewed = Instant::now();
    while !app.stopping.is_cancelled() {
        moved.borrow_and_update();
        while lanes.try_join_next().is_some() {}
        if !lanes.is_empty() && renewed.elapsed() >= policy.lease / RENEWALS {
            match renew(&app, &policy, holder).await {
                Ok(()) => renewed = Instant::now(),
                Err(error) => tracing::debug!(%error, "could not renew leases"),
            }
        }
        sessions.sweep(policy.session_idle);
        match take(&app, &policy, holder, policy.lanes_max - lanes.len()).await {
            Ok(taken) => {
                if lanes.is_empty() {
                    renewed = Instant::now();
                }
                for lane in taken {
                    lanes.spawn(effects::work(app.clone(), sessions.clone(), holder, lane));
                }
            }
            Err(error) => tracing::debug!(%error, "could not look for effects"),
        }
        tokio::select! {
            () = tokio::time::sleep(policy.poll) => {}
            changed = moved.changed() => if changed.is_err() { break },
            Some(_) = lanes.join_next() => {}
            () = app.stopping.cancelled() => {}
        }
    }
    while lanes.join_next().await.is_some() {}
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

async fn renew(app: &App, policy: &Policy, holder: Uuid) -> sqlx::Result<()> {
    let until = app.source.now() + policy.lease;
    let mut conn = app.pool.acquire().await?;
    projections::effects::keep_lanes(&mut conn, holder, until).await
}
