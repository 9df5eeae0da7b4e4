//! Parameters that several operations take.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use projections::past::AsOf;

use super::error::Failure;

/// Times in Unix seconds that are taken: from 1970 to the end of the year 9999.
pub const UNIX_TIMES: RangeInclusive<i64> = 0..=253_402_300_799;
/// What is said of any other.
pub const NO_UNIX_TIME: &str = "must be a time in whole Unix seconds, or null";

/// Reads a time of RFC 3339.
///
/// # Errors
/// 400 that names the parameter.
pub fn time(name: &'static str, given: Option<&str>) -> Result<Option<DateTime<Utc>>, Failure> {
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    // A `+` of the time zone that was not percent-encoded comes as a space.
    match DateTime::parse_from_rfc3339(&given.replace(' ', "+")) {
        Ok(time) => Ok(Some(time.to_utc())),
        Err(_) => Err(Failure::field(
            name,
            "must be a time like 2025-10-28T23:29:50Z",
        )),
    }
}

/// Reads up to where the past is asked about.
///
/// # Errors
/// 400 that names the parameter.
pub fn as_of(given: Option<String>) -> Result<Option<AsOf>, Failure> {
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    if let Ok(position) = given.parse() {
        return Ok(Some(AsOf::Position(position)));
    }
    match time("as_of", Some(&given)) {
        Ok(time) => Ok(time.map(AsOf::Time)),
        Err(_) => Err(Failure::field(
            "as_of",
            "must be a ledger position or a time like 2025-10-28T23:29:50Z",
        )),
    }
}

/// A time in Unix seconds, up to the end of the year 9999.
///
/// # Errors
/// 400 that names the field.
pub fn unix_time(name: &'static str, given: Option<i64>) -> Result<Option<i64>, Failure> {
    match given {
        Some(time) if !UNIX_TIMES.contains(&time) => Err(Failure::field(name, NO_UNIX_TIME)),
        given => Ok(given),
    }
}

/// Reads the end of a span of time, which belongs to it. Gives the first moment
/// that PostgreSQL can tell from it, for readers that compare with "before".
///
/// # Errors
/// 400 that names the parameter.
pub fn until(name: &'static str, given: Option<&str>) -> Result<Option<DateTime<Utc>>, Failure> {
    let next = |time: DateTime<Utc>| time + chrono::TimeDelta::microseconds(1);
    Ok(time(name, given)?.map(next))
}

/// Reads one of a set of words.
///
/// # Errors
/// 400 that names the parameter and the words.
pub fn word<T: std::str::FromStr<Err = String>>(
    name: &'static str,
    given: Option<String>,
) -> Result<Option<T>, Failure> {
    given
        .filter(|given| !given.is_empty())
        .map(|given| {
            given
                .parse()
                .map_err(|message: String| Failure::field(name, message))
        })
        .transpose()
}

/// An id in a path, which is looked up as it stands.
///
/// # Errors
/// 400 that names the parameter.
pub fn id(given: String) -> Result<String, Failure> {
    Ok(text("id", Some(given))?.unwrap_or_default())
}

/// An id or a name as a caller gives it: not empty, not endless, no NUL.
///
/// # Errors
/// 400 that names the parameter.
pub fn text(name: &'static str, given: Option<String>) -> Result<Option<String>, Failure> {
    const CHARS_MAX: usize = 500;
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    if given.contains('\0') {
        return Err(Failure::field(name, "must not hold the character NUL"));
    }
    if given.chars().count() > CHARS_MAX {
        return Err(Failure::field(
            name,
            format!("must have at most {CHARS_MAX} characters"),
        ));
    }
    Ok(Some(given))
}
