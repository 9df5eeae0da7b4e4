//! The rows of `conversation_callbacks` and `conversation_echoes`: what
//! providers say of messages that went out, kept because it may come before
//! whatever it belongs to.

use chrono::{DateTime, Utc};
use domain::message::{Sent, Status, StatusChanged};
use domain::{Direction, Provider};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use super::message::{Message, Metadata};
use super::progress::Status as Reached;
use crate::sql::{Table, optional_word, word};
use crate::text;

/// A row of `conversation_callbacks`: all that the callbacks of one message
/// add up to, in whatever order they came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct CallbackRow {
    pub(super) message_id: String,
    pub(super) status: Status,
    pub(super) error_code: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) sent_at: Option<DateTime<Utc>>,
    pub(super) delivered_at: Option<DateTime<Utc>>,
    pub(super) read_at: Option<DateTime<Utc>>,
}

impl CallbackRow {
    /// One callback alone.
    pub(super) fn of(change: &StatusChanged, at: DateTime<Utc>) -> Self {
        let when = |status: Status| (change.status == status).then_some(at);
        Self {
            message_id: text::key(&change.message_id).into_owned(),
            status: change.status,
            error_code: change.error_code.clone(),
            error_message: change.error_message.clone(),
            sent_at: when(Status::Sent),
            delivered_at: when(Status::Delivered),
            read_at: when(Status::Read),
        }
    }

    /// With another: the furthest status counts, with its own error, and of
    /// each time the first.
    pub(super) fn and(mut self, other: Self) -> Self {
        let reach = |row: &Self| {
            let error = (row.error_code.clone(), row.error_message.clone());
            (row.status.rank(), row.status, error)
        };
        let first = |a: Option<DateTime<Utc>>, b| a.into_iter().chain(b).min();
        self.sent_at = first(self.sent_at, other.sent_at);
        self.delivered_at = first(self.delivered_at, other.delivered_at);
        self.read_at = first(self.read_at, other.read_at);
        if reach(&other) > reach(&self) {
            self.status = other.status;
            self.error_code = other.error_code;
            self.error_message = other.error_message;
        }
        self
    }
}

/// A row of `conversation_echoes`: builderbot's word that a message went out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Echo {
    pub(super) position: i64,
    pub(super) conversation_id: String,
    pub(super) words_key: String,
    pub(super) occurred_at: DateTime<Utc>,
    pub(super) provider: Option<Provider>,
    pub(super) confirms: Option<String>,
    pub(super) message: Sent,
}

impl Echo {
    /// The id of the message that it is, where it is none of ours.
    pub(super) fn external_id(&self) -> String {
        format!("ev-{}", self.position)
    }

    /// The message that it is, where it is none of ours.
    pub(super) fn external(&self) -> Message {
        let Sent {
            message_id,
            kind,
            content,
            media,
            ..
        } = self.message.clone();
        Message {
            sent_at: Some(self.occurred_at),
            status: Reached::Sent,
            provider: self.provider,
            metadata: Metadata {
                provider_message_id: message_id,
                ..Metadata::default()
            },
            ..Message::begin(
                self.external_id(),
                &self.conversation_id,
                Direction::Outbound,
                "external",
                (content, kind, media),
                (self.occurred_at, self.position, 0),
            )
        }
    }
}

const CALLBACKS: Table = Table {
    name: "conversation_callbacks",
    key: &["message_id"],
    columns: &[
        "status",
        "error_code",
        "error_message",
        "sent_at",
        "delivered_at",
        "read_at",
    ],
    searchable: false,
};

const ECHOES: Table = Table {
    name: "conversation_echoes",
    key: &["position"],
    columns: &[
        "conversation_id",
        "words_key",
        "occurred_at",
        "provider",
        "confirms",
        "message",
    ],
    searchable: false,
};

impl FromRow<'_, PgRow> for CallbackRow {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            message_id: row.try_get("message_id")?,
            status: word(row, "status")?,
            error_code: row.try_get("error_code")?,
            error_message: row.try_get("error_message")?,
            sent_at: row.try_get("sent_at")?,
            delivered_at: row.try_get("delivered_at")?,
            read_at: row.try_get("read_at")?,
        })
    }
}

impl FromRow<'_, PgRow> for Echo {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(message) = row.try_get("message")?;
        Ok(Self {
            position: row.try_get("position")?,
            conversation_id: row.try_get("conversation_id")?,
            words_key: row.try_get("words_key")?,
            occurred_at: row.try_get("occurred_at")?,
            provider: optional_word(row, "provider")?,
            confirms: row.try_get("confirms")?,
            message,
        })
    }
}

pub(super) async fn load(
    conn: &mut PgConnection,
    message_ids: &[&str],
) -> sqlx::Result<Vec<CallbackRow>> {
    let sql = "select message_id, status, error_code, error_message, sent_at, delivered_at, read_at
               from conversation_callbacks where message_id = any($1)";
    sqlx::query_as(sql).bind(message_ids).fetch_all(conn).await
}

pub(super) async fn save(conn: &mut PgConnection, rows: &[&CallbackRow]) -> anyhow::Result<()> {
    CALLBACKS.upsert(conn, rows).await
}

/// The echoes of these words in these conversations.
pub(super) async fn load_echoes(
    conn: &mut PgConnection,
    groups: &[(&str, &str)],
) -> sqlx::Result<Vec<Echo>> {
    let (conversations, words): (Vec<_>, Vec<_>) = groups.iter().copied().unzip();
    let sql =
        "select position, conversation_id, words_key, occurred_at, provider, confirms, message
               from conversation_echoes
               join unnest($1::text[], $2::text[]) as wanted (conversation_id, words_key)
                   using (conversation_id, words_key)";
    sqlx::query_as(sql)
        .bind(conversations)
        .bind(words)
        .fetch_all(conn)
        .await
}

pub(super) async fn save_echoes(conn: &mut PgConnection, rows: &[&Echo]) -> anyhow::Result<()> {
    ECHOES.upsert(conn, rows).await
}
