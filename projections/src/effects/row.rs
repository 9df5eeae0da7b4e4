//! The rows of `effects` and of the tables beside it.

use chrono::{DateTime, Utc};
use domain::conversation::{self, Status, Template};
use domain::effect::Kind;
use domain::{Channel, Provider};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use crate::sql::{Table, optional_word, word};

/// Where an effect stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Owed, never tried or to be tried again.
    Waiting,
    /// An attempt is being made.
    Attempted,
    /// The last attempt may have arrived.
    Uncertain,
    /// The provider took it and could not deliver it: to be looked at.
    Bounced,
    /// Given up until a person wants it tried again.
    Dead,
    /// Done.
    Done,
    /// Not owed any more.
    Dropped,
}

impl State {
    /// Every state.
    pub const ALL: &[Self] = &[
        Self::Waiting,
        Self::Attempted,
        Self::Uncertain,
        Self::Bounced,
        Self::Dead,
        Self::Done,
        Self::Dropped,
    ];

    /// The name as it is stored and served.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Attempted => "attempted",
            Self::Uncertain => "uncertain",
            Self::Bounced => "bounced",
            Self::Dead => "dead",
            Self::Done => "done",
            Self::Dropped => "dropped",
        }
    }

    /// Whether something is still to be done without a person.
    pub const fn is_open(self) -> bool {
        matches!(
            self,
            Self::Waiting | Self::Attempted | Self::Uncertain | Self::Bounced
        )
    }
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|state| state.as_str() == text);
        let names = || {
            Self::ALL
                .iter()
                .map(|state| state.as_str())
                .collect::<Vec<_>>()
        };
        found
            .copied()
            .ok_or_else(|| format!("must be one of: {}", names().join(", ")))
    }
}

/// Who speaks by an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// The voice agent: silent while a person has taken over.
    Agent,
    /// A person of ours.
    Person,
    /// Nobody: the first message after a call, a one-time code.
    System,
}

impl Author {
    /// The name as it is stored and served.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Person => "person",
            Self::System => "system",
        }
    }
}

impl std::str::FromStr for Author {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Agent, Self::Person, Self::System];
        let found = all.into_iter().find(|author| author.as_str() == text);
        found.ok_or_else(|| format!("unknown author {text}"))
    }
}

/// What to do. Holds the client's number and words: personal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Ask the agent for an answer.
    Turn {
        /// The client's number.
        contact: String,
        /// Through whom the client wrote, and the answer goes.
        provider: Provider,
        /// What the client wrote, in words for the agent.
        said: String,
    },
    /// Send a message.
    Message {
        /// The client's number.
        contact: String,
        /// Through whom.
        provider: Provider,
        /// WhatsApp or SMS.
        channel: Channel,
        /// The words; of a template, what it stands for.
        content: String,
        /// The template that goes instead of the words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<Template>,
    },
    /// Send a one-time code by SMS. The code is made when it is sent.
    Code {
        /// The client's number.
        contact: String,
        /// The challenge.
        challenge_id: String,
    },
}

impl Request {
    /// The client's number.
    pub fn contact(&self) -> &str {
        match self {
            Self::Turn { contact, .. }
            | Self::Message { contact, .. }
            | Self::Code { contact, .. } => contact,
        }
    }

    /// What is owed by it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Turn { .. } => Kind::Turn,
            Self::Message { .. } => Kind::Message,
            Self::Code { .. } => Kind::Code,
        }
    }

    /// Through whom it goes.
    pub const fn provider(&self) -> Provider {
        match self {
            Self::Turn { .. } => Provider::Elevenlabs,
            Self::Message { provider, .. } => *provider,
            Self::Code { .. } => Provider::Twilio,
        }
    }
}

/// A row of `effects`: one debt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// Its stream's id.
    pub id: String,
    /// What is owed.
    pub kind: Kind,
    /// Effects of one lane happen one after another.
    pub lane: String,
    /// The position of what it answers.
    pub ord: i64,
    /// Its place among the messages of one answer; 0 of the turn itself.
    pub part: i32,
    /// Who speaks.
    pub author: Author,
    /// Where it stands.
    pub state: State,
    /// What to do.
    pub request: Request,
    /// Whether free text was refused, so that a template must go.
    pub as_template: bool,
    /// How many attempts were made.
    pub attempts: i32,
    /// How many of them surely came to nothing, since a person last asked for
    /// it.
    pub failures: i32,
    /// When the last was, by the clock of whoever made it.
    pub attempted_at: Option<DateTime<Utc>>,
    /// Not before this.
    pub due_at: Option<DateTime<Utc>>,
    /// Not after this.
    pub expires_at: DateTime<Utc>,
    /// Who took it, or is to.
    pub provider: Option<Provider>,
    /// The provider's id of the message.
    pub provider_message_id: Option<String>,
    /// The HTTP status of the last refusal.
    pub error_status: Option<i32>,
    /// The provider's code of the last refusal.
    pub error_code: Option<String>,
    /// Its words. May repeat the number: personal.
    pub error_message: Option<String>,
    /// Since when it is owed.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A row of `effect_lanes`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lane {
    /// The conversation.
    pub lane: String,
    /// Who speaks for us.
    pub status: Status,
    /// Whether the client wants to hear no more.
    pub opted_out: bool,
    /// The agent of the last call.
    pub agent_id: Option<String>,
    /// Through whom the client wrote last.
    pub provider: Option<Provider>,
}

impl Lane {
    /// Why this author says nothing more here; `None` while they may.
    pub const fn silences(&self, author: Author) -> Option<&'static str> {
        let by_agent = matches!(author, Author::Agent);
        conversation::silenced(self.status, self.opted_out, by_agent)
    }
}

/// A row of `effect_callbacks`.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow)]
pub(super) struct Callback {
    pub(super) provider_message_id: String,
    pub(super) code: Option<String>,
}

pub(super) const COLUMNS: &str = "id, kind, lane, ord, part, author, state, request, as_template,
    attempts, failures, attempted_at, due_at, expires_at, provider, provider_message_id, error_status,
    error_code, error_message, created_at, updated_at";

pub(super) const EFFECTS: Table = Table {
    name: "effects",
    key: &["id"],
    columns: &[
        "kind",
        "lane",
        "ord",
        "part",
        "author",
        "state",
        "request",
        "as_template",
        "attempts",
        "failures",
        "attempted_at",
        "due_at",
        "expires_at",
        "provider",
        "provider_message_id",
        "error_status",
        "error_code",
        "error_message",
        "created_at",
        "updated_at",
    ],
    searchable: false,
};

pub(super) const LANES: Table = Table {
    name: "effect_lanes",
    key: &["lane"],
    columns: &["status", "opted_out", "agent_id", "provider"],
    searchable: false,
};

pub(super) const CALLBACKS: Table = Table {
    name: "effect_callbacks",
    key: &["provider_message_id"],
    columns: &["code"],
    searchable: false,
};

impl FromRow<'_, PgRow> for Effect {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(request) = row.try_get("request")?;
        Ok(Self {
            id: row.try_get("id")?,
            kind: word(row, "kind")?,
            lane: row.try_get("lane")?,
            ord: row.try_get("ord")?,
            part: row.try_get("part")?,
            author: word(row, "author")?,
            state: word(row, "state")?,
            request,
            as_template: row.try_get("as_template")?,
            attempts: row.try_get("attempts")?,
            failures: row.try_get("failures")?,
            attempted_at: row.try_get("attempted_at")?,
            due_at: row.try_get("due_at")?,
            expires_at: row.try_get("expires_at")?,
            provider: optional_word(row, "provider")?,
            provider_message_id: row.try_get("provider_message_id")?,
            error_status: row.try_get("error_status")?,
            error_code: row.try_get("error_code")?,
            error_message: row.try_get("error_message")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

impl FromRow<'_, PgRow> for Lane {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            lane: row.try_get("lane")?,
            status: word(row, "status")?,
            opted_out: row.try_get("opted_out")?,
            agent_id: row.try_get("agent_id")?,
            provider: optional_word(row, "provider")?,
        })
    }
}

/// The effect with this id.
///
/// # Errors
/// When the database fails.
pub async fn get(conn: &mut PgConnection, id: &str) -> sqlx::Result<Option<Effect>> {
    let sql = format!("select {COLUMNS} from effects where id = $1");
    sqlx::query_as(&sql).bind(id).fetch_optional(conn).await
}

/// What the policy knows of a conversation.
///
/// # Errors
/// When the database fails.
pub async fn lane(conn: &mut PgConnection, lane: &str) -> sqlx::Result<Option<Lane>> {
    sqlx::query_as("select * from effect_lanes where lane = $1")
        .bind(lane)
        .fetch_optional(conn)
        .await
}
