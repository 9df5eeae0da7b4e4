//! The rows of `batch_calls` and `batch_legs`: what webhooks said of outgoing
//! calls, kept until a batch claims it and after.

use domain::batch::{CallFacts, Leg};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use crate::sql::Table;
use crate::text;

/// A row of `batch_calls`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Call {
    pub(super) conversation_id: String,
    /// The provider's id of the batch that the report names.
    pub(super) batch_id: Option<String>,
    /// The provider's id of the recipient that the report names.
    pub(super) recipient_id: Option<String>,
    /// The carrier's id of the leg.
    pub(super) call_sid: Option<String>,
    pub(super) facts: CallFacts,
}

/// A row of `batch_legs`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LegRow {
    pub(super) call_sid: String,
    pub(super) leg: Leg,
}

impl Call {
    pub(super) fn new(conversation_id: String) -> Self {
        Self {
            conversation_id,
            batch_id: None,
            recipient_id: None,
            call_sid: None,
            facts: CallFacts::default(),
        }
    }

    /// Sets the columns that follow from the facts.
    pub(super) fn settle(&mut self) {
        let key = |id: &str| text::key(id).into_owned();
        let report = self.facts.report.as_ref();
        self.batch_id = report.and_then(|r| r.batch_id.as_deref()).map(key);
        self.recipient_id = report
            .and_then(|r| r.batch_recipient_id.as_deref())
            .map(key);
        self.call_sid = self.facts.call_sid().map(key);
    }

    /// The batch and the recipient that the report names, by the provider's
    /// ids.
    pub(super) fn claim(&self) -> Option<(&str, &str)> {
        self.batch_id.as_deref().zip(self.recipient_id.as_deref())
    }
}

const CALLS: Table = Table {
    name: "batch_calls",
    key: &["conversation_id"],
    columns: &["batch_id", "recipient_id", "call_sid", "facts"],
    searchable: false,
};

const LEGS: Table = Table {
    name: "batch_legs",
    key: &["call_sid"],
    columns: &["leg"],
    searchable: false,
};

impl FromRow<'_, PgRow> for Call {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(facts) = row.try_get("facts")?;
        Ok(Self {
            conversation_id: row.try_get("conversation_id")?,
            batch_id: row.try_get("batch_id")?,
            recipient_id: row.try_get("recipient_id")?,
            call_sid: row.try_get("call_sid")?,
            facts,
        })
    }
}

impl FromRow<'_, PgRow> for LegRow {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(leg) = row.try_get("leg")?;
        Ok(Self {
            call_sid: row.try_get("call_sid")?,
            leg,
        })
    }
}

const COLUMNS: &str = "c.conversation_id, c.batch_id, c.recipient_id, c.call_sid, c.facts";

/// The calls with these ids, or of these legs.
pub(super) async fn load(
    conn: &mut PgConnection,
    conversations: &[&str],
    sids: &[&str],
) -> sqlx::Result<Vec<Call>> {
    let sql = format!(
        "select {COLUMNS} from batch_calls c where conversation_id = any($1) or call_sid = any($2)"
    );
    sqlx::query_as(&sql)
        .bind(conversations)
        .bind(sids)
        .fetch_all(conn)
        .await
}

/// The calls whose report names one of these recipients, by the provider's ids
/// of batch and recipient.
pub(super) async fn load_claiming(
    conn: &mut PgConnection,
    recipients: &[(&str, &str)],
) -> sqlx::Result<Vec<Call>> {
    let (batches, ids): (Vec<_>, Vec<_>) = recipients.iter().copied().unzip();
    let sql = format!(
        "select {COLUMNS} from batch_calls c
         join unnest($1::text[], $2::text[]) as wanted (batch_id, recipient_id)
             using (batch_id, recipient_id)"
    );
    sqlx::query_as(&sql)
        .bind(batches)
        .bind(ids)
        .fetch_all(conn)
        .await
}

/// The calls whose report names one of these batches, by the provider's id.
pub(super) async fn load_of_batches(
    conn: &mut PgConnection,
    batches: &[&str],
) -> sqlx::Result<Vec<Call>> {
    let sql = format!("select {COLUMNS} from batch_calls c where batch_id = any($1)");
    sqlx::query_as(&sql).bind(batches).fetch_all(conn).await
}

/// The legs with these ids.
pub(super) async fn load_legs(conn: &mut PgConnection, sids: &[&str]) -> sqlx::Result<Vec<LegRow>> {
    let sql = "select call_sid, leg from batch_legs where call_sid = any($1)";
    sqlx::query_as(sql).bind(sids).fetch_all(conn).await
}

pub(super) async fn save(
    conn: &mut PgConnection,
    (new, changed): (Vec<&Call>, Vec<&Call>),
) -> anyhow::Result<()> {
    CALLS.upsert(conn, &changed).await?;
    CALLS.insert(conn, &new).await
}

pub(super) async fn save_legs(
    conn: &mut PgConnection,
    (new, changed): (Vec<&LegRow>, Vec<&LegRow>),
) -> anyhow::Result<()> {
    LEGS.upsert(conn, &changed).await?;
    LEGS.insert(conn, &new).await
}
