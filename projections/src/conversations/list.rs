//! The list of conversations, by who wrote last, and its search for names.

use chrono::{DateTime, Utc};
use domain::conversation::Status;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::row::{COLUMNS, Conversation};
use crate::{text, time};

/// Up to how many rows with the words of a search these are rare words: then
/// their rows are looked up. Common words are met soon on the way through the
/// list.
const RARE_ROWS_MAX: usize = 20_000;

/// Which conversations to list. What is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In which this one speaks for us.
    pub status: Option<Status>,
    /// One of these.
    pub ids: Option<Vec<String>>,
    /// With clients of these names, as a person types them into a search.
    pub name: Option<String>,
}

/// Where a page of the list ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the last row.
    pub last_message_at: DateTime<Utc>,
    /// Of the last row.
    pub id: String,
}

impl Conversation {
    /// The cursor of a page that ends with this row.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            last_message_at: self.last_message_at,
            id: self.id.clone(),
        }
    }
}

/// The conversations that match, the last written first, at most `limit`,
/// after a cursor.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    let mut query = QueryBuilder::new(format!(
        "select {COLUMNS} from conversation_state where true"
    ));
    if let Some(status) = filter.status {
        query.push(" and status = ").push_bind(status.as_str());
    }
    if let Some(ids) = &filter.ids {
        query.push(" and id = any(").push_bind(ids).push(")");
    }
    if let Some(name) = &filter.name {
        push_name(conn, &mut query, &text::query(name)).await?;
    }
    if let Some(after) = after {
        query.push(" and (last_message_at, id) < (");
        query
            .push_bind(time::askable(after.last_message_at))
            .push(", ");
        query.push_bind(text::key(&after.id)).push(")");
    }
    query.push(" order by last_message_at desc, id desc limit ");
    query.push_bind(limit);
    // Not kept: each list is planned for the very values it filters by.
    let query = query.build_query_as().persistent(false);
    query.fetch_all(conn).await
}

async fn push_name(
    conn: &mut PgConnection,
    query: &mut QueryBuilder<'_, Postgres>,
    name: &str,
) -> sqlx::Result<()> {
    // In a sub-select, hidden from the planner: else it would guess how common
    // the words are, and read the whole table.
    let sql = "select id from conversation_state
               where search @@ (select websearch_to_tsquery('public.bitacora', $1)) limit $2";
    let rare: Vec<String> = sqlx::query_scalar(sql)
        .bind(name)
        .bind(RARE_ROWS_MAX as i64 + 1)
        .fetch_all(conn)
        .await?;
    if rare.len() > RARE_ROWS_MAX {
        // `coalesce`: the index on words must not be used for this.
        query.push(" and coalesce(search @@ websearch_to_tsquery('public.bitacora', ");
        query.push_bind(name.to_owned()).push("), false)");
    } else {
        query.push(" and id = any(").push_bind(rare).push(")");
    }
    Ok(())
}
