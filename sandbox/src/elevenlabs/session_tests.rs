//! Tests of the text session's protocol, without a socket.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    AGENT_COLLECTIONS, AGENT_SURVEY, agents,
    session::{self, Act, Knock, Session, TURN},
    signed_urls,
};
use crate::{Fault, Options, Rates, clock::Clock, http::Call, requests::Trap, world::World};

fn world(rates: Rates) -> World {
    let options = Options {
        rates,
        ..Options::default()
    };
    World::new(options, Arc::new(Clock::manual(Some(1_761_694_070))))
}

fn knock(agent_id: &str, signature: Option<String>) -> Knock {
    let agent_id = agent_id.to_owned();
    Knock {
        agent_id,
        signature,
        ..Knock::default()
    }
}

fn hello() -> String {
    json!({
        "type": "conversation_initiation_client_data",
        "dynamic_variables": {"client_name": "Ana"},
        "user_id": "contacto-42",
    })
    .to_string()
}

fn begin(world: &mut World) -> (Session, Vec<Act>) {
    let begun = Session::begin(world, &knock(AGENT_COLLECTIONS, None), &hello());
    begun.unwrap_or_else(|acts| panic!("refused: {acts:?}"))
}

fn says(text: &str) -> String {
    json!({"type": "user_message", "text": text}).to_string()
}

/// The frames among the acts.
fn frames(acts: &[Act]) -> Vec<&Value> {
    acts.iter()
        .filter_map(|act| match act {
            Act::Send(frame) => Some(frame),
            _ => None,
        })
        .collect()
}

/// The error type and the close code of acts that end a session.
fn ending(acts: &[Act]) -> (String, u16) {
    let Some(Act::Close { code, .. }) = acts.last() else {
        panic!("not closed: {acts:?}");
    };
    let error = &frames(acts)[0]["error_event"];
    assert_eq!(error["code"], *code);
    (error["error_type"].as_str().unwrap().to_owned(), *code)
}

fn signed(world: &mut World, query: &str) -> String {
    let call = Call::noted(&format!("/x?agent_id={AGENT_SURVEY}{query}"), "");
    let answer = signed_urls::create(world, &call).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let url = body["signed_url"].as_str().unwrap();
    url.split_once("conversation_signature=")
        .unwrap()
        .1
        .to_owned()
}

#[test]
fn a_turn_is_streamed_and_then_said_whole() {
    let mut world = world(Rates::ideal());
    let (mut session, first) = begin(&mut world);
    let kinds: Vec<_> = frames(&first).iter().map(|f| f["type"].clone()).collect();
    assert_eq!(
        kinds,
        ["conversation_initiation_metadata", "agent_response", "ping"]
    );
    let acts = session.take(&mut world, &says("¿Cuál es el precio?"));
    assert!(matches!(acts[0], Act::Think(_)));
    let frames = frames(&acts);
    let whole = &frames.last().unwrap()["agent_response_event"];
    let parts: String = frames[..frames.len() - 1]
        .iter()
        .map(|f| f["text_response_part"]["text"].as_str().unwrap())
        .collect();
    assert_eq!(whole["agent_response"], parts);
    assert_eq!(
        (
            &whole["event_id"],
            &frames[0]["text_response_part"]["event_id"]
        ),
        (&json!(2), &json!(2))
    );
}

#[test]
fn a_signature_opens_one_agent_for_fifteen_minutes() {
    let mut world = world(Rates::ideal());
    let signature = signed(&mut world, "");
    let open = |world: &mut World, agent: &str, s: &str| {
        session::admit(world, &knock(agent, Some(s.to_owned()))).is_ok()
    };
    assert!(open(&mut world, AGENT_SURVEY, &signature));
    assert!(
        open(&mut world, AGENT_SURVEY, &signature),
        "it may be used again"
    );
    assert!(!open(&mut world, AGENT_COLLECTIONS, &signature));
    assert!(!open(&mut world, AGENT_SURVEY, "cvtkn_forged"));
    world.clock.jump_to(15 * 60 * 1000);
    assert!(open(&mut world, AGENT_SURVEY, &signature));
    world.clock.jump_to(15 * 60 * 1000 + 1000);
    assert!(!open(&mut world, AGENT_SURVEY, &signature));
    let once = signed(&mut world, "&include_conversation_id=true");
    assert!(open(&mut world, AGENT_SURVEY, &once));
    assert!(!open(&mut world, AGENT_SURVEY, &once), "only once");
}

#[test]
fn who_may_not_enter_is_told_why() {
    let mut world = world(Rates::ideal());
    for (agent, error) in [
        ("agent_none", "value_error"),
        (AGENT_SURVEY, "missing_fields"),
    ] {
        let acts = session::admit(&mut world, &knock(agent, None)).unwrap_err();
        assert_eq!(ending(&acts), (error.to_owned(), 1008));
    }
    let mut refused = |frame: Value| {
        let knock = knock(AGENT_COLLECTIONS, None);
        let begun = Session::begin(&mut world, &knock, &frame.to_string());
        ending(&begun.err().unwrap()).0
    };
    assert_eq!(refused(json!({"type": "pong"})), "invalid_message");
    let mut first: Value = serde_json::from_str(&hello()).unwrap();
    first["conversation_config_override"] = json!({"tts": {"voice_id": "x"}});
    assert_eq!(refused(first.clone()), "override_error");
    first["conversation_config_override"] = json!({"agent": {"first_message": "{{nadie}}"}});
    assert_eq!(refused(first), "missing_dynamic_variable");
}

#[test]
fn the_sdks_stray_text_only_is_overlooked_and_a_permission_is_needed_for_the_real_one() {
    let mut world = world(Rates::ideal());
    let agent = world.elevenlabs.agents.get_mut(AGENT_COLLECTIONS).unwrap();
    let wanted = json!({"text_only": true, "conversation": {"text_only": true}, "tts": null});
    assert_eq!(agents::forbidden_override(agent, &wanted), None);
    agent["platform_settings"]["overrides"] = json!({});
    let found = agents::forbidden_override(agent, &wanted);
    assert_eq!(found.as_deref(), Some("conversation.text_only"));
}

#[test]
fn a_session_may_be_too_long_or_break() {
    let mut world = world(Rates::ideal());
    let (mut session, _) = begin(&mut world);
    assert_eq!(session.deadline_ms, 600_000);
    assert_eq!(
        ending(&session.too_long()),
        ("max_duration_exceeded".to_owned(), 1000)
    );
    assert_eq!(
        ending(&session.take(&mut world, "{")),
        ("invalid_message".to_owned(), 1008)
    );
    let trap = |fault| Trap {
        operation: TURN.to_owned(),
        times: 1,
        fault,
    };
    world
        .requests
        .set_trap(trap(Fault::SessionError("llm_error".to_owned())));
    let acts = session.take(&mut world, &says("hola"));
    assert_eq!(ending(&acts), ("llm_error".to_owned(), 1002));
    world.requests.set_trap(trap(Fault::Hang));
    assert!(session.take(&mut world, &says("hola")).is_empty());
    assert_eq!(world.truth().requests[TURN].carried_out, 0);
}

#[test]
fn chance_breaks_and_corrects_turns() {
    let mut broken = world(Rates {
        session_error: 1.0,
        ..Rates::ideal()
    });
    let (mut session, _) = begin(&mut broken);
    let acts = session.take(&mut broken, &says("hola"));
    assert_eq!(ending(&acts), ("llm_timeout".to_owned(), 1002));
    let mut corrected = world(Rates {
        correction: 1.0,
        ..Rates::ideal()
    });
    let (mut session, _) = begin(&mut corrected);
    let acts = session.take(&mut corrected, &says("hola"));
    let last = frames(&acts).pop().unwrap()["agent_response_correction_event"].clone();
    assert_ne!(
        last["original_agent_response"],
        last["corrected_agent_response"]
    );
}

#[test]
fn the_truth_has_what_was_said_and_the_end_posts_a_webhook() {
    let mut world = world(Rates::ideal());
    let (mut session, _) = begin(&mut world);
    let update = json!({"type": "contextual_update", "text": "pagó ayer"}).to_string();
    assert!(session.take(&mut world, &update).is_empty());
    session.take(&mut world, &says("resumen"));
    session.end(&mut world, "Client disconnected");
    while let Some((_, step)) = world.take_next(u64::MAX) {
        world.happen(step);
    }
    let truth = world.truth();
    let conversation = &truth.conversations[0];
    assert_eq!(
        (conversation.status.as_str(), conversation.text_only),
        ("done", true)
    );
    assert_eq!(conversation.user_messages, ["resumen"]);
    assert_eq!(conversation.context, ["pagó ayer"]);
    assert!(conversation.agent_messages[1].ends_with("pagó ayer"));
    assert_eq!(truth.webhooks.len(), 1);
}
