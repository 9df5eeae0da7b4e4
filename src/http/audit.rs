//! Who did what: writing it down, and showing it to the auditor.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use super::auth::{Access, Auth, Caller};
use super::error::Failure;
use super::reply::{self, Page};
use super::time::Time;
use super::{Tag, context, params};
use crate::app::App;
use crate::ledger::Entry;

/// Something that an auditor may ask about.
pub struct Act<'a> {
    /// Who; `None` before a login.
    pub caller: Option<&'a Caller>,
    /// What: an operation id.
    pub action: &'static str,
    /// To what: an id, free of personal data.
    pub target: Option<String>,
    /// `begun`, `ok`, or the error's code.
    pub outcome: &'a str,
}

/// Writes an act down. Returns its position once it is durable.
///
/// # Errors
/// 503 when the ledger does not take it.
pub async fn record(app: &App, act: Act<'_>) -> Result<i64, Failure> {
    append(app, act.recorded()).await
}

impl Act<'_> {
    /// What is written down of it, with the request that it is part of.
    pub fn recorded(self) -> domain::audit::Recorded {
        let context = context::current();
        let role = self.caller.and_then(Caller::role);
        domain::audit::Recorded {
            actor: self
                .caller
                .map_or_else(|| "anonymous".to_owned(), Caller::actor),
            role: role.map(|role| role.to_string()),
            action: self.action.to_owned(),
            target: self.target,
            outcome: self.outcome.to_owned(),
            from: Some(context.remote_addr),
            request_id: Some(context.request_id),
            detail: None,
        }
    }
}

/// Writes down what was recorded earlier, or elsewhere. Returns its position
/// once it is durable.
///
/// # Errors
/// As [`record`].
pub async fn append(app: &App, recorded: domain::audit::Recorded) -> Result<i64, Failure> {
    let fact = recorded.at(app.source.now());
    let receipt = app
        .writer
        .append(Entry::Facts(vec![fact], serde_json::json!({})))
        .await?;
    Ok(receipt.position.unwrap_or_default())
}

/// Writes down that an act begins, within an act that is [`recorded`]: for one
/// that cannot be undone, or leaves no events with the actor's name.
///
/// # Errors
/// 503 when it cannot be put on record; then the act must not be.
pub async fn begin(
    app: &App,
    caller: &Caller,
    action: &'static str,
    target: Option<String>,
) -> Result<(), Failure> {
    let act = Act {
        caller: Some(caller),
        action,
        target,
        outcome: "begun",
    };
    record(app, act).await.map(|_| ())
}

/// Does something that must be on record: refuses whoever may not, does it,
/// and writes down what came of it, refusals included, before anybody is
/// answered. So nothing is shown that is not on record. An act that changes
/// something is on record before: by its own events, whose metadata names the
/// actor and the request, in the transaction that changes it; or else it must
/// [`begin`].
///
/// # Errors
/// Those of the act, and 503 when it cannot be put on record.
pub async fn recorded<T>(
    app: &App,
    caller: &Caller,
    access: Access,
    action: &'static str,
    target: Option<String>,
    act: impl Future<Output = Result<T, Failure>>,
) -> Result<(T, i64), Failure> {
    recorded_of(app, caller, access, action, |_| target, act).await
}

/// Refuses whoever may not, on record, before anything of the request is read.
///
/// # Errors
/// 403, and 503 when it cannot be put on record.
pub async fn require(
    app: &App,
    caller: &Caller,
    access: Access,
    action: &'static str,
) -> Result<(), Failure> {
    if caller.may(access) {
        return Ok(());
    }
    let refused = async { Ok(()) };
    let refused = recorded(app, caller, access, action, None, refused).await;
    refused.map(|((), _)| ())
}

/// What was asked for. Where it cannot be read, whoever may not ask is told
/// that first, on record.
///
/// # Errors
/// 403, or why it cannot be read; 503 when it cannot be put on record.
pub async fn readable<T>(
    app: &App,
    caller: &Caller,
    access: Access,
    action: &'static str,
    read: Result<T, Failure>,
) -> Result<T, Failure> {
    if read.is_err() {
        require(app, caller, access, action).await?;
    }
    read
}

/// As [`recorded`], for an act that makes what it is done to: only afterwards
/// it has an id.
///
/// # Errors
/// As [`recorded`].
pub async fn recorded_of<T>(
    app: &App,
    caller: &Caller,
    access: Access,
    action: &'static str,
    target: impl FnOnce(Option<&T>) -> Option<String>,
    act: impl Future<Output = Result<T, Failure>>,
) -> Result<(T, i64), Failure> {
    let outcome = match caller.require(access) {
        Ok(()) => act.await,
        Err(refusal) => Err(refusal),
    };
    let word = outcome
        .as_ref()
        .map_or_else(|failure| failure.code().to_owned(), |_| "ok".to_owned());
    let position = record(
        app,
        Act {
            caller: Some(caller),
            action,
            target: target(outcome.as_ref().ok()),
            outcome: &word,
        },
    )
    .await?;
    match outcome {
        Ok(done) => Ok((done, position)),
        // Whatever it wrote before it failed comes before this record.
        Err(failure) => Err(failure.at(position)),
    }
}

/// An entry of the audit log.
#[derive(Debug, Object)]
#[oai(rename = "AuditRecord")]
struct RecordView {
    /// Its place on the ledger.
    position: i64,
    /// When.
    occurred_at: Time,
    /// Who: `user:7`, `service`, or `anonymous`.
    actor: String,
    /// The role that was claimed.
    role: Option<String>,
    /// What.
    action: String,
    /// To what.
    target: Option<String>,
    /// `begun`, `ok`, or an error's code.
    outcome: String,
    /// From which network address.
    from: Option<String>,
    /// The request.
    request_id: Option<String>,
    /// More on it: of an export its filter and, at its end, its rows.
    detail: Option<String>,
}

/// Routes for the auditor.
pub struct Api;

#[OpenApi(tag = "Tag::Ledger")]
impl Api {
    /// Who did what
    ///
    /// Every command, login, reveal and reprocess, the newest first. For the roles `auditor` and `admin`.
    #[oai(
        path = "/api/audit-log",
        method = "get",
        operation_id = "list_audit_log"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each parameter of the operation"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// Who, such as `user:7`.
        actor: Query<Option<String>>,
        /// What, such as `reveal_interaction`.
        action: Query<Option<String>>,
        /// At or after this time.
        from: Query<Option<String>>,
        /// Before or at this time.
        to: Query<Option<String>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<RecordView>>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let limit = reply::limit(limit.0)?;
        let filter = projections::audit_log::Filter {
            actor: params::text("actor", actor.0)?,
            action: params::text("action", action.0)?,
            from: params::time("from", from.0.as_deref())?,
            to: params::until("to", to.0.as_deref())?,
        };
        let before: Option<i64> = reply::read_cursor(cursor.0.as_deref())?;
        let mut conn = app.pool.acquire().await?;
        let rows = projections::audit_log::list(&mut conn, &filter, before, limit + 1).await?;
        Ok(reply::page(
            rows,
            limit,
            |row| row.position,
            |row| RecordView {
                position: row.position,
                occurred_at: row.occurred_at.into(),
                actor: row.actor,
                role: row.role,
                action: row.action,
                target: row.target,
                outcome: row.outcome,
                from: row.from_address,
                request_id: row.request_id,
                detail: row.detail,
            },
        ))
    }
}
