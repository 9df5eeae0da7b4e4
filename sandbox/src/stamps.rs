//! Times in the providers' ways of writing them.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

/// Seconds in a day.
pub(crate) const DAY_SECS: u64 = 24 * 60 * 60;

fn at(unix_secs: u64) -> DateTime<Utc> {
    i64::try_from(unix_secs)
        .ok()
        .and_then(|s| DateTime::from_timestamp(s, 0))
        .unwrap_or_default()
}

/// Twilio's way: `Tue, 28 Oct 2025 23:28:40 +0000`.
pub(crate) fn rfc2822(unix_secs: u64) -> String {
    at(unix_secs)
        .format("%a, %d %b %Y %H:%M:%S +0000")
        .to_string()
}

/// The carrier's way in a delivery receipt: `2510282328`.
pub(crate) fn delivery_receipt(unix_secs: u64) -> String {
    at(unix_secs).format("%y%m%d%H%M").to_string()
}

/// A day (`2025-10-28`) or a moment (`2025-10-28T23:28:40Z`) as Unix seconds.
pub(crate) enum Moment {
    Day(u64),
    Second(u64),
}

/// Reads what Twilio takes for `DateSent`.
pub(crate) fn parse_moment(text: &str) -> Option<Moment> {
    let seconds = |time: DateTime<Utc>| u64::try_from(time.timestamp()).ok();
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return seconds(day.and_time(NaiveTime::MIN).and_utc()).map(Moment::Day);
    }
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    seconds(time.to_utc()).map(Moment::Second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_twilio_writes_them() {
        assert_eq!(rfc2822(1_761_694_120), "Tue, 28 Oct 2025 23:28:40 +0000");
        assert_eq!(delivery_receipt(1_761_694_120), "2510282328");
    }

    #[test]
    fn days_and_moments_are_told_apart() {
        assert!(matches!(
            parse_moment("2025-10-28"),
            Some(Moment::Day(1_761_609_600))
        ));
        assert!(matches!(
            parse_moment("2025-10-28T23:28:40Z"),
            Some(Moment::Second(1_761_694_120))
        ));
        assert!(parse_moment("yesterday").is_none());
    }
}
