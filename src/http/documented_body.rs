//! Bodies of webhooks: taken as they are, whatever they are, yet documented
//! with the fields that the providers send.

use std::marker::PhantomData;

use poem::{Body, Request, RequestBody};
use poem_openapi::payload::{ParsePayload, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde_json::Value;

use super::error::Failure;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object};

/// An unread body.
pub struct WebhookBody(pub Body);

/// An unread body that should be JSON of the shape `T`.
pub struct JsonBody<T>(WebhookBody, PhantomData<T>);

/// An unread body that should be a form of the shape `T`.
pub struct FormBody<T>(WebhookBody, PhantomData<T>);

macro_rules! documented_body {
    ($name:ident, $content_type:literal) => {
        impl<T> $name<T> {
            /// The unread body.
            pub fn into_body(self) -> WebhookBody {
                self.0
            }
        }

        impl<T: Type> Payload for $name<T> {
            const CONTENT_TYPE: &'static str = $content_type;

            fn schema_ref() -> MetaSchemaRef {
                T::schema_ref()
            }

            fn register(registry: &mut Registry) {
                T::register(registry);
            }
        }

        impl<T: Type> ParsePayload for $name<T> {
            const IS_REQUIRED: bool = true;

            async fn from_request(_: &Request, body: &mut RequestBody) -> poem::Result<Self> {
                Ok(Self(
                    WebhookBody(body.take().unwrap_or_default()),
                    PhantomData,
                ))
            }
        }

        // As poem-openapi's payloads do it, but with no check of the content
        // type: nothing authentic is refused for its shape.
        impl<'a, T: Type> ApiExtractor<'a> for $name<T> {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut Registry) {
                <Self as Payload>::register(registry);
            }

            fn request_meta() -> Option<MetaRequest> {
                Some(MetaRequest {
                    description: None,
                    content: vec![MetaMediaType {
                        content_type: Self::CONTENT_TYPE,
                        schema: Self::schema_ref(),
                    }],
                    required: true,
                })
            }

            async fn from_request(
                request: &'a Request,
                body: &mut RequestBody,
                _: ExtractParamOptions<()>,
            ) -> poem::Result<Self> {
                <Self as ParsePayload>::from_request(request, body).await
            }
        }
    };
}

documented_body!(JsonBody, "application/json");
documented_body!(FormBody, "application/x-www-form-urlencoded");

/// What ElevenLabs posts.
#[derive(Object)]
#[oai(example)]
pub struct ElevenlabsWebhook {
    /// `post_call_transcription`, `post_call_audio`, `call_initiation_failure`, or another.
    r#type: String,
    /// When it was made, in Unix seconds.
    event_timestamp: i64,
    /// The conversation; its shape depends on `type`.
    data: serde_json::Value,
}

impl poem_openapi::types::Example for ElevenlabsWebhook {
    fn example() -> Self {
        Self {
            r#type: "post_call_transcription".to_owned(),
            event_timestamp: 1_761_694_190,
            data: serde_json::json!({
                "agent_id": "agent_0001example0000000000000000",
                "conversation_id": "conv_0001example00000000000000000",
                "status": "done",
                "transcript": [{"role": "agent", "message": "Hola Ana, ¿tienes un minuto?", "time_in_call_secs": 0}],
                "metadata": {"start_time_unix_secs": 1_761_694_074, "call_duration_secs": 94},
                "analysis": {"call_successful": "success", "transcript_summary": "El cliente acuerda pagar."}
            }),
        }
    }
}

/// What builderbot.cloud posts.
#[derive(Object)]
#[oai(example)]
pub struct BuilderbotWebhook {
    /// `message.incoming`, `message.outgoing`, `message.calling`, `status.ready`, `status.require_action`,
    /// `status.disconnect`, `status.online`, or another.
    #[oai(rename = "eventName")]
    event_name: String,
    /// Its shape depends on `eventName`.
    data: serde_json::Value,
}

impl poem_openapi::types::Example for BuilderbotWebhook {
    fn example() -> Self {
        Self {
            event_name: "message.incoming".to_owned(),
            data: serde_json::json!({
                "body": "Hola, necesito ayuda", "name": "Juan Pérez", "from": "5491112345678",
                "attachment": [], "projectId": "00000000-0000-4000-8000-000000000001"
            }),
        }
    }
}

/// What Twilio posts when a message's status changes. Further fields are kept.
#[derive(Object)]
#[oai(example, rename_all = "PascalCase")]
pub struct TwilioMessageStatus {
    /// The message.
    message_sid: String,
    /// `queued`, `sent`, `delivered`, `read`, `failed`, `undelivered`, …
    message_status: String,
    /// Our number; `whatsapp:` before it for WhatsApp.
    from: String,
    /// The client's number; `whatsapp:` before it for WhatsApp.
    to: String,
    /// What went wrong.
    #[oai(skip_serializing_if_is_none)]
    error_code: Option<String>,
}

impl poem_openapi::types::Example for TwilioMessageStatus {
    fn example() -> Self {
        Self {
            message_sid: "SM00000000000000000000000000000011".to_owned(),
            message_status: "delivered".to_owned(),
            from: "+14155550100".to_owned(),
            to: "+5491133334444".to_owned(),
            error_code: None,
        }
    }
}

/// What Twilio posts when a client writes. Further fields are kept.
#[derive(Object)]
#[oai(example, rename_all = "PascalCase")]
pub struct TwilioIncoming {
    /// The message.
    message_sid: String,
    /// The client's number; `whatsapp:` before it for WhatsApp.
    from: String,
    /// Our number; `whatsapp:` before it for WhatsApp.
    to: String,
    /// The words.
    body: String,
    /// How many files: `MediaUrl0`, `MediaContentType0`, …
    num_media: String,
}

impl poem_openapi::types::Example for TwilioIncoming {
    fn example() -> Self {
        Self {
            message_sid: "SM00000000000000000000000000000012".to_owned(),
            from: "whatsapp:+5491133334444".to_owned(),
            to: "whatsapp:+14155238886".to_owned(),
            body: "Sí me interesa, ¿cuál es el precio?".to_owned(),
            num_media: "0".to_owned(),
        }
    }
}

/// What Twilio posts when a call progresses. Further fields are kept.
#[derive(Object)]
#[oai(example, rename_all = "PascalCase")]
pub struct TwilioVoiceStatus {
    /// The call.
    call_sid: String,
    /// `initiated`, `ringing`, `in-progress`, `completed`, `busy`, `failed`, `no-answer`, `canceled`.
    call_status: String,
    /// The caller's number.
    from: String,
    /// The called number.
    to: String,
    /// `outbound-api`, `inbound`, …
    direction: String,
    /// The count of this callback.
    sequence_number: String,
}

impl poem_openapi::types::Example for TwilioVoiceStatus {
    fn example() -> Self {
        Self {
            call_sid: "CA00000000000000000000000000000001".to_owned(),
            call_status: "completed".to_owned(),
            from: "+14155550100".to_owned(),
            to: "+5491133334444".to_owned(),
            direction: "outbound-api".to_owned(),
            sequence_number: "3".to_owned(),
        }
    }
}

impl<T: Type> JsonBody<T> {
    /// Reads the body for a handler that names every fault itself.
    ///
    /// # Errors
    /// 400 when it is no JSON, 415 when it does not say that it is.
    pub async fn read_json(self, request: &Request) -> Result<Value, Failure> {
        let content_type = request.content_type().unwrap_or_default();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Failure::unsupported_media_type(
                "The body must be application/json",
            ));
        }
        let body = self.into_body().0.into_bytes().await;
        let body = body.map_err(|_| Failure::field("body", "ended before its end"))?;
        serde_json::from_slice(&body)
            .map_err(|error| Failure::field("body", format!("is no JSON: {error}")))
    }
}
