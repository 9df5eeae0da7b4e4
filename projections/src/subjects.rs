//! What belongs to a person, by the key of their number: the streams on the
//! ledger, for whoever must erase them.

use domain::conversation::ID_PREFIX;
use sqlx::PgConnection;

/// The streams of a person, each as its kind and id: those of their
/// interactions, of the messages that we owed them, and of the sessions in which
/// an agent was asked for these. Streams that hold nothing may be among them.
///
/// # Errors
/// When the database fails.
pub async fn streams(
    conn: &mut PgConnection,
    phone_key: &str,
) -> sqlx::Result<Vec<(String, String)>> {
    let sql = "
        with interaction as (
            select id from interactions where phone_key = $1
        ), named as (
            select id from interaction
            union
            select alias from interaction_aliases
             where interaction_id in (select id from interaction)
        ), effect as (
            select id from effects
             where lane = $2 or lane in (select id from interaction)
        )
        select distinct kind, regexp_replace(id, '^(call|chat|sms|otp):', '') as id
          from named cross join unnest(array['call', 'chat', 'sms', 'otp']) as kind
        union
        select 'effect', id from effect
        union
        select 'conversation', $2
        union
        select 'call', e.payload ->> 'session_id'
          from public.events e
         where e.aggregate_type = 'effect' and e.aggregate_id in (select id from effect)
           and e.event_type = 'effect.answered' and e.payload ->> 'session_id' is not null";
    sqlx::query_as(sql)
        .bind(phone_key)
        .bind(format!("{ID_PREFIX}{phone_key}"))
        .fetch_all(conn)
        .await
}
