//! Read model `interactions`: one row a call, a WhatsApp conversation or an
//! SMS; and the projection of that name, which also owns `interaction_events`,
//! `messages` and `call_details`, for they share what an interaction is.

mod list;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::event::Recorded;
use domain::{Channel, Direction, PhoneIndex, Provider};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};

pub use list::{Cursor, Filter, Listed, ListedRow, list, listed};

pub use crate::past::AsOf;

use crate::call_details::{self, CallDetail};
use crate::engine::Projection;
use crate::interaction::{self, Tables};
use crate::interaction_events::{self, InteractionEvent};
use crate::keys::Opener;
use crate::messages::{self, Message};
use crate::search::Lexicon;
use crate::sql::{Table, optional_word, word};
use crate::{past, text};

/// A row of `interactions`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interaction {
    /// The provider's id of it, or our own of WhatsApp (`wa_…`) and of one-time
    /// codes (`otp_…`).
    pub id: String,
    /// How the person was reached.
    pub channel: Channel,
    /// Whose webhooks told us.
    pub provider: Option<Provider>,
    /// Who began; `None` in a browser, or while nobody has said.
    pub direction: Option<Direction>,
    /// A call's outcome, an SMS's status, or `active` for a conversation. Of a
    /// one-time code `requested`, then that of its SMS, then `verified`.
    pub status: String,
    /// The client's number, E.164 where it is one. Personal.
    pub phone_number: Option<String>,
    /// The voice agent.
    pub agent_id: Option<String>,
    /// The batch the call was part of.
    pub batch_id: Option<String>,
    /// The provider's id of the session.
    pub conversation_id: Option<String>,
    /// The carrier's id of the telephone leg.
    pub call_sid: Option<String>,
    /// When it began, by the provider's word or else its first event.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When the latest of its events happened.
    pub last_event_at: DateTime<Utc>,
    /// How long it lasted, in seconds.
    pub duration_secs: Option<i64>,
    /// The provider's summary. Personal.
    pub summary: Option<String>,
    /// Turns with words in a call; messages elsewhere.
    pub message_count: i64,
    /// The position of its first event.
    pub first_position: i64,
    /// The position of its last event.
    pub last_position: i64,
}

/// An interaction with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detail {
    /// The row.
    pub interaction: Interaction,
    /// What is known of the call; `None` where there was no session.
    pub call: Option<CallDetail>,
    /// The newest messages, at most [`messages::MESSAGES_MAX`], in order.
    pub messages: Vec<Message>,
    /// The newest events, at most [`interaction_events::EVENTS_MAX`], in order.
    pub events: Vec<InteractionEvent>,
}

/// The interaction with this id, or that answers to this name.
///
/// # Errors
/// When the database fails.
pub async fn get(conn: &mut PgConnection, id: &str) -> sqlx::Result<Option<Interaction>> {
    // The row itself comes before one that has it for an alias.
    let sql = format!(
        "select {COLUMNS} from interactions where id = coalesce(
             (select id from interactions where id = $1),
             (select interaction_id from interaction_aliases where alias = $1))"
    );
    sqlx::query_as(&sql)
        .bind(text::key(id))
        .fetch_optional(conn)
        .await
}

/// The positions of an interaction's newest events, in order; `None` when it is
/// unknown.
///
/// # Errors
/// When the database fails.
pub async fn newest_positions(conn: &mut PgConnection, id: &str) -> sqlx::Result<Option<Vec<i64>>> {
    match get(conn, id).await? {
        Some(interaction) => interaction_events::newest(conn, &interaction.id)
            .await
            .map(Some),
        None => Ok(None),
    }
}

/// The interaction with all that belongs to it.
///
/// # Errors
/// When the database fails, or an event cannot be read.
pub async fn detail(
    conn: &mut PgConnection,
    opener: &Opener,
    id: &str,
) -> anyhow::Result<Option<Detail>> {
    let Some(interaction) = get(conn, id).await? else {
        return Ok(None);
    };
    let call = call_details::get(conn, &interaction.id).await?;
    let messages = messages::of_interaction(conn, &interaction.id).await?;
    let events = interaction_events::of_interaction(conn, opener, &interaction.id).await?;
    Ok(Some(Detail::new(interaction, call, messages, events)))
}

/// The interaction as [`detail`] would have shown it once the ledger up to
/// then was folded; `None` if nothing was known of it. It is the same fold
/// over fewer events.
///
/// # Errors
/// When the database fails or an event cannot be read.
pub async fn as_of(
    conn: &mut PgConnection,
    opener: &Opener,
    id: &str,
    then: AsOf,
) -> anyhow::Result<Option<Detail>> {
    let upto = then.position(conn).await?;
    let Some(now) = get(conn, id).await? else {
        return Ok(None);
    };
    let mut tables = Tables::default();
    let positions = interaction_events::positions(conn, &[&now.id], upto).await?;
    past::fold(conn, opener, positions, |page| {
        page.iter().for_each(|recorded| tables.fold(recorded));
    })
    .await?;
    let Some((mut detail, positions)) = tables.into_detail(&text::key(id)) else {
        return Ok(None);
    };
    detail.events =
        interaction_events::at(conn, opener, &detail.interaction.id, &positions).await?;
    Ok(Some(detail))
}

impl Detail {
    /// Where a whole session was text, its turns are its messages.
    pub(crate) fn new(
        interaction: Interaction,
        call: Option<CallDetail>,
        mut messages: Vec<Message>,
        events: Vec<InteractionEvent>,
    ) -> Self {
        if let (Channel::Whatsapp | Channel::Sms, Some(call)) = (interaction.channel, &call) {
            messages.extend(Message::of_turns(&interaction, call));
        }
        Self {
            interaction,
            call,
            messages,
            events,
        }
    }
}

const COLUMNS: &str = "id, channel, provider, direction, status, phone_number, agent_id, batch_id,
    conversation_id, call_sid, started_at, ended_at, last_event_at, duration_secs, summary,
    message_count, first_position, last_position";

impl FromRow<'_, PgRow> for Interaction {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            channel: word(row, "channel")?,
            provider: optional_word(row, "provider")?,
            direction: optional_word(row, "direction")?,
            status: row.try_get("status")?,
            phone_number: row.try_get("phone_number")?,
            agent_id: row.try_get("agent_id")?,
            batch_id: row.try_get("batch_id")?,
            conversation_id: row.try_get("conversation_id")?,
            call_sid: row.try_get("call_sid")?,
            started_at: row.try_get("started_at")?,
            ended_at: row.try_get("ended_at")?,
            last_event_at: row.try_get("last_event_at")?,
            duration_secs: row.try_get("duration_secs")?,
            summary: row.try_get("summary")?,
            message_count: row.try_get("message_count")?,
            first_position: row.try_get("first_position")?,
            last_position: row.try_get("last_position")?,
        })
    }
}

const TABLE: Table = Table {
    name: "interactions",
    key: &["id"],
    columns: &[
        "channel",
        "provider",
        "direction",
        "status",
        "phone_number",
        "phone_key",
        "agent_id",
        "batch_id",
        "conversation_id",
        "call_sid",
        "started_at",
        "ended_at",
        "last_event_at",
        "duration_secs",
        "summary",
        "message_count",
        "first_position",
        "last_position",
    ],
    searchable: false,
};

/// The rows with these ids that there are.
pub(crate) async fn load(conn: &mut PgConnection, ids: &[&str]) -> sqlx::Result<Vec<Interaction>> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let sql = format!("select {COLUMNS} from interactions where id = any($1)");
    sqlx::query_as(&sql).bind(ids).fetch_all(conn).await
}

/// Writes rows, each with the key that its phone is looked up by. `known` are
/// the ids of those that are there already.
pub(crate) async fn save(
    conn: &mut PgConnection,
    phones: &PhoneIndex,
    known: &BTreeSet<String>,
    rows: &BTreeMap<String, Interaction>,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Stored<'a> {
        #[serde(flatten)]
        row: &'a Interaction,
        phone_key: Option<String>,
    }
    let rows = rows.values().map(|row| Stored {
        row,
        phone_key: row.phone_number.as_deref().map(|phone| phones.key(phone)),
    });
    let (there, new): (Vec<_>, Vec<_>) = rows.partition(|stored| known.contains(&stored.row.id));
    TABLE.upsert(conn, &there).await?;
    TABLE.insert(conn, &new).await
}

/// The projection `interactions`.
pub struct Interactions {
    phones: PhoneIndex,
    lexicon: Lexicon,
}

impl Interactions {
    /// With the index under which phones are looked up.
    pub fn new(phones: PhoneIndex) -> Self {
        Self {
            phones,
            lexicon: Lexicon::default(),
        }
    }
}

#[async_trait]
impl Projection for Interactions {
    fn name(&self) -> &'static str {
        "interactions"
    }

    fn version(&self) -> i32 {
        3
    }

    fn tables(&self) -> &'static [&'static str] {
        &[
            "interactions",
            "interaction_aliases",
            "interaction_events",
            "messages",
            "call_details",
        ]
    }

    fn event_types(&self) -> &'static [&'static str] {
        interaction::EVENT_TYPES
    }

    fn is_read_by_key(&self) -> bool {
        true
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        let (mut tables, known) = interaction::load(conn, batch).await?;
        for recorded in batch {
            tables.fold(recorded);
        }
        interaction::save(conn, &self.phones, &self.lexicon, &known, &tables).await
    }
}
