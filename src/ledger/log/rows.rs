//! Rows of the ledger as the bytes that PostgreSQL stores, by its binary COPY.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use domain::log::{DeliveryLeaf, EventLeaf};
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::PgConnection;

/// PostgreSQL counts microseconds from the beginning of this year.
const YEAR_2000_MICROS: i64 = 946_684_800_000_000;
/// Signature, flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

const EVENT_FIELDS: usize = 11;
const EVENTS: &str = "position, aggregate_type, aggregate_id, sequence, event_type, event_version,
        payload, metadata, occurred_at, recorded_at, delivery_id from events";
const DELIVERY_FIELDS: usize = 18;
const DELIVERIES: &str =
    "id, seq, provider, route, verdict, reason, authentication, dedup_key, repeat_key,
        duplicate_of, reprocess_of, position, received_at, remote_addr, request_target, headers,
        body, body_bytes from deliveries";

/// Which rows, by position or seq, in that order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range<'a> {
    /// Behind this one.
    pub after: i64,
    /// Only these, if it is said.
    pub only: Option<&'a [i64]>,
    /// Up to this one, if it is said.
    pub up_to: Option<i64>,
    /// So many at most, if it is said.
    pub limit: Option<i64>,
    /// Without so many at the beginning.
    pub offset: i64,
}

/// Rows, one after another.
pub(super) struct Rows<'c>(BoxStream<'c, sqlx::Result<Bytes>>);

/// An event's row.
pub(super) struct EventRow(Bytes);
/// A delivery's row.
pub(super) struct DeliveryRow(Bytes);

impl<'c> Rows<'c> {
    /// Events by position.
    pub(super) async fn events(conn: &'c mut PgConnection, range: Range<'_>) -> sqlx::Result<Self> {
        Self::copy(conn, EVENTS, "position", range).await
    }

    /// Deliveries by seq.
    pub(super) async fn deliveries(
        conn: &'c mut PgConnection,
        range: Range<'_>,
    ) -> sqlx::Result<Self> {
        Self::copy(conn, DELIVERIES, "seq", range).await
    }

    async fn copy(
        conn: &'c mut PgConnection,
        what: &str,
        by: &str,
        range: Range<'_>,
    ) -> sqlx::Result<Self> {
        let mut sql = format!("copy (select {what} where {by} > '{}'::bigint", range.after);
        if let Some(up_to) = range.up_to {
            sql += &format!(" and {by} <= {up_to}");
        }
        if let Some(only) = range.only {
            let only: Vec<String> = only.iter().map(i64::to_string).collect();
            sql += &format!(" and {by} = any('{{{}}}'::bigint[])", only.join(","));
        }
        sql += &format!(" order by {by} offset {}", range.offset);
        if let Some(limit) = range.limit {
            sql += &format!(" limit {limit}");
        }
        sql += ") to stdout (format binary)";
        Ok(Self(conn.copy_out_raw(&sql).await?))
    }

    pub(super) async fn next_event(&mut self) -> anyhow::Result<Option<EventRow>> {
        Ok(self.next().await?.map(EventRow))
    }

    pub(super) async fn next_delivery(&mut self) -> anyhow::Result<Option<DeliveryRow>> {
        Ok(self.next().await?.map(DeliveryRow))
    }

    /// PostgreSQL sends one row in each message, and the end in one.
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        let Some(mut message) = self.0.try_next().await? else {
            return Ok(None);
        };
        if message.starts_with(HEADER) {
            message = message.slice(HEADER.len()..);
        }
        if message.starts_with(&[0xff, 0xff]) {
            // To the end, so that the connection can be used again.
            ensure!(
                self.0.try_next().await?.is_none(),
                "a COPY goes on behind its end"
            );
            return Ok(None);
        }
        Ok(Some(message))
    }
}

impl EventRow {
    pub(super) fn leaf(&self) -> anyhow::Result<EventLeaf<'_>> {
        let f = fields::<EVENT_FIELDS>(&self.0)?;
        Ok(EventLeaf {
            position: number(f[0])?,
            aggregate_type: text(f[1])?,
            aggregate_id: text(f[2])?,
            sequence: number(f[3])?,
            event_type: text(f[4])?,
            event_version: text(f[5])?,
            payload: text(f[6])?,
            metadata: text(f[7])?,
            occurred_at: f[8].map(|at| time(Some(at))).transpose()?,
            recorded_at: time(f[9])?,
            delivery_id: uuid(f[10])?,
        })
    }
}

impl DeliveryRow {
    pub(super) fn leaf(&self) -> anyhow::Result<DeliveryLeaf<'_>> {
        let f = fields::<DELIVERY_FIELDS>(&self.0)?;
        Ok(DeliveryLeaf {
            id: uuid(f[0])?.context("a delivery has no id")?,
            seq: number(f[1])?,
            provider: text(f[2])?,
            route: text(f[3])?,
            verdict: text(f[4])?,
            reason: f[5],
            authentication: text(f[6])?,
            dedup_key: f[7],
            repeat_key: f[8],
            duplicate_of: uuid(f[9])?,
            reprocess_of: uuid(f[10])?,
            position: f[11].map(|position| number(Some(position))).transpose()?,
            received_at: time(f[12])?,
            remote_addr: f[13],
            request_target: text(f[14])?,
            headers: text(f[15])?,
            body: f[16],
            body_bytes: i64::from(i32::from_be_bytes(fixed(f[17])?)),
        })
    }
}

/// A row cut into its fields.
fn fields<const N: usize>(row: &[u8]) -> anyhow::Result<[Option<&[u8]>; N]> {
    let (count, mut rest) = row.split_first_chunk().context("a row is cut short")?;
    ensure!(
        usize::try_from(i16::from_be_bytes(*count)) == Ok(N),
        "a row has other columns"
    );
    let mut fields = [None; N];
    for field in &mut fields {
        let (length, behind) = rest.split_first_chunk().context("a row is cut short")?;
        rest = behind;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            continue;
        };
        let (value, behind) = rest
            .split_at_checked(length)
            .context("a row is cut short")?;
        *field = Some(value);
        rest = behind;
    }
    if !rest.is_empty() {
        bail!("a row is too long");
    }
    Ok(fields)
}

fn text(field: Option<&[u8]>) -> anyhow::Result<&[u8]> {
    field.context("a column is null that must not be")
}

fn fixed<const N: usize>(field: Option<&[u8]>) -> anyhow::Result<[u8; N]> {
    text(field)?.try_into().context("a column has another type")
}

fn number(field: Option<&[u8]>) -> anyhow::Result<i64> {
    Ok(i64::from_be_bytes(fixed(field)?))
}

/// Microseconds since 1970. Infinity stays what it is.
fn time(field: Option<&[u8]>) -> anyhow::Result<i64> {
    Ok(number(field)?.saturating_add(YEAR_2000_MICROS))
}

fn uuid(field: Option<&[u8]>) -> anyhow::Result<Option<[u8; 16]>> {
    field.map(|id| fixed(Some(id))).transpose()
}
