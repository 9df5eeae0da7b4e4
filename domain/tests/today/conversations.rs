//! One event of each kind of conversations and effects, with every field that
//! it may have.

use bitacora_domain::conversation::{
    Call, Changed, Event as Conversation, FirstMessage, MessageWritten, Started, Template,
};
use bitacora_domain::effect::{
    Answered, Attempted, Bounced, Dropped, Duplicated, Event as Effect, Failed, Part, Remedy,
    Retried, Sent, Uncertain,
};
use bitacora_domain::{Channel, Event, PhoneNumber, Provider};
use chrono::DateTime;
use serde_json::json;

pub fn today() -> Vec<Event> {
    let conversations = conversations().into_iter().map(Event::Conversation);
    conversations
        .chain(effects().into_iter().map(Event::Effect))
        .collect()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn phone() -> PhoneNumber {
    PhoneNumber::parse("+573001234567").expect("it is one")
}

fn changed(reason: &str) -> Changed {
    Changed {
        by: "user:7".into(),
        reason: text(reason),
    }
}

fn conversations() -> Vec<Conversation> {
    vec![
        Conversation::Started(Box::new(Started {
            phone_number: phone(),
            call: Call {
                recipient_id: "rcpt_0001".into(),
                client_name: text("Ana García"),
                client_id: Some(42),
                group_id: Some(5),
                group_name: text("Campaña Octubre"),
                agent_id: "agent_0001".into(),
                agent_name: text("Agente Admin"),
                batch_id: text("btcal_0001"),
                batch_name: text("Llamada test ana 4 - 28/10/2025"),
                call_conversation_id: text("conv_0001"),
                call_summary: text("La clienta pidió el precio."),
                call_duration_secs: Some(94),
            },
            message: FirstMessage {
                effect_id: "first_0001".into(),
                content: "¡Hola Ana!".into(),
                template: Some(Template {
                    content_sid: "HX0001".into(),
                    variables: json!({"1": "Ana"}).as_object().cloned().unwrap_or_default(),
                }),
            },
            requested_by: "service".into(),
        })),
        Conversation::Escalated(changed("La clienta pide una persona")),
        Conversation::Resumed(changed("Resuelto")),
        Conversation::Closed(changed("No hay más que hablar")),
        Conversation::MessageWritten(MessageWritten {
            effect_id: "written_0001".into(),
            phone_number: phone(),
            content: "Le escribe Luis, del equipo.".into(),
            by: "user:7".into(),
        }),
    ]
}

fn effects() -> Vec<Effect> {
    let at = DateTime::from_timestamp(1_761_694_074, 0);
    vec![
        Effect::Attempted(Attempted {
            attempt: 1,
            at: at.unwrap_or_default(),
        }),
        Effect::Uncertain(Uncertain {
            attempt: 1,
            reason: "the provider's answer did not come: it timed out".into(),
        }),
        Effect::Failed(Failed {
            attempt: 2,
            status: Some(429),
            code: text("20429"),
            message: "Too Many Requests".into(),
            remedy: Remedy::Retry,
            retry_at: at,
        }),
        Effect::Sent(Box::new(Sent {
            attempt: 3,
            adopted: true,
            provider: Provider::Twilio,
            channel: Channel::Whatsapp,
            message_id: text("SM0001"),
            interaction_id: "wa_0001".into(),
            contact: "+573001234567".into(),
            our_address: text("+14155238886"),
            content: "¡Hola Ana!".into(),
            content_sid: text("HX0001"),
        })),
        Effect::Answered(Box::new(Answered {
            attempt: 1,
            agent_id: "agent_0001".into(),
            session_id: text("conv_0002"),
            parts: vec![Part {
                effect_id: "turn_7.1".into(),
                content: "El plan cuesta $99 al mes.".into(),
            }],
        })),
        Effect::Bounced(Bounced {
            message_id: "SM0001".into(),
            code: text("63016"),
            remedy: Remedy::Template,
            retry_at: at,
        }),
        Effect::Duplicated(Duplicated {
            message_id: "SM0002".into(),
        }),
        Effect::Dropped(Dropped {
            reason: "a person has taken over".into(),
        }),
        Effect::Retried(Retried {
            retried_by: "user:7".into(),
        }),
    ]
}
