//! The loops that keep batches and calls up with the provider: what was
//! ordered is driven on, what is being called is looked at, and webhooks that
//! never came are made good. Each step is in `crate::batches`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::lease;
use crate::app::App;
use crate::batches::{self, Monitor};

/// How often open orders are looked for without news of any.
const DRIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The least time between two looks for open orders, whatever the news.
const DRIVE_SPACING: Duration = Duration::from_secs(1);
/// How much longer than its interval a process keeps a piece of work. Then
/// another takes it over.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Drives open orders on, as soon as there are any.
pub async fn drive(app: Arc<App>) {
    let holder = app.source.id();
    let mut news = app.news.clone();
    loop {
        news.borrow_and_update();
        let step: BoxFuture<'_, anyhow::Result<()>> = Box::pin(batches::drive_open_orders(&app));
        leased(&app, "drive_orders", holder, DRIVE_INTERVAL, step).await;
        tokio::time::sleep(DRIVE_SPACING).await;
        let _ = tokio::time::timeout(DRIVE_INTERVAL, news.changed()).await;
    }
}

/// Looks at what is being called, and for what others ordered.
pub async fn monitor(app: Arc<App>) {
    let holder = app.source.id();
    let mut monitor = Monitor::default();
    loop {
        let every = app.config.batch_poll;
        let step = Box::pin(monitor.run_once(&app));
        leased(&app, "monitor_batches", holder, every, step).await;
        tokio::time::sleep(every).await;
    }
}

/// Makes good what no webhook told.
pub async fn reconcile(app: Arc<App>) {
    let holder = app.source.id();
    loop {
        let every = app.config.reconcile_every;
        let step = Box::pin(async {
            let recovered = batches::reconcile(&app).await?;
            if recovered > 0 {
                tracing::info!(recovered, "made good webhooks that never came");
            }
            Ok(())
        });
        leased(&app, "reconcile_calls", holder, every, step).await;
        tokio::time::sleep(every).await;
    }
}

async fn leased(
    app: &App,
    name: &'static str,
    holder: uuid::Uuid,
    every: Duration,
    step: BoxFuture<'_, anyhow::Result<()>>,
) {
    if !app.elevenlabs.is_configured() {
        return;
    }
    let outcome = match lease::hold(app, name, holder, every + LEASE_MARGIN).await {
        Ok(true) => step.await,
        Ok(false) => Ok(()),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = outcome {
        let error = format!("{error:#}");
        tracing::warn!(
            work = name,
            error,
            "could not do the background work, will try again"
        );
    }
}
