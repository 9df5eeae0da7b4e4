//! Tests of what is an answer, and when it is whole.

use serde_json::json;

use super::error::TurnError;
use super::protocol::Act;
use super::protocol_tests::{Bench, NOTHING, answered, correction, part, response, sent, tool};

#[test]
fn an_answer_is_given_when_it_has_settled() {
    let mut bench = Bench::greeted();
    bench.ask("¿precio?");
    assert_eq!(bench.wait(2000), NOTHING);
    assert_eq!(bench.take(part(2, "start")), NOTHING);
    assert_eq!(bench.take(part(2, "delta")), NOTHING);
    assert_eq!(bench.take(response(2, " Cuesta 3. ")), NOTHING);
    assert_eq!(bench.take(part(2, "stop")), NOTHING);
    assert_eq!(bench.take(part(2, "delta")), NOTHING, "a straggler");
    assert_eq!(bench.wait(299), NOTHING);
    assert_eq!(bench.wait(1), [answered("Cuesta 3.")]);
    bench.ask("¿y luego?");
    assert_eq!(bench.take(response(2, "Cuesta 3.")), NOTHING, "said before");
    assert_eq!(bench.take(response(3, "Cuesta 4.")), NOTHING);
    assert_eq!(bench.wait(300), [answered("Cuesta 4.")]);
}

#[test]
fn a_correction_replaces_what_it_corrects() {
    let mut bench = Bench::greeted();
    bench.ask("¿precio?");
    bench.take(correction(1, "Hola.", "Buenas."));
    bench.take(response(2, "Un momento."));
    bench.take(response(3, "Cuesta 3."));
    bench.wait(200);
    bench.take(correction(2, "Un momento.", "Ya le digo."));
    bench.take(correction(3, "Cuesta", "Cuesta 4."));
    bench.take(correction(9, "Cuesta 4.", "Cuesta 5."));
    bench.take(correction(3, "Cuesta 5.", "..."));
    assert_eq!(bench.wait(299), NOTHING, "it settles anew");
    assert_eq!(bench.wait(1), [answered("Ya le digo.\n\nCuesta 5.")]);
}

#[test]
fn words_that_are_none_are_no_answer() {
    let mut bench = Bench::greeted();
    bench.ask("hola");
    for blank in ["", " ", "...", "…", " . "] {
        bench.take(response(2, blank));
    }
    assert_eq!(bench.wait(29_999), NOTHING);
    let late = TurnError::TimedOut("the agent's answer");
    assert_eq!(bench.wait(1), [Act::Answered(Err(late)), Act::Close]);
}

#[test]
fn signs_of_life_extend_patience_up_to_a_limit() {
    let mut bench = Bench::greeted();
    bench.ask("hola");
    bench.wait(29_000);
    bench.take(part(2, "start"));
    assert_eq!(bench.wait(29_000), NOTHING);
    bench.take(part(2, "delta"));
    assert_eq!(bench.wait(1_999), NOTHING);
    let late = TurnError::TimedOut("the agent's answer");
    assert_eq!(bench.wait(1), [Act::Answered(Err(late)), Act::Close]);
    let closed = Act::Answered(Err(TurnError::Closed));
    assert_eq!(bench.protocol.ask(bench.now(), "hola"), [closed]);
}

#[test]
fn an_agent_that_uses_a_tool_is_waited_for() {
    let mut bench = Bench::greeted();
    bench.ask("¿saldo?");
    bench.take(response(2, "Un momento."));
    bench.take(tool("agent_tool_request", "webhook"));
    bench.wait(4_000);
    assert_eq!(
        bench.take(tool("agent_tool_response", "webhook")),
        NOTHING,
        "and it goes on"
    );
    assert_eq!(bench.wait(9_000), NOTHING);
    // Of the same event id, as the tool is of the same turn.
    bench.take(response(2, "Su saldo es 3."));
    bench.take(response(2, "Su saldo es 3."));
    assert_eq!(bench.wait(300), [answered("Un momento.\n\nSu saldo es 3.")]);

    bench.ask("chao");
    bench.take(response(4, "Adiós."));
    bench.take(tool("agent_tool_request", "system"));
    assert_eq!(bench.wait(300), [answered("Adiós.")], "nothing follows");

    bench.ask("¿más?");
    bench.take(response(5, "Miro."));
    bench.take(tool("agent_tool_request", "mcp"));
    let usage = json!({"type": "context_usage", "context_usage_event": {"event_id": 5}});
    bench.take(usage);
    assert_eq!(bench.wait(300), [answered("Miro.")], "it says it is over");

    bench.ask("¿y?");
    bench.take(response(6, "Miro otra vez."));
    bench.take(tool("agent_tool_request", "webhook"));
    assert_eq!(bench.wait(9_999), NOTHING);
    assert_eq!(bench.wait(1), [answered("Miro otra vez.")], "long enough");
}

#[test]
fn an_agent_that_streams_or_types_is_waited_for() {
    let mut bench = Bench::greeted();
    bench.ask("¿precio?");
    bench.take(response(2, "Uno."));
    bench.take(part(2, "start"));
    assert_eq!(bench.wait(5_000), NOTHING, "of the same event id");
    bench.take(part(2, "delta"));
    assert_eq!(bench.wait(9_000), NOTHING);
    bench.take(part(2, "stop"));
    assert_eq!(bench.wait(299), NOTHING, "its words may come yet");
    bench.take(response(2, "Dos."));
    bench.take(part(3, "delta"));
    assert_eq!(bench.wait(9_000), NOTHING, "its start was not seen");
    bench.take(response(3, "Tres."));
    bench.take(part(3, "delta"));
    assert_eq!(bench.wait(9_000), NOTHING, "it has not stopped");
    bench.take(part(3, "stop"));
    assert_eq!(bench.wait(300), [answered("Uno.\n\nDos.\n\nTres.")]);

    let typing =
        |on: bool| json!({"type": "agent_typing", "agent_typing_event": {"is_typing": on}});
    bench.ask("¿y luego?");
    bench.take(typing(true));
    bench.take(response(4, "Uno."));
    assert_eq!(bench.wait(299), NOTHING);
    bench.take(typing(true));
    assert_eq!(bench.wait(9_000), NOTHING);
    bench.take(response(5, "Dos."));
    bench.take(typing(true));
    bench.take(typing(false));
    assert_eq!(bench.wait(300), [answered("Uno.\n\nDos.")]);

    for begun in [part(6, "start"), part(7, "delta"), typing(true)] {
        bench.ask("¿y?");
        bench.take(response(6, "Uno."));
        bench.take(begun);
        assert_eq!(bench.wait(9_999), NOTHING);
        assert_eq!(bench.wait(1), [answered("Uno.")], "long enough");
        bench = Bench::greeted();
    }
}

#[test]
fn a_tool_of_ours_does_not_exist_and_no_tool_is_approved() {
    let mut bench = Bench::greeted();
    bench.ask("hola");
    let call = json!({"type": "client_tool_call", "client_tool_call": {"tool_call_id": "c1"}});
    let refusal = json!({
        "type": "client_tool_result", "tool_call_id": "c1",
        "result": "not available in a chat", "is_error": true,
    });
    assert_eq!(bench.take(call), [sent(refusal)]);
    let call = json!({"tool_call_id": "c2", "state": "awaiting_approval"});
    let no =
        json!({"type": "mcp_tool_approval_result", "tool_call_id": "c2", "is_approved": false});
    let call = json!({"type": "mcp_tool_call", "mcp_tool_call": call});
    assert_eq!(bench.take(call), [sent(no)]);
    bench.take(response(2, "No puedo."));
    assert_eq!(bench.wait(300), [answered("No puedo.")]);
}
