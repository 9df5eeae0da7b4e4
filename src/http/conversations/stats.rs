//! The numbers of the day. Contract, section 6.

use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use domain::conversation::Status;
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use projections::conversations::Quarter;
use projections::effects::QueueCounts;

use crate::app::App;
use crate::http::Tag;
use crate::http::auth::Auth;
use crate::http::error::Failure;

/// What the replaced service answers.
#[derive(Debug, Object)]
#[oai(rename = "StatsAnswer", example)]
struct Answer {
    /// Always `true`.
    success: bool,
    /// The numbers.
    stats: Stats,
}

/// The numbers of the day, which is that of `TIMEZONE`.
#[derive(Debug, Object)]
struct Stats {
    /// Conversations in which the agent answers.
    active_conversations: i64,
    /// Conversations begun today: by us after a call, or by a client's first message.
    total_conversations_today: i64,
    /// Messages that went out today.
    messages_sent_today: i64,
    /// Messages that came in today.
    messages_received_today: i64,
    /// Of the conversations that we began today after a call, how many the client has answered: percent, with one
    /// decimal; 0 where we began none.
    response_rate: f64,
    /// How long a client waited for the agent's answers that went out today, on average, in whole seconds; 0 where
    /// none did.
    avg_response_time_seconds: i64,
    /// What we owe the outside.
    queue: QueueView,
}

/// What we owe the outside: messages to send, answers to ask the agent for.
#[derive(Debug, Object)]
#[oai(rename = "QueueCounts")]
struct QueueView {
    /// Owed, and nobody is at it.
    waiting: i64,
    /// Being worked on.
    active: i64,
    /// Done since the beginning.
    completed: i64,
    /// Given up until a person wants them tried again.
    failed: i64,
}

impl Example for Answer {
    fn example() -> Self {
        Self {
            success: true,
            stats: Stats {
                active_conversations: 12,
                total_conversations_today: 45,
                messages_sent_today: 127,
                messages_received_today: 89,
                response_rate: 74.5,
                avg_response_time_seconds: 45,
                queue: QueueView {
                    waiting: 2,
                    active: 3,
                    completed: 120,
                    failed: 1,
                },
            },
        }
    }
}

impl From<QueueCounts> for QueueView {
    fn from(counts: QueueCounts) -> Self {
        Self {
            waiting: counts.waiting,
            active: counts.active,
            completed: counts.completed,
            failed: counts.failed,
        }
    }
}

/// Routes for numbers.
pub struct Api;

#[OpenApi(tag = "Tag::Conversations")]
impl Api {
    /// The numbers of the day
    #[oai(path = "/api/stats", method = "get", operation_id = "get_stats")]
    async fn stats(&self, app: Data<&Arc<App>>, _auth: Auth) -> Result<Json<Answer>, Failure> {
        let now = app.source.now();
        let (from, to) = day(now, app.config.timezone);
        let mut conn = app.pool.acquire().await?;
        let today = projections::conversations::between(&mut conn, from, to).await?;
        let active = projections::conversations::count_of(&mut conn, Status::Active).await?;
        let queue = projections::effects::queue_counts(&mut conn, now).await?;
        Ok(Json(Answer {
            success: true,
            stats: Stats {
                active_conversations: active,
                total_conversations_today: today.started,
                messages_sent_today: today.sent,
                messages_received_today: today.received,
                response_rate: response_rate(&today),
                avg_response_time_seconds: response_seconds(&today),
                queue: queue.into(),
            },
        }))
    }
}

fn response_rate(today: &Quarter) -> f64 {
    if today.opened == 0 {
        return 0.0;
    }
    let thousandths = 1_000.0 * today.responded as f64 / today.opened as f64;
    thousandths.round() / 10.0
}

fn response_seconds(today: &Quarter) -> i64 {
    if today.response_count == 0 {
        return 0;
    }
    (today.response_secs as f64 / today.response_count as f64).round() as i64
}

/// When the day begins and ends.
fn day(now: DateTime<Utc>, timezone: Tz) -> (DateTime<Utc>, DateTime<Utc>) {
    let today = now.with_timezone(&timezone).date_naive();
    let tomorrow = today.checked_add_days(Days::new(1)).unwrap_or(today);
    (beginning(today, timezone), beginning(tomorrow, timezone))
}

/// The first moment of a day. Where clocks are put forward at midnight, there
/// is no midnight.
fn beginning(day: NaiveDate, timezone: Tz) -> DateTime<Utc> {
    let midnight = day.and_time(NaiveTime::MIN);
    let hours = (0..4).map(|half_hours| midnight + TimeDelta::minutes(30 * half_hours));
    let mut moments = hours.filter_map(|time| timezone.from_local_datetime(&time).earliest());
    let first = moments.next().map(|moment| moment.to_utc());
    first.unwrap_or_else(|| midnight.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_that_of_the_time_zone() {
        for (now, timezone, from, to) in [
            (
                "2025-10-28T03:00:00Z",
                "America/Bogota",
                "2025-10-27T05:00:00Z",
                "2025-10-28T05:00:00Z",
            ),
            (
                "2025-10-28T05:00:00Z",
                "America/Bogota",
                "2025-10-28T05:00:00Z",
                "2025-10-29T05:00:00Z",
            ),
            (
                "2025-10-28T05:00:00Z",
                "Asia/Kathmandu",
                "2025-10-27T18:15:00Z",
                "2025-10-28T18:15:00Z",
            ),
            // At midnight clocks go from 0:00 to 1:00.
            (
                "2024-09-08T12:00:00Z",
                "America/Santiago",
                "2024-09-08T04:00:00Z",
                "2024-09-09T03:00:00Z",
            ),
        ] {
            let utc = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
            let day = day(utc(now), timezone.parse().unwrap());
            assert_eq!(day, (utc(from), utc(to)), "{now} {timezone}");
        }
    }

    #[test]
    fn shares_and_means_of_nothing_are_nothing() {
        let mut today = Quarter {
            bucket: DateTime::UNIX_EPOCH,
            started: 0,
            opened: 0,
            responded: 0,
            sent: 0,
            received: 0,
            response_count: 0,
            response_secs: 0,
        };
        assert_eq!((response_rate(&today), response_seconds(&today)), (0.0, 0));
        (today.opened, today.responded) = (3, 2);
        (today.response_count, today.response_secs) = (2, 91);
        assert_eq!(
            (response_rate(&today), response_seconds(&today)),
            (66.7, 46)
        );
    }
}
