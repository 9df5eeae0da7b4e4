//! Log lines and metrics: what an operator sees.
//!
//! Invariant: no secret, no one-time code and no whole phone number in either.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// What is logged when `RUST_LOG` says nothing.
const DEFAULT_FILTER: &str = "info,sqlx=warn,poem=warn";

/// Upper bounds of the buckets that answers are counted in, in seconds.
const LATENCY_BUCKETS_SECS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
];

/// Starts logging to standard error. Call once.
pub fn start_logging(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    match format {
        LogFormat::Auto if terminal => builder.with_target(false).init(),
        LogFormat::Text => builder.with_target(false).with_ansi(terminal).init(),
        LogFormat::Auto | LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Starts counting. The handle renders what was counted so far.
///
/// # Errors
/// When a recorder is already installed in this process.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), LATENCY_BUCKETS_SECS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    describe();
    Ok(handle)
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        "bitacora_ack_seconds",
        Unit::Seconds,
        "From a webhook's arrival to its answer"
    );
    describe_counter!(
        "bitacora_deliveries_total",
        "Webhook deliveries by provider and verdict"
    );
    describe_counter!(
        "bitacora_rejections_not_kept_total",
        "Rejected deliveries beyond the quota, which were not kept"
    );
    describe_gauge!(
        "bitacora_ingest_queue_deliveries",
        "Deliveries waiting to be written"
    );
    describe_histogram!(
        "bitacora_write_batch_deliveries",
        "Deliveries written by one transaction"
    );
    describe_histogram!(
        "bitacora_write_seconds",
        Unit::Seconds,
        "Time of one write transaction"
    );
    describe_gauge!(
        "bitacora_projection_lag_events",
        "Events on the ledger that a projection has not folded yet"
    );
    describe_gauge!(
        "bitacora_projection_lag_seconds",
        Unit::Seconds,
        "Age of the oldest event that a projection has not folded yet"
    );
    describe_counter!(
        "bitacora_effect_attempts_total",
        "Attempts to send a message or to ask the agent, by kind and outcome"
    );
    describe_counter!(
        "bitacora_agent_words_lost_total",
        "What agents said after their turn was taken for finished, and no client was sent"
    );
    describe_gauge!(
        "bitacora_effects",
        "What we owe the outside: waiting, active, failed (dead letters)"
    );
    describe_histogram!(
        "bitacora_http_request_seconds",
        Unit::Seconds,
        "Time to answer an API request, by route and status"
    );
}
