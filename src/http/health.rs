//! How the service is doing: for people, for orchestrators, for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use domain::Provider;
use poem::web::Data;
use poem::{IntoResponse, Request, handler};
use poem_openapi::payload::{Json, PlainText};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use super::auth::ServiceAuth;
use super::error::Failure;
use super::time::Time;
use crate::app::App;

/// How long the database may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How the service is doing.
#[derive(Debug, Object)]
struct Health {
    /// `ok` or `degraded`.
    status: String,
    /// Now.
    timestamp: Time,
    /// Always `bitacora`.
    service: String,
    /// The program's version.
    version: String,
    /// Seconds since this process began.
    uptime: i64,
    /// What the service needs.
    dependencies: Dependencies,
}

/// What the service needs.
#[derive(Debug, Object)]
struct Dependencies {
    /// `connected` or `disconnected`.
    database: String,
    /// `ok`, or `full` when webhooks are being refused.
    queue: String,
    /// `ok` when its webhooks can be authenticated, else `not_configured`.
    twilio: String,
    /// The same.
    elevenlabs: String,
    /// The same.
    builderbot: String,
}

#[derive(ApiResponse)]
enum HealthAnswer {
    /// The service works.
    #[oai(status = 200)]
    Ok(Json<Health>),
    /// The database is away.
    #[oai(status = 503)]
    Degraded(Json<Health>),
}

#[derive(ApiResponse)]
enum Probe {
    /// Yes.
    #[oai(status = 200)]
    Yes(PlainText<&'static str>),
    /// No.
    #[oai(status = 503)]
    No(PlainText<&'static str>),
}

/// Routes for operators.
pub struct Api;

#[OpenApi(tag = "Tag::Operations")]
impl Api {
    /// How the service is doing
    #[oai(path = "/health", method = "get", operation_id = "get_health")]
    async fn health(&self, app: Data<&Arc<App>>) -> HealthAnswer {
        health(&app).await
    }

    /// How the service is doing (alias)
    #[oai(path = "/api/health", method = "get", operation_id = "get_api_health")]
    async fn api_health(&self, app: Data<&Arc<App>>) -> HealthAnswer {
        health(&app).await
    }

    /// Whether the process lives
    #[oai(path = "/livez", method = "get", operation_id = "get_livez")]
    async fn livez(&self) -> PlainText<&'static str> {
        PlainText("ok")
    }

    /// Whether the process can take requests
    #[oai(path = "/readyz", method = "get", operation_id = "get_readyz")]
    async fn readyz(&self, app: Data<&Arc<App>>) -> Probe {
        if app.stopping.is_cancelled() {
            return Probe::No(PlainText("stopping"));
        }
        if database_answers(&app).await {
            Probe::Yes(PlainText("ok"))
        } else {
            Probe::No(PlainText("database away"))
        }
    }

    /// Metrics for Prometheus
    ///
    /// Here with the service token; without one on `METRICS_ADDR`, when that is set, and then only there.
    #[oai(path = "/metrics", method = "get", operation_id = "get_metrics")]
    async fn metrics(
        &self,
        app: Data<&Arc<App>>,
        _auth: ServiceAuth,
    ) -> Result<PlainText<String>, Failure> {
        if app.config.metrics_addr.is_some() {
            return Err(Failure::not_found("Metrics are served on METRICS_ADDR"));
        }
        Ok(PlainText(render_metrics(&app)))
    }
}

/// Metrics without a token.
#[handler]
pub fn metrics_endpoint(request: &Request) -> poem::Response {
    let text = request
        .data::<Arc<App>>()
        .map(|app| render_metrics(app))
        .unwrap_or_default();
    text.with_content_type("text/plain; version=0.0.4; charset=utf-8")
        .into_response()
}

fn render_metrics(app: &App) -> String {
    metrics::gauge!("bitacora_ingest_queue_deliveries").set(app.writer.waiting() as f64);
    app.metrics.run_upkeep();
    app.metrics.render()
}

async fn database_answers(app: &App) -> bool {
    let ping = sqlx::query("select 1").execute(&app.pool);
    matches!(tokio::time::timeout(PING_TIMEOUT, ping).await, Ok(Ok(_)))
}

async fn health(app: &App) -> HealthAnswer {
    let connected = database_answers(app).await;
    let full = !app.writer.has_room();
    let configured = |provider| {
        let missing = app.config.provider_secrets.of(provider).is_empty();
        if missing { "not_configured" } else { "ok" }.to_owned()
    };
    let health = Health {
        status: if connected && !full { "ok" } else { "degraded" }.to_owned(),
        timestamp: app.source.now().into(),
        service: "bitacora".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: (app.source.now() - app.started_at).num_seconds(),
        dependencies: Dependencies {
            database: if connected {
                "connected"
            } else {
                "disconnected"
            }
            .to_owned(),
            queue: if full { "full" } else { "ok" }.to_owned(),
            twilio: configured(Provider::Twilio),
            elevenlabs: configured(Provider::Elevenlabs),
            builderbot: configured(Provider::Builderbot),
        },
    };
    if connected {
        HealthAnswer::Ok(Json(health))
    } else {
        HealthAnswer::Degraded(Json(health))
    }
}
