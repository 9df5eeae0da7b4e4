//! Ordering batches of calls, as the replaced call manager did. Contract,
//! section 3.

use std::collections::HashMap;
use std::sync::Arc;

use domain::batch::{Refused, Requested};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use projections::past::AsOf;
use serde_json::json;

use super::audit;
use super::auth::{Access, Auth, Caller};
use super::batch_order::{self, SubmitBody};
use super::batch_view::{ProviderBatch, must_mask};
use super::documented_body::JsonBody;
use super::error::Failure;
use super::idempotency::order_id;
use super::reply::{self, Commanded, Success};
use super::{Tag, context, params};
use crate::app::App;
use crate::batches::{self, Ordered, Outcome};

/// Routes for batches, in the provider's words.
pub struct Api;

#[OpenApi(tag = "Tag::Batches")]
impl Api {
    /// Order a batch of calls
    ///
    /// 504 when the provider has not answered in time: the order is under way then and must not be given again;
    /// `details` hold the id to ask for it by.
    #[oai(
        path = "/api/batch-calling/submit",
        method = "post",
        operation_id = "submit_batch"
    )]
    async fn submit(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        request: &Request,
        /// The same key with the same body gets the first answer again.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: JsonBody<SubmitBody>,
    ) -> Result<Commanded<ProviderBatch>, Failure> {
        let caller = Caller::from(auth);
        audit::require(&app, &caller, Access::Operate, "submit_batch").await?;
        let body = batch_order::read(&body.read_json(request).await?)?;
        let id = order_id(&app, &caller, request.uri().path(), idempotency_key.0);
        let order = Requested {
            batch_id: id.to_string(),
            call_name: body.call_name,
            agent_id: body.agent_id,
            agent_phone_number_id: body.agent_phone_number_id,
            scheduled_time_unix: body.scheduled_time_unix,
            phone_provider: body.phone_provider,
            group: None,
            requested_by: caller.actor(),
            requested_at: app.source.now(),
            recipients: body.recipients,
        };
        let target = Some(format!("batch:{id}"));
        let act = async {
            let wait = batches::patience(&app);
            settled(batches::submit(&app, order, metadata(&caller), wait).await)
        };
        let (ordered, audited_at) =
            audit::recorded(&app, &caller, Access::Operate, "submit_batch", target, act).await?;
        answer(&app, &caller, &ordered, audited_at).await
    }

    /// Stop a batch
    ///
    /// Who has not been reached is not called any more.
    #[oai(
        path = "/api/batch-calling/:batchId/cancel",
        method = "post",
        operation_id = "cancel_provider_batch"
    )]
    async fn cancel(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The provider's id of the batch, or ours.
        #[oai(name = "batchId")]
        batch_id: Path<String>,
    ) -> Result<Commanded<ProviderBatch>, Failure> {
        let caller = Caller::from(auth);
        let (ordered, audited_at) = cancel(&app, &caller, batch_id.0).await?;
        answer(&app, &caller, &ordered, audited_at).await
    }

    /// A batch with its recipients
    ///
    /// `as_of` shows it as it stood at a time or ledger position: the same answer that was given then.
    #[oai(
        path = "/api/batch-calling/:batchId",
        method = "get",
        operation_id = "get_provider_batch"
    )]
    async fn get(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The provider's id of the batch, or ours.
        #[oai(name = "batchId")]
        batch_id: Path<String>,
        /// A time (`2025-10-28T23:29:50Z`) or a ledger position.
        as_of: Query<Option<String>>,
    ) -> Result<Json<Success<ProviderBatch>>, Failure> {
        let caller = Caller::from(auth);
        let (batch, recipients) = match params::as_of(as_of.0)? {
            Some(then) => {
                let then = find_as_of(&app, batch_id.0, then).await?;
                (then.batch, then.recipients)
            }
            None => {
                let batch = find(&app, batch_id.0).await?;
                let mut conn = app.pool.acquire().await?;
                let recipients = projections::batches::recipients(&mut conn, &batch.id).await?;
                (batch, recipients)
            }
        };
        let masked = must_mask(&app, &caller);
        Ok(reply::success(ProviderBatch::of(
            &batch,
            Some(&recipients),
            masked,
        )))
    }
}

/// The batch with this id, the provider's or ours.
///
/// # Errors
/// 404.
pub async fn find(app: &App, id: String) -> Result<projections::batches::Batch, Failure> {
    let id = params::id(id)?;
    let mut conn = app.pool.acquire().await?;
    let found = projections::batches::find(&mut conn, &id).await?;
    found.ok_or_else(|| Failure::not_found("Batch call no encontrado"))
}

/// How the batch with this id, the provider's or ours, stood.
///
/// # Errors
/// 404.
pub async fn find_as_of(app: &App, id: String, then: AsOf) -> Result<batches::Status, Failure> {
    let id = params::id(id)?;
    let found = batches::read_status_as_of(app, &id, then).await?;
    found.ok_or_else(|| Failure::not_found("Batch call no encontrado"))
}

/// Stops a batch, on record.
///
/// # Errors
/// 403, 404, 409, 502, 503, 504.
pub async fn cancel(
    app: &Arc<App>,
    caller: &Caller,
    id: String,
) -> Result<(Ordered, i64), Failure> {
    let target = Some(format!("batch:{}", params::id(id.clone())?));
    let act = async {
        let batch = find(app, id).await?;
        let wait = batches::patience(app);
        settled(batches::cancel(app, &batch.id, metadata(caller), wait).await)
    };
    audit::recorded(app, caller, Access::Operate, "cancel_batch", target, act).await
}

/// What the events of a caller's command say of it.
pub fn metadata(caller: &Caller) -> HashMap<String, String> {
    HashMap::from([
        ("actor".to_owned(), caller.actor()),
        ("request_id".to_owned(), context::current().request_id),
    ])
}

/// An order that the provider has done; any other as a failure.
///
/// # Errors
/// 404, 409, 502, 503, 504.
pub fn settled(outcome: Result<Ordered, batches::Error>) -> Result<Ordered, Failure> {
    let ordered = outcome.map_err(|error| match error {
        batches::Error::Refused(domain::batch::Error::Unknown) => {
            Failure::not_found("Batch call no encontrado")
        }
        batches::Error::Refused(refusal) => Failure::conflict(refusal.code(), refusal.to_string()),
        batches::Error::Ledger(error) => error.into(),
    })?;
    match &ordered.outcome {
        Outcome::Done(_) => Ok(ordered),
        Outcome::Refused(refused) => Err(refusal(refused)),
        Outcome::UnderWay => Err(Failure::provider_timeout(
            "The provider has not answered in time. The order is on record and is being carried out: do not repeat it, ask for its status",
            json!({"batch_id": ordered.batch_id, "status": "pending"}),
        )),
    }
}

/// What a refusal of the provider is to whoever ordered the calls.
pub fn refusal(refused: &Refused) -> Failure {
    let message = match refused.status {
        Some(status) => format!("The provider refused it ({status})"),
        None => "The provider could not be reached; nothing was ordered".to_owned(),
    };
    Failure::provider(&message, refused.message.clone())
}

async fn answer(
    app: &App,
    caller: &Caller,
    ordered: &Ordered,
    audited_at: i64,
) -> Result<Commanded<ProviderBatch>, Failure> {
    let position = ordered.position.max(audited_at);
    app.readable(&["batches", "audit_log"], position).await;
    let batch = find(app, ordered.batch_id.clone()).await?;
    let shown = ProviderBatch::of(&batch, None, must_mask(app, caller));
    Ok(reply::commanded(shown, None, position))
}
