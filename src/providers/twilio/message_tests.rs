use super::*;
use crate::providers::Webhook::{self, TwilioIncoming, TwilioSmsStatus};
use crate::providers::fixtures::{body, fact_of, index, reason_of};
use domain::fact::{DedupKey, Identity};

const CLIENT: &str = "+5491133334444";
const OURS: &str = "+14155238886";

fn received(path: &str) -> Received {
    match fact_of(TwilioIncoming, body(path)).1.event {
        AnyEvent::Message(Event::Received(received)) => *received,
        other => panic!("{other:?}"),
    }
}

/// What every WhatsApp message of the fixtures has in common.
fn whatsapp(message_id: &str, kind: Kind, content: &str) -> Received {
    Received {
        message_id: Some(message_id.to_owned()),
        channel: Channel::Whatsapp,
        contact: CLIENT.to_owned(),
        contact_name: Some("Ana".to_owned()),
        our_address: Some(OURS.to_owned()),
        kind,
        content: content.to_owned(),
        media: Vec::new(),
        location: None,
        button: None,
        reply_to: None,
        forwarded: false,
    }
}

fn button(text: Option<&str>, payload: Option<&str>) -> Option<Button> {
    Some(Button {
        text: text.map(str::to_owned),
        payload: payload.map(str::to_owned),
    })
}

#[test]
fn a_whatsapp_text_belongs_to_the_conversation_with_its_sender() {
    let id = "SM00000000000000000000000000000011";
    let (identity, fact) = fact_of(TwilioIncoming, body("twilio/whatsapp.inbound.text.form"));
    let text = "Sí me interesa, ¿cuál es el precio?";
    let expected = Fact {
        stream: StreamId::chat(Provider::Twilio, CLIENT, &index()),
        event: AnyEvent::Message(Event::Received(Box::new(whatsapp(id, Kind::Text, text)))),
        occurred_at: None,
    };
    assert_eq!(fact, expected);
    let key = DedupKey::of([b"twilio", b"message".as_slice(), id.as_bytes()]);
    assert_eq!(identity, Identity::Lasting(key));
    let json = fact_of(TwilioIncoming, body("twilio/whatsapp.inbound.text.json"));
    assert_eq!(json, (identity, fact), "JSON says the same");
}

#[test]
fn an_sms_is_a_stream_of_its_own() {
    let id = "SM00000000000000000000000000000011";
    let (_, fact) = fact_of(TwilioIncoming, body("twilio/sms.inbound.form"));
    let expected = Received {
        channel: Channel::Sms,
        contact_name: None,
        our_address: Some("+14155550100".to_owned()),
        ..whatsapp(id, Kind::Text, "STOP")
    };
    assert_eq!(fact.stream, StreamId::sms(id));
    assert_eq!(
        fact.event,
        AnyEvent::Message(Event::Received(Box::new(expected)))
    );
}

#[test]
fn media_are_kept_by_their_address() {
    let media = |url: &str, content_type: &str| Media {
        url: url.to_owned(),
        content_type: Some(content_type.to_owned()),
    };
    let base =
        "https://api.twilio.com/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages";
    let id = "SM00000000000000000000000000000011";
    let picture = format!("{base}/{id}/Media/ME00000000000000000000000000000001");
    assert_eq!(
        received("twilio/whatsapp.inbound.media.form"),
        Received {
            media: vec![media(&picture, "image/jpeg")],
            ..whatsapp(id, Kind::Image, "")
        }
    );
    let id = "SM00000000000000000000000000000021";
    let voice = format!("{base}/{id}/Media/ME00000000000000000000000000000021");
    assert_eq!(
        received("twilio/whatsapp.inbound.voice.form"),
        Received {
            media: vec![media(&voice, "audio/ogg")],
            ..whatsapp(id, Kind::Voice, "")
        }
    );
    let mms = received("twilio/sms.inbound.mms.form");
    assert_eq!((mms.kind, mms.content.as_str()), (Kind::Image, "Dos fotos"));
    assert_eq!(
        mms.media,
        [
            media("https://api.twilio.com/media/1", "image/png"),
            media("https://api.twilio.com/media/2", "application/pdf"),
        ]
    );
}

#[test]
fn the_sort_of_a_file_is_the_messages_or_its_own() {
    for (named, content_type, kind) in [
        ("", "image/jpeg", Kind::Image),
        ("sticker", "image/webp", Kind::Image),
        ("audio", "audio/mpeg", Kind::Audio),
        ("", "audio/ogg; codecs=opus", Kind::Voice),
        ("", "video/mp4", Kind::Video),
        ("document", "image/png", Kind::Document),
        ("", "application/pdf", Kind::Document),
        ("", "text/vcard", Kind::Document),
        ("", "", Kind::Media),
    ] {
        assert_eq!(
            media_kind(named, content_type),
            kind,
            "{named} {content_type}"
        );
    }
}

#[test]
fn places_buttons_forms_and_replies_are_understood() {
    let id = "SM00000000000000000000000000000011";
    assert_eq!(
        received("twilio/whatsapp.inbound.location.form"),
        Received {
            location: Some(Location {
                latitude: "-34.6037".to_owned(),
                longitude: "-58.3816".to_owned(),
                address: Some("Av. Corrientes 1".to_owned()),
                label: Some("Obelisco".to_owned()),
            }),
            ..whatsapp(id, Kind::Location, "")
        }
    );
    assert_eq!(
        received("twilio/whatsapp.inbound.button_reply.form"),
        Received {
            button: button(Some("Confirmar"), Some("confirm_42")),
            reply_to: Some("MM00000000000000000000000000000009".to_owned()),
            ..whatsapp(id, Kind::Button, "Confirmar")
        }
    );
    assert_eq!(
        received("twilio/whatsapp.inbound.button.form"),
        Received {
            button: button(Some("Sí"), Some("yes")),
            ..whatsapp("SM00000000000000000000000000000023", Kind::Button, "Sí")
        }
    );
    assert_eq!(
        received("twilio/whatsapp.inbound.flow.form"),
        Received {
            button: button(None, Some(r#"{"screen":"cita"}"#)),
            ..whatsapp("SM00000000000000000000000000000024", Kind::Button, "")
        }
    );
    assert_eq!(
        received("twilio/whatsapp.inbound.reply_forwarded.form"),
        Received {
            reply_to: Some("SM00000000000000000000000000000009".to_owned()),
            forwarded: true,
            ..whatsapp("SM00000000000000000000000000000022", Kind::Text, "¿Y esto?")
        }
    );
}

#[test]
fn a_plus_that_was_not_escaped_is_still_the_same_conversation() {
    let form = b"MessageSid=SM1&From=whatsapp:+5491133334444&To=whatsapp:+14155238886&Body=Hola";
    let (_, fact) = fact_of(TwilioIncoming, form);
    let expected = StreamId::chat(Provider::Twilio, CLIENT, &index());
    assert_eq!(fact.stream, expected);
}

#[test]
fn a_person_without_a_number_is_kept_by_the_id_there_is() {
    let form = b"MessageSid=SM1&From=whatsapp:ID.99&MessageType=contacts";
    let (_, fact) = fact_of(TwilioIncoming, form);
    let AnyEvent::Message(Event::Received(received)) = fact.event else {
        panic!("{fact:?}")
    };
    assert_eq!(
        (received.contact.as_str(), received.kind),
        ("ID.99", Kind::Other)
    );
}

/// What the fixtures' callbacks have in common.
fn whatsapp_status(status: Status) -> StatusChanged {
    StatusChanged {
        message_id: "SM00000000000000000000000000000011".to_owned(),
        channel: Channel::Whatsapp,
        contact: CLIENT.to_owned(),
        our_address: Some(OURS.to_owned()),
        status,
        error_code: None,
        error_message: None,
    }
}

fn assert_status(path: &str, stream: &StreamId, expected: &StatusChanged) {
    let (identity, fact) = fact_of(TwilioSmsStatus, body(path));
    let expected_fact = Fact {
        stream: stream.clone(),
        event: AnyEvent::Message(Event::StatusChanged(expected.clone())),
        occurred_at: None,
    };
    assert_eq!(fact, expected_fact, "{path}");
    let code = expected.error_code.clone().unwrap_or_default();
    let parts = [
        "twilio",
        "message_status",
        &expected.message_id,
        expected.status.as_str(),
        &code,
    ];
    let key = DedupKey::of(parts.iter().map(|part| part.as_bytes()));
    assert_eq!(identity, Identity::Lasting(key), "{path}");
}

#[test]
fn a_whatsapp_status_belongs_to_the_conversation_with_its_recipient() {
    let chat = StreamId::chat(Provider::Twilio, CLIENT, &index());
    for (path, expected) in [
        ("twilio/whatsapp.status.sent.form", whatsapp_status(Status::Sent)),
        ("twilio/whatsapp.status.delivered.form", whatsapp_status(Status::Delivered)),
        ("twilio/whatsapp.status.read.form", whatsapp_status(Status::Read)),
        ("twilio/whatsapp.status.undelivered_63016.form", StatusChanged {
            error_code: Some("63016".to_owned()),
            error_message: Some("Message failed to send because more than 24 hours have passed since the customer last replied to this number.".to_owned()),
            ..whatsapp_status(Status::Undelivered)
        }),
    ] {
        assert_status(path, &chat, &expected);
    }
}

#[test]
fn an_sms_status_belongs_to_its_message() {
    let sms = |status| StatusChanged {
        channel: Channel::Sms,
        our_address: Some("+14155550100".to_owned()),
        ..whatsapp_status(status)
    };
    let stream = StreamId::sms("SM00000000000000000000000000000011");
    for (path, expected) in [
        ("twilio/sms.status.sent.form", sms(Status::Sent)),
        ("twilio/sms.status.delivered.form", sms(Status::Delivered)),
        (
            "twilio/sms.status.undelivered.form",
            StatusChanged {
                error_code: Some("30005".to_owned()),
                ..sms(Status::Undelivered)
            },
        ),
    ] {
        assert_status(path, &stream, &expected);
    }
}

#[test]
fn every_status_that_twilio_has_is_known() {
    for status in Status::ALL {
        let form = format!(
            "MessageSid=SM1&MessageStatus={status}&From=%2B14155550100&To=%2B5491133334444"
        );
        let (_, fact) = fact_of(TwilioSmsStatus, form.as_bytes());
        let AnyEvent::Message(Event::StatusChanged(changed)) = fact.event else {
            panic!("{fact:?}")
        };
        let coming_in = matches!(status, Status::Receiving | Status::Received);
        let contact = if coming_in { "+14155550100" } else { CLIENT };
        assert_eq!(
            (changed.status, changed.contact.as_str()),
            (*status, contact)
        );
    }
}

#[test]
fn what_cannot_be_placed_is_kept_for_a_person() {
    let long = format!(
        "MessageSid={}&MessageStatus=sent&To=%2B5491133334444",
        "x".repeat(129)
    );
    for (webhook, form, reason) in [
        (TwilioSmsStatus, "", "MessageSid is missing"),
        (TwilioSmsStatus, "MessageSid=", "MessageSid is missing"),
        (
            TwilioSmsStatus,
            "MessageSid=a%20b&MessageStatus=sent",
            "MessageSid is not an id",
        ),
        (
            TwilioSmsStatus,
            "MessageSid=a%00b&MessageStatus=sent",
            "MessageSid is not an id",
        ),
        (TwilioSmsStatus, &long, "MessageSid is not an id"),
        (
            TwilioSmsStatus,
            "MessageSid=SM1&SmsStatus=received&Body=Hola&From=%2B5491133334444",
            "MessageStatus is missing",
        ),
        (
            TwilioSmsStatus,
            "MessageSid=SM1&MessageStatus=teleported&To=%2B5491133334444",
            "unknown MessageStatus \"teleported\"",
        ),
        (
            TwilioSmsStatus,
            "MessageSid=SM1&MessageStatus=sent",
            "To is missing",
        ),
        (
            TwilioSmsStatus,
            "MessageSid=SM1&MessageStatus=sent&To=whatsapp:",
            "To is missing",
        ),
        (
            TwilioSmsStatus,
            "MessageSid=SM1&MessageStatus=sent&To=messenger:77",
            "unknown channel \"messenger\"",
        ),
        (TwilioIncoming, "Body=Hola", "MessageSid is missing"),
        (
            TwilioIncoming,
            "MessageSid=SM1&Body=Hola",
            "From is missing",
        ),
        (
            TwilioIncoming,
            "MessageSid=SM1&MessageStatus=sent&From=%2B14155550100",
            "a status callback came where incoming messages do",
        ),
        (
            TwilioIncoming,
            "{\"MessageSid\":\"SM1\"",
            "the body is not readable as JSON at line 1 column 19",
        ),
    ] {
        assert_eq!(reason_of(webhook, form.as_bytes()), reason, "{form}");
    }
}

#[test]
fn an_unknown_status_still_has_the_identity_of_its_kind() {
    let identity = |form: &str| {
        crate::providers::normalise(Webhook::TwilioSmsStatus, form.as_bytes(), None, &index())
            .identity
    };
    let once = "MessageSid=SM1&MessageStatus=teleported&To=%2B5491133334444";
    let again = "To=%2B5491133334444&MessageStatus=teleported&MessageSid=SM1&ErrorCode=";
    assert_eq!(identity(once), identity(again));
    assert_ne!(identity(once), identity(&format!("{once}&ErrorCode=1")));
}

#[test]
fn nul_never_reaches_a_fact() {
    let form = b"MessageSid=SM1&From=whatsapp:%2B5491133334444%00&To=x%00&Body=a%00b&ProfileName=%00&MediaUrl0=%00u";
    let (_, fact) = fact_of(TwilioIncoming, form);
    let stored = serde_json::to_string(&fact.event).unwrap();
    assert!(
        !stored.contains("\\u0000") && stored.contains("a\u{fffd}b"),
        "{stored}"
    );
}
