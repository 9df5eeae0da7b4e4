//! Tests of a session's protocol, without a socket and without waiting.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Timing;
use super::error::TurnError;
use super::protocol::{Act, Protocol};

const TIMING: Timing = Timing {
    connect: Duration::ZERO,
    opening: Duration::from_secs(10),
    greeting_known: Duration::from_secs(10),
    greeting: Duration::from_millis(1500),
    turn: Duration::from_secs(60),
    silence: Duration::from_secs(30),
    pause: Duration::from_secs(10),
    settling: Duration::from_millis(300),
    write: Duration::ZERO,
    goodbye: Duration::ZERO,
};

/// A session and the time, in milliseconds since our first frame.
pub(super) struct Bench {
    pub(super) protocol: Protocol,
    began: Instant,
    at_ms: u64,
}

impl Bench {
    /// A session of which it is not known whether the agent greets.
    pub(super) fn new(context: Option<&str>) -> Self {
        Self::of(None, context)
    }

    pub(super) fn of(greets: Option<bool>, context: Option<&str>) -> Self {
        let began = Instant::now();
        let protocol = Protocol::new(began, TIMING, greets, context.map(str::to_owned));
        Self {
            protocol,
            began,
            at_ms: 0,
        }
    }

    /// A session that is ready, its greeting heard as event 1.
    pub(super) fn greeted() -> Self {
        let mut bench = Self::new(None);
        assert_eq!(bench.take(metadata()), []);
        assert_eq!(bench.take(response(1, "Hola.")), [ready()]);
        bench
    }

    /// A session that is ready, without a greeting.
    fn ungreeted() -> Self {
        let mut bench = Self::new(None);
        bench.take(metadata());
        assert_eq!(bench.wait(1500), [ready()]);
        bench
    }

    pub(super) fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.at_ms)
    }

    /// Time passes, and then the clock is looked at.
    pub(super) fn wait(&mut self, ms: u64) -> Vec<Act> {
        self.at_ms += ms;
        self.protocol.tick(self.now())
    }

    pub(super) fn take(&mut self, frame: Value) -> Vec<Act> {
        self.protocol.take(self.now(), &frame.to_string())
    }

    pub(super) fn ask(&mut self, text: &str) {
        let sent = json!({"type": "user_message", "text": text}).to_string();
        assert_eq!(self.protocol.ask(self.now(), text), [Act::Send(sent)]);
    }

    fn due_ms(&self) -> Option<u128> {
        let due = self.protocol.due()?;
        Some((due - self.began).as_millis())
    }
}

pub(super) fn metadata() -> Value {
    json!({
        "type": "conversation_initiation_metadata",
        "conversation_initiation_metadata_event": {"conversation_id": "conv_1"},
    })
}

pub(super) fn response(event_id: i64, text: &str) -> Value {
    let event = json!({"agent_response": text, "event_id": event_id});
    json!({"type": "agent_response", "agent_response_event": event})
}

pub(super) fn part(event_id: i64, kind: &str) -> Value {
    let part = json!({"text": "x", "type": kind, "event_id": event_id});
    json!({"type": "agent_chat_response_part", "text_response_part": part})
}

pub(super) fn correction(event_id: i64, original: &str, corrected: &str) -> Value {
    let event = json!({
        "original_agent_response": original, "corrected_agent_response": corrected,
        "event_id": event_id,
    });
    json!({"type": "agent_response_correction", "agent_response_correction_event": event})
}

pub(super) fn tool(kind: &str, tool_type: &str) -> Value {
    let tool = json!({"tool_name": "t", "tool_call_id": "c", "tool_type": tool_type});
    json!({"type": kind, kind: tool})
}

pub(super) fn failure(error_type: &str, code: u16) -> Value {
    let event = json!({"code": code, "error_type": error_type, "message": "words"});
    json!({"type": "error", "error_event": event})
}

pub(super) fn failed(error_type: &str, code: u16) -> TurnError {
    TurnError::Session {
        error_type: error_type.to_owned(),
        code,
        message: "words".to_owned(),
    }
}

pub(super) fn ready() -> Act {
    Act::Opened(Ok("conv_1".to_owned()))
}

pub(super) fn answered(text: &str) -> Act {
    Act::Answered(Ok(text.to_owned()))
}

pub(super) fn sent(frame: Value) -> Act {
    Act::Send(frame.to_string())
}

pub(super) const NOTHING: [Act; 0] = [];

#[test]
fn a_session_is_ready_when_the_greeting_has_been_heard() {
    let mut bench = Bench::new(Some("habló ayer"));
    let update = json!({"type": "contextual_update", "text": "habló ayer"});
    assert_eq!(bench.take(metadata()), [sent(update)]);
    let ping = json!({"type": "ping", "ping_event": {"event_id": 7, "ping_ms": null}});
    let pong = json!({"type": "pong", "event_id": 7});
    assert_eq!(bench.take(ping), [sent(pong)], "which tells nothing");
    assert_eq!(bench.wait(1400), NOTHING);
    assert_eq!(bench.take(part(1, "start")), NOTHING);
    assert_eq!(bench.wait(5000), NOTHING, "it has begun to greet");
    assert_eq!(bench.take(response(1, "Hola.")), [ready()]);
    assert_eq!(bench.due_ms(), None);
}

#[test]
fn a_session_is_ready_when_no_greeting_has_come() {
    let mut bench = Bench::new(Some(" "));
    assert_eq!(bench.take(metadata()), NOTHING, "nothing to tell");
    assert_eq!(bench.take(response(1, "...")), NOTHING);
    assert_eq!(bench.wait(1499), NOTHING);
    assert_eq!(bench.wait(1), [ready()]);
    let mut bench = Bench::new(None);
    bench.take(metadata());
    bench.take(part(1, "start"));
    assert_eq!(bench.wait(9_999), NOTHING);
    assert_eq!(bench.wait(1), [ready()], "begun, and never finished");
}

#[test]
fn a_session_that_is_not_opened_in_time_is_none() {
    let mut bench = Bench::new(None);
    assert_eq!(bench.wait(9_999), NOTHING);
    let late = TurnError::TimedOut("the session's opening");
    assert_eq!(bench.wait(1), [Act::Opened(Err(late)), Act::Close]);
    assert_eq!(bench.take(metadata()), NOTHING);
    let mut bench = Bench::new(None);
    let refused = failed("override_error", 1008);
    assert_eq!(
        bench.take(failure("override_error", 1008)),
        [Act::Opened(Err(refused)), Act::Close]
    );
}

#[test]
fn a_late_greeting_is_no_answer() {
    let mut bench = Bench::ungreeted();
    bench.take(response(1, "Hola."));
    bench.ask("¿precio?");
    bench.take(response(2, "Cuesta 3."));
    assert_eq!(bench.wait(300), [answered("Cuesta 3.")], "heard in between");

    let mut bench = Bench::ungreeted();
    bench.take(part(1, "start"));
    bench.ask("¿precio?");
    bench.take(part(1, "delta"));
    bench.take(response(1, "Hola."));
    bench.take(response(2, "Cuesta 3."));
    bench.wait(1_499);
    assert_eq!(bench.wait(1), [answered("Cuesta 3.")], "begun in between");

    let mut bench = Bench::ungreeted();
    bench.ask("¿precio?");
    bench.take(response(1, "Hola."));
    assert_eq!(bench.wait(1_400), NOTHING, "it may be the greeting");
    bench.take(part(2, "start"));
    assert_eq!(bench.wait(5_000), NOTHING);
    bench.take(response(2, "Cuesta 3."));
    assert_eq!(bench.wait(1_499), NOTHING);
    let all = answered("Hola.\n\nCuesta 3.");
    assert_eq!(
        bench.wait(1),
        [all],
        "it may be the answer: nothing is lost"
    );
    bench.ask("¿y luego?");
    bench.take(response(3, "Uno."));
    bench.take(response(4, "Dos."));
    assert_eq!(bench.wait(300), [answered("Uno.\n\nDos.")], "no more doubt");
}

#[test]
fn a_greeting_that_must_come_is_waited_for() {
    for late_ms in [0, 3_000, 9_999] {
        let mut bench = Bench::of(Some(true), None);
        assert_eq!(bench.wait(5_000), NOTHING);
        bench.take(metadata());
        assert_eq!(bench.wait(late_ms), NOTHING);
        assert_eq!(bench.take(response(1, "Hola.")), [ready()], "{late_ms}");
        bench.ask("¿precio?");
        bench.take(response(2, "Uno."));
        bench.wait(250);
        bench.take(response(3, "Dos."));
        assert_eq!(bench.wait(300), [answered("Uno.\n\nDos.")]);
    }
    let mut bench = Bench::of(Some(true), None);
    bench.take(metadata());
    assert_eq!(bench.wait(10_000), [ready()], "it does not come");
    bench.ask("¿precio?");
    bench.take(response(1, "Hola."));
    bench.wait(1_499);
    bench.take(response(2, "Cuesta 3."));
    assert_eq!(bench.wait(1_500), [answered("Hola.\n\nCuesta 3.")]);
}

#[test]
fn an_agent_without_a_greeting_is_not_waited_for() {
    let mut bench = Bench::of(Some(false), Some("habló ayer"));
    let update = json!({"type": "contextual_update", "text": "habló ayer"});
    assert_eq!(bench.take(metadata()), [sent(update), ready()]);
    bench.ask("¿precio?");
    for (event_id, text) in [(1, "Uno."), (2, "Dos."), (3, "Tres.")] {
        assert_eq!(bench.wait(250), NOTHING);
        bench.take(response(event_id, text));
    }
    assert_eq!(bench.wait(299), NOTHING);
    assert_eq!(bench.wait(1), [answered("Uno.\n\nDos.\n\nTres.")]);
}

#[test]
fn words_after_a_turn_are_told_to_be_lost() {
    let mut bench = Bench::ungreeted();
    assert_eq!(bench.take(response(1, "Hola.")), NOTHING, "a greeting");
    bench.ask("¿precio?");
    bench.take(response(2, "Uno."));
    bench.wait(300);
    assert_eq!(bench.take(response(2, "Uno.")), NOTHING, "it was not lost");
    assert_eq!(bench.take(response(3, "...")), NOTHING, "no words");
    assert_eq!(bench.take(response(4, "Dos.")), [Act::Lost]);
    bench.take(part(5, "start"));
    bench.ask("¿y luego?");
    assert_eq!(
        bench.take(response(5, "Tres.")),
        [Act::Lost],
        "begun before"
    );
    bench.take(response(6, "Cuatro."));
    assert_eq!(bench.wait(300), [answered("Cuatro.")]);
}

#[test]
fn what_an_unasked_agent_says_answers_nothing() {
    let mut bench = Bench::greeted();
    assert_eq!(bench.take(response(2, "¿Sigue ahí?")), NOTHING);
    assert_eq!(bench.take(part(3, "start")), NOTHING);
    bench.ask("sí");
    bench.take(response(3, "¿Hola?"));
    assert_eq!(bench.due_ms(), Some(30_000), "still waiting");
    bench.take(response(4, "Dígame."));
    assert_eq!(bench.wait(300), [answered("Dígame.")]);
}

#[test]
fn an_error_ends_the_turn_and_the_session() {
    let mut bench = Bench::greeted();
    bench.ask("hola");
    bench.take(part(2, "start"));
    let error = Act::Answered(Err(failed("llm_timeout", 1002)));
    assert_eq!(
        bench.take(failure("llm_timeout", 1002)),
        [error, Act::Close]
    );
    assert_eq!(bench.protocol.fail(TurnError::Closed), NOTHING);
    assert_eq!(bench.due_ms(), None);

    let mut bench = Bench::greeted();
    bench.ask("hola");
    bench.take(response(2, "Adiós."));
    assert_eq!(
        bench.protocol.fail(TurnError::Closed),
        [answered("Adiós."), Act::Close],
        "it was said"
    );

    let mut bench = Bench::greeted();
    assert_eq!(
        bench.take(failure("max_duration_exceeded", 1000)),
        [Act::Close]
    );
}

#[test]
fn a_turn_that_was_given_up_ends_the_session() {
    let mut bench = Bench::greeted();
    bench.ask("uno");
    let closed = Act::Answered(Err(TurnError::Closed));
    assert_eq!(
        bench.protocol.ask(bench.now(), "dos"),
        [closed, Act::Close],
        "its answer may still come"
    );
}

#[test]
fn the_ids_that_are_remembered_are_limited() {
    let mut bench = Bench::greeted();
    for id in 2..=1_000 {
        bench.take(response(id, "¿Sigue ahí?"));
    }
    bench.ask("sí");
    bench.take(response(1_000, "¿Sigue ahí?"));
    for id in 1_001..=1_300 {
        bench.take(part(id, "start"));
    }
    bench.take(response(1_300, "Dígame."));
    assert_eq!(bench.wait(300), [answered("Dígame.")]);
}
