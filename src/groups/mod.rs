//! Groups of clients: making them, filling them, calling them.

pub mod calls;

use std::collections::HashMap;

use domain::group::{self, Command, Group, NewClient, Patch, Settings};
use sqlx::PgPool;

use crate::ledger::{CommandError, Store};

/// Why a command to a group was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The group refused it.
    #[error(transparent)]
    Refused(#[from] group::Error),
    /// The database or the ledger failed.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl From<CommandError<group::Error>> for Error {
    fn from(error: CommandError<group::Error>) -> Self {
        match error {
            CommandError::Refused(refusal) => Self::Refused(refusal),
            CommandError::Ledger(words) => Self::Internal(anyhow::anyhow!(words)),
        }
    }
}

/// Makes a group with its first clients; returns its number and the position
/// of its last event. `metadata` holds `actor` and `request_id`.
///
/// # Errors
/// [`Error`].
pub async fn create(
    pool: &PgPool,
    store: &Store,
    settings: Settings,
    clients: Vec<NewClient>,
    metadata: HashMap<String, String>,
) -> Result<(i32, i64), Error> {
    // No number is drawn for what is refused anyway.
    let settings = settings.checked()?;
    let group_id: i32 = sqlx::query_scalar("select nextval('group_ids')::integer")
        .fetch_one(pool)
        .await
        .map_err(anyhow::Error::from)?;
    let id = group_id.to_string();
    let create = || Command::Create {
        group_id,
        created_by: metadata.get("actor").cloned().unwrap_or_default(),
        settings: settings.clone(),
    };
    let mut position = store
        .execute::<Group>(&id, create, metadata.clone())
        .await?;
    if !clients.is_empty() {
        position = add_clients(store, group_id, &clients, metadata).await?;
    }
    Ok((group_id, position))
}

/// Changes a group's settings; returns the position of its last event.
///
/// # Errors
/// [`Error`].
pub async fn update(
    store: &Store,
    group_id: i32,
    patch: Patch,
    metadata: HashMap<String, String>,
) -> Result<i64, Error> {
    let update = || Command::Update {
        updated_by: metadata.get("actor").cloned().unwrap_or_default(),
        patch: patch.clone(),
    };
    let id = group_id.to_string();
    Ok(store
        .execute::<Group>(&id, update, metadata.clone())
        .await?)
}

/// Adds clients; those whose number is there already are left out. Returns the
/// position of the group's last event.
///
/// # Errors
/// [`Error`].
pub async fn add_clients(
    store: &Store,
    group_id: i32,
    clients: &[NewClient],
    metadata: HashMap<String, String>,
) -> Result<i64, Error> {
    let add = || Command::AddClients(clients.to_vec());
    let id = group_id.to_string();
    Ok(store.execute::<Group>(&id, add, metadata).await?)
}

/// The group as the ledger has it.
///
/// # Errors
/// [`group::Error::Unknown`], or when the ledger cannot be read.
pub async fn load(store: &Store, group_id: i32) -> Result<Group, Error> {
    let group: Group = store.load(&group_id.to_string()).await?;
    match group.settings() {
        Some(_) => Ok(group),
        None => Err(group::Error::Unknown.into()),
    }
}
