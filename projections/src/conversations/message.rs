//! The row of `conversation_messages`: its reads and its writes. What becomes
//! of a message of ours is in `progress`.

use chrono::{DateTime, Utc};
use domain::message::{Button, Kind, Location, Media};
use domain::{Direction, Provider};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use super::progress::{Status, Told};
use crate::sql::{Table, optional_word, word};
use crate::text;

/// A row of `conversation_messages`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Of a client's message the provider's id, or `ev-` and its position; of
    /// ours that of the effect.
    pub id: String,
    /// The conversation.
    pub conversation_id: String,
    /// Who wrote it.
    pub direction: Direction,
    /// The words. Personal.
    pub content: String,
    /// Twilio's id of a message of ours, once it has taken it.
    pub twilio_message_id: Option<String>,
    /// Of an agent's answer: the turn and the session that it came from.
    pub elevenlabs_response: Option<Value>,
    /// When it left; of a client's message, when it was written.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it reached the client.
    pub delivered_at: Option<DateTime<Utc>>,
    /// When the client read it.
    pub read_at: Option<DateTime<Utc>>,
    /// What only some messages have.
    pub metadata: Metadata,
    /// What it carries.
    pub kind: Kind,
    /// Files. Personal.
    pub media: Vec<Media>,
    /// How far it has come.
    pub status: Status,
    /// Who carries it, or is to.
    pub provider: Option<Provider>,
    /// `agent`, `person:<who>`, `first` (after a call), `client`, or
    /// `external`: sent through the provider by somebody else.
    pub author: String,
    /// The message that this one answers, by its id.
    pub in_reply_to: Option<String>,
    /// The provider's code of what went wrong.
    pub error_code: Option<String>,
    /// What went wrong, in the provider's words or ours. Personal.
    pub error_message: Option<String>,
    /// When it was written, or owed.
    pub created_at: DateTime<Utc>,
    /// Where on the ledger.
    pub position: i64,
    /// Which of an answer's parts, from 1; else 0.
    pub part: i32,
    pub(super) words_key: Option<String>,
    pub(super) told: Option<Told>,
}

/// What only some messages have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// A place. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The button that was pressed. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub button: Option<Button>,
    /// The provider's id of the message that the client answered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Whether the client passed it on from elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// The template that went instead of words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_sid: Option<String>,
    /// Another provider's id than Twilio's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_message_id: Option<String>,
    /// The provider has it twice: its id of the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_message_id: Option<String>,
}

impl Message {
    /// A message of which nothing is known but what it says.
    pub(super) fn begin(
        id: String,
        conversation_id: &str,
        direction: Direction,
        author: &str,
        (content, kind, media): (String, Kind, Vec<Media>),
        (created_at, position, part): (DateTime<Utc>, i64, i32),
    ) -> Self {
        Self {
            id,
            conversation_id: conversation_id.to_owned(),
            direction,
            content,
            twilio_message_id: None,
            elevenlabs_response: None,
            sent_at: None,
            delivered_at: None,
            read_at: None,
            metadata: Metadata::default(),
            kind,
            media,
            status: match direction {
                Direction::Inbound => Status::Received,
                Direction::Outbound => Status::Queued,
            },
            provider: None,
            author: author.to_owned(),
            in_reply_to: None,
            error_code: None,
            error_message: None,
            created_at,
            position,
            part,
            words_key: None,
            told: None,
        }
    }

    /// The order in which people see messages.
    pub(super) fn place(&self) -> (DateTime<Utc>, i64, i32) {
        (self.created_at, self.position, self.part)
    }
}

/// The newest messages of a conversation, in order, at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn newest(
    conn: &mut PgConnection,
    conversation_id: &str,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    let sql = format!(
        "select * from (
             select {COLUMNS} from conversation_messages where conversation_id = $1
             order by created_at desc, position desc, part desc limit $2) as newest
         order by created_at, position, part"
    );
    sqlx::query_as(&sql)
        .bind(text::key(conversation_id))
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// The message with this id: of ours, that of the effect.
///
/// # Errors
/// When the database fails.
pub async fn message(conn: &mut PgConnection, id: &str) -> sqlx::Result<Option<Message>> {
    let sql = format!("select {COLUMNS} from conversation_messages where id = $1");
    let query = sqlx::query_as(&sql).bind(text::key(id));
    query.fetch_optional(conn).await
}

/// Which rows to load: those that any of these names.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) ids: Vec<&'a str>,
    /// Of clients' messages.
    pub(super) positions: Vec<i64>,
    pub(super) twilio_ids: Vec<&'a str>,
    /// Conversations of which all that waits is wanted.
    pub(super) waiting_in: Vec<&'a str>,
}

pub(super) async fn load(
    conn: &mut PgConnection,
    wanted: &Wanted<'_>,
) -> sqlx::Result<Vec<Message>> {
    // One index for each part.
    let sql = format!(
        "select {COLUMNS} from conversation_messages where id in (
             select unnest($1::text[])
             union all select id from conversation_messages
                 where position = any($2) and direction = 'inbound'
             union all select id from conversation_messages where twilio_message_id = any($3)
             union all select id from conversation_messages
                 where conversation_id = any($4) and status = 'queued')"
    );
    sqlx::query_as(&sql)
        .bind(&wanted.ids)
        .bind(&wanted.positions)
        .bind(&wanted.twilio_ids)
        .bind(&wanted.waiting_in)
        .fetch_all(conn)
        .await
}

/// Our messages of these words in these conversations that may be echoed.
pub(super) async fn load_words(
    conn: &mut PgConnection,
    words: &[(&str, &str)],
) -> sqlx::Result<Vec<Message>> {
    let (conversations, keys): (Vec<_>, Vec<_>) = words.iter().copied().unzip();
    let sql = format!(
        "select {COLUMNS} from conversation_messages
         join unnest($1::text[], $2::text[]) as wanted (conversation_id, words_key)
             using (conversation_id, words_key)"
    );
    sqlx::query_as(&sql)
        .bind(conversations)
        .bind(keys)
        .fetch_all(conn)
        .await
}

pub(super) async fn save(conn: &mut PgConnection, rows: &[&Message]) -> anyhow::Result<()> {
    TABLE.upsert(conn, rows).await
}

pub(super) async fn remove(conn: &mut PgConnection, ids: &[&str]) -> anyhow::Result<()> {
    if !ids.is_empty() {
        let sql = "delete from conversation_messages where id = any($1)";
        sqlx::query(sql).bind(ids).execute(conn).await?;
    }
    Ok(())
}

const COLUMNS: &str = "id, conversation_id, direction, content, twilio_message_id,
    elevenlabs_response, sent_at, delivered_at, read_at, metadata, kind, media, status, provider,
    author, in_reply_to, error_code, error_message, created_at, position, part, words_key, told";

const TABLE: Table = Table {
    name: "conversation_messages",
    key: &["id"],
    columns: &[
        "conversation_id",
        "direction",
        "content",
        "twilio_message_id",
        "elevenlabs_response",
        "sent_at",
        "delivered_at",
        "read_at",
        "metadata",
        "kind",
        "media",
        "status",
        "provider",
        "author",
        "in_reply_to",
        "error_code",
        "error_message",
        "created_at",
        "position",
        "part",
        "words_key",
        "told",
    ],
    searchable: false,
};

impl FromRow<'_, PgRow> for Message {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(metadata) = row.try_get("metadata")?;
        let Json(media) = row.try_get("media")?;
        let told: Option<Json<Told>> = row.try_get("told")?;
        Ok(Self {
            id: row.try_get("id")?,
            conversation_id: row.try_get("conversation_id")?,
            direction: word(row, "direction")?,
            content: row.try_get("content")?,
            twilio_message_id: row.try_get("twilio_message_id")?,
            elevenlabs_response: row.try_get("elevenlabs_response")?,
            sent_at: row.try_get("sent_at")?,
            delivered_at: row.try_get("delivered_at")?,
            read_at: row.try_get("read_at")?,
            metadata,
            kind: word(row, "kind")?,
            media,
            status: word(row, "status")?,
            provider: optional_word(row, "provider")?,
            author: row.try_get("author")?,
            in_reply_to: row.try_get("in_reply_to")?,
            error_code: row.try_get("error_code")?,
            error_message: row.try_get("error_message")?,
            created_at: row.try_get("created_at")?,
            position: row.try_get("position")?,
            part: row.try_get("part")?,
            words_key: row.try_get("words_key")?,
            told: told.map(|Json(told)| told),
        })
    }
}
