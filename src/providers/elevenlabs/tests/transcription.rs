use domain::Direction;
use domain::call::{Completed, Medium, Outcome, Turn};
use serde_json::{Map, Value, json};

use super::*;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn turn(role: &str, message: Option<&str>, seconds: i64, tools: &[&str]) -> Turn {
    Turn {
        role: role.to_owned(),
        message: message.map(str::to_owned),
        time_in_call_secs: Some(seconds),
        tools: tools.iter().map(|it| (*it).to_owned()).collect(),
    }
}

/// A session of which nothing but the essential is known.
fn bare(conversation_id: &str) -> Completed {
    Completed {
        conversation_id: conversation_id.to_owned(),
        agent_id: AGENT.to_owned(),
        agent_name: None,
        outcome: Outcome::Completed,
        provider_status: "done".to_owned(),
        medium: Medium::Voice,
        direction: None,
        call_sid: None,
        carrier: None,
        phone_number: None,
        agent_number: None,
        phone_number_id: None,
        started_at: None,
        duration_secs: None,
        cost_credits: None,
        termination_reason: None,
        error: None,
        language: None,
        has_audio: false,
        call_successful: None,
        summary: None,
        summary_title: None,
        analysis: Map::new(),
        batch_id: None,
        batch_recipient_id: None,
        dynamic_variables: Map::new(),
        transcript: Vec::new(),
    }
}

/// The provider's own example, read by its schema.
fn full() -> Completed {
    Completed {
        agent_name: some("Cobranzas"),
        direction: Some(Direction::Outbound),
        call_sid: some("CA00000000000000000000000000000001"),
        carrier: some("twilio"),
        phone_number: some(CLIENT),
        agent_number: some(OURS),
        phone_number_id: some("phnum_0001example0000000000000000"),
        started_at: at(1_761_694_074),
        duration_secs: Some(94),
        cost_credits: Some(512),
        termination_reason: some("end_call tool was called."),
        language: some("es"),
        has_audio: true,
        call_successful: some("success"),
        summary: some("El cliente acuerda pagar el 3 de noviembre."),
        summary_title: some("Acuerdo de pago"),
        analysis: object(json!({
            "evaluation_criteria_results": {"compromiso": {
                "criteria_id": "compromiso", "result": "success",
                "rationale": "El cliente confirma fecha de pago."
            }},
            "data_collection_results": {"fecha_pago": {
                "data_collection_id": "fecha_pago", "value": "2025-11-03",
                "json_schema": {"type": "string", "description": "Fecha de pago"},
                "rationale": "Dicho en el turno 4."
            }}
        })),
        batch_id: some("btcal_0001example0000000000000000"),
        batch_recipient_id: some("rcpt_0001example00000000000000000"),
        dynamic_variables: object(json!({
            "client_name": "Ana García", "client_id": 42,
            "system__call_sid": "CA00000000000000000000000000000001",
            "system__conversation_id": "conv_0001example00000000000000000",
            "system__caller_id": OURS, "system__called_number": CLIENT
        })),
        transcript: vec![
            turn("agent", Some("Hola Ana, ¿tienes un minuto?"), 0, &[]),
            turn("user", Some("Sí, decime."), 3, &[]),
            turn("agent", None, 6, &["consultar_saldo"]),
            turn("agent", None, 7, &["consultar_saldo"]),
        ],
        ..bare("conv_0001example00000000000000000")
    }
}

fn assert_completed(name: &str, expected: Completed, seconds: i64) {
    let path = format!("elevenlabs/post_call_transcription{name}.json");
    let (identity, fact) = fact_of(ElevenlabsCall, body(&path));
    let id = expected.conversation_id.clone();
    let expected = Fact {
        stream: StreamId::call(id.as_str()),
        event: AnyEvent::Call(Event::Completed(Box::new(expected))),
        occurred_at: at(seconds),
    };
    assert_eq!(fact, expected, "{path}");
    assert_eq!(identity, natural("post_call_transcription", &id, seconds));
}

#[test]
fn a_call_of_a_batch_over_twilio() {
    assert_completed("", full(), 1_761_694_190);
}

#[test]
fn a_call_of_a_campaign_over_exotel_that_met_a_machine() {
    let expected = Completed {
        agent_name: some("Citas"),
        outcome: Outcome::Voicemail,
        direction: Some(Direction::Outbound),
        call_sid: some("exo_0001"),
        carrier: some("exotel"),
        phone_number: some("+919812345678"),
        agent_number: some("+918045678901"),
        phone_number_id: some("phnum_0002example0000000000000000"),
        started_at: at(1_761_694_200),
        duration_secs: Some(21),
        cost_credits: Some(90),
        language: some("hi"),
        has_audio: true,
        batch_id: some("btcal_0002example0000000000000000"),
        batch_recipient_id: some("rcpt_0002example00000000000000000"),
        transcript: vec![turn("agent", Some("Hola, ¿hablo con Luis?"), 0, &[])],
        ..bare("conv_0011example00000000000000000")
    };
    assert_completed(".exotel", expected, 1_761_694_300);
}

#[test]
fn a_call_to_us_over_a_sip_trunk_that_failed() {
    let expected = Completed {
        outcome: Outcome::Failed,
        provider_status: "failed".to_owned(),
        direction: Some(Direction::Inbound),
        call_sid: some("SCL_aB3"),
        carrier: some("sip_trunking"),
        phone_number: some(CLIENT),
        agent_number: some(OURS),
        phone_number_id: some("phnum_0003example0000000000000000"),
        started_at: at(1_761_694_300),
        duration_secs: Some(3),
        // A remark is not declared personal, so it may hold no number.
        termination_reason: some("SIP peer +54*******4444 hung up"),
        error: some("1011: Internal error"),
        ..bare("conv_0012example00000000000000000")
    };
    assert_completed(".sip_trunking", expected, 1_761_694_310);
}

#[test]
fn a_transcript_may_be_left_out_and_variables_be_of_any_sort() {
    let expected = Completed {
        conversation_id: "conv_0013example00000000000000000".to_owned(),
        call_sid: some("CA00000000000000000000000000000013"),
        transcript: Vec::new(),
        dynamic_variables: object(json!({
            "texto": "Ana", "entero": 42, "decimal": 1.5, "si": true, "nada": null
        })),
        ..full()
    };
    assert_completed(".exclude_transcript", expected, 1_761_694_190);
}

#[test]
fn traces_in_the_place_of_a_transcript_stay_in_the_delivery() {
    let expected = Completed {
        started_at: at(1_761_694_300),
        duration_secs: Some(30),
        cost_credits: Some(100),
        termination_reason: some("Client disconnected: 1000"),
        language: some("es"),
        has_audio: true,
        call_successful: some("success"),
        summary: some("Luis confirma la cita."),
        ..bare("conv_0014example00000000000000000")
    };
    assert_completed(".opentelemetry", expected, 1_761_694_330);
}

#[test]
fn the_documentations_example_is_read_though_its_schema_forbids_it() {
    let question = "Hey, can you tell me, like, a fun fact about 11 Labs?";
    let expected = Completed {
        agent_id: "xyz".to_owned(),
        started_at: at(1_739_537_297),
        duration_secs: Some(22),
        cost_credits: Some(296),
        call_successful: some("success"),
        summary: some("The conversation begins with a fun fact."),
        dynamic_variables: object(json!({"user_name": "angelo"})),
        transcript: vec![
            turn("agent", Some("Hey there angelo. How are you?"), 0, &[]),
            turn("user", Some(question), 2, &[]),
            turn("agent", None, 9, &[]),
        ],
        ..bare("abc")
    };
    assert_completed(".documentation", expected, 1_739_537_297);
}

#[test]
fn sessions_without_a_telephone_say_what_they_were_held_over() {
    let written = |id: &str, medium| Completed {
        medium,
        started_at: at(1_761_694_300),
        cost_credits: Some(10),
        call_successful: some("success"),
        summary: some("Luis confirma la cita."),
        transcript: vec![
            turn("agent", Some("Hola, ¿hablo con Luis?"), 0, &[]),
            turn("user", Some("Sí, soy yo."), 2, &[]),
        ],
        ..bare(id)
    };
    let whatsapp = Completed {
        duration_secs: Some(40),
        direction: Some(Direction::Inbound),
        phone_number: some(CLIENT),
        phone_number_id: some("waphn_0001"),
        ..written("conv_0015example00000000000000000", Medium::Whatsapp)
    };
    assert_completed(".whatsapp", whatsapp, 1_761_694_340);
    let sms = Completed {
        duration_secs: Some(50),
        direction: Some(Direction::Outbound),
        phone_number: some(CLIENT),
        agent_number: some(OURS),
        phone_number_id: some("phnum_0004example0000000000000000"),
        ..written("conv_0016example00000000000000000", Medium::Sms)
    };
    assert_completed(".sms", sms, 1_761_694_350);
    let text = Completed {
        duration_secs: Some(60),
        ..written("conv_0017example00000000000000000", Medium::Text)
    };
    assert_completed(".text_only", text, 1_761_694_360);
}

#[test]
fn the_agents_tool_may_notice_a_machine() {
    let expected = Completed {
        outcome: Outcome::Voicemail,
        direction: Some(Direction::Outbound),
        call_sid: some("CA00000000000000000000000000000018"),
        carrier: some("twilio"),
        phone_number: some(CLIENT),
        agent_number: some(OURS),
        phone_number_id: some("phnum_0001example0000000000000000"),
        started_at: at(1_761_694_360),
        duration_secs: Some(8),
        cost_credits: Some(5),
        termination_reason: some("end_call tool was called."),
        has_audio: true,
        transcript: vec![turn("agent", None, 4, &["voicemail_detection"])],
        ..bare("conv_0018example00000000000000000")
    };
    assert_completed(".voicemail_tool", expected, 1_761_694_370);
}

/// A transcription with these parts in its data.
fn transcription(data: Value) -> Vec<u8> {
    let mut all = json!({"conversation_id": "c", "agent_id": "a"});
    all.as_object_mut()
        .unwrap()
        .extend(data.as_object().unwrap().clone());
    json!({"type": "post_call_transcription", "event_timestamp": 1_761_694_190, "data": all})
        .to_string()
        .into_bytes()
}

fn completed(data: Value) -> Completed {
    match fact_of(ElevenlabsCall, &transcription(data)).1.event {
        AnyEvent::Call(Event::Completed(completed)) => *completed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn how_a_session_ended_is_told_by_its_status_and_by_the_carrier() {
    let phone = |result: &str| json!({"phone_call": {"type": "twilio", "call_result": result}});
    let reason = |reason: &str| json!({"termination_reason": reason});
    let verdict = |verdict: &str| json!({"call_successful": verdict});
    let none = || json!(null);
    for (status, metadata, analysis, outcome) in [
        ("done", none(), none(), Outcome::Completed),
        ("done", phone("answered"), none(), Outcome::Completed),
        ("done", phone("busy"), none(), Outcome::Failed),
        ("done", phone("no_answer"), none(), Outcome::Failed),
        ("done", phone("failed"), none(), Outcome::Failed),
        ("done", phone("voicemail"), none(), Outcome::Voicemail),
        (
            "done",
            reason("Voicemail detected"),
            none(),
            Outcome::Voicemail,
        ),
        ("failed", none(), verdict("success"), Outcome::Failed),
        ("in-progress", none(), none(), Outcome::InProgress),
        ("processing", none(), none(), Outcome::InProgress),
        ("initiated", none(), none(), Outcome::Pending),
        ("archived", none(), verdict("success"), Outcome::Completed),
        (
            "archived",
            phone("voicemail"),
            verdict("failure"),
            Outcome::Voicemail,
        ),
        ("", none(), verdict("success"), Outcome::Completed),
    ] {
        let data = json!({"status": status, "metadata": metadata, "analysis": analysis});
        assert_eq!(completed(data.clone()).outcome, outcome, "{data}");
    }
    for (status, reason) in [
        (json!("archived"), "unknown status \"archived\""),
        (json!(null), "status is missing"),
    ] {
        let data = json!({"status": status, "analysis": {"call_successful": "unknown"}});
        assert_eq!(reason_of(ElevenlabsCall, &transcription(data)), reason);
    }
}

#[test]
fn a_voicemail_tool_that_failed_notices_nothing() {
    for (result, outcome) in [
        (
            json!({"tool_name": "voicemail_detection", "is_error": false}),
            Outcome::Voicemail,
        ),
        (
            json!({"tool_name": "voicemail_detection", "is_error": true}),
            Outcome::Completed,
        ),
        (
            json!({"tool_name": "voicemail_detection", "result": {"result_type": "other"}}),
            Outcome::Completed,
        ),
        (
            json!({"tool_name": "end_call", "result": {"result_type": "end_call_success"}}),
            Outcome::Completed,
        ),
    ] {
        let data =
            json!({"status": "done", "transcript": [{"role": "agent", "tool_results": [result]}]});
        assert_eq!(completed(data.clone()).outcome, outcome, "{data}");
    }
}

#[test]
fn parts_of_another_kind_than_promised_count_as_missing() {
    let odd = completed(json!({
        "status": "done", "agent_name": ["x"], "has_audio": "true", "analysis": "none",
        "metadata": {"phone_call": [], "batch_call": 7, "call_duration_secs": "94.0", "cost": 1.6,
                     "error": "boom", "whatsapp": {"direction": "unknown"}},
        "conversation_initiation_client_data": {"dynamic_variables": [1]},
        "transcript": [null, "x", {"role": 7, "message": null, "time_in_call_secs": "3"}]
    }));
    let expected = Completed {
        agent_id: "a".to_owned(),
        medium: Medium::Whatsapp,
        duration_secs: Some(94),
        cost_credits: Some(2),
        error: some("boom"),
        has_audio: true,
        transcript: vec![turn("7", None, 3, &[])],
        ..bare("c")
    };
    assert_eq!(odd, expected);
}

#[test]
fn nul_and_half_characters_never_reach_a_fact() {
    let body = transcription(json!({
        "status": "done\0", "agent_name": "\0", "analysis": {"call_successful": "success",
            "evaluation_criteria_results": {"a\0": {"b": ["\0"]}}},
        "conversation_initiation_client_data": {"dynamic_variables": {"k\0": "v\0"}},
        "transcript": [{"role": "agent\0", "message": "a\0b HALF"}]
    }));
    let body = String::from_utf8(body).unwrap().replace("HALF", "\\ud83d");
    let (_, fact) = fact_of(ElevenlabsCall, body.as_bytes());
    let stored = serde_json::to_string(&fact.event).unwrap();
    assert!(!stored.contains("\\u0000"), "{stored}");
    assert!(stored.contains("a\u{fffd}b \u{fffd}"), "{stored}");
}

#[test]
fn a_call_that_lasted_less_than_nothing_has_no_duration() {
    let body = json!({
        "type": "post_call_transcription",
        "event_timestamp": 1_761_694_190,
        "data": {
            "conversation_id": "conv_x", "agent_id": AGENT, "status": "done",
            "metadata": {"call_duration_secs": -5},
        },
    });
    let outcome = normalise(body.to_string().as_bytes()).outcome;
    let crate::providers::Outcome::Facts(facts) = outcome else {
        panic!("{outcome:?}")
    };
    let payload = serde_json::to_value(&facts[0].event).unwrap();
    assert_eq!(payload.get("duration_secs"), None, "{payload}");
}
