//! The protocol of a text-only session, without the socket.
//!
//! A session takes one frame at a time and says what to do: frames to send, thinking to do, or how
//! to close. Source: PROVIDERS.md §2.5 and the vendor's AsyncAPI document.

use serde_json::{Value, json};

use super::{
    agents, calls,
    conversation::{Conversation, Medium, Status, TextLeg},
    signed_urls,
};
use crate::{
    fate::Draw,
    http::Call,
    requests::Fault,
    script::{self, Turn},
    world::{Step, World},
};

/// How an answer is cut into streamed parts, in characters.
const PART_CHARS: usize = 60;

/// WebSocket close codes that the provider uses.
const NORMAL: u16 = 1000;
const OPERATIONAL: u16 = 1002;
const CONTRACT: u16 = 1008;

/// What a session wants done, in order.
#[derive(Debug)]
pub(super) enum Act {
    Send(Value),
    /// Wait so long, in the world's milliseconds.
    Think(u64),
    Close {
        code: u16,
        reason: String,
    },
}

/// What the client asks for by the URL.
#[derive(Clone, Debug, Default)]
pub(super) struct Knock {
    pub(super) agent_id: String,
    pub(super) signature: Option<String>,
    pub(super) source: Option<String>,
    pub(super) version: Option<String>,
}

impl Knock {
    pub(super) fn of(call: &Call) -> Self {
        let query = |name: &str| call.query(name).map(str::to_owned);
        Self {
            agent_id: query("agent_id").unwrap_or_default(),
            signature: query("conversation_signature"),
            source: query("source"),
            version: query("version"),
        }
    }
}

/// A session under way.
pub(super) struct Session {
    conversation: usize,
    agent_id: String,
    variables: Value,
    event_id: u64,
    pings: u64,
    draw: Draw,
    /// When it is too long, in the world's milliseconds.
    pub(super) deadline_ms: u64,
}

/// An error and the end that follows.
fn failure(code: u16, error_type: &str, message: &str) -> Vec<Act> {
    let event = json!({
        "type": "error",
        "error_event": {
            "code": code, "message": message, "error_type": error_type,
            "reason": message, "debug_message": null, "details": {},
        },
    });
    let reason = message.to_owned();
    vec![Act::Send(event), Act::Close { code, reason }]
}

/// Lets a client in, or says why not.
pub(super) fn admit(world: &mut World, knock: &Knock) -> Result<(), Vec<Act>> {
    let Some(agent) = world.elevenlabs.agents.get(&knock.agent_id) else {
        let words = "The AI agent you are trying to reach does not exist.";
        return Err(failure(CONTRACT, "value_error", words));
    };
    let needs_signature = agent["platform_settings"]["auth"]["enable_auth"] == true;
    match &knock.signature {
        Some(signature) => signed_urls::check(world, signature, &knock.agent_id)
            .map_err(|words| failure(CONTRACT, "value_error", &words)),
        None if needs_signature => {
            let words = "This agent requires authorization: use a signed URL.";
            Err(failure(CONTRACT, "missing_fields", words))
        }
        None => Ok(()),
    }
}

impl Session {
    /// Begins a session by the client's first frame.
    pub(super) fn begin(
        world: &mut World,
        knock: &Knock,
        frame: &str,
    ) -> Result<(Self, Vec<Act>), Vec<Act>> {
        let first: Value = serde_json::from_str(frame).unwrap_or_default();
        if first["type"] != "conversation_initiation_client_data" {
            let words = "The first message must be conversation_initiation_client_data.";
            return Err(failure(CONTRACT, "invalid_message", words));
        }
        let agent = world.elevenlabs.agents.get(&knock.agent_id).cloned();
        let agent = agent.unwrap_or_default();
        let overrides = &first["conversation_config_override"];
        if let Some(path) = agents::forbidden_override(&agent, overrides) {
            let words = format!("Override for field '{path}' is not allowed by config.");
            return Err(failure(CONTRACT, "override_error", &words));
        }
        let mut variables = agent["conversation_config"]["agent"]["dynamic_variables"]
            ["dynamic_variable_placeholders"]
            .clone();
        if !variables.is_object() {
            variables = json!({});
        }
        if first["dynamic_variables"].is_object() {
            crate::merge::deep_merge(&mut variables, &first["dynamic_variables"]);
        }
        let greeting = greeting(&agent, overrides, &variables)?;
        Ok(Self::open(
            world, knock, &agent, &first, variables, greeting,
        ))
    }

    fn open(
        world: &mut World,
        knock: &Knock,
        agent: &Value,
        first: &Value,
        variables: Value,
        greeting: String,
    ) -> (Self, Vec<Act>) {
        let who = format!("session {}/{}", knock.agent_id, first["user_id"]);
        let name = format!("{who}/{}", world.nth(&who));
        let id = world
            .fate
            .draw("conversation ids", &name)
            .elevenlabs_id("conv_");
        let source = |given: &Option<String>, field: &str| {
            let told = first["source_info"][field].as_str().map(str::to_owned);
            given.clone().or(told)
        };
        let conversation = Conversation {
            id: id.clone(),
            agent_id: knock.agent_id.clone(),
            version_id: agent["version_id"].clone(),
            status: Status::InProgress,
            start_unix: world.clock.unix(),
            accepted_unix: Some(world.clock.unix()),
            duration_secs: 0,
            termination_reason: String::new(),
            user_id: first["user_id"].clone(),
            dynamic_variables: first["dynamic_variables"].clone(),
            config_override: first["conversation_config_override"].clone(),
            medium: Medium::Text(TextLeg {
                source: source(&knock.source, "source"),
                source_version: source(&knock.version, "version"),
                signed: knock.signature.is_some(),
                ..TextLeg::default()
            }),
            name: name.clone(),
        };
        let most = agent["conversation_config"]["conversation"]["max_duration_seconds"].as_u64();
        let most = most.unwrap_or(agents::MAX_DURATION_SECS);
        let mut session = Self {
            conversation: calls::add(world, conversation),
            agent_id: knock.agent_id.clone(),
            variables,
            event_id: 0,
            pings: 0,
            draw: world.fate.draw("session", &name),
            deadline_ms: world.clock.now_ms() + most * 1000,
        };
        let mut acts = vec![Act::Send(metadata(&id))];
        if !greeting.is_empty() {
            session.event_id += 1;
            acts.push(Act::Send(agent_response(&greeting, session.event_id)));
            session.note(world, true, greeting);
        }
        acts.push(session.ping());
        (session, acts)
    }

    /// Takes a frame of the client's.
    pub(super) fn take(&mut self, world: &mut World, frame: &str) -> Vec<Act> {
        let Ok(frame) = serde_json::from_str::<Value>(frame) else {
            return failure(CONTRACT, "invalid_message", "The message is not JSON.");
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match frame["type"].as_str() {
            Some("user_message") => self.answer(world, text(&frame["text"])),
            Some("multimodal_message") => self.answer(world, text(&frame["text"]["text"])),
            Some("contextual_update") => {
                let told = text(&frame["text"]);
                if let Some(leg) = self.leg(world) {
                    leg.context.push(told);
                }
                Vec::new()
            }
            Some("pong" | "user_activity" | "user_feedback" | "client_tool_result") => Vec::new(),
            _ if frame.get("user_audio_chunk").is_some() => Vec::new(),
            _ => failure(
                CONTRACT,
                "invalid_message",
                "The message type is not known.",
            ),
        }
    }

    /// One turn: the user has written.
    fn answer(&mut self, world: &mut World, said: String) -> Vec<Act> {
        let call = Call::noted(&format!("/v1/convai/conversation#{}", self.agent_id), &said);
        let now = world.clock.unix_ms();
        let ticket = world.requests.record(TURN, &call, now);
        let fault = world.requests.spring(TURN);
        let rates = world.options.rates.clone();
        let breaks = self.draw.chance(rates.session_error);
        let corrects = self.draw.chance(rates.correction);
        let mut think_ms = self.draw.within(rates.think_ms.times(1));
        match fault {
            Some(Fault::SessionError(kind)) => {
                return failure(OPERATIONAL, &kind, "The turn failed.");
            }
            Some(Fault::Hang) => return Vec::new(),
            Some(Fault::SlowMs(more_ms)) => think_ms += more_ms,
            _ if breaks => return failure(OPERATIONAL, "llm_timeout", "The LLM timed out."),
            _ => {}
        }
        self.event_id += 1;
        let context = self.leg(world).map(|leg| leg.context.clone());
        let answer = script::agent_reply(&said, &self.variables, &context.unwrap_or_default());
        self.note(world, false, said);
        self.note(world, true, answer.clone());
        world.requests.carried_out(ticket);
        if fault == Some(Fault::HangAfterWork) {
            return Vec::new();
        }
        let mut acts = vec![Act::Think(think_ms)];
        acts.extend(parts(&answer, self.event_id));
        acts.push(Act::Send(agent_response(&answer, self.event_id)));
        if corrects {
            acts.push(Act::Send(correction(&answer, self.event_id)));
        }
        acts
    }

    /// The provider's question whether the client is there.
    pub(super) fn ping(&mut self) -> Act {
        const MEASURED_MS: u64 = 20;
        self.pings += 1;
        let ping_ms = (self.pings > 1).then_some(MEASURED_MS);
        let event = json!({"event_id": self.pings, "ping_ms": ping_ms});
        Act::Send(json!({"type": "ping", "ping_event": event}))
    }

    /// The session has lasted as long as the agent permits.
    pub(super) fn too_long(&self) -> Vec<Act> {
        let words = "Max conversation duration exceeded.";
        failure(NORMAL, "max_duration_exceeded", words)
    }

    /// The socket is closed: the conversation will be analysed.
    pub(super) fn end(self, world: &mut World, reason: &str) {
        let now = world.clock.unix();
        let conversation = &mut world.elevenlabs.conversations[self.conversation];
        conversation.status = Status::Processing;
        conversation.duration_secs = now.saturating_sub(conversation.start_unix);
        conversation.termination_reason = reason.to_owned();
        let analysis_ms = world.options.rates.analysis_secs.times(1000);
        let name = &world.elevenlabs.conversations[self.conversation].name;
        let wait_ms = world.fate.draw("analysis", name).within(analysis_ms);
        let conversation = self.conversation;
        world.plan_in(wait_ms, Step::Analysed { conversation });
    }

    fn leg<'a>(&self, world: &'a mut World) -> Option<&'a mut TextLeg> {
        world
            .elevenlabs
            .conversations
            .get_mut(self.conversation)?
            .text_mut()
    }

    fn note(&self, world: &mut World, by_agent: bool, text: String) {
        let began = world.elevenlabs.conversations[self.conversation].start_unix;
        let at_secs = world.clock.unix().saturating_sub(began);
        if let Some(leg) = self.leg(world) {
            leg.turns.push(Turn {
                by_agent,
                text,
                at_secs,
            });
        }
    }
}

/// The operation under which turns are counted and trapped.
pub(super) const TURN: &str = "elevenlabs.session_turn";

fn greeting(agent: &Value, overrides: &Value, variables: &Value) -> Result<String, Vec<Act>> {
    let own = agent["conversation_config"]["agent"]["first_message"].as_str();
    let given = overrides["agent"]["first_message"].as_str();
    let template = given.or(own).unwrap_or_default();
    script::render(template, variables).map_err(|name| {
        let words = format!("Missing required dynamic variables in first message: {{'{name}'}}");
        failure(CONTRACT, "missing_dynamic_variable", &words)
    })
}

fn metadata(conversation_id: &str) -> Value {
    json!({
        "type": "conversation_initiation_metadata",
        "conversation_initiation_metadata_event": {
            "conversation_id": conversation_id,
            "agent_output_audio_format": "pcm_16000",
            "user_input_audio_format": "pcm_16000",
        },
    })
}

fn agent_response(text: &str, event_id: u64) -> Value {
    let event = json!({"agent_response": text, "event_id": event_id});
    json!({"type": "agent_response", "agent_response_event": event})
}

fn correction(text: &str, event_id: u64) -> Value {
    json!({
        "type": "agent_response_correction",
        "agent_response_correction_event": {
            "original_agent_response": text,
            "corrected_agent_response": script::corrected(text),
            "event_id": event_id,
        },
    })
}

/// An answer as it is streamed: a start, some text, a stop.
fn parts(text: &str, event_id: u64) -> Vec<Act> {
    let part = |kind: &str, text: &str| {
        let part = json!({"text": text, "type": kind, "event_id": event_id});
        Act::Send(json!({"type": "agent_chat_response_part", "text_response_part": part}))
    };
    let letters: Vec<char> = text.chars().collect();
    let mut parts = vec![part("start", "")];
    for piece in letters.chunks(PART_CHARS) {
        parts.push(part("delta", &piece.iter().collect::<String>()));
    }
    parts.push(part("stop", ""));
    parts
}
