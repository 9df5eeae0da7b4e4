//! What happens in conversations, in numbers: kept by the quarter of an hour,
//! so that nobody scans messages for them.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use domain::Direction;
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

use super::fold::Tables;
use super::message::Message;
use crate::sql::Table;
use crate::time;

const QUARTER_SECS: i64 = 15 * 60;

/// A row of `conversation_quarters`; or several of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, FromRow)]
pub struct Quarter {
    /// When it begins.
    pub bucket: DateTime<Utc>,
    /// Conversations begun, by either side.
    pub started: i64,
    /// Conversations begun by us after a call.
    pub opened: i64,
    /// Of those, how many the client has answered, whenever.
    pub responded: i64,
    /// Messages that went out.
    pub sent: i64,
    /// Messages that came in.
    pub received: i64,
    /// Answers of the agent that went out.
    pub response_count: i64,
    /// Seconds between them and what they answer, together.
    pub response_secs: i64,
}

/// A row of `conversation_totals`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow)]
pub(super) struct Total {
    pub(super) status: String,
    pub(super) count: i64,
}

impl Quarter {
    /// The beginning of the quarter of an hour.
    pub(super) fn bucket(at: DateTime<Utc>) -> DateTime<Utc> {
        at.duration_trunc(TimeDelta::seconds(QUARTER_SECS))
            .unwrap_or(at)
    }

    pub(super) const fn empty(bucket: DateTime<Utc>) -> Self {
        Self {
            bucket,
            started: 0,
            opened: 0,
            responded: 0,
            sent: 0,
            received: 0,
            response_count: 0,
            response_secs: 0,
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::empty(self.bucket)
    }

    fn add(&mut self, other: &Self, sign: i64) {
        self.started += sign * other.started;
        self.opened += sign * other.opened;
        self.responded += sign * other.responded;
        self.sent += sign * other.sent;
        self.received += sign * other.received;
        self.response_count += sign * other.response_count;
        self.response_secs += sign * other.response_secs;
    }

    /// What a message counts for.
    fn of_message(row: &Message) -> Option<Self> {
        let at = match row.direction {
            Direction::Inbound => row.created_at,
            Direction::Outbound => row.sent_at?,
        };
        let mut counts = Self::empty(Self::bucket(at));
        match row.direction {
            Direction::Inbound => counts.received = 1,
            Direction::Outbound => counts.sent = 1,
        }
        let asked_at = row.told.as_ref().and_then(|told| told.asked_at);
        if let (Some(asked_at), 1) = (asked_at, row.part) {
            counts.response_count = 1;
            counts.response_secs = (at - asked_at).num_seconds().max(0);
        }
        Some(counts)
    }
}

impl Tables {
    /// What changed in the numbers, by the quarter of an hour.
    pub(super) fn news(&self) -> BTreeMap<DateTime<Utc>, Quarter> {
        let mut news = self.counted.clone();
        let mut add = |counts: Option<Quarter>, sign| {
            if let Some(counts) = counts {
                let sum = news.entry(counts.bucket);
                sum.or_insert_with(|| Quarter::empty(counts.bucket))
                    .add(&counts, sign);
            }
        };
        for row in self.messages.changed() {
            let before = self.messages.before(&row.id);
            add(before.and_then(Quarter::of_message), -1);
            add(Quarter::of_message(row), 1);
        }
        for row in self.messages.gone() {
            add(Quarter::of_message(row), -1);
        }
        let begun = |at: DateTime<Utc>| Quarter {
            started: 1,
            ..Quarter::empty(Quarter::bucket(at))
        };
        for row in self.conversations.changed() {
            let before = self.conversations.before(&row.id);
            let before = before.and_then(|row| row.begun_by_others_at());
            add(before.map(begun), -1);
            add(row.begun_by_others_at().map(begun), 1);
        }
        news.retain(|_, counts| !counts.is_empty());
        news
    }

    /// How many conversations more there are of a status, or less.
    fn status_news(&self) -> BTreeMap<String, i64> {
        let mut news: BTreeMap<String, i64> = BTreeMap::new();
        for row in self.conversations.changed() {
            if let Some(before) = self.conversations.before(&row.id) {
                *news.entry(before.status.to_string()).or_default() -= 1;
            }
            *news.entry(row.status.to_string()).or_default() += 1;
        }
        news
    }

    /// Brings the numbers up to date. The rows of the [`Tables::news`] and all
    /// totals are loaded.
    pub(super) fn tally(&mut self) {
        for (bucket, counts) in self.news() {
            let row = self.quarters.now.entry(bucket);
            let row = row.or_insert_with(|| Quarter::empty(bucket));
            row.add(&counts, 1);
            // Of what counts nothing there is no row: a replay makes none.
            if row.is_empty() {
                self.quarters.now.remove(&bucket);
            }
        }
        for (status, count) in self.status_news() {
            let row = self.totals.now.entry(status.clone());
            let row = row.or_insert_with(|| Total {
                status: status.clone(),
                count: 0,
            });
            row.count += count;
            if row.count == 0 {
                self.totals.now.remove(&status);
            }
        }
    }
}

const SUMS: &str = "coalesce(sum(started), 0)::bigint as started,
    coalesce(sum(opened), 0)::bigint as opened, coalesce(sum(responded), 0)::bigint as responded,
    coalesce(sum(sent), 0)::bigint as sent, coalesce(sum(received), 0)::bigint as received,
    coalesce(sum(response_count), 0)::bigint as response_count,
    coalesce(sum(response_secs), 0)::bigint as response_secs";

/// What happened from a time to another, which are at whole quarters of an
/// hour.
///
/// # Errors
/// When the database fails.
pub async fn between(
    conn: &mut PgConnection,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> sqlx::Result<Quarter> {
    let sql = format!(
        "select $1 as bucket, {SUMS} from conversation_quarters where bucket >= $1 and bucket < $2"
    );
    sqlx::query_as(&sql)
        .bind(time::askable(from))
        .bind(time::askable(to))
        .fetch_one(conn)
        .await
}

/// How many conversations there are of a status.
///
/// # Errors
/// When the database fails.
pub async fn count_of(
    conn: &mut PgConnection,
    status: domain::conversation::Status,
) -> sqlx::Result<i64> {
    let sql = "select coalesce(sum(count), 0)::bigint from conversation_totals where status = $1";
    let query = sqlx::query_scalar(sql).bind(status.as_str());
    query.fetch_one(conn).await
}

const QUARTERS: Table = Table {
    name: "conversation_quarters",
    key: &["bucket"],
    columns: &[
        "started",
        "opened",
        "responded",
        "sent",
        "received",
        "response_count",
        "response_secs",
    ],
    searchable: false,
};

const TOTALS: Table = Table {
    name: "conversation_totals",
    key: &["status"],
    columns: &["count"],
    searchable: false,
};

/// Loads what [`Tables::tally`] needs.
pub(super) async fn load(conn: &mut PgConnection, tables: &mut Tables) -> anyhow::Result<()> {
    let buckets: Vec<_> = tables.news().into_keys().collect();
    let sql =
        "select bucket, started, opened, responded, sent, received, response_count, response_secs
               from conversation_quarters where bucket = any($1)";
    let rows = sqlx::query_as(sql).bind(buckets).fetch_all(&mut *conn);
    tables.quarters.load(rows.await?, |row| row.bucket);
    let sql = "select status, count from conversation_totals";
    let rows: Vec<Total> = sqlx::query_as(sql).fetch_all(conn).await?;
    tables.totals.load(rows, |row| row.status.clone());
    Ok(())
}

pub(super) async fn save(conn: &mut PgConnection, tables: &Tables) -> anyhow::Result<()> {
    QUARTERS.upsert(conn, &tables.quarters.changed()).await?;
    TOTALS.upsert(conn, &tables.totals.changed()).await?;
    let gone = tables.quarters.gone();
    let gone: Vec<_> = gone.iter().map(|row| row.bucket).collect();
    if !gone.is_empty() {
        let sql = "delete from conversation_quarters where bucket = any($1)";
        sqlx::query(sql).bind(gone).execute(&mut *conn).await?;
    }
    let gone = tables.totals.gone();
    let gone: Vec<_> = gone.iter().map(|row| row.status.clone()).collect();
    if !gone.is_empty() {
        let sql = "delete from conversation_totals where status = any($1)";
        sqlx::query(sql).bind(gone).execute(conn).await?;
    }
    Ok(())
}
