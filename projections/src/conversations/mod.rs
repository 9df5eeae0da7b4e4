//! Read models `conversation_state` and `conversation_messages`: what is
//! written with clients by WhatsApp, whoever writes it; and the projection
//! `conversations`, which folds them.
//!
//! Four sources tell of a conversation: what the client wrote (the providers'
//! webhooks), what we decided (the stream `conversation`), what became of our
//! messages (the streams `effect`), and how far the providers say they have
//! come. A message of ours is there from the moment at which it is owed. What
//! may come before whatever it belongs to is kept: callbacks by the provider's
//! id, and builderbot's word that a message went out, which mostly names no id
//! and is told by its words. So the rows end the same in whatever order the
//! sources come; only who speaks, and whether the client wants to hear from us,
//! is a matter of the ledger's order, as in the policy `effects`.

mod answer;
mod callback;
mod fold;
mod happened;
mod heard;
mod list;
mod message;
mod past;
mod progress;
mod row;
mod settle;
mod stats;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use async_trait::async_trait;
use domain::PhoneIndex;
use domain::event::Recorded;
use sqlx::PgConnection;

pub use answer::{Answer, answers};
pub use list::{Cursor, Filter, list};
pub use message::{Message, Metadata as MessageMetadata, message, newest};
pub use past::as_of;
pub use progress::Status as MessageStatus;
pub use row::{Conversation, Metadata, get};
pub use stats::{Quarter, between, count_of};

use crate::engine::Projection;
use crate::search::Lexicon;

/// A conversation, and what was last written in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The conversation.
    pub conversation: Conversation,
    /// The newest messages, in order.
    pub messages: Vec<Message>,
}

/// A conversation with so many of its newest messages, for whoever goes on
/// with it.
///
/// # Errors
/// When the database fails.
pub async fn context(
    conn: &mut PgConnection,
    conversation_id: &str,
    messages: i64,
) -> sqlx::Result<Option<Context>> {
    let Some(conversation) = get(&mut *conn, conversation_id).await? else {
        return Ok(None);
    };
    let messages = newest(conn, conversation_id, messages).await?;
    Ok(Some(Context {
        conversation,
        messages,
    }))
}

/// A conversation as [`context`] gives it, and what becomes of the answers to
/// the client's messages, by their ids.
pub type Shown = (Context, HashMap<String, Answer>);

/// A conversation as it is shown to people.
///
/// # Errors
/// When the database fails.
pub async fn shown(
    conn: &mut PgConnection,
    conversation_id: &str,
    messages: i64,
) -> sqlx::Result<Option<Shown>> {
    let Some(context) = context(&mut *conn, conversation_id, messages).await? else {
        return Ok(None);
    };
    let answers = answers(conn, &context.messages).await?;
    Ok(Some((context, answers)))
}

/// The projection `conversations`.
pub struct Conversations {
    phones: PhoneIndex,
    lexicon: Lexicon,
}

impl Conversations {
    /// With the key under which numbers are looked up.
    pub fn new(phones: PhoneIndex) -> Self {
        Self {
            phones,
            lexicon: Lexicon::default(),
        }
    }
}

#[async_trait]
impl Projection for Conversations {
    fn name(&self) -> &'static str {
        "conversations"
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &[
            "conversation_state",
            "conversation_messages",
            "conversation_callbacks",
            "conversation_echoes",
            "conversation_quarters",
            "conversation_totals",
        ]
    }

    fn event_types(&self) -> &'static [&'static str] {
        &[
            "message.received",
            "message.sent",
            "message.status_changed",
            "conversation.started",
            "conversation.escalated",
            "conversation.resumed",
            "conversation.closed",
            "conversation.message_written",
            "effect.attempted",
            "effect.uncertain",
            "effect.failed",
            "effect.sent",
            "effect.answered",
            "effect.bounced",
            "effect.duplicated",
            "effect.dropped",
            "effect.retried",
        ]
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        let mut tables = store::load(conn, batch, &self.phones).await?;
        for recorded in batch {
            tables.take(recorded, &self.phones);
        }
        store::load_words(conn, &mut tables).await?;
        tables.settle();
        stats::load(conn, &mut tables).await?;
        tables.tally();
        store::save(conn, &self.lexicon, &tables).await
    }
}
