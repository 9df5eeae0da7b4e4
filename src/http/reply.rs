//! The shape of every success, and of every page of a list. Contract, section 0.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem_openapi::Object;
use poem_openapi::payload::{Json, Response};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Failure;

/// Rows of a page when the caller does not say.
const PAGE_ROWS: i64 = 50;
/// Rows of a page at most.
const PAGE_ROWS_MAX: i64 = 200;

/// A success.
#[derive(Debug, Object)]
pub struct Success<T: Type + ParseFromJSON + ToJSON + Send + Sync> {
    /// Always `true`.
    success: bool,
    /// Words for people, in Spanish.
    #[oai(skip_serializing_if_is_none)]
    message: Option<String>,
    /// What was asked for.
    data: T,
}

/// A page of a list.
#[derive(Debug, Object)]
pub struct Page<T: Type + ParseFromJSON + ToJSON + Send + Sync> {
    /// Always `true`.
    success: bool,
    /// The rows.
    data: Vec<T>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// A page of a list, in words too.
#[derive(Debug, Object)]
pub struct MessagePage<T: Type + ParseFromJSON + ToJSON + Send + Sync> {
    /// Always `true`.
    success: bool,
    /// Words for people, in Spanish.
    message: String,
    /// The rows.
    data: Vec<T>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// What a command answers: its data, and the position of its last event.
pub type Commanded<T> = Response<Json<Success<T>>>;

/// A success with data.
pub fn success<T: Type + ParseFromJSON + ToJSON + Send + Sync>(data: T) -> Json<Success<T>> {
    Json(Success {
        success: true,
        message: None,
        data,
    })
}

/// A success with data, in words too.
pub fn told<T: Type + ParseFromJSON + ToJSON + Send + Sync>(
    data: T,
    message: &str,
) -> Json<Success<T>> {
    Json(Success {
        success: true,
        message: Some(message.to_owned()),
        data,
    })
}

/// A command's success.
pub fn commanded<T: Type + ParseFromJSON + ToJSON + Send + Sync>(
    data: T,
    message: Option<&str>,
    position: i64,
) -> Commanded<T> {
    let body = Success {
        success: true,
        message: message.map(str::to_owned),
        data,
    };
    Response::new(Json(body)).header("X-Ledger-Position", position.to_string())
}

/// How many rows a page may have.
///
/// # Errors
/// 400 outside of 1 to 200.
pub fn limit(given: Option<i64>) -> Result<i64, Failure> {
    let limit = given.unwrap_or(PAGE_ROWS);
    if (1..=PAGE_ROWS_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Failure::field(
        "limit",
        format!("must be from 1 to {PAGE_ROWS_MAX}"),
    ))
}

/// Reads a cursor that we gave out.
///
/// # Errors
/// 400 when it is not one.
pub fn read_cursor<C: DeserializeOwned>(given: Option<&str>) -> Result<Option<C>, Failure> {
    // Not `cursor.is_empty()`, which would be that of poem-openapi's `Type`.
    let Some(given) = given.filter(|cursor| !str::is_empty(cursor)) else {
        return Ok(None);
    };
    // PostgreSQL cannot hold NUL, so no cursor of ours does.
    let holds_nul = |json: &[u8]| json.windows(6).any(|escape| escape == br"\u0000");
    let decoded = URL_SAFE_NO_PAD.decode(given).ok();
    let decoded = decoded.filter(|json| !holds_nul(json));
    let cursor = decoded.and_then(|json| serde_json::from_slice(&json).ok());
    cursor
        .map(Some)
        .ok_or_else(|| Failure::field("cursor", "is none that this list gave out"))
}

/// Cuts rows, of which there is one more than `limit` when there are more, to
/// a page; the last of it, if another page follows.
pub fn cut<R>(rows: &mut Vec<R>, limit: i64) -> Option<&R> {
    let limit = usize::try_from(limit).unwrap_or_default();
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more)
}

/// A cursor as it is given out.
pub fn next_cursor(cursor: impl Serialize) -> Option<String> {
    let json = serde_json::to_vec(&cursor).ok()?;
    Some(URL_SAFE_NO_PAD.encode(json))
}

/// A page of rows. `rows` holds one more than `limit` when there are more.
pub fn page<R, C: Serialize, T: Type + ParseFromJSON + ToJSON + Send + Sync>(
    mut rows: Vec<R>,
    limit: i64,
    cursor_of: impl Fn(&R) -> C,
    show: impl Fn(R) -> T,
) -> Json<Page<T>> {
    let next_cursor = cut(&mut rows, limit).and_then(|last| next_cursor(cursor_of(last)));
    Json(Page {
        success: true,
        data: rows.into_iter().map(show).collect(),
        next_cursor,
    })
}

/// A page of rows, as [`page`], in words too.
pub fn message_page<R, C: Serialize, T: Type + ParseFromJSON + ToJSON + Send + Sync>(
    message: &str,
    rows: Vec<R>,
    limit: i64,
    cursor_of: impl Fn(&R) -> C,
    show: impl Fn(R) -> T,
) -> Json<MessagePage<T>> {
    let Json(page) = page(rows, limit, cursor_of, show);
    Json(MessagePage {
        success: true,
        message: message.to_owned(),
        data: page.data,
        next_cursor: page.next_cursor,
    })
}
