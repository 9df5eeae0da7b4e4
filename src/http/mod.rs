//! The HTTP interface: the only code that knows poem. One file a resource.
//!
//! Handlers read, ask, show. They hold no SQL and make no decisions.

mod audit;
mod auth;
mod batch_calling;
mod batch_calls;
mod batch_order;
mod batch_view;
mod body;
mod context;
mod conversations;
mod deliveries;
mod docs;
mod documented_body;
mod effects;
mod erasures;
mod error;
mod export;
mod groups;
mod health;
mod idempotency;
mod incoming;
mod interactions;
mod ledger;
mod log;
mod otp;
mod params;
mod projections;
mod range;
mod reply;
mod status_stream;
mod subject_export;
mod tiles;
mod time;
mod users;
mod webhooks;
mod written;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use poem::endpoint::make;
use poem::http::{HeaderMap, HeaderValue, Method, header};
use poem::middleware::{AddData, CatchPanic, Cors};
use poem::{Endpoint, EndpointExt, IntoEndpoint, Route};
use poem_openapi::{OpenApiService, Tags};

use self::error::Failure;
use crate::app::App;

/// How the documentation groups the operations.
#[derive(Tags)]
enum Tag {
    /// What the providers call.
    Webhooks,
    /// Calls, WhatsApp conversations and SMS.
    Interactions,
    /// Many calls ordered at once, and what became of each.
    Batches,
    /// What is written with clients by WhatsApp, by the agent or by people.
    Conversations,
    /// What happened, as it was recorded.
    Ledger,
    /// Groups of clients, and calling them.
    Groups,
    /// One-time codes.
    Otp,
    /// Logins and people.
    Users,
    /// How the service is doing.
    Operations,
}

/// Largest body of a request to the API.
const API_BODY_BYTES_MAX: usize = 1 << 20;
/// Largest body of an order: 10,000 recipients with their variables.
const ORDER_BODY_BYTES_MAX: usize = 32 << 20;

type Apis = (
    // What happens.
    (
        webhooks::Api,
        interactions::Api,
        batch_calling::Api,
        batch_calls::Api,
        conversations::Api,
        conversations::call_completed::Api,
        conversations::stats::Api,
        effects::Api,
        otp::Api,
    ),
    // Who sees to it.
    (
        (ledger::Api, log::Api, export::Api, subject_export::Api),
        deliveries::Api,
        audit::Api,
        erasures::Api,
        projections::Api,
        users::Api,
        groups::Api,
        groups::calls::Api,
        groups::history::Api,
        health::Api,
    ),
);

/// The operations, with their documentation.
fn service() -> OpenApiService<Apis, ()> {
    let apis = (
        // What happens.
        (
            webhooks::Api,
            interactions::Api,
            batch_calling::Api,
            batch_calls::Api,
            conversations::Api,
            conversations::call_completed::Api,
            conversations::stats::Api,
            effects::Api,
            otp::Api,
        ),
        // Who sees to it.
        (
            (ledger::Api, log::Api, export::Api, subject_export::Api),
            deliveries::Api,
            audit::Api,
            erasures::Api,
            projections::Api,
            users::Api,
            groups::Api,
            groups::calls::Api,
            groups::history::Api,
            health::Api,
        ),
    );
    OpenApiService::new(apis, "Bitácora", env!("CARGO_PKG_VERSION")).summary("A contact centre's log").description(
        "Every call, WhatsApp and SMS webhook of a contact centre, as an event on an append-only ledger, and \
         what follows from it.\n\nSuccess is `{\"success\":true,\"data\":…}`, an error is \
         `{\"success\":false,\"message\":…,\"error\":…,\"code\":…,\"request_id\":…}`. Times are RFC 3339 in UTC. \
         To try the operations here: call `POST /api/auth/login`, then put the token into **Authorize**.",
    )
}

/// The OpenAPI document.
pub fn openapi() -> String {
    docs::document(&service())
}

/// Every route of a process that answers the API.
pub fn routes(app: Arc<App>) -> impl Endpoint {
    let api = service();
    let document = docs::document(&api);
    let routes = Route::new()
        .at("/api/docs", poem::get(docs::swagger_ui(&api, &document)))
        .at("/api/openapi.json", poem::get(docs::endpoint(document)))
        .at("/tlog/checkpoint", poem::get(tiles::get_head))
        .at("/tlog/tile/*path", poem::get(tiles::get_tile))
        .nest(
            "/",
            api.into_endpoint()
                .with(idempotency::Idempotent(app.clone())),
        );
    surround(routes, app)
}

/// The routes of a process that only works in the background.
pub fn worker_routes(app: Arc<App>) -> impl Endpoint {
    surround(
        OpenApiService::new(health::Api, "Bitácora worker", env!("CARGO_PKG_VERSION")),
        app,
    )
}

/// `/metrics` alone, for an address of its own.
pub fn metrics_routes(app: Arc<App>) -> impl Endpoint {
    Route::new()
        .at("/metrics", health::metrics_endpoint)
        .with(AddData::new(app))
}

fn surround(routes: impl IntoEndpoint<Endpoint: 'static>, app: Arc<App>) -> impl Endpoint {
    let origins = app.config.cors_allowed_origins.clone();
    let context = context::Surround {
        source: app.source.clone(),
        trust_proxy: app.config.trust_proxy,
    };
    let limited = app.clone();
    let inner = Arc::new(
        routes
            .into_endpoint()
            .with(AddData::new(app))
            .with(CatchPanic::new().with_handler(error::Panicked))
            .around(move |endpoint, request| within_limits(limited.clone(), endpoint, request))
            .around(error::shaped),
    );
    let cross_origin = Arc::new(inner.clone().with(cors()));
    // poem's CORS refuses requests of other origins outright, our own included.
    // To leave out the headers is enough: the browser does the refusing.
    make(move |request: poem::Request| {
        let allowed = request.header(header::ORIGIN).is_some_and(|origin| {
            origins
                .iter()
                .any(|allowed| allowed == "*" || allowed == origin)
        });
        let (inner, cross_origin) = (inner.clone(), cross_origin.clone());
        let by_origin = !origins.is_empty();
        async move {
            let mut answer = if allowed {
                Box::pin(cross_origin.call(request)).await
            } else {
                inner.call(request).await
            }?;
            if by_origin {
                // Or a cache would show one origin what is for another.
                let origin = HeaderValue::from_static("Origin");
                answer.headers_mut().insert(header::VARY, origin);
            }
            Ok::<_, poem::Error>(answer)
        }
    })
    .with(context)
}

/// Reads the body of an API request, which poem would do without a limit.
/// Webhooks have limits of their own.
async fn within_limits<E: Endpoint>(
    app: Arc<App>,
    endpoint: Arc<E>,
    mut request: poem::Request,
) -> poem::Result<E::Output> {
    let has_body = !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if has_body && !request.uri().path().starts_with("/webhook") {
        let body = Box::pin(read_body(&app, &mut request)).await?;
        request.set_body(body);
    }
    endpoint.call(request).await
}

async fn read_body(app: &App, request: &mut poem::Request) -> Result<Bytes, Failure> {
    let bytes_max = body_bytes_max(app, request);
    let mut coming = request.take_body().into_bytes_stream();
    let reading = read(request.headers(), &mut coming, bytes_max);
    let body = tokio::time::timeout(incoming::TIMEOUT, reading)
        .await
        .unwrap_or_else(|_| Err(Failure::field("body", "did not arrive in time")));
    if matches!(body, Err(Failure::TooLarge(_))) {
        incoming::discard(request.headers(), coming, bytes_max).await;
    }
    body
}

async fn read(
    headers: &HeaderMap,
    coming: &mut (impl Stream<Item = std::io::Result<Bytes>> + Unpin),
    bytes_max: usize,
) -> Result<Bytes, Failure> {
    if incoming::is_larger(headers, bytes_max) {
        return Err(Failure::too_large(bytes_max));
    }
    let mut whole = BytesMut::new();
    loop {
        match coming.try_next().await {
            Ok(Some(chunk)) if whole.len() + chunk.len() > bytes_max => {
                return Err(Failure::too_large(bytes_max));
            }
            Ok(Some(chunk)) => whole.extend_from_slice(&chunk),
            Ok(None) => return Ok(whole.freeze()),
            Err(_) => {
                return Err(Failure::field(
                    "body",
                    "ended before its end: the connection was cut",
                ));
            }
        }
    }
}

/// Large bodies are for those routes that need them, and from whoever is known.
fn body_bytes_max(app: &App, request: &poem::Request) -> usize {
    let bytes_max = match request.uri().path() {
        "/api/batch-calling/submit" => ORDER_BODY_BYTES_MAX,
        "/api/groups" => groups::DOCUMENT_BODY_BYTES_MAX,
        _ => return API_BODY_BYTES_MAX,
    };
    match auth::caller_of(app, request) {
        Some(_) => bytes_max,
        None => API_BODY_BYTES_MAX,
    }
}

fn cors() -> Cors {
    // Login tokens travel in a header, never in a cookie: no credentials.
    Cors::new()
        .allow_methods(["GET", "POST", "PATCH", "DELETE"])
        .expose_headers(["X-Request-Id", "X-Ledger-Position", "Retry-After"])
}
