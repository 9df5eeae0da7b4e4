//! Read model `interaction_events`: what happened in an interaction, in the
//! order in which the ledger took it.

use chrono::{DateTime, Utc};
use domain::Provider;
use domain::event::Recorded;
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::sql::{Table, optional_word};

/// Most events of one interaction that are shown: the newest.
pub const EVENTS_MAX: usize = 2_000;

/// A row of `interaction_events`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InteractionEvent {
    /// The interaction it belongs to.
    pub interaction_id: String,
    /// Its place in the ledger.
    pub position: i64,
    /// Its type, such as `call.completed`.
    pub r#type: String,
    /// When it happened, by the provider's word or else the time of receipt.
    pub occurred_at: DateTime<Utc>,
    /// When the ledger took it.
    pub recorded_at: DateTime<Utc>,
    /// The provider that told us.
    pub provider: Option<Provider>,
    /// The delivery that brought it.
    pub delivery_id: Option<Uuid>,
    /// What it says, in our words. Personal.
    pub payload: Value,
}

impl InteractionEvent {
    /// The row of an event.
    pub(crate) fn new(interaction_id: &str, recorded: &Recorded) -> Self {
        Self {
            interaction_id: interaction_id.to_owned(),
            position: recorded.position,
            r#type: recorded.event.name().to_owned(),
            occurred_at: recorded.occurred_at,
            recorded_at: recorded.recorded_at,
            provider: recorded.provider,
            delivery_id: recorded.delivery_id,
            // It was read from JSON, so it can be written as JSON.
            payload: serde_json::to_value(&recorded.event).unwrap_or_default(),
        }
    }
}

/// The newest events of an interaction, in order.
///
/// # Errors
/// When the database fails.
pub async fn of_interaction(
    conn: &mut PgConnection,
    interaction_id: &str,
) -> sqlx::Result<Vec<InteractionEvent>> {
    let sql = "select * from (
                   select interaction_id, position, type, occurred_at, recorded_at, provider,
                          delivery_id, payload
                   from interaction_events where interaction_id = $1
                   order by position desc limit $2) as newest
               order by position";
    sqlx::query_as(sql)
        .bind(interaction_id)
        .bind(EVENTS_MAX as i64)
        .fetch_all(conn)
        .await
}

/// The positions of an interaction's events up to one, in order.
pub(crate) async fn positions(
    conn: &mut PgConnection,
    interaction_id: &str,
    upto: i64,
) -> sqlx::Result<Vec<i64>> {
    let sql = "select position from interaction_events
               where interaction_id = $1 and position <= $2 order by position";
    sqlx::query_scalar(sql)
        .bind(interaction_id)
        .bind(upto)
        .fetch_all(conn)
        .await
}

const TABLE: Table = Table {
    name: "interaction_events",
    key: &["interaction_id", "position"],
    columns: &[
        "type",
        "occurred_at",
        "recorded_at",
        "provider",
        "delivery_id",
        "payload",
    ],
    searchable: false,
};

/// Writes new rows. One that is there already would be an event folded twice,
/// which must fail.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    rows: &[InteractionEvent],
) -> anyhow::Result<()> {
    TABLE.insert(conn, rows).await
}

impl FromRow<'_, PgRow> for InteractionEvent {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(payload) = row.try_get("payload")?;
        Ok(Self {
            interaction_id: row.try_get("interaction_id")?,
            position: row.try_get("position")?,
            r#type: row.try_get("type")?,
            occurred_at: row.try_get("occurred_at")?,
            recorded_at: row.try_get("recorded_at")?,
            provider: optional_word(row, "provider")?,
            delivery_id: row.try_get("delivery_id")?,
            payload,
        })
    }
}
