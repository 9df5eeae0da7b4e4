//! Read model `users`: the people who may log in. Their passwords are not
//! here and not in the ledger.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::event::Recorded;
use domain::user::Role;
use domain::{Event, user};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};

use crate::engine::Projection;
use crate::sql::{Table, word};
use crate::text;

/// A row of `users`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct User {
    /// The person's number.
    pub id: i32,
    /// Personal.
    pub name: String,
    /// In lower case. Personal.
    pub email: String,
    /// What the person may do.
    pub role: Role,
    /// The voice agent that calls in the person's name.
    pub agent_id: Option<String>,
    /// When access was given.
    pub created_at: DateTime<Utc>,
}

/// The people with a number above `after`, in its order, at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &mut PgConnection,
    after: Option<i32>,
    limit: i64,
) -> sqlx::Result<Vec<User>> {
    let sql = format!("select {COLUMNS} from users where id > $1 order by id limit $2");
    sqlx::query_as(&sql)
        .bind(after.unwrap_or(i32::MIN))
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// The person with this number.
///
/// # Errors
/// When the database fails.
pub async fn get(conn: &mut PgConnection, id: i32) -> sqlx::Result<Option<User>> {
    let sql = format!("select {COLUMNS} from users where id = $1");
    sqlx::query_as(&sql).bind(id).fetch_optional(conn).await
}

/// The person with this address, in any case.
///
/// # Errors
/// When the database fails.
pub async fn by_email(conn: &mut PgConnection, email: &str) -> sqlx::Result<Option<User>> {
    let sql = format!("select {COLUMNS} from users where email = $1 order by id limit 1");
    let email = email.to_lowercase();
    sqlx::query_as(&sql)
        .bind(text::key(&email))
        .fetch_optional(conn)
        .await
}

const COLUMNS: &str = "id, name, email, role, agent_id, created_at";

const TABLE: Table = Table {
    name: "users",
    key: &["id"],
    columns: &["name", "email", "role", "agent_id", "created_at"],
    searchable: false,
};

impl FromRow<'_, PgRow> for User {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            email: row.try_get("email")?,
            role: word(row, "role")?,
            agent_id: row.try_get("agent_id")?,
            created_at: row.try_get("created_at")?,
        })
    }
}

/// The projection `users`.
pub struct Users;

#[async_trait]
impl Projection for Users {
    fn name(&self) -> &'static str {
        "users"
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["users"]
    }

    fn event_types(&self) -> &'static [&'static str] {
        &["user.registered"]
    }

    fn is_read_by_key(&self) -> bool {
        true
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        // By number: one statement must not write the same row twice.
        let people: BTreeMap<_, _> = batch
            .iter()
            .copied()
            .filter_map(person)
            .map(|p| (p.id, p))
            .collect();
        let people: Vec<_> = people.into_values().collect();
        TABLE.upsert(conn, &people).await
    }
}

fn person(recorded: &Recorded) -> Option<User> {
    let Event::User(user::Event::Registered(registered)) = &recorded.event else {
        return None;
    };
    Some(User {
        id: registered.user_id,
        name: registered.name.clone(),
        email: text::key(&registered.email).into_owned(),
        role: registered.role,
        agent_id: registered.agent_id.clone(),
        created_at: recorded.occurred_at,
    })
}
