//! Facts as the providers' webhooks give them, for the tests of the folds and
//! of the database alike. Times are fixed; a call's number makes its ids.

use chrono::{DateTime, Utc};
use domain::call::{
    self, AudioReceived, Completed, InitiationFailed, Medium, Outcome, Progressed, Turn,
};
use domain::message::{self, Kind, Received, Sent, Status, StatusChanged};
use domain::{
    Channel, Direction, Event, Fact, PhoneIndex, PhoneNumber, Provider, StreamId, audit, effect,
    otp, user,
};
use serde_json::json;

/// A fact, and who told it.
#[derive(Clone, Debug)]
pub struct Told {
    pub fact: Fact,
    pub provider: Option<Provider>,
}

pub const CLIENT: &str = "+573001234567";

pub fn phones() -> PhoneIndex {
    PhoneIndex::new(b"a test's secret")
}

/// So many seconds after the tests' beginning of time.
pub fn at(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_761_694_000 + secs, 0).unwrap()
}

fn told(provider: Provider, stream: StreamId, event: Event, secs: i64) -> Told {
    let fact = Fact {
        stream,
        event,
        occurred_at: Some(at(secs)),
    };
    Told {
        fact,
        provider: Some(provider),
    }
}

pub fn conversation(n: u32) -> String {
    format!("conv_{n}")
}

pub fn sid(n: u32) -> String {
    format!("CA{n}")
}

/// The report of call `n`, which began at second 10 and lasted 94 seconds.
pub fn completed(n: u32) -> Completed {
    let turn = |role: &str, words: Option<&str>, secs| Turn {
        role: role.into(),
        message: words.map(Into::into),
        time_in_call_secs: Some(secs),
        tools: vec![],
    };
    let object = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
    Completed {
        conversation_id: conversation(n),
        agent_id: "agent_1".into(),
        agent_name: Some("Cobranzas".into()),
        outcome: Outcome::Completed,
        provider_status: "done".into(),
        medium: Medium::Voice,
        direction: Some(Direction::Outbound),
        call_sid: Some(sid(n)),
        carrier: Some("twilio".into()),
        phone_number: Some(CLIENT.into()),
        agent_number: Some("+14155550100".into()),
        phone_number_id: Some("phnum_1".into()),
        started_at: Some(at(10)),
        duration_secs: Some(94),
        cost_credits: Some(512),
        termination_reason: Some("end_call tool was called.".into()),
        error: None,
        language: Some("es".into()),
        has_audio: true,
        call_successful: Some("success".into()),
        summary: Some("El cliente acuerda pagar el 3 de noviembre.".into()),
        summary_title: Some("Acuerdo de pago".into()),
        analysis: object(json!({"data_collection_results": {"monto": {"value": 0.1}}})),
        batch_id: Some("btcal_1".into()),
        batch_recipient_id: Some(format!("rcpt_{n}")),
        dynamic_variables: object(json!({"client_name": "Ana García", "saldo": 1200.35})),
        transcript: vec![
            turn("agent", Some("Hola Ana, ¿tienes un minuto?"), 0),
            turn("user", Some("Sí, decime."), 3),
            turn("agent", None, 6),
        ],
    }
}

pub fn report(report: Completed, secs: i64) -> Told {
    let stream = StreamId::call(report.conversation_id.clone());
    let event = Event::Call(call::Event::Completed(Box::new(report)));
    told(Provider::Elevenlabs, stream, event, secs)
}

pub fn audio(n: u32, secs: i64) -> Told {
    let event = call::Event::AudioReceived(AudioReceived {
        conversation_id: conversation(n),
        agent_id: Some("agent_1".into()),
        content_type: "audio/mpeg".into(),
        size_bytes: 4_096,
    });
    let stream = StreamId::call(conversation(n));
    told(Provider::Elevenlabs, stream, Event::Call(event), secs)
}

pub fn failed(n: u32, secs: i64) -> Told {
    let event = call::Event::InitiationFailed(InitiationFailed {
        conversation_id: conversation(n),
        agent_id: Some("agent_1".into()),
        reason: "no-answer".into(),
        call_sid: Some(sid(n)),
        carrier: Some("twilio".into()),
        phone_number: Some(CLIENT.into()),
        agent_number: Some("+14155550100".into()),
        sip_status: Some(487),
        detail: Some("no answer".into()),
    });
    let stream = StreamId::call(conversation(n));
    told(Provider::Elevenlabs, stream, Event::Call(event), secs)
}

/// A callback of the carrier: the `sequence`th, in its word for the state.
pub fn progressed(n: u32, sequence: i64, word: &str, secs: i64) -> Told {
    let outcome = match word {
        "queued" | "initiated" => Outcome::Pending,
        "ringing" | "in-progress" => Outcome::InProgress,
        "completed" => Outcome::Completed,
        "canceled" => Outcome::Cancelled,
        _ => Outcome::Failed,
    };
    let ended = !matches!(outcome, Outcome::Pending | Outcome::InProgress);
    let event = call::Event::Progressed(Progressed {
        call_sid: sid(n),
        outcome,
        provider_status: word.into(),
        sequence_number: Some(sequence),
        direction: Some(Direction::Outbound),
        phone_number: Some(CLIENT.into()),
        agent_number: Some("+14155550100".into()),
        duration_secs: ended.then_some(96),
        sip_status: ended.then_some(200),
        recording_url: None,
    });
    told(
        Provider::Twilio,
        StreamId::call(sid(n)),
        Event::Call(event),
        secs,
    )
}

/// Everything that the providers tell of call `n`, in the order in which it
/// happened.
pub fn whole_call(n: u32) -> Vec<Told> {
    vec![
        progressed(n, 0, "initiated", 1),
        progressed(n, 1, "ringing", 4),
        progressed(n, 2, "in-progress", 10),
        progressed(n, 3, "completed", 106),
        report(completed(n), 190),
        audio(n, 195),
    ]
}

fn chat_stream(contact: &str) -> StreamId {
    StreamId::chat(Provider::Twilio, contact, &phones())
}

/// The id of the conversation with a contact.
pub fn chat_id(contact: &str) -> String {
    chat_stream(contact).aggregate_id
}

pub fn received(contact: &str, id: Option<&str>, content: &str, secs: i64) -> Told {
    let event = message::Event::Received(Box::new(Received {
        message_id: id.map(Into::into),
        channel: Channel::Whatsapp,
        contact: contact.into(),
        contact_name: Some("Ana".into()),
        our_address: Some("+14155238886".into()),
        kind: Kind::Text,
        content: content.into(),
        media: vec![],
        location: None,
        button: None,
        reply_to: None,
        forwarded: false,
    }));
    told(
        Provider::Twilio,
        chat_stream(contact),
        Event::Message(event),
        secs,
    )
}

pub fn sent(contact: &str, id: &str, content: &str, secs: i64) -> Told {
    let event = message::Event::Sent(Box::new(Sent {
        message_id: Some(id.into()),
        channel: Channel::Whatsapp,
        contact: contact.into(),
        our_address: Some("+14155238886".into()),
        kind: Kind::Text,
        content: content.into(),
        media: vec![],
    }));
    told(
        Provider::Twilio,
        chat_stream(contact),
        Event::Message(event),
        secs,
    )
}

fn status_event(channel: Channel, contact: &str, id: &str, status: Status) -> Event {
    Event::Message(message::Event::StatusChanged(StatusChanged {
        message_id: id.into(),
        channel,
        contact: contact.into(),
        our_address: None,
        status,
        error_code: status.is_failure().then(|| "63016".into()),
        error_message: None,
    }))
}

pub fn status(contact: &str, id: &str, status: Status, secs: i64) -> Told {
    let event = status_event(Channel::Whatsapp, contact, id, status);
    told(Provider::Twilio, chat_stream(contact), event, secs)
}

pub fn sms_status(id: &str, status: Status, secs: i64) -> Told {
    let event = status_event(Channel::Sms, CLIENT, id, status);
    told(Provider::Twilio, StreamId::sms(id), event, secs)
}

/// A conversation of two messages, the second with all its callbacks.
pub fn whole_chat(contact: &str) -> Vec<Told> {
    let ids = [contact.replace('+', "SMa"), contact.replace('+', "SMb")];
    vec![
        received(contact, Some(&ids[0]), "¿Cuándo llega mi TARJETA?", 20),
        sent(contact, &ids[1], "Mañana por la tarde.", 25),
        status(contact, &ids[1], Status::Sent, 26),
        status(contact, &ids[1], Status::Delivered, 27),
        status(contact, &ids[1], Status::Read, 40),
    ]
}

/// An SMS of which only callbacks tell.
pub fn whole_sms(id: &str) -> Vec<Told> {
    vec![
        sms_status(id, Status::Queued, 50),
        sms_status(id, Status::Sent, 51),
        sms_status(id, Status::Undelivered, 55),
    ]
}

/// What we have done ourselves.
fn ours(stream: StreamId, event: Event, secs: i64) -> Told {
    Told {
        fact: Fact {
            stream,
            event,
            occurred_at: Some(at(secs)),
        },
        provider: None,
    }
}

/// The id of challenge `n`.
pub fn challenge(n: u32) -> String {
    format!("otp_{n}")
}

pub fn code_requested(n: u32, secs: i64) -> Told {
    let event = otp::Event::Requested(otp::Requested {
        challenge_id: challenge(n),
        phone_number: PhoneNumber::parse(CLIENT).unwrap(),
        purpose: "login".into(),
        expires_at: at(secs + 300),
        attempts_max: 3,
        requested_by: "service".into(),
    });
    ours(StreamId::otp(challenge(n)), Event::Otp(event), secs)
}

pub fn code_attempted(n: u32, attempt: u32, secs: i64) -> Told {
    let at = at(secs);
    let event = otp::Event::Attempted(otp::Attempted { attempt, at });
    ours(StreamId::otp(challenge(n)), Event::Otp(event), secs)
}

pub fn code_verified(n: u32, attempt: u32, secs: i64) -> Told {
    let at = at(secs);
    let event = otp::Event::Verified(otp::Verified { attempt, at });
    ours(StreamId::otp(challenge(n)), Event::Otp(event), secs)
}

/// What became of the sending of code `n`.
pub fn of_code(n: u32, event: effect::Event, secs: i64) -> Told {
    let stream = StreamId::effect(effect::code_id(&challenge(n)));
    ours(stream, Event::Effect(event), secs)
}

/// The provider has taken the text message that brings code `n`.
pub fn code_sent(n: u32, message_id: &str, secs: i64) -> Told {
    let event = taken(Provider::Twilio, Channel::Sms, message_id, &challenge(n));
    of_code(n, event, secs)
}

/// The provider has taken a message of ours to a client's WhatsApp.
pub fn written(provider: Provider, contact: &str, message_id: &str, secs: i64) -> Told {
    let stream = StreamId::effect(format!("written_{message_id}"));
    let chat = StreamId::chat(provider, contact, &phones()).aggregate_id;
    let event = taken(provider, Channel::Whatsapp, message_id, &chat);
    ours(stream, Event::Effect(event), secs)
}

fn taken(
    provider: Provider,
    channel: Channel,
    message_id: &str,
    interaction_id: &str,
) -> effect::Event {
    effect::Event::Sent(Box::new(effect::Sent {
        attempt: 1,
        adopted: false,
        provider,
        channel,
        message_id: Some(message_id.into()),
        interaction_id: interaction_id.into(),
        contact: CLIENT.into(),
        our_address: Some("+14155550100".into()),
        content: "Tu código es ******".into(),
        content_sid: None,
    }))
}

/// A code that was sent, guessed wrong once, and given back.
pub fn whole_code(n: u32) -> Vec<Told> {
    let sms = format!("SMcode{n}");
    vec![
        code_requested(n, 60),
        code_sent(n, &sms, 61),
        sms_status(&sms, Status::Queued, 62),
        sms_status(&sms, Status::Sent, 63),
        sms_status(&sms, Status::Delivered, 65),
        code_attempted(n, 1, 70),
        code_attempted(n, 2, 75),
        code_verified(n, 2, 75),
    ]
}

pub fn act(actor: &str, action: &str, secs: i64) -> Told {
    let event = Event::Audit(audit::Event::Recorded(audit::Recorded {
        actor: actor.into(),
        role: Some("admin".into()),
        action: action.into(),
        target: None,
        outcome: "ok".into(),
        from: Some("192.0.2.1".into()),
        request_id: None,
        detail: None,
    }));
    let provider = None;
    let stream = StreamId::audit(actor);
    let occurred_at = Some(at(secs));
    Told {
        fact: Fact {
            stream,
            event,
            occurred_at,
        },
        provider,
    }
}

pub fn person(id: i32) -> Told {
    let event = Event::User(user::Event::Registered(user::Registered {
        user_id: id,
        name: format!("Persona {id}"),
        email: format!("p{id}@example.com"),
        role: user::Role::Agent,
        agent_id: None,
    }));
    let stream = StreamId {
        aggregate_type: "user",
        aggregate_id: id.to_string(),
    };
    Told {
        fact: Fact {
            stream,
            event,
            occurred_at: None,
        },
        provider: None,
    }
}
