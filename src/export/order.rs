//! What is wanted of an export.

use chrono::{DateTime, TimeDelta, Utc};
use domain::delivery::Verdict;
use domain::{Channel, Direction, Provider};
use projections::interactions;
use serde_json::{Map, Value, json};

use crate::ledger::{deliveries, events};

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Calls, WhatsApp conversations and SMS, as they are listed.
    Interactions,
    /// The ledger's events.
    Events,
    /// What providers sent.
    Deliveries,
}

/// In what form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line of JSON each, between a header and a footer.
    Jsonl,
    /// Comma-separated values (RFC 4180), with names.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// A word that is none of the known ones.
macro_rules! words {
    ($($type:ident { $($variant:ident = $word:literal),+ })+) => {$(
        impl $type {
            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl std::str::FromStr for $type {
            type Err = String;
            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of: {}", [$($word),+].join(", "))),
                }
            }
        }
    )+};
}
words! {
    Kind { Interactions = "interactions", Events = "events", Deliveries = "deliveries" }
    Format { Jsonl = "jsonl", Csv = "csv", Parquet = "parquet" }
}

/// The filters of all kinds; those of the lists.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Of interactions.
    pub channel: Option<Channel>,
    /// Of interactions.
    pub status: Option<String>,
    /// Of interactions.
    pub direction: Option<Direction>,
    /// Of interactions: the key of the number.
    pub phone_key: Option<String>,
    /// Of interactions.
    pub agent_id: Option<String>,
    /// Of interactions.
    pub batch_id: Option<String>,
    /// Of interactions: words.
    pub q: Option<String>,
    /// Of events: behind this position.
    pub after: Option<i64>,
    /// Of events.
    pub event_type: Option<String>,
    /// Of events.
    pub aggregate_type: Option<String>,
    /// Of events.
    pub aggregate_id: Option<String>,
    /// Of deliveries.
    pub verdict: Option<Verdict>,
    /// Of interactions and deliveries.
    pub provider: Option<Provider>,
    /// Of all: begun, recorded, received at or after.
    pub from: Option<DateTime<Utc>>,
    /// Of all: begun, recorded, received before or at.
    pub to: Option<DateTime<Utc>>,
}

/// A filter that the kind has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no filter of {}", .kind.as_str())]
pub struct Misplaced {
    /// Which.
    pub field: &'static str,
    /// Of what.
    pub kind: Kind,
}

/// An export that is wanted.
#[derive(Clone, Debug)]
pub struct Order {
    /// In what form.
    pub format: Format,
    /// Whether numbers are masked, and what providers sent is left out.
    pub masked: bool,
    pub(super) what: What,
    /// The filters, without personal data.
    pub(super) described: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Interactions(interactions::Filter),
    Events(events::Filter),
    Deliveries(deliveries::Filter),
}

impl Order {
    /// An order of these filters.
    ///
    /// # Errors
    /// [`Misplaced`] for a filter that the kind has not.
    pub fn new(
        kind: Kind,
        format: Format,
        masked: bool,
        filters: Filters,
    ) -> Result<Self, Misplaced> {
        let described = describe(kind, &filters)?;
        let Filters { from, to, .. } = filters;
        let what = match kind {
            Kind::Interactions => What::Interactions(interactions::Filter {
                channel: filters.channel,
                status: filters.status,
                direction: filters.direction,
                provider: filters.provider,
                phone_key: filters.phone_key,
                agent_id: filters.agent_id,
                batch_id: filters.batch_id,
                from,
                // The list compares with "before"; PostgreSQL counts in these.
                to: to.map(|to| to + TimeDelta::microseconds(1)),
                q: filters.q,
            }),
            Kind::Events => What::Events(events::Filter {
                after: filters.after.unwrap_or_default(),
                event_type: filters.event_type,
                aggregate_type: filters.aggregate_type,
                aggregate_id: filters.aggregate_id,
                from,
                to,
            }),
            Kind::Deliveries => What::Deliveries(deliveries::Filter {
                verdict: filters.verdict.map(|verdict| verdict.to_string()),
                provider: filters.provider.map(|provider| provider.to_string()),
                from,
                to,
                before: None,
            }),
        };
        Ok(Self {
            format,
            masked,
            what,
            described,
        })
    }

    /// What is exported.
    pub fn kind(&self) -> Kind {
        match self.what {
            What::Interactions(_) => Kind::Interactions,
            What::Events(_) => Kind::Events,
            What::Deliveries(_) => Kind::Deliveries,
        }
    }

    /// Whether each row can be proved: it is there as it is stored.
    pub(super) fn is_provable(&self) -> bool {
        self.format == Format::Jsonl && self.kind() != Kind::Interactions && !self.masked
    }

    /// What is put on record of it: no personal data.
    pub fn record(&self) -> Value {
        json!({
            "format": self.format.as_str(),
            "masked": self.masked,
            "filter": self.described,
        })
    }

    /// A name for the file.
    pub fn file_name(&self, position: i64) -> String {
        let (kind, format) = (self.kind().as_str(), self.format.as_str());
        format!("bitacora-{kind}-{position}.{format}")
    }
}

/// The filters that are there, by name. Whose number, and which words, is not
/// for the record.
fn describe(kind: Kind, filters: &Filters) -> Result<Map<String, Value>, Misplaced> {
    use Kind::{Deliveries, Events, Interactions};
    let Filters {
        channel,
        status,
        direction,
        phone_key,
        agent_id,
        batch_id,
        q,
        after,
        event_type,
        aggregate_type,
        aggregate_id,
        verdict,
        provider,
        from,
        to,
    } = filters;
    let given: [(&'static str, Option<Value>, &[Kind]); 15] = [
        (
            "channel",
            channel.map(|it| it.as_str().into()),
            &[Interactions],
        ),
        ("status", status.clone().map(Value::from), &[Interactions]),
        (
            "direction",
            direction.map(|it| it.as_str().into()),
            &[Interactions],
        ),
        ("phone", phone_key.clone().map(Value::from), &[Interactions]),
        (
            "agent_id",
            agent_id.clone().map(Value::from),
            &[Interactions],
        ),
        (
            "batch_id",
            batch_id.clone().map(Value::from),
            &[Interactions],
        ),
        ("q", q.as_ref().map(|_| "(words)".into()), &[Interactions]),
        ("after", after.map(Value::from), &[Events]),
        ("type", event_type.clone().map(Value::from), &[Events]),
        (
            "aggregate_type",
            aggregate_type.clone().map(Value::from),
            &[Events],
        ),
        (
            "aggregate_id",
            aggregate_id.clone().map(Value::from),
            &[Events],
        ),
        (
            "verdict",
            verdict.map(|it| it.as_str().into()),
            &[Deliveries],
        ),
        (
            "provider",
            provider.map(|it| it.as_str().into()),
            &[Interactions, Deliveries],
        ),
        (
            "from",
            from.map(|at| json!(at)),
            &[Interactions, Events, Deliveries],
        ),
        (
            "to",
            to.map(|at| json!(at)),
            &[Interactions, Events, Deliveries],
        ),
    ];
    let mut described = Map::new();
    for (field, value, kinds) in given {
        let Some(value) = value else { continue };
        if !kinds.contains(&kind) {
            return Err(Misplaced { field, kind });
        }
        described.insert(field.to_owned(), value);
    }
    Ok(described)
}
