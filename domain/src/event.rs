//! Every kind of event there is: its name, its version, which of its fields
//! are personal, and how an old one is read today.
//!
//! Names are never changed and versions never reused. To change the shape of
//! an event: raise its version in [`EVENT_TYPES`], add an [`Upcast`] from the
//! old one, and leave the old example in `tests/recorded/` where it is.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Provider, audit, batch, call, conversation, delivery, effect, group, line, message, otp,
    subject, user,
};

/// A kind of event, as this version of the program writes it.
#[derive(Debug)]
pub struct EventType {
    /// The name in the ledger.
    pub name: &'static str,
    /// The version in the ledger.
    pub version: &'static str,
    /// Fields that hold the telephone number or address of a client.
    pub contacts: &'static [&'static str],
    /// Other fields that hold personal data: names, words, recordings.
    pub personal: &'static [&'static str],
}

/// Every kind of event. What is not named personal here must not be.
pub const EVENT_TYPES: &[EventType] = &[
    EventType {
        name: "call.completed",
        version: "1",
        contacts: &["phone_number"],
        personal: &[
            "summary",
            "summary_title",
            "analysis",
            "dynamic_variables",
            "transcript",
        ],
    },
    EventType {
        name: "call.audio_received",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "call.initiation_failed",
        version: "1",
        contacts: &["phone_number"],
        personal: &[],
    },
    EventType {
        name: "call.progressed",
        version: "1",
        contacts: &["phone_number"],
        personal: &["recording_url"],
    },
    EventType {
        name: "message.received",
        version: "1",
        contacts: &["contact"],
        personal: &["contact_name", "content", "media", "location", "button"],
    },
    EventType {
        name: "message.sent",
        version: "1",
        contacts: &["contact"],
        personal: &["content", "media"],
    },
    EventType {
        name: "message.status_changed",
        version: "1",
        contacts: &["contact"],
        personal: &[],
    },
    EventType {
        name: "line.status_changed",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "delivery.quarantined",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "audit.recorded",
        version: "1",
        contacts: &[],
        personal: &["from"],
    },
    EventType {
        name: "user.registered",
        version: "1",
        contacts: &[],
        personal: &["name", "email"],
    },
    EventType {
        name: "batch.requested",
        version: "1",
        contacts: &[],
        personal: &["recipients"],
    },
    EventType {
        name: "batch.submit_attempted",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.submitted",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.submit_uncertain",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.submit_failed",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.cancel_requested",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.cancel_attempted",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.cancelled",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.cancel_uncertain",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.cancel_failed",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.retry_requested",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.retry_attempted",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.retried",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.retry_uncertain",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.retry_failed",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "batch.observed",
        version: "1",
        contacts: &[],
        personal: &["recipients"],
    },
    EventType {
        name: "batch.discovered",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "group.created",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "group.updated",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "group.clients_added",
        version: "1",
        contacts: &[],
        personal: &["clients"],
    },
    EventType {
        name: "conversation.started",
        version: "1",
        contacts: &["phone_number"],
        personal: &["client_name", "call_summary", "message"],
    },
    EventType {
        name: "conversation.escalated",
        version: "1",
        contacts: &[],
        personal: &["reason"],
    },
    EventType {
        name: "conversation.resumed",
        version: "1",
        contacts: &[],
        personal: &["reason"],
    },
    EventType {
        name: "conversation.closed",
        version: "1",
        contacts: &[],
        personal: &["reason"],
    },
    EventType {
        name: "conversation.message_written",
        version: "1",
        contacts: &["phone_number"],
        personal: &["content"],
    },
    EventType {
        name: "effect.attempted",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "effect.uncertain",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "effect.failed",
        version: "1",
        contacts: &[],
        personal: &["message"],
    },
    EventType {
        name: "effect.sent",
        version: "1",
        contacts: &["contact"],
        personal: &["content"],
    },
    EventType {
        name: "effect.answered",
        version: "1",
        contacts: &[],
        personal: &["parts"],
    },
    EventType {
        name: "effect.bounced",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "effect.duplicated",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "effect.dropped",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "effect.retried",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "otp.requested",
        version: "1",
        contacts: &["phone_number"],
        personal: &[],
    },
    EventType {
        name: "otp.attempted",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "otp.verified",
        version: "1",
        contacts: &[],
        personal: &[],
    },
    EventType {
        name: "subject.erased",
        version: "1",
        contacts: &[],
        personal: &[],
    },
];

/// The kind of event with this name.
pub fn event_type(name: &str) -> Option<&'static EventType> {
    EVENT_TYPES.iter().find(|kind| kind.name == name)
}

/// A payload with the client's number masked wherever it stands in it.
pub fn masked(event_type_name: &str, payload: Value) -> Value {
    let contacts = event_type(event_type_name).map_or(&[][..], |kind| kind.contacts);
    contacts.iter().fold(payload, |payload, field| {
        let contact = payload.get(field).and_then(Value::as_str);
        match contact.map(str::to_owned) {
            Some(contact) => crate::phone::mask_json(&payload, &contact),
            None => payload,
        }
    })
}

/// The version in which events of this name are written today.
pub(crate) fn version(name: &str) -> &'static str {
    event_type(name).map_or("1", |kind| kind.version)
}

/// How the payload of an old version becomes that of the next.
pub struct Upcast {
    /// The event's name.
    pub name: &'static str,
    /// The version it reads.
    pub from: &'static str,
    /// The version it makes.
    pub to: &'static str,
    /// Turns the one into the other.
    pub apply: fn(&mut Value),
}

/// Every step from an old version to a newer one.
pub const UPCASTS: &[Upcast] = &[];

/// Turns the payload of an old version into today's. `None` when no step
/// leads from that version to it.
pub fn upcast(kind: &EventType, version: &str, payload: &mut Value) -> Option<()> {
    upcast_with(UPCASTS, kind, version, payload)
}

fn upcast_with(
    upcasts: &[Upcast],
    kind: &EventType,
    version: &str,
    payload: &mut Value,
) -> Option<()> {
    let mut at = version;
    while at != kind.version {
        let mut steps = upcasts.iter();
        let step = steps.find(|step| step.name == kind.name && step.from == at)?;
        (step.apply)(payload);
        at = step.to;
    }
    Some(())
}

/// Any event of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// Of a `call` stream.
    Call(call::Event),
    /// Of a `chat` or `sms` stream.
    Message(message::Event),
    /// Of a `line` stream.
    Line(line::Event),
    /// Of a `delivery` stream.
    Delivery(delivery::Event),
    /// Of an `audit` stream.
    Audit(audit::Event),
    /// Of a `user` stream.
    User(user::Event),
    /// Of a `batch` stream.
    Batch(batch::Event),
    /// Of a `group` stream.
    Group(group::Event),
    /// Of a `conversation` stream.
    Conversation(conversation::Event),
    /// Of an `effect` stream.
    Effect(effect::Event),
    /// Of an `otp` stream.
    Otp(otp::Event),
    /// Of a `subject` stream.
    Subject(subject::Event),
}

/// An event as it stands on the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its place in the one total order: commit order, from 1, with gaps.
    pub position: i64,
    /// The kind of aggregate.
    pub aggregate_type: String,
    /// The aggregate.
    pub aggregate_id: String,
    /// Its place in its stream, from 1, without gaps.
    pub sequence: i64,
    /// What happened.
    pub event: Event,
    /// When it happened, by the provider's word or else the time of receipt.
    pub occurred_at: DateTime<Utc>,
    /// When the ledger took it.
    pub recorded_at: DateTime<Utc>,
    /// The delivery that brought it.
    pub delivery_id: Option<uuid::Uuid>,
    /// The provider that told us.
    pub provider: Option<Provider>,
}

/// Why an event of the ledger could not be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableEvent {
    /// This program is older than the event, or the ledger is not ours.
    #[error("unknown event {name} version {version}: is this program older than the ledger?")]
    Unknown {
        /// The event's name.
        name: String,
        /// Its version.
        version: String,
    },
    /// It is not of the shape that its name and version promise.
    #[error("event {name} has an unexpected shape, see column {column} of its payload ({kind:?})")]
    Shape {
        /// The event's name.
        name: String,
        /// Where the reader stumbled; 0 where it cannot be told.
        column: usize,
        /// Of what kind the fault is. The reader's words are not kept: they
        /// may quote the payload, and end in a log.
        kind: serde_json::error::Category,
    },
}

impl UnreadableEvent {
    fn shape(name: &str, error: &serde_json::Error) -> Self {
        Self::Shape {
            name: name.to_owned(),
            column: error.column(),
            kind: error.classify(),
        }
    }
}

impl Event {
    /// The event's name in the ledger.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Call(call::Event::Completed(_)) => "call.completed",
            Self::Call(call::Event::AudioReceived(_)) => "call.audio_received",
            Self::Call(call::Event::InitiationFailed(_)) => "call.initiation_failed",
            Self::Call(call::Event::Progressed(_)) => "call.progressed",
            Self::Message(message::Event::Received(_)) => "message.received",
            Self::Message(message::Event::Sent(_)) => "message.sent",
            Self::Message(message::Event::StatusChanged(_)) => "message.status_changed",
            Self::Line(line::Event::StatusChanged(_)) => "line.status_changed",
            Self::Delivery(delivery::Event::Quarantined(_)) => "delivery.quarantined",
            Self::Audit(audit::Event::Recorded(_)) => "audit.recorded",
            Self::User(user::Event::Registered(_)) => "user.registered",
            Self::Batch(event) => event.name(),
            Self::Group(event) => event.name(),
            Self::Conversation(event) => event.name(),
            Self::Effect(event) => event.name(),
            Self::Otp(event) => event.name(),
            Self::Subject(subject::Event::Erased(_)) => "subject.erased",
        }
    }

    /// The event's version in the ledger.
    pub fn version(&self) -> &'static str {
        version(self.name())
    }

    /// Reads an event of any released version.
    ///
    /// # Errors
    /// [`UnreadableEvent`] when this program does not know the event.
    pub fn read(name: &str, version: &str, payload: &str) -> Result<Self, UnreadableEvent> {
        Self::read_with(UPCASTS, name, version, payload)
    }

    fn read_with(
        upcasts: &[Upcast],
        name: &str,
        version: &str,
        payload: &str,
    ) -> Result<Self, UnreadableEvent> {
        let unknown = || UnreadableEvent::Unknown {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        let kind = event_type(name).ok_or_else(unknown)?;
        if version == kind.version {
            return Self::read_current(name, payload);
        }
        let mut value: Value =
            serde_json::from_str(payload).map_err(|error| UnreadableEvent::shape(name, &error))?;
        upcast_with(upcasts, kind, version, &mut value).ok_or_else(unknown)?;
        Self::read_current(name, &value.to_string())
    }

    fn read_current(name: &str, payload: &str) -> Result<Self, UnreadableEvent> {
        let family = name.split('.').next().unwrap_or_default();
        let event = match family {
            // The one that is long and common is read without a look at what
            // kind it says it is, for which the whole would be kept aside.
            "call" if name == "call.completed" => serde_json::from_str(payload)
                .map(|report| Self::Call(call::Event::Completed(report))),
            "call" => serde_json::from_str(payload).map(Self::Call),
            "message" => serde_json::from_str(payload).map(Self::Message),
            "line" => serde_json::from_str(payload).map(Self::Line),
            "delivery" => serde_json::from_str(payload).map(Self::Delivery),
            "audit" => serde_json::from_str(payload).map(Self::Audit),
            "batch" => serde_json::from_str(payload).map(Self::Batch),
            "group" => serde_json::from_str(payload).map(Self::Group),
            "conversation" => serde_json::from_str(payload).map(Self::Conversation),
            "effect" => serde_json::from_str(payload).map(Self::Effect),
            "otp" => serde_json::from_str(payload).map(Self::Otp),
            "subject" => serde_json::from_str(payload).map(Self::Subject),
            _ => serde_json::from_str(payload).map(Self::User),
        };
        event.map_err(|error| UnreadableEvent::shape(name, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_version_is_read_through_every_step_to_todays() {
        const STEPS: &[Upcast] = &[
            Upcast {
                name: "line.status_changed",
                from: "-1",
                to: "0",
                apply: |v| v["line_id"] = v["project"].take(),
            },
            Upcast {
                name: "line.status_changed",
                from: "0",
                to: "1",
                apply: |v| {
                    v["status"] = Value::from(v["state"].as_str().unwrap_or("?").to_lowercase())
                },
            },
        ];
        let old = r#"{"type":"line.status_changed","project":"p","state":"READY"}"#;
        let event = Event::read_with(STEPS, "line.status_changed", "-1", old).unwrap();
        let Event::Line(line::Event::StatusChanged(changed)) = event else {
            panic!("{event:?}")
        };
        assert_eq!(
            (changed.line_id.as_str(), changed.status.as_str()),
            ("p", "ready")
        );
    }

    #[test]
    fn what_this_program_does_not_know_it_does_not_guess() {
        let unknown = Event::read("call.imagined", "1", "{}").unwrap_err();
        assert!(
            unknown.to_string().contains("older than the ledger"),
            "{unknown}"
        );
        let newer = Event::read("line.status_changed", "99", "{}").unwrap_err();
        assert!(matches!(newer, UnreadableEvent::Unknown { .. }));
    }
}
