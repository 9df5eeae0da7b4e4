//! How batches stand, and what may be done with them. Contract, section 5.

use std::sync::Arc;
use std::time::Duration;

use domain::batch::Status as BatchState;
use domain::call::Outcome as CallOutcome;
use futures_util::StreamExt;
use poem::web::Data;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use projections::batches::{Cursor, Filter};

use super::auth::{Access, Auth, Caller, StreamAuth};
use super::batch_calling::{self, find, metadata, settled};
use super::batch_view::{BatchRow, BatchStatus, must_mask};
use super::error::Failure;
use super::reply::{self, Commanded, MessagePage, Success};
use super::status_stream::{self, Events, Watch};
use super::{Tag, audit, params};
use crate::app::App;
use crate::batches::{self, READ_MODELS};
use crate::ledger::events;

/// Calls that are fetched for one answer, at most, and for how long it waits.
const FETCHED_MAX: usize = 20;
const FETCHED_WITHIN: Duration = Duration::from_secs(5);
/// How long after the end of a call its webhook is waited for before the call
/// is fetched for an answer.
const WEBHOOK_EXPECTED_SECS: i64 = 15;

/// Calls that are made again.
#[derive(Debug, Object)]
struct Retried {
    /// The provider's id of the batch.
    batch_id: String,
    /// How many are called again.
    retried_count: u32,
    /// `retrying`.
    status: String,
}

/// Calls that are not made any more.
#[derive(Debug, Object)]
struct Cancelled {
    /// The provider's id of the batch.
    batch_id: String,
    /// `cancelled`.
    status: String,
    /// How many calls were not over.
    cancelled_count: u32,
}

/// Routes for the status of batches.
pub struct Api;

#[OpenApi(tag = "Tag::Batches")]
impl Api {
    /// All batches
    ///
    /// The newest first.
    #[oai(
        path = "/api/batch-calls",
        method = "get",
        operation_id = "list_batches"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each parameter of the operation"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        _auth: Auth,
        /// Only those that stand so.
        status: Query<Option<String>>,
        /// Only those of this group.
        group_id: Query<Option<i32>>,
        /// Ordered at or after this time.
        from: Query<Option<String>>,
        /// Ordered before or at this time.
        to: Query<Option<String>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<MessagePage<BatchRow>>, Failure> {
        let limit = reply::limit(limit.0)?;
        let filter = Filter {
            status: params::word::<BatchState>("status", status.0)?,
            group_id: group_id.0,
            from: params::time("from", from.0.as_deref())?,
            to: params::until("to", to.0.as_deref())?,
        };
        let after: Option<(chrono::DateTime<chrono::Utc>, String)> =
            reply::read_cursor(cursor.0.as_deref())?;
        let after = after.map(|(created_at, id)| Cursor { created_at, id });
        let mut conn = app.pool.acquire().await?;
        let rows =
            projections::batches::list(&mut conn, &filter, after.as_ref(), limit + 1).await?;
        Ok(reply::message_page(
            "Lista de batch calls obtenida exitosamente",
            rows,
            limit,
            |row| (row.created_at, row.id.clone()),
            BatchRow::from,
        ))
    }

    /// How a batch stands
    ///
    /// With what was said in its calls, from the post-call webhooks, or from the provider where one has not come.
    /// `as_of` shows it as it stood at a time or ledger position: the same answer that was given then.
    #[oai(
        path = "/api/batch-calls/:batchId/status",
        method = "get",
        operation_id = "get_batch_status"
    )]
    async fn status(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The provider's id of the batch, or ours.
        #[oai(name = "batchId")]
        batch_id: Path<String>,
        /// A time (`2025-10-28T23:29:50Z`) or a ledger position.
        as_of: Query<Option<String>>,
    ) -> Result<Json<Success<BatchStatus>>, Failure> {
        let masked = must_mask(&app, &Caller::from(auth));
        if let Some(then) = params::as_of(as_of.0)? {
            let then = batch_calling::find_as_of(&app, batch_id.0, then).await?;
            return Ok(told(&app, &then, masked));
        }
        let batch = find(&app, batch_id.0).await?;
        status(&app, &batch.id, masked).await
    }

    /// How a batch stands, as it changes
    ///
    /// Server-sent events: `connected`, `status-update` (at once, then on every change), `batch-completed` (then the
    /// stream closes), `error`, `timeout` (then it closes).
    #[oai(
        path = "/api/batch-calls/:batchId/status/stream",
        method = "get",
        operation_id = "stream_batch_status"
    )]
    async fn stream(
        &self,
        app: Data<&Arc<App>>,
        auth: StreamAuth,
        /// The provider's id of the batch, or ours.
        #[oai(name = "batchId")]
        batch_id: Path<String>,
        /// The id of the last event that the client has.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<i64>>,
    ) -> Result<Events, Failure> {
        let masked = must_mask(&app, &Caller::from(auth));
        let asked_id = batch_id.0;
        let batch = find(&app, asked_id.clone()).await?;
        let watch = Watch {
            batch_id: batch.id,
            asked_id,
            masked,
            last_event_id: last_event_id.0,
        };
        Ok(status_stream::open(&app, watch))
    }

    /// Call again who was not reached
    #[oai(
        path = "/api/batch-calls/:batchId/retry",
        method = "post",
        operation_id = "retry_batch"
    )]
    async fn retry(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The provider's id of the batch, or ours.
        #[oai(name = "batchId")]
        batch_id: Path<String>,
    ) -> Result<Commanded<Retried>, Failure> {
        let caller = Caller::from(auth);
        let target = Some(format!("batch:{}", params::id(batch_id.0.clone())?));
        let act = async {
            let batch = find(&app, batch_id.0).await?;
            let wait = batches::patience(&app);
            let outcome = batches::retry(&app, &batch.id, metadata(&caller), wait).await;
            Ok((batch, settled(outcome)?))
        };
        let ((batch, ordered), audited_at) =
            audit::recorded(&app, &caller, Access::Operate, "retry_batch", target, act).await?;
        let position = ordered.position.max(audited_at);
        app.readable(&["batches", "audit_log"], position).await;
        let retried = Retried {
            batch_id: batch.shown_id().to_owned(),
            retried_count: ordered.calls,
            status: "retrying".to_owned(),
        };
        Ok(reply::commanded(
            retried,
            Some("Batch call reintentado exitosamente"),
            position,
        ))
    }

    /// Stop a batch
    #[oai(
        path = "/api/batch-calls/:batchId/cancel",
        method = "post",
        operation_id = "cancel_batch"
    )]
    async fn cancel(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The provider's id of the batch, or ours.
        #[oai(name = "batchId")]
        batch_id: Path<String>,
    ) -> Result<Commanded<Cancelled>, Failure> {
        let caller = Caller::from(auth);
        let (ordered, audited_at) = batch_calling::cancel(&app, &caller, batch_id.0).await?;
        let position = ordered.position.max(audited_at);
        app.readable(&["batches", "audit_log"], position).await;
        let batch = find(&app, ordered.batch_id).await?;
        let cancelled = Cancelled {
            batch_id: batch.shown_id().to_owned(),
            status: "cancelled".to_owned(),
            cancelled_count: ordered.calls,
        };
        Ok(reply::commanded(
            cancelled,
            Some("Batch call cancelado exitosamente"),
            position,
        ))
    }
}

/// How the batch of this id, which is ours, stands.
///
/// # Errors
/// 404.
pub async fn status(
    app: &App,
    id: &str,
    masked: bool,
) -> Result<Json<Success<BatchStatus>>, Failure> {
    let mut status = read(app, id).await?;
    if fetch_missing(app, &status).await {
        let head = events::head(&app.pool).await?;
        app.readable(&READ_MODELS, head).await;
        status = read(app, id).await?;
    }
    Ok(told(app, &status, masked))
}

fn told(app: &App, status: &batches::Status, masked: bool) -> Json<Success<BatchStatus>> {
    reply::told(
        BatchStatus::of(app, status, masked),
        "Estado del batch call obtenido exitosamente",
    )
}

async fn read(app: &App, id: &str) -> Result<batches::Status, Failure> {
    let status = batches::read_status(app, id, 0).await?;
    status.ok_or_else(|| Failure::not_found("Batch call no encontrado"))
}

/// Fetches completed calls of which no webhook told. Whatever fails harms no
/// other call and no answer. Says whether anything came.
async fn fetch_missing(app: &App, status: &batches::Status) -> bool {
    let expected_since = app.source.now().timestamp() - WEBHOOK_EXPECTED_SECS;
    let missing: Vec<String> = status
        .recipients
        .iter()
        .filter(|it| it.status == CallOutcome::Completed && !it.has_report)
        .filter(|it| it.updated_at_unix.is_none_or(|at| at <= expected_since))
        .filter_map(|it| it.conversation_id.clone())
        .take(FETCHED_MAX)
        .collect();
    if missing.is_empty() {
        return false;
    }
    let fetch = futures_util::stream::iter(missing).map(|id| async move {
        match batches::recover_call(app, &id).await {
            Ok(recovered) => recovered == batches::Recovered::Now,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(
                    conversation_id = id,
                    error,
                    "could not fetch a call for an answer"
                );
                false
            }
        }
    });
    let all = fetch
        .buffer_unordered(4)
        .fold(false, |any, it| async move { any || it });
    // What came before the time was over is read all the same.
    tokio::time::timeout(FETCHED_WITHIN, all)
        .await
        .unwrap_or(true)
}
