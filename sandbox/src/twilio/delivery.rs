//! What becomes of a message after Twilio took it, and the callbacks that tell of it.
//!
//! ```text
//! [accepted →] queued ┬→ sent ┬→ delivered → read (WhatsApp)
//!                     │       └→ undelivered
//!                     └→ failed
//! ```

use super::{
    errors,
    message::{Message, Status},
    number_of,
};
use crate::{
    fate::Draw,
    phones,
    rates::Rates,
    stamps,
    webhooks::{self, Content, Letter, WebhookKind},
    world::{Step, World},
};

/// The service's path for status callbacks, when a message does not name another.
const PATH: &str = "/webhooks/twilio/sms/status";

/// The failure of free text outside WhatsApp's window.
const OUTSIDE_WINDOW: u32 = 63016;

/// What fails by chance.
const SMS_FAILURES: [u32; 4] = [30003, 30005, 30006, 30008];
const WHATSAPP_FAILURES: [u32; 2] = [63024, 63003];

/// A message was taken: its way is drawn, and planned.
pub(super) fn begin(world: &mut World, at: usize) {
    let message = &world.twilio.messages[at];
    let mut draw = world.fate.draw("message", &message.name);
    let chance = by_chance(&mut draw, message.is_whatsapp(), &world.options.rates);
    let failure = must_fail(world, message).or(chance);
    // Documentation and fixtures disagree on which of the two tells of the closed window.
    let late = draw.chance(0.5) || failure.is_some_and(|code| code != OUTSIDE_WINDOW);
    let status = if late {
        Status::Undelivered
    } else {
        Status::Failed
    };
    let wait_ms = draw.within(300..=1_500);
    let accepted = message.status == Status::Accepted;
    let message = &mut world.twilio.messages[at];
    message.failure = failure.map(|code| (status, code));
    let next = match message.failure {
        _ if accepted => Status::Queued,
        Some((Status::Failed, _)) => Status::Failed,
        _ => Status::Sent,
    };
    world.plan_in(
        wait_ms,
        Step::Message {
            message: at,
            status: next,
        },
    );
}

/// A failure that is certain: by the sandbox's operator, or by WhatsApp's rule.
fn must_fail(world: &World, message: &Message) -> Option<u32> {
    let number = number_of(&message.to);
    let forced = world.twilio.forced.get(number).copied();
    let closed = world.options.whatsapp_window
        && message.is_whatsapp()
        && message.content_sid.is_none()
        && !world.phones.window_is_open(number, world.clock.unix());
    forced.or(closed.then_some(OUTSIDE_WINDOW))
}

fn by_chance(draw: &mut Draw, whatsapp: bool, rates: &Rates) -> Option<u32> {
    let fails = draw.chance(rates.message_failed);
    let codes: &[u32] = if whatsapp {
        &WHATSAPP_FAILURES
    } else {
        &SMS_FAILURES
    };
    let which = draw.within(0..=codes.len() as u64 - 1);
    codes.get(which as usize).copied().filter(|_| fails)
}

/// [`Step::Message`]
pub(crate) fn reach(world: &mut World, at: usize, status: Status) {
    let now = world.clock.unix();
    let message = &mut world.twilio.messages[at];
    message.status = status;
    message.updated_unix = now;
    if status == Status::Sent {
        message.sent_unix = Some(now);
    }
    post_status(world, at);
    if status == Status::Delivered {
        phones::consider_reply(world, &heard(&world.twilio.messages[at]));
    }
    let message = &world.twilio.messages[at];
    let mut draw = world.fate.draw(status.as_str(), &message.name);
    let fails = message.failure.map(|(how, _)| how);
    let next = match status {
        Status::Queued if fails == Some(Status::Failed) => (Status::Failed, 300..=1_500),
        Status::Queued => (Status::Sent, 300..=1_500),
        Status::Sent if fails.is_some() => (Status::Undelivered, 500..=4_000),
        Status::Sent => (Status::Delivered, 500..=4_000),
        Status::Delivered
            if message.is_whatsapp() && draw.chance(world.options.rates.message_read) =>
        {
            (Status::Read, 2_000..=60_000)
        }
        _ => return,
    };
    let wait_ms = draw.within(next.1);
    world.plan_in(
        wait_ms,
        Step::Message {
            message: at,
            status: next.0,
        },
    );
}

fn heard(message: &Message) -> phones::Heard {
    phones::Heard {
        channel: if message.is_whatsapp() {
            phones::Channel::Whatsapp
        } else {
            phones::Channel::Sms
        },
        number: number_of(&message.to).to_owned(),
        our_address: Some(message.from.clone()),
        sid: Some(message.sid.clone()),
    }
}

fn post_status(world: &mut World, at: usize) {
    let message = &world.twilio.messages[at];
    let base = world.options.public_base();
    let letter = Letter {
        kind: WebhookKind::MessageStatus,
        entity: message.sid.clone(),
        label: message.status.as_str().to_owned(),
        url: match &message.status_callback {
            Some(url) => url.clone(),
            None => format!("{base}{PATH}"),
        },
        content: Content::Form(params(message, world.clock.unix())),
        delay_ms: 0,
    };
    webhooks::post(world, letter);
}

fn params(message: &Message, now_unix: u64) -> Vec<(String, String)> {
    let status = message.status.as_str();
    let mut params = vec![
        ("ApiVersion", "2010-04-01".to_owned()),
        ("AccountSid", message.account_sid.clone()),
        ("MessageSid", message.sid.clone()),
        ("SmsSid", message.sid.clone()),
        ("From", message.from.clone()),
        ("To", message.to.clone()),
    ];
    if let Some(service) = &message.messaging_service_sid {
        params.push(("MessagingServiceSid", service.clone()));
    }
    if message.is_whatsapp() {
        params.push((
            "ChannelInstallSid",
            format!("XE{}", &message.account_sid[2..]),
        ));
        params.push(("ChannelPrefix", "whatsapp".to_owned()));
        params.push(("ChannelToAddress", masked(number_of(&message.to))));
    }
    params.push(("MessageStatus", status.to_owned()));
    params.push(("SmsStatus", status.to_owned()));
    if let Some(code) = message.error_code() {
        params.push(("ErrorCode", code.to_string()));
        if let Some(words) = errors::words(code).filter(|_| message.is_whatsapp()) {
            params.push(("ChannelStatusMessage", words.to_owned()));
        }
    }
    match message.status {
        Status::Sent if message.is_whatsapp() => {
            params.push(("StructuredMessage", "false".to_owned()));
        }
        Status::Delivered | Status::Read if message.is_whatsapp() => {
            params.push(("EventType", status.to_uppercase()));
        }
        Status::Delivered | Status::Undelivered if !message.is_whatsapp() => {
            params.push(("RawDlrDoneDate", stamps::delivery_receipt(now_unix)));
        }
        _ => {}
    }
    let owned = params
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    owned.collect()
}

/// The last four figures hidden, as WhatsApp's callbacks have it.
fn masked(number: &str) -> String {
    const HIDDEN: usize = 4;
    let shown = number.len().saturating_sub(HIDDEN);
    format!("{}XXXX", &number[..shown])
}
