//! The list of interactions: its filters, its pages and its search for words.
//!
//! No query here reads more than it must for a page, whatever the filters:
//! `tests/api/scale.rs` counts what it reads of a million.

use chrono::{DateTime, Utc};
use domain::{Channel, Direction, Provider};
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::{COLUMNS, Interaction};
use crate::{text, time};

/// Up to how many rows with the words of a search these are rare words: then
/// their interactions are looked up one by one. Common words are met soon when
/// the newest interactions are looked through for them.
const RARE_ROWS_MAX: usize = 20_000;

/// Which interactions to list. What is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Reached in this way.
    pub channel: Option<Channel>,
    /// With this status.
    pub status: Option<String>,
    /// Begun by this side.
    pub direction: Option<Direction>,
    /// Told by this provider.
    pub provider: Option<Provider>,
    /// With the client of this key: `PhoneIndex::key` of the E.164 number.
    pub phone_key: Option<String>,
    /// With this voice agent.
    pub agent_id: Option<String>,
    /// Of this batch.
    pub batch_id: Option<String>,
    /// Begun at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Begun before this time.
    pub to: Option<DateTime<Utc>>,
    /// With these words, as a person types them into a search.
    pub q: Option<String>,
}

/// Where a page of the list ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the last row.
    pub started_at: DateTime<Utc>,
    /// Of the last row.
    pub id: String,
}

impl Interaction {
    /// The cursor of a page that ends with this row.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            started_at: self.started_at,
            id: self.id.clone(),
        }
    }
}

/// The interactions that match, newest first, at most `limit`, after a cursor.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<Interaction>> {
    let words = match &filter.q {
        Some(q) => Some(Words::of(conn, q).await?),
        None => None,
    };
    let mut query = list_query(filter, words, after, limit);
    // Not kept: each list is planned for the very values it filters by.
    let query = query.build_query_as().persistent(false);
    query.fetch_all(conn).await
}

/// What is known of the words of a search before the list is made.
enum Words {
    /// Few rows have them: those of these interactions.
    Rare(Vec<String>),
    /// Many rows have them: those that match this query.
    Common(String),
}

impl Words {
    async fn of(conn: &mut PgConnection, q: &str) -> sqlx::Result<Self> {
        let q = text::query(q);
        let mut query = rare_query(&q);
        let ids: Vec<String> = query.build_query_scalar().fetch_all(conn).await?;
        Ok(match ids.len() > RARE_ROWS_MAX {
            true => Self::Common(q),
            false => Self::Rare(ids),
        })
    }
}

/// The interactions whose texts match a search, if they are few. The search is
/// hidden from the planner in a sub-select: else it would expect common words,
/// and read a whole table for two of them that never meet.
fn rare_query<'a>(q: &str) -> QueryBuilder<'a, Postgres> {
    let mut query = QueryBuilder::new("select interaction_id from (");
    for (table, then) in [("call_details", " union all "), ("messages", ") as found")] {
        query.push(format_args!(
            "select interaction_id from {table} where search @@ (select "
        ));
        push_tsquery(&mut query, q);
        query.push(")").push(then);
    }
    query.push(" limit ").push_bind(RARE_ROWS_MAX as i64 + 1);
    query
}

fn push_tsquery(query: &mut QueryBuilder<'_, Postgres>, q: &str) {
    query.push("websearch_to_tsquery('public.bitacora', ");
    query.push_bind(q.to_owned()).push(")");
}

/// Built from the filters that are there, so that the planner sees each query
/// as it is and takes the index of its rarest filter.
fn list_query<'a>(
    filter: &'a Filter,
    words: Option<Words>,
    after: Option<&'a Cursor>,
    limit: i64,
) -> QueryBuilder<'a, Postgres> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from interactions where true"));
    let equal = [
        ("channel", filter.channel.map(|word| word.as_str().into())),
        ("status", filter.status.as_deref().map(text::key)),
        (
            "direction",
            filter.direction.map(|word| word.as_str().into()),
        ),
        ("provider", filter.provider.map(|word| word.as_str().into())),
        ("phone_key", filter.phone_key.as_deref().map(text::key)),
        ("agent_id", filter.agent_id.as_deref().map(text::key)),
        ("batch_id", filter.batch_id.as_deref().map(text::key)),
    ];
    for (column, value) in equal {
        if let Some(value) = value {
            query
                .push(format_args!(" and {column} = "))
                .push_bind(value);
        }
    }
    if let Some(from) = filter.from {
        query
            .push(" and started_at >= ")
            .push_bind(time::askable(from));
    }
    if let Some(to) = filter.to {
        query
            .push(" and started_at < ")
            .push_bind(time::askable(to));
    }
    if let Some(words) = words {
        push_words(&mut query, words);
    }
    if let Some(after) = after {
        query.push(" and (started_at, id) < (");
        query.push_bind(time::askable(after.started_at)).push(", ");
        query.push_bind(after.id.as_str()).push(")");
    }
    query.push(" order by started_at desc, id desc limit ");
    query.push_bind(limit);
    query
}

fn push_words(query: &mut QueryBuilder<'_, Postgres>, words: Words) {
    let q = match words {
        Words::Rare(ids) => {
            query.push(" and id = any(").push_bind(ids).push(")");
            return;
        }
        Words::Common(q) => q,
    };
    // Not `exists`: PostgreSQL might hash the whole of the other table for it.
    query.push(" and coalesce(");
    for table in ["call_details", "messages"] {
        query.push(format_args!(
            "(select true from {table} where interaction_id = interactions.id and search @@ "
        ));
        push_tsquery(query, &q);
        query.push(" limit 1), ");
    }
    query.push("false)");
}
