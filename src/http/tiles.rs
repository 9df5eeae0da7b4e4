//! The transparency log as static files: C2SP tlog-tiles, below `/tlog`, for
//! standard clients and witnesses.
//!
//! The head and the tiles are hashes of hashes: everybody may read them. Entry
//! bundles tell which streams there are and when: for auditors.

use std::sync::Arc;

use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Request, Response, handler};

use super::auth::{self, Access};
use super::error::Failure;
use super::log::failure;
use crate::app::App;
use crate::ledger::log;

/// A full tile never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// A head is another in a moment.
const NOT_KEPT: &str = "no-cache";

/// `GET /tlog/checkpoint`.
#[handler]
pub async fn get_head(app: Data<&Arc<App>>) -> Result<Response, Failure> {
    let latest = log::latest(&app.pool).await?;
    let latest = latest.ok_or_else(|| Failure::not_found("Nothing is sealed yet"))?;
    Ok(answer(
        "text/plain; charset=utf-8",
        NOT_KEPT,
        latest.note.into(),
    ))
}

/// `GET /tlog/tile/<L>/<N>[.p/<W>]` and `GET /tlog/tile/entries/<N>[.p/<W>]`.
#[handler]
pub async fn get_tile(app: Data<&Arc<App>>, request: &Request) -> Result<Response, Failure> {
    let no_such = || Failure::not_found("There is no such tile");
    let path = request
        .uri()
        .path()
        .rsplit_once("/tile/")
        .ok_or_else(no_such)?
        .1;
    let tile = read_path(path).ok_or_else(no_such)?;
    if tile.is_data() {
        let caller = auth::caller_of(&app, request);
        let caller = caller.ok_or_else(Failure::unauthorized)?;
        caller.require(Access::Auditor)?;
    }
    let size = log::latest(&app.pool)
        .await?
        .map_or(0, |latest| latest.size);
    let width = u64::from(tile.width());
    // Of the tile's level, how many hashes there are.
    let there = size.checked_shr(8 * u32::from(tile.level())).unwrap_or(0);
    let begin = tile.level_index().checked_mul(256).ok_or_else(no_such)?;
    let end = begin.checked_add(width).ok_or_else(no_such)?;
    if end > there {
        return Err(no_such());
    }
    let data = if tile.is_data() {
        let rows = log::entries(&app.pool, begin, end).await.map_err(failure)?;
        bundle(&rows)
    } else {
        let kept = log::tile(&app.pool, (tile.level(), tile.level_index())).await?;
        let mut data = kept.ok_or_else(no_such)?;
        data.truncate(tile.width() as usize * domain::log::HASH_BYTES);
        data
    };
    let kept_for = if tile.is_data() {
        "private, no-store"
    } else {
        FOR_EVER
    };
    Ok(answer("application/octet-stream", kept_for, data))
}

/// The path as `tlog_tiles` (and Go's sumdb) has it names the height, and
/// calls the bundles `data`. It panics on a width of 0 and on levels that no
/// tree has.
fn read_path(path: &str) -> Option<tlog_tiles::Tile> {
    let (level, index) = path.split_once('/')?;
    let level = match level {
        "entries" => "data",
        level if matches!(level.as_bytes(), [b'0'..=b'7']) => level,
        _ => return None,
    };
    if index.ends_with(".p/0") {
        return None;
    }
    tlog_tiles::Tile::from_path(&format!("tile/8/{level}/{index}")).ok()
}

/// Entries, each behind its length in two bytes.
fn bundle(rows: &[domain::log::line::Line]) -> Vec<u8> {
    let mut bundle = Vec::new();
    for row in rows {
        let entry = row.entry();
        let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(&entry);
    }
    bundle
}

fn answer(content_type: &str, kept_for: &'static str, body: Vec<u8>) -> Response {
    Response::builder()
        .status(StatusCode::OK)
        .content_type(content_type)
        .header(header::CACHE_CONTROL, kept_for)
        .body(body)
}
