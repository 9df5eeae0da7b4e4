//! How a batch stands, as server-sent events. What is sent is made once and
//! shared by all who watch: two thousand streams cost little more than their
//! connections.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use poem::http::header;
use poem::{Body, IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::payload::Payload;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::{ToJSON, Type};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::batch_view::BatchStatus;
use super::time::Time;
use crate::app::App;
use crate::batches::{Live, News, Status};

/// A comment is sent this often, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A stream of server-sent events, ready to be sent.
pub struct Events(Body);

/// Who watches what.
pub struct Watch {
    /// Our id of the batch.
    pub batch_id: String,
    /// The id under which it was asked for.
    pub asked_id: String,
    /// Whether numbers are masked.
    pub masked: bool,
    /// The last status that the client has.
    pub last_event_id: Option<i64>,
}

/// Opens a stream.
pub fn open(app: &Arc<App>, watch: Watch) -> Events {
    let news = Live::watch(app, &watch.batch_id);
    let connected = json!({
        "message": "Conexión SSE establecida",
        "batchId": watch.asked_id,
        "timestamp": now(app),
    });
    let opened = Instant::now();
    let state = State {
        ready: VecDeque::from([frame("connected", None, &connected.to_string())]),
        sent: watch.last_event_id,
        app: app.clone(),
        news,
        watch,
        ends_at: opened + app.config.sse_timeout,
        comment_at: opened + KEEP_ALIVE,
        closed: false,
        unread: true,
    };
    Events(Body::from_bytes_stream(
        follow(state).map(std::io::Result::Ok),
    ))
}

struct State {
    app: Arc<App>,
    news: watch::Receiver<News>,
    watch: Watch,
    ready: VecDeque<Bytes>,
    /// The position of the last status that was sent.
    sent: Option<i64>,
    ends_at: Instant,
    comment_at: Instant,
    /// Nothing comes after what is ready.
    closed: bool,
    /// The present state of things has not been looked at.
    unread: bool,
}

fn follow(state: State) -> impl Stream<Item = Bytes> + Send {
    futures_util::stream::unfold(state, |mut state| async move {
        loop {
            if let Some(frame) = state.ready.pop_front() {
                return Some((frame, state));
            }
            if state.closed {
                return None;
            }
            if std::mem::take(&mut state.unread) {
                state.take_news();
                continue;
            }
            state.wait().await;
        }
    })
}

impl State {
    async fn wait(&mut self) {
        tokio::select! {
            changed = self.news.changed() => {
                self.unread = true;
                self.closed = changed.is_err();
            }
            () = self.app.stopping.cancelled() => self.closed = true,
            () = tokio::time::sleep_until(self.ends_at) => {
                let seconds = self.app.config.sse_timeout.as_secs();
                let words = json!({
                    "message": format!("Conexión cerrada por timeout ({seconds} segundos)"),
                    "batchId": self.watch.asked_id,
                    "timestamp": now(&self.app),
                });
                self.ready.push_back(frame("timeout", None, &words.to_string()));
                self.closed = true;
            }
            () = tokio::time::sleep_until(self.comment_at) => {
                self.comment_at = Instant::now() + KEEP_ALIVE;
                self.ready.push_back(Bytes::from_static(b": keep-alive\n\n"));
            }
        }
    }

    fn take_news(&mut self) {
        let news = self.news.borrow_and_update().clone();
        match news {
            News::Reading => {}
            News::Stands(status) => {
                // Unsettled: how its recipients ended is still to come.
                let batch = &status.batch;
                let is_over =
                    batch.status.is_final() && !batch.is_unsettled && !batch.retry().is_open();
                if self.sent.is_none_or(|sent| sent < status.position) {
                    self.sent = Some(status.position);
                    self.ready
                        .push_back(update(&self.app, &status, self.watch.masked));
                }
                if is_over {
                    self.ready
                        .push_back(completed(&self.app, &status, self.watch.masked));
                    self.closed = true;
                }
            }
            News::Failed => {
                let words = json!({
                    "success": false,
                    "message": "Error obteniendo el estado del batch call",
                    "error": "Error obteniendo el estado del batch call",
                    "timestamp": now(&self.app),
                });
                self.ready
                    .push_back(frame("error", None, &words.to_string()));
            }
        }
    }
}

fn update(app: &App, status: &Status, masked: bool) -> Bytes {
    let made = status.frames[usize::from(masked)].get_or_init(|| {
        let words = json!({
            "success": true,
            "data": shown(app, status, masked),
            "timestamp": Time(status.read_at).to_json(),
        });
        frame("status-update", Some(status.position), &words.to_string())
    });
    made.clone()
}

fn completed(app: &App, status: &Status, masked: bool) -> Bytes {
    let made = status.frames[2 + usize::from(masked)].get_or_init(|| {
        let words = json!({
            "message": "Batch call completed",
            "finalStatus": status.batch.status.as_str(),
            "data": shown(app, status, masked),
            "timestamp": Time(status.read_at).to_json(),
        });
        frame("batch-completed", Some(status.position), &words.to_string())
    });
    made.clone()
}

fn shown(app: &App, status: &Status, masked: bool) -> Value {
    BatchStatus::of(app, status, masked)
        .to_json()
        .unwrap_or_default()
}

fn now(app: &App) -> Value {
    Time(app.source.now()).to_json().unwrap_or_default()
}

/// JSON has no line breaks of its own, so one `data` line holds it.
fn frame(event: &str, id: Option<i64>, data: &str) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {event}\ndata: {data}\n\n").into()
}

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        Response::builder()
            .header(header::CONTENT_TYPE, Self::CONTENT_TYPE)
            .header(header::CACHE_CONTROL, "no-cache")
            // Nginx would gather what is to be seen at once.
            .header("x-accel-buffering", "no")
            .body(self.0)
    }
}

impl Payload for Events {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            items: Some(Box::new(BatchStatus::schema_ref())),
            ..MetaSchema::new_with_format("array", "event-stream")
        }))
    }

    fn register(registry: &mut Registry) {
        BatchStatus::register(registry);
    }
}

impl ApiResponse for Events {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: Self::CONTENT_TYPE,
                    schema: Self::schema_ref(),
                }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        <Self as Payload>::register(registry);
    }
}
