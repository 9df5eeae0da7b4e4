//! Taking the world in hand at run time: `POST /sandbox/control`, and the same from Rust.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    CallOutcome, Misbehaviour, Rates, WebhookKind,
    driver::Shared,
    elevenlabs,
    merge::deep_merge,
    phones::{Channel, Letter},
    requests::{Fault, Trap},
    webhooks,
    world::{Step, World},
};

/// What to change, and what to do. Everything is optional and is done in the order of the fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Where the service takes its webhooks from now on; also its public address then.
    pub webhook_base: Option<String>,
    /// The service's public address from now on, over which Twilio signs.
    pub public_url: Option<String>,
    /// New values for some of [`Rates`], by name.
    pub rates: Option<Value>,
    /// How often some kinds of webhook misbehave, whatever the rates say.
    pub webhook_rates: BTreeMap<WebhookKind, Misbehaviour>,
    /// Faults for the next requests of some operations.
    pub script: Vec<Scripted>,
    /// How every call to some numbers turns out, from now on; `null` leaves it to chance again.
    pub calls: BTreeMap<String, Option<CallOutcome>>,
    /// The Twilio error of every message to some numbers, from now on; `null` ends it.
    pub messages: BTreeMap<String, Option<u32>>,
    /// More agents.
    pub agents: Vec<String>,
    /// Numbers whose WhatsApp window is open from now on, as if they had just written.
    pub open_window: Vec<String>,
    /// Numbers whose WhatsApp window is closed, as if they had never written.
    pub close_window: Vec<String>,
    /// Webhooks wait (`true`), or go on (`false`).
    pub pause_webhooks: Option<bool>,
    /// People write to us.
    pub inbound: Vec<Inbound>,
    /// Move the clock on by so many seconds; all that is due by then happens.
    pub advance_secs: Option<f64>,
    /// Send every pending webhook now, and let nothing else happen.
    pub fire_webhooks: bool,
    /// Let everything happen until nothing is left to happen.
    pub settle: bool,
}

/// A fault for the next requests of an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scripted {
    /// The operation, as in [`crate::Truth::requests`]; `*` is any.
    pub operation: String,
    /// How many requests; 1 if absent.
    #[serde(default = "once")]
    pub times: u32,
    /// What goes wrong with them.
    pub fault: Fault,
}

fn once() -> u32 {
    1
}

/// A message from a person.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inbound {
    /// How it comes.
    pub channel: Channel,
    /// The person's number, in E.164.
    pub from: String,
    /// The service's number; its usual one if absent.
    pub to: Option<String>,
    /// What they say.
    pub body: String,
    /// Their WhatsApp name.
    pub profile_name: Option<String>,
    /// The type of a file they send, such as `image/png`.
    pub media: Option<String>,
    /// Latitude and longitude of a place they send.
    pub location: Option<(f64, f64)>,
    /// The payload of a button they press; `body` is its text.
    pub button_payload: Option<String>,
    /// The message of ours that they reply to.
    pub reply_to_sid: Option<String>,
    /// How long they wait, in milliseconds of the world's time.
    pub delay_ms: u64,
}

/// What a [`Control`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many things happened before this was answered.
    pub happened: usize,
    /// How many are still to happen, parked webhooks included.
    pub pending: usize,
}

/// Carries a control out; an error is a sentence for the caller.
pub(crate) async fn apply(shared: &Arc<Shared>, control: Control) -> Result<Report, String> {
    let advance_ms = control.advance_secs.map(|secs| (secs * 1000.0) as u64);
    let (fire, settle) = (control.fire_webhooks, control.settle);
    arrange(&mut shared.lock(), control)?;
    shared.wake.notify_one();
    let mut happened = 0;
    if let Some(by_ms) = advance_ms {
        happened += shared.advance(by_ms).await;
    }
    if fire {
        happened += shared.fire_webhooks().await;
    }
    if settle {
        happened += shared.settle().await;
    }
    let world = shared.lock();
    let pending = world.planned() + world.postman.parked();
    Ok(Report { happened, pending })
}

/// Everything of a control that takes no time.
fn arrange(world: &mut World, control: Control) -> Result<(), String> {
    // The only part that can be wrong comes first, so that a mistake leaves nothing half done.
    if let Some(patch) = &control.rates {
        world.options.rates = patched(&world.options.rates, patch)?;
    }
    if let Some(base) = control.webhook_base {
        world.options.webhook_base = base;
        world.options.public_url = None;
    }
    if control.public_url.is_some() {
        world.options.public_url = control.public_url;
    }
    for (kind, how) in control.webhook_rates {
        world.postman.set_misbehaviour(kind, how);
    }
    for Scripted {
        operation,
        times,
        fault,
    } in control.script
    {
        world.requests.set_trap(Trap {
            operation,
            times,
            fault,
        });
    }
    for (number, outcome) in control.calls {
        set(&mut world.elevenlabs.forced, number, outcome);
    }
    for (number, code) in control.messages {
        set(&mut world.twilio.forced, number, code);
    }
    let (fate, now) = (world.fate, world.clock.unix());
    for id in control.agents {
        let greeting = "Hola, ¿en qué puedo ayudarle?";
        let agent = elevenlabs::agents::agent(&id, "Agente", greeting, false, fate, now);
        world.elevenlabs.agents.insert(id, agent);
    }
    for number in control.open_window {
        world.phones.open_window(&number, now);
    }
    for number in control.close_window {
        world.phones.close_window(&number);
    }
    match control.pause_webhooks {
        Some(true) => world.postman.pause(),
        Some(false) => webhooks::resume(world),
        None => {}
    }
    for inbound in control.inbound {
        let delay_ms = inbound.delay_ms;
        world.plan_in(delay_ms, Step::Write(Box::new(inbound.into())));
    }
    Ok(())
}

fn set<T>(table: &mut std::collections::HashMap<String, T>, key: String, value: Option<T>) {
    match value {
        Some(value) => drop(table.insert(key, value)),
        None => drop(table.remove(&key)),
    }
}

/// The rates with some of them changed. A name that does not exist is an error.
fn patched(rates: &Rates, patch: &Value) -> Result<Rates, String> {
    let mut all = serde_json::to_value(rates).map_err(|error| error.to_string())?;
    deep_merge(&mut all, patch);
    let rates: Rates = serde_json::from_value(all).map_err(|error| error.to_string())?;
    match rates.problem() {
        Some(problem) => Err(problem),
        None => Ok(rates),
    }
}

impl From<Inbound> for Letter {
    fn from(inbound: Inbound) -> Self {
        let number = inbound.from.trim_start_matches("whatsapp:");
        let digits = number.trim_start_matches('+');
        Self {
            channel: inbound.channel,
            number: format!("+{digits}"),
            to: inbound.to,
            body: inbound.body,
            profile_name: inbound.profile_name,
            media: inbound.media,
            location: inbound.location,
            button_payload: inbound.button_payload,
            reply_to_sid: inbound.reply_to_sid,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn some_rates_change_and_unknown_ones_are_refused() {
        let rates = patched(
            &Rates::default(),
            &json!({"never": 0.5, "late_secs": "1..2"}),
        );
        let rates = rates.unwrap();
        assert_eq!((rates.never, rates.late_secs.max), (0.5, 2));
        assert_eq!(rates.failed, Rates::default().failed);
        for wrong in [
            json!({"nevr": 0.5}),
            json!({"never": 2}),
            json!({"failed": 1, "voicemail": 1}),
        ] {
            assert!(patched(&Rates::default(), &wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_control_is_read_from_the_json_that_the_readme_shows() {
        let control: Control = serde_json::from_value(json!({
            "rates": {"twice": 0.3},
            "webhook_rates": {"elevenlabs.transcription": {"never": 1.0}},
            "script": [
                {"operation": "elevenlabs.batch_submit", "fault": "hang_after_work"},
                {"operation": "twilio.message_create", "times": 3, "fault": {"twilio_code": 20429}}
            ],
            "calls": {"+573001234567": "no-answer"},
            "messages": {"+573001234567": 30005},
            "inbound": [{"channel": "sms", "from": "+573001234567", "body": "STOP"}],
            "settle": true
        }))
        .unwrap();
        assert_eq!(control.script[0].times, 1);
        assert_eq!(control.script[1].fault, Fault::TwilioCode(20429));
    }
}
