//! Every error answer, in the one shape that the contract gives them
//! (section 0): front-ends read `message` or `error`, programs read `code`.

use std::sync::Arc;

use poem::error::{MethodNotAllowedError, NotFoundError, SizedLimitError};
use poem::http::StatusCode;
use poem::middleware::PanicHandler;
use poem::{Endpoint, IntoResponse, PathPattern, Request, Response};
use poem_openapi::error::{
    AuthorizationError, ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError,
};
use poem_openapi::payload::{Json, Payload};
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::{ApiResponse, Object};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::context;
use crate::ledger::NotWritten;

/// Seconds after which a caller may try again when we are overloaded or the
/// database is away.
const RETRY_AFTER_SECS: u64 = 2;

/// An error.
#[derive(Clone, Debug, Object)]
#[oai(rename = "Error", example)]
pub struct ErrorBody {
    /// Always `false`.
    success: bool,
    /// What is wrong, and what to do.
    message: String,
    /// The same as `message`.
    error: String,
    /// What is wrong, for programs.
    code: String,
    /// The id under which this request is found in the logs.
    request_id: String,
    /// More on it: for `validation_error` the fields, for `provider_error` the
    /// provider's words.
    #[oai(skip_serializing_if_is_none)]
    details: Option<serde_json::Value>,
    /// Of `otp_invalid`: how many guesses are left. The same in `details`.
    #[oai(skip_serializing_if_is_none)]
    attempts_left: Option<u32>,
}

impl poem_openapi::types::Example for ErrorBody {
    fn example() -> Self {
        let message = "limit must be from 1 to 200".to_owned();
        Self {
            success: false,
            error: message.clone(),
            message,
            code: "validation_error".to_owned(),
            request_id: "01a1ff02-68ef-7be5-8dc3-818769f175a5".to_owned(),
            details: Some(
                serde_json::json!([{"field": "limit", "message": "must be from 1 to 200"}]),
            ),
            attempts_left: None,
        }
    }
}

impl ErrorBody {
    /// More on it.
    pub const fn details(&self) -> Option<&serde_json::Value> {
        self.details.as_ref()
    }
}

/// An error as it is answered, and of a command the position at which it is on
/// record.
pub struct Told(pub ErrorBody, Option<i64>);

impl Told {
    fn new(code: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let body = ErrorBody {
            success: false,
            error: message.clone(),
            message,
            code: code.to_owned(),
            request_id: context::current().request_id,
            details: None,
            attempts_left: None,
        };
        Self(body, None)
    }
}

impl Payload for Told {
    const CONTENT_TYPE: &'static str = <Json<ErrorBody> as Payload>::CONTENT_TYPE;

    fn schema_ref() -> MetaSchemaRef {
        <Json<ErrorBody> as Payload>::schema_ref()
    }

    fn register(registry: &mut Registry) {
        <Json<ErrorBody> as Payload>::register(registry);
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let Self(body, position) = self;
        let mut response = Json(body).into_response();
        if let Some(position) = position {
            let headers = response.headers_mut();
            headers.insert("x-ledger-position", position.into());
        }
        response
    }
}

/// How a request may fail.
#[derive(ApiResponse)]
pub enum Failure {
    /// The request is malformed: `details` names the fields.
    #[oai(status = 400)]
    BadRequest(Told),
    /// The credential is missing or wrong.
    #[oai(status = 401)]
    Unauthorized(Told),
    /// The caller may not do this.
    #[oai(status = 403)]
    Forbidden(Told),
    /// There is no such thing.
    #[oai(status = 404)]
    NotFound(Told),
    /// The state of things does not allow it.
    #[oai(status = 409)]
    Conflict(
        Told,
        /// Seconds after which to try again, where that may help.
        #[oai(header = "Retry-After")]
        Option<u64>,
    ),
    /// Its time is over.
    #[oai(status = 410)]
    Gone(Told),
    /// The body is too large.
    #[oai(status = 413)]
    TooLarge(Told),
    /// The body is of a type that is not understood.
    #[oai(status = 415)]
    UnsupportedMediaType(Told),
    /// Too many requests.
    #[oai(status = 429)]
    TooMany(
        Told,
        /// Seconds after which to try again.
        #[oai(header = "Retry-After")]
        u64,
    ),
    /// Something broke here; the logs tell, by the request id.
    #[oai(status = 500)]
    Internal(Told),
    /// The provider refused or failed: `details` holds its words.
    #[oai(status = 502)]
    BadGateway(Told),
    /// Overloaded, or the database is away: try again.
    #[oai(status = 503)]
    Unavailable(
        Told,
        /// Seconds after which to try again.
        #[oai(header = "Retry-After")]
        u64,
    ),
    /// The provider has not answered in time.
    #[oai(status = 504)]
    GatewayTimeout(Told),
}

impl Failure {
    /// One field is wrong.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![(field.to_owned(), message.into())])
    }

    /// Some fields are wrong.
    pub fn fields(fields: Vec<(String, String)>) -> Self {
        let summary: Vec<String> = fields
            .iter()
            .map(|(field, message)| format!("{field} {message}"))
            .collect();
        let mut body = Told::new("validation_error", summary.join("; "));
        let details: Vec<_> = fields
            .into_iter()
            .map(|(field, message)| serde_json::json!({"field": field, "message": message}))
            .collect();
        body.0.details = Some(details.into());
        Self::BadRequest(body)
    }

    /// One field is wrong, in words that front-ends know as they stand.
    pub fn saying(field: &str, message: impl Into<String>) -> Self {
        let mut body = Told::new("validation_error", message);
        let message = &body.0.message;
        body.0.details = Some(serde_json::json!([{"field": field, "message": message}]));
        Self::BadRequest(body)
    }

    /// The credential is missing or wrong. Says no more than that.
    pub fn unauthorized() -> Self {
        Self::Unauthorized(Told::new("unauthorized", "Unauthorized"))
    }

    /// The caller is known, and may not do this.
    pub fn forbidden(message: &str) -> Self {
        Self::Forbidden(Told::new("forbidden", message))
    }

    /// There is no such thing.
    pub fn not_found(message: &str) -> Self {
        Self::NotFound(Told::new("not_found", message))
    }

    /// The state of things does not allow it.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::Conflict(Told::new(code, message), None)
    }

    /// The same is being done already.
    pub fn in_progress(message: &str, retry_after_secs: u64) -> Self {
        let body = Told::new("idempotency_in_progress", message);
        Self::Conflict(body, Some(retry_after_secs))
    }

    /// Its time is over.
    pub fn gone(code: &str, message: &str) -> Self {
        Self::Gone(Told::new(code, message))
    }

    /// It is another code.
    pub fn wrong_code(message: &str, attempts_left: u32) -> Self {
        let mut body = Told::new("otp_invalid", message);
        body.0.details = Some(serde_json::json!({"attempts_left": attempts_left}));
        body.0.attempts_left = Some(attempts_left);
        Self::BadRequest(body)
    }

    /// The body is larger than `bytes_max`.
    pub fn too_large(bytes_max: usize) -> Self {
        Self::TooLarge(Told::new(
            "payload_too_large",
            format!("The body is larger than {bytes_max} bytes"),
        ))
    }

    /// The body is of a type that is not understood.
    pub fn unsupported_media_type(message: &str) -> Self {
        Self::UnsupportedMediaType(Told::new("unsupported_media_type", message))
    }

    /// Too many requests.
    pub fn too_many(message: &str, retry_after_secs: u64) -> Self {
        Self::limited("too_many_requests", message, retry_after_secs)
    }

    /// Too many of something that has a name of its own.
    pub fn limited(code: &str, message: &str, retry_after_secs: u64) -> Self {
        Self::TooMany(Told::new(code, message), retry_after_secs)
    }

    /// Overloaded, or something we need is away.
    pub fn unavailable(message: &str) -> Self {
        Self::Unavailable(Told::new("unavailable", message), RETRY_AFTER_SECS)
    }

    /// The provider refused or failed; `details` are its words.
    pub fn provider(message: &str, details: impl Into<serde_json::Value>) -> Self {
        let mut body = Told::new("provider_error", message);
        body.0.details = Some(details.into());
        Self::BadGateway(body)
    }

    /// The provider has not answered in time; `details` say what becomes of it.
    pub fn provider_timeout(message: &str, details: impl Into<serde_json::Value>) -> Self {
        let mut body = Told::new("provider_timeout", message);
        body.0.details = Some(details.into());
        Self::GatewayTimeout(body)
    }

    /// With another text in `error` than in `message`, where front-ends know it.
    pub fn naming(mut self, error: &str) -> Self {
        error.clone_into(&mut self.told_mut().0.error);
        self
    }

    /// Of a command: on record up to this position.
    pub fn at(mut self, position: i64) -> Self {
        self.told_mut().1 = Some(position);
        self
    }

    /// The code that the answer will carry.
    pub fn code(&self) -> &str {
        match self {
            Self::BadRequest(body)
            | Self::Unauthorized(body)
            | Self::Forbidden(body)
            | Self::NotFound(body)
            | Self::Conflict(body, _)
            | Self::Gone(body)
            | Self::TooLarge(body)
            | Self::UnsupportedMediaType(body)
            | Self::TooMany(body, _)
            | Self::Internal(body)
            | Self::BadGateway(body)
            | Self::Unavailable(body, _)
            | Self::GatewayTimeout(body) => &body.0.code,
        }
    }

    fn told_mut(&mut self) -> &mut Told {
        match self {
            Self::BadRequest(body)
            | Self::Unauthorized(body)
            | Self::Forbidden(body)
            | Self::NotFound(body)
            | Self::Conflict(body, _)
            | Self::Gone(body)
            | Self::TooLarge(body)
            | Self::UnsupportedMediaType(body)
            | Self::TooMany(body, _)
            | Self::Internal(body)
            | Self::BadGateway(body)
            | Self::Unavailable(body, _)
            | Self::GatewayTimeout(body) => body,
        }
    }

    /// Something broke here. Logged once, here; the answer says nothing of it.
    fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(request_id = context::current().request_id, %error, "a request failed");
        Self::Internal(Told::new("internal_error", "Internal server error"))
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) {
            tracing::warn!(%error, "the database is away");
            return Self::unavailable("The database is not available, try again");
        }
        Self::internal(&error)
    }
}

/// Whether the database is away, or was since the connection was made: its
/// answers of the SQLSTATE classes 08 (connection), 53 (resources) and 57P
/// (shutdown) pass, as connections that broke do. So does 55000 that ends the
/// session: the database takes no connections.
fn is_away(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let is_over = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| error.severity() == PgSeverity::Fatal);
    let passes = |code: &str| {
        let classes = ["08", "53", "57P"];
        classes.iter().any(|class| code.starts_with(class)) || is_over && code == "55000"
    };
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => true,
        _ => code.is_some_and(|code| passes(&code)),
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<sqlx::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::internal(&format!("{error:#}")),
        }
    }
}

impl From<NotWritten> for Failure {
    fn from(reason: NotWritten) -> Self {
        match reason {
            NotWritten::Overloaded => Self::unavailable("Overloaded, try again"),
            NotWritten::Database => Self::unavailable("The database is not available, try again"),
            NotWritten::Stopping => Self::unavailable("Restarting, try again"),
        }
    }
}

/// Gives every error its shape. What is measured of a request, its route, stays.
///
/// # Errors
/// Never: they have become answers.
pub async fn shaped<E: Endpoint>(endpoint: Arc<E>, request: Request) -> poem::Result<Response> {
    Ok(match endpoint.call(request).await {
        Ok(answer) => answer.into_response(),
        Err(error) => {
            let route = error.data::<PathPattern>().cloned();
            let mut answer = into_response(error);
            if let Some(route) = route {
                answer.set_data(route);
            }
            answer
        }
    })
}

/// What poem and poem-openapi refuse by themselves, in our shape.
pub fn into_response(error: poem::Error) -> Response {
    if error.is_from_response() {
        return error.into_response();
    }
    let failure = if let Some(error) = error.downcast_ref::<ParseParamError>() {
        Failure::field(error.name, error.reason.clone())
    } else if let Some(error) = error.downcast_ref::<ParsePathError>() {
        // poem-openapi tells the parameter's place and not its name. Ids are the
        // only ones that are more than text.
        Failure::field("id", error.reason.clone())
    } else if let Some(error) = error.downcast_ref::<ParseRequestPayloadError>() {
        Failure::field("body", error.reason.clone())
    } else if error.downcast_ref::<AuthorizationError>().is_some() {
        Failure::unauthorized()
    } else if let Some(error) = error.downcast_ref::<ContentTypeError>() {
        Failure::UnsupportedMediaType(Told::new("unsupported_media_type", error.to_string()))
    } else if error.is::<NotFoundError>() {
        Failure::not_found("There is nothing at this address; see /api/docs")
    } else if error.is::<MethodNotAllowedError>() {
        return other(
            StatusCode::METHOD_NOT_ALLOWED,
            "This address does not take this method; see /api/docs",
        );
    } else if error.is::<SizedLimitError>() {
        Failure::TooLarge(Told::new("payload_too_large", error.to_string()))
    } else if error.status().is_client_error() {
        return other(error.status(), &error.to_string());
    } else {
        Failure::internal(&error)
    };
    poem::Error::from(failure).into_response()
}

fn other(status: StatusCode, message: &str) -> Response {
    let code = status
        .canonical_reason()
        .unwrap_or("error")
        .to_lowercase()
        .replace([' ', '-'], "_");
    let mut response = Told::new(&code, message).into_response();
    response.set_status(status);
    response
}

/// What becomes of a handler that panicked: a 500 like any other.
#[derive(Clone)]
pub struct Panicked;

impl PanicHandler for Panicked {
    type Response = Response;

    fn get_response(&self, panic: Box<dyn std::any::Any + Send>) -> Response {
        let words = panic
            .downcast_ref::<&str>()
            .map(|words| (*words).to_owned());
        let words = words
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        poem::Error::from(Failure::internal(&format!("panicked: {words}"))).into_response()
    }
}
