//! What was ever written to a ledger can be read for ever: a stored example
//! of every kind of event in every version, `recorded/<type>.v<version>.json`.
//!
//! To change an event's shape: raise its version, add the upcast, change the
//! event here, and put the new example beside the old one, which stays.
#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

#[path = "today/batches.rs"]
mod batches;
#[path = "today/conversations.rs"]
mod conversations;
#[path = "today/otp.rs"]
mod otp;

use std::collections::BTreeSet;
use std::path::Path;

use bitacora_domain::call::{self, Medium, Outcome, Turn};
use bitacora_domain::event::{EVENT_TYPES, event_type};
use bitacora_domain::message::{self, Button, Kind, Location, Media, Status};
use bitacora_domain::user::{self, Role};
use bitacora_domain::{
    Channel, Direction, Event, PhoneIndex, audit, delivery, line, sealed, subject,
};
use chrono::DateTime;
use serde_json::{Map, Value, json};

/// Name, version and text of each example.
fn examples() -> Vec<(String, String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let stem = file.strip_suffix(".json").expect("only examples are here");
        let (name, version) = stem
            .rsplit_once(".v")
            .expect("named <type>.v<version>.json");
        let text = std::fs::read_to_string(&path).unwrap();
        found.push((name.to_owned(), version.to_owned(), text));
    }
    found.sort();
    found
}

#[test]
fn every_event_that_was_ever_written_can_be_read() {
    for (name, version, text) in examples() {
        let event = Event::read(&name, &version, &text)
            .unwrap_or_else(|error| panic!("{name} v{version}: {error}"));
        assert_eq!(event.name(), name, "v{version}");
    }
}

#[test]
fn every_event_can_be_read_once_whom_it_is_about_is_erased() {
    let masters = sealed::MasterKeys::new(["m"]);
    let (key, _) = masters.fresh(uuid::Uuid::from_u128(9), &[5; 32]);
    let key = std::sync::Arc::new(key);
    let phones = PhoneIndex::new(b"phones");
    for (name, version, text) in examples() {
        let whose = sealed::Subject::Stream("s/1".into());
        let stream = ("s", "1");
        let mut give = |_: &sealed::Subject| key.clone();
        let Some(kept) = sealed::seal_payload(&name, stream, &text, &phones, &whose, &mut give)
        else {
            continue;
        };
        let read = |text: &str| {
            Event::read(&name, &version, text).unwrap_or_else(|e| panic!("{name}: {e}: {text}"))
        };
        let opened = sealed::open_payload(&name, &kept, |_| Some(&*key)).unwrap();
        assert_eq!(read(&opened), read(&text), "{name}");
        let erased = sealed::open_payload(&name, &kept, |_| None).unwrap();
        read(&erased);
        for kept in [&*kept, &*erased] {
            assert!(!kept.contains("300123"), "{name} {kept}");
        }
    }
}

#[test]
fn every_kind_of_event_has_an_example_of_its_version() {
    let kept: BTreeSet<_> = examples()
        .into_iter()
        .map(|(name, version, _)| (name, version))
        .collect();
    for kind in EVENT_TYPES {
        let example = (kind.name.to_owned(), kind.version.to_owned());
        assert!(
            kept.contains(&example),
            "write domain/tests/recorded/{}.v{}.json",
            kind.name,
            kind.version
        );
    }
}

/// So a change of shape cannot go unnoticed: it needs a version of its own.
#[test]
fn an_event_is_written_today_as_its_newest_example_shows() {
    let today = [
        today(),
        batches::today(),
        conversations::today(),
        otp::today(),
        vec![Event::Subject(subject::Event::Erased(subject::Erased {
            erasure_id: uuid::Uuid::from_u128(7),
            cause: subject::Cause::Request,
            reason: "Solicitud 2025-114".into(),
            erased_by: "user:7".into(),
            keys_count: 1,
            keys: vec![uuid::Uuid::from_u128(9)],
            channel: Some("call".into()),
            before: chrono::NaiveDate::from_ymd_opt(2025, 1, 31),
        }))],
    ]
    .concat();
    for kind in EVENT_TYPES {
        let event = today.iter().find(|event| event.name() == kind.name);
        let event = event.unwrap_or_else(|| panic!("put an event {} into this test", kind.name));
        let newest = examples()
            .into_iter()
            .find(|(name, version, _)| name == kind.name && version == kind.version);
        let written = serde_json::to_string_pretty(event).unwrap();
        let (_, _, text) = newest.unwrap_or_else(|| {
            panic!(
                "{} v{} has no example yet:\n{written}",
                kind.name, kind.version
            )
        });
        let example: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            example,
            "{}",
            kind.name
        );
        assert_eq!(
            &Event::read(kind.name, kind.version, &text).unwrap(),
            event,
            "{}",
            kind.name
        );
    }
}

/// Sealing personal data later goes by these names.
#[test]
fn the_fields_that_are_declared_personal_are_there() {
    for (name, version, text) in examples() {
        let kind = event_type(&name).unwrap();
        if version != kind.version {
            continue;
        }
        let example: Map<String, Value> = serde_json::from_str(&text).unwrap();
        for field in kind.contacts.iter().chain(kind.personal) {
            assert!(
                example.contains_key(*field),
                "{name} declares {field}, and its example has none"
            );
        }
    }
}

/// One event of each kind, with every field that it may have.
fn today() -> Vec<Event> {
    let text = |text: &str| Some(text.to_owned());
    let map = |value: Value| value.as_object().unwrap().clone();
    let at = DateTime::from_timestamp(1_761_694_074, 0);
    vec![
        Event::Call(call::Event::Completed(Box::new(call::Completed {
            conversation_id: "conv_0001".into(),
            agent_id: "agent_0001".into(),
            agent_name: text("Cobranzas"),
            outcome: Outcome::Completed,
            provider_status: "done".into(),
            medium: Medium::Voice,
            direction: Some(Direction::Outbound),
            call_sid: text("CA0001"),
            carrier: text("twilio"),
            phone_number: text("+5491133334444"),
            agent_number: text("+14155550100"),
            phone_number_id: text("phnum_0001"),
            started_at: at,
            duration_secs: Some(94),
            cost_credits: Some(512),
            termination_reason: text("end_call tool was called."),
            error: text("none"),
            language: text("es"),
            has_audio: true,
            call_successful: text("success"),
            summary: text("El cliente acuerda pagar."),
            summary_title: text("Acuerdo de pago"),
            analysis: map(
                json!({"data_collection_results": {"fecha_pago": {"value": "2025-11-03"}}}),
            ),
            batch_id: text("btcal_0001"),
            batch_recipient_id: text("rcpt_0001"),
            dynamic_variables: map(json!({"client_name": "Ana"})),
            transcript: vec![Turn {
                role: "agent".into(),
                message: text("Hola Ana"),
                time_in_call_secs: Some(0),
                tools: vec!["consultar_saldo".into()],
            }],
        }))),
        Event::Call(call::Event::AudioReceived(call::AudioReceived {
            conversation_id: "conv_0001".into(),
            agent_id: text("agent_0001"),
            content_type: "audio/mpeg".into(),
            size_bytes: 10,
        })),
        Event::Call(call::Event::InitiationFailed(call::InitiationFailed {
            conversation_id: "conv_0002".into(),
            agent_id: text("agent_0001"),
            reason: "busy".into(),
            call_sid: text("CA0002"),
            carrier: text("sip"),
            phone_number: text("+5491133334444"),
            agent_number: text("+14155550100"),
            sip_status: Some(486),
            detail: text("Busy here"),
        })),
        Event::Call(call::Event::Progressed(call::Progressed {
            call_sid: "CA0001".into(),
            outcome: Outcome::Completed,
            provider_status: "completed".into(),
            sequence_number: Some(3),
            direction: Some(Direction::Outbound),
            phone_number: text("+5491133334444"),
            agent_number: text("+14155550100"),
            duration_secs: Some(94),
            sip_status: Some(200),
            recording_url: text("https://api.twilio.com/recordings/RE0001"),
        })),
        Event::Message(message::Event::Received(Box::new(message::Received {
            message_id: text("SM0001"),
            channel: Channel::Whatsapp,
            contact: "+5491133334444".into(),
            contact_name: text("Ana"),
            our_address: text("+14155238886"),
            kind: Kind::Button,
            content: "Confirmar".into(),
            media: vec![Media {
                url: "https://api.twilio.com/media/1".into(),
                content_type: text("image/jpeg"),
            }],
            location: Some(Location {
                latitude: "-34.6037".into(),
                longitude: "-58.3816".into(),
                address: text("Av. Corrientes 1"),
                label: text("Obelisco"),
            }),
            button: Some(Button {
                text: text("Confirmar"),
                payload: text("confirm_42"),
            }),
            reply_to: text("MM0009"),
            forwarded: true,
        }))),
        Event::Message(message::Event::Sent(Box::new(message::Sent {
            message_id: text("SM0002"),
            channel: Channel::Whatsapp,
            contact: "+5491133334444".into(),
            our_address: text("+14155238886"),
            kind: Kind::Image,
            content: "Tu pedido está listo".into(),
            media: vec![Media {
                url: "https://example.com/a.jpg".into(),
                content_type: None,
            }],
        }))),
        Event::Message(message::Event::StatusChanged(message::StatusChanged {
            message_id: "SM0002".into(),
            channel: Channel::Sms,
            contact: "+5491133334444".into(),
            our_address: text("+14155550100"),
            status: Status::Undelivered,
            error_code: text("30005"),
            error_message: text("Unknown destination handset"),
        })),
        Event::Line(line::Event::StatusChanged(line::StatusChanged {
            line_id: "project-1".into(),
            status: "disconnect".into(),
            reason: text("logged out"),
        })),
        Event::Delivery(delivery::Event::Quarantined(delivery::Quarantined {
            delivery_id: uuid::Uuid::from_u128(0x019a_2d28_30c0_7000_8000_0000_0000_0001),
            reason: "no field data.conversation_id".into(),
        })),
        Event::Audit(audit::Event::Recorded(audit::Recorded {
            actor: "user:7".into(),
            role: text("auditor"),
            action: "reveal_interaction".into(),
            target: text("conv_0001"),
            outcome: "ok".into(),
            from: text("192.0.2.1"),
            request_id: text("req-1"),
            detail: text("more"),
        })),
        Event::User(user::Event::Registered(user::Registered {
            user_id: 7,
            name: "Ana García".into(),
            email: "ana@example.com".into(),
            role: Role::Supervisor,
            agent_id: text("agent_0001"),
        })),
    ]
}
