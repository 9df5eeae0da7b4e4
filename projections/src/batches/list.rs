//! The lists of batches: for people, newest first, and for those who work.

use chrono::{DateTime, Utc};
use domain::batch::Status;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::row::{Batch, COLUMNS};
use crate::{text, time};

/// Which batches to list. What is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// That stand so.
    pub status: Option<Status>,
    /// Of this group.
    pub group_id: Option<i32>,
    /// Made at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Made before this time.
    pub to: Option<DateTime<Utc>>,
}

/// Where a page of the list ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the last row.
    pub created_at: DateTime<Utc>,
    /// Our id of the last row.
    pub id: String,
}

impl Batch {
    /// The cursor of a page that ends with this row.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            created_at: self.created_at,
            id: self.id.clone(),
        }
    }
}

/// The batches that match, newest first, at most `limit`, after a cursor.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<Batch>> {
    let mut query = list_query("", filter, after, limit);
    // Not kept: each list is planned for the very values it filters by.
    let query = query.build_query_as().persistent(false);
    query.fetch_all(conn).await
}

/// PostgreSQL's plan for [`list`], line by line.
///
/// # Errors
/// When the database fails.
pub async fn explain(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    let mut query = list_query("explain ", filter, after, limit);
    query.build_query_scalar().fetch_all(conn).await
}

fn list_query<'a>(
    prefix: &str,
    filter: &Filter,
    after: Option<&'a Cursor>,
    limit: i64,
) -> QueryBuilder<'a, Postgres> {
    let mut query = QueryBuilder::new(format!(
        "{prefix}select {COLUMNS} from batches where duplicate_of is null"
    ));
    if let Some(status) = filter.status {
        query.push(" and status = ").push_bind(status.as_str());
    }
    if let Some(group_id) = filter.group_id {
        query.push(" and group_id = ").push_bind(group_id);
    }
    if let Some(from) = filter.from {
        query
            .push(" and created_at >= ")
            .push_bind(time::askable(from));
    }
    if let Some(to) = filter.to {
        query
            .push(" and created_at < ")
            .push_bind(time::askable(to));
    }
    if let Some(after) = after {
        query.push(" and (created_at, id) < (");
        query.push_bind(time::askable(after.created_at)).push(", ");
        query.push_bind(text::key(&after.id)).push(")");
    }
    query.push(" order by created_at desc, id desc limit ");
    query.push_bind(limit);
    query
}

/// The batches of a group, newest first, at most `limit`: what is shown as its
/// calls. For more pages, [`list`] with the group.
///
/// # Errors
/// When the database fails.
pub async fn for_group(
    conn: &mut PgConnection,
    group_id: i32,
    limit: i64,
) -> sqlx::Result<Vec<Batch>> {
    let filter = Filter {
        group_id: Some(group_id),
        ..Filter::default()
    };
    list(conn, &filter, None, limit).await
}

/// The batches that the provider has and may still change, oldest first, at
/// most `limit`, after a cursor: for the monitor.
///
/// # Errors
/// When the database fails.
pub async fn unsettled(
    conn: &mut PgConnection,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<Batch>> {
    oldest(conn, "is_unsettled", after, limit).await
}

/// The batches that somebody ordered to be submitted, cancelled or retried
/// and that is not done yet, oldest first, at most `limit`, after a cursor:
/// for the driver.
///
/// # Errors
/// When the database fails.
pub async fn open_orders(
    conn: &mut PgConnection,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<Batch>> {
    oldest(conn, "has_open_order", after, limit).await
}

async fn oldest(
    conn: &mut PgConnection,
    condition: &str,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<Batch>> {
    let mut query = QueryBuilder::<Postgres>::new(format!(
        "select {COLUMNS} from batches where {condition} and duplicate_of is null"
    ));
    if let Some(after) = after {
        query.push(" and (created_at, id) > (");
        query.push_bind(time::askable(after.created_at)).push(", ");
        query.push_bind(text::key(&after.id)).push(")");
    }
    query
        .push(" order by created_at, id limit ")
        .push_bind(limit);
    query.build_query_as().fetch_all(conn).await
}

/// Our ids of the batches that these calls are part of, by the ids of the
/// calls' streams: a conversation, or the carrier's id of a leg. For those who
/// watch the ledger and want to know which batches an event concerns.
///
/// # Errors
/// When the database fails.
pub async fn of_calls(conn: &mut PgConnection, call_ids: &[&str]) -> sqlx::Result<Vec<String>> {
    let ids: Vec<_> = call_ids.iter().map(|id| text::key(id)).collect();
    let sql = "select distinct batch_key from call_attempts where conversation_id in (
                   select unnest($1::text[])
                   union all select conversation_id from batch_calls where call_sid = any($1))";
    sqlx::query_scalar(sql).bind(ids).fetch_all(conn).await
}
