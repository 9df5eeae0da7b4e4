//! What a client's message says, in words for the agent.

use crate::message::{Kind, Location, Received};

/// The message in words: the client's own, and in brackets what came beside
/// them, in Spanish as the agents speak. `None` where there is nothing to
/// answer: nothing was said, or the telephone only rang.
pub fn said(message: &Received) -> Option<String> {
    let words = message.content.trim();
    // builderbot's stand-ins for files: they say no more than the kind does.
    let words = if words.starts_with("_event_") {
        ""
    } else {
        words
    };
    let beside = match message.kind {
        Kind::Call => return None,
        Kind::Text => None,
        Kind::Button => pressed(message).filter(|text| text != words),
        Kind::Location => Some(location(message.location.as_ref())),
        kind => Some(format!("[El cliente envió {}]", thing(kind))),
    };
    let parts = [
        beside,
        Some(words.to_owned()).filter(|words| !words.is_empty()),
    ];
    let said: Vec<_> = parts.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("\n"))
}

fn pressed(message: &Received) -> Option<String> {
    let button = message.button.as_ref()?;
    button.text.clone().or_else(|| button.payload.clone())
}

fn location(place: Option<&Location>) -> String {
    let Some(place) = place else {
        return "[El cliente envió una ubicación]".to_owned();
    };
    let named = [place.label.as_deref(), place.address.as_deref()];
    let named: Vec<_> = named.into_iter().flatten().collect();
    let point = format!("{}, {}", place.latitude, place.longitude);
    match named.join(", ") {
        none if none.is_empty() => format!("[El cliente envió una ubicación: {point}]"),
        named => format!("[El cliente envió una ubicación: {named} ({point})]"),
    }
}

const fn thing(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "una imagen",
        Kind::Audio => "un audio",
        Kind::Voice => "una nota de voz",
        Kind::Video => "un video",
        Kind::Document => "un documento",
        _ => "un archivo",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Channel;
    use crate::message::Button;

    fn message(kind: Kind, content: &str) -> Received {
        Received {
            message_id: None,
            channel: Channel::Whatsapp,
            contact: "+573001234567".into(),
            contact_name: None,
            our_address: None,
            kind,
            content: content.into(),
            media: vec![],
            location: None,
            button: None,
            reply_to: None,
            forwarded: false,
        }
    }

    #[test]
    fn an_agent_reads_what_was_sent() {
        for (kind, content, expected) in [
            (Kind::Text, " Hola ", Some("Hola")),
            (Kind::Text, "  ", None),
            (Kind::Call, "", None),
            (Kind::Image, "", Some("[El cliente envió una imagen]")),
            (
                Kind::Voice,
                "_event_voice_note__1",
                Some("[El cliente envió una nota de voz]"),
            ),
            (
                Kind::Document,
                "Mi factura",
                Some("[El cliente envió un documento]\nMi factura"),
            ),
        ] {
            assert_eq!(said(&message(kind, content)).as_deref(), expected);
        }
    }

    #[test]
    fn a_button_says_what_stood_on_it_and_a_place_where_it_is() {
        let mut pressed = message(Kind::Button, "Sí, llámame");
        pressed.button = Some(Button {
            text: Some("Sí, llámame".into()),
            payload: Some("YES".into()),
        });
        assert_eq!(said(&pressed).as_deref(), Some("Sí, llámame"));
        let mut place = message(Kind::Location, "");
        place.location = Some(Location {
            latitude: "4.6".into(),
            longitude: "-74.1".into(),
            address: None,
            label: Some("Casa".into()),
        });
        let expected = "[El cliente envió una ubicación: Casa (4.6, -74.1)]";
        assert_eq!(said(&place).as_deref(), Some(expected));
    }
}
