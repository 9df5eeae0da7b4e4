//! The read models: how far they are, and folding them anew.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::{Json, Response};
use poem_openapi::{ApiResponse, Object, OpenApi};
use projections::engine::{Difference, State, Status};

use super::auth::{Access, Auth, Caller};
use super::error::Failure;
use super::reply::{self, Success};
use super::time::{self, Time};
use super::{Tag, audit};
use crate::app::App;

/// A projection: read models that are folded together.
#[derive(Debug, Object)]
#[oai(rename = "Projection")]
struct StatusView {
    /// Its name.
    name: String,
    /// Its tables.
    tables: Vec<String>,
    /// The version of its rows.
    version: i32,
    /// `live`, `rebuilding` or `stopped`.
    state: String,
    /// The ledger position up to which it is folded.
    position: i64,
    /// The ledger's last position.
    head: i64,
    /// How many events it has yet to look at.
    lag_events: i64,
    /// The age of the first of these, in seconds.
    lag_seconds: f64,
    /// Why it stopped.
    error: Option<String>,
    /// The replay under way, asked for, or failed.
    replay: Option<ReplayView>,
    /// In what the last replay differed from the rows before it, by tables; null if there was none, or if the two could
    /// not be compared.
    differences: Option<Vec<DifferenceView>>,
    /// When it last moved.
    updated_at: Option<Time>,
}

/// A table in which a replay differed from the rows before it.
#[derive(Debug, Object)]
#[oai(rename = "ReplayDifference")]
struct DifferenceView {
    /// The table.
    table: String,
    /// Rows that were there before, and are not now, or are otherwise.
    only_before: i64,
    /// Rows that are there now, and were not before, or were otherwise.
    only_after: i64,
    /// The first of these rows, at most 20.
    rows: Vec<DifferentRowView>,
}

/// A row in which a replay differed.
#[derive(Debug, Object)]
#[oai(rename = "ReplayDifferentRow")]
struct DifferentRowView {
    /// Its key; several columns are separated by `/`.
    key: String,
    /// Whether it was there before.
    before: bool,
    /// Whether it is there now.
    after: bool,
}

impl From<Difference> for DifferenceView {
    fn from(difference: Difference) -> Self {
        let rows = difference.rows.into_iter();
        Self {
            table: difference.table,
            only_before: difference.only_before,
            only_after: difference.only_after,
            rows: rows
                .map(|row| DifferentRowView {
                    key: row.key,
                    before: row.before,
                    after: row.after,
                })
                .collect(),
        }
    }
}

/// A replay.
#[derive(Debug, Object)]
#[oai(rename = "Replay")]
struct ReplayView {
    /// The ledger position up to which it is folded anew.
    position: i64,
    /// The ledger's last position.
    head: i64,
    /// When it was asked for.
    started_at: Time,
    /// Why it failed; the live rows are as they were.
    error: Option<String>,
}

impl From<Status> for StatusView {
    fn from(status: Status) -> Self {
        let state = match status.state {
            State::Live => "live",
            State::Rebuilding => "rebuilding",
            State::Stopped => "stopped",
        };
        Self {
            name: status.name.to_owned(),
            tables: status
                .tables
                .iter()
                .map(|&table| table.to_owned())
                .collect(),
            version: status.version,
            state: state.to_owned(),
            position: status.position,
            head: status.head,
            lag_events: status.lag_events,
            lag_seconds: status.lag_seconds,
            error: status.error,
            replay: status.rebuild.map(|rebuild| ReplayView {
                position: rebuild.position,
                head: rebuild.head,
                started_at: rebuild.started_at.into(),
                error: rebuild.error,
            }),
            differences: status
                .differences
                .map(|found| found.into_iter().map(DifferenceView::from).collect()),
            updated_at: time::optional(status.updated_at),
        }
    }
}

/// What is being replayed.
#[derive(Debug, Object)]
#[oai(rename = "ReplayRequested")]
struct RequestedView {
    /// The projection.
    projection: String,
}

/// What asking for a replay answers.
#[derive(ApiResponse)]
enum Requested {
    /// A worker will do it; `GET /api/projections` tells how far it is.
    #[oai(status = 202)]
    Accepted(Json<Success<RequestedView>>),
}

/// Routes for operators and developers.
pub struct Api;

#[OpenApi(tag = "Tag::Operations")]
impl Api {
    /// The read models and how far they are
    #[oai(
        path = "/api/projections",
        method = "get",
        operation_id = "list_projections"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        _auth: Auth,
    ) -> Result<Json<Success<Vec<StatusView>>>, Failure> {
        let statuses = app.engine.statuses().await?;
        Ok(reply::success(
            statuses.into_iter().map(StatusView::from).collect(),
        ))
    }

    /// Fold a read model anew
    ///
    /// From the whole ledger, beside the live tables, which the new ones replace at the end. Reads and webhooks go on
    /// meanwhile. For the role `admin`.
    #[oai(
        path = "/api/projections/:name/replay",
        method = "post",
        operation_id = "replay_projection"
    )]
    async fn replay(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// A projection or one of its tables.
        name: Path<String>,
    ) -> Result<Response<Requested>, Failure> {
        let caller = Caller::from(auth);
        let act = async {
            let unknown =
                || Failure::not_found("There is no such projection; see GET /api/projections");
            let projection = app.engine.resolve(&name.0).ok_or_else(unknown)?;
            let target = Some(projection.to_owned());
            audit::begin(&app, &caller, "replay_projection", target).await?;
            app.engine.request_rebuild(projection).await?;
            Ok(projection)
        };
        let target = app.engine.resolve(&name.0).map(str::to_owned);
        let (projection, position) = audit::recorded(
            &app,
            &caller,
            Access::Admin,
            "replay_projection",
            target,
            act,
        )
        .await?;
        let body = reply::success(RequestedView {
            projection: projection.to_owned(),
        });
        Ok(Response::new(Requested::Accepted(body))
            .header("X-Ledger-Position", position.to_string()))
    }
}
