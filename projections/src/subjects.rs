//! What belongs to a person, by the key of their number: the streams on the
//! ledger, for whoever must erase them, and what is shown of them.

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

/// The projections whose rows are shown to people, with what makes blank there
/// what a person is shown by. What only folds read stays until the rebuild, and
/// so does what orders and effects are carried out by.
const SHOWN: &[(&str, &[&str])] = &[
    (
        "interactions",
        &[
            "update call_details
                set transcript = '[]', summary = null, summary_title = null, analysis = '{}',
                    dynamic_variables = '{}', error = null, failure_reason = null, search = ''
              where interaction_id in (select id from interactions join person using (phone_key))",
            "update messages
                set content = case when content is not null then '[erased]' end, media = '[]',
                    details = '{}', error_message = null, search = ''
              where interaction_id in (select id from interactions join person using (phone_key))",
            "update interactions set phone_number = null, phone_key = null, summary = null
              where phone_key = (select phone_key from person)",
        ],
    ),
    (
        "conversations",
        &[
            "update conversation_messages
                set content = '[erased]', media = '[]', error_message = null
              where conversation_id = (select conversation_id from person)",
            "update conversation_state
                set phone_number = 'erased-' || phone_key, client_name = null, call_summary = null,
                    search = ''
              where id = (select conversation_id from person)",
        ],
    ),
    (
        "groups",
        &["update group_clients
              set name = '[erased]', phone_number = 'erased', email = null, empresa = null,
                  cargo = null, variables = '{}'
            where phone_key = (select phone_key from person)"],
    ),
    (
        "otp_challenges",
        &["update otp_challenges set phone_number = 'erased'
            where phone_key = (select phone_key from person)"],
    ),
];

/// The projections in which [`blank`] finds something.
pub fn shown() -> impl Iterator<Item = &'static str> {
    SHOWN.iter().map(|(projection, _)| *projection)
}

/// Makes blank what people are shown of whoever was erased a moment ago, in a
/// transaction. Rows that a rebuild has made since are left alone: whoever is in
/// them has come back. The others are rebuilt, whatever stands in them.
///
/// # Errors
/// When the database fails.
pub async fn blank(conn: &mut PgConnection, projection: &str, phone_key: &str) -> sqlx::Result<()> {
    // As whoever folds: what is being folded is in the rows before.
    let sql = "select name from projection_checkpoints
                where name = $1 and build = 'live' and epoch < (select epoch from subject_epoch)
                  for update";
    let due: Option<String> = sqlx::query_scalar(sql)
        .bind(projection)
        .fetch_optional(&mut *conn)
        .await?;
    let shown = SHOWN
        .iter()
        .filter(|(name, _)| due.as_deref() == Some(name));
    for sql in shown.flat_map(|(_, statements)| *statements) {
        let person = "with person as (select $1::text as phone_key, $2::text as conversation_id)";
        sqlx::query(&format!("{person} {sql}"))
            .bind(phone_key)
            .bind(format!("{ID_PREFIX}{phone_key}"))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
