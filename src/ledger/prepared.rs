//! Entries as the writer takes them: everything that needs no database is
//! done, by whoever brings the entry and not by the one task that writes.

use chrono::{DateTime, Utc};
use domain::delivery::{self, Verdict};
use domain::fact::Identity;
use domain::{Event, Fact, StreamId};

use super::entry::{Claim, Delivery, Entry};
use super::keyring::Sealed;

/// An entry, ready to be written.
pub(super) struct Prepared {
    pub(super) delivery: Option<Box<Delivery>>,
    /// What makes the delivery the same as another.
    pub(super) identity: Option<Identity>,
    /// If it is the first of its kind.
    pub(super) verdict: Verdict,
    pub(super) reason: Option<String>,
    pub(super) events: Vec<PreparedEvent>,
    /// Under what its personal data is; `None`: it is as it came.
    pub(super) sealed: Option<Sealed>,
}

/// An event, ready to be written.
pub(super) struct PreparedEvent {
    pub(super) stream: StreamId,
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// JSON.
    pub(super) payload: String,
    /// JSON.
    pub(super) metadata: String,
    pub(super) occurred_at: Option<DateTime<Utc>>,
}

impl Prepared {
    pub(super) fn new(entry: Entry) -> Self {
        match entry {
            Entry::Facts(facts, metadata) => {
                let metadata = metadata.to_string();
                Self {
                    delivery: None,
                    identity: None,
                    verdict: Verdict::Accepted,
                    reason: None,
                    events: facts
                        .into_iter()
                        .map(|fact| PreparedEvent::of(fact, &metadata, None))
                        .collect(),
                    sealed: None,
                }
            }
            Entry::Delivery(delivery, Claim::Facts { identity, facts }) => {
                let metadata = metadata_of(&delivery);
                let events = facts
                    .into_iter()
                    .map(|fact| PreparedEvent::of(fact, &metadata, Some(delivery.received_at)))
                    .collect();
                Self {
                    delivery: Some(delivery),
                    identity: Some(identity),
                    verdict: Verdict::Accepted,
                    reason: None,
                    events,
                    sealed: None,
                }
            }
            Entry::Delivery(delivery, Claim::Quarantined { identity, reason }) => {
                quarantined(delivery, identity, reason)
            }
            Entry::Delivery(delivery, Claim::Rejected { reason }) => Self {
                delivery: Some(delivery),
                identity: None,
                verdict: Verdict::Rejected,
                reason: Some(reason),
                events: vec![],
                sealed: None,
            },
        }
    }

    /// The same delivery with its facts put aside; `None` of what is no
    /// delivery, or has no facts.
    pub(super) fn put_aside(self, reason: &str) -> Option<Self> {
        let (Some(delivery), Some(identity), Verdict::Accepted) =
            (self.delivery, self.identity, self.verdict)
        else {
            return None;
        };
        Some(Self {
            sealed: self.sealed,
            ..quarantined(delivery, identity, reason.to_owned())
        })
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.verdict == Verdict::Rejected
    }

    /// Whether writing it a second time would write nothing.
    pub(super) fn is_idempotent(&self) -> bool {
        self.identity.is_some()
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.delivery
            .as_ref()
            .map_or(0, |delivery| delivery.body.len())
    }
}

fn quarantined(delivery: Box<Delivery>, identity: Identity, reason: String) -> Prepared {
    let fact = Fact {
        stream: StreamId::delivery(delivery.id),
        event: Event::Delivery(delivery::Event::Quarantined(delivery::Quarantined {
            delivery_id: delivery.id,
            reason: reason.clone(),
        })),
        occurred_at: Some(delivery.received_at),
    };
    Prepared {
        identity: Some(identity),
        verdict: Verdict::Quarantined,
        reason: Some(reason),
        events: vec![PreparedEvent::of(fact, &metadata_of(&delivery), None)],
        delivery: Some(delivery),
        sealed: None,
    }
}

fn metadata_of(delivery: &Delivery) -> String {
    format!(r#"{{"provider":"{}"}}"#, delivery.provider)
}

impl PreparedEvent {
    fn of(fact: Fact, metadata: &str, received_at: Option<DateTime<Utc>>) -> Self {
        Self {
            name: fact.event.name(),
            version: fact.event.version(),
            payload: serde_json::to_string(&fact.event).expect("an event is JSON"),
            metadata: metadata.to_owned(),
            occurred_at: fact.occurred_at.or(received_at),
            stream: fact.stream,
        }
    }
}
