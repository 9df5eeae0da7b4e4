//! Calling a group: who, by whom, from which number; and telling the agent of
//! the group before.
//!
//! One call of a group is one batch for every 10,000 clients, under one
//! `call_id`. Whoever is called is read from the ledger's read model only when
//! that shows the whole group: nobody is left out because a projection lags.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::PhoneNumber;
use domain::batch::{self, Batch, GroupPart, RECIPIENTS_MAX, Recipient, Requested};
use domain::group::Client;
use domain::sealed::is_erased;
use futures_util::future::join_all;
use projections::groups::{self, Group, GroupClient};
use projections::users::User;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::batches::{self, Ordered};
use crate::ledger::events;
use crate::providers::http as provider;

/// Clients that are read at once.
const CLIENTS_PAGE: i64 = 5_000;
/// How long to wait until the read model shows the whole group.
const READABLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The placeholder that holds the group's name: `name` is the client's.
const GROUP_NAME: &str = "group_name";
const GROUP_EVENTS: [&str; 3] = ["group.created", "group.updated", "group.clients_added"];

/// Who wants a group called, and how.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which call it is. The same again completes the first: what a process
    /// that was killed has ordered of it is not ordered again.
    pub call_id: Uuid,
    /// In whose name; `None` is refused.
    pub user_id: Option<i32>,
    /// From which of the provider's numbers.
    pub phone_number_id: Option<String>,
    /// When to begin; `None` is at once.
    pub scheduled_time_unix: Option<i64>,
}

/// A call of a group.
#[derive(Debug)]
pub struct Called {
    /// The group.
    pub group: Group,
    /// The agent that speaks.
    pub agent_id: String,
    /// What the call is named.
    pub call_name: String,
    /// The orders, and how each stands.
    pub parts: Vec<(Requested, Ordered)>,
}

/// An agent that was told of a group.
#[derive(Debug)]
pub struct Prepared {
    /// The group.
    pub group: Group,
    /// The agent.
    pub agent_id: String,
    /// All of its placeholders, as they are now.
    pub placeholders: Map<String, Value>,
}

/// Why a group is not called, or its agent not prepared. The words are the
/// contract's, in its order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody was named.
    #[error("ID de usuario es requerido en el body de la petición")]
    NoUser,
    /// There is no such group.
    #[error("Grupo no encontrado")]
    UnknownGroup,
    /// There is no such user.
    #[error("Usuario no encontrado")]
    UnknownUser,
    /// Neither the group nor the user has an agent.
    #[error("El grupo no tiene un agente asignado. Por favor, asigna un agente al crear el grupo.")]
    NoAgent,
    /// There is nobody to call.
    #[error("El grupo no tiene clientes asignados para llamar")]
    NoClients,
    /// There is no number to call from.
    #[error("No hay números de teléfono disponibles. Por favor, configura un phoneNumberId.")]
    NoPhoneNumber,
    /// The read model does not show the whole group yet.
    #[error("the group is still being read, try again")]
    Lagging,
    /// The provider refused or failed.
    #[error(transparent)]
    Provider(#[from] provider::Error),
    /// A batch was not ordered.
    #[error(transparent)]
    Order(#[from] batches::Error),
    /// The database failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Internal(error.into())
    }
}

/// Calls all clients of a group. `metadata` holds `actor` and `request_id`.
/// Goes on when the caller goes away.
///
/// # Errors
/// [`Error`]; nothing was ordered then, but with [`Error::Order`] some batches
/// of several may have been.
pub async fn call(
    app: &Arc<App>,
    group_id: i32,
    wish: Wish,
    metadata: HashMap<String, String>,
) -> Result<Called, Error> {
    let (group, agent_id) = group_and_agent(app, group_id, wish.user_id).await?;
    let recipients = recipients(app, &group).await?;
    if recipients.is_empty() {
        return Err(Error::NoClients);
    }
    let own = wish.phone_number_id.clone();
    let own = own.or_else(|| group.phone_number_id.clone());
    let phone_number_id = match own.filter(|id| !id.trim().is_empty()) {
        Some(id) => id,
        None => first_outbound_number(app).await?,
    };
    let call_name = call_name(app, &group.name);
    let parts = u32::try_from(recipients.len().div_ceil(RECIPIENTS_MAX)).unwrap_or(u32::MAX);
    let order = |(part, recipients): (u32, Vec<Recipient>)| Requested {
        batch_id: part_id(wish.call_id, part),
        call_name: call_name.clone(),
        agent_id: agent_id.clone(),
        agent_phone_number_id: phone_number_id.clone(),
        scheduled_time_unix: wish.scheduled_time_unix,
        phone_provider: None,
        group: Some(GroupPart {
            group_id,
            call_id: wish.call_id.to_string(),
            part,
            parts,
        }),
        requested_by: metadata.get("actor").cloned().unwrap_or_default(),
        requested_at: app.source.now(),
        recipients,
    };
    let orders: Vec<_> = (0..).zip(in_parts(recipients)).map(order).collect();
    let orders = join_known(app, orders, &wish).await?;
    let (agent_id, call_name) = match orders.first() {
        Some(first) => (first.agent_id.clone(), first.call_name.clone()),
        None => (agent_id, call_name),
    };
    let parts = submit(app, orders, metadata).await?;
    Ok(Called {
        group,
        agent_id,
        call_name,
        parts,
    })
}

/// Our id of a part of a call.
pub fn part_id(call_id: Uuid, part: u32) -> String {
    Uuid::new_v5(&call_id, &part.to_be_bytes()).to_string()
}

/// Parts that are on the ledger already stay as they were ordered, and those
/// that are missing are ordered alike.
async fn join_known(
    app: &App,
    mut orders: Vec<Requested>,
    wish: &Wish,
) -> Result<Vec<Requested>, Error> {
    let mut known: Vec<Option<Requested>> = Vec::with_capacity(orders.len());
    for order in &orders {
        let batch = app.store.load::<Batch>(&order.batch_id).await;
        let batch = batch.map_err(batches::Error::from)?;
        known.push(batch.requested().cloned());
    }
    let Some(like) = known.iter().flatten().next().cloned() else {
        return Ok(orders);
    };
    let number = wish.phone_number_id.as_ref();
    if wish.scheduled_time_unix != like.scheduled_time_unix
        || number.is_some_and(|number| *number != like.agent_phone_number_id)
    {
        return Err(batches::Error::from(batch::Error::AlreadyRequested).into());
    }
    let parts = like.group.as_ref().map_or(0, |group| group.parts);
    // A part more is of people who joined the group since.
    orders.truncate(usize::try_from(parts).unwrap_or(usize::MAX));
    let joined = orders.into_iter().zip(known).map(|(order, known)| {
        known.unwrap_or_else(|| Requested {
            batch_id: order.batch_id,
            group: order.group.map(|group| GroupPart { parts, ..group }),
            recipients: order.recipients,
            ..like.clone()
        })
    });
    Ok(joined.collect())
}

/// Writes a group's name and variables into its agent's placeholders, beside
/// those that are there.
///
/// # Errors
/// [`Error`].
pub async fn prepare_agent(
    app: &App,
    group_id: i32,
    user_id: Option<i32>,
) -> Result<Prepared, Error> {
    let (group, agent_id) = group_and_agent(app, group_id, user_id).await?;
    let agent = app.elevenlabs.get_agent(&agent_id).await?;
    let there =
        agent.pointer("/conversation_config/agent/dynamic_variables/dynamic_variable_placeholders");
    let there = there
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut placeholders = there.clone();
    placeholders.extend(group.variables.clone());
    placeholders.insert(GROUP_NAME.to_owned(), group.name.clone().into());
    // Every change makes a version of the agent.
    if placeholders != there {
        let parts = json!({"conversation_config": {"agent": {"dynamic_variables": {
            "dynamic_variable_placeholders": placeholders}}}});
        app.elevenlabs.patch_agent(&agent_id, &parts).await?;
    }
    Ok(Prepared {
        group,
        agent_id,
        placeholders,
    })
}

async fn group_and_agent(
    app: &App,
    group_id: i32,
    user_id: Option<i32>,
) -> Result<(Group, String), Error> {
    let user_id = user_id.ok_or(Error::NoUser)?;
    let group = whole_group(app, group_id).await?;
    let mut conn = app.pool.acquire().await?;
    let user: Option<User> = projections::users::get(&mut conn, user_id).await?;
    let user = user.ok_or(Error::UnknownUser)?;
    let agent_id = group.agent_id.clone().or(user.agent_id);
    Ok((group, agent_id.ok_or(Error::NoAgent)?))
}

/// The group, once the read model shows all that the ledger has of it.
async fn whole_group(app: &App, group_id: i32) -> Result<Group, Error> {
    let stream = group_id.to_string();
    let last = events::last_of(&app.pool, &app.opener, "group", &stream, &GROUP_EVENTS).await?;
    let last = last.ok_or(Error::UnknownGroup)?;
    let shown = app
        .engine
        .wait_for(&["groups"], last.position, READABLE_TIMEOUT);
    if !shown.await? {
        return Err(Error::Lagging);
    }
    let mut conn = app.pool.acquire().await?;
    let group = groups::get(&mut conn, group_id).await?;
    group.ok_or(Error::UnknownGroup)
}

async fn recipients(app: &App, group: &Group) -> Result<Vec<Recipient>, Error> {
    let mut recipients = Vec::new();
    let mut after = None;
    loop {
        let mut conn = app.pool.acquire().await?;
        let page = groups::clients(&mut conn, group.id, after, CLIENTS_PAGE).await?;
        drop(conn);
        let Some(last) = page.last() else {
            return Ok(recipients);
        };
        after = Some(last.id);
        let page = page.into_iter();
        let page = page.filter(|client| !is_erased(&client.phone_number));
        let called = page.map(|client| recipient(client, group));
        recipients.extend(called.collect::<Result<Vec<_>, _>>()?);
    }
}

fn recipient(row: GroupClient, group: &Group) -> anyhow::Result<Recipient> {
    let client = Client {
        id: row.id,
        name: row.name,
        phone_number: PhoneNumber::parse(&row.phone_number)?,
        email: row.email,
        empresa: row.empresa,
        cargo: row.cargo,
        variables: row.variables,
    };
    Ok(Recipient {
        dynamic_variables: client.dynamic_variables(&group.variables),
        phone_number: client.phone_number,
        client_id: Some(client.id),
    })
}

fn in_parts(mut recipients: Vec<Recipient>) -> impl Iterator<Item = Vec<Recipient>> {
    std::iter::from_fn(move || {
        let rest = recipients.split_off(recipients.len().min(RECIPIENTS_MAX));
        let part = std::mem::replace(&mut recipients, rest);
        (!part.is_empty()).then_some(part)
    })
}

/// The first number that the provider lists and that may call. That it cannot
/// be asked is the same to the caller as that there is none: name one.
async fn first_outbound_number(app: &App) -> Result<String, Error> {
    let lines = app.elevenlabs.list_phone_numbers().await;
    let lines = lines.inspect_err(|error| {
        tracing::warn!(%error, "cannot list the provider's phone numbers");
    });
    let mut lines = lines.unwrap_or_default().into_iter();
    let first = lines.find(|line| line.supports_outbound);
    first
        .map(|line| line.phone_number_id)
        .ok_or(Error::NoPhoneNumber)
}

/// `Llamada Médicos - 24/08/2025`
fn call_name(app: &App, group_name: &str) -> String {
    let today = app.source.now().with_timezone(&app.config.timezone);
    format!("Llamada {group_name} - {}", today.format("%d/%m/%Y"))
}

/// Orders all parts at once: each is on the ledger before it waits for the
/// provider, so that nothing is left of a call that was begun.
async fn submit(
    app: &Arc<App>,
    orders: Vec<Requested>,
    metadata: HashMap<String, String>,
) -> Result<Vec<(Requested, Ordered)>, Error> {
    let app = app.clone();
    // Not cut short when the caller goes away.
    let submitting = tokio::spawn(async move {
        let wait = batches::patience(&app);
        let submits = orders.into_iter().map(|order| {
            let (app, metadata) = (app.clone(), metadata.clone());
            async move {
                let ordered = batches::submit(&app, order.clone(), metadata, wait).await?;
                Ok::<_, batches::Error>((order, ordered))
            }
        });
        join_all(submits).await
    });
    let submitted = submitting.await.map_err(anyhow::Error::from)?;
    Ok(submitted.into_iter().collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_is_larger_than_the_provider_takes() {
        let recipient = |n: usize| Recipient {
            phone_number: PhoneNumber::parse(&format!("+573{n:09}")).unwrap(),
            dynamic_variables: Map::new(),
            client_id: None,
        };
        for (clients, sizes) in [
            (1, vec![1]),
            (RECIPIENTS_MAX, vec![10_000]),
            (25_001, vec![10_000, 10_000, 5_001]),
        ] {
            let parts = in_parts((0..clients).map(recipient).collect());
            let parts: Vec<_> = parts.map(|part| part.len()).collect();
            assert_eq!(parts, sizes);
        }
    }
}
