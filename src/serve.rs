//! A serving process, from its start to a stop that loses nothing: stop
//! accepting, finish what is being answered, write what is queued, leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{Endpoint, Server};
use sqlx::PgPool;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock;
use crate::config::Config;
use crate::ledger::{self, Limits, Writer, WriterTask};
use crate::{http, worker};

/// How long requests that are being answered may take once we stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How often measurements are summed up.
const METRICS_TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// A process that serves.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is made of.
    pub app: Arc<App>,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    work: JoinSet<()>,
    writer: WriterTask,
}

/// Starts serving on a migrated database.
///
/// # Errors
/// When the port is taken or the database does not answer.
pub async fn start(
    config: Config,
    pool: PgPool,
    source: clock::Source,
    metrics: PrometheusHandle,
    limits: Limits,
) -> anyhow::Result<Running> {
    let stopping = CancellationToken::new();
    let news = worker::news::listen(pool.clone(), stopping.clone());
    let (phone_index, keyring) = ledger::keys(
        &pool,
        config.master_keys.clone().filter(|_| config.seals),
        &source,
    )
    .await?;
    let (writer, writer_task) = Writer::sealing(pool.clone(), limits, keyring.clone());
    let ledger = (writer, phone_index, keyring);
    let app = App::new(config, pool, ledger, source, metrics, news, stopping)?;
    let mut work = if app.config.worker {
        worker::start(&app)
    } else {
        JoinSet::new()
    };
    work.spawn(tidy_metrics(app.clone()));
    let mut servers = Vec::new();
    let listen = app.config.listen;
    let (address, server) = if app.config.api {
        spawn_server(listen, http::routes(app.clone()), app.stopping.clone()).await
    } else {
        spawn_server(
            listen,
            http::worker_routes(app.clone()),
            app.stopping.clone(),
        )
        .await
    }
    .with_context(|| format!("cannot listen on {listen} (PORT): is another process there?"))?;
    servers.push(server);
    if let Some(metrics_addr) = app.config.metrics_addr {
        let routes = http::metrics_routes(app.clone());
        let (_, server) = spawn_server(metrics_addr, routes, app.stopping.clone())
            .await
            .with_context(|| format!("cannot listen on {metrics_addr} (METRICS_ADDR)"))?;
        servers.push(server);
    }
    Ok(Running {
        address,
        app,
        servers,
        work,
        writer: writer_task,
    })
}

impl Running {
    /// Stops: no new requests, the open ones answered, everything that was
    /// queued written.
    pub async fn stop(self) {
        let Self {
            app,
            servers,
            mut work,
            writer,
            ..
        } = self;
        app.stopping.cancel();
        for server in servers {
            if let Err(error) = server.await {
                tracing::error!(%error, "a server ended badly");
            }
        }
        while work.join_next().await.is_some() {}
        let pool = app.pool.clone();
        // The last sender of the queue goes with the application.
        drop(app);
        if tokio::time::timeout(DRAIN_TIMEOUT, writer.drained())
            .await
            .is_err()
        {
            tracing::error!(
                "stopping with unwritten deliveries: the database does not take them; none of them was acknowledged"
            );
        }
        pool.close().await;
    }
}

impl Running {
    /// Ends as a kill would: whatever is being done is left where it is. For
    /// tests of what comes after.
    pub fn kill(self) {
        for server in &self.servers {
            server.abort();
        }
        // Dropping the work aborts it; only then may the rest know.
        drop(self.work);
        self.app.stopping.cancel();
    }
}

/// Sums up what was measured, whether or not somebody asks for it: until then
/// every single measurement takes memory.
async fn tidy_metrics(app: Arc<App>) {
    let mut turns = tokio::time::interval(METRICS_TIDY_INTERVAL);
    let tidying = async {
        loop {
            turns.tick().await;
            app.metrics.run_upkeep();
        }
    };
    let _: Option<()> = app.stopping.run_until_cancelled(tidying).await;
}

async fn spawn_server(
    address: SocketAddr,
    routes: impl Endpoint + 'static,
    stopping: CancellationToken,
) -> anyhow::Result<(SocketAddr, JoinHandle<std::io::Result<()>>)> {
    let acceptor = TcpListener::bind(address).into_acceptor().await?;
    let bound = acceptor
        .local_addr()
        .first()
        .and_then(|addr| addr.as_socket_addr().copied())
        .unwrap_or(address);
    let server = Server::new_with_acceptor(acceptor).run_with_graceful_shutdown(
        routes,
        async move { stopping.cancelled().await },
        Some(DRAIN_TIMEOUT),
    );
    Ok((bound, tokio::spawn(server)))
}
