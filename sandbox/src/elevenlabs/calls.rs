//! The life of a call, from a slot in its batch to the webhook that tells of it.
//!
//! ```text
//! pending → dispatched → initiated ┬→ in_progress ┬→ completed
//!                                  │              └→ voicemail
//!                                  └→ failed
//! ```
//! A step that finds its call cancelled meanwhile only gives its slot back.

use serde_json::{Value, json};

use super::{
    agents,
    batches::{BatchStatus, RecipientStatus},
    conversation::{CallLeg, Conversation, Medium, Status},
    errors::{self, Findings},
    phone_numbers, post_call,
};
use crate::{
    CallOutcome,
    http::{Answer, Call, Reply},
    outcome::CallFate,
    twilio,
    world::{Step, World},
};

/// How long the provider takes from a submit to the first call.
const START_MS: u64 = 1_000;

/// How long a telephone rings in a single outbound call.
const RINGING_TIMEOUT_SECS: u64 = 60;

/// Plans the beginning of a batch for `scheduled_unix`, or as soon as the provider can.
pub(super) fn plan_start(world: &mut World, batch: usize, scheduled_unix: u64) {
    let soonest = world.clock.now_ms() + START_MS;
    let at = world.clock.when_unix(scheduled_unix).max(soonest);
    world.plan_at(at, Step::StartBatch { batch });
}

/// Fails a batch that the provider does not even begin.
pub(super) fn fail_batch(world: &mut World, batch: usize) {
    let now = world.clock.unix();
    let batch = &mut world.elevenlabs.batches[batch];
    batch.status = BatchStatus::Failed;
    batch.updated_unix = now;
    for recipient in &mut batch.recipients {
        recipient.set(RecipientStatus::Failed, now);
    }
}

/// [`Step::StartBatch`]
pub(crate) fn start(world: &mut World, at: usize) {
    let now = world.clock.unix();
    let batch = &mut world.elevenlabs.batches[at];
    if batch.status == BatchStatus::Pending {
        batch.status = BatchStatus::InProgress;
        batch.updated_unix = now;
        fill(world, at);
    }
}

/// Gives free slots to those who wait, and ends the batch when no one is left.
fn fill(world: &mut World, at: usize) {
    let now = world.clock.unix();
    let fate = world.fate;
    let batch = &mut world.elevenlabs.batches[at];
    let mut dispatched = Vec::new();
    while batch.active < batch.concurrency && batch.next < batch.recipients.len() {
        let nth = batch.next;
        batch.next += 1;
        let recipient = &mut batch.recipients[nth];
        if recipient.status == RecipientStatus::Pending {
            recipient.set(RecipientStatus::Dispatched, now);
            batch.active += 1;
            let name = format!("{}/{nth}/{}", batch.key, recipient.attempt);
            let wait_ms = fate.draw("dispatch", &name).within(100..=900);
            dispatched.push((wait_ms, nth, recipient.attempt));
        }
    }
    batch.updated_unix = now;
    let all_done = batch.recipients.iter().all(|r| r.status.is_final());
    if batch.status == BatchStatus::InProgress && all_done {
        batch.status = BatchStatus::Completed;
    }
    for (wait_ms, recipient, attempt) in dispatched {
        world.plan_in(
            wait_ms,
            Step::Dial {
                batch: at,
                recipient,
                attempt,
            },
        );
    }
}

/// Gives a slot back.
fn release(world: &mut World, batch: usize) {
    world.elevenlabs.batches[batch].active -= 1;
    fill(world, batch);
}

/// [`Step::Dial`]
pub(crate) fn dial(world: &mut World, at: usize, nth: usize, attempt: u32) {
    let now = world.clock.unix();
    let batch = &mut world.elevenlabs.batches[at];
    let recipient = &mut batch.recipients[nth];
    if recipient.status != RecipientStatus::Dispatched || recipient.attempt != attempt {
        return release(world, at);
    }
    recipient.set(RecipientStatus::Initiated, now);
    recipient.placed += 1;
    let number = recipient.phone_number.clone().unwrap_or_default();
    let order = Order {
        name: format!("{}/{nth}/{attempt}", batch.key),
        batch: Some((at, nth)),
        agent_id: batch.agent_id.clone(),
        phone_number_id: text(&batch.phone_number_id),
        agent_number: batch.agent_number.clone(),
        sip_trunk: batch.phone_provider == "sip_trunk",
        ringing_timeout_secs: batch.ringing_timeout_secs,
        client_data: recipient.client_data.clone(),
        number,
    };
    let conversation = place(world, order);
    world.elevenlabs.batches[at].recipients[nth].conversation = Some(conversation);
}

/// A call to be placed.
struct Order {
    name: String,
    batch: Option<(usize, usize)>,
    agent_id: String,
    phone_number_id: String,
    agent_number: String,
    sip_trunk: bool,
    ringing_timeout_secs: u64,
    client_data: Value,
    number: String,
}

/// Places a call: the telephone begins to ring.
fn place(world: &mut World, order: Order) -> usize {
    let reachable = order.number.starts_with('+') && order.number.len() > 7;
    let forced = world.elevenlabs.forced.get(&order.number).copied();
    let forced = forced.or((!reachable).then_some(CallOutcome::Unknown));
    let fate = CallFate::of(
        &order.name,
        world.fate,
        &world.options.rates,
        order.ringing_timeout_secs,
        forced,
    );
    let mut ids = world.fate.draw("conversation ids", &order.name);
    let agent = world.elevenlabs.agents.get(&order.agent_id);
    let conversation = Conversation {
        id: ids.elevenlabs_id("conv_"),
        version_id: agent.map_or(Value::Null, |a| a["version_id"].clone()),
        agent_id: order.agent_id,
        status: Status::Initiated,
        start_unix: world.clock.unix(),
        accepted_unix: None,
        duration_secs: 0,
        termination_reason: String::new(),
        user_id: order.client_data["user_id"].clone(),
        dynamic_variables: order.client_data["dynamic_variables"].clone(),
        config_override: order.client_data["conversation_config_override"].clone(),
        medium: Medium::Call(Box::new(CallLeg {
            fate,
            batch: order.batch,
            phone_number: order.number,
            agent_number: order.agent_number,
            phone_number_id: order.phone_number_id,
            sip_trunk: order.sip_trunk,
            call_sid: ids.twilio_sid("CA"),
            stream_sid: ids.twilio_sid("MZ"),
            sequence: 0,
        })),
        name: order.name,
    };
    let at = add(world, conversation);
    progress(world, at, "initiated");
    progress(world, at, "ringing");
    let wait_ms = fate.dial_ms + fate.ring_ms;
    let next = if fate.outcome.connects() {
        Step::PickUp { conversation: at }
    } else {
        Step::GiveUp { conversation: at }
    };
    world.plan_in(wait_ms, next);
    at
}

/// Adds a conversation to the list.
pub(super) fn add(world: &mut World, conversation: Conversation) -> usize {
    let state = &mut world.elevenlabs;
    let at = state.conversations.len();
    state.conversation_by_id.insert(conversation.id.clone(), at);
    state.conversations.push(conversation);
    at
}

/// Posts Twilio's voice callback for a call, when the options ask for it.
fn progress(world: &mut World, at: usize, status: &'static str) {
    if !world.options.voice_callbacks {
        return;
    }
    let conversation = &mut world.elevenlabs.conversations[at];
    let duration_secs = conversation.duration_secs;
    let Medium::Call(call) = &mut conversation.medium else {
        return;
    };
    let sequence = call.sequence;
    call.sequence += 1;
    let leg = twilio::voice::Leg {
        call_sid: call.call_sid.clone(),
        from: call.agent_number.clone(),
        to: call.phone_number.clone(),
        status,
        sequence,
        duration_secs,
        sip_code: call.fate.outcome.sip().0,
    };
    twilio::voice::post_progress(world, leg);
}

/// Moves the recipient of a conversation, unless the batch was cancelled or they were called again.
fn move_recipient(world: &mut World, at: usize, status: RecipientStatus) -> Option<usize> {
    let now = world.clock.unix();
    let (batch, nth) = world.elevenlabs.conversations[at].call()?.batch?;
    let recipient = &mut world.elevenlabs.batches[batch].recipients[nth];
    if recipient.conversation == Some(at) && !recipient.status.is_final() {
        recipient.set(status, now);
    }
    Some(batch)
}

/// The outcome of a call that is still alive; gives the slot of a dead one back.
fn alive(world: &mut World, at: usize) -> Option<CallFate> {
    let conversation = &world.elevenlabs.conversations[at];
    let call = conversation.call()?;
    let (fate, batch) = (call.fate, call.batch);
    if !conversation.status.is_over() {
        return Some(fate);
    }
    if let Some((batch, _)) = batch {
        release(world, batch);
    }
    None
}

/// [`Step::PickUp`]
pub(crate) fn pick_up(world: &mut World, at: usize) {
    let Some(fate) = alive(world, at) else { return };
    let now = world.clock.unix();
    let conversation = &mut world.elevenlabs.conversations[at];
    conversation.status = Status::InProgress;
    conversation.accepted_unix = Some(now);
    move_recipient(world, at, RecipientStatus::InProgress);
    progress(world, at, "in-progress");
    world.plan_in(fate.talk_secs * 1000, Step::HangUp { conversation: at });
}

/// [`Step::GiveUp`]
pub(crate) fn give_up(world: &mut World, at: usize) {
    let Some(fate) = alive(world, at) else { return };
    let conversation = &mut world.elevenlabs.conversations[at];
    conversation.status = Status::Failed;
    conversation.termination_reason = format!("Call {}", fate.outcome.failure_reason());
    progress(world, at, fate.outcome.twilio_status());
    post_call::failure(world, at);
    if let Some(batch) = move_recipient(world, at, RecipientStatus::Failed) {
        release(world, batch);
    }
}

/// [`Step::HangUp`]
pub(crate) fn hang_up(world: &mut World, at: usize) {
    let Some(fate) = alive(world, at) else { return };
    let conversation = &mut world.elevenlabs.conversations[at];
    conversation.status = Status::Processing;
    conversation.duration_secs = fate.talk_secs;
    let (status, reason) = match fate.outcome {
        CallOutcome::Voicemail => (
            RecipientStatus::Voicemail,
            "voicemail_detection tool was called.",
        ),
        _ => (RecipientStatus::Completed, "end_call tool was called."),
    };
    conversation.termination_reason = reason.to_owned();
    progress(world, at, "completed");
    world.plan_in(fate.analysis_ms, Step::Analysed { conversation: at });
    if let Some(batch) = move_recipient(world, at, status) {
        release(world, batch);
    }
}

/// [`Step::Analysed`]
pub(crate) fn analysed(world: &mut World, at: usize) {
    let conversation = &mut world.elevenlabs.conversations[at];
    conversation.status = Status::Done;
    post_call::done(world, at);
}

/// `POST /v1/convai/twilio/outbound-call`
pub(super) fn outbound_call(world: &mut World, call: &Call) -> Reply {
    let body = errors::object(&call.body)?;
    let mut findings = Findings::default();
    for name in ["agent_id", "agent_phone_number_id", "to_number"] {
        if !body[name].is_string() {
            findings.add(json!(["body", name]), "Field required", "missing");
        }
    }
    findings.verdict()?;
    let agent_id = text(&body["agent_id"]);
    agents::find(world, &agent_id)?;
    let phone_number_id = text(&body["agent_phone_number_id"]);
    let request_id = world.request_id();
    let found = phone_numbers::find(world, &phone_number_id).cloned();
    let found =
        found.ok_or_else(|| errors::not_found("phone_number", &phone_number_id, &request_id))?;
    let number = text(&body["to_number"]);
    let name = format!(
        "outbound {number}/{}",
        world.nth(&format!("outbound {number}"))
    );
    let order = Order {
        name,
        batch: None,
        agent_id,
        phone_number_id,
        agent_number: text(&found["phone_number"]),
        sip_trunk: false,
        ringing_timeout_secs: RINGING_TIMEOUT_SECS,
        client_data: body["conversation_initiation_client_data"].clone(),
        number,
    };
    let at = place(world, order);
    let conversation = &world.elevenlabs.conversations[at];
    let answer = json!({
        "success": true,
        "message": "Outbound call initiated",
        "conversation_id": conversation.id,
        "callSid": conversation.call().map(|c| &c.call_sid),
    });
    Ok(Answer::json(200, &answer))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
