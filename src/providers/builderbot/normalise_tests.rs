use super::*;
use crate::providers::Webhook::BuilderbotWhatsapp;
use crate::providers::fixtures::{body, fact_of, index, reason_of};
use domain::fact::DedupKey;
use serde_json::json;

const CONTACT: &str = "+5491112345678";
const PROJECT: &str = "00000000-0000-4000-8000-000000000001";

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn incoming(kind: Kind, content: &str) -> Received {
    Received {
        message_id: None,
        channel: Channel::Whatsapp,
        contact: CONTACT.to_owned(),
        contact_name: some("Juan Pérez"),
        our_address: some(PROJECT),
        kind,
        content: content.to_owned(),
        media: Vec::new(),
        location: None,
        button: None,
        reply_to: None,
        forwarded: false,
    }
}

fn outgoing(kind: Kind, content: &str) -> Sent {
    Sent {
        message_id: None,
        channel: Channel::Whatsapp,
        contact: CONTACT.to_owned(),
        our_address: some(PROJECT),
        kind,
        content: content.to_owned(),
        media: Vec::new(),
    }
}

fn file(url: &str, content_type: Option<&str>) -> Vec<Media> {
    vec![Media {
        url: url.to_owned(),
        content_type: content_type.map(str::to_owned),
    }]
}

fn assert_said(name: &str, contact: &str, event: Event, seconds: Option<i64>) -> Identity {
    let path = format!("builderbot/{name}.json");
    let (identity, fact) = fact_of(BuilderbotWhatsapp, body(&path));
    let expected = Fact {
        stream: StreamId::chat(Provider::Builderbot, contact, &index()),
        event: AnyEvent::Message(event),
        occurred_at: seconds.and_then(|it| DateTime::from_timestamp(it, 0)),
    };
    assert_eq!(fact, expected, "{path}");
    identity
}

fn assert_received(name: &str, expected: Received, seconds: Option<i64>) -> Identity {
    let contact = expected.contact.clone();
    assert_said(name, &contact, Event::Received(Box::new(expected)), seconds)
}

#[test]
fn a_text_without_an_id_is_the_same_for_ten_minutes() {
    let text = incoming(Kind::Text, "Hola, necesito ayuda");
    let identity = assert_received("message.incoming", text, None);
    let body = body("builderbot/message.incoming.json");
    let key = DedupKey::of([
        b"builderbot".as_slice(),
        b"bytes",
        b"builderbot/whatsapp",
        body,
    ]);
    assert_eq!(identity, Identity::Windowed(key));
}

#[test]
fn a_text_with_an_id_is_the_same_for_ever() {
    let text = Received {
        message_id: some("3EB0C767D26A1B2C3D4E"),
        ..incoming(Kind::Text, "Hola")
    };
    let identity = assert_received("message.incoming.baileys", text, Some(1_761_694_074));
    let parts = [
        "builderbot",
        "event",
        PROJECT,
        "message.incoming",
        "3EB0C767D26A1B2C3D4E",
    ];
    let key = DedupKey::of(parts.iter().map(|part| part.as_bytes()));
    assert_eq!(identity, Identity::Lasting(key));
}

#[test]
fn media_come_as_the_name_of_an_event_and_are_kept_by_their_address_once() {
    let picture = Received {
        media: file("https://example.invalid/tmp/a.jpg", Some("image/jpeg")),
        ..incoming(Kind::Image, "")
    };
    assert_received("message.incoming.media", picture, None);
    let voice = Received {
        media: file("https://example.invalid/tmp/v.ogg", None),
        ..incoming(Kind::Voice, "")
    };
    assert_received("message.incoming.voice_note", voice, None);
    let document = Received {
        media: file("https://example.invalid/tmp/c.pdf", None),
        ..incoming(Kind::Document, "")
    };
    assert_received("message.incoming.document", document, None);
    let place = Received {
        location: Some(Location {
            latitude: "-34.6037".to_owned(),
            longitude: "-58.3816".to_owned(),
            address: None,
            label: some("Obelisco"),
        }),
        ..incoming(Kind::Location, "")
    };
    assert_received("message.incoming.location", place, None);
}

#[test]
fn a_group_is_kept_by_its_own_name() {
    let group = Received {
        contact: "120363041234567890@g.us".to_owned(),
        ..incoming(Kind::Text, "Hola a todos")
    };
    assert_received("message.incoming.group", group, None);
}

#[test]
fn a_message_of_ours_belongs_to_the_client() {
    let answer = outgoing(Kind::Text, "¡Hola! ¿En qué te ayudo?");
    let answer = Event::Sent(Box::new(answer));
    assert_said("message.outgoing", CONTACT, answer, None);
    let to = Sent {
        media: file("https://example.invalid/tmp/a.jpg", None),
        ..outgoing(Kind::Media, "Tu pedido está listo")
    };
    let to = Event::Sent(Box::new(to));
    assert_said("message.outgoing.to", CONTACT, to, Some(1_761_694_080));
}

#[test]
fn a_call_over_whatsapp_is_a_message_without_words() {
    assert_received("message.calling", incoming(Kind::Call, ""), None);
}

#[test]
fn the_state_of_a_line_is_told_without_its_qr_code() {
    for (name, status, reason) in [
        ("status.ready", "ready", None),
        ("status.require_action", "require_action", None),
        (
            "status.disconnect",
            "disconnect",
            // A reason is not declared personal, so it may hold no number.
            some("logged out from 54*******5678"),
        ),
    ] {
        let (identity, fact) =
            fact_of(BuilderbotWhatsapp, body(&format!("builderbot/{name}.json")));
        let changed = line::StatusChanged {
            line_id: PROJECT.to_owned(),
            status: status.to_owned(),
            reason,
        };
        let expected = Fact {
            stream: StreamId::line(PROJECT),
            event: AnyEvent::Line(line::Event::StatusChanged(changed)),
            occurred_at: None,
        };
        assert_eq!(fact, expected, "{name}");
        assert!(matches!(identity, Identity::Windowed(_)));
    }
}

fn event(name: &str, data: Value) -> Vec<u8> {
    json!({"eventName": name, "data": data})
        .to_string()
        .into_bytes()
}

#[test]
fn whoever_writes_is_the_same_however_it_is_written() {
    for data in [
        json!({"from": "5491112345678"}),
        json!({"from": 5_491_112_345_678_i64}),
        json!({"from": "+5491112345678"}),
        json!({"from": "5491112345678@s.whatsapp.net"}),
        json!({"from": "5491112345678:12@s.whatsapp.net"}),
        json!({"from": "5491112345678@c.us"}),
        json!({"from": null, "key": {"remoteJid": "5491112345678@s.whatsapp.net"}}),
    ] {
        let (_, fact) = fact_of(BuilderbotWhatsapp, &event("message.incoming", data.clone()));
        let expected = StreamId::chat(Provider::Builderbot, CONTACT, &index());
        assert_eq!(fact.stream, expected, "{data}");
    }
    for contact in ["status@broadcast", "1203@newsletter", "99887766554433@lid"] {
        let (_, fact) = fact_of(
            BuilderbotWhatsapp,
            &event("message.incoming", json!({"from": contact})),
        );
        let expected = StreamId::chat(Provider::Builderbot, contact, &index());
        assert_eq!(fact.stream, expected);
    }
}

#[test]
fn what_the_owner_of_the_line_typed_is_no_message_to_us() {
    let data = json!({"from": "5491100000000", "body": "Ya salgo",
        "key": {"id": "A1", "fromMe": true, "remoteJid": "5491112345678@s.whatsapp.net"}});
    let (_, fact) = fact_of(BuilderbotWhatsapp, &event("message.incoming", data));
    let expected = Sent {
        message_id: some("A1"),
        our_address: None,
        ..outgoing(Kind::Text, "Ya salgo")
    };
    assert_eq!(
        fact.event,
        AnyEvent::Message(Event::Sent(Box::new(expected)))
    );
}

#[test]
fn an_id_that_cannot_be_one_is_as_good_as_none() {
    for (id, lasting) in [
        (json!("wamid.HBgNNTQ5MTE=="), true),
        (json!("x".repeat(128)), true),
        (json!("x".repeat(129)), false),
        (json!("a b"), false),
        (json!(""), false),
        (json!({"x": 1}), false),
    ] {
        let data = json!({"from": "5491112345678", "key": {"id": id}});
        let (identity, fact) = fact_of(BuilderbotWhatsapp, &event("message.incoming", data));
        assert_eq!(matches!(identity, Identity::Lasting(_)), lasting, "{id}");
        let AnyEvent::Message(Event::Received(received)) = fact.event else {
            panic!("{fact:?}")
        };
        assert_eq!(received.message_id.is_some(), lasting);
    }
}

#[test]
fn every_sort_of_body_and_file_is_told_apart() {
    let file = |mimetype: &str| json!([{"url": "https://x.invalid/1", "mimetype": mimetype}]);
    for (body, attachment, kind, content) in [
        ("_event_media__1", json!(null), Kind::Media, ""),
        ("_event_media__1", file("video/mp4"), Kind::Video, ""),
        ("_event_media__1", file("audio/mpeg"), Kind::Audio, ""),
        ("_event_voice_note__1", file("audio/ogg"), Kind::Voice, ""),
        ("_event_contacts__1", json!([]), Kind::Other, ""),
        ("mirá", file("application/pdf"), Kind::Document, "mirá"),
        ("mirá", json!("https://x.invalid/1"), Kind::Media, "mirá"),
        ("", json!([]), Kind::Text, ""),
    ] {
        let data = json!({"from": "5491112345678", "body": body, "attachment": attachment});
        let (_, fact) = fact_of(BuilderbotWhatsapp, &event("message.incoming", data));
        let AnyEvent::Message(Event::Received(it)) = fact.event else {
            panic!("{fact:?}")
        };
        assert_eq!((it.kind, it.content.as_str()), (kind, content), "{body}");
    }
}

#[test]
fn what_cannot_be_placed_is_kept_for_a_person() {
    for (body, reason) in [
        ("", "the body is not readable as JSON at line 1 column 0"),
        ("[]", "the body is not a JSON object"),
        ("{}", "eventName is missing"),
        (r#"{"eventName":"message.incoming"}"#, "data is missing"),
        (
            r#"{"eventName":"message.incoming","data":{}}"#,
            "from is missing",
        ),
        (
            r#"{"eventName":"message.incoming","data":{"from":"@c.us"}}"#,
            "from is missing",
        ),
        (
            r#"{"eventName":"message.outgoing","data":{"answer":"x"}}"#,
            "from is missing",
        ),
        (
            r#"{"eventName":"status.ready","data":{}}"#,
            "projectId is missing",
        ),
        (
            r#"{"eventName":"status.ready","data":{"projectId":"ñ"}}"#,
            "projectId is not an id",
        ),
        (
            r#"{"eventName":"status.sleepy","data":{"projectId":"p"}}"#,
            "unknown eventName \"status.sleepy\"",
        ),
        (
            r#"{"eventName":"message.edited","data":{"from":"1"}}"#,
            "unknown eventName \"message.edited\"",
        ),
    ] {
        assert_eq!(reason_of(BuilderbotWhatsapp, body.as_bytes()), reason);
        let identity = normalise(body.as_bytes(), &index()).identity;
        assert!(matches!(identity, Identity::Windowed(_)), "{body}");
    }
}

#[test]
fn a_nest_without_end_does_not_overflow() {
    let nest = "[".repeat(200_000);
    let body = format!(r#"{{"eventName":"message.incoming","data":{nest}"#);
    let reason = reason_of(BuilderbotWhatsapp, body.as_bytes());
    assert!(
        reason.starts_with("the body is not readable as JSON"),
        "{reason}"
    );
}

#[test]
fn nul_and_half_characters_never_reach_a_fact() {
    let body = br#"{"eventName":"message.incoming","data":{"from":"1\u0000","name":"\u0000","body":"a\u0000b \ud83d","projectId":"\u0000","attachment":["\u0000"]}}"#;
    let (_, fact) = fact_of(BuilderbotWhatsapp, body);
    let stored = serde_json::to_string(&fact.event).unwrap();
    assert!(!stored.contains("\\u0000"), "{stored}");
    assert!(stored.contains("a\u{fffd}b \u{fffd}"), "{stored}");
}
