//! Conversations by WhatsApp: going on after a call, writing to a client, and
//! who speaks for us.
//!
//! Nothing is sent here. What is decided goes on the ledger; what follows from
//! it is owed by the policy `effects` and sent by its worker. Whoever wants to
//! know what became of a message waits for it with [`wait_for_outcome`].

mod first_message;

use std::collections::HashMap;
use std::time::Duration;

use domain::PhoneNumber;
use domain::conversation::{
    Call, Changed, Command, Conversation, Error as Refusal, FirstMessage, MessageWritten, Started,
    Status,
};
use domain::effect::first_message_id;
use projections::conversations::{self as read, Message, MessageStatus};
use projections::{call_details, interactions};

pub use first_message::template;

use crate::app::App;
use crate::ledger::{CommandError, events};

/// The read model that shows what is done here.
const READ_MODEL: &str = "conversations";
/// The least time between two looks for an outcome, whatever the news.
const LOOK_SPACING: Duration = Duration::from_millis(50);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such conversation.
    #[error("Conversación no encontrada")]
    Unknown,
    /// The client wants to hear no more.
    #[error("El cliente pidió no recibir más mensajes")]
    OptedOut,
    /// What is read lags behind the ledger: nothing can be decided by it.
    #[error("The conversations are not up to date yet, try again")]
    Behind,
    /// It must not be done.
    #[error(transparent)]
    Refused(Refusal),
    /// The database failed, or the ledger did not take it.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl From<CommandError<Refusal>> for Error {
    fn from(error: CommandError<Refusal>) -> Self {
        match error {
            CommandError::Refused(refusal) => Self::Refused(refusal),
            CommandError::Ledger(words) => Self::Internal(anyhow::anyhow!(words)),
        }
    }
}

/// A call that went on by WhatsApp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The conversation.
    pub conversation_id: String,
    /// The id of the effect that sends the first message.
    pub effect_id: String,
    /// Where it is on the ledger.
    pub position: i64,
}

/// What became of a message of ours when the wait for it was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it, and mostly gave it an id.
    Sent(Option<String>),
    /// It will not be sent, for this reason.
    Refused(String),
    /// It is still to be sent.
    Queued,
}

/// Goes on by WhatsApp after a call: the client is written to once for each
/// recipient. The same recipient again gives what was begun the first time.
/// `metadata` holds `actor` and `request_id`.
///
/// # Errors
/// [`Error`].
pub async fn start(
    app: &App,
    phone_number: PhoneNumber,
    call: Call,
    metadata: HashMap<String, String>,
) -> Result<Begun, Error> {
    let effect_id = first_message_id(&call.recipient_id);
    match catch_up(app).await {
        // Nothing is lost by it: that a recipient is written to once, and who
        // opted out not at all, the policy sees to in the ledger's own order.
        Ok(()) | Err(Error::Behind) => {}
        Err(error) => return Err(error),
    }
    let mut conn = app.pool.acquire().await?;
    if let Some(known) = read::message(&mut conn, &effect_id).await? {
        return Ok(Begun {
            conversation_id: known.conversation_id,
            effect_id,
            position: known.position,
        });
    }
    let id = domain::conversation::id(phone_number.as_str(), &app.phone_index);
    let known = read::get(&mut conn, &id).await?;
    if known.is_some_and(|known| known.opted_out) {
        return Err(Error::OptedOut);
    }
    let call = with_report(&mut conn, call).await?;
    drop(conn);
    let started = Started {
        phone_number,
        message: FirstMessage {
            effect_id: effect_id.clone(),
            ..first_message::compose(&call, app.config.first_content_sid.clone())
        },
        call,
        requested_by: metadata.get("actor").cloned().unwrap_or_default(),
    };
    let start = || Command::Start(Box::new(started.clone()));
    let position = app
        .store
        .execute::<Conversation>(&id, start, metadata)
        .await?;
    app.readable(&[READ_MODEL], position).await;
    Ok(Begun {
        conversation_id: id,
        effect_id,
        position,
    })
}

/// The call with what its report says of it, where that is known.
async fn with_report(conn: &mut sqlx::PgConnection, call: Call) -> Result<Call, Error> {
    let Some(id) = &call.call_conversation_id else {
        return Ok(call);
    };
    let Some(interaction) = interactions::get(conn, id).await? else {
        return Ok(call);
    };
    let details = call_details::get(conn, &interaction.id).await?;
    let summary = details.and_then(|details| details.summary);
    Ok(Call {
        call_summary: summary.or(interaction.summary),
        call_duration_secs: interaction.duration_secs,
        ..call
    })
}

/// Writes to a client as a person, under an id of the message's own: the same
/// again does nothing. Blanks around the words are left out. Gives the position
/// of the conversation's last event.
///
/// # Errors
/// [`Error`].
pub async fn write(
    app: &App,
    conversation_id: &str,
    effect_id: &str,
    content: &str,
    metadata: HashMap<String, String>,
) -> Result<i64, Error> {
    let known = current(app, conversation_id).await?;
    if known.opted_out {
        return Err(Error::OptedOut);
    }
    if domain::sealed::is_erased(&known.phone_number) {
        return Err(Error::Unknown);
    }
    let phone_number = PhoneNumber::parse(&known.phone_number).map_err(anyhow::Error::from)?;
    let written = MessageWritten {
        effect_id: effect_id.to_owned(),
        phone_number,
        content: content.trim().to_owned(),
        by: metadata.get("actor").cloned().unwrap_or_default(),
    };
    let write = || Command::Write(written.clone());
    let store = &app.store;
    Ok(store
        .execute::<Conversation>(conversation_id, write, metadata)
        .await?)
}

/// Changes who speaks for us: the agent (`active`), a person (`escalated`) or
/// nobody (`closed`). Gives the position of the change; 0 where it is so
/// already.
///
/// # Errors
/// [`Error`].
pub async fn change(
    app: &App,
    conversation_id: &str,
    to: Status,
    reason: Option<String>,
    metadata: HashMap<String, String>,
) -> Result<i64, Error> {
    if current(app, conversation_id).await?.status == to {
        return Ok(0);
    }
    let by = metadata.get("actor").cloned().unwrap_or_default();
    let changed = Changed { by, reason };
    let change = || match to {
        Status::Active => Command::Resume(changed.clone()),
        Status::Escalated => Command::Escalate(changed.clone()),
        Status::Closed => Command::Close(changed.clone()),
    };
    let store = &app.store;
    Ok(store
        .execute::<Conversation>(conversation_id, change, metadata)
        .await?)
}

/// The conversation, with all that is on the ledger now.
async fn current(app: &App, id: &str) -> Result<read::Conversation, Error> {
    catch_up(app).await?;
    let mut conn = app.pool.acquire().await?;
    let known = read::get(&mut conn, id).await?;
    known.ok_or(Error::Unknown)
}

/// Waits, for a moment at most, until the read model shows the whole ledger:
/// by an older one nothing must be decided.
async fn catch_up(app: &App) -> Result<(), Error> {
    let head = events::head(&app.pool).await?;
    match app.readable(&[READ_MODEL], head).await {
        true => Ok(()),
        false => Err(Error::Behind),
    }
}

/// Waits until a message of ours was sent or refused, `within` a time.
///
/// # Errors
/// When the database fails.
pub async fn wait_for_outcome(
    app: &App,
    effect_id: &str,
    within: Duration,
) -> Result<Outcome, Error> {
    let mut news = app.news.clone();
    let settled = async {
        loop {
            news.borrow_and_update();
            let mut conn = app.pool.acquire().await?;
            let message = read::message(&mut conn, effect_id).await?;
            drop(conn);
            if let Some(outcome) = message.as_ref().and_then(outcome) {
                return Ok(outcome);
            }
            if news.changed().await.is_err() {
                // The process is stopping.
                return Ok(Outcome::Queued);
            }
            tokio::time::sleep(LOOK_SPACING).await;
            let head = events::head(&app.pool).await?;
            app.engine.wait_for(&[READ_MODEL], head, within).await?;
        }
    };
    tokio::time::timeout(within, settled)
        .await
        .unwrap_or(Ok(Outcome::Queued))
}

/// What became of a message; `None` while it is owed. What the provider took
/// is sent, whatever it said of it afterwards.
fn outcome(message: &Message) -> Option<Outcome> {
    if message.sent_at.is_some() {
        let twilio = message.twilio_message_id.clone();
        let id = twilio.or_else(|| message.metadata.provider_message_id.clone());
        return Some(Outcome::Sent(id));
    }
    let is_over = matches!(
        message.status,
        MessageStatus::Failed | MessageStatus::Dropped
    );
    let words = || message.error_message.clone().unwrap_or_default();
    is_over.then(|| Outcome::Refused(words()))
}
