//! Rows as a table: the columns that CSV and Parquet share.

use domain::log::line::{DeliveryLine, EventLine, Line};

use super::file::{InteractionLine, Row};
use super::order::Kind;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
    /// Microseconds since 1970.
    Time,
    Bytes,
}

/// A column, by its name.
pub(super) type Column = (&'static str, Type);

/// What stands in a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Text(&'a str),
    /// A text that is made for the table.
    Made(String),
    Number(i64),
    Time(i64),
    Bytes(&'a [u8]),
}

use Type::{Bytes, Number, Text, Time};

const INTERACTIONS: &[Column] = &[
    ("id", Text),
    ("channel", Text),
    ("provider", Text),
    ("direction", Text),
    ("status", Text),
    ("phone_number", Text),
    ("agent_id", Text),
    ("batch_id", Text),
    ("conversation_id", Text),
    ("started_at", Time),
    ("ended_at", Time),
    ("last_event_at", Time),
    ("duration_secs", Number),
    ("summary", Text),
    ("message_count", Number),
];

const EVENTS: &[Column] = &[
    ("position", Number),
    ("aggregate_type", Text),
    ("aggregate_id", Text),
    ("sequence", Number),
    ("event_type", Text),
    ("event_version", Text),
    ("payload", Text),
    ("metadata", Text),
    ("occurred_at", Time),
    ("recorded_at", Time),
    ("delivery_id", Text),
];

/// What was sent comes last, so that it can be left out.
const DELIVERIES: &[Column] = &[
    ("id", Text),
    ("seq", Number),
    ("provider", Text),
    ("route", Text),
    ("verdict", Text),
    ("reason", Text),
    ("authentication", Text),
    ("dedup_key", Bytes),
    ("repeat_key", Bytes),
    ("duplicate_of", Text),
    ("reprocess_of", Text),
    ("position", Number),
    ("received_at", Time),
    ("remote_addr", Text),
    ("body_bytes", Number),
    ("request_target", Text),
    ("headers", Text),
    ("body", Bytes),
];
/// How many of them are left out of a masked export.
pub(super) const SENT: usize = 3;

/// The columns of a kind.
pub(super) fn columns(kind: Kind, masked: bool) -> &'static [Column] {
    match kind {
        Kind::Interactions => INTERACTIONS,
        Kind::Events => EVENTS,
        Kind::Deliveries if masked => &DELIVERIES[..DELIVERIES.len() - SENT],
        Kind::Deliveries => DELIVERIES,
    }
}

/// What stands in the columns of a row, in their order.
pub(super) fn cells(row: &Row) -> Vec<Option<Cell<'_>>> {
    match row {
        Row::Interaction(row) => of_interaction(row),
        Row::Ledger(row) => match &row.line {
            Line::Event(row) => of_event(row),
            Line::Delivery(row) => of_delivery(row),
        },
    }
}

fn text(text: &str) -> Option<Cell<'_>> {
    Some(Cell::Text(text))
}

fn optional(text: &Option<String>) -> Option<Cell<'_>> {
    text.as_deref().map(Cell::Text)
}

fn of_interaction(row: &InteractionLine) -> Vec<Option<Cell<'_>>> {
    vec![
        text(&row.id),
        text(&row.channel),
        optional(&row.provider),
        optional(&row.direction),
        text(&row.status),
        optional(&row.phone_number),
        optional(&row.agent_id),
        optional(&row.batch_id),
        optional(&row.conversation_id),
        Some(Cell::Time(row.started_at.timestamp_micros())),
        row.ended_at.map(|at| Cell::Time(at.timestamp_micros())),
        Some(Cell::Time(row.last_event_at.timestamp_micros())),
        row.duration_secs.map(Cell::Number),
        optional(&row.summary),
        Some(Cell::Number(row.message_count)),
    ]
}

fn of_event(row: &EventLine) -> Vec<Option<Cell<'_>>> {
    vec![
        Some(Cell::Number(row.position)),
        text(&row.aggregate_type),
        text(&row.aggregate_id),
        Some(Cell::Number(row.sequence)),
        text(&row.event_type),
        text(&row.event_version),
        text(&row.payload),
        text(&row.metadata),
        row.occurred_at.map(Cell::Time),
        Some(Cell::Time(row.recorded_at)),
        row.delivery_id.map(|id| Cell::Made(id.to_string())),
    ]
}

fn of_delivery(row: &DeliveryLine) -> Vec<Option<Cell<'_>>> {
    vec![
        Some(Cell::Made(row.id.to_string())),
        Some(Cell::Number(row.seq)),
        text(&row.provider),
        text(&row.route),
        text(&row.verdict),
        optional(&row.reason),
        text(&row.authentication),
        row.dedup_key.as_deref().map(Cell::Bytes),
        row.repeat_key.as_deref().map(Cell::Bytes),
        row.duplicate_of.map(|id| Cell::Made(id.to_string())),
        row.reprocess_of.map(|id| Cell::Made(id.to_string())),
        row.position.map(Cell::Number),
        Some(Cell::Time(row.received_at)),
        optional(&row.remote_addr),
        Some(Cell::Number(row.body_bytes)),
        text(&row.request_target),
        text(&row.headers),
        row.body.as_deref().map(Cell::Bytes),
    ]
}
