//! Times as PostgreSQL can hold them.

use chrono::{DateTime, Datelike, Utc};

/// A time that a provider wrote inside an event, to the microsecond like every
/// time in the database. `None` when no call can have happened then; such
/// nonsense must not stop a projection.
pub(crate) fn plausible(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let at = DateTime::from_timestamp_micros(at.timestamp_micros())?;
    (1970..=9999).contains(&at.year()).then_some(at)
}

/// A time that somebody asks about, drawn into what the database can hold.
pub(crate) fn askable(at: DateTime<Utc>) -> DateTime<Utc> {
    const YEAR_0: i64 = -62_167_219_200;
    const YEAR_10000: i64 = 253_402_300_800;
    let [first, last] = [YEAR_0, YEAR_10000].map(|secs| DateTime::from_timestamp(secs, 0));
    at.clamp(first.unwrap_or(at), last.unwrap_or(at))
}
