//! The row of `batch_recipients`, and what is shown of a batch's recipients.

use chrono::{DateTime, Utc};
use domain::batch::Sightings;
use domain::call::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use crate::sql::{Table, word};

/// A row of `batch_recipients`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Recipient {
    /// Our id of the batch.
    pub(super) batch_key: String,
    pub(super) id: String,
    pub(super) place: i32,
    pub(super) phone_number: Option<String>,
    pub(super) client_id: Option<i32>,
    pub(super) variables: Map<String, Value>,
    pub(super) status: Outcome,
    pub(super) conversation_id: Option<String>,
    pub(super) called_at: Option<DateTime<Utc>>,
    pub(super) call_duration: Option<i64>,
    pub(super) attempts: i32,
    pub(super) created_at_unix: Option<i64>,
    pub(super) updated_at_unix: Option<i64>,
    pub(super) seen: Sightings,
}

/// A recipient of a batch, with what was said to them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Enriched {
    /// The provider's id of them.
    pub id: String,
    /// Personal.
    pub phone_number: Option<String>,
    /// The client of the group.
    pub client_id: Option<i32>,
    /// How they stand.
    pub status: Outcome,
    /// The current call; `None` while they wait for one.
    pub conversation_id: Option<String>,
    /// When that call began.
    pub called_at: Option<DateTime<Utc>>,
    /// How long it lasted, in seconds, whoever told.
    pub call_duration: Option<i64>,
    /// How many calls were tried.
    pub attempts: i32,
    /// What the agent was told of them. Personal.
    pub variables: Map<String, Value>,
    /// When the provider made the entry.
    pub created_at_unix: Option<i64>,
    /// When it last changed it.
    pub updated_at_unix: Option<i64>,
    /// Whether the provider's report of the call is on the ledger. While it is
    /// not, what follows is empty.
    pub has_report: bool,
    /// The provider's summary. Personal.
    pub summary: Option<String>,
    /// How long the call lasted, in seconds, by the provider's report.
    pub duration_secs: Option<i64>,
    /// What was said, in order, turns without words left out. Personal.
    pub transcript: Vec<Spoken>,
    /// Whether a recording exists, here or at the provider. It is that of the
    /// interaction with the id `conversation_id`.
    pub has_audio: bool,
}

/// Something said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken {
    /// `user` or `agent`.
    pub role: String,
    /// The words. Personal.
    pub message: String,
}

/// All recipients of a batch, by our id of it, in the order in which they were
/// ordered, with what is known of their calls: one statement.
///
/// # Errors
/// When the database fails.
pub async fn recipients(conn: &mut PgConnection, id: &str) -> sqlx::Result<Vec<Enriched>> {
    // An interaction has the id of its conversation.
    let sql = "select r.id, r.phone_number, r.client_id, r.status, r.conversation_id, r.called_at,
            r.call_duration, r.attempts, r.variables, r.created_at_unix, r.updated_at_unix,
            d.provider_status is not null as has_report, d.summary,
            case when d.provider_status is not null then d.duration_secs end as duration_secs,
            d.transcript, coalesce(d.has_audio, false) as has_audio
        from batch_recipients r
        left join call_details d on d.interaction_id = r.conversation_id
        where r.batch_key = $1 order by r.place, r.id";
    sqlx::query_as(sql).bind(id).fetch_all(conn).await
}

impl FromRow<'_, PgRow> for Enriched {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        /// A turn may have used a tool only.
        #[derive(Deserialize)]
        struct Turn {
            role: String,
            message: Option<String>,
        }
        let Json(variables) = row.try_get("variables")?;
        let turns: Option<Json<Vec<Turn>>> = row.try_get("transcript")?;
        let turns = turns.map_or_else(Vec::new, |Json(turns)| turns);
        let spoken = turns.into_iter().filter_map(|turn| {
            let message = turn.message?;
            Some(Spoken {
                role: turn.role,
                message,
            })
        });
        Ok(Self {
            id: row.try_get("id")?,
            phone_number: row.try_get("phone_number")?,
            client_id: row.try_get("client_id")?,
            status: word(row, "status")?,
            conversation_id: row.try_get("conversation_id")?,
            called_at: row.try_get("called_at")?,
            call_duration: row.try_get("call_duration")?,
            attempts: row.try_get("attempts")?,
            variables,
            created_at_unix: row.try_get("created_at_unix")?,
            updated_at_unix: row.try_get("updated_at_unix")?,
            has_report: row.try_get("has_report")?,
            summary: row.try_get("summary")?,
            duration_secs: row.try_get("duration_secs")?,
            transcript: spoken.collect(),
            has_audio: row.try_get("has_audio")?,
        })
    }
}

const TABLE: Table = Table {
    name: "batch_recipients",
    key: &["batch_key", "id"],
    columns: &[
        "place",
        "phone_number",
        "client_id",
        "variables",
        "status",
        "conversation_id",
        "called_at",
        "call_duration",
        "attempts",
        "created_at_unix",
        "updated_at_unix",
        "seen",
    ],
    searchable: false,
};

impl FromRow<'_, PgRow> for Recipient {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(variables) = row.try_get("variables")?;
        let Json(seen) = row.try_get("seen")?;
        Ok(Self {
            batch_key: row.try_get("batch_key")?,
            id: row.try_get("id")?,
            place: row.try_get("place")?,
            phone_number: row.try_get("phone_number")?,
            client_id: row.try_get("client_id")?,
            variables,
            status: word(row, "status")?,
            conversation_id: row.try_get("conversation_id")?,
            called_at: row.try_get("called_at")?,
            call_duration: row.try_get("call_duration")?,
            attempts: row.try_get("attempts")?,
            created_at_unix: row.try_get("created_at_unix")?,
            updated_at_unix: row.try_get("updated_at_unix")?,
            seen,
        })
    }
}

const COLUMNS: &str = "r.batch_key, r.id, r.place, r.phone_number, r.client_id, r.variables,
    r.status, r.conversation_id, r.called_at, r.call_duration, r.attempts, r.created_at_unix,
    r.updated_at_unix, r.seen";

/// The rows with these keys that there are.
pub(super) async fn load(
    conn: &mut PgConnection,
    keys: &[(&str, &str)],
) -> sqlx::Result<Vec<Recipient>> {
    let (batches, ids): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    let sql = format!(
        "select {COLUMNS} from batch_recipients r
         join unnest($1::text[], $2::text[]) as wanted (batch_key, id) using (batch_key, id)"
    );
    sqlx::query_as(&sql)
        .bind(batches)
        .bind(ids)
        .fetch_all(conn)
        .await
}

/// All of these batches.
pub(super) async fn load_of(
    conn: &mut PgConnection,
    batches: &[&str],
) -> sqlx::Result<Vec<Recipient>> {
    let sql = format!("select {COLUMNS} from batch_recipients r where batch_key = any($1)");
    sqlx::query_as(&sql).bind(batches).fetch_all(conn).await
}

/// Those of these batches with these numbers.
pub(super) async fn load_by_phone(
    conn: &mut PgConnection,
    keys: &[(&str, &str)],
) -> sqlx::Result<Vec<Recipient>> {
    let (batches, phones): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    let sql = format!(
        "select {COLUMNS} from batch_recipients r
         join (select distinct * from unnest($1::text[], $2::text[])) as wanted (batch_key, phone_number)
             using (batch_key, phone_number)"
    );
    sqlx::query_as(&sql)
        .bind(batches)
        .bind(phones)
        .fetch_all(conn)
        .await
}

pub(super) async fn save(conn: &mut PgConnection, rows: &[&Recipient]) -> anyhow::Result<()> {
    TABLE.upsert(conn, rows).await
}

/// Takes away rows that have got another id.
pub(super) async fn remove(conn: &mut PgConnection, keys: &[(&str, &str)]) -> anyhow::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let (batches, ids): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    let sql = "delete from batch_recipients r
               using unnest($1::text[], $2::text[]) as gone (batch_key, id)
               where r.batch_key = gone.batch_key and r.id = gone.id";
    sqlx::query(sql)
        .bind(batches)
        .bind(ids)
        .execute(conn)
        .await?;
    Ok(())
}
