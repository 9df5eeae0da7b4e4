//! What we owe the outside: the outbound queue, and its dead letters.

use std::collections::HashMap;
use std::sync::Arc;

use domain::effect::{Command, Effect as Aggregate, Kind};
use domain::phone::{mask, mask_in};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use projections::effects::{self, Cursor, Effect, Filter, Request, State};

use super::auth::{Access, Auth, Caller};
use super::batch_calling::metadata;
use super::batch_view::must_mask;
use super::error::Failure;
use super::reply::{self, Commanded, Page};
use super::time::Time;
use super::{Tag, audit, params};
use crate::app::App;
use crate::ledger::CommandError;

/// What we owe the outside: a message to send, an answer to ask the agent for.
#[derive(Debug, Object)]
#[oai(rename = "Effect", example)]
struct EffectView {
    /// Its id; on the ledger it is the stream `effect/<id>`.
    id: String,
    /// `message`, `code` (a one-time code), or `turn`: the agent's answer to what a client wrote.
    kind: String,
    /// Where it stands: `waiting`, `attempted`, `uncertain` (it may have gone out), `bounced` (the provider could not
    /// deliver it), `dead` (given up until somebody retries it), `done`, or `dropped` (not owed any more).
    state: String,
    /// The conversation, or the challenge of a one-time code. Effects of one lane happen one after another.
    lane: String,
    /// Who speaks: `agent`, `person` or `system`.
    author: String,
    /// The client's number.
    phone_number: String,
    /// The words; `null` for a one-time code.
    content: Option<String>,
    /// `twilio`, `builderbot` or `elevenlabs`.
    provider: Option<String>,
    /// The provider's id of the message.
    provider_message_id: Option<String>,
    /// How often it was attempted.
    attempts: i32,
    /// When it is attempted next, if not at once.
    due_at: Option<Time>,
    /// When it is of no use any more.
    expires_at: Time,
    /// The HTTP status of the last refusal.
    error_status: Option<i32>,
    /// The provider's code of the last refusal, such as 21211.
    error_code: Option<String>,
    /// Why the last attempt came to nothing.
    error_message: Option<String>,
    /// Since when it is owed.
    created_at: Time,
    /// When it last changed.
    updated_at: Time,
}

impl Example for EffectView {
    fn example() -> Self {
        let at = chrono::DateTime::from_timestamp(1_761_694_074, 0).unwrap_or_default();
        Self {
            id: "written_019a2d28-30c0-7000-8000-000000000001".to_owned(),
            kind: "message".to_owned(),
            state: "dead".to_owned(),
            lane: "conv_local_0f3c9a2b7d5e4c61a8f0b1c2d3e4f506".to_owned(),
            author: "person".to_owned(),
            phone_number: "+57******4567".to_owned(),
            content: Some("Le escribe Luis, del equipo.".to_owned()),
            provider: Some("twilio".to_owned()),
            provider_message_id: None,
            attempts: 1,
            due_at: None,
            expires_at: (at + chrono::Duration::hours(24)).into(),
            error_status: Some(400),
            error_code: Some("21211".to_owned()),
            error_message: Some("The 'To' number is not a valid phone number.".to_owned()),
            created_at: at.into(),
            updated_at: at.into(),
        }
    }
}

impl EffectView {
    fn of(effect: Effect, masked: bool) -> Self {
        let contact = effect.request.contact().to_owned();
        let shown = |text: String| match masked {
            true => mask_in(&text, &contact),
            false => text,
        };
        let content = match &effect.request {
            Request::Turn { said, .. } => Some(said.clone()),
            Request::Message { content, .. } => Some(content.clone()),
            Request::Code { .. } => None,
        };
        Self {
            id: effect.id,
            kind: effect.kind.to_string(),
            state: effect.state.as_str().to_owned(),
            lane: effect.lane,
            author: effect.author.as_str().to_owned(),
            phone_number: match masked {
                true => mask(&contact),
                false => contact.clone(),
            },
            content: content.map(shown),
            provider: effect.provider.map(|provider| provider.to_string()),
            provider_message_id: effect.provider_message_id,
            attempts: effect.attempts,
            due_at: effect.due_at.map(Time::from),
            expires_at: effect.expires_at.into(),
            error_status: effect.error_status,
            error_code: effect.error_code,
            error_message: effect.error_message.map(shown),
            created_at: effect.created_at.into(),
            updated_at: effect.updated_at.into(),
        }
    }
}

/// Routes for the outbound queue.
pub struct Api;

#[OpenApi(tag = "Tag::Conversations")]
impl Api {
    /// What we owe the outside
    ///
    /// Messages to send and answers to ask for, the newest first. `?state=dead` lists the dead letters: what was
    /// given up until somebody looks at it.
    #[oai(path = "/api/effects", method = "get", operation_id = "list_effects")]
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each parameter of the operation"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// `waiting`, `attempted`, `uncertain`, `bounced`, `dead`, `done` or `dropped`.
        state: Query<Option<String>>,
        /// `message`, `turn` or `code`.
        kind: Query<Option<String>>,
        /// The conversation, or the challenge of a one-time code.
        lane: Query<Option<String>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<EffectView>>, Failure> {
        let caller = Caller::from(auth);
        let limit = reply::limit(limit.0)?;
        let filter = Filter {
            state: params::word::<State>("state", state.0)?,
            kind: params::word::<Kind>("kind", kind.0)?,
            lane: params::text("lane", lane.0)?,
            after: reply::read_cursor::<Cursor>(cursor.0.as_deref())?,
        };
        let masked = must_mask(&app, &caller);
        let mut conn = app.pool.acquire().await?;
        let rows = effects::list(&mut conn, &filter, limit + 1).await?;
        Ok(reply::page(
            rows,
            limit,
            |row| (row.created_at, row.id.clone()),
            |row| EffectView::of(row, masked),
        ))
    }

    /// Try a dead letter again
    ///
    /// It is attempted at once, in its place in the conversation. 409 `effect_not_dead` for any other effect,
    /// `opted_out` when the client wants to hear no more, `effect_silenced` when the agent must not speak there.
    #[oai(
        path = "/api/effects/:id/retry",
        method = "post",
        operation_id = "retry_effect"
    )]
    async fn retry(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The effect.
        id: Path<String>,
    ) -> Result<Commanded<EffectView>, Failure> {
        let caller = Caller::from(auth);
        let id = params::id(id.0)?;
        let target = Some(format!("effect:{id}"));
        let act = retry(&app, &caller, &id);
        let (position, audited_at) =
            audit::recorded(&app, &caller, Access::Operate, "retry_effect", target, act).await?;
        let position = position.max(audited_at);
        app.readable(&["effects", "audit_log"], position).await;
        let effect = find(&app, &id).await?;
        let view = EffectView::of(effect, must_mask(&app, &caller));
        Ok(reply::commanded(view, None, position))
    }
}

async fn retry(app: &App, caller: &Caller, id: &str) -> Result<i64, Failure> {
    let effect = find(app, id).await?;
    let mut conn = app.pool.acquire().await?;
    let lane = effects::lane(&mut conn, &effect.lane).await?;
    drop(conn);
    if let Some(lane) = lane.filter(|lane| lane.silences(effect.author).is_some()) {
        return Err(match lane.opted_out {
            true => Failure::conflict("opted_out", "The client has opted out"),
            false => Failure::conflict(
                "effect_silenced",
                "A person has taken over, or the conversation was closed: resume it first",
            ),
        });
    }
    let metadata: HashMap<_, _> = metadata(caller);
    let command = || Command::Retry {
        retried_by: caller.actor(),
    };
    let executed = app.store.execute::<Aggregate>(id, command, metadata);
    executed.await.map_err(|error| match error {
        CommandError::Refused(refusal) => Failure::conflict(refusal.code(), refusal.to_string()),
        CommandError::Ledger(words) => anyhow::anyhow!(words).into(),
    })
}

async fn find(app: &App, id: &str) -> Result<Effect, Failure> {
    let mut conn = app.pool.acquire().await?;
    let found = effects::get(&mut conn, id).await?;
    found.ok_or_else(|| Failure::not_found("There is no such effect"))
}
