//! Read models `groups` and `group_clients`: who is called together.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::event::Recorded;
use domain::group::{Client, ClientsAdded, Event as GroupEvent, Settings};
use domain::{Event, PhoneIndex};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use crate::engine::Projection;
use crate::sql::Table;
use crate::text;

/// Rows that one statement writes, at most.
const WRITE_ROWS_MAX: usize = 2_000;

/// A row of `groups`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Its number.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// The agent that calls its clients.
    pub agent_id: Option<String>,
    /// The provider's id of the number that they are called from.
    pub phone_number_id: Option<String>,
    /// The country code of numbers that have none.
    pub prefix: String,
    /// What the agent is told of the group.
    pub variables: Map<String, Value>,
    /// How many clients it has.
    pub clients_count: i32,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When its settings or clients last changed.
    pub updated_at: DateTime<Utc>,
}

/// A row of `group_clients`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupClient {
    /// The group.
    pub group_id: i32,
    /// The number within the group.
    pub id: i32,
    /// Personal.
    pub name: String,
    /// Personal.
    pub phone_number: String,
    /// The key of the number.
    pub phone_key: String,
    /// Personal.
    pub email: Option<String>,
    /// Personal.
    pub empresa: Option<String>,
    /// Personal.
    pub cargo: Option<String>,
    /// Personal.
    pub variables: Map<String, Value>,
    /// When the client joined.
    pub created_at: DateTime<Utc>,
}

/// The groups with a number above `after`, in its order, at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &mut PgConnection,
    after: Option<i32>,
    limit: i64,
) -> sqlx::Result<Vec<Group>> {
    let sql = format!("select {COLUMNS} from groups where id > $1 order by id limit $2");
    sqlx::query_as(&sql)
        .bind(after.unwrap_or(i32::MIN))
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// The group with this number.
///
/// # Errors
/// When the database fails.
pub async fn get(conn: &mut PgConnection, id: i32) -> sqlx::Result<Option<Group>> {
    let sql = format!("select {COLUMNS} from groups where id = $1");
    sqlx::query_as(&sql).bind(id).fetch_optional(conn).await
}

/// The clients of a group with a number above `after`, in its order, at most
/// `limit`. A whole group is read page by page.
///
/// # Errors
/// When the database fails.
pub async fn clients(
    conn: &mut PgConnection,
    group_id: i32,
    after: Option<i32>,
    limit: i64,
) -> sqlx::Result<Vec<GroupClient>> {
    let sql = format!(
        "select {CLIENT_COLUMNS} from group_clients where group_id = $1 and id > $2
          order by id limit $3"
    );
    sqlx::query_as(&sql)
        .bind(group_id)
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// The entries of a person in all groups, by the key of the number.
///
/// # Errors
/// When the database fails.
pub async fn by_phone(
    conn: &mut PgConnection,
    phone_key: &str,
    limit: i64,
) -> sqlx::Result<Vec<GroupClient>> {
    let sql = format!(
        "select {CLIENT_COLUMNS} from group_clients where phone_key = $1
          order by group_id, id limit $2"
    );
    sqlx::query_as(&sql)
        .bind(phone_key)
        .bind(limit)
        .fetch_all(conn)
        .await
}

const COLUMNS: &str = "id, name, agent_id, phone_number_id, prefix, variables, clients_count,
    created_by, created_at, updated_at";
const CLIENT_COLUMNS: &str = "group_id, id, name, phone_number, phone_key, email, empresa, cargo,
    variables, created_at";

const GROUPS: Table = Table {
    name: "groups",
    key: &["id"],
    columns: &[
        "name",
        "agent_id",
        "phone_number_id",
        "prefix",
        "variables",
        "clients_count",
        "created_by",
        "created_at",
        "updated_at",
    ],
    searchable: false,
};

const CLIENTS: Table = Table {
    name: "group_clients",
    key: &["group_id", "id"],
    columns: &[
        "name",
        "phone_number",
        "phone_key",
        "email",
        "empresa",
        "cargo",
        "variables",
        "created_at",
    ],
    searchable: false,
};

impl FromRow<'_, PgRow> for Group {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(variables) = row.try_get("variables")?;
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            agent_id: row.try_get("agent_id")?,
            phone_number_id: row.try_get("phone_number_id")?,
            prefix: row.try_get("prefix")?,
            variables,
            clients_count: row.try_get("clients_count")?,
            created_by: row.try_get("created_by")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

impl FromRow<'_, PgRow> for GroupClient {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(variables) = row.try_get("variables")?;
        Ok(Self {
            group_id: row.try_get("group_id")?,
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            phone_number: row.try_get("phone_number")?,
            phone_key: row.try_get("phone_key")?,
            email: row.try_get("email")?,
            empresa: row.try_get("empresa")?,
            cargo: row.try_get("cargo")?,
            variables,
            created_at: row.try_get("created_at")?,
        })
    }
}

/// The projection `groups`.
pub struct Groups {
    phones: PhoneIndex,
}

impl Groups {
    /// With the key under which numbers are looked up.
    pub fn new(phones: PhoneIndex) -> Self {
        Self { phones }
    }

    fn client(&self, group_id: i32, client: &Client, joined_at: DateTime<Utc>) -> GroupClient {
        let number = client.phone_number.as_str();
        GroupClient {
            group_id,
            id: client.id,
            name: client.name.clone(),
            phone_number: number.to_owned(),
            phone_key: self.phones.key(number),
            email: client.email.clone(),
            empresa: client.empresa.clone(),
            cargo: client.cargo.clone(),
            variables: client.variables.clone(),
            created_at: joined_at,
        }
    }
}

#[async_trait]
impl Projection for Groups {
    fn name(&self) -> &'static str {
        "groups"
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["groups", "group_clients"]
    }

    fn event_types(&self) -> &'static [&'static str] {
        &["group.created", "group.updated", "group.clients_added"]
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        let mut groups = load(conn, batch).await?;
        let mut clients = BTreeMap::new();
        for recorded in batch {
            let Event::Group(event) = &recorded.event else {
                continue;
            };
            fold(&mut groups, event, recorded.occurred_at);
            if let GroupEvent::ClientsAdded(added) = event {
                // By key: one statement must not write the same row twice.
                clients.extend(added.clients.iter().map(|client| {
                    let row = self.client(added.group_id, client, recorded.occurred_at);
                    ((row.group_id, row.id), row)
                }));
            }
        }
        let groups: Vec<_> = groups.into_values().collect();
        GROUPS.upsert(conn, &groups).await?;
        let clients: Vec<_> = clients.into_values().collect();
        for some in clients.chunks(WRITE_ROWS_MAX) {
            CLIENTS.upsert(conn, some).await?;
        }
        Ok(())
    }
}

/// The groups that a batch of events touches.
async fn load(
    conn: &mut PgConnection,
    batch: &[&Recorded],
) -> anyhow::Result<BTreeMap<i32, Group>> {
    let ids: Vec<i32> = batch
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::Group(event) => Some(group_id(event)),
            _ => None,
        })
        .collect();
    let sql = format!("select {COLUMNS} from groups where id = any($1)");
    let known: Vec<Group> = sqlx::query_as(&sql).bind(ids).fetch_all(conn).await?;
    Ok(known.into_iter().map(|group| (group.id, group)).collect())
}

fn group_id(event: &GroupEvent) -> i32 {
    match event {
        GroupEvent::Created(created) => created.group_id,
        GroupEvent::Updated(updated) => updated.group_id,
        GroupEvent::ClientsAdded(added) => added.group_id,
    }
}

/// What an event does to the groups.
fn fold(groups: &mut BTreeMap<i32, Group>, event: &GroupEvent, at: DateTime<Utc>) {
    match event {
        GroupEvent::Created(created) => {
            let Settings {
                name,
                agent_id,
                phone_number_id,
                prefix,
                variables,
            } = created.settings.clone();
            let group = Group {
                id: created.group_id,
                name,
                agent_id,
                phone_number_id,
                prefix,
                variables,
                clients_count: 0,
                created_by: text::key(&created.created_by).into_owned(),
                created_at: at,
                updated_at: at,
            };
            groups.insert(created.group_id, group);
        }
        GroupEvent::Updated(updated) => {
            if let Some(group) = groups.get_mut(&updated.group_id) {
                let settings = updated.settings.clone();
                group.name = settings.name;
                group.agent_id = settings.agent_id;
                group.phone_number_id = settings.phone_number_id;
                group.prefix = settings.prefix;
                group.variables = settings.variables;
                group.updated_at = at;
            }
        }
        GroupEvent::ClientsAdded(ClientsAdded { group_id, clients }) => {
            if let Some(group) = groups.get_mut(group_id) {
                // They are numbered from 1 without a gap.
                let last = clients.iter().map(|client| client.id).max();
                group.clients_count = group.clients_count.max(last.unwrap_or_default());
                group.updated_at = at;
            }
        }
    }
}
