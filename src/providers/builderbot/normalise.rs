//! What builderbot posts, `{"eventName": …, "data": {…}}`, as facts of a
//! conversation or of a line. Every field may be missing or of another kind.

use chrono::{DateTime, Utc};
use domain::fact::Identity;
use domain::line;
use domain::message::{Event, Kind, Location, Media, Received, Sent};
use domain::{Channel, Event as AnyEvent, Fact, PhoneIndex, Provider, StreamId};
use serde_json::{Map, Value};

use crate::providers::lenient::{self, Scalar};
use crate::providers::text::{self, missing, required_id, unknown};
use crate::providers::{Normalised, Webhook, key_of_bytes, key_of_parts};

/// Most characters of a message's id: WhatsApp's own have 20 to 100.
const MESSAGE_ID_CHARS_MAX: usize = 128;

/// Translates one delivery.
pub(crate) fn normalise(body: &[u8], index: &PhoneIndex) -> Normalised {
    let by_bytes = || Identity::Windowed(key_of_bytes(Webhook::BuilderbotWhatsapp, body));
    let envelope = match lenient::object::<Map<String, Value>>(body) {
        Ok(envelope) => Value::Object(envelope),
        Err(reason) => return Normalised::new(by_bytes(), Err(reason)),
    };
    let Some(name) = words(&envelope["eventName"]) else {
        return Normalised::new(by_bytes(), Err(missing("eventName")));
    };
    let data = &envelope["data"];
    let identity = match message_id(data) {
        Some(id) => {
            let project = words(&data["projectId"]).unwrap_or_default();
            let parts = [project.as_str(), &name, &id];
            Identity::Lasting(key_of_parts(Provider::Builderbot, "event", &parts))
        }
        None => by_bytes(),
    };
    Normalised::new(identity, fact(&name, data, index).map(|fact| vec![fact]))
}

fn fact(name: &str, data: &Value, index: &PhoneIndex) -> Result<Fact, String> {
    if !data.is_object() {
        return Err(missing("data"));
    }
    // What the owner of the line types on the telephone comes in as well.
    let ours = Scalar::from(&data["key"]["fromMe"]).is_true();
    let (stream, event) = match name {
        "message.incoming" if ours => message(sent(data)?, index),
        "message.incoming" => message(received(data)?, index),
        "message.outgoing" => message(sent(data)?, index),
        "message.calling" => message(called(data)?, index),
        "status.ready" | "status.online" | "status.require_action" | "status.disconnect" => {
            line_status(name, data)?
        }
        other => return Err(unknown("eventName", other)),
    };
    Ok(Fact {
        stream,
        event,
        occurred_at: occurred_at(data),
    })
}

fn message((contact, event): (String, Event), index: &PhoneIndex) -> (StreamId, AnyEvent) {
    let stream = StreamId::chat(Provider::Builderbot, &contact, index);
    (stream, AnyEvent::Message(event))
}

fn received(data: &Value) -> Result<(String, Event), String> {
    let contact = contact(&[&data["from"], &data["key"]["remoteJid"]])?;
    let said = Said::of(&[&data["body"]], data);
    let received = Received {
        message_id: message_id(data),
        channel: Channel::Whatsapp,
        contact: contact.clone(),
        contact_name: words(&data["name"]).or_else(|| words(&data["pushName"])),
        our_address: project(data),
        kind: said.kind,
        content: said.content,
        media: said.media,
        location: location(&data["message"]["locationMessage"]),
        button: None,
        reply_to: None,
        forwarded: false,
    };
    Ok((contact, Event::Received(Box::new(received))))
}

/// A call over WhatsApp.
fn called(data: &Value) -> Result<(String, Event), String> {
    let (contact, event) = received(data)?;
    let Event::Received(mut received) = event else {
        return Ok((contact, event));
    };
    received.kind = Kind::Call;
    received.content = String::new();
    Ok((contact, Event::Received(received)))
}

/// A message of ours. Where it says to whom, `from` is ourselves; where it does
/// not, `from` is the client, as in the provider's sample.
fn sent(data: &Value) -> Result<(String, Event), String> {
    let contact = contact(&[
        &data["to"],
        &data["remoteJid"],
        &data["key"]["remoteJid"],
        &data["from"],
    ])?;
    let said = Said::of(&[&data["answer"], &data["body"]], data);
    let sent = Sent {
        message_id: message_id(data),
        channel: Channel::Whatsapp,
        contact: contact.clone(),
        our_address: project(data),
        kind: said.kind,
        content: said.content,
        media: said.media,
    };
    Ok((contact, Event::Sent(Box::new(sent))))
}

fn line_status(name: &str, data: &Value) -> Result<(StreamId, AnyEvent), String> {
    let line_id = required_id(words(&data["projectId"]).as_deref(), "projectId")?;
    let status = name.strip_prefix("status.").unwrap_or(name);
    let changed = line::StatusChanged {
        line_id: line_id.clone(),
        status: status.to_owned(),
        reason: words(&data["reason"]).map(|it| text::remark(&it)),
    };
    let event = AnyEvent::Line(line::Event::StatusChanged(changed));
    Ok((StreamId::line(line_id), event))
}

/// The first of several that names somebody. What is a person's JID becomes
/// the number; groups, newsletters and `status@broadcast` stay as they are.
fn contact(candidates: &[&Value]) -> Result<String, String> {
    let written = candidates.iter().find_map(|it| words(it));
    let written = written.ok_or_else(|| missing("from"))?;
    let jid = ["@s.whatsapp.net", "@c.us"]
        .iter()
        .find_map(|server| written.strip_suffix(server));
    // `5491112345678:12` is the twelfth device of one person.
    let user = jid.map(|it| it.split(':').next().unwrap_or(it));
    match text::address(user.unwrap_or(&written)) {
        empty if empty.is_empty() => Err(missing("from")),
        contact => Ok(contact),
    }
}

/// Our address: the project's id, which is all that is always told.
fn project(data: &Value) -> Option<String> {
    words(&data["projectId"]).map(|it| text::word(&it))
}

/// WhatsApp's id of the message. What cannot be one is as good as none.
fn message_id(data: &Value) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@-=+/".contains(&byte);
    words(&data["key"]["id"]).filter(|id| id.len() <= MESSAGE_ID_CHARS_MAX && id.bytes().all(plain))
}

/// `messageTimestamp`: a number, a text, or the pair of halves that protobuf's
/// JavaScript makes of a long number.
fn occurred_at(data: &Value) -> Option<DateTime<Utc>> {
    let written = &data["messageTimestamp"];
    let written = written.get("low").unwrap_or(written);
    Scalar::from(written).instant()
}

fn words(value: &Value) -> Option<String> {
    Scalar::from(value).into_text()
}

/// What a message carries.
struct Said {
    kind: Kind,
    content: String,
    media: Vec<Media>,
}

impl Said {
    /// Reads the first of the bodies that there is. Media come as a body that
    /// names an event, `_event_media__<uuid>`, which nobody has said.
    fn of(bodies: &[&Value], data: &Value) -> Self {
        let media = media(data);
        let body = bodies.iter().find_map(|it| words(it)).unwrap_or_default();
        let Some(event) = body.strip_prefix("_event_") else {
            let kind = if media.is_empty() {
                Kind::Text
            } else {
                media_kind(&media)
            };
            let content = body;
            return Self {
                kind,
                content,
                media,
            };
        };
        let kind = match event.split("__").next().unwrap_or_default() {
            "media" => media_kind(&media),
            "voice_note" => Kind::Voice,
            "document" => Kind::Document,
            "location" => Kind::Location,
            _ => Kind::Other,
        };
        Self {
            kind,
            content: String::new(),
            media,
        }
    }
}

fn media_kind(media: &[Media]) -> Kind {
    let first = media.first().and_then(|it| it.content_type.as_deref());
    match first.and_then(|it| it.split('/').next()) {
        Some("image") => Kind::Image,
        Some("audio") => Kind::Audio,
        Some("video") => Kind::Video,
        Some("application" | "text") => Kind::Document,
        _ => Kind::Media,
    }
}

/// Every file, once, wherever it is named: `attachment` of addresses, of
/// `{url, mimetype}` or of `{payload: {url}}`; `urlTempFile`; `urlsTempsFiles`.
fn media(data: &Value) -> Vec<Media> {
    let mut found: Vec<Media> = Vec::new();
    let places = ["attachment", "urlTempFile", "urlsTempsFiles"];
    for item in places.iter().flat_map(|place| items(&data[place])) {
        let url = [item, &item["url"], &item["payload"]["url"]];
        let Some(url) = url.into_iter().find_map(words) else {
            continue;
        };
        if found.iter().any(|it| it.url == url) {
            continue;
        }
        let content_type = [&item["mimetype"], &item["payload"]["mimetype"]];
        let content_type = content_type.into_iter().find_map(words);
        found.push(Media {
            url,
            content_type: content_type.map(|it| text::word(&it)),
        });
    }
    found
}

/// A list's items, or the one value that stands in its place.
fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        other => std::slice::from_ref(other),
    }
}

/// The place on the map, where WhatsApp's own message leaks through.
fn location(message: &Value) -> Option<Location> {
    Some(Location {
        latitude: words(&message["degreesLatitude"])?,
        longitude: words(&message["degreesLongitude"])?,
        address: words(&message["address"]),
        label: words(&message["name"]),
    })
}

#[cfg(test)]
#[path = "normalise_tests.rs"]
mod tests;
