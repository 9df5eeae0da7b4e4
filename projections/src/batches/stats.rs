//! What became of a group's calls, in numbers.

use chrono::NaiveDate;
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

/// What became of the recipients of a group's batches, each counted once a
/// batch, as they stand now. A retry is the same recipient again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, FromRow)]
pub struct CallStats {
    /// All of them.
    pub total: i64,
    /// Talked with.
    pub completed: i64,
    /// Not reached.
    pub failed: i64,
    /// A machine answered.
    pub voicemail: i64,
    /// Being called.
    pub in_progress: i64,
    /// Not called yet.
    pub pending: i64,
    /// Given up before.
    pub cancelled: i64,
    /// Talked with, of those whose call is over (`completed`, `failed`,
    /// `voicemail`): 0 to 1, 0 where no call is over.
    pub answer_rate: f64,
    /// How long a completed call lasted on average, in seconds; 0 without one.
    pub avg_duration_secs: f64,
    /// How long the completed calls lasted together, in seconds.
    pub total_duration_secs: i64,
}

/// The numbers of one day.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow)]
pub struct DayStats {
    /// The day, in the time zone asked for, on which the current call began;
    /// of who waits for a call, the day on which the batch is to begin.
    pub day: NaiveDate,
    /// Its numbers.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub stats: CallStats,
}

const NUMBERS: &str = "count(*) as total,
    count(*) filter (where status = 'completed') as completed,
    count(*) filter (where status = 'failed') as failed,
    count(*) filter (where status = 'voicemail') as voicemail,
    count(*) filter (where status = 'in_progress') as in_progress,
    count(*) filter (where status = 'pending') as pending,
    count(*) filter (where status = 'cancelled') as cancelled,
    coalesce(count(*) filter (where status = 'completed')::float8
        / nullif(count(*) filter (where status in ('completed', 'failed', 'voicemail')), 0), 0)
        as answer_rate,
    coalesce(avg(call_duration) filter (where status = 'completed'), 0)::float8
        as avg_duration_secs,
    coalesce(sum(call_duration) filter (where status = 'completed'), 0)::bigint
        as total_duration_secs";

/// The numbers of a group, and of each day with any, oldest first. The time
/// zone is an IANA name, such as `America/Bogota`.
///
/// # Errors
/// When the database fails, or knows no such time zone.
pub async fn call_stats(
    conn: &mut PgConnection,
    group_id: i32,
    timezone: &str,
) -> sqlx::Result<(CallStats, Vec<DayStats>)> {
    let (all, days) = (all_sql(), days_sql());
    let all = sqlx::query_as(&all)
        .bind(group_id)
        .fetch_one(&mut *conn)
        .await?;
    let days = sqlx::query_as(&days)
        .bind(group_id)
        .bind(timezone)
        .fetch_all(conn)
        .await?;
    Ok((all, days))
}

fn all_sql() -> String {
    format!(
        "select {NUMBERS} from (
             select r.status, r.call_duration
             from batches b join batch_recipients r on r.batch_key = b.id
             where b.group_id = $1 and b.duplicate_of is null) as r"
    )
}

fn days_sql() -> String {
    format!(
        "select day, {NUMBERS} from (
             select r.status, r.call_duration,
                 (coalesce(r.called_at, b.begins_at) at time zone $2)::date as day
             from (select id, case when scheduled_time_unix between 0 and 253402300799
                           then greatest(created_at, to_timestamp(scheduled_time_unix))
                           else created_at end as begins_at
                   from batches where group_id = $1 and duplicate_of is null) as b
             join batch_recipients r on r.batch_key = b.id) as r
         group by day order by day"
    )
}
