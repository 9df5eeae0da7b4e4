//! builderbot.cloud: WhatsApp through its managed API, v2.
//!
//! Almost nothing of it is documented (PROVIDERS.md §4): what a send answers, whether events have
//! ids, whether anything is retried. Where the real one is unknown, this one gives the least.

use std::sync::Arc;

use poem::{Endpoint, Response, Route, post};
use serde_json::{Value, json};

use crate::{
    driver::Shared,
    http::{Answer, Call, Provider, Reply, operation},
    options::{Options, first_secret},
    phones,
    truth::MessageTruth,
    webhooks::{self, Content, Letter, WebhookKind},
    world::World,
};

/// The service's path for its webhooks.
const PATH: &str = "/webhooks/builderbot/whatsapp";

/// `message.outgoing` follows a send by so much.
const OUTGOING_DELAY_MS: u64 = 400;

/// Of the incoming messages, the share that carries WhatsApp's own `key`.
const KEY_SHARE: f64 = 0.5;

/// What builderbot knows.
#[derive(Default)]
pub(crate) struct State {
    messages: Vec<MessageTruth>,
}

impl State {
    pub(crate) fn truth(&self) -> impl Iterator<Item = MessageTruth> {
        self.messages.iter().cloned()
    }
}

/// The paths below `/api/v2`.
pub(crate) fn routes(shared: &Arc<Shared>) -> impl Endpoint<Output = Response> + use<> {
    let send = operation(
        shared,
        Provider::Builderbot,
        "builderbot.message_send",
        send,
    );
    Route::new().at("/:project/messages", post(send))
}

pub(crate) fn authorise(options: &Options, call: &Call) -> Result<(), Answer> {
    let key = call.header("x-api-builderbot");
    match (key, &options.builderbot_api_key) {
        (None | Some(""), _) => Err(refusal(401)),
        (Some(key), Some(good)) if first_secret(good) != key => Err(refusal(401)),
        _ => Ok(()),
    }
}

/// The shape of its errors is not known; integrators read an `error` text.
pub(crate) fn refusal(status: u16) -> Answer {
    let words = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "Internal Server Error",
    };
    Answer::json(status, &json!({"error": words}))
}

/// `POST /api/v2/{projectId}/messages`
fn send(world: &mut World, call: &Call) -> Reply {
    let body: Value = serde_json::from_slice(&call.body).map_err(|_| refusal(400))?;
    let content = body["messages"]["content"].as_str().unwrap_or_default();
    let media = body["messages"]["mediaUrl"].as_str();
    let number = body["number"].as_str().unwrap_or_default();
    let is_number = number.len() >= 8 && number.bytes().all(|b| b.is_ascii_digit());
    if !is_number || (content.is_empty() && media.is_none()) {
        return Err(refusal(400));
    }
    note(world, "outbound", number, content);
    let data = json!({
        "answer": content,
        "from": number,
        "attachment": media.into_iter().collect::<Vec<_>>(),
        "projectId": call.param("project"),
    });
    let kind = WebhookKind::BuilderbotOutgoing;
    post_event(
        world,
        kind,
        "message.outgoing",
        number,
        data,
        OUTGOING_DELAY_MS,
    );
    let heard = phones::Heard {
        channel: phones::Channel::Builderbot,
        number: format!("+{number}"),
        our_address: None,
        sid: None,
    };
    phones::consider_reply(world, &heard);
    Ok(Answer::json(200, &json!({"success": true})))
}

/// A person's message on its way to the service.
pub(crate) fn receive(world: &mut World, letter: &phones::Letter) {
    let number = letter.number.trim_start_matches('+').to_owned();
    let key = format!("builderbot {number}");
    let name = format!("{key}/{}", world.nth(&key));
    let mut draw = world.fate.draw("builderbot", &name);
    let id = draw.hex().to_uppercase();
    let has_key = draw.chance(KEY_SHARE);
    let mut data = json!({
        "body": letter.body,
        "name": letter.profile_name.as_deref().unwrap_or("Cliente"),
        "from": number,
        "attachment": [],
        "projectId": world.options.builderbot_project_id,
    });
    if let Some(media_type) = &letter.media {
        let url = format!("{}/media/{id}", world.base_url);
        data["body"] = format!("_event_media__{}", draw.uuid()).into();
        data["attachment"] = json!([{"url": url, "mimetype": media_type}]);
        data["urlTempFile"] = url.into();
    }
    if has_key {
        let remote = format!("{number}@s.whatsapp.net");
        data["key"] = json!({"id": id, "remoteJid": remote, "fromMe": false});
        data["messageTimestamp"] = world.clock.unix().into();
    }
    note(world, "inbound", &number, &letter.body);
    let kind = WebhookKind::BuilderbotIncoming;
    post_event(world, kind, "message.incoming", &number, data, 0);
}

fn note(world: &mut World, direction: &str, number: &str, body: &str) {
    let own = world.options.builderbot_project_id.clone();
    let (from, to) = match direction {
        "inbound" => (number.to_owned(), own),
        _ => (own, number.to_owned()),
    };
    world.builderbot.messages.push(MessageTruth {
        provider: "builderbot".to_owned(),
        sid: None,
        channel: "whatsapp".to_owned(),
        direction: direction.to_owned(),
        from,
        to,
        body: body.to_owned(),
        content_sid: None,
        status: if direction == "inbound" {
            "received"
        } else {
            "sent"
        }
        .to_owned(),
        error_code: None,
        created_at_unix_ms: world.clock.unix_ms(),
    });
}

fn post_event(
    world: &mut World,
    kind: WebhookKind,
    event: &str,
    number: &str,
    data: Value,
    delay_ms: u64,
) {
    let token = world.options.builderbot_webhook_token.as_deref();
    let query = token.map_or(String::new(), |token| {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", first_secret(token))
            .finish();
        format!("?{query}")
    });
    let body = json!({"eventName": event, "data": data}).to_string();
    let nth = world.nth(&format!("{event} {number}"));
    let letter = Letter {
        kind,
        entity: number.to_owned(),
        label: format!("{event}/{nth}"),
        url: format!("{}{PATH}{query}", world.options.public_base()),
        content: Content::Json(body.into()),
        delay_ms,
    };
    webhooks::post(world, letter);
}
