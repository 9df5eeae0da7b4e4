//! The row of `batches`.

use chrono::{DateTime, Utc};
use domain::batch::{self, Counts, Order, Status};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use crate::sql::{Table, word};
use crate::text;

/// A row of `batches`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Batch {
    /// Our id.
    pub id: String,
    /// The provider's id, once it has one.
    pub batch_id: Option<String>,
    /// What it is called. Not unique.
    pub call_name: String,
    /// How it stands, webhooks and carrier included.
    pub status: Status,
    /// The agent that speaks.
    pub agent_id: String,
    /// Its name.
    pub agent_name: Option<String>,
    /// The provider's id of our number.
    pub phone_number_id: Option<String>,
    /// Through whom, in the provider's word.
    pub phone_provider: Option<String>,
    /// The group that is called.
    pub group_id: Option<i32>,
    /// The call of the group: the same in all its batches.
    pub group_call_id: Option<String>,
    /// Which of them, from 0.
    pub part: Option<i32>,
    /// How many they are.
    pub parts: Option<i32>,
    /// Who ordered it; `None` where it was not ordered here.
    pub requested_by: Option<String>,
    /// When it was ordered, or else when the provider made it.
    pub created_at: DateTime<Utc>,
    /// When the provider made it.
    pub created_at_unix: Option<i64>,
    /// When it begins or began.
    pub scheduled_time_unix: Option<i64>,
    /// When the provider last changed it.
    pub last_updated_at_unix: Option<i64>,
    /// Calls placed, by the provider's count.
    pub total_calls_dispatched: i64,
    /// Calls to place, by the provider's count; before it has told, ours.
    pub total_calls_scheduled: i64,
    /// Calls that are over, by the provider's count.
    pub total_calls_finished: Option<i64>,
    /// How often it was retried.
    pub retry_count: i64,
    /// How many recipients stand how.
    #[serde(flatten)]
    pub counts: Counts,
    /// Whether an order to submit, cancel or retry it is on its way.
    pub has_open_order: bool,
    /// Whether the provider has it and may still change it.
    pub is_unsettled: bool,
    /// The order that it turned out to be, where it was discovered first.
    pub duplicate_of: Option<String>,
    /// What its own stream adds up to, without the recipients.
    #[serde(skip)]
    pub(super) state: batch::Batch,
}

impl Batch {
    /// The id under which people know it: the provider's, once it has one.
    pub fn shown_id(&self) -> &str {
        self.batch_id.as_deref().unwrap_or(&self.id)
    }

    /// Where submitting it stands.
    pub const fn submit(&self) -> &Order {
        self.state.submit()
    }

    /// Where cancelling it stands.
    pub const fn cancel(&self) -> &Order {
        self.state.cancel()
    }

    /// Where retrying it stands.
    pub const fn retry(&self) -> &Order {
        self.state.retry()
    }
}

pub(super) const COLUMNS: &str = "id, batch_id, call_name, status, agent_id, agent_name,
    phone_number_id, phone_provider, group_id, group_call_id, part, parts, requested_by,
    created_at, created_at_unix, scheduled_time_unix, last_updated_at_unix,
    total_calls_dispatched, total_calls_scheduled, total_calls_finished, retry_count,
    recipients_count, pending, in_progress, completed, failed, cancelled, voicemail,
    has_open_order, is_unsettled, duplicate_of, state";

const TABLE: Table = Table {
    name: "batches",
    key: &["id"],
    columns: &[
        "batch_id",
        "call_name",
        "status",
        "agent_id",
        "agent_name",
        "phone_number_id",
        "phone_provider",
        "group_id",
        "group_call_id",
        "part",
        "parts",
        "requested_by",
        "created_at",
        "created_at_unix",
        "scheduled_time_unix",
        "last_updated_at_unix",
        "total_calls_dispatched",
        "total_calls_scheduled",
        "total_calls_finished",
        "retry_count",
        "recipients_count",
        "pending",
        "in_progress",
        "completed",
        "failed",
        "cancelled",
        "voicemail",
        "has_open_order",
        "is_unsettled",
        "duplicate_of",
        "state",
    ],
    searchable: false,
};

impl FromRow<'_, PgRow> for Batch {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(state) = row.try_get("state")?;
        Ok(Self {
            id: row.try_get("id")?,
            batch_id: row.try_get("batch_id")?,
            call_name: row.try_get("call_name")?,
            status: word(row, "status")?,
            agent_id: row.try_get("agent_id")?,
            agent_name: row.try_get("agent_name")?,
            phone_number_id: row.try_get("phone_number_id")?,
            phone_provider: row.try_get("phone_provider")?,
            group_id: row.try_get("group_id")?,
            group_call_id: row.try_get("group_call_id")?,
            part: row.try_get("part")?,
            parts: row.try_get("parts")?,
            requested_by: row.try_get("requested_by")?,
            created_at: row.try_get("created_at")?,
            created_at_unix: row.try_get("created_at_unix")?,
            scheduled_time_unix: row.try_get("scheduled_time_unix")?,
            last_updated_at_unix: row.try_get("last_updated_at_unix")?,
            total_calls_dispatched: row.try_get("total_calls_dispatched")?,
            total_calls_scheduled: row.try_get("total_calls_scheduled")?,
            total_calls_finished: row.try_get("total_calls_finished")?,
            retry_count: row.try_get("retry_count")?,
            counts: Counts {
                total: row.try_get("recipients_count")?,
                pending: row.try_get("pending")?,
                in_progress: row.try_get("in_progress")?,
                completed: row.try_get("completed")?,
                failed: row.try_get("failed")?,
                cancelled: row.try_get("cancelled")?,
                voicemail: row.try_get("voicemail")?,
            },
            has_open_order: row.try_get("has_open_order")?,
            is_unsettled: row.try_get("is_unsettled")?,
            duplicate_of: row.try_get("duplicate_of")?,
            state,
        })
    }
}

/// The batch with this id, ours or the provider's.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: &mut PgConnection, id: &str) -> sqlx::Result<Option<Batch>> {
    // Of a batch that was discovered and turned out to be an order: the order.
    let sql = format!(
        "select {COLUMNS} from batches where id = (
             select coalesce(duplicate_of, id) from batches where id = $1 or batch_id = $1
             order by duplicate_of nulls first, id limit 1)"
    );
    sqlx::query_as(&sql)
        .bind(text::key(id))
        .fetch_optional(conn)
        .await
}

/// The rows with these ids, or with these ids of the provider, that there are.
pub(super) async fn load(
    conn: &mut PgConnection,
    ids: &[&str],
    provider_ids: &[&str],
) -> sqlx::Result<Vec<Batch>> {
    let sql = format!("select {COLUMNS} from batches where id = any($1) or batch_id = any($2)");
    sqlx::query_as(&sql)
        .bind(ids)
        .bind(provider_ids)
        .fetch_all(conn)
        .await
}

pub(super) async fn save(conn: &mut PgConnection, rows: &[&Batch]) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Stored<'a> {
        #[serde(flatten)]
        row: &'a Batch,
        recipients_count: i64,
        state: &'a batch::Batch,
    }
    let rows: Vec<_> = rows
        .iter()
        .map(|row| Stored {
            row,
            recipients_count: row.counts.total,
            state: &row.state,
        })
        .collect();
    TABLE.upsert(conn, &rows).await
}
