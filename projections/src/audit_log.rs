//! Read model `audit_log`: who did what, when, from where, with what outcome.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::event::Recorded;
use domain::{Event, audit};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

use crate::engine::Projection;
use crate::sql::Table;
use crate::{text, time};

/// A row of `audit_log`.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow)]
pub struct Entry {
    /// Its place in the ledger.
    pub position: i64,
    /// When it was done.
    pub occurred_at: DateTime<Utc>,
    /// When the ledger took it.
    pub recorded_at: DateTime<Utc>,
    /// Who: `user:7`, `service`, or `anonymous`.
    pub actor: String,
    /// The role that was claimed.
    pub role: Option<String>,
    /// What: an operation id.
    pub action: String,
    /// To what.
    pub target: Option<String>,
    /// `ok`, or the error's code.
    pub outcome: String,
    /// The caller's network address. Personal.
    pub from_address: Option<String>,
    /// The request.
    pub request_id: Option<String>,
    /// More on it.
    pub detail: Option<String>,
}

/// Which entries to list. What is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By this caller.
    pub actor: Option<String>,
    /// Of this operation.
    pub action: Option<String>,
    /// Recorded at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Recorded before this time.
    pub to: Option<DateTime<Utc>>,
}

/// The entries that match, newest first, at most `limit`. The position of the
/// last is the cursor of the next page.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &mut PgConnection,
    filter: &Filter,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Entry>> {
    let mut query = list_query(filter, before, limit);
    // Not kept: each list is planned for the very values it filters by.
    let query = query.build_query_as().persistent(false);
    query.fetch_all(conn).await
}

fn list_query<'a>(
    filter: &'a Filter,
    before: Option<i64>,
    limit: i64,
) -> QueryBuilder<'a, Postgres> {
    let mut query = QueryBuilder::new(
        "select position, occurred_at, recorded_at, actor, role, action, target, outcome,
                from_address, request_id, detail
         from audit_log where true",
    );
    if let Some(actor) = &filter.actor {
        query.push(" and actor = ").push_bind(text::key(actor));
    }
    if let Some(action) = &filter.action {
        query.push(" and action = ").push_bind(text::key(action));
    }
    // Positions rise with the time of recording, so a time is a position and
    // no index on it is needed. Both ends mean what was recorded before them.
    for (compared, at) in [(" > ", filter.from), (" <= ", filter.to)] {
        if let Some(at) = at {
            query.push(" and position").push(compared);
            query.push("public.ledger_position_at(");
            query
                .push_bind(time::askable(at) - TimeDelta::microseconds(1))
                .push(")");
        }
    }
    if let Some(before) = before {
        query.push(" and position < ").push_bind(before);
    }
    query
        .push(" order by position desc limit ")
        .push_bind(limit);
    query
}

const TABLE: Table = Table {
    name: "audit_log",
    key: &["position"],
    columns: &[
        "occurred_at",
        "recorded_at",
        "actor",
        "role",
        "action",
        "target",
        "outcome",
        "from_address",
        "request_id",
        "detail",
    ],
    searchable: false,
};

/// The projection `audit_log`.
pub struct AuditLog;

#[async_trait]
impl Projection for AuditLog {
    fn name(&self) -> &'static str {
        "audit_log"
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["audit_log"]
    }

    fn event_types(&self) -> &'static [&'static str] {
        &["audit.recorded"]
    }

    fn is_read_by_key(&self) -> bool {
        true
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        let rows: Vec<_> = batch.iter().copied().filter_map(entry).collect();
        TABLE.insert(conn, &rows).await
    }
}

fn entry(recorded: &Recorded) -> Option<Entry> {
    let Event::Audit(audit::Event::Recorded(act)) = &recorded.event else {
        return None;
    };
    Some(Entry {
        position: recorded.position,
        occurred_at: recorded.occurred_at,
        recorded_at: recorded.recorded_at,
        actor: text::key(&act.actor).into_owned(),
        role: act.role.clone(),
        action: text::key(&act.action).into_owned(),
        target: act.target.clone(),
        outcome: act.outcome.clone(),
        from_address: act.from.clone(),
        request_id: act.request_id.clone(),
        detail: act.detail.clone(),
    })
}
