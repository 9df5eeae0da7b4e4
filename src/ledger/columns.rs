//! A batch by its columns, in the order in which `ledger_append` takes them
//! (`migrations/0011_append.sql`).

use chrono::{DateTime, Duration, Utc};
use domain::fact::{Identity, REPEAT_WINDOW_MINUTES};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use uuid::Uuid;

use super::entry::Delivery;
use super::prepared::{Prepared, PreparedEvent};

/// The columns of deliveries.
pub(super) struct DeliveryColumns<'a> {
    ids: Vec<Uuid>,
    providers: Vec<&'static str>,
    routes: Vec<&'static str>,
    verdicts: Vec<&'static str>,
    reasons: Vec<Option<&'a str>>,
    authentications: Vec<&'a str>,
    identities: Vec<Option<&'a [u8]>>,
    lasting: Vec<bool>,
    earlier: Vec<Option<i32>>,
    as_earlier: Vec<bool>,
    last_events: Vec<Option<i32>>,
    reprocesses_of: Vec<Option<Uuid>>,
    received_at: Vec<DateTime<Utc>>,
    remote_addrs: Vec<Option<&'a str>>,
    request_targets: Vec<&'a str>,
    headers: Vec<&'a str>,
    bodies: Vec<&'a [u8]>,
}

impl<'a> DeliveryColumns<'a> {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            ids: Vec::with_capacity(count),
            providers: Vec::with_capacity(count),
            routes: Vec::with_capacity(count),
            verdicts: Vec::with_capacity(count),
            reasons: Vec::with_capacity(count),
            authentications: Vec::with_capacity(count),
            identities: Vec::with_capacity(count),
            lasting: Vec::with_capacity(count),
            earlier: Vec::with_capacity(count),
            as_earlier: Vec::with_capacity(count),
            last_events: Vec::with_capacity(count),
            reprocesses_of: Vec::with_capacity(count),
            received_at: Vec::with_capacity(count),
            remote_addrs: Vec::with_capacity(count),
            request_targets: Vec::with_capacity(count),
            headers: Vec::with_capacity(count),
            bodies: Vec::with_capacity(count),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The delivery at this place, from 0.
    pub(super) fn id(&self, at: usize) -> Uuid {
        self.ids[at]
    }

    /// The event whose position the delivery at this place answers with.
    pub(super) fn last_event(&self, at: usize) -> Option<usize> {
        self.last_events[at].map(|place| (place - 1) as usize)
    }

    /// Adds one. `earlier` is the place of one with the same identity, and
    /// `last_event` that of the event whose position it answers with.
    pub(super) fn push(
        &mut self,
        delivery: &'a Delivery,
        prepared: &'a Prepared,
        earlier: Option<usize>,
        last_event: Option<usize>,
    ) {
        let (identity, lasting) = match &prepared.identity {
            Some(Identity::Lasting(key)) => (Some(&key.0[..]), true),
            Some(Identity::Windowed(key)) => (Some(&key.0[..]), false),
            None => (None, true),
        };
        self.ids.push(delivery.id);
        self.providers.push(delivery.provider.as_str());
        self.routes.push(delivery.route);
        self.verdicts.push(prepared.verdict.as_str());
        self.reasons.push(prepared.reason.as_deref());
        self.authentications.push(&delivery.authentication);
        self.identities.push(identity);
        self.lasting.push(lasting);
        self.as_earlier
            .push(earlier.is_some_and(|at| self.bodies[at] == delivery.body));
        self.earlier.push(earlier.map(place));
        self.last_events.push(last_event.map(place));
        self.reprocesses_of.push(delivery.reprocess_of);
        self.received_at.push(delivery.received_at);
        self.remote_addrs.push(delivery.remote_addr.as_deref());
        self.request_targets.push(&delivery.request_target);
        self.headers.push(&delivery.headers);
        self.bodies.push(&delivery.body);
    }

    pub(super) fn bind<'q, T>(
        &'q self,
        query: QueryAs<'q, Postgres, T, PgArguments>,
    ) -> QueryAs<'q, Postgres, T, PgArguments> {
        query
            .bind(&self.ids)
            .bind(&self.providers)
            .bind(&self.routes)
            .bind(&self.verdicts)
            .bind(&self.reasons)
            .bind(&self.authentications)
            .bind(&self.identities)
            .bind(&self.lasting)
            .bind(Duration::minutes(REPEAT_WINDOW_MINUTES))
            .bind(&self.earlier)
            .bind(&self.as_earlier)
            .bind(&self.last_events)
            .bind(&self.reprocesses_of)
            .bind(&self.received_at)
            .bind(&self.remote_addrs)
            .bind(&self.request_targets)
            .bind(&self.headers)
            .bind(&self.bodies)
    }
}

/// The columns of events.
pub(super) struct EventColumns<'a> {
    deliveries: Vec<Option<i32>>,
    streams: Vec<i32>,
    nths: Vec<i32>,
    aggregate_types: Vec<&'static str>,
    aggregate_ids: Vec<&'a str>,
    names: Vec<&'static str>,
    versions: Vec<&'static str>,
    payloads: Vec<&'a str>,
    metadata: Vec<&'a str>,
    occurred_at: Vec<Option<DateTime<Utc>>>,
}

impl<'a> EventColumns<'a> {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            deliveries: Vec::with_capacity(count),
            streams: Vec::with_capacity(count),
            nths: Vec::with_capacity(count),
            aggregate_types: Vec::with_capacity(count),
            aggregate_ids: Vec::with_capacity(count),
            names: Vec::with_capacity(count),
            versions: Vec::with_capacity(count),
            payloads: Vec::with_capacity(count),
            metadata: Vec::with_capacity(count),
            occurred_at: Vec::with_capacity(count),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Adds one, of the delivery at a place, the `nth` of the stream with a
    /// number.
    pub(super) fn push(
        &mut self,
        event: &'a PreparedEvent,
        delivery: Option<usize>,
        (stream, nth): (i32, i32),
    ) {
        self.deliveries.push(delivery.map(place));
        self.streams.push(stream);
        self.nths.push(nth);
        self.aggregate_types.push(event.stream.aggregate_type);
        self.aggregate_ids.push(&event.stream.aggregate_id);
        self.names.push(event.name);
        self.versions.push(event.version);
        self.payloads.push(&event.payload);
        self.metadata.push(&event.metadata);
        self.occurred_at.push(event.occurred_at);
    }

    pub(super) fn bind<'q, T>(
        &'q self,
        query: QueryAs<'q, Postgres, T, PgArguments>,
    ) -> QueryAs<'q, Postgres, T, PgArguments> {
        query
            .bind(&self.deliveries)
            .bind(&self.streams)
            .bind(&self.nths)
            .bind(&self.aggregate_types)
            .bind(&self.aggregate_ids)
            .bind(&self.names)
            .bind(&self.versions)
            .bind(&self.payloads)
            .bind(&self.metadata)
            .bind(&self.occurred_at)
    }
}

/// As SQL counts: from 1.
fn place(at: usize) -> i32 {
    i32::try_from(at + 1).unwrap_or(i32::MAX)
}
