//! The personal fields of an event, sealed: they leave the payload as one
//! member, `sealed`, always the first of its object, and come back in its
//! place. What nothing personal is in stays as it is.
//!
//! `1.<key id>.<link>.<base64>`: the link, mostly empty, is what an erased
//! address is still told apart by; what is encrypted are the members' text.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{ERASED_ADDRESS, ERASED_WORDS, Subject, SubjectKey};
use crate::event::event_type;
use crate::{PhoneIndex, PhoneNumber};

const MARK: &str = "{\"sealed\":\"";
const VERSION: &str = "1.";
const WHAT: &[u8] = b"payload";
/// Digits of what tells the recipients of a batch apart once they are erased.
const PLACE_DIGITS: usize = 16;

/// A field whose value has personal data only in parts of it: an object, or a
/// list of objects that may be of many people.
struct Nested {
    event: &'static str,
    field: &'static str,
    /// Where it says whose it is; `None`: the event's.
    contact: Option<&'static str>,
    personal: &'static [&'static str],
}

const NESTED: &[Nested] = &[
    Nested {
        event: "batch.requested",
        field: "recipients",
        contact: Some("phone_number"),
        personal: &["phone_number", "dynamic_variables"],
    },
    Nested {
        event: "batch.observed",
        field: "recipients",
        contact: Some("phone_number"),
        personal: &["phone_number", "dynamic_variables"],
    },
    Nested {
        event: "group.clients_added",
        field: "clients",
        contact: Some("phone_number"),
        personal: &[
            "phone_number",
            "name",
            "email",
            "empresa",
            "cargo",
            "variables",
        ],
    },
    Nested {
        event: "conversation.started",
        field: "message",
        contact: None,
        personal: &["content", "template"],
    },
    Nested {
        event: "effect.answered",
        field: "parts",
        contact: None,
        personal: &["content"],
    },
];

/// What an erased event must still say: the fields that hold an address, and
/// those that hold words. Every other field is gone.
fn erased(event: &str, is_nested: bool) -> (Option<&'static str>, &'static [&'static str]) {
    match (event, is_nested) {
        ("message.received" | "message.sent" | "effect.sent", _) => (Some("contact"), &["content"]),
        ("message.status_changed", _) => (Some("contact"), &[]),
        ("conversation.message_written", _) => (Some("phone_number"), &["content"]),
        ("conversation.started", false) | ("otp.requested", _) => (Some("phone_number"), &[]),
        ("batch.requested" | "batch.observed" | "group.clients_added", true) => {
            (Some("phone_number"), &[])
        }
        ("conversation.started" | "effect.answered", true) => (None, &["content"]),
        ("effect.failed", _) => (None, &["message"]),
        ("user.registered", _) => (None, &["name", "email"]),
        _ => (None, &[]),
    }
}

/// Members of an object, in their order.
struct Members<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(24);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl<'a> Members<'a> {
    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, value) = self.0.iter().find(|(member, _)| *member == name)?;
        serde_json::from_str::<String>(value.get())
            .ok()
            .map(Cow::Owned)
    }
}

/// Seals the personal fields of an event; `None` when it has none.
///
/// `whose` is the subject where the event itself names nobody, and `key` gives
/// the key of a subject.
pub fn seal_payload(
    name: &str,
    (aggregate_type, aggregate_id): (&str, &str),
    payload: &str,
    phones: &PhoneIndex,
    whose: &Subject,
    key: &mut dyn FnMut(&Subject) -> Arc<SubjectKey>,
) -> Option<String> {
    let kind = event_type(name)?;
    if kind.contacts.is_empty() && kind.personal.is_empty() {
        return None;
    }
    let members: Members<'_> = serde_json::from_str(payload).ok()?;
    let nested = NESTED.iter().find(|nested| nested.event == name);
    let contact = kind.contacts.iter().find_map(|field| members.text(field));
    let contact = contact.filter(|contact| !contact.is_empty());
    let own = match &contact {
        Some(contact) => Subject::Person(phones.key(contact)),
        None => whose.clone(),
    };
    // The streams of conversations with a person have the key in their ids;
    // those of calls have not, and an erased call is of nobody.
    let is_person = contact
        .as_deref()
        .is_some_and(|contact| PhoneNumber::parse(contact).is_ok());
    let link = match (&own, aggregate_type) {
        (Subject::Person(key), "chat" | "conversation") if is_person => key.as_str(),
        _ => "",
    };
    let is_nested = |field: &str| nested.is_some_and(|nested| nested.field == field);
    let is_personal = |field: &str| {
        (kind.contacts.contains(&field) || kind.personal.contains(&field)) && !is_nested(field)
    };
    let mut inner = String::new();
    if let Some(nested) = nested
        && let Some((_, value)) = members.0.iter().find(|(field, _)| is_nested(field))
    {
        let mut one = |members: &Members<'_>, out: &mut String| {
            let contact = nested.contact.and_then(|field| members.text(field));
            let (subject, link) = match &contact {
                Some(contact) => (
                    Subject::Person(phones.key(contact)),
                    phones.key(&format!("{aggregate_id}:{contact}"))[..PLACE_DIGITS].to_owned(),
                ),
                None => (own.clone(), String::new()),
            };
            let is_personal = |field: &str| nested.personal.contains(&field);
            object(
                members,
                &is_personal,
                &link,
                &mut || key(&subject),
                None,
                out,
            );
        };
        if value.get().starts_with('[') {
            let list: Vec<Members<'_>> = serde_json::from_str(value.get()).ok()?;
            for (members, place) in list.iter().zip(0..) {
                inner.push(if place == 0 { '[' } else { ',' });
                one(members, &mut inner);
            }
            inner.push_str(if list.is_empty() { "[]" } else { "]" });
        } else {
            one(&serde_json::from_str(value.get()).ok()?, &mut inner);
        }
    }
    let replaced = nested.map(|nested| (nested.field, inner.as_str()));
    let mut out = String::with_capacity(payload.len());
    object(
        &members,
        &is_personal,
        link,
        &mut || key(&own),
        replaced,
        &mut out,
    );
    Some(out)
}

/// Writes an object with its personal members sealed, if there are any.
fn object(
    members: &Members<'_>,
    is_personal: &dyn Fn(&str) -> bool,
    link: &str,
    key: &mut dyn FnMut() -> Arc<SubjectKey>,
    replaced: Option<(&str, &str)>,
    out: &mut String,
) {
    let mut personal = String::new();
    for (name, value) in members.0.iter().filter(|(name, _)| is_personal(name)) {
        push_member(&mut personal, name, value.get());
    }
    let mut rest = String::new();
    if !personal.is_empty() {
        let key = key();
        let sealed = URL_SAFE_NO_PAD.encode(key.seal(WHAT, personal.as_bytes()));
        let sealed = format!("\"{VERSION}{}.{link}.{sealed}\"", key.id().simple());
        push_member(&mut rest, "sealed", &sealed);
    }
    for (name, value) in members.0.iter().filter(|(name, _)| !is_personal(name)) {
        match replaced {
            Some((field, value)) if field == *name => push_member(&mut rest, name, value),
            _ => push_member(&mut rest, name, value.get()),
        }
    }
    out.push('{');
    out.push_str(&rest);
    out.push('}');
}

fn push_member(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
    out.push_str(value);
}

/// A sealed member: where it stands in the payload, and its parts.
struct Envelope<'a> {
    /// Of its object's brace.
    at: usize,
    /// Behind its closing quote.
    end: usize,
    key_id: Uuid,
    link: &'a str,
    sealed: &'a str,
}

/// Every sealed member of a payload, in order.
fn envelopes<'a>(name: &str, payload: &'a str) -> Vec<Envelope<'a>> {
    // Only some kinds have them anywhere else than at the beginning.
    let is_nested = NESTED.iter().any(|nested| nested.event == name);
    if !is_nested && !payload.starts_with(MARK) {
        return Vec::new();
    }
    let starts = payload.match_indices(MARK).map(|(at, _)| at);
    let read = |at: usize| {
        let from = at + MARK.len();
        let envelope = &payload[from..from + payload[from..].find('"')?];
        let mut parts = envelope.strip_prefix(VERSION)?.splitn(3, '.');
        Some(Envelope {
            at,
            end: from + envelope.len() + 1,
            key_id: Uuid::try_parse(parts.next()?).ok()?,
            link: parts.next()?,
            sealed: parts.next()?,
        })
    };
    match is_nested {
        true => starts.filter_map(read).collect(),
        false => read(0).into_iter().collect(),
    }
}

/// The keys that a payload is sealed under.
pub fn key_ids(name: &str, payload: &str) -> Vec<Uuid> {
    let envelopes = envelopes(name, payload);
    envelopes.iter().map(|envelope| envelope.key_id).collect()
}

/// The payload with everything that was sealed in its place, or with what is
/// left of it where `key` has none: it was destroyed. `None` when something was
/// not sealed under the key that it names.
pub fn open_payload<'a, 'k>(
    name: &str,
    payload: &'a str,
    key: impl Fn(Uuid) -> Option<&'k SubjectKey>,
) -> Option<Cow<'a, str>> {
    let envelopes = envelopes(name, payload);
    if envelopes.is_empty() {
        return Some(Cow::Borrowed(payload));
    }
    let mut out = String::with_capacity(payload.len() * 2);
    let mut done = 0;
    for envelope in envelopes {
        out.push_str(&payload[done..=envelope.at]);
        let members = match key(envelope.key_id) {
            Some(key) => {
                let sealed = URL_SAFE_NO_PAD.decode(envelope.sealed).ok()?;
                String::from_utf8(key.open(WHAT, &sealed)?).ok()?
            }
            None => remains(name, envelope.at > 0, envelope.link),
        };
        out.push_str(&members);
        done = envelope.end;
        if members.is_empty() && payload[done..].starts_with(',') {
            done += 1;
        }
    }
    out.push_str(&payload[done..]);
    Some(Cow::Owned(out))
}

/// The members that are left of an erased object.
fn remains(name: &str, is_nested: bool, link: &str) -> String {
    let (address, words) = erased(name, is_nested);
    let mut out = String::new();
    if let Some(field) = address {
        let value = match link {
            "" => format!("\"{ERASED_ADDRESS}\""),
            link => format!("\"{ERASED_ADDRESS}-{link}\""),
        };
        push_member(&mut out, field, &value);
    }
    for field in words {
        push_member(&mut out, field, &format!("\"{ERASED_WORDS}\""));
    }
    out
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
