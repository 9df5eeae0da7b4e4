//! Groups of clients. Contract, section 4. Calling them is in [`calls`].

pub mod calls;
pub mod history;
mod view;

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use domain::group::{self, NewClient, PREFIX_DEFAULT, Patch, Settings};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Json, Response};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::{Map, Value};

use self::view::{
    AddedClients, ClientView, CreatedGroup, GroupPatchBody, GroupView, NewClientsBody,
    NewGroupBody, RejectedRow,
};
use super::auth::{Access, Auth, Caller};
use super::batch_calling::metadata;
use super::body::Body;
use super::error::Failure;
use super::interactions::must_mask;
use super::reply::{self, Commanded, Page, Success};
use super::{Tag, audit, params};
use crate::app::App;
use crate::groups;
use crate::import::{self, Imported};

/// Largest body of a request that brings a document: 32 MiB of it in base64,
/// and what stands beside it.
pub const DOCUMENT_BODY_BYTES_MAX: usize = 48 << 20;
/// Most bytes of a group's variables, as JSON.
const VARIABLES_BYTES_MAX: usize = 64 << 10;
/// With padding or without, as whoever encoded it liked.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What making a group answers.
#[derive(ApiResponse)]
enum Created {
    /// The group is made.
    #[oai(status = 201)]
    Created(Json<Success<CreatedGroup>>),
}

/// What adding clients answers.
#[derive(ApiResponse)]
enum Added {
    /// Those who could be added are in the group.
    #[oai(status = 201)]
    Added(Json<Success<AddedClients>>),
}

/// Routes for groups.
pub struct Api;

#[OpenApi(tag = "Tag::Groups")]
impl Api {
    /// Make a group, with its clients if a document is given
    ///
    /// The document is xlsx, xls, ods or csv, at most 100,000 rows and 32 MiB; the body may have 48 MiB. Its headers
    /// are in Spanish or English: name, phone, email, empresa, cargo; every other column is a variable. `rejected`
    /// names each row that could not be used, and why.
    #[oai(path = "/api/groups", method = "post", operation_id = "create_group")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        body: Body<NewGroupBody>,
    ) -> Result<Response<Created>, Failure> {
        let caller = Caller::from(auth);
        let act = create(&app, &caller, body.0);
        let about =
            |made: Option<&(CreatedGroup, i64)>| made.map(|(made, _)| target(made.group.id));
        let ((created, position), audited_at) =
            audit::recorded_of(&app, &caller, Access::Operate, "create_group", about, act).await?;
        let position = position.max(audited_at);
        app.readable(&["groups", "audit_log"], position).await;
        let body = reply::told(created, "Grupo creado exitosamente");
        Ok(Response::new(Created::Created(body)).header("X-Ledger-Position", position.to_string()))
    }

    /// The groups
    #[oai(path = "/api/groups", method = "get", operation_id = "list_groups")]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        _auth: Auth,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<GroupView>>, Failure> {
        let limit = reply::limit(limit.0)?;
        let after: Option<i32> = reply::read_cursor(cursor.0.as_deref())?;
        let mut conn = app.pool.acquire().await?;
        let rows = projections::groups::list(&mut conn, after, limit + 1).await?;
        Ok(reply::page(rows, limit, |row| row.id, GroupView::from))
    }

    /// One group
    #[oai(path = "/api/groups/:id", method = "get", operation_id = "get_group")]
    async fn get(
        &self,
        app: Data<&Arc<App>>,
        _auth: Auth,
        /// The group's number.
        id: Path<i32>,
    ) -> Result<Json<Success<GroupView>>, Failure> {
        let group = read(&app, id.0).await?;
        Ok(reply::success(GroupView::from(group)))
    }

    /// Change a group's settings
    ///
    /// What is not given stays; `null` takes an agent or a number away. Clients that are there keep their numbers.
    #[oai(
        path = "/api/groups/:id",
        method = "patch",
        operation_id = "update_group"
    )]
    async fn update(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The group's number.
        id: Path<i32>,
        body: Body<GroupPatchBody>,
    ) -> Result<Commanded<GroupView>, Failure> {
        let caller = Caller::from(auth);
        let target = Some(target(id.0));
        let act = async {
            let patch = patch(body.0)?;
            Ok(groups::update(&app.store, id.0, patch, metadata(&caller)).await?)
        };
        let (position, audited_at) =
            audit::recorded(&app, &caller, Access::Operate, "update_group", target, act).await?;
        let position = position.max(audited_at);
        app.readable(&["groups", "audit_log"], position).await;
        let view = GroupView::from(read(&app, id.0).await?);
        Ok(reply::commanded(
            view,
            Some("Grupo actualizado exitosamente"),
            position,
        ))
    }

    /// The clients of a group
    #[oai(
        path = "/api/groups/:id/clients",
        method = "get",
        operation_id = "list_group_clients"
    )]
    async fn clients(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The group's number.
        id: Path<i32>,
        /// Whether to show whole phone numbers: for supervisors, admins and auditors, and put on record.
        reveal: Query<Option<bool>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<ClientView>>, Failure> {
        let caller = Caller::from(auth);
        let limit = reply::limit(limit.0)?;
        let after: Option<i32> = reply::read_cursor(cursor.0.as_deref())?;
        read(&app, id.0).await?;
        let about = Some(target(id.0));
        let masked = must_mask(&app, &caller, reveal.0, "reveal_group_clients", about).await?;
        let mut conn = app.pool.acquire().await?;
        let rows = projections::groups::clients(&mut conn, id.0, after, limit + 1).await?;
        Ok(reply::page(
            rows,
            limit,
            |row| row.id,
            |row| ClientView::new(row, masked),
        ))
    }

    /// Add clients to a group
    ///
    /// `rejected` names those that could not be added by their place in the list, from 1.
    #[oai(
        path = "/api/groups/:id/clients",
        method = "post",
        operation_id = "add_group_clients"
    )]
    async fn add_clients(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The group's number.
        id: Path<i32>,
        body: Body<NewClientsBody>,
    ) -> Result<Response<Added>, Failure> {
        let caller = Caller::from(auth);
        let about = Some(target(id.0));
        let act = add_clients(&app, &caller, id.0, body.0);
        let ((added, rejected, position), audited_at) = audit::recorded(
            &app,
            &caller,
            Access::Operate,
            "add_group_clients",
            about,
            act,
        )
        .await?;
        let position = position.max(audited_at);
        app.readable(&["groups", "audit_log"], position).await;
        let added = AddedClients {
            added,
            clients_count: read(&app, id.0).await?.clients_count,
            rejected,
        };
        let body = reply::told(added, "Clientes agregados exitosamente");
        Ok(Response::new(Added::Added(body)).header("X-Ledger-Position", position.to_string()))
    }
}

async fn create(
    app: &App,
    caller: &Caller,
    body: NewGroupBody,
) -> Result<(CreatedGroup, i64), Failure> {
    let settings = Settings {
        name: params::text("name", Some(body.name))?.unwrap_or_default(),
        agent_id: params::text("agentId", body.agent_id)?,
        phone_number_id: params::text("phoneNumberId", body.phone_number_id)?,
        prefix: body.prefix.unwrap_or_else(|| PREFIX_DEFAULT.to_owned()),
        variables: variables("variables", body.variables)?,
    };
    let settings = settings.checked().map_err(refused)?;
    let document = body.base64.filter(|text| !str::is_empty(text.trim()));
    let imported = match document {
        Some(document) => import(app, document, settings.prefix.clone()).await?,
        None => Imported::default(),
    };
    let clients_count = i32::try_from(imported.clients.len()).unwrap_or(i32::MAX);
    let (id, position) = groups::create(
        &app.pool,
        &app.store,
        settings.clone(),
        imported.clients,
        metadata(caller),
    )
    .await?;
    let now = app.source.now();
    let view = GroupView::from(projections::groups::Group {
        id,
        name: settings.name,
        agent_id: settings.agent_id,
        phone_number_id: settings.phone_number_id,
        prefix: settings.prefix,
        variables: settings.variables,
        clients_count,
        created_by: caller.actor(),
        created_at: now,
        updated_at: now,
    });
    let rejected = imported.rejected.into_iter().map(RejectedRow::from);
    let created = CreatedGroup {
        group: view,
        rejected: rejected.collect(),
    };
    Ok((created, position))
}

/// Decodes and reads a document on a thread of its own, few at once: each
/// takes a core and memory.
async fn import(app: &App, document: String, prefix: String) -> Result<Imported, Failure> {
    let _permit = app.importing.acquire().await.map_err(anyhow::Error::from)?;
    let work = move || {
        // As browsers give it: `data:…;base64,…`.
        let text = match document.split_once(";base64,") {
            Some((_, text)) => text,
            None => &document,
        };
        let text: Vec<u8> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let bytes = BASE64
            .decode(text)
            .map_err(|_| Failure::saying("base64", "El documento no está en base64"))?;
        import::read(&bytes, &prefix, &mut |_| ())
            .map_err(|error| Failure::saying("base64", error.to_string()))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(anyhow::Error::from)?
}

async fn add_clients(
    app: &App,
    caller: &Caller,
    id: i32,
    body: NewClientsBody,
) -> Result<(i32, Vec<RejectedRow>, i64), Failure> {
    let group = groups::load(&app.store, id).await?;
    let prefix = &group.settings().ok_or_else(unknown)?.prefix;
    if body.clients.is_empty() {
        return Err(Failure::field("clients", "must name at least one client"));
    }
    let mut clients: Vec<NewClient> = Vec::new();
    let mut rejected = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (row, client) in (1..).zip(body.clients) {
        let reason = match client.read(prefix) {
            Err(reason) => reason,
            Ok(client) if group.knows(&client.phone_number) => {
                "el teléfono ya está en el grupo".to_owned()
            }
            Ok(client) if !seen.insert(client.phone_number.clone()) => {
                "el teléfono está repetido".to_owned()
            }
            Ok(client) => {
                clients.push(client);
                continue;
            }
        };
        rejected.push(RejectedRow { row, reason });
    }
    let added = i32::try_from(clients.len()).unwrap_or(i32::MAX);
    let position = groups::add_clients(&app.store, id, &clients, metadata(caller)).await?;
    Ok((added, rejected, position))
}

fn patch(body: GroupPatchBody) -> Result<Patch, Failure> {
    let text = |name, given| match given {
        MaybeUndefined::Undefined => Ok(None),
        MaybeUndefined::Null => Ok(Some(None)),
        MaybeUndefined::Value(text) => params::text(name, Some(text)).map(Some),
    };
    let name = text("name", body.name)?;
    Ok(Patch {
        // An empty name is refused by the group.
        name: name.map(Option::unwrap_or_default),
        agent_id: text("agentId", body.agent_id)?,
        phone_number_id: text("phoneNumberId", body.phone_number_id)?,
        prefix: body.prefix,
        variables: match body.variables {
            None => None,
            given => Some(variables("variables", given)?),
        },
    })
}

/// What an agent can be told: texts, numbers and truth values by name.
fn variables(field: &str, given: Option<Value>) -> Result<Map<String, Value>, Failure> {
    let wrong = |message: &str| Failure::field(field, message);
    let variables = match given {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(Value::Object(variables)) => variables,
        Some(_) => return Err(wrong("must be an object")),
    };
    if variables.values().any(|it| it.is_object() || it.is_array()) {
        return Err(wrong("must hold texts, numbers and truth values only"));
    }
    let bytes = serde_json::to_string(&variables).map_err(anyhow::Error::from)?;
    if bytes.len() > VARIABLES_BYTES_MAX {
        return Err(wrong("must have at most 64 KiB"));
    }
    Ok(variables)
}

async fn read(app: &App, id: i32) -> Result<projections::groups::Group, Failure> {
    let mut conn = app.pool.acquire().await?;
    let group = projections::groups::get(&mut conn, id).await?;
    group.ok_or_else(unknown)
}

fn unknown() -> Failure {
    Failure::not_found("Grupo no encontrado")
}

fn target(id: i32) -> String {
    format!("group:{id}")
}

fn refused(error: group::Error) -> Failure {
    match (error.field(), &error) {
        (Some(field), _) => Failure::field(field, error.to_string()),
        (None, group::Error::Unknown) => unknown(),
        (None, _) => Failure::conflict("group_exists", error.to_string()),
    }
}

impl From<groups::Error> for Failure {
    fn from(error: groups::Error) -> Self {
        match error {
            groups::Error::Refused(error) => refused(error),
            groups::Error::Internal(error) => error.into(),
        }
    }
}
