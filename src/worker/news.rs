//! One listener for the whole process: turns PostgreSQL's notifications into a
//! change that any number of tasks can wait for.
//!
//! Notifications only wake. One that is lost costs a moment: everybody is
//! woken at an interval all the same.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often everybody is woken without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The channel that the trigger on `events` notifies.
const CHANNEL: &str = "bitacora_events";

/// Listens until `stopping` is cancelled.
pub fn listen(pool: PgPool, stopping: CancellationToken) -> watch::Receiver<()> {
    let (wake, news) = watch::channel(());
    tokio::spawn(async move {
        while !stopping.is_cancelled() && !wake.is_closed() {
            tokio::select! {
                () = stopping.cancelled() => {}
                outcome = hear(&pool, &wake) => if let Err(error) = outcome {
                    tracing::debug!(%error, "not listening for new events, polling");
                    wake.send_replace(());
                    tokio::time::sleep(POLL_INTERVAL).await;
                },
            }
        }
    });
    news
}

async fn hear(pool: &PgPool, wake: &watch::Sender<()>) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // A time-out is no news, and wakes all the same.
        if let Ok(heard) = tokio::time::timeout(POLL_INTERVAL, listener.recv()).await {
            heard?;
        }
        wake.send_replace(());
    }
}
