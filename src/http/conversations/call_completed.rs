//! Going on by WhatsApp after a call. Contract, section 6.

use std::sync::Arc;
use std::time::Duration;

use domain::PhoneNumber;
use domain::conversation::Call;
use poem::web::Data;
use poem_openapi::param::Header;
use poem_openapi::payload::{Json, Response};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use super::{READ_MODELS, target};
use crate::app::App;
use crate::conversations::{self, Begun, Error, Outcome};
use crate::http::auth::{Access, Auth, Caller};
use crate::http::batch_calling::metadata;
use crate::http::body::Deferred;
use crate::http::error::Failure;
use crate::http::{Tag, audit, params};
use crate::ledger::events;

/// How long an answer waits until the provider has taken the message.
const WAIT: Duration = Duration::from_secs(8);
/// What the replaced service says where the message cannot be sent.
const NOT_SENT: &str = "Failed to send WhatsApp message";

/// A call that is over, as the main backend tells of it. Further fields are ignored.
#[derive(Deserialize, Object)]
#[oai(rename = "CallCompleted", example)]
struct CallCompletedBody {
    /// The batch, by the provider's id.
    batch_id: Option<String>,
    /// The agent that called and goes on.
    agent_id: String,
    /// The agent's name.
    agent_name: Option<String>,
    /// The number that called.
    phone_number_id: Option<String>,
    /// The batch's name.
    batch_name: Option<String>,
    /// Who was called.
    recipient: RecipientBody,
    /// What is known of the client.
    #[serde(default)]
    call_metadata: Option<MetadataBody>,
}

/// Who was called.
#[derive(Deserialize, Object)]
#[oai(rename = "CalledRecipient")]
struct RecipientBody {
    /// The provider's id of the recipient: each is written to once.
    id: String,
    /// In E.164.
    phone_number: String,
    /// How the call ended; it is not looked at.
    status: Option<String>,
    /// The provider's id of the call.
    conversation_id: Option<String>,
    /// When the provider made the entry.
    created_at_unix: Option<i64>,
    /// When it last changed it.
    updated_at_unix: Option<i64>,
}

/// What is known of the client.
#[derive(Default, Deserialize, Object)]
#[oai(rename = "CallMetadata")]
struct MetadataBody {
    /// The name by which the client is greeted.
    client_name: Option<String>,
    /// The client's number in the group.
    client_id: Option<i64>,
    /// The group.
    group_id: Option<i64>,
    /// The group's name.
    group_name: Option<String>,
}

impl Example for CallCompletedBody {
    fn example() -> Self {
        let text = |text: &str| Some(text.to_owned());
        Self {
            batch_id: text("btcal_9201k8pjch8teq3t428mqt82xe3d"),
            agent_id: "agent_4701k8fcsvhaes5s1h6tw894g98s".to_owned(),
            agent_name: text("Agente Admin - test ana 4"),
            phone_number_id: text("phnum_1401k8gyww19evptjqeqnm8hs3x5"),
            batch_name: text("Llamada test ana 4 - 28/10/2025"),
            recipient: RecipientBody {
                id: "rcpt_1901k8pjch8ve1c9v4d3jbmqamtn".to_owned(),
                phone_number: "+573001234567".to_owned(),
                status: text("completed"),
                conversation_id: text("conv_9601k8pjchj6fnvamdmbsvdq5ptv"),
                created_at_unix: Some(1_761_694_074),
                updated_at_unix: Some(1_761_694_074),
            },
            call_metadata: Some(MetadataBody {
                client_name: text("Ana García"),
                client_id: Some(42),
                group_id: Some(5),
                group_name: text("Campaña Octubre"),
            }),
        }
    }
}

/// A conversation that was begun.
#[derive(Debug, Object)]
#[oai(rename = "ConversationBegun", example)]
struct BegunView {
    /// Always `true`.
    success: bool,
    /// Words for people, in Spanish.
    message: String,
    /// The conversation.
    conversation_id: String,
    /// The provider's id of the first message; `null` while it is queued.
    whatsapp_message_id: Option<String>,
    /// `message_sent`, or `queued`.
    status: String,
}

impl Example for BegunView {
    fn example() -> Self {
        Self {
            success: true,
            message: "Conversación iniciada exitosamente".to_owned(),
            conversation_id: "conv_local_0f3c9a2b7d5e4c61a8f0b1c2d3e4f506".to_owned(),
            whatsapp_message_id: Some("SM1234567890abcdef".to_owned()),
            status: "message_sent".to_owned(),
        }
    }
}

/// What the end of a call answers.
#[derive(ApiResponse)]
enum CallCompleted {
    /// The provider has taken the first message.
    #[oai(status = 200)]
    Sent(Json<BegunView>),
    /// The first message is on record, and is sent as soon as the provider takes it.
    #[oai(status = 202)]
    Queued(Json<BegunView>),
}

/// Routes for the main backend.
pub struct Api;

#[OpenApi(tag = "Tag::Conversations")]
impl Api {
    /// Go on by WhatsApp after a call
    ///
    /// For our other services: of people only the role `admin` may stand in for one, others get 403.
    /// The first message greets by name and says what the call was about, where that is known. The same `recipient.id`
    /// again gets the same answer, and nothing is sent. Waits 8 seconds at most until the provider has taken the
    /// message. 502 when it refuses: `error` is `Failed to send WhatsApp message`, `details` are its words. 409 with
    /// the code `opted_out` when the client asked for no more messages.
    #[oai(
        path = "/api/call-completed",
        method = "post",
        operation_id = "call_completed"
    )]
    async fn call_completed(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The same key with the same body gets the first answer again.
        #[oai(name = "Idempotency-Key")]
        _idempotency_key: Header<Option<String>>,
        body: Deferred<CallCompletedBody>,
    ) -> Result<Response<CallCompleted>, Failure> {
        let caller = Caller::from(auth);
        let act = async { begin(&app, &caller, body.0?).await };
        let about = |begun: Option<&(Begun, Option<String>)>| {
            begun.map(|(begun, _)| target(&begun.conversation_id))
        };
        let ((begun, message_id), audited_at) =
            audit::recorded_of(&app, &caller, Access::Service, "call_completed", about, act)
                .await?;
        let position = begun.position.max(audited_at);
        app.readable(&READ_MODELS, position).await;
        Ok(answer(begun, message_id).header("X-Ledger-Position", position.to_string()))
    }
}

/// Begins, and waits for what becomes of the message. Gives the provider's id
/// of it as text once it was sent, where it has one; `None` while it is queued.
async fn begin(
    app: &App,
    caller: &Caller,
    body: CallCompletedBody,
) -> Result<(Begun, Option<String>), Failure> {
    let (phone_number, call) = read(body)?;
    let begun = conversations::start(app, phone_number, call, metadata(caller)).await;
    let begun = begun.map_err(|error| match error {
        Error::OptedOut => Failure::from(error).naming(NOT_SENT),
        error => error.into(),
    })?;
    let outcome = conversations::wait_for_outcome(app, &begun.effect_id, WAIT).await?;
    app.readable(&["effects"], events::head(&app.pool).await?)
        .await;
    match outcome {
        Outcome::Sent(id) => {
            // Not every provider gives one: ours stands for it.
            let id = id.unwrap_or_else(|| begun.effect_id.clone());
            Ok((begun, Some(id)))
        }
        Outcome::Queued => Ok((begun, None)),
        Outcome::Refused(words) => {
            let message = "No se pudo enviar el mensaje de WhatsApp";
            Err(Failure::provider(message, words).naming(NOT_SENT))
        }
    }
}

fn answer(begun: Begun, message_id: Option<String>) -> Response<CallCompleted> {
    let is_sent = message_id.is_some();
    let (message, status) = match is_sent {
        true => ("Conversación iniciada exitosamente", "message_sent"),
        false => ("Conversación iniciada, el mensaje está en cola", "queued"),
    };
    let view = Json(BegunView {
        success: true,
        message: message.to_owned(),
        conversation_id: begun.conversation_id,
        whatsapp_message_id: message_id,
        status: status.to_owned(),
    });
    Response::new(match is_sent {
        true => CallCompleted::Sent(view),
        false => CallCompleted::Queued(view),
    })
}

fn read(body: CallCompletedBody) -> Result<(PhoneNumber, Call), Failure> {
    let required = |name: &'static str, text: String| {
        let text = params::text(name, Some(text.trim().to_owned()))?;
        text.ok_or_else(|| Failure::field(name, "is required"))
    };
    let recipient = body.recipient;
    let phone_number = PhoneNumber::parse(recipient.phone_number.trim());
    let phone_number = phone_number
        .map_err(|error| Failure::field("recipient.phone_number", error.to_string()))?;
    let client = body.call_metadata.unwrap_or_default();
    let call = Call {
        recipient_id: required("recipient.id", recipient.id)?,
        client_name: params::text("call_metadata.client_name", client.client_name)?,
        client_id: client.client_id,
        group_id: client.group_id,
        group_name: params::text("call_metadata.group_name", client.group_name)?,
        agent_id: required("agent_id", body.agent_id)?,
        agent_name: params::text("agent_name", body.agent_name)?,
        batch_id: params::text("batch_id", body.batch_id)?,
        batch_name: params::text("batch_name", body.batch_name)?,
        call_conversation_id: params::text("recipient.conversation_id", recipient.conversation_id)?,
        call_summary: None,
        call_duration_secs: None,
    };
    Ok((phone_number, call))
}
