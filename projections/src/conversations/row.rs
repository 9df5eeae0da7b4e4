//! The row of `conversation_state`.

use chrono::{DateTime, Utc};
use domain::Provider;
use domain::conversation::{self, Call, Status};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use super::fold::AGENT;
use super::message::Message;
use crate::search::{Lexicon, Vector};
use crate::sql::{Table, optional_word, word};
use crate::text;

/// A row of `conversation_state`: one client's number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conversation {
    /// `conv_local_` and the key of the number.
    pub id: String,
    /// Personal.
    pub phone_number: String,
    /// The key of the number.
    pub phone_key: String,
    /// As the call's order or else WhatsApp has it. Personal.
    pub client_name: Option<String>,
    /// The call that went on; without one, the last session of text.
    pub elevenlabs_conversation_id: Option<String>,
    /// The agent that goes on.
    pub agent_id: Option<String>,
    /// The batch of the call, by the provider's id.
    pub batch_id: Option<String>,
    /// The recipient in it.
    pub recipient_id: Option<String>,
    /// Who speaks for us.
    pub status: Status,
    /// What was said in the call. Personal.
    pub call_summary: Option<String>,
    /// How long the call was.
    pub call_duration_secs: Option<i64>,
    /// When we last wrote after a call; without one, the first message.
    pub started_at: DateTime<Utc>,
    /// When something was last written or sent.
    pub last_message_at: DateTime<Utc>,
    /// When it was closed, while it is.
    pub closed_at: Option<DateTime<Utc>>,
    /// How many messages there are, both ways.
    pub message_count: i64,
    /// More on the call.
    pub metadata: Metadata,
    /// Through which the client wrote last.
    pub last_provider: Option<Provider>,
    /// When the client wrote last: for 24 hours WhatsApp lets us write freely.
    pub last_inbound_at: Option<DateTime<Utc>>,
    /// Whether the client wants to hear no more.
    pub opted_out: bool,
    /// The person who has taken over, while one has.
    pub escalated_by: Option<String>,
    pub(super) told: Told,
}

/// More on the call that went on, and on the session of text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The name of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_name: Option<String>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<i64>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_name: Option<String>,
    /// The number of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<i64>,
    /// The name of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// The last session in which the agent answered, by the provider's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_session_id: Option<String>,
}

/// What was said of a conversation, so that the order of arrival changes as
/// little as can be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    /// When the client or somebody else first wrote, as far as we know.
    pub(super) first_heard_at: Option<DateTime<Utc>>,
    /// When we first wrote after a call.
    pub(super) first_opened_at: Option<DateTime<Utc>>,
    /// When we last wrote after a call.
    pub(super) last_opened_at: Option<DateTime<Utc>>,
    /// Of those times, the ones since which the client has not written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unanswered: Vec<DateTime<Utc>>,
    /// The position of the client's last message, by the provider's time.
    pub(super) last_inbound: Option<(DateTime<Utc>, i64)>,
    /// The client's name in WhatsApp, and when it was told.
    pub(super) contact_name: Option<(DateTime<Utc>, i64, String)>,
    /// The name in the call's order.
    pub(super) called_name: Option<String>,
    /// The call.
    pub(super) call_conversation_id: Option<String>,
}

impl Conversation {
    /// Why a message of ours is not to be sent any more; `None` while it may.
    pub(super) fn silences(&self, message: &Message) -> Option<&'static str> {
        let by_agent = message.author == AGENT;
        conversation::silenced(self.status, self.opted_out, by_agent)
    }

    /// A conversation of which nothing but its number is known.
    pub(super) fn begin(
        id: String,
        phone_number: &str,
        phone_key: String,
        at: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            phone_number: phone_number.to_owned(),
            phone_key,
            client_name: None,
            elevenlabs_conversation_id: None,
            agent_id: None,
            batch_id: None,
            recipient_id: None,
            status: Status::Active,
            call_summary: None,
            call_duration_secs: None,
            started_at: at,
            last_message_at: at,
            closed_at: None,
            message_count: 0,
            metadata: Metadata::default(),
            last_provider: None,
            last_inbound_at: None,
            opted_out: false,
            escalated_by: None,
            told: Told::default(),
        }
    }

    /// Takes in the call that goes on.
    pub(super) fn take_call(&mut self, call: &Call) {
        let key = |id: &str| text::key(id).into_owned();
        self.agent_id = Some(key(&call.agent_id));
        self.batch_id = call.batch_id.as_deref().map(key);
        self.recipient_id = Some(key(&call.recipient_id));
        self.call_summary.clone_from(&call.call_summary);
        self.call_duration_secs = call.call_duration_secs;
        self.metadata = Metadata {
            batch_name: call.batch_name.clone(),
            group_id: call.group_id,
            group_name: call.group_name.clone(),
            client_id: call.client_id,
            agent_name: call.agent_name.clone(),
            text_session_id: self.metadata.text_session_id.take(),
        };
        self.told.call_conversation_id = call.call_conversation_id.as_deref().map(key);
        if call.client_name.is_some() {
            self.told.called_name.clone_from(&call.client_name);
        }
    }

    /// Takes in a decision on who speaks.
    pub(super) fn decide(&mut self, event: &conversation::Event, at: DateTime<Utc>) {
        use conversation::Event;
        self.turn(self.status.after(event));
        match event {
            Event::Escalated(changed) => self.escalated_by = Some(changed.by.clone()),
            Event::Closed(_) => self.closed_at = Some(at),
            Event::Started(_) | Event::Resumed(_) | Event::MessageWritten(_) => {}
        }
    }

    /// Changes who speaks.
    pub(super) fn turn(&mut self, status: Status) {
        self.status = status;
        if status != Status::Escalated {
            self.escalated_by = None;
        }
        if status != Status::Closed {
            self.closed_at = None;
        }
    }

    /// Sets the columns that follow from what was told.
    pub(super) fn settle(&mut self) {
        let told = &self.told;
        let began = told.last_opened_at.or(told.first_heard_at);
        self.started_at = began.unwrap_or(self.started_at);
        let in_whatsapp = told.contact_name.as_ref().map(|(.., name)| name);
        self.client_name = told.called_name.as_ref().or(in_whatsapp).cloned();
        self.elevenlabs_conversation_id = told
            .call_conversation_id
            .clone()
            .or_else(|| self.metadata.text_session_id.clone());
    }

    /// When it began, where that was not by a first message of ours.
    pub(super) fn begun_by_others_at(&self) -> Option<DateTime<Utc>> {
        let opened = self.told.first_opened_at;
        let heard = self.told.first_heard_at?;
        opened.is_none_or(|opened| heard < opened).then_some(heard)
    }
}

/// The conversation with this id.
///
/// # Errors
/// When the database fails.
pub async fn get(conn: &mut PgConnection, id: &str) -> sqlx::Result<Option<Conversation>> {
    let sql = format!("select {COLUMNS} from conversation_state where id = $1");
    let query = sqlx::query_as(&sql).bind(text::key(id));
    query.fetch_optional(conn).await
}

/// Those of these conversations that there are.
pub(super) async fn load(conn: &mut PgConnection, ids: &[&str]) -> sqlx::Result<Vec<Conversation>> {
    let sql = format!("select {COLUMNS} from conversation_state where id = any($1)");
    sqlx::query_as(&sql).bind(ids).fetch_all(conn).await
}

/// Writes rows, each with the words that it is found by.
pub(super) async fn save(
    conn: &mut PgConnection,
    lexicon: &Lexicon,
    rows: &[&Conversation],
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Stored<'a> {
        #[serde(flatten)]
        row: &'a Conversation,
        search: Vector<'a>,
    }
    let words = rows.iter().map(|row| row.client_name.as_deref());
    let vectors = lexicon.vectors(conn, words).await?;
    let stored = rows.iter().zip(vectors.iter());
    let stored = stored.map(|(row, search)| Stored { row, search });
    TABLE.upsert(conn, &stored.collect::<Vec<_>>()).await
}

pub(super) const COLUMNS: &str = "id, phone_number, phone_key, client_name,
    elevenlabs_conversation_id, agent_id, batch_id, recipient_id, status, call_summary,
    call_duration_secs, started_at, last_message_at, closed_at, message_count, metadata,
    last_provider, last_inbound_at, opted_out, escalated_by, told";

const TABLE: Table = Table {
    name: "conversation_state",
    key: &["id"],
    columns: &[
        "phone_number",
        "phone_key",
        "client_name",
        "elevenlabs_conversation_id",
        "agent_id",
        "batch_id",
        "recipient_id",
        "status",
        "call_summary",
        "call_duration_secs",
        "started_at",
        "last_message_at",
        "closed_at",
        "message_count",
        "metadata",
        "last_provider",
        "last_inbound_at",
        "opted_out",
        "escalated_by",
        "told",
    ],
    searchable: true,
};

impl FromRow<'_, PgRow> for Conversation {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(metadata) = row.try_get("metadata")?;
        let Json(told) = row.try_get("told")?;
        Ok(Self {
            id: row.try_get("id")?,
            phone_number: row.try_get("phone_number")?,
            phone_key: row.try_get("phone_key")?,
            client_name: row.try_get("client_name")?,
            elevenlabs_conversation_id: row.try_get("elevenlabs_conversation_id")?,
            agent_id: row.try_get("agent_id")?,
            batch_id: row.try_get("batch_id")?,
            recipient_id: row.try_get("recipient_id")?,
            status: word(row, "status")?,
            call_summary: row.try_get("call_summary")?,
            call_duration_secs: row.try_get("call_duration_secs")?,
            started_at: row.try_get("started_at")?,
            last_message_at: row.try_get("last_message_at")?,
            closed_at: row.try_get("closed_at")?,
            message_count: row.try_get("message_count")?,
            metadata,
            last_provider: optional_word(row, "last_provider")?,
            last_inbound_at: row.try_get("last_inbound_at")?,
            opted_out: row.try_get("opted_out")?,
            escalated_by: row.try_get("escalated_by")?,
            told,
        })
    }
}
