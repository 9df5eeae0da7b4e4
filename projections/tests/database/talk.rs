//! Facts of WhatsApp conversations and of our effects, for the tests of the
//! folds and of the database alike.

use domain::conversation::{
    self, Call, Changed, Event as Decision, FirstMessage, MessageWritten, Started,
};
use domain::effect::{
    Answered, Attempted, Bounced, Dropped, Event as Outcome, Failed, Part, Remedy, Sent,
};
use domain::message::{self, Kind, Received};
use domain::{Channel, Event, Fact, PhoneNumber, Provider, StreamId};

use crate::facts::{CLIENT, Told, at, phones, status};

pub const AGENT_ID: &str = "agent_1";

/// The id of the conversation with a contact.
pub fn talk_id(contact: &str) -> String {
    conversation::id(contact, &phones())
}

fn fact(aggregate_type: &'static str, aggregate_id: &str, event: Event, secs: i64) -> Told {
    let stream = StreamId {
        aggregate_type,
        aggregate_id: aggregate_id.to_owned(),
    };
    Told {
        fact: Fact {
            stream,
            event,
            occurred_at: Some(at(secs)),
        },
        provider: None,
    }
}

pub fn decided(contact: &str, event: Decision, secs: i64) -> Told {
    let event = Event::Conversation(event);
    fact("conversation", &talk_id(contact), event, secs)
}

fn number(contact: &str) -> PhoneNumber {
    PhoneNumber::parse(contact).unwrap()
}

/// A call goes on: the first message is the effect `first_<recipient>`.
pub fn started(contact: &str, recipient: &str, secs: i64) -> Told {
    let started = Started {
        phone_number: number(contact),
        call: Call {
            recipient_id: recipient.into(),
            client_name: Some("Ana García".into()),
            client_id: Some(42),
            group_id: Some(5),
            group_name: Some("Campaña Octubre".into()),
            agent_id: AGENT_ID.into(),
            agent_name: Some("Cobranzas".into()),
            batch_id: Some("btcal_1".into()),
            batch_name: Some("Llamada test".into()),
            call_conversation_id: Some(format!("conv_{recipient}")),
            call_summary: Some("La clienta pidió el precio.".into()),
            call_duration_secs: Some(94),
        },
        message: FirstMessage {
            effect_id: format!("first_{recipient}"),
            content: "¡Hola Ana!".into(),
            template: None,
        },
        requested_by: "service".into(),
    };
    decided(contact, Decision::Started(Box::new(started)), secs)
}

pub fn changed(contact: &str, change: fn(Changed) -> Decision, secs: i64) -> Told {
    let by = Changed {
        by: "user:7".into(),
        reason: None,
    };
    decided(contact, change(by), secs)
}

pub fn written(contact: &str, effect_id: &str, content: &str, secs: i64) -> Told {
    let written = MessageWritten {
        effect_id: effect_id.into(),
        phone_number: number(contact),
        content: content.into(),
        by: "user:7".into(),
    };
    decided(contact, Decision::MessageWritten(written), secs)
}

pub fn effect(id: &str, event: Outcome, secs: i64) -> Told {
    fact("effect", id, Event::Effect(event), secs)
}

pub fn attempted(id: &str, secs: i64) -> Told {
    let attempted = Attempted {
        attempt: 1,
        at: at(secs),
    };
    effect(id, Outcome::Attempted(attempted), secs)
}

/// The provider took it; builderbot gives no id.
pub fn taken(id: &str, provider: Provider, message_id: Option<&str>, secs: i64) -> Told {
    let sent = Sent {
        attempt: 1,
        adopted: false,
        provider,
        channel: Channel::Whatsapp,
        message_id: message_id.map(Into::into),
        interaction_id: "wa_1".into(),
        contact: CLIENT.into(),
        our_address: None,
        content: String::new(),
        content_sid: None,
    };
    effect(id, Outcome::Sent(Box::new(sent)), secs)
}

pub fn refused(id: &str, code: &str, remedy: Remedy, secs: i64) -> Told {
    let failed = Failed {
        attempt: 1,
        status: Some(400),
        code: Some(code.into()),
        message: format!("refused with {code}"),
        remedy,
        retry_at: None,
    };
    effect(id, Outcome::Failed(failed), secs)
}

pub fn bounced(id: &str, message_id: &str, remedy: Remedy, secs: i64) -> Told {
    let bounced = Bounced {
        message_id: message_id.into(),
        code: Some("63016".into()),
        remedy,
        retry_at: None,
    };
    effect(id, Outcome::Bounced(bounced), secs)
}

pub fn dropped(id: &str, secs: i64) -> Told {
    let reason = "it is too late".to_owned();
    effect(id, Outcome::Dropped(Dropped { reason }), secs)
}

/// The agent answered the message at a position, in parts that are named after
/// `name`.
pub fn answered(position: i64, name: &str, parts: &[&str], secs: i64) -> Told {
    let parts = parts.iter().zip(1..).map(|(content, number)| Part {
        effect_id: format!("{name}.{number}"),
        content: (*content).to_owned(),
    });
    let answered = Answered {
        attempt: 1,
        agent_id: AGENT_ID.into(),
        session_id: Some("conv_text_1".into()),
        parts: parts.collect(),
    };
    let turn = domain::effect::turn_id(position);
    effect(&turn, Outcome::Answered(Box::new(answered)), secs)
}

/// The client wrote, by builderbot, which gives no id.
pub fn heard(contact: &str, content: &str, secs: i64) -> Told {
    let received = Received {
        message_id: None,
        channel: Channel::Whatsapp,
        contact: contact.into(),
        contact_name: Some("Ana 🌻".into()),
        our_address: None,
        kind: Kind::Text,
        content: content.into(),
        media: vec![],
        location: None,
        button: None,
        reply_to: None,
        forwarded: false,
    };
    by_builderbot(contact, message::Event::Received(Box::new(received)), secs)
}

/// builderbot says that it sent something.
pub fn echo(contact: &str, content: &str, secs: i64) -> Told {
    let sent = message::Sent {
        message_id: None,
        channel: Channel::Whatsapp,
        contact: contact.into(),
        our_address: None,
        kind: Kind::Text,
        content: content.into(),
        media: vec![],
    };
    by_builderbot(contact, message::Event::Sent(Box::new(sent)), secs)
}

fn by_builderbot(contact: &str, event: message::Event, secs: i64) -> Told {
    let stream = StreamId::chat(Provider::Builderbot, contact, &phones());
    Told {
        fact: Fact {
            stream,
            event: Event::Message(event),
            occurred_at: Some(at(secs)),
        },
        provider: Some(Provider::Builderbot),
    }
}

/// A little of everything, in the order in which it happened. Of answers the
/// position of the question is not known: they name the first few.
pub fn whole_talk(contact: &str) -> Vec<Told> {
    use message::Status::{Delivered, Read, Undelivered};
    let first = format!("first_{contact}");
    let mut facts = vec![
        started(contact, contact, 10),
        attempted(&first, 11),
        taken(&first, Provider::Twilio, Some(&format!("SMf{contact}")), 12),
        status(contact, &format!("SMf{contact}"), Delivered, 13),
        status(contact, &format!("SMf{contact}"), Read, 14),
        heard(contact, "¿Cuánto cuesta?", 20),
        changed(contact, Decision::Escalated, 40),
        written(contact, &format!("w1{contact}"), "Le escribe Luis.", 41),
        attempted(&format!("w1{contact}"), 42),
        taken(&format!("w1{contact}"), Provider::Builderbot, None, 43),
        echo(contact, "Le escribe  Luis.", 44),
        echo(contact, "Le escribe Luis.", 3_000),
        changed(contact, Decision::Resumed, 50),
        written(contact, &format!("w2{contact}"), "¿Sigue ahí?", 51),
        refused(&format!("w2{contact}"), "63018", Remedy::Retry, 52),
        dropped(&format!("w2{contact}"), 53),
        status(contact, &format!("SMx{contact}"), Undelivered, 54),
        heard(contact, "baja", 60),
        changed(contact, Decision::Closed, 70),
    ];
    for position in 1..=40 {
        let name = format!("a{position}{contact}");
        facts.push(answered(
            position,
            &name,
            &["Cien.", "¿Algo más?"],
            21 + position,
        ));
        let id = format!("SMa{position}{contact}");
        facts.push(taken(
            &format!("{name}.1"),
            Provider::Twilio,
            Some(&id),
            30 + position,
        ));
        facts.push(bounced(
            &format!("{name}.1"),
            &id,
            Remedy::OptOut,
            31 + position,
        ));
    }
    facts
}
