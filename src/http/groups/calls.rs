//! Calling a group, and preparing its agent. Contract, section 4.

use std::sync::Arc;

use domain::batch::Snapshot;
use domain::phone::mask;
use poem::web::Data;
use poem_openapi::param::{Header, Path};
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{target, unknown};
use crate::app::App;
use crate::batches::{Ordered, Outcome};
use crate::groups::calls::{self, Called, Error, Wish};
use crate::http::auth::{Access, Auth, Caller};
use crate::http::batch_calling::{metadata, refusal};
use crate::http::batch_view::must_mask;
use crate::http::body::Body;
use crate::http::error::Failure;
use crate::http::idempotency::order_id;
use crate::http::reply::{self, Commanded};
use crate::http::{Tag, audit, params};
use crate::providers::http as provider;

/// Who wants a group called.
#[derive(Deserialize, Object)]
#[serde(rename_all = "camelCase")]
#[oai(rename = "GroupCall", rename_all = "camelCase", example)]
struct CallBody {
    /// In whose name. Required.
    user_id: Option<i32>,
    /// The provider's id of the number to call from; else the group's, else the first that may call.
    agent_phone_number_id: Option<String>,
    /// When to begin; at once if `null`.
    scheduled_time_unix: Option<i64>,
}

impl Example for CallBody {
    fn example() -> Self {
        Self {
            user_id: Some(5),
            agent_phone_number_id: Some("phnum_5301k8z2pdqbfmf958wxpq0z0wb7".to_owned()),
            scheduled_time_unix: None,
        }
    }
}

/// In whose name an agent is prepared.
#[derive(Deserialize, Object)]
#[serde(rename_all = "camelCase")]
#[oai(rename = "AgentPreparation", rename_all = "camelCase", example)]
struct PrepareBody {
    /// Whose agent it is, where the group has none. Required.
    user_id: Option<i32>,
}

impl Example for PrepareBody {
    fn example() -> Self {
        Self { user_id: Some(1) }
    }
}

/// A call of a group.
#[derive(Debug, Object)]
#[oai(rename = "GroupCalled", rename_all = "camelCase")]
struct CalledView {
    /// The provider's id of the batch, of the first of several; ours where the provider has not answered yet.
    batch_id: String,
    /// The group.
    group_id: i32,
    /// Its name.
    group_name: String,
    /// The agent that speaks.
    agent_id: String,
    /// How many clients are called.
    recipients_count: i32,
    /// What the call is named.
    call_name: String,
    /// The batch as the provider describes it, the first of several.
    batch_data: Value,
    /// Every batch of the call: a group of more than 10,000 clients has several.
    batches: Vec<PartView>,
}

/// One batch of a call.
#[derive(Debug, Object)]
#[oai(rename = "GroupCallPart", rename_all = "camelCase")]
struct PartView {
    /// The provider's id of the batch, or ours before it has one.
    batch_id: String,
    /// How many clients are in it.
    recipients_count: i32,
    /// How it stands; `failed`: it was refused.
    status: String,
    /// Why it was refused, in the provider's words.
    error: Option<String>,
}

/// An agent that was told of a group.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
struct PreparedView {
    /// The agent.
    agent_id: String,
    /// The group.
    group_id: i32,
    /// Its name.
    group_name: String,
    /// All of the agent's placeholders, as they are now.
    variables: Value,
}

/// Routes for calling groups.
pub struct Api;

#[OpenApi(tag = "Tag::Groups")]
impl Api {
    /// Tell the agent of a group
    ///
    /// Writes the group's variables, and its name as `group_name`, into the agent's dynamic-variable placeholders.
    #[oai(
        path = "/api/groups/:id/prepare-agent",
        method = "post",
        operation_id = "prepare_group_agent"
    )]
    async fn prepare(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The group's number.
        id: Path<i32>,
        body: Body<PrepareBody>,
    ) -> Result<Commanded<PreparedView>, Failure> {
        let caller = Caller::from(auth);
        let about = Some(target(id.0));
        let act = async {
            audit::begin(&app, &caller, "prepare_group_agent", about.clone()).await?;
            Ok(calls::prepare_agent(&app, id.0, body.0.user_id).await?)
        };
        let (prepared, position) = audit::recorded(
            &app,
            &caller,
            Access::Operate,
            "prepare_group_agent",
            about.clone(),
            act,
        )
        .await?;
        app.readable(&["audit_log"], position).await;
        let view = PreparedView {
            agent_id: prepared.agent_id,
            group_id: prepared.group.id,
            group_name: prepared.group.name,
            variables: Value::Object(prepared.placeholders),
        };
        Ok(reply::commanded(
            view,
            Some("Agente preparado exitosamente"),
            position,
        ))
    }

    /// Call all clients of a group
    ///
    /// A provider that does not answer in time gives 504: the call is looked up there
    /// before it is sent again, so do not repeat the request without the same key.
    #[oai(
        path = "/api/groups/:id/call",
        method = "post",
        operation_id = "call_group"
    )]
    async fn call(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The group's number.
        id: Path<i32>,
        /// The same key with the same body gets the first answer again.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Body<CallBody>,
    ) -> Result<Commanded<CalledView>, Failure> {
        let caller = Caller::from(auth);
        let about = Some(target(id.0));
        let path = format!("/api/groups/{}/call", id.0);
        let act = async {
            let wish = Wish {
                call_id: order_id(&app, &caller, &path, idempotency_key.0),
                user_id: body.0.user_id,
                phone_number_id: params::text("agentPhoneNumberId", body.0.agent_phone_number_id)?,
                scheduled_time_unix: params::unix_time(
                    "scheduledTimeUnix",
                    body.0.scheduled_time_unix,
                )?,
            };
            let called = calls::call(&app, id.0, wish, metadata(&caller)).await?;
            answered(called)
        };
        let (called, audited_at) =
            audit::recorded(&app, &caller, Access::Operate, "call_group", about, act).await?;
        let positions = called.parts.iter().map(|(_, ordered)| ordered.position);
        let position = positions.max().unwrap_or_default().max(audited_at);
        app.readable(&["batches", "audit_log"], position).await;
        let message = format!(
            "Llamadas iniciadas exitosamente para el grupo \"{}\"",
            called.group.name
        );
        let view = show(called, must_mask(&app, &caller));
        Ok(reply::commanded(view, Some(&message), position))
    }
}

/// A call of which at least one batch is with the provider.
fn answered(called: Called) -> Result<Called, Failure> {
    let outcomes = || called.parts.iter().map(|(_, ordered)| &ordered.outcome);
    if outcomes().any(|it| matches!(it, Outcome::Done(_))) {
        return Ok(called);
    }
    if outcomes().any(|it| matches!(it, Outcome::UnderWay)) {
        return Err(Failure::provider_timeout(
            "The provider has not answered in time. The call is on record and is being carried out: do not repeat it",
            json!({"batch_ids": called.parts.iter().map(|(_, it)| &it.batch_id).collect::<Vec<_>>()}),
        ));
    }
    let refused = outcomes().find_map(|it| match it {
        Outcome::Refused(refused) => Some(refusal(refused)),
        _ => None,
    });
    // A call has at least one batch.
    Err(refused.unwrap_or_else(unknown))
}

fn show(called: Called, masked: bool) -> CalledView {
    let mut parts = called.parts;
    // Those that the provider has first; in their order otherwise.
    parts.sort_by_key(|(_, ordered)| !matches!(ordered.outcome, Outcome::Done(_)));
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let batches: Vec<PartView> = parts
        .iter()
        .map(|(order, ordered)| {
            let (status, error) = match &ordered.outcome {
                Outcome::Done(batch) => (batch.status.clone(), None),
                Outcome::Refused(refusal) => ("failed".to_owned(), Some(refusal.message.clone())),
                Outcome::UnderWay => ("pending".to_owned(), None),
            };
            PartView {
                batch_id: shown_id(ordered),
                recipients_count: count(order.recipients.len()),
                status,
                error,
            }
        })
        .collect();
    let batch_data = parts.first().map_or(Value::Null, |(order, ordered)| {
        let recipients = (0..).zip(&order.recipients).map(|(n, recipient)| {
            let number = recipient.phone_number.as_str();
            let number = if masked {
                mask(number)
            } else {
                number.to_owned()
            };
            json!({"phone_number": number, "recipient_id": order.recipient_id(n)})
        });
        let mut data = match &ordered.outcome {
            Outcome::Done(batch) => described(batch),
            _ => Map::new(),
        };
        data.insert("recipients".to_owned(), recipients.collect());
        Value::Object(data)
    });
    CalledView {
        batch_id: batches
            .first()
            .map(|it| it.batch_id.clone())
            .unwrap_or_default(),
        group_id: called.group.id,
        group_name: called.group.name,
        agent_id: called.agent_id,
        recipients_count: count(parts.iter().map(|(order, _)| order.recipients.len()).sum()),
        call_name: called.call_name,
        batch_data,
        batches,
    }
}

fn shown_id(ordered: &Ordered) -> String {
    match &ordered.outcome {
        Outcome::Done(batch) => batch.id.clone(),
        _ => ordered.batch_id.clone(),
    }
}

fn described(batch: &Snapshot) -> Map<String, Value> {
    match serde_json::to_value(batch) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let words = error.to_string();
        match error {
            Error::NoUser => Self::saying("userId", words),
            Error::UnknownGroup => unknown(),
            Error::UnknownUser => Self::not_found(&words),
            Error::NoAgent => Self::saying("agentId", words),
            Error::NoClients => Self::saying("clients", words),
            Error::NoPhoneNumber => Self::saying("agentPhoneNumberId", words),
            Error::Lagging => Self::unavailable("The group is still being read, try again"),
            Error::Provider(error) => provider_failure(&error),
            Error::Order(crate::batches::Error::Refused(refusal)) => {
                Self::conflict("batch_refused", refusal.to_string())
            }
            Error::Order(crate::batches::Error::Ledger(error)) | Error::Internal(error) => {
                error.into()
            }
        }
    }
}

fn provider_failure(error: &provider::Error) -> Failure {
    match error {
        provider::Error::NotConfigured => {
            Failure::unavailable("ELEVENLABS_API_KEY is not set, so no agent can be asked")
        }
        provider::Error::Refused(refusal) | provider::Error::RateLimited { refusal, .. } => {
            Failure::provider("El proveedor rechazó la petición", refusal.message.clone())
        }
        provider::Error::NotSent(_) => {
            Failure::provider("No se pudo contactar al proveedor", error.to_string())
        }
        provider::Error::Uncertain(_) => {
            Failure::provider_timeout("El proveedor no ha respondido", error.to_string())
        }
    }
}
