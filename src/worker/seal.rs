//! Seals what is new on the ledger at an interval: the leader among all
//! replicas, whoever that is in that turn.

use std::sync::Arc;

use sqlx::{Connection, PgConnection};

use crate::app::App;
use crate::ledger::log::{self, LEAVES_MAX, Turn};

/// Signs a head over what is new, for ever.
pub async fn seal_what_is_new(app: Arc<App>) {
    if app.config.seal_every.is_zero() {
        return;
    }
    let Some(signer) = &app.config.log.signer else {
        tracing::warn!(
            "LOG_SIGNING_KEY is not set: the ledger is not sealed, nobody can prove that it was not changed"
        );
        return;
    };
    // Of its own: a connection on which a COPY was cut short is of no use.
    let mut kept: Option<PgConnection> = None;
    loop {
        match turn(&app, signer, kept.take()).await {
            Ok((conn, outcome)) => {
                kept = Some(conn);
                if let Turn::Sealed { leaves, full } = outcome {
                    metrics::counter!("bitacora_log_leaves_total").increment(leaves);
                    if full {
                        continue;
                    }
                }
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "could not seal the ledger, will try again"
                );
            }
        }
        tokio::time::sleep(app.config.seal_every).await;
    }
}

async fn turn(
    app: &App,
    signer: &domain::log::Signer,
    conn: Option<PgConnection>,
) -> anyhow::Result<(PgConnection, Turn)> {
    let mut conn = match conn {
        Some(conn) => conn,
        None => PgConnection::connect_with(&app.pool.connect_options()).await?,
    };
    let began = std::time::Instant::now();
    let outcome = log::seal(
        &mut conn,
        signer,
        &app.config.log.verifiers,
        LEAVES_MAX,
        |_| Ok(()),
    )
    .await?;
    metrics::histogram!("bitacora_log_seal_seconds").record(began.elapsed().as_secs_f64());
    Ok((conn, outcome))
}
