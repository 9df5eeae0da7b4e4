//! The ledger's events, for the auditor: by filter, and as they come.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use poem::web::Data;
use poem::web::sse::Event as SseEvent;
use poem_openapi::param::{Header, Query};
use poem_openapi::payload::{EventStream, Json};
use poem_openapi::types::ToJSON;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::audit;
use super::auth::{Access, Auth, Caller, StreamAuth};
use super::error::Failure;
use super::reply::{self, Page};
use super::time::Time;
use super::{Tag, params};
use crate::app::App;
use crate::ledger::events::{self, Filter, StoredEvent};

/// A comment is sent this often, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events read at once for a stream.
const STREAM_EVENTS: i64 = 200;

/// An event of the ledger.
#[derive(Debug, Object)]
#[oai(rename = "LedgerEvent")]
struct EventView {
    /// Place in the one total order, which is commit order.
    position: i64,
    /// Kind of aggregate: `call`, `chat`, `sms`, `audit`, …
    aggregate_type: String,
    /// The aggregate.
    aggregate_id: String,
    /// Place in its stream, from 1, without gaps.
    sequence: i64,
    /// What happened, such as `call.completed`.
    r#type: String,
    /// The version of its shape.
    version: String,
    /// When it happened, by the provider's word or else the time of receipt.
    occurred_at: Time,
    /// When the ledger took it.
    recorded_at: Time,
    /// The delivery that brought it.
    delivery_id: Option<Uuid>,
    /// What happened. Phone numbers are masked unless `reveal=true`.
    payload: serde_json::Value,
    /// What is known about the telling.
    metadata: serde_json::Value,
}

impl EventView {
    fn of(event: StoredEvent, mask: bool) -> Self {
        let payload = if mask {
            domain::event::masked(&event.event_type, event.payload)
        } else {
            event.payload
        };
        Self {
            position: event.position,
            aggregate_type: event.aggregate_type,
            aggregate_id: event.aggregate_id,
            sequence: event.sequence,
            r#type: event.event_type,
            version: event.event_version,
            occurred_at: event.occurred_at.into(),
            recorded_at: event.recorded_at.into(),
            delivery_id: event.delivery_id,
            payload,
            metadata: event.metadata,
        }
    }
}

/// Routes for the auditor.
pub struct Api;

#[OpenApi(tag = "Tag::Ledger")]
impl Api {
    /// Events in their order
    ///
    /// For the roles `auditor` and `admin`. `reveal=true` shows whole phone numbers and is put on record.
    #[oai(
        path = "/api/ledger/events",
        method = "get",
        operation_id = "list_ledger_events"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each parameter of the operation"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// Only events behind this position.
        after: Query<Option<i64>>,
        /// Only events of this type, such as `call.completed`.
        r#type: Query<Option<String>>,
        /// Only events of this kind of aggregate.
        aggregate_type: Query<Option<String>>,
        /// Only events of this aggregate.
        aggregate_id: Query<Option<String>>,
        /// Recorded at or after this time.
        from: Query<Option<String>>,
        /// Recorded before or at this time.
        to: Query<Option<String>>,
        /// Whether to show whole phone numbers.
        reveal: Query<Option<bool>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<EventView>>, Failure> {
        let caller = Caller::from(auth);
        match reveal.0 {
            Some(true) => {
                let action = "reveal_ledger_events";
                audit::require(&app, &caller, Access::Auditor, action).await?;
            }
            _ => caller.require(Access::Auditor)?,
        }
        let limit = reply::limit(limit.0)?;
        let filter = Filter {
            after: reply::read_cursor(cursor.0.as_deref())?
                .or(after.0)
                .unwrap_or_default(),
            event_type: params::text("type", r#type.0)?,
            aggregate_type: params::text("aggregate_type", aggregate_type.0)?,
            aggregate_id: params::text("aggregate_id", aggregate_id.0)?,
            from: params::time("from", from.0.as_deref())?,
            to: params::time("to", to.0.as_deref())?,
        };
        let rows = events::list(&app.pool, &app.opener, &filter, limit + 1).await?;
        let reveal = reveal.0.unwrap_or(false);
        if reveal {
            let target = Some(format!("after:{}", filter.after));
            let act = async { Ok(()) };
            audit::recorded(
                &app,
                &caller,
                Access::Reveal,
                "reveal_ledger_events",
                target,
                act,
            )
            .await?;
        }
        let mask = app.config.mask_phone_numbers && !reveal;
        Ok(reply::page(
            rows,
            limit,
            |row| row.position,
            |row| EventView::of(row, mask),
        ))
    }

    /// Events as they come
    ///
    /// Server-sent events named `event`, with the position as id: a client that reconnects with `Last-Event-ID`
    /// goes on where it was. Without it (or `after`) the stream begins with what is new.
    #[oai(
        path = "/api/ledger/stream",
        method = "get",
        operation_id = "stream_ledger_events"
    )]
    async fn stream(
        &self,
        app: Data<&Arc<App>>,
        auth: StreamAuth,
        /// The position of the last event that the client has.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<i64>>,
        /// The same, for the first connection.
        after: Query<Option<i64>>,
    ) -> Result<EventStream<BoxStream<'static, EventView>>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let after = match last_event_id.0.or(after.0) {
            Some(position) => position,
            None => events::head(&app.pool).await?,
        };
        let to_event = |event: EventView| {
            SseEvent::message(event.to_json_string())
                .event_type("event")
                .id(event.position.to_string())
        };
        Ok(EventStream::new(follow(app.0.clone(), after).boxed())
            .to_event(to_event)
            .keep_alive(KEEP_ALIVE))
    }
}

/// Events behind a position, for ever, or until the process stops. Waits for
/// the one listener that all streams share; see `worker::news`.
fn follow(app: Arc<App>, after: i64) -> impl Stream<Item = EventView> + Send + use<> {
    struct State {
        app: Arc<App>,
        news: tokio::sync::watch::Receiver<()>,
        after: i64,
        ready: std::collections::VecDeque<StoredEvent>,
    }
    let news = app.news.clone();
    let state = State {
        app,
        news,
        after,
        ready: Default::default(),
    };
    futures_util::stream::unfold(state, |mut state| async move {
        loop {
            if let Some(event) = state.ready.pop_front() {
                state.after = event.position;
                let view = EventView::of(event, state.app.config.mask_phone_numbers);
                return Some((view, state));
            }
            state.news.borrow_and_update();
            let filter = Filter {
                after: state.after,
                ..Filter::default()
            };
            let app = &state.app;
            state.ready = events::list(&app.pool, &app.opener, &filter, STREAM_EVENTS)
                .await
                .ok()?
                .into();
            if state.ready.is_empty() {
                tokio::select! {
                    changed = state.news.changed() => changed.ok()?,
                    () = state.app.stopping.cancelled() => return None,
                }
            }
        }
    })
}
