//! What became of a group's calls. Contract, section 4.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::phone::{mask, mask_in, mask_json};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use projections::batches::{self, Cursor, Filter, HistoryCursor, HistoryEntry};
use serde_json::Value;

use super::read;
use crate::app::App;
use crate::http::Tag;
use crate::http::auth::{Auth, Caller};
use crate::http::batch_calling::find;
use crate::http::batch_calls;
use crate::http::batch_view::{BatchRow, BatchStatus, must_mask};
use crate::http::error::Failure;
use crate::http::reply::{self, MessagePage, Page, Success};
use crate::http::time::{self, Time};

/// A call that was tried.
#[derive(Debug, Object)]
#[oai(rename = "GroupCallAttempt")]
struct AttemptView {
    /// The call, which is the interaction's id.
    conversation_id: String,
    /// The batch.
    batch_id: String,
    /// What the batch is called.
    call_name: String,
    /// The provider's id of the recipient.
    recipient_id: String,
    /// The client of the group.
    client_id: Option<i32>,
    /// The number.
    phone_number: Option<String>,
    /// What the agent was told.
    variables: Value,
    /// Which attempt to reach the recipient, from 1.
    attempt: i32,
    /// `pending`, `in_progress`, `completed`, `failed`, `cancelled` or `voicemail`.
    status: String,
    /// When it began.
    called_at: Time,
    /// When it ended.
    ended_at: Option<Time>,
    /// How long it lasted.
    duration_secs: Option<i64>,
    /// Why nobody was reached.
    failure_reason: Option<String>,
    /// The provider's summary.
    summary: Option<String>,
    /// Where the recording is: a path of this API.
    audio_url: Option<String>,
}

/// What became of a group's calls, in numbers.
#[derive(Debug, Object)]
#[oai(rename = "GroupCallStats")]
struct StatsView {
    /// All of them.
    #[oai(flatten)]
    all: NumbersView,
    /// Each day with any, oldest first.
    per_day: Vec<DayView>,
}

/// One day.
#[derive(Debug, Object)]
#[oai(rename = "GroupCallDay")]
struct DayView {
    /// `2025-11-02`, in the time zone of the service.
    date: String,
    /// Its numbers.
    #[oai(flatten)]
    numbers: NumbersView,
}

/// Numbers of calls: each recipient of a batch once, as they stand now.
#[derive(Debug, Object)]
struct NumbersView {
    /// All of them.
    total: i64,
    /// Talked with.
    completed: i64,
    /// Not reached.
    failed: i64,
    /// A machine answered.
    voicemail: i64,
    /// Being called.
    in_progress: i64,
    /// Not called yet.
    pending: i64,
    /// Given up before.
    cancelled: i64,
    /// Talked with, of those whose call is over: 0 to 1.
    answer_rate: f64,
    /// How long a completed call lasted on average.
    avg_duration_secs: f64,
    /// How long the completed calls lasted together.
    total_duration_secs: i64,
}

impl From<batches::CallStats> for NumbersView {
    fn from(stats: batches::CallStats) -> Self {
        Self {
            total: stats.total,
            completed: stats.completed,
            failed: stats.failed,
            voicemail: stats.voicemail,
            in_progress: stats.in_progress,
            pending: stats.pending,
            cancelled: stats.cancelled,
            answer_rate: stats.answer_rate,
            avg_duration_secs: stats.avg_duration_secs,
            total_duration_secs: stats.total_duration_secs,
        }
    }
}

/// Routes for what became of a group's calls.
pub struct Api;

#[OpenApi(tag = "Tag::Groups")]
impl Api {
    /// The batches of a group
    ///
    /// The newest first.
    #[oai(
        path = "/api/groups/:id/batch-status",
        method = "get",
        operation_id = "list_group_batches"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        _auth: Auth,
        /// The group's number.
        id: Path<i32>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<MessagePage<BatchRow>>, Failure> {
        let limit = reply::limit(limit.0)?;
        let after: Option<(DateTime<Utc>, String)> = reply::read_cursor(cursor.0.as_deref())?;
        let after = after.map(|(created_at, id)| Cursor { created_at, id });
        let group = read(&app, id.0).await?;
        let filter = Filter {
            group_id: Some(group.id),
            ..Filter::default()
        };
        let mut conn = app.pool.acquire().await?;
        let rows = batches::list(&mut conn, &filter, after.as_ref(), limit + 1).await?;
        Ok(reply::message_page(
            "Lista de batch calls obtenida exitosamente",
            rows,
            limit,
            |row| (row.created_at, row.id.clone()),
            BatchRow::from,
        ))
    }

    /// How a batch of a group stands
    #[oai(
        path = "/api/groups/:id/batch-status/:batchId",
        method = "get",
        operation_id = "get_group_batch"
    )]
    async fn get(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The group's number.
        id: Path<i32>,
        /// The provider's id of the batch, or ours.
        #[oai(name = "batchId")]
        batch_id: Path<String>,
    ) -> Result<Json<Success<BatchStatus>>, Failure> {
        let masked = must_mask(&app, &Caller::from(auth));
        let group = read(&app, id.0).await?;
        let batch = find(&app, batch_id.0).await?;
        if batch.group_id != Some(group.id) {
            return Err(Failure::not_found("Batch call no encontrado"));
        }
        batch_calls::status(&app, &batch.id, masked).await
    }

    /// Every call that was tried for a group
    ///
    /// The newest first.
    #[oai(
        path = "/api/groups/:id/call-history",
        method = "get",
        operation_id = "list_group_calls"
    )]
    async fn history(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The group's number.
        id: Path<i32>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<AttemptView>>, Failure> {
        let masked = must_mask(&app, &Caller::from(auth));
        let limit = reply::limit(limit.0)?;
        let after: Option<(DateTime<Utc>, String)> = reply::read_cursor(cursor.0.as_deref())?;
        let after = after.map(|(called_at, conversation_id)| HistoryCursor {
            called_at,
            conversation_id,
        });
        let group = read(&app, id.0).await?;
        let mut conn = app.pool.acquire().await?;
        let rows = batches::call_history(&mut conn, group.id, after.as_ref(), limit + 1).await?;
        Ok(reply::page(
            rows,
            limit,
            |row| (row.called_at, row.conversation_id.clone()),
            |row| show(&app, row, masked),
        ))
    }

    /// A group's calls in numbers
    #[oai(
        path = "/api/groups/:id/call-stats",
        method = "get",
        operation_id = "get_group_call_stats"
    )]
    async fn stats(
        &self,
        app: Data<&Arc<App>>,
        _auth: Auth,
        /// The group's number.
        id: Path<i32>,
    ) -> Result<Json<Success<StatsView>>, Failure> {
        let group = read(&app, id.0).await?;
        let mut conn = app.pool.acquire().await?;
        let timezone = app.config.timezone.name();
        let (all, days) = batches::call_stats(&mut conn, group.id, timezone).await?;
        let days = days.into_iter().map(|day| DayView {
            date: day.day.to_string(),
            numbers: day.stats.into(),
        });
        Ok(reply::success(StatsView {
            all: all.into(),
            per_day: days.collect(),
        }))
    }
}

fn show(app: &App, row: HistoryEntry, masked: bool) -> AttemptView {
    let number = row.phone_number.filter(|number| !str::is_empty(number));
    let hidden = number.as_deref().filter(|_| masked);
    let variables = Value::Object(row.variables);
    AttemptView {
        audio_url: row.has_audio.then(|| {
            let (url, id) = (&app.config.public_url, &row.conversation_id);
            format!("{url}/api/interactions/{id}/audio")
        }),
        variables: hidden.map_or_else(|| variables.clone(), |it| mask_json(&variables, it)),
        summary: row.summary.map(|text| match hidden {
            Some(number) => mask_in(&text, number),
            None => text,
        }),
        phone_number: match masked {
            true => number.as_deref().map(mask),
            false => number,
        },
        conversation_id: row.conversation_id,
        batch_id: row.batch_id,
        call_name: row.call_name,
        recipient_id: row.recipient_id,
        client_id: row.client_id,
        attempt: row.attempt,
        status: row.status.to_string(),
        called_at: row.called_at.into(),
        ended_at: time::optional(row.ended_at),
        duration_secs: row.duration_secs,
        failure_reason: row.failure_reason,
    }
}
