use super::*;
use crate::providers::Webhook::TwilioVoiceStatus;
use crate::providers::fixtures::{body, fact_of, index, reason_of};
use crate::providers::normalise;
use domain::fact::{DedupKey, Identity};

fn at(rfc3339: &str) -> Option<DateTime<Utc>> {
    Some(rfc3339.parse().unwrap())
}

fn completed() -> Progressed {
    Progressed {
        call_sid: "CA00000000000000000000000000000001".to_owned(),
        outcome: Outcome::Completed,
        provider_status: "completed".to_owned(),
        sequence_number: Some(3),
        direction: Some(Direction::Outbound),
        phone_number: Some("+5491133334444".to_owned()),
        agent_number: Some("+14155550100".to_owned()),
        duration_secs: Some(94),
        sip_status: None,
        recording_url: None,
    }
}

fn assert_progressed(
    path: &str,
    expected: &Progressed,
    occurred_at: Option<DateTime<Utc>>,
    key: [&str; 2],
) {
    let (identity, fact) = fact_of(TwilioVoiceStatus, body(path));
    let expected_fact = Fact {
        stream: StreamId::call(expected.call_sid.as_str()),
        event: AnyEvent::Call(Event::Progressed(expected.clone())),
        occurred_at,
    };
    assert_eq!(fact, expected_fact, "{path}");
    let parts = ["twilio", "voice_status", &expected.call_sid, key[0], key[1]];
    let key = DedupKey::of(parts.iter().map(|part| part.as_bytes()));
    assert_eq!(identity, Identity::Lasting(key), "{path}");
}

#[test]
fn a_call_of_ours_that_ended() {
    assert_progressed(
        "twilio/voice.status.completed.form",
        &completed(),
        at("2025-10-28T23:29:50Z"),
        ["sequence", "3"],
    );
}

#[test]
fn a_call_to_us_that_rings_is_the_callers() {
    let ringing = Progressed {
        call_sid: "CA00000000000000000000000000000031".to_owned(),
        outcome: Outcome::InProgress,
        provider_status: "ringing".to_owned(),
        sequence_number: Some(1),
        direction: Some(Direction::Inbound),
        duration_secs: None,
        ..completed()
    };
    assert_progressed(
        "twilio/voice.status.ringing_inbound.form",
        &ringing,
        at("2025-10-28T23:28:00Z"),
        ["sequence", "1"],
    );
}

#[test]
fn a_call_that_nobody_took_and_that_has_no_number_in_the_sequence() {
    let no_answer = Progressed {
        call_sid: "CA00000000000000000000000000000032".to_owned(),
        outcome: Outcome::Failed,
        provider_status: "no-answer".to_owned(),
        sequence_number: None,
        duration_secs: Some(0),
        sip_status: Some(487),
        ..completed()
    };
    assert_progressed(
        "twilio/voice.status.no_answer.form",
        &no_answer,
        at("2025-10-28T23:28:40Z"),
        ["status", "no-answer"],
    );
}

#[test]
fn every_status_that_twilio_has_is_known() {
    for (status, outcome) in [
        ("queued", Outcome::Pending),
        ("initiated", Outcome::InProgress),
        ("ringing", Outcome::InProgress),
        ("in-progress", Outcome::InProgress),
        ("completed", Outcome::Completed),
        ("completed&AnsweredBy=human", Outcome::Completed),
        ("completed&AnsweredBy=machine_end_beep", Outcome::Voicemail),
        ("busy", Outcome::Failed),
        ("no-answer", Outcome::Failed),
        ("failed", Outcome::Failed),
        ("canceled", Outcome::Cancelled),
    ] {
        let form = format!("CallSid=CA1&CallStatus={status}");
        let (_, fact) = fact_of(TwilioVoiceStatus, form.as_bytes());
        let AnyEvent::Call(Event::Progressed(progressed)) = fact.event else {
            panic!("{fact:?}")
        };
        assert_eq!(progressed.outcome, outcome, "{status}");
        assert_eq!(fact.occurred_at, None);
    }
}

#[test]
fn what_cannot_be_placed_is_kept_for_a_person() {
    for (form, reason) in [
        ("", "CallSid is missing"),
        ("CallSid=CA1", "CallStatus is missing"),
        ("CallSid=CA1&CallStatus=lost", "unknown CallStatus \"lost\""),
        (
            "CallSid=%F0%9F%98%80&CallStatus=busy",
            "CallSid is not an id",
        ),
        ("MessageSid=SM1&MessageStatus=sent", "CallSid is missing"),
    ] {
        assert_eq!(reason_of(TwilioVoiceStatus, form.as_bytes()), reason);
    }
}

#[test]
fn an_odd_time_or_number_costs_no_more_than_itself() {
    let form =
        b"CallSid=CA1&CallStatus=completed&Timestamp=yesterday&CallDuration=long&SequenceNumber=x";
    let (_, fact) = fact_of(TwilioVoiceStatus, form);
    assert_eq!(fact.occurred_at, None);
}

#[test]
fn each_callback_of_a_call_is_another_one() {
    let identity =
        |form: &str| normalise(TwilioVoiceStatus, form.as_bytes(), None, &index()).identity;
    let first = identity("CallSid=CA1&CallStatus=ringing&SequenceNumber=1");
    assert_eq!(
        first,
        identity("SequenceNumber=1&CallStatus=ringing&CallSid=CA1&New=1")
    );
    assert_ne!(
        first,
        identity("CallSid=CA1&CallStatus=ringing&SequenceNumber=2")
    );
    assert_ne!(
        first,
        identity("CallSid=CA2&CallStatus=ringing&SequenceNumber=1")
    );
}
