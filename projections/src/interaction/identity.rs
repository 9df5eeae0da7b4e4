//! Which interaction an event belongs to, by its stream alone.

use domain::call::{self, Medium};
use domain::event::Recorded;
use domain::{Channel, Event, Provider, effect, message};

use crate::text;

/// How the providers' ids begin, by the kind of stream they name.
const PREFIXES: &[(&str, &str)] = &[
    ("conv_", "call"),
    ("CA", "call"),
    ("wa_", "chat"),
    ("SM", "sms"),
    ("MM", "sms"),
    ("otp_", "otp"),
    // As written by `interaction_id` itself.
    ("call:", "?"),
    ("chat:", "?"),
    ("sms:", "?"),
    ("otp:", "?"),
];

/// The interaction of an event's own stream, or that it names; `None` if the
/// event says nothing of one.
pub(super) fn of(recorded: &Recorded) -> Option<String> {
    let kind = recorded.aggregate_type.as_str();
    let concerned = match &recorded.event {
        // Our own text-only sessions answer WhatsApp messages: the interaction
        // is the conversation there.
        Event::Call(call::Event::Completed(report)) => {
            kind == "call" && report.medium != Medium::Text
        }
        Event::Call(_) => kind == "call",
        Event::Message(_) => matches!(kind, "chat" | "sms"),
        Event::Otp(_) => kind == "otp",
        Event::Effect(event) => return of_effect(&recorded.aggregate_id, event),
        _ => false,
    };
    concerned.then(|| interaction_id(kind, &recorded.aggregate_id))
}

/// The interaction that a message of ours is part of, by our own word.
fn of_effect(effect_id: &str, event: &effect::Event) -> Option<String> {
    let id = match event {
        effect::Event::Sent(sent) => Some(sent.interaction_id.as_str()),
        effect::Event::Duplicated(_) => effect::challenge_of(effect_id),
        _ => None,
    };
    let id = id.filter(|id| !id.is_empty())?;
    Some(text::key(id).into_owned())
}

/// The text message that an event says is part of its interaction.
pub(super) fn claimed_sms(recorded: &Recorded) -> Option<String> {
    let message_id = match &recorded.event {
        Event::Effect(effect::Event::Sent(sent)) if sent.channel == Channel::Sms => {
            sent.message_id.as_deref()
        }
        // Of another effect it is no text message.
        Event::Effect(effect::Event::Duplicated(duplicated)) => {
            Some(duplicated.message_id.as_str())
        }
        _ => None,
    };
    let message_id = message_id.filter(|id| !id.is_empty())?;
    Some(interaction_id("sms", message_id))
}

/// The telephone leg that an event says is part of its session.
pub(super) fn claimed_leg(event: &call::Event) -> Option<String> {
    let sid = match event {
        call::Event::Completed(report) if report.medium == Medium::Voice => {
            report.call_sid.as_ref()
        }
        call::Event::InitiationFailed(failed) => failed.call_sid.as_ref(),
        _ => None,
    };
    let sid = sid.filter(|sid| !sid.is_empty())?;
    Some(interaction_id("call", sid))
}

/// The id, in its interaction, of the message that an event tells of: the
/// provider's, or one made of the event's position where there is none.
pub(super) fn message_id(recorded: &Recorded) -> Option<String> {
    let given = match &recorded.event {
        Event::Message(message::Event::Received(message)) => message.message_id.as_deref(),
        Event::Message(message::Event::Sent(message)) => message.message_id.as_deref(),
        Event::Message(message::Event::StatusChanged(change)) => Some(change.message_id.as_str()),
        Event::Effect(effect::Event::Sent(sent)) if is_told_again(sent) => return None,
        Event::Effect(effect::Event::Sent(sent)) => sent.message_id.as_deref(),
        Event::Effect(effect::Event::Duplicated(twin)) => Some(twin.message_id.as_str()),
        _ => return None,
    };
    Some(match given.filter(|id| !id.is_empty()) {
        Some(id) => text::key(id).into_owned(),
        None => format!("ev-{}", recorded.position),
    })
}

/// Whether the provider tells of the message by a webhook of its own.
fn is_told_again(sent: &effect::Sent) -> bool {
    sent.provider == Provider::Builderbot
}

/// A stream's id as the id of an interaction. It is the provider's own
/// wherever that cannot be mistaken for one of another kind, so that streams
/// of two kinds never meet in one interaction.
pub(super) fn interaction_id(kind: &str, id: &str) -> String {
    let prefix = PREFIXES.iter().find(|(prefix, _)| id.starts_with(prefix));
    // Carriers of calls number as they like; messages come from those we know.
    let natural = prefix.map_or("call", |(_, kind)| kind);
    match natural == kind {
        true => text::key(id).into_owned(),
        false => text::key(&format!("{kind}:{id}")).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_providers_id_is_the_interactions() {
        for (kind, id) in [
            ("call", "conv_1"),
            ("call", "CA1"),
            ("chat", "wa_1"),
            ("sms", "SM1"),
            ("otp", "otp_1"),
            ("call", "0f-1"),
        ] {
            assert_eq!(interaction_id(kind, id), id);
        }
        assert_eq!(interaction_id("sms", "CA1"), "sms:CA1");
        assert_eq!(interaction_id("sms", "77"), "sms:77");
    }

    proptest! {
        #[test]
        fn two_streams_are_never_one_interaction(
            a in "(call:|sms:|otp:|CA|SM|conv_|wa_|otp_|x){0,3}1?",
            b in "(call:|sms:|otp:|CA|SM|conv_|wa_|otp_|x){0,3}1?",
            kinds in proptest::sample::subsequence(vec!["call", "chat", "sms", "otp"], 2),
        ) {
            prop_assert_ne!(interaction_id(kinds[0], &a), interaction_id(kinds[1], &b));
            prop_assert_eq!(a == b, interaction_id(kinds[0], &a) == interaction_id(kinds[0], &b));
        }
    }
}
