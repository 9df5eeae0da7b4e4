//! Messages in, and how far messages out have come. The same parameters serve
//! SMS and WhatsApp; the prefix of an address tells which it is.

use domain::message::{Button, Event, Kind, Location, Media, Received, Status, StatusChanged};
use domain::{Channel, Event as AnyEvent, Fact, PhoneIndex, Provider, StreamId};

use super::Understood;
use super::params::Params;
use crate::providers::text::{self, missing, required_id, unknown};

/// Most media of one message that are looked for: Twilio allows ten.
const MEDIA_MAX: usize = 32;

/// A message that came in.
pub(super) fn received(params: &Params<'_>, index: &PhoneIndex) -> Understood {
    let id = match message_id(params) {
        Ok(id) => id,
        Err(reason) => return Understood::unidentified(reason),
    };
    Understood::new("message", &[&id], received_fact(&id, params, index))
}

/// How far a message of ours has come. None of the parameters of these
/// callbacks says when.
pub(super) fn status_changed(params: &Params<'_>, index: &PhoneIndex) -> Understood {
    let id = match message_id(params) {
        Ok(id) => id,
        Err(reason) => return Understood::unidentified(reason),
    };
    let Some(status) = params.get("MessageStatus") else {
        return Understood::unidentified(missing("MessageStatus"));
    };
    let error_code = params.get("ErrorCode").unwrap_or_default();
    let fact = status_fact(&id, status, params, index);
    Understood::new("message_status", &[&id, status, error_code], fact)
}

/// The message's id; the other names are its old ones.
fn message_id(params: &Params<'_>) -> Result<String, String> {
    let id = ["MessageSid", "SmsMessageSid", "SmsSid"]
        .iter()
        .find_map(|name| params.get(name));
    required_id(id, "MessageSid")
}

fn received_fact(id: &str, params: &Params<'_>, index: &PhoneIndex) -> Result<Fact, String> {
    if params.get("MessageStatus").is_some() {
        return Err("a status callback came where incoming messages do".to_owned());
    }
    let (channel, contact) = address(params, "From")?;
    let media = media(params);
    let event = Event::Received(Box::new(Received {
        message_id: Some(id.to_owned()),
        channel,
        contact: contact.clone(),
        contact_name: params.text("ProfileName"),
        our_address: address(params, "To").ok().map(|(_, it)| it),
        kind: kind(params, &media),
        content: params.text("Body").unwrap_or_default(),
        media,
        location: location(params),
        button: button(params),
        reply_to: params.get("OriginalRepliedMessageSid").map(text::word),
        forwarded: params.is_true("Forwarded") || params.is_true("FrequentlyForwarded"),
    }));
    Ok(Fact {
        stream: stream(channel, id, &contact, index),
        event: AnyEvent::Message(event),
        occurred_at: None,
    })
}

fn status_fact(
    id: &str,
    status: &str,
    params: &Params<'_>,
    index: &PhoneIndex,
) -> Result<Fact, String> {
    let known = status.to_ascii_lowercase().parse::<Status>();
    let status = known.map_err(|_| unknown("MessageStatus", status))?;
    // A message on its way in is the client's; every other one is ours.
    let (theirs, ours) = match status {
        Status::Receiving | Status::Received => ("From", "To"),
        _ => ("To", "From"),
    };
    let (channel, contact) = address(params, theirs)?;
    let error_message = params
        .get("ErrorMessage")
        .or_else(|| params.get("ChannelStatusMessage"));
    let event = Event::StatusChanged(StatusChanged {
        message_id: id.to_owned(),
        channel,
        contact: contact.clone(),
        our_address: address(params, ours).ok().map(|(_, it)| it),
        status,
        error_code: params.get("ErrorCode").map(text::word),
        error_message: error_message.map(text::remark),
    });
    Ok(Fact {
        stream: stream(channel, id, &contact, index),
        event: AnyEvent::Message(event),
        occurred_at: None,
    })
}

fn stream(channel: Channel, id: &str, contact: &str, index: &PhoneIndex) -> StreamId {
    match channel {
        Channel::Whatsapp => StreamId::chat(Provider::Twilio, contact, index),
        Channel::Sms | Channel::Call => StreamId::sms(id),
    }
}

/// The channel and the address within it: `whatsapp:+5491133334444` or
/// `+5491133334444`.
fn address(params: &Params<'_>, name: &str) -> Result<(Channel, String), String> {
    let written = params.get(name).ok_or_else(|| missing(name))?;
    let (channel, address) = match written.split_once(':') {
        None => (Channel::Sms, written),
        Some((prefix, address)) if prefix.eq_ignore_ascii_case("whatsapp") => {
            (Channel::Whatsapp, address)
        }
        Some((prefix, _)) => return Err(unknown("channel", prefix)),
    };
    match text::address(address) {
        empty if empty.is_empty() => Err(missing(name)),
        address => Ok((channel, address)),
    }
}

fn media(params: &Params<'_>) -> Vec<Media> {
    (0..MEDIA_MAX)
        .filter_map(|n| {
            let url = params.get(&format!("MediaUrl{n}"))?;
            let content_type = params.get(&format!("MediaContentType{n}"));
            Some(Media {
                url: text::clean(url),
                content_type: content_type.map(text::word),
            })
        })
        .collect()
}

/// What a message carries: what its parameters show, before what its
/// `MessageType` says, which SMS do not have.
fn kind(params: &Params<'_>, media: &[Media]) -> Kind {
    let named = params.get("MessageType").unwrap_or_default();
    if location(params).is_some() {
        return Kind::Location;
    }
    if button(params).is_some() {
        return Kind::Button;
    }
    if let Some(first) = media.first() {
        return media_kind(named, first.content_type.as_deref().unwrap_or_default());
    }
    match named.to_ascii_lowercase().as_str() {
        "" | "text" => Kind::Text,
        "button" | "interactive" => Kind::Button,
        "location" => Kind::Location,
        "image" | "audio" | "voice" | "video" | "document" | "sticker" => media_kind(named, ""),
        _ => Kind::Other,
    }
}

/// The sort of a file, by the message's type or else by the file's own.
fn media_kind(named: &str, content_type: &str) -> Kind {
    let family = content_type.split('/').next().unwrap_or_default();
    // WhatsApp's voice notes are Opus in Ogg, and nothing else there is.
    let audio = if content_type.starts_with("audio/ogg") {
        Kind::Voice
    } else {
        Kind::Audio
    };
    match named.to_ascii_lowercase().as_str() {
        "image" | "sticker" => Kind::Image,
        "voice" => Kind::Voice,
        "audio" => audio,
        "video" => Kind::Video,
        "document" => Kind::Document,
        _ => match family {
            "image" => Kind::Image,
            "audio" => audio,
            "video" => Kind::Video,
            "application" | "text" => Kind::Document,
            _ => Kind::Media,
        },
    }
}

fn location(params: &Params<'_>) -> Option<Location> {
    Some(Location {
        latitude: params.get("Latitude").map(text::word)?,
        longitude: params.get("Longitude").map(text::word)?,
        address: params.text("Address"),
        label: params.text("Label"),
    })
}

/// A pressed button, a chosen line of a list, or a filled-in form.
fn button(params: &Params<'_>) -> Option<Button> {
    let first = |names: &[&str]| names.iter().find_map(|name| params.text(name));
    let button = Button {
        text: first(&["ButtonText", "ListTitle"]),
        payload: first(&["ButtonPayload", "ListId", "InteractiveData", "FlowData"]),
    };
    (button.text.is_some() || button.payload.is_some()).then_some(button)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
