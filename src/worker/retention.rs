//! Erases what is older than it may be, some times a day.

use std::sync::Arc;
use std::time::Duration;

use super::lease;
use crate::app::App;
use crate::erasure::{self, Retention};

/// How often it is looked. Data goes by whole days.
const EVERY: Duration = Duration::from_secs(3600);

/// Applies the rules of retention, if there are any.
pub async fn apply(app: Arc<App>) {
    if app.config.retention == Retention::NONE {
        return;
    }
    let holder = app.source.id();
    loop {
        match step(&app, holder).await {
            Ok(0) => {}
            Ok(keys) => tracing::info!(keys, "erased what was older than it may be"),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "retention was not applied");
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn step(app: &App, holder: uuid::Uuid) -> anyhow::Result<u64> {
    match lease::hold(app, "retention", holder, EVERY).await? {
        true => erasure::retain(app).await,
        false => Ok(0),
    }
}
