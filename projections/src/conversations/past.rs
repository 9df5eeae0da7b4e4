//! What was written: the folds over the events that there were then.

use domain::{Direction, PhoneIndex, Provider, StreamId, effect};
use sqlx::PgConnection;

use super::fold::Tables;
use super::{Answer, Context, Shown, get};
use crate::keys::Opener;
use crate::past::{self, AsOf};
use crate::{effects, feed, text};

/// The conversation as [`super::shown`] would have given it once the ledger up
/// to then was folded; `None` if there was none.
///
/// # Errors
/// When the database fails, or an event cannot be read.
pub async fn as_of(
    conn: &mut PgConnection,
    opener: &Opener,
    conversation_id: &str,
    messages: i64,
    then: AsOf,
    phones: &PhoneIndex,
) -> anyhow::Result<Option<Shown>> {
    let upto = then.position(conn).await?;
    let id = text::key(conversation_id);
    let Some(now) = get(conn, &id).await? else {
        return Ok(None);
    };
    let positions = positions(conn, &id, &now.phone_number, upto, phones).await?;
    let (mut tables, mut owed) = (Tables::default(), effects::Past::default());
    past::fold(conn, opener, positions, |page| {
        for recorded in page {
            tables.take(recorded, phones);
            owed.fold(recorded, phones);
        }
        tables.settle();
        tables.written();
    })
    .await?;
    let Some(conversation) = tables.conversations.now.remove(id.as_ref()) else {
        return Ok(None);
    };
    let rows = tables.messages.now.into_values();
    let mut rows: Vec<_> = rows.filter(|row| row.conversation_id == id).collect();
    rows.sort_by_key(|row| row.place());
    let shown = usize::try_from(messages).unwrap_or_default();
    rows.drain(..rows.len().saturating_sub(shown));
    let asked = rows
        .iter()
        .filter(|row| row.direction == Direction::Inbound);
    let answers = asked.filter_map(|row| {
        let state = owed.state(&effect::turn_id(row.position))?;
        Some((row.id.clone(), Answer::of(state)))
    });
    let answers = answers.collect();
    let messages = rows;
    Ok(Some((
        Context {
            conversation,
            messages,
        },
        answers,
    )))
}

/// Where everything is that may have said something of the conversation: what
/// providers told of the number, what we decided, and what became of what was
/// owed. What became part of it is never parted from it again.
async fn positions(
    conn: &mut PgConnection,
    id: &str,
    phone_number: &str,
    upto: i64,
    phones: &PhoneIndex,
) -> anyhow::Result<Vec<i64>> {
    let mut positions = feed::positions_of(conn, "conversation", &[id], upto).await?;
    let chat = |provider| StreamId::chat(provider, phone_number, phones).aggregate_id;
    let chats = [Provider::Twilio, Provider::Builderbot].map(chat);
    let chats = chats.each_ref().map(String::as_str);
    positions.extend(feed::positions_of(conn, "chat", &chats, upto).await?);
    let sql = "select position from conversation_messages
                   where conversation_id = $1 and position <= $2
               union select position from conversation_echoes
                   where conversation_id = $1 and position <= $2";
    let told = sqlx::query_scalar(sql).bind(id).bind(upto);
    let told: Vec<i64> = told.fetch_all(&mut *conn).await?;
    positions.extend(told);
    let sql = "select id from conversation_messages where conversation_id = $1
               union select id from effects where lane = $1";
    let owed: Vec<String> = sqlx::query_scalar(sql)
        .bind(id)
        .fetch_all(&mut *conn)
        .await?;
    let owed: Vec<_> = owed.iter().map(String::as_str).collect();
    positions.extend(feed::positions_of(conn, "effect", &owed, upto).await?);
    Ok(positions)
}
