//! The row of `call_attempts`, the history of a group's calls, and the calls
//! of which webhooks are missing.

use chrono::{DateTime, Utc};
use domain::call::Outcome;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use crate::sql::{Table, word};
use crate::{text, time};

/// A row of `call_attempts`: one call that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Attempt {
    pub(super) batch_key: String,
    pub(super) recipient_id: String,
    pub(super) conversation_id: String,
    pub(super) group_id: Option<i32>,
    pub(super) attempt: i32,
    pub(super) phone_number: Option<String>,
    pub(super) client_id: Option<i32>,
    pub(super) status: Outcome,
    pub(super) called_at: DateTime<Utc>,
    pub(super) ended_at: Option<DateTime<Utc>>,
    pub(super) duration_secs: Option<i64>,
    pub(super) failure_reason: Option<String>,
    pub(super) call_sid: Option<String>,
    pub(super) missing_since: Option<DateTime<Utc>>,
}

/// One call that was tried, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryEntry {
    /// The provider's id of the session, which is the interaction's id.
    pub conversation_id: String,
    /// The batch: the provider's id of it, or ours before it had one.
    pub batch_id: String,
    /// Its name.
    pub call_name: String,
    /// The provider's id of the recipient.
    pub recipient_id: String,
    /// The client of the group.
    pub client_id: Option<i32>,
    /// Personal.
    pub phone_number: Option<String>,
    /// What the agent was told of them. Personal.
    pub variables: Map<String, Value>,
    /// Which of the recipient's calls, from 1.
    pub attempt: i32,
    /// How it ended, or stands.
    pub status: Outcome,
    /// When it began, or was first heard of.
    pub called_at: DateTime<Utc>,
    /// When it ended, as far as webhooks or the carrier told.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it lasted, in seconds.
    pub duration_secs: Option<i64>,
    /// Why it could not be started.
    pub failure_reason: Option<String>,
    /// The provider's summary. Personal.
    pub summary: Option<String>,
    /// Whether a recording exists, here or at the provider.
    pub has_audio: bool,
}

/// Where a page of the history ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryCursor {
    /// Of the last row.
    pub called_at: DateTime<Utc>,
    /// Of the last row.
    pub conversation_id: String,
}

impl HistoryEntry {
    /// The cursor of a page that ends with this row.
    pub fn cursor(&self) -> HistoryCursor {
        HistoryCursor {
            called_at: self.called_at,
            conversation_id: self.conversation_id.clone(),
        }
    }
}

const HISTORY: &str = "select a.conversation_id, coalesce(b.batch_id, b.id) as batch_id,
        b.call_name, a.recipient_id, a.client_id, a.phone_number, r.variables, a.attempt, a.status,
        a.called_at, a.ended_at, a.duration_secs, a.failure_reason, d.summary,
        coalesce(d.has_audio, false) as has_audio
    from (select * from call_attempts
          where group_id = $1 and ($2::timestamptz is null or (called_at, conversation_id) < ($2, $3))
          order by called_at desc, conversation_id desc limit $4) as a
    join batches b on b.id = a.batch_key
    join batch_recipients r on r.batch_key = a.batch_key and r.id = a.recipient_id
    left join call_details d on d.interaction_id = a.conversation_id
    order by a.called_at desc, a.conversation_id desc";

/// The calls that were tried for a group, newest first, at most `limit`, after
/// a cursor.
///
/// # Errors
/// When the database fails.
pub async fn call_history(
    conn: &mut PgConnection,
    group_id: i32,
    after: Option<&HistoryCursor>,
    limit: i64,
) -> sqlx::Result<Vec<HistoryEntry>> {
    let cursor = after.map(|after| time::askable(after.called_at));
    sqlx::query_as(HISTORY)
        .bind(group_id)
        .bind(cursor)
        .bind(after.map(|after| text::key(&after.conversation_id)))
        .bind(limit)
        // Not kept: planned for whether there is a cursor.
        .persistent(false)
        .fetch_all(conn)
        .await
}

impl FromRow<'_, PgRow> for HistoryEntry {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(variables) = row.try_get("variables")?;
        Ok(Self {
            conversation_id: row.try_get("conversation_id")?,
            batch_id: row.try_get("batch_id")?,
            call_name: row.try_get("call_name")?,
            recipient_id: row.try_get("recipient_id")?,
            client_id: row.try_get("client_id")?,
            phone_number: row.try_get("phone_number")?,
            variables,
            attempt: row.try_get("attempt")?,
            status: word(row, "status")?,
            called_at: row.try_get("called_at")?,
            ended_at: row.try_get("ended_at")?,
            duration_secs: row.try_get("duration_secs")?,
            failure_reason: row.try_get("failure_reason")?,
            summary: row.try_get("summary")?,
            has_audio: row.try_get("has_audio")?,
        })
    }
}

/// A call of which the provider's webhook has not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingCall {
    /// Our id of the batch.
    pub batch: String,
    /// The provider's id of the recipient.
    pub recipient_id: String,
    /// The provider's id of the session.
    pub conversation_id: String,
    /// How it ended, by the provider's list or the carrier.
    pub status: Outcome,
    /// When it ended, by them.
    pub ended_at: DateTime<Utc>,
}

/// The calls that ended within this time by the provider's list or the
/// carrier, and of which the ledger has neither a report nor the word that
/// they could not be started; the longest ago first, at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn missing_calls(
    conn: &mut PgConnection,
    ended_after: DateTime<Utc>,
    ended_before: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<MissingCall>> {
    let sql = "select a.batch_key, a.recipient_id, a.conversation_id, a.status, a.missing_since
               from call_attempts a join batches b on b.id = a.batch_key
               where a.missing_since > $1 and a.missing_since < $2 and b.duplicate_of is null
               order by a.missing_since, a.conversation_id limit $3";
    sqlx::query_as(sql)
        .bind(time::askable(ended_after))
        .bind(time::askable(ended_before))
        .bind(limit)
        .fetch_all(conn)
        .await
}

impl FromRow<'_, PgRow> for MissingCall {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            batch: row.try_get("batch_key")?,
            recipient_id: row.try_get("recipient_id")?,
            conversation_id: row.try_get("conversation_id")?,
            status: word(row, "status")?,
            ended_at: row.try_get("missing_since")?,
        })
    }
}

/// The conversations that ended within this time, whose report says that there
/// is a recording, and whose recording is not on the ledger; the longest ago
/// first, at most `limit`. Of all calls, not only those of batches.
///
/// # Errors
/// When the database fails.
pub async fn missing_recordings(
    conn: &mut PgConnection,
    ended_after: DateTime<Utc>,
    ended_before: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    let sql = "select i.conversation_id
               from call_details d join interactions i on i.id = d.interaction_id
               where d.has_audio and d.audio_delivery_id is null and i.conversation_id is not null
                   and i.ended_at > $1 and i.ended_at < $2
               order by i.ended_at, i.id limit $3";
    sqlx::query_scalar(sql)
        .bind(time::askable(ended_after))
        .bind(time::askable(ended_before))
        .bind(limit)
        .fetch_all(conn)
        .await
}

const TABLE: Table = Table {
    name: "call_attempts",
    key: &["batch_key", "recipient_id", "conversation_id"],
    columns: &[
        "group_id",
        "attempt",
        "phone_number",
        "client_id",
        "status",
        "called_at",
        "ended_at",
        "duration_secs",
        "failure_reason",
        "call_sid",
        "missing_since",
    ],
    searchable: false,
};

impl FromRow<'_, PgRow> for Attempt {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            batch_key: row.try_get("batch_key")?,
            recipient_id: row.try_get("recipient_id")?,
            conversation_id: row.try_get("conversation_id")?,
            group_id: row.try_get("group_id")?,
            attempt: row.try_get("attempt")?,
            phone_number: row.try_get("phone_number")?,
            client_id: row.try_get("client_id")?,
            status: word(row, "status")?,
            called_at: row.try_get("called_at")?,
            ended_at: row.try_get("ended_at")?,
            duration_secs: row.try_get("duration_secs")?,
            failure_reason: row.try_get("failure_reason")?,
            call_sid: row.try_get("call_sid")?,
            missing_since: row.try_get("missing_since")?,
        })
    }
}

/// The recipients, by batch and id, whose calls these conversations are.
pub(super) async fn recipients_of(
    conn: &mut PgConnection,
    conversations: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    let sql = "select distinct batch_key, recipient_id from call_attempts
               where conversation_id = any($1)";
    sqlx::query_as(sql)
        .bind(conversations)
        .fetch_all(conn)
        .await
}

/// The rows of these recipients.
pub(super) async fn load(
    conn: &mut PgConnection,
    recipients: &[(&str, &str)],
) -> sqlx::Result<Vec<Attempt>> {
    let (batches, ids): (Vec<_>, Vec<_>) = recipients.iter().copied().unzip();
    let columns = TABLE.columns.join(", ");
    let sql = format!(
        "select batch_key, recipient_id, conversation_id, {columns} from call_attempts
         join unnest($1::text[], $2::text[]) as wanted (batch_key, recipient_id)
             using (batch_key, recipient_id)"
    );
    sqlx::query_as(&sql)
        .bind(batches)
        .bind(ids)
        .fetch_all(conn)
        .await
}

pub(super) async fn save(conn: &mut PgConnection, rows: &[&Attempt]) -> anyhow::Result<()> {
    TABLE.upsert(conn, rows).await
}

/// Takes away calls that turned out to be somebody else's.
pub(super) async fn remove(conn: &mut PgConnection, rows: &[&Attempt]) -> anyhow::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&Attempt) -> &str| rows.iter().map(|row| of(row)).collect::<Vec<_>>();
    let sql = "delete from call_attempts a
               using unnest($1::text[], $2::text[], $3::text[]) as gone (batch_key, recipient_id, conversation_id)
               where a.batch_key = gone.batch_key and a.recipient_id = gone.recipient_id
                   and a.conversation_id = gone.conversation_id";
    sqlx::query(sql)
        .bind(column(|row| &row.batch_key))
        .bind(column(|row| &row.recipient_id))
        .bind(column(|row| &row.conversation_id))
        .execute(conn)
        .await?;
    Ok(())
}
