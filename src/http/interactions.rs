//! Interactions: what happened with clients, for supervisors. Contract,
//! section 2.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::phone::{PhoneNumber, mask, mask_in, mask_json};
use domain::{Channel, Direction, Provider};
use poem::Request;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Binary, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};
use projections::call_details::CallDetail;
use projections::interaction_events::InteractionEvent;
use projections::interactions::{self, Cursor, Detail, Filter, Interaction, Listed};
use projections::messages::Message;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::auth::{Access, Auth, Caller};
use super::error::Failure;
use super::reply::{self, Page, Success};
use super::time::{self, Time};
use super::written::Written;
use super::{Tag, audit, params, range};
use crate::app::App;
use crate::ledger::deliveries;
use crate::providers::{self, Webhook};

/// Largest raw body that is shown inside of an interaction; a larger one is
/// read with `GET /api/deliveries/{id}`.
const RAW_BYTES_MAX: usize = 256 << 10;
/// Raw bodies that are shown of one interaction, at most.
const RAW_BODIES_MAX: usize = 100;

/// An interaction as it is listed.
#[derive(Debug, Object)]
#[oai(rename = "Interaction", example)]
struct Row {
    /// The provider's id of it (`conv_…`, `CA…`, `SM…`), or for WhatsApp our own (`wa_…`).
    id: String,
    /// `call`, `whatsapp` or `sms`.
    channel: String,
    /// `elevenlabs`, `twilio` or `builderbot`.
    provider: Option<String>,
    /// `inbound` or `outbound`, of who began.
    direction: Option<String>,
    /// A call: `pending`, `in_progress`, `completed`, `failed`, `cancelled`, `voicemail`. An SMS: its message's status.
    /// A WhatsApp conversation: `active`.
    status: String,
    /// The client's number, masked unless revealed.
    phone_number: Option<String>,
    /// The voice agent.
    agent_id: Option<String>,
    /// The batch of the call.
    batch_id: Option<String>,
    /// ElevenLabs' conversation.
    conversation_id: Option<String>,
    /// When it began.
    started_at: Time,
    /// When it ended.
    ended_at: Option<Time>,
    /// When the latest of its events happened.
    last_event_at: Time,
    /// How long it lasted, in seconds.
    duration_secs: Option<i64>,
    /// The provider's summary.
    summary: Option<String>,
    /// Turns with words of a call; messages elsewhere.
    message_count: i64,
}

impl poem_openapi::types::Example for Row {
    fn example() -> Self {
        let at = |unix_secs| Time(DateTime::from_timestamp(unix_secs, 0).unwrap_or_default());
        Self {
            id: "conv_0001example00000000000000000".to_owned(),
            channel: "call".to_owned(),
            provider: Some("elevenlabs".to_owned()),
            direction: Some("outbound".to_owned()),
            status: "completed".to_owned(),
            phone_number: Some("+57******4567".to_owned()),
            agent_id: Some("agent_0001example0000000000000000".to_owned()),
            batch_id: Some("btcal_0001example0000000000000000".to_owned()),
            conversation_id: Some("conv_0001example00000000000000000".to_owned()),
            started_at: at(1_761_694_074),
            ended_at: Some(at(1_761_694_168)),
            last_event_at: at(1_761_694_190),
            duration_secs: Some(94),
            summary: Some("El cliente acuerda pagar el 3 de noviembre.".to_owned()),
            message_count: 2,
        }
    }
}

/// A page of [`Row`]s as it is written: with the same fields.
#[derive(Serialize)]
struct ListView<'r> {
    success: bool,
    data: Vec<ListedView<'r>>,
    next_cursor: Option<String>,
}

/// A [`Row`] as it is written: with the same fields.
#[derive(Serialize)]
struct ListedView<'r> {
    id: &'r str,
    channel: &'r str,
    provider: Option<&'r str>,
    direction: Option<&'r str>,
    status: &'r str,
    phone_number: Option<Cow<'r, str>>,
    agent_id: Option<&'r str>,
    batch_id: Option<&'r str>,
    conversation_id: Option<&'r str>,
    started_at: Time,
    ended_at: Option<Time>,
    last_event_at: Time,
    duration_secs: Option<i64>,
    summary: Option<Cow<'r, str>>,
    message_count: i64,
}

impl<'r> ListedView<'r> {
    fn of(row: Listed<'r>, masked: bool) -> Self {
        let hidden = row.phone_number.filter(|_| masked);
        Self {
            id: row.id,
            channel: row.channel,
            provider: row.provider,
            direction: row.direction,
            status: row.status,
            phone_number: match hidden {
                Some(number) => Some(mask(number).into()),
                None => row.phone_number.map(Cow::from),
            },
            agent_id: row.agent_id,
            batch_id: row.batch_id,
            conversation_id: row.conversation_id,
            started_at: row.started_at.into(),
            ended_at: time::optional(row.ended_at),
            last_event_at: row.last_event_at.into(),
            duration_secs: row.duration_secs,
            summary: row.summary.map(|summary| match hidden {
                Some(number) => mask_in(summary, number).into(),
                None => summary.into(),
            }),
            message_count: row.message_count,
        }
    }
}

/// An interaction whole.
#[derive(Debug, Object)]
#[oai(rename = "InteractionDetail")]
struct DetailView {
    /// What is listed of it.
    #[oai(flatten)]
    row: Row,
    /// What is known of the call; `null` for messages.
    call: Option<CallView>,
    /// The messages, in order.
    messages: Vec<MessageView>,
    /// Everything that happened, in the order of the ledger.
    events: Vec<EventView>,
}

/// A call.
#[derive(Debug, Object)]
#[oai(rename = "Call")]
struct CallView {
    /// How long it lasted, in seconds.
    duration_secs: Option<i64>,
    /// Where its recording can be had, as soon as it is here.
    recording_url: Option<String>,
    /// Whether a recording exists, here or at the provider.
    has_audio: bool,
    /// What was said: `role`, `message`, `time_in_call_secs`, `tools`.
    transcript: Value,
    /// The provider's summary.
    summary: Option<String>,
    /// The summary's title.
    summary_title: Option<String>,
    /// Evaluation criteria and collected data, as the provider has them.
    analysis: Value,
    /// The provider's verdict: `success`, `failure` or `unknown`.
    call_successful: Option<String>,
    /// Why it ended, in the provider's words.
    termination_reason: Option<String>,
    /// Why it could not be started: `busy`, `no-answer`, `unknown`, …
    failure_reason: Option<String>,
    /// What went wrong, in the provider's or the carrier's words.
    error: Option<String>,
    /// The language spoken.
    language: Option<String>,
    /// What it cost, in the provider's credits.
    cost_credits: Option<i64>,
    /// The agent's name.
    agent_name: Option<String>,
    /// Our number.
    agent_number: Option<String>,
    /// The provider's id of our number.
    phone_number_id: Option<String>,
    /// The carrier of the telephone leg.
    carrier: Option<String>,
    /// The carrier's id of the telephone leg.
    call_sid: Option<String>,
    /// How the telephone leg stands, in the carrier's word.
    carrier_status: Option<String>,
    /// The SIP response of the telephone leg.
    sip_status: Option<i64>,
    /// How the call ended, in the provider's word.
    provider_status: Option<String>,
    /// The variables that the agent was given.
    dynamic_variables: Value,
    /// The recipient of the batch that was called.
    batch_recipient_id: Option<String>,
}

/// A message.
#[derive(Debug, Object)]
#[oai(rename = "Message")]
struct MessageView {
    /// The provider's id, or `ev-` and the position of its event.
    id: String,
    /// `inbound` or `outbound`.
    direction: String,
    /// The words; `null` while only its status is known.
    content: Option<String>,
    /// `text`, `image`, `audio`, `voice`, `video`, `document`, `location`, `button`, …
    kind: Option<String>,
    /// Files: `url`, `content_type`.
    media: Value,
    /// What else it carries: `location`, `button`, `reply_to`, `forwarded`, `contact_name`.
    details: Value,
    /// How far it has come: `queued`, `sent`, `delivered`, `read`, `failed`, `undelivered`, `received`, …
    status: String,
    /// `elevenlabs`, `twilio` or `builderbot`.
    provider: Option<String>,
    /// The provider's id.
    provider_message_id: Option<String>,
    /// The provider's code of what went wrong.
    error_code: Option<String>,
    /// The provider's words on it.
    error_message: Option<String>,
    /// When it was first known.
    created_at: Time,
    /// When it left the provider.
    sent_at: Option<Time>,
    /// When it reached the client.
    delivered_at: Option<Time>,
    /// When the client read it.
    read_at: Option<Time>,
    /// When it failed.
    failed_at: Option<Time>,
}

/// Something that happened.
#[derive(Debug, Object)]
#[oai(rename = "InteractionEvent")]
struct EventView {
    /// Its place on the ledger.
    position: i64,
    /// What happened, such as `message.status_changed`.
    r#type: String,
    /// When it happened, by the provider's word or else the time of receipt.
    occurred_at: Time,
    /// When the ledger took it.
    recorded_at: Time,
    /// Who told us.
    provider: Option<String>,
    /// The delivery that brought it.
    delivery_id: Option<Uuid>,
    /// What happened, in our words.
    payload: Value,
    /// What the provider sent, with `raw=true`: JSON where it is JSON, else text. `null` when it is larger than
    /// 256 KiB: read it with `GET /api/deliveries/{delivery_id}`.
    #[oai(skip_serializing_if_is_none)]
    raw: Option<Value>,
}

/// A recording.
#[derive(ApiResponse)]
enum Audio {
    /// The whole recording.
    #[oai(status = 200, content_type = "audio/mpeg")]
    Whole(
        Binary<Vec<u8>>,
        /// Always `bytes`.
        #[oai(header = "Accept-Ranges")]
        String,
    ),
    /// The part that was asked for.
    #[oai(status = 206, content_type = "audio/mpeg")]
    Part(
        Binary<Vec<u8>>,
        /// Always `bytes`.
        #[oai(header = "Accept-Ranges")]
        String,
        /// Which part it is.
        #[oai(header = "Content-Range")]
        String,
    ),
    /// There is no such part.
    #[oai(status = 416)]
    NoSuchPart(
        /// How large the recording is.
        #[oai(header = "Content-Range")]
        String,
    ),
}

/// Routes for supervisors.
pub struct Api;

#[OpenApi(tag = "Tag::Interactions")]
impl Api {
    /// Calls, WhatsApp conversations and SMS
    ///
    /// The newest first.
    #[oai(
        path = "/api/interactions",
        method = "get",
        operation_id = "list_interactions"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each parameter of the operation"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// `call`, `whatsapp` or `sms`.
        channel: Query<Option<String>>,
        /// As in the rows.
        status: Query<Option<String>>,
        /// `inbound` or `outbound`.
        direction: Query<Option<String>>,
        /// `elevenlabs`, `twilio` or `builderbot`.
        provider: Query<Option<String>>,
        /// The client's whole number, in E.164: `+573001234567`.
        phone: Query<Option<String>>,
        /// The voice agent.
        agent_id: Query<Option<String>>,
        /// The batch of the call.
        batch_id: Query<Option<String>>,
        /// Begun at or after this time.
        from: Query<Option<String>>,
        /// Begun before or at this time.
        to: Query<Option<String>>,
        /// Words in transcripts, summaries and messages, as in a web search: `"plan premium" -caro`.
        q: Query<Option<String>>,
        /// Whether to show whole phone numbers: for supervisors, admins and auditors, and put on record.
        reveal: Query<Option<bool>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Written<Page<Row>>, Failure> {
        let caller = Caller::from(auth);
        let limit = reply::limit(limit.0)?;
        let filter = Filter {
            channel: params::word::<Channel>("channel", channel.0)?,
            status: params::text("status", status.0)?,
            direction: params::word::<Direction>("direction", direction.0)?,
            provider: params::word::<Provider>("provider", provider.0)?,
            phone_key: phone_key(&app, phone.0)?,
            agent_id: params::text("agent_id", agent_id.0)?,
            batch_id: params::text("batch_id", batch_id.0)?,
            from: params::time("from", from.0.as_deref())?,
            to: params::until("to", to.0.as_deref())?,
            q: params::text("q", q.0)?,
        };
        let after: Option<(DateTime<Utc>, String)> = reply::read_cursor(cursor.0.as_deref())?;
        let after = after.map(|(started_at, id)| Cursor { started_at, id });
        let mask = must_mask(&app, &caller, reveal.0, "reveal_interactions", None).await?;
        let mut conn = app.pool.acquire().await?;
        let mut rows = interactions::listed(&mut conn, &filter, after.as_ref(), limit + 1).await?;
        drop(conn);
        let next_cursor = match reply::cut(&mut rows, limit) {
            Some(last) => {
                let last = last.read()?;
                reply::next_cursor((last.started_at, last.id))
            }
            None => None,
        };
        let data: Vec<_> = rows
            .iter()
            .map(|row| row.read().map(|row| ListedView::of(row, mask)))
            .collect::<sqlx::Result<_>>()?;
        Ok(Written::of(&ListView {
            success: true,
            data,
            next_cursor,
        })?)
    }

    /// One interaction with all that belongs to it
    ///
    /// `as_of` shows it as it stood at a time or ledger position: the same answer that was given then.
    #[oai(
        path = "/api/interactions/:id",
        method = "get",
        operation_id = "get_interaction"
    )]
    async fn get(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The interaction; a call also answers to its carrier's id (`CA…`).
        id: Path<String>,
        /// A time (`2025-10-28T23:29:50Z`) or a ledger position.
        as_of: Query<Option<String>>,
        /// Whether to show what the providers sent; put on record.
        raw: Query<Option<bool>>,
        /// Whether to show whole phone numbers: for supervisors, admins and auditors, and put on record.
        reveal: Query<Option<bool>>,
    ) -> Result<Json<Success<DetailView>>, Failure> {
        let caller = Caller::from(auth);
        let id = params::id(id.0)?;
        let as_of = params::as_of(as_of.0)?;
        let mut conn = app.pool.acquire().await?;
        let found = match as_of {
            None => interactions::detail(&mut conn, &app.opener, &id).await?,
            Some(then) => interactions::as_of(&mut conn, &app.opener, &id, then).await?,
        };
        drop(conn);
        let detail = found.ok_or_else(|| Failure::not_found("Interacción no encontrada"))?;
        let target = Some(detail.interaction.id.clone());
        let mask = must_mask(&app, &caller, reveal.0, "reveal_interaction", target).await?;
        let mut view = show_detail(detail, mask);
        if raw.0.unwrap_or(false) {
            let read = audit::Act {
                caller: Some(&caller),
                action: "read_raw_interaction",
                target: Some(view.0.row.id.clone()),
                outcome: "ok",
            };
            audit::record(&app, read).await?;
            add_raw(&app, &mut view.0, view.1.as_deref()).await?;
        }
        Ok(reply::success(view.0))
    }

    /// The recording of a call
    ///
    /// Takes range requests, so that a player can seek.
    #[oai(
        path = "/api/interactions/:id/audio",
        method = "get",
        operation_id = "get_interaction_audio"
    )]
    async fn audio(
        &self,
        app: Data<&Arc<App>>,
        _auth: Auth,
        request: &Request,
        /// The interaction.
        id: Path<String>,
    ) -> Result<Audio, Failure> {
        let none = || Failure::not_found("La interacción no tiene grabación");
        let id = params::id(id.0)?;
        let mut conn = app.pool.acquire().await?;
        let interaction = interactions::get(&mut conn, &id).await?.ok_or_else(none)?;
        let call = projections::call_details::get(&mut conn, &interaction.id).await?;
        drop(conn);
        let delivery = call
            .and_then(|call| call.audio_delivery_id)
            .ok_or_else(none)?;
        let delivery = deliveries::get(&app.pool, &app.opener, delivery)
            .await?
            .ok_or_else(none)?;
        let webhook = Webhook::named(&delivery.summary.route).ok_or_else(none)?;
        // Decoding may be 32 MiB of work.
        let decoded = move || providers::audio(webhook, &delivery.body);
        let decoded = tokio::task::spawn_blocking(decoded);
        let audio = decoded
            .await
            .map_err(anyhow::Error::from)?
            .ok_or_else(none)?;
        let bytes = || "bytes".to_owned();
        Ok(match range::requested(request, audio.len()) {
            range::Requested::Whole => Audio::Whole(Binary(audio), bytes()),
            range::Requested::Part(part) => {
                let content_range =
                    format!("bytes {}-{}/{}", part.start, part.end - 1, audio.len());
                Audio::Part(Binary(audio[part].to_vec()), bytes(), content_range)
            }
            range::Requested::Nothing => Audio::NoSuchPart(format!("bytes */{}", audio.len())),
        })
    }
}

/// The key of a client's number that is looked for.
///
/// # Errors
/// 400 that names the parameter.
pub(super) fn phone_key(app: &App, given: Option<String>) -> Result<Option<String>, Failure> {
    let Some(given) = params::text("phone", given)? else {
        return Ok(None);
    };
    // A `+` that was not percent-encoded comes as a space.
    let given = given.trim();
    let number = PhoneNumber::parse(given).or_else(|_| PhoneNumber::from_digits(given));
    let number = number.map_err(|error| Failure::field("phone", error.to_string()))?;
    Ok(Some(app.phone_index.key(number.as_str())))
}

/// Whether phone numbers must be masked. To reveal them is put on record,
/// before they are shown.
pub(super) async fn must_mask(
    app: &App,
    caller: &Caller,
    reveal: Option<bool>,
    action: &'static str,
    target: Option<String>,
) -> Result<bool, Failure> {
    if !reveal.unwrap_or(false) {
        return Ok(app.config.mask_phone_numbers);
    }
    audit::recorded(app, caller, Access::Reveal, action, target, async {
        Ok(())
    })
    .await?;
    Ok(false)
}

fn show_row(row: Interaction, masked: bool) -> Row {
    let hide = |text: String| match &row.phone_number {
        Some(number) if masked => mask_in(&text, number),
        _ => text,
    };
    Row {
        summary: row.summary.map(hide),
        phone_number: row.phone_number.map(|number| match masked {
            true => mask(&number),
            false => number,
        }),
        id: row.id,
        channel: row.channel.to_string(),
        provider: row.provider.map(|provider| provider.to_string()),
        direction: row.direction.map(|direction| direction.to_string()),
        status: row.status,
        agent_id: row.agent_id,
        batch_id: row.batch_id,
        conversation_id: row.conversation_id,
        started_at: row.started_at.into(),
        ended_at: time::optional(row.ended_at),
        last_event_at: row.last_event_at.into(),
        duration_secs: row.duration_secs,
        message_count: row.message_count,
    }
}

/// The view, and the number that is masked in it.
fn show_detail(detail: Detail, masked: bool) -> (DetailView, Option<String>) {
    let number = detail.interaction.phone_number.clone().filter(|_| masked);
    let hide = |text: Option<String>| match &number {
        Some(number) => text.map(|text| mask_in(&text, number)),
        None => text,
    };
    let hide_json = |value: Value| match &number {
        Some(number) => mask_json(&value, number),
        None => value,
    };
    let id = detail.interaction.id.clone();
    let view = DetailView {
        call: detail
            .call
            .map(|call| show_call(call, &id, &hide, &hide_json)),
        messages: detail
            .messages
            .into_iter()
            .map(|message| show_message(message, &hide, &hide_json))
            .collect(),
        events: detail
            .events
            .into_iter()
            .map(|event| show_event(event, &hide_json))
            .collect(),
        row: show_row(detail.interaction, masked),
    };
    (view, number)
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn show_call(
    call: CallDetail,
    id: &str,
    hide: &impl Fn(Option<String>) -> Option<String>,
    hide_json: &impl Fn(Value) -> Value,
) -> CallView {
    let here = call
        .audio_delivery_id
        .map(|_| format!("/api/interactions/{id}/audio"));
    CallView {
        duration_secs: call.duration_secs,
        recording_url: here.or_else(|| hide(call.recording_url)),
        has_audio: call.has_audio,
        transcript: hide_json(json(&call.transcript)),
        summary: hide(call.summary),
        summary_title: hide(call.summary_title),
        analysis: hide_json(Value::Object(call.analysis)),
        call_successful: call.call_successful,
        termination_reason: hide(call.termination_reason),
        failure_reason: hide(call.failure_reason),
        error: hide(call.error),
        language: call.language,
        cost_credits: call.cost_credits,
        agent_name: call.agent_name,
        agent_number: call.agent_number,
        phone_number_id: call.phone_number_id,
        carrier: call.carrier,
        call_sid: call.call_sid,
        carrier_status: call.carrier_status,
        sip_status: call.sip_status,
        provider_status: call.provider_status,
        dynamic_variables: hide_json(Value::Object(call.dynamic_variables)),
        batch_recipient_id: call.batch_recipient_id,
    }
}

fn show_message(
    message: Message,
    hide: &impl Fn(Option<String>) -> Option<String>,
    hide_json: &impl Fn(Value) -> Value,
) -> MessageView {
    MessageView {
        id: message.id,
        direction: message.direction.to_string(),
        content: hide(message.content),
        kind: message.kind.map(|kind| kind.to_string()),
        media: hide_json(json(&message.media)),
        details: hide_json(json(&message.details)),
        status: message.status.to_string(),
        provider: message.provider.map(|provider| provider.to_string()),
        provider_message_id: message.provider_message_id,
        error_code: message.error_code,
        error_message: hide(message.error_message),
        created_at: message.created_at.into(),
        sent_at: time::optional(message.sent_at),
        delivered_at: time::optional(message.delivered_at),
        read_at: time::optional(message.read_at),
        failed_at: time::optional(message.failed_at),
    }
}

fn show_event(event: InteractionEvent, hide_json: &impl Fn(Value) -> Value) -> EventView {
    EventView {
        position: event.position,
        r#type: event.r#type,
        occurred_at: event.occurred_at.into(),
        recorded_at: event.recorded_at.into(),
        provider: event.provider.map(|provider| provider.to_string()),
        delivery_id: event.delivery_id,
        payload: hide_json(event.payload),
        raw: None,
    }
}

/// Puts beside each event what the provider sent.
async fn add_raw(app: &App, view: &mut DetailView, number: Option<&str>) -> Result<(), Failure> {
    for event in view.events.iter_mut().rev().take(RAW_BODIES_MAX) {
        let Some(delivery) = event.delivery_id else {
            continue;
        };
        let body = deliveries::body(&app.pool, &app.opener, delivery)
            .await?
            .unwrap_or_default();
        let shown = (body.len() <= RAW_BYTES_MAX).then(|| {
            let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
            serde_json::from_slice(&body).unwrap_or_else(|_| text())
        });
        let shown = shown.unwrap_or(Value::Null);
        event.raw = Some(number.map_or_else(|| shown.clone(), |number| mask_json(&shown, number)));
    }
    Ok(())
}
