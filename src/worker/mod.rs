//! The background work: loops around steps that each know by the database
//! alone what is to be done, so that a kill at any moment costs nothing.

mod batches;
mod effects;
mod lease;
pub mod news;
mod project;
mod retention;
mod seal;
pub mod statistics;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use crate::app::App;

/// Starts the background work. It ends when `app.stopping` is cancelled,
/// wherever it is: what was not committed is done again by the next process.
pub fn start(app: &Arc<App>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut until_stopped = |work: BoxFuture<'static, ()>| {
        let stopping = app.stopping.clone();
        tasks.spawn(async move {
            stopping.run_until_cancelled(work).await;
        });
    };
    until_stopped(Box::pin(project::follow(app.clone())));
    until_stopped(Box::pin(project::rebuild_when_due(app.clone())));
    until_stopped(Box::pin(project::measure(app.clone())));
    until_stopped(Box::pin(statistics::keep(app.clone())));
    until_stopped(Box::pin(seal::seal_what_is_new(app.clone())));
    until_stopped(Box::pin(retention::apply(app.clone())));
    until_stopped(Box::pin(batches::drive(app.clone())));
    until_stopped(Box::pin(batches::monitor(app.clone())));
    until_stopped(Box::pin(batches::reconcile(app.clone())));
    // It stops by itself, once what it is sending is sent.
    tasks.spawn(effects::settle(app.clone()));
    tasks
}
