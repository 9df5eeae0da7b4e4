use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use domain::call::{AudioReceived, Event, InitiationFailed};
use domain::fact::{DedupKey, Identity};
use domain::{Event as AnyEvent, Fact, StreamId};

use super::{audio, normalise};
use crate::providers::Webhook::ElevenlabsCall;
use crate::providers::fixtures::{body, fact_of, reason_of};
use crate::providers::{Normalised, key_of_bytes};

mod transcription;

const AGENT: &str = "agent_0001example0000000000000000";
const CLIENT: &str = "+5491133334444";
const OURS: &str = "+14155550100";

fn at(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn natural(kind: &str, id: &str, seconds: i64) -> Identity {
    let micros = format!("{seconds}000000");
    let parts = ["elevenlabs", "post_call", kind, id, &micros];
    Identity::Lasting(DedupKey::of(parts.iter().map(|part| part.as_bytes())))
}

fn identity_by_bytes(body: &[u8]) -> Identity {
    Identity::Lasting(key_of_bytes(ElevenlabsCall, body))
}

#[test]
fn a_recording_is_measured_and_can_be_had_from_the_delivery() {
    let body = body("elevenlabs/post_call_audio.json");
    let (identity, fact) = fact_of(ElevenlabsCall, body);
    let id = "conv_0001example00000000000000000";
    let expected = Fact {
        stream: StreamId::call(id),
        event: AnyEvent::Call(Event::AudioReceived(AudioReceived {
            conversation_id: id.to_owned(),
            agent_id: some(AGENT),
            content_type: "audio/mpeg".to_owned(),
            size_bytes: 10,
        })),
        occurred_at: at(1_761_694_195),
    };
    assert_eq!(fact, expected);
    assert_eq!(identity, natural("post_call_audio", id, 1_761_694_195));
    assert_eq!(
        audio(body),
        Some(b"ID3\x04\0\0\0\0\0\0".to_vec()),
        "the recording itself"
    );
}

fn recording(base64: &str) -> Vec<u8> {
    format!(
        r#"{{"data":{{"full_audio":"{base64}","conversation_id":"c"}},"type":"post_call_audio","event_timestamp":1}}"#
    )
    .into_bytes()
}

#[test]
fn what_is_no_base64_is_no_recording() {
    let inside = format!("{}!{}", "A".repeat(5000), "A".repeat(5003));
    for broken in [
        "A", "AAAAA", "====", "AA==AAAA", "SUQ-", "SUQ zBAA", &inside,
    ] {
        let body = recording(broken);
        assert_eq!(reason_of(ElevenlabsCall, &body), "full_audio is not base64");
        assert_eq!(audio(&body), None);
    }
    assert_eq!(
        reason_of(ElevenlabsCall, &recording("")),
        "full_audio is missing"
    );
    for not_audio in [
        "elevenlabs/post_call_transcription.json",
        "elevenlabs/unknown_type.json",
    ] {
        assert_eq!(audio(body(not_audio)), None);
    }
}

#[test]
fn a_recording_without_padding_or_with_escaped_slashes_is_one() {
    assert_eq!(audio(&recording("SUQzBA")), Some(b"ID3\x04".to_vec()));
    assert_eq!(audio(&recording(r"\/\/8=")), Some(vec![0xff, 0xff]));
    fact_of(ElevenlabsCall, &recording(r"\/\/8="));
}

fn failed(path: &str, expected: InitiationFailed) {
    let (identity, fact) = fact_of(ElevenlabsCall, body(path));
    let id = expected.conversation_id.clone();
    let expected = Fact {
        stream: StreamId::call(id.as_str()),
        event: AnyEvent::Call(Event::InitiationFailed(expected)),
        occurred_at: at(1_761_694_120),
    };
    assert_eq!(fact, expected, "{path}");
    assert_eq!(
        identity,
        natural("call_initiation_failure", &id, 1_761_694_120)
    );
}

#[test]
fn a_call_that_could_not_be_started_says_why_in_the_carriers_words() {
    let twilio = InitiationFailed {
        conversation_id: "conv_0002example00000000000000000".to_owned(),
        agent_id: some(AGENT),
        reason: "no-answer".to_owned(),
        call_sid: some("CA00000000000000000000000000000002"),
        carrier: some("twilio"),
        phone_number: some(CLIENT),
        agent_number: some(OURS),
        sip_status: Some(487),
        detail: some("no-answer"),
    };
    failed(
        "elevenlabs/call_initiation_failure.twilio.json",
        twilio.clone(),
    );
    let sip = InitiationFailed {
        conversation_id: "conv_0003example00000000000000000".to_owned(),
        reason: "busy".to_owned(),
        call_sid: some("d8e7f6a5-b4c3-4d5e-8f9a-0b1c2d3e4f5a"),
        carrier: some("sip"),
        sip_status: Some(486),
        detail: some("INVITE failed: sip status: 486: Busy here (SIP 486)"),
        ..twilio.clone()
    };
    failed("elevenlabs/call_initiation_failure.sip.json", sip);
    let unknown_carrier = InitiationFailed {
        conversation_id: "conv_0004example00000000000000000".to_owned(),
        reason: "unknown".to_owned(),
        call_sid: None,
        carrier: some("exotel"),
        phone_number: None,
        agent_number: None,
        sip_status: None,
        detail: None,
        ..twilio
    };
    failed(
        "elevenlabs/call_initiation_failure.exotel.json",
        unknown_carrier,
    );
}

#[test]
fn an_unknown_type_is_kept_for_a_person_under_its_own_identity() {
    let body = body("elevenlabs/unknown_type.json");
    let normalised = normalise(body);
    let reason = "unknown type \"answering_machine_detection\"".to_owned();
    let expected = Normalised::new(
        natural(
            "answering_machine_detection",
            "conv_0005example00000000000000000",
            1_761_694_130,
        ),
        Err(reason),
    );
    assert_eq!(normalised, expected);
}

#[test]
fn what_cannot_be_placed_is_kept_under_the_identity_of_its_bytes() {
    for (body, reason) in [
        ("", "the body is not readable as JSON at line 1 column 0"),
        (
            "hola",
            "the body is not readable as JSON at line 1 column 1",
        ),
        ("[]", "the body is not a JSON object"),
        ("{}", "data is missing"),
        (r#"{"type":"post_call_audio","data":[]}"#, "data is missing"),
        (r#"{"data":{"conversation_id":"c"}}"#, "type is missing"),
        (
            r#"{"type":"post_call_transcription","data":{"conversation_id":"c"}}"#,
            "agent_id is missing",
        ),
        (
            r#"{"type":"post_call_audio","data":{}}"#,
            "conversation_id is missing",
        ),
        (
            r#"{"type":"call_initiation_failure","data":{"conversation_id":"a b"}}"#,
            "conversation_id is not an id",
        ),
        (
            r#"{"type":"call_initiation_failure","data":{"conversation_id":"a\u0000"}}"#,
            "conversation_id is not an id",
        ),
    ] {
        assert_eq!(reason_of(ElevenlabsCall, body.as_bytes()), reason, "{body}");
        let identity = normalise(body.as_bytes()).identity;
        assert_eq!(identity, identity_by_bytes(body.as_bytes()), "{body}");
    }
}

#[test]
fn a_report_without_its_time_is_still_one() {
    let body = br#"{"type":"call_initiation_failure","data":{"conversation_id":"c"}}"#;
    let (identity, fact) = fact_of(ElevenlabsCall, body);
    assert_eq!(
        (identity, fact.occurred_at),
        (identity_by_bytes(body), None)
    );
}

#[test]
fn the_same_instant_makes_the_same_delivery_however_it_is_written() {
    let identity = |time: &str| {
        let body = format!(
            r#"{{"event_timestamp":{time},"data":{{"conversation_id":"c"}},"type":"call_initiation_failure"}}"#
        );
        normalise(body.as_bytes()).identity
    };
    let expected = natural("call_initiation_failure", "c", 1_761_694_190);
    for time in [
        "1761694190",
        "\"1761694190\"",
        "1761694190.0",
        "1.76169419e9",
        "\"2025-10-28T23:29:50Z\"",
    ] {
        assert_eq!(identity(time), expected, "{time}");
    }
    assert_ne!(identity("1761694191"), expected);
}

#[test]
fn a_nest_without_end_does_not_overflow() {
    let depth = 200_000;
    let nest = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let ignored = format!(
        r#"{{"type":"x","event_timestamp":1,"data":{{"conversation_id":"c","deep":{nest}}}}}"#
    );
    assert_eq!(
        reason_of(ElevenlabsCall, ignored.as_bytes()),
        "unknown type \"x\""
    );
    let kept = format!(
        r#"{{"type":"post_call_transcription","data":{{"conversation_initiation_client_data":{{"dynamic_variables":{{"a":{nest}}}}}}}}}"#
    );
    let reason = reason_of(ElevenlabsCall, kept.as_bytes());
    assert!(
        reason.starts_with("the body is not readable as JSON"),
        "{reason}"
    );
}

proptest::proptest! {
    #[test]
    fn a_recording_is_as_long_as_it_was_told_to_be(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..9000)) {
        let body = recording(&STANDARD.encode(&bytes));
        let AnyEvent::Call(Event::AudioReceived(received)) = fact_of(ElevenlabsCall, &body).1.event else {
            panic!("no recording")
        };
        proptest::prop_assert_eq!(received.size_bytes, bytes.len() as u64);
        proptest::prop_assert_eq!(audio(&body), Some(bytes));
    }
}
