//! Read model `interaction_events`: what happened in an interaction, in the
//! order in which the ledger took it.

use chrono::{DateTime, Utc};
use domain::Provider;
use domain::event::Recorded;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::feed;
use crate::keys::Opener;
use crate::sql::Table;

/// Most events of one interaction that are shown: the newest.
pub const EVENTS_MAX: usize = 2_000;

/// An event, as the timeline shows it.
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
    fn new(interaction_id: &str, recorded: &Recorded) -> Self {
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
/// When the database fails, or an event cannot be read.
pub async fn of_interaction(
    conn: &mut PgConnection,
    opener: &Opener,
    interaction_id: &str,
) -> anyhow::Result<Vec<InteractionEvent>> {
    let positions = newest(conn, interaction_id).await?;
    at(conn, opener, interaction_id, &positions).await
}

/// The positions of the newest events of an interaction, in order.
pub(crate) async fn newest(
    conn: &mut PgConnection,
    interaction_id: &str,
) -> sqlx::Result<Vec<i64>> {
    let sql = "select position from interaction_events where interaction_id = $1
               order by position desc limit $2";
    let query = sqlx::query_scalar(sql).bind(interaction_id);
    let mut positions: Vec<i64> = query.bind(EVENTS_MAX as i64).fetch_all(conn).await?;
    positions.reverse();
    Ok(positions)
}

/// An interaction's events at these positions, in order.
pub(crate) async fn at(
    conn: &mut PgConnection,
    opener: &Opener,
    interaction_id: &str,
    positions: &[i64],
) -> anyhow::Result<Vec<InteractionEvent>> {
    let recorded = feed::read_positions(conn, opener, positions).await?;
    let events = recorded.iter();
    Ok(events
        .map(|recorded| InteractionEvent::new(interaction_id, recorded))
        .collect())
}

/// The positions of the events of interactions up to one.
pub(crate) async fn positions(
    conn: &mut PgConnection,
    interaction_ids: &[&str],
    upto: i64,
) -> sqlx::Result<Vec<i64>> {
    let sql = "select position from interaction_events
               where interaction_id = any($1) and position <= $2";
    sqlx::query_scalar(sql)
        .bind(interaction_ids)
        .bind(upto)
        .fetch_all(conn)
        .await
}

/// A row: where in the ledger the event is. What it says is only there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Place {
    pub(crate) interaction_id: String,
    pub(crate) position: i64,
    pub(crate) r#type: &'static str,
    occurred_at: DateTime<Utc>,
}

impl Place {
    pub(crate) fn of(interaction_id: &str, recorded: &Recorded) -> Self {
        Self {
            interaction_id: interaction_id.to_owned(),
            position: recorded.position,
            r#type: recorded.event.name(),
            occurred_at: recorded.occurred_at,
        }
    }
}

const TABLE: Table = Table {
    name: "interaction_events",
    key: &["interaction_id", "position"],
    columns: &["type", "occurred_at"],
    searchable: false,
};

/// Writes new rows. One that is there already would be an event folded twice,
/// which must fail.
pub(crate) async fn insert(conn: &mut PgConnection, rows: &[Place]) -> anyhow::Result<()> {
    TABLE.insert(conn, rows).await
}
