//! Webhooks in (contract, section 1): the way of every fact onto the ledger.
//!
//! On this path nothing is done that can be done after: check, read, translate,
//! append, answer. Invariant: 200 means durable.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use domain::delivery::Verdict;
use futures_util::{Stream, TryStreamExt};
use poem::Request;
use poem::http::{HeaderMap, header};
use poem::web::Data;
use poem_openapi::payload::{Json, PlainText};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::documented_body::{FormBody, JsonBody, WebhookBody};
use super::error::Failure;
use super::{Tag, context, incoming};
use crate::app::App;
use crate::ledger::{Claim, Delivery, Entry, NotWritten, Receipt, Room};
use crate::providers::{self, Normalised, Outcome, Rejection, Webhook};

/// How much of the body of a rejected delivery is kept.
const REJECTED_BODY_BYTES_MAX: usize = 2048;
/// Larger bodies are examined on a thread of their own.
const EXAMINED_INLINE_BYTES_MAX: usize = 256 << 10;
/// Longest header value and address that is kept, in bytes.
const KEPT_TEXT_BYTES_MAX: usize = 4096;
/// Headers that are kept of one delivery, at most.
const KEPT_HEADERS_MAX: usize = 64;
/// Headers whose values are secrets, and are never kept.
const SECRET_HEADERS: [&str; 5] = [
    "x-webhook-token",
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-service-token",
];
/// What stands in the place of a secret.
const REMOVED: &str = "[removed]";
/// What Twilio expects: a reply with no instructions.
const EMPTY_TWIML: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response></Response>"#;

/// What was made of a delivery.
#[derive(Debug, Object)]
#[oai(example)]
struct Ack {
    /// Always `true`.
    success: bool,
    /// `accepted`, `duplicate` or `quarantined`.
    #[oai(validator(pattern = "^(accepted|duplicate|quarantined)$"))]
    status: String,
    /// The delivery; of a duplicate, the first one's.
    delivery_id: String,
    /// The ledger position of its last event; of a duplicate, the first one's.
    position: Option<i64>,
}

impl poem_openapi::types::Example for Ack {
    fn example() -> Self {
        Self {
            success: true,
            status: "accepted".to_owned(),
            delivery_id: "01a1ff03-4585-741f-a8a6-ca52aabaa84e".to_owned(),
            position: Some(17),
        }
    }
}

/// The answer to Twilio's inbound webhooks.
#[derive(ApiResponse)]
enum Twiml {
    /// An empty TwiML document, in every authentic case.
    #[oai(status = 200, content_type = "text/xml")]
    Empty(PlainText<&'static str>),
}

/// Routes for the providers.
pub struct Api;

#[OpenApi(tag = "Tag::Webhooks")]
impl Api {
    /// ElevenLabs: what became of a call
    ///
    /// `post_call_transcription`, `post_call_audio`, `call_initiation_failure`, and any other type, which is
    /// quarantined. Authentic by `X-Webhook-Token` or by `ElevenLabs-Signature` (`t=…,v0=…`).
    #[oai(
        path = "/webhooks/elevenlabs/call",
        method = "post",
        operation_id = "receive_elevenlabs_call"
    )]
    async fn elevenlabs_call(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        body: JsonBody<super::documented_body::ElevenlabsWebhook>,
    ) -> Result<Json<Ack>, Failure> {
        receive(&app, Webhook::ElevenlabsCall, request, body.into_body()).await
    }

    /// builderbot.cloud: WhatsApp messages and the connection's state
    ///
    /// Authentic by `X-Webhook-Token`, or by `?token=`.
    #[oai(
        path = "/webhooks/builderbot/whatsapp",
        method = "post",
        operation_id = "receive_builderbot_whatsapp"
    )]
    async fn builderbot_whatsapp(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        body: JsonBody<super::documented_body::BuilderbotWebhook>,
    ) -> Result<Json<Ack>, Failure> {
        receive(&app, Webhook::BuilderbotWhatsapp, request, body.into_body()).await
    }

    /// Twilio: how far an SMS or WhatsApp message has come
    ///
    /// Authentic by `X-Webhook-Token` or by `X-Twilio-Signature` over `PUBLIC_URL` + path + query.
    #[oai(
        path = "/webhooks/twilio/sms/status",
        method = "post",
        operation_id = "receive_twilio_message_status"
    )]
    async fn twilio_status(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        body: FormBody<super::documented_body::TwilioMessageStatus>,
    ) -> Result<Json<Ack>, Failure> {
        receive(&app, Webhook::TwilioSmsStatus, request, body.into_body()).await
    }

    /// Twilio: a WhatsApp message or an SMS of a client
    #[oai(
        path = "/webhook/twilio/incoming",
        method = "post",
        operation_id = "receive_twilio_incoming"
    )]
    async fn twilio_incoming(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        body: FormBody<super::documented_body::TwilioIncoming>,
    ) -> Result<Twiml, Failure> {
        receive(&app, Webhook::TwilioIncoming, request, body.into_body()).await?;
        Ok(Twiml::Empty(PlainText(EMPTY_TWIML)))
    }

    /// Twilio: a WhatsApp message or an SMS of a client (alias)
    #[oai(
        path = "/webhooks/twilio/incoming",
        method = "post",
        operation_id = "receive_twilio_incoming_alias"
    )]
    async fn twilio_incoming_alias(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        body: FormBody<super::documented_body::TwilioIncoming>,
    ) -> Result<Twiml, Failure> {
        self.twilio_incoming(app, request, body).await
    }

    /// Twilio: the progress of a telephone call
    #[oai(
        path = "/webhooks/twilio/voice/status",
        method = "post",
        operation_id = "receive_twilio_voice_status"
    )]
    async fn twilio_voice(
        &self,
        app: Data<&Arc<App>>,
        request: &Request,
        body: FormBody<super::documented_body::TwilioVoiceStatus>,
    ) -> Result<Json<Ack>, Failure> {
        receive(&app, Webhook::TwilioVoiceStatus, request, body.into_body()).await
    }
}

/// The whole way of one delivery.
async fn receive(
    app: &Arc<App>,
    webhook: Webhook,
    request: &Request,
    body: WebhookBody,
) -> Result<Json<Ack>, Failure> {
    let began = Instant::now();
    // On the heap once: poem moves what surrounds it from box to box.
    let answer = Box::pin(take(app, webhook, request, body)).await;
    let verdict = match &answer {
        Ok(receipt) => receipt.verdict.map_or("none", Verdict::as_str),
        Err(Failure::Unauthorized(_)) => "rejected",
        Err(_) => "refused",
    };
    let provider = webhook.provider().as_str();
    metrics::counter!("bitacora_deliveries_total", "provider" => provider, "verdict" => verdict)
        .increment(1);
    metrics::histogram!("bitacora_ack_seconds", "provider" => provider)
        .record(began.elapsed().as_secs_f64());
    answer.map(|receipt| {
        Json(Ack {
            success: true,
            status: verdict.to_owned(),
            delivery_id: receipt
                .delivery_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            position: receipt.position,
        })
    })
}

async fn take(
    app: &Arc<App>,
    webhook: Webhook,
    request: &Request,
    body: WebhookBody,
) -> Result<Receipt, Failure> {
    let target = request
        .original_uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let secrets = &app.config.provider_secrets;
    let headers = header_pairs(request.headers());
    let unread = signed_request(app, &headers, target, &[]);
    let mut room = app.writer.room();
    let bytes_max = webhook.body_bytes_max();
    let mut coming = body.0.into_bytes_stream();
    if !app.writer.has_room() {
        // Before any work is done for what cannot be taken.
        incoming::discard(request.headers(), coming, bytes_max).await;
        return Err(NotWritten::Overloaded.into());
    }
    if let Err(rejection) = providers::may_be_authentic(webhook, secrets, &unread) {
        let reading = read(&mut coming, REJECTED_BODY_BYTES_MAX, &mut room);
        let prefix = tokio::time::timeout(incoming::REFUSED_TIMEOUT, reading).await;
        let came = prefix.is_ok();
        let (prefix, _) = prefix.unwrap_or((Bytes::new(), Err(Cut::Broken)));
        let failure = reject(app, webhook, request, target, &rejection, prefix).await;
        if came {
            incoming::discard(request.headers(), coming, bytes_max).await;
        }
        return Err(failure);
    }
    let (body, complete) = if incoming::is_larger(request.headers(), bytes_max) {
        (Bytes::new(), Err(Cut::TooLarge))
    } else {
        tokio::time::timeout(incoming::TIMEOUT, read(&mut coming, bytes_max, &mut room))
            .await
            .unwrap_or_else(|_| (Bytes::new(), Err(Cut::Broken)))
    };
    if let Err(cut) = complete {
        if matches!(cut, Cut::TooLarge) {
            incoming::discard(request.headers(), coming, bytes_max).await;
        }
        return Err(cut.failure(webhook));
    }
    let examined = if body.len() < EXAMINED_INLINE_BYTES_MAX {
        examine(app, webhook, request.headers(), target, &body)
    } else {
        // A recording of 32 MiB is 40 ms of work: not where others wait.
        let (app, headers) = (app.clone(), request.headers().clone());
        let (target, body) = (target.to_owned(), body.clone());
        let work = move || examine(&app, webhook, &headers, &target, &body);
        tokio::task::spawn_blocking(work)
            .await
            .map_err(anyhow::Error::from)?
    };
    let (authentication, claim) = match examined {
        Ok(examined) => examined,
        Err(rejection) => return Err(reject(app, webhook, request, target, &rejection, body).await),
    };
    let delivery = delivery(app, webhook, request, target, authentication, body);
    Ok(app
        .writer
        .append_in(room, Entry::Delivery(Box::new(delivery), claim))
        .await?)
}

/// By what a delivery is authentic, and what is to be made of it.
fn examine(
    app: &App,
    webhook: Webhook,
    headers: &HeaderMap,
    target: &str,
    body: &Bytes,
) -> Result<(&'static str, Claim), Rejection> {
    let pairs = header_pairs(headers);
    let signed = signed_request(app, &pairs, target, body);
    let authentication = providers::authenticate(webhook, &app.config.provider_secrets, &signed)?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let Normalised { identity, outcome } =
        providers::normalise(webhook, body, content_type, &app.phone_index);
    let claim = match outcome {
        Outcome::Facts(facts) => Claim::Facts { identity, facts },
        Outcome::Quarantined { reason } => {
            let (provider, route) = (webhook.provider(), webhook.name());
            tracing::warn!(%provider, route, reason, "quarantined a delivery");
            Claim::Quarantined { identity, reason }
        }
    };
    Ok((authenticated_by(authentication), claim))
}

fn signed_request<'a>(
    app: &'a App,
    headers: &'a [(&'a str, &'a [u8])],
    target: &'a str,
    body: &'a [u8],
) -> providers::Request<'a> {
    providers::Request {
        headers,
        path_and_query: target,
        body,
        public_url: &app.config.public_url,
        received_at: app.source.now(),
    }
}

fn authenticated_by(authentication: providers::Authentication) -> &'static str {
    match authentication {
        providers::Authentication::Token => "token",
        providers::Authentication::Signature => "signature",
    }
}

/// Keeps what a stranger sent, if that harms nobody, and refuses it.
async fn reject(
    app: &App,
    webhook: Webhook,
    request: &Request,
    target: &str,
    rejection: &Rejection,
    body: Bytes,
) -> Failure {
    // A copy, so that the rest of a large body is let go.
    let kept = Bytes::copy_from_slice(&body[..body.len().min(REJECTED_BODY_BYTES_MAX)]);
    let delivery = delivery(app, webhook, request, target, "none", kept);
    let claim = Claim::Rejected {
        reason: format!("{}: {rejection}", rejection.code()),
    };
    let mut kept = false;
    if app.writer.has_room_to_spare() {
        let receipt = app
            .writer
            .append(Entry::Delivery(Box::new(delivery), claim))
            .await;
        kept = receipt.is_ok_and(|receipt| receipt.verdict.is_some());
    }
    if !kept {
        metrics::counter!("bitacora_rejections_not_kept_total").increment(1);
    }
    let request_id = context::current().request_id;
    tracing::warn!(request_id, provider = %webhook.provider(), reason = rejection.code(), kept, "rejected a delivery");
    Failure::unauthorized()
}

fn delivery(
    app: &App,
    webhook: Webhook,
    request: &Request,
    target: &str,
    authentication: &str,
    body: Bytes,
) -> Delivery {
    Delivery {
        id: app.source.id(),
        provider: webhook.provider(),
        route: webhook.name(),
        authentication: authentication.to_owned(),
        received_at: app.source.now(),
        remote_addr: Some(context::current().remote_addr),
        request_target: without_secrets(target),
        headers: kept_headers(request.headers()),
        body,
        reprocess_of: None,
    }
}

/// Why a body was not read to its end.
enum Cut {
    TooLarge,
    Broken,
    NoRoom(NotWritten),
}

impl Cut {
    fn failure(self, webhook: Webhook) -> Failure {
        match self {
            Self::TooLarge => Failure::too_large(webhook.body_bytes_max()),
            Self::Broken => Failure::field("body", "ended before its end: the connection was cut"),
            Self::NoRoom(reason) => reason.into(),
        }
    }
}

/// Reads a body of at most `bytes_max`, as far as there is room for it; what
/// was read before a cut is kept.
async fn read<E>(
    coming: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    bytes_max: usize,
    room: &mut Room,
) -> (Bytes, Result<(), Cut>) {
    let mut whole = BytesMut::new();
    loop {
        match coming.try_next().await {
            Ok(Some(chunk)) if whole.len() + chunk.len() > bytes_max => {
                let room = bytes_max - whole.len();
                whole.extend_from_slice(&chunk[..room]);
                return (whole.freeze(), Err(Cut::TooLarge));
            }
            Ok(Some(chunk)) => match room.make(whole.len() + chunk.len()) {
                Ok(()) => whole.extend_from_slice(&chunk),
                Err(full) => return (whole.freeze(), Err(Cut::NoRoom(full))),
            },
            Ok(None) => return (whole.freeze(), Ok(())),
            Err(_) => return (whole.freeze(), Err(Cut::Broken)),
        }
    }
}

fn header_pairs(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

/// The headers that are kept, as a JSON object: without secrets, and within
/// bounds. A repeated header's values are joined by a comma, as HTTP has it.
fn kept_headers(headers: &HeaderMap) -> String {
    let mut kept = BTreeMap::new();
    for name in headers.keys().take(KEPT_HEADERS_MAX) {
        let value = if SECRET_HEADERS.contains(&name.as_str()) {
            Cow::Borrowed(REMOVED)
        } else {
            let values = headers.get_all(name).iter();
            let texts = values.map(|value| clip(String::from_utf8_lossy(value.as_bytes())));
            texts
                .reduce(|all, next| Cow::Owned(format!("{all}, {next}")))
                .unwrap_or_default()
        };
        kept.insert(name.as_str(), value);
    }
    serde_json::to_string(&kept).expect("texts are JSON")
}

/// A request target with the value of `token` taken out of its query.
fn without_secrets(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return clip(target.into()).into_owned();
    };
    let query: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.eq_ignore_ascii_case("token") || name.contains('%') => {
                format!("{name}={REMOVED}")
            }
            _ => pair.to_owned(),
        })
        .collect();
    clip(format!("{path}?{}", query.join("&")).into()).into_owned()
}

/// At most [`KEPT_TEXT_BYTES_MAX`] of a text, and no NUL, which PostgreSQL
/// cannot hold.
fn clip(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= KEPT_TEXT_BYTES_MAX && !text.contains('\0') {
        return text;
    }
    let end = text.floor_char_boundary(KEPT_TEXT_BYTES_MAX);
    text[..end].replace('\0', "\u{fffd}").into()
}
