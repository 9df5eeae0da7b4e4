//! Conversations by WhatsApp: reading them, and taking part. Contract,
//! section 6. Going on after a call is in [`call_completed`].

pub mod call_completed;
pub mod stats;
mod view;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::PhoneNumber;
use domain::conversation::{self, Error as Refusal, Status};
use domain::effect;
use domain::group::PREFIX_DEFAULT;
use poem::Request;
use poem::web::Data;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use projections::conversations::{Cursor, Filter};
use serde::Deserialize;

use self::view::{ConversationView, Found};
use super::auth::{Access, Auth, Caller};
use super::batch_calling::metadata;
use super::batch_view::must_mask;
use super::body::Body;
use super::error::Failure;
use super::idempotency::order_id;
use super::reply::{self, Commanded, Page};
use super::{Tag, audit, params};
use crate::app::App;
use crate::conversations::{self, Error};

/// Messages that are shown of a conversation when the caller does not say how
/// many: as many as may be.
const MESSAGES_SHOWN: i64 = 200;
/// Fewest digits of a search that is taken for one by number.
const SEARCHED_DIGITS_MIN: usize = 7;
const READ_MODELS: [&str; 3] = ["conversations", "effects", "audit_log"];

/// Why somebody else speaks from now on.
#[derive(Default, Deserialize, Object)]
#[oai(rename = "ConversationChange", example)]
struct ChangeBody {
    /// For the record.
    reason: Option<String>,
}

impl Example for ChangeBody {
    fn example() -> Self {
        Self {
            reason: Some("La clienta pide hablar con una persona".to_owned()),
        }
    }
}

/// A message to the client.
#[derive(Deserialize, Object)]
#[oai(rename = "NewConversationMessage", example)]
struct MessageBody {
    /// 1 to 1,600 characters.
    content: String,
}

impl Example for MessageBody {
    fn example() -> Self {
        Self {
            content: "Hola Ana, le escribe Luis, del equipo.".to_owned(),
        }
    }
}

/// A message that is to be sent.
#[derive(Debug, Object)]
#[oai(rename = "QueuedMessage", example)]
struct Queued {
    /// Its id among the messages of the conversation.
    message_id: String,
    /// `queued`.
    status: String,
}

impl Example for Queued {
    fn example() -> Self {
        Self {
            message_id: "written_019a2d28-30c0-7000-8000-000000000001".to_owned(),
            status: "queued".to_owned(),
        }
    }
}

/// Routes for conversations.
pub struct Api;

#[OpenApi(tag = "Tag::Conversations")]
impl Api {
    /// All conversations
    ///
    /// The one in which something was last written or sent first.
    #[oai(
        path = "/api/conversations",
        method = "get",
        operation_id = "list_conversations"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// `active`, `escalated` or `closed`.
        status: Query<Option<String>>,
        /// Words of the client's name, or the whole number.
        q: Query<Option<String>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<ConversationView>>, Failure> {
        let masked = must_mask(&app, &Caller::from(auth));
        let limit = reply::limit(limit.0)?;
        let filter = Filter {
            status: params::word::<Status>("status", status.0)?,
            ..search(&app, params::text("q", q.0)?)
        };
        let after: Option<(DateTime<Utc>, String)> = reply::read_cursor(cursor.0.as_deref())?;
        let after = after.map(|(last_message_at, id)| Cursor {
            last_message_at,
            id,
        });
        let mut conn = app.pool.acquire().await?;
        let list = projections::conversations::list(&mut conn, &filter, after.as_ref(), limit + 1);
        Ok(reply::page(
            list.await?,
            limit,
            |row| (row.last_message_at, row.id.clone()),
            |row| ConversationView::of(row, masked),
        ))
    }

    /// The conversation with a client
    ///
    /// `as_of` shows it as it stood at a time or ledger position: the same answer that was given then.
    #[oai(
        path = "/api/conversations/:phoneNumber",
        method = "get",
        operation_id = "get_conversation"
    )]
    async fn get(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The client's number in E.164, with its `+` or without; or the conversation's id.
        #[oai(name = "phoneNumber")]
        phone_number: Path<String>,
        /// The newest so many messages: 1 to 200, 200 if not given.
        limit: Query<Option<i64>>,
        /// A time (`2025-10-28T23:29:50Z`) or a ledger position.
        as_of: Query<Option<String>>,
    ) -> Result<Json<Found>, Failure> {
        let masked = must_mask(&app, &Caller::from(auth));
        let limit = reply::limit(limit.0.or(Some(MESSAGES_SHOWN)))?;
        let as_of = params::as_of(as_of.0)?;
        let id = conversation_id(&app, &phone_number.0)?;
        let mut conn = app.pool.acquire().await?;
        let found = match as_of {
            None => projections::conversations::shown(&mut conn, &id, limit).await?,
            Some(then) => {
                let phones = &app.phone_index;
                projections::conversations::as_of(&mut conn, &app.opener, &id, limit, then, phones)
                    .await?
            }
        };
        let (found, answers) = found.ok_or_else(|| Failure::from(Error::Unknown))?;
        Ok(Json(Found::of(found, &answers, masked)))
    }

    /// End a conversation
    ///
    /// Nobody answers any more, and answers that wait are not sent. When the client writes again, the agent goes on.
    #[oai(
        path = "/api/conversations/:phoneNumber/close",
        method = "post",
        operation_id = "close_conversation"
    )]
    async fn close(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The client's number in E.164, with its `+` or without; or the conversation's id.
        #[oai(name = "phoneNumber")]
        phone_number: Path<String>,
        body: Body<ChangeBody>,
    ) -> Result<Commanded<ConversationView>, Failure> {
        let change = Change {
            to: Status::Closed,
            action: "close_conversation",
            done: "Conversación cerrada exitosamente",
        };
        change.make(&app, auth, &phone_number.0, body.0).await
    }

    /// Let a person take over
    ///
    /// The agent is silent until the conversation is resumed, and answers of it that wait are not sent.
    #[oai(
        path = "/api/conversations/:phoneNumber/escalate",
        method = "post",
        operation_id = "escalate_conversation"
    )]
    async fn escalate(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The client's number in E.164, with its `+` or without; or the conversation's id.
        #[oai(name = "phoneNumber")]
        phone_number: Path<String>,
        body: Body<ChangeBody>,
    ) -> Result<Commanded<ConversationView>, Failure> {
        let change = Change {
            to: Status::Escalated,
            action: "escalate_conversation",
            done: "Conversación escalada exitosamente",
        };
        change.make(&app, auth, &phone_number.0, body.0).await
    }

    /// Let the agent go on
    #[oai(
        path = "/api/conversations/:phoneNumber/resume",
        method = "post",
        operation_id = "resume_conversation"
    )]
    async fn resume(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The client's number in E.164, with its `+` or without; or the conversation's id.
        #[oai(name = "phoneNumber")]
        phone_number: Path<String>,
        body: Body<ChangeBody>,
    ) -> Result<Commanded<ConversationView>, Failure> {
        let change = Change {
            to: Status::Active,
            action: "resume_conversation",
            done: "Conversación reanudada exitosamente",
        };
        change.make(&app, auth, &phone_number.0, body.0).await
    }

    /// Write to the client as a person
    ///
    /// The message is sent through the provider that the client wrote through last. 24 hours after the client's last
    /// message WhatsApp takes templates only; what becomes of the message is shown in the conversation.
    #[oai(
        path = "/api/conversations/:phoneNumber/messages",
        method = "post",
        operation_id = "write_conversation_message"
    )]
    async fn write(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        request: &Request,
        /// The client's number in E.164, with its `+` or without; or the conversation's id.
        #[oai(name = "phoneNumber")]
        phone_number: Path<String>,
        /// The same key with the same body gets the first answer again.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Body<MessageBody>,
    ) -> Result<Commanded<Queued>, Failure> {
        let caller = Caller::from(auth);
        let id = conversation_id(&app, &phone_number.0);
        let target = id.as_deref().ok().map(target);
        let order = order_id(&app, &caller, request.uri().path(), idempotency_key.0);
        let message_id = effect::written_id(order);
        let act = async {
            let (id, content) = (id?, body.0.content);
            if content.contains('\0') {
                return Err(Failure::field("content", "must not hold the character NUL"));
            }
            let written =
                conversations::write(&app, &id, &message_id, &content, metadata(&caller)).await;
            Ok(written?)
        };
        let action = "write_conversation_message";
        let (position, audited_at) =
            audit::recorded(&app, &caller, Access::Operate, action, target, act).await?;
        let position = position.max(audited_at);
        app.readable(&READ_MODELS, position).await;
        let queued = Queued {
            message_id,
            status: "queued".to_owned(),
        };
        Ok(reply::commanded(queued, None, position))
    }
}

/// A change of who speaks.
struct Change {
    to: Status,
    action: &'static str,
    done: &'static str,
}

impl Change {
    async fn make(
        self,
        app: &App,
        auth: Auth,
        phone_number: &str,
        body: ChangeBody,
    ) -> Result<Commanded<ConversationView>, Failure> {
        let caller = Caller::from(auth);
        let id = conversation_id(app, phone_number);
        let target = id.as_deref().ok().map(target);
        let act = async {
            let (id, reason) = (id?, params::text("reason", body.reason)?);
            let metadata = metadata(&caller);
            let position = conversations::change(app, &id, self.to, reason, metadata).await?;
            Ok((id, position))
        };
        let ((id, position), audited_at) =
            audit::recorded(app, &caller, Access::Operate, self.action, target, act).await?;
        let position = position.max(audited_at);
        app.readable(&READ_MODELS, position).await;
        let mut conn = app.pool.acquire().await?;
        let row = projections::conversations::get(&mut conn, &id).await?;
        let row = row.ok_or_else(|| Failure::from(Error::Unknown))?;
        let view = ConversationView::of(row, must_mask(app, &caller));
        Ok(reply::commanded(view, Some(self.done), position))
    }
}

/// The id of the conversation that a path names.
fn conversation_id(app: &App, given: &str) -> Result<String, Failure> {
    let given = params::id(given.to_owned())?;
    if given.starts_with("conv_local_") {
        return Ok(given);
    }
    // A `+` that was not percent-encoded comes as a space.
    let given = given.trim();
    let number = PhoneNumber::parse(given).or_else(|_| PhoneNumber::from_digits(given));
    let number = number.map_err(|_| Failure::from(Error::Unknown))?;
    Ok(conversation::id(number.as_str(), &app.phone_index))
}

/// A search is by number where it looks like one, else by name.
fn search(app: &App, q: Option<String>) -> Filter {
    let Some(q) = q else {
        return Filter::default();
    };
    let digits = q.chars().filter(char::is_ascii_digit).count();
    if digits < SEARCHED_DIGITS_MIN || q.chars().any(char::is_alphabetic) {
        return Filter {
            name: Some(q),
            ..Filter::default()
        };
    }
    let given = q.trim();
    let candidates = [
        PhoneNumber::parse(given).or_else(|_| PhoneNumber::from_digits(given)),
        PhoneNumber::national(given, PREFIX_DEFAULT),
    ];
    let ids = candidates.into_iter().flatten();
    let ids = ids.map(|number| conversation::id(number.as_str(), &app.phone_index));
    Filter {
        ids: Some(ids.collect()),
        ..Filter::default()
    }
}

fn target(id: &str) -> String {
    format!("conversation:{id}")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unknown => Self::not_found(&error.to_string()),
            Error::OptedOut => Self::conflict("opted_out", error.to_string()),
            Error::Behind => Self::unavailable(&error.to_string()),
            Error::Refused(Refusal::InvalidContent) => {
                Self::field("content", Refusal::InvalidContent.to_string())
            }
            Error::Internal(error) => error.into(),
        }
    }
}
