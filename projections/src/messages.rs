//! Read model `messages`: the messages of a WhatsApp conversation, and the one
//! of an SMS. What an event changes in one is in `interaction/message.rs`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use domain::message::{Button, Kind, Location, Media, Status};
use domain::{Direction, Provider};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use crate::call_details::CallDetail;
use crate::interactions::Interaction;
use crate::search::{Lexicon, Vector};
use crate::sql::{Table, optional_word, word};

/// Most messages of one interaction that are shown: the newest.
pub const MESSAGES_MAX: usize = 2_000;

/// A row of `messages`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// The interaction it belongs to.
    pub interaction_id: String,
    /// The provider's id, or `ev-` and the event's position where it gave none.
    pub id: String,
    /// Who wrote it.
    pub direction: Direction,
    /// The words; `None` while only callbacks are known. Personal.
    pub content: Option<String>,
    /// What it carries; `None` while only callbacks are known.
    pub kind: Option<Kind>,
    /// Files. Personal.
    pub media: Vec<Media>,
    /// More on it.
    pub details: Details,
    /// How far it has come.
    pub status: Status,
    /// The provider that carries it.
    pub provider: Option<Provider>,
    /// The provider's id.
    pub provider_message_id: Option<String>,
    /// The provider's code of what went wrong.
    pub error_code: Option<String>,
    /// The provider's words on it.
    pub error_message: Option<String>,
    /// When the first of its events happened.
    pub created_at: DateTime<Utc>,
    /// When it was first reported sent.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it was first reported delivered.
    pub delivered_at: Option<DateTime<Utc>>,
    /// When it was first reported read.
    pub read_at: Option<DateTime<Utc>>,
    /// When it was first reported failed.
    pub failed_at: Option<DateTime<Utc>>,
    /// When the last of its events happened.
    pub updated_at: DateTime<Utc>,
    /// The position of its first event.
    pub first_position: i64,
}

/// What only some messages have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// A place. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The button that was pressed. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub button: Option<Button>,
    /// The provider's id of the message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Whether the client passed it on from elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// The client's name as the provider shows it. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_name: Option<String>,
}

impl Message {
    /// The turns of a session that was text from end to end, as messages. They
    /// are in the transcript and are not stored a second time.
    pub(crate) fn of_turns(interaction: &Interaction, call: &CallDetail) -> Vec<Self> {
        let turns = call.transcript.iter().enumerate();
        let spoken = turns.filter_map(|(n, turn)| Some((n, turn, turn.message.as_ref()?)));
        spoken
            .map(|(n, turn, words)| {
                let into_call = turn.time_in_call_secs.and_then(TimeDelta::try_seconds);
                let at = into_call.and_then(|d| interaction.started_at.checked_add_signed(d));
                let at = at.unwrap_or(interaction.started_at);
                let (direction, status) = match turn.role.as_str() {
                    "user" => (Direction::Inbound, Status::Received),
                    _ => (Direction::Outbound, Status::Sent),
                };
                Self {
                    content: Some(words.clone()),
                    kind: Some(Kind::Text),
                    provider: interaction.provider,
                    sent_at: (status == Status::Sent).then_some(at),
                    ..Self::begin(
                        &interaction.id,
                        format!("turn-{n}"),
                        direction,
                        status,
                        at,
                        interaction.first_position,
                    )
                }
            })
            .collect()
    }

    /// A message of which nothing but an event's time is known yet.
    pub(crate) fn begin(
        interaction_id: &str,
        id: String,
        direction: Direction,
        status: Status,
        at: DateTime<Utc>,
        position: i64,
    ) -> Self {
        Self {
            interaction_id: interaction_id.to_owned(),
            id,
            direction,
            content: None,
            kind: None,
            media: vec![],
            details: Details::default(),
            status,
            provider: None,
            provider_message_id: None,
            error_code: None,
            error_message: None,
            created_at: at,
            sent_at: None,
            delivered_at: None,
            read_at: None,
            failed_at: None,
            updated_at: at,
            first_position: position,
        }
    }
}

/// The newest messages of an interaction, in order.
///
/// # Errors
/// When the database fails.
pub async fn of_interaction(
    conn: &mut PgConnection,
    interaction_id: &str,
) -> sqlx::Result<Vec<Message>> {
    let columns = TABLE.columns.join(", ");
    let sql = format!(
        "select * from (
             select interaction_id, id, {columns}
             from messages where interaction_id = $1
             order by created_at desc, first_position desc limit $2) as newest
         order by created_at, first_position"
    );
    sqlx::query_as(&sql)
        .bind(interaction_id)
        .bind(MESSAGES_MAX as i64)
        .fetch_all(conn)
        .await
}

/// The rows with these keys that there are.
pub(crate) async fn load(
    conn: &mut PgConnection,
    keys: &[(&str, &str)],
) -> sqlx::Result<Vec<Message>> {
    if keys.is_empty() {
        return Ok(vec![]);
    }
    let (interaction_ids, ids): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    let columns = TABLE.columns.join(", ");
    let sql = format!(
        "select interaction_id, id, {columns}
         from messages join unnest($1::text[], $2::text[]) as wanted (interaction_id, id)
             using (interaction_id, id)"
    );
    sqlx::query_as(&sql)
        .bind(interaction_ids)
        .bind(ids)
        .fetch_all(conn)
        .await
}

/// Writes rows, each with the words that it is found by. `known` are the keys
/// of those that are there already.
pub(crate) async fn save(
    conn: &mut PgConnection,
    lexicon: &Lexicon,
    known: &BTreeSet<(String, String)>,
    rows: &BTreeMap<(String, String), Message>,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Stored<'a> {
        #[serde(flatten)]
        row: &'a Message,
        search: Vector<'a>,
    }
    let words = rows.values().map(|row| row.content.as_deref());
    let vectors = lexicon.vectors(conn, words).await?;
    let rows = rows.iter().zip(vectors.iter());
    let (there, new): (Vec<_>, Vec<_>) = rows.partition(|((key, _), _)| known.contains(key));
    let stored = |((_, row), search)| Stored { row, search };
    let there: Vec<_> = there.into_iter().map(stored).collect();
    let new: Vec<_> = new.into_iter().map(stored).collect();
    TABLE.upsert(conn, &there).await?;
    TABLE.insert(conn, &new).await
}

const TABLE: Table = Table {
    name: "messages",
    key: &["interaction_id", "id"],
    columns: &[
        "direction",
        "content",
        "kind",
        "media",
        "details",
        "status",
        "provider",
        "provider_message_id",
        "error_code",
        "error_message",
        "created_at",
        "sent_at",
        "delivered_at",
        "read_at",
        "failed_at",
        "updated_at",
        "first_position",
    ],
    searchable: true,
};

impl FromRow<'_, PgRow> for Message {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(media) = row.try_get("media")?;
        let Json(details) = row.try_get("details")?;
        Ok(Self {
            interaction_id: row.try_get("interaction_id")?,
            id: row.try_get("id")?,
            direction: word(row, "direction")?,
            content: row.try_get("content")?,
            kind: optional_word(row, "kind")?,
            media,
            details,
            status: word(row, "status")?,
            provider: optional_word(row, "provider")?,
            provider_message_id: row.try_get("provider_message_id")?,
            error_code: row.try_get("error_code")?,
            error_message: row.try_get("error_message")?,
            created_at: row.try_get("created_at")?,
            sent_at: row.try_get("sent_at")?,
            delivered_at: row.try_get("delivered_at")?,
            read_at: row.try_get("read_at")?,
            failed_at: row.try_get("failed_at")?,
            updated_at: row.try_get("updated_at")?,
            first_position: row.try_get("first_position")?,
        })
    }
}
