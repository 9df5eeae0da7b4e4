//! The queue as workers and people see it.

use chrono::{DateTime, Utc};
use domain::effect::Kind;
use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;

use super::row::{COLUMNS, Effect, State};
use crate::time;

/// The states in which something is to be done: those of the index
/// `effects_open`.
pub(super) const OPEN: &str = "state in ('waiting', 'attempted', 'uncertain', 'bounced')";

/// The next effect of a lane, due or not.
///
/// # Errors
/// When the database fails.
pub async fn head(conn: &mut PgConnection, lane: &str) -> sqlx::Result<Option<Effect>> {
    let sql = format!(
        "select {COLUMNS} from effects where lane = $1 and {OPEN} order by ord, part limit 1"
    );
    sqlx::query_as(&sql).bind(lane).fetch_optional(conn).await
}

/// Takes lanes whose next effect is due and on which nobody works, at most
/// `limit`: one statement, so that two workers never take the same. One-time
/// codes come first, for they expire soon; then whoever has waited longest.
///
/// # Errors
/// When the database fails.
pub async fn take_lanes(
    conn: &mut PgConnection,
    holder: Uuid,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    let sql = format!(
        "with heads as materialized (
             select distinct on (lane) lane, kind, due_at, created_at from effects where {OPEN}
             order by lane, ord, part
         )
         insert into effect_leases as lease (lane, holder, until)
         select heads.lane, $1, $3 from heads
         left join effect_leases held on held.lane = heads.lane and held.until > $2
         where held.lane is null and (heads.due_at is null or heads.due_at <= $2)
         order by (heads.kind = 'code') desc, coalesce(heads.due_at, heads.created_at), heads.lane
         limit $4
         on conflict (lane) do update set holder = excluded.holder, until = excluded.until
             where lease.until <= $2
         returning lane"
    );
    sqlx::query_scalar(&sql)
        .bind(holder)
        .bind(now)
        .bind(until)
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// Keeps these lanes of a worker until then.
///
/// # Errors
/// When the database fails.
pub async fn keep_lanes(
    conn: &mut PgConnection,
    holder: Uuid,
    lanes: &[String],
    until: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query("update effect_leases set until = $3 where holder = $1 and lane = any($2)")
        .bind(holder)
        .bind(lanes)
        .bind(until)
        .execute(conn)
        .await?;
    Ok(())
}

/// Lets a lane go.
///
/// # Errors
/// When the database fails.
pub async fn release_lane(conn: &mut PgConnection, holder: Uuid, lane: &str) -> sqlx::Result<()> {
    sqlx::query("delete from effect_leases where lane = $1 and holder = $2")
        .bind(lane)
        .bind(holder)
        .execute(conn)
        .await?;
    Ok(())
}

/// Which of these message ids are an effect's already.
///
/// # Errors
/// When the database fails.
pub async fn known_messages(
    conn: &mut PgConnection,
    provider_message_ids: &[String],
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select provider_message_id from effects where provider_message_id = any($1)",
    )
    .bind(provider_message_ids)
    .fetch_all(conn)
    .await
}

/// The outbound queue, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Owed, and nobody is at it.
    pub waiting: i64,
    /// Being worked on.
    pub active: i64,
    /// Done since the beginning.
    pub completed: i64,
    /// Given up until a person wants them tried again.
    pub failed: i64,
}

/// The outbound queue, counted. Reads a handful of rows.
///
/// # Errors
/// When the database fails.
pub async fn queue_counts(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
) -> sqlx::Result<QueueCounts> {
    let (open, completed, failed, leased): (i64, i64, i64, i64) = sqlx::query_as(&format!(
        "select coalesce(sum(count) filter (where {OPEN}), 0)::bigint,
                coalesce(sum(count) filter (where state = 'done'), 0)::bigint,
                coalesce(sum(count) filter (where state = 'dead'), 0)::bigint,
                (select count(*) from effect_leases where until > $1)
           from effect_totals"
    ))
    .bind(now)
    .fetch_one(conn)
    .await?;
    let active = leased.min(open);
    Ok(QueueCounts {
        waiting: open - active,
        active,
        completed,
        failed,
    })
}

/// Where a page of the list begins.
pub type Cursor = (DateTime<Utc>, String);

/// Which effects to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Where they stand.
    pub state: Option<State>,
    /// What is owed.
    pub kind: Option<Kind>,
    /// The conversation or the challenge.
    pub lane: Option<String>,
    /// Only those before this one, newest first.
    pub after: Option<Cursor>,
}

/// Effects, the newest first.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &mut PgConnection,
    filter: &Filter,
    limit: i64,
) -> sqlx::Result<Vec<Effect>> {
    query(filter, limit).build_query_as().fetch_all(conn).await
}

fn query<'a>(filter: &'a Filter, limit: i64) -> QueryBuilder<'a, sqlx::Postgres> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from effects where true"));
    if let Some(state) = filter.state {
        query.push(" and state = ").push_bind(state.as_str());
    }
    if let Some(kind) = filter.kind {
        query.push(" and kind = ").push_bind(kind.as_str());
    }
    if let Some(lane) = &filter.lane {
        query.push(" and lane = ").push_bind(lane);
    }
    if let Some((created_at, id)) = &filter.after {
        let created_at = time::askable(*created_at);
        query
            .push(" and (created_at, id) < (")
            .push_bind(created_at);
        query.push(", ").push_bind(id).push(")");
    }
    query.push(" order by created_at desc, id desc limit ");
    query.push_bind(limit);
    query
}
