//! The list of interactions: its filters, its pages and its search for words.
//!
//! No query here reads more than it must for a page, whatever the filters:
//! `tests/api/scale.rs` counts what it reads of a million.

use chrono::{DateTime, Utc};
use domain::{Channel, Direction, Provider};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row};

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
    let rows = fetch(conn, COLUMNS, filter, after, limit).await?;
    rows.iter().map(Interaction::from_row).collect()
}

/// As [`list`], for whoever shows the rows and keeps none: what a list shows,
/// borrowed from what PostgreSQL sent.
///
/// # Errors
/// When the database fails.
pub async fn listed(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<ListedRow>> {
    let rows = fetch(conn, LISTED_COLUMNS, filter, after, limit).await?;
    Ok(rows.into_iter().map(ListedRow).collect())
}

/// A row of a list, as it came.
pub struct ListedRow(PgRow);

/// What a list shows of an interaction: the fields of [`Interaction`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "they are those of an interaction")]
pub struct Listed<'r> {
    pub id: &'r str,
    pub channel: &'r str,
    pub provider: Option<&'r str>,
    pub direction: Option<&'r str>,
    pub status: &'r str,
    pub phone_number: Option<&'r str>,
    pub agent_id: Option<&'r str>,
    pub batch_id: Option<&'r str>,
    pub conversation_id: Option<&'r str>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub last_event_at: DateTime<Utc>,
    pub duration_secs: Option<i64>,
    pub summary: Option<&'r str>,
    pub message_count: i64,
}

/// The columns of [`Listed`], in its order.
const LISTED_COLUMNS: &str =
    "id, channel, provider, direction, status, phone_number, agent_id, batch_id,
    conversation_id, started_at, ended_at, last_event_at, duration_secs, summary, message_count";

impl ListedRow {
    /// Reads it. By place and without a look at the types, which are those of
    /// the table: fifty rows of fifteen columns are read for every page.
    ///
    /// # Errors
    /// When a column holds what it must not.
    pub fn read(&self) -> sqlx::Result<Listed<'_>> {
        let row = &self.0;
        Ok(Listed {
            id: row.try_get_unchecked(0)?,
            channel: row.try_get_unchecked(1)?,
            provider: row.try_get_unchecked(2)?,
            direction: row.try_get_unchecked(3)?,
            status: row.try_get_unchecked(4)?,
            phone_number: row.try_get_unchecked(5)?,
            agent_id: row.try_get_unchecked(6)?,
            batch_id: row.try_get_unchecked(7)?,
            conversation_id: row.try_get_unchecked(8)?,
            started_at: row.try_get_unchecked(9)?,
            ended_at: row.try_get_unchecked(10)?,
            last_event_at: row.try_get_unchecked(11)?,
            duration_secs: row.try_get_unchecked(12)?,
            summary: row.try_get_unchecked(13)?,
            message_count: row.try_get_unchecked(14)?,
        })
    }
}

async fn fetch(
    conn: &mut PgConnection,
    columns: &str,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<PgRow>> {
    let words = match &filter.q {
        Some(q) => Some(Words::of(conn, q).await?),
        None => None,
    };
    // Words may be common or rare: such a search is planned each time anew.
    let is_kept = !matches!(words, Some(Words::Common(_)));
    let mut query = list_query(columns, filter, words, after, limit);
    query.build().persistent(is_kept).fetch_all(conn).await
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

/// Built from the filters that are there, and kept by the connection, so that
/// PostgreSQL plans each kind of list once. What has few values stands in the
/// statement itself: which of them are rare decides which index serves.
fn list_query<'a>(
    columns: &str,
    filter: &'a Filter,
    words: Option<Words>,
    after: Option<&'a Cursor>,
    limit: i64,
) -> QueryBuilder<'a, Postgres> {
    let mut query = QueryBuilder::new(format!("select {columns} from interactions where true"));
    let of_few = [
        ("channel", filter.channel.map(Channel::as_str)),
        ("status", filter.status.as_deref()),
        ("direction", filter.direction.map(Direction::as_str)),
        ("provider", filter.provider.map(Provider::as_str)),
    ];
    for (column, value) in of_few {
        let Some(value) = value else { continue };
        query.push(format_args!(" and {column} = "));
        match is_word(value) {
            true => query.push(format_args!("'{value}'")),
            false => query.push_bind(text::key(value)),
        };
    }
    let of_many = [
        ("phone_key", &filter.phone_key),
        ("agent_id", &filter.agent_id),
        ("batch_id", &filter.batch_id),
    ];
    for (column, value) in of_many {
        if let Some(value) = value {
            query
                .push(format_args!(" and {column} = "))
                .push_bind(text::key(value));
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
    query.push(format_args!(
        " order by started_at desc, id desc limit {limit}"
    ));
    query
}

/// Whether a text is one that statuses are made of, and no more than that.
fn is_word(text: &str) -> bool {
    text.len() <= 20
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-'))
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
