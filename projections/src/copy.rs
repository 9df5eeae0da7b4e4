//! Rows as PostgreSQL's binary COPY reads them: it takes them as they are,
//! where a third of the time of a fold was spent on reading text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use uuid::Uuid;

/// PostgreSQL counts microseconds from the beginning of this year.
const YEAR_2000_MICROS: i64 = 946_684_800_000_000;

/// A column that is written.
pub(crate) struct Column {
    name: &'static str,
    kind: Kind,
}

/// The types that columns of read models have.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Integer,
    Bigint,
    Boolean,
    Timestamp,
    Uuid,
    Json,
    Jsonb,
    Vector,
}

impl Kind {
    fn named(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "text" => Self::Text,
            "integer" => Self::Integer,
            "bigint" => Self::Bigint,
            "boolean" => Self::Boolean,
            "timestamp with time zone" => Self::Timestamp,
            "uuid" => Self::Uuid,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "tsvector" => Self::Vector,
            _ => bail!("columns of type {name} cannot be copied"),
        })
    }
}

/// The columns that were asked for, by table: a table's columns do not change
/// while a program runs, and a fold writes to several.
static KNOWN: Mutex<BTreeMap<&'static str, Arc<[Column]>>> = Mutex::new(BTreeMap::new());

/// The columns of a table with these names, which are always the same.
pub(crate) async fn columns(
    conn: &mut PgConnection,
    table: &'static str,
    names: impl Iterator<Item = &'static str>,
) -> anyhow::Result<Arc<[Column]>> {
    if let Some(columns) = known().get(table) {
        return Ok(columns.clone());
    }
    let names: Vec<_> = names.collect();
    let sql = "select format_type(atttypid, null) from unnest($2::text[]) with ordinality as c (name, place)
               join pg_attribute on attrelid = $1::regclass and attname = name order by place";
    let kinds = sqlx::query_scalar(sql).bind(table).bind(&names);
    let kinds: Vec<String> = kinds.fetch_all(conn).await?;
    if kinds.len() != names.len() {
        bail!("table {table} lacks a column");
    }
    let columns = names.into_iter().zip(kinds).map(|(name, kind)| {
        let kind = Kind::named(&kind)?;
        Ok(Column { name, kind })
    });
    let columns: Arc<[Column]> = columns.collect::<anyhow::Result<_>>()?;
    known().insert(table, columns.clone());
    Ok(columns)
}

fn known() -> MutexGuard<'static, BTreeMap<&'static str, Arc<[Column]>>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What comes before the first row.
pub(crate) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What comes after the last.
pub(crate) const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// Appends a row. Its fields are taken by the names of the columns; one that it
/// does not have is null.
pub(crate) fn push_row<R: Serialize>(
    out: &mut Vec<u8>,
    row: &R,
    columns: &[Column],
) -> anyhow::Result<()> {
    let json = serde_json::to_string(row)?;
    let mut reader = serde_json::Deserializer::from_str(&json);
    let values = reader.deserialize_map(Values(columns))?;
    out.extend_from_slice(&i16::try_from(columns.len())?.to_be_bytes());
    for (column, value) in columns.iter().zip(values) {
        let start = out.len();
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        if let Some(json) = value.map(RawValue::get).filter(|json| *json != "null") {
            push_value(out, column.kind, json)
                .with_context(|| format!("column {}", column.name))?;
            let bytes = i32::try_from(out.len() - start - 4)?;
            out[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
        }
    }
    Ok(())
}

/// Reads an object's values, in the order of the columns.
struct Values<'c>(&'c [Column]);

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.0.len()];
        // Mostly the fields come in the order of the columns.
        let mut next = 0;
        while let Some((name, value)) = row.next_entry::<&str, &RawValue>()? {
            let (before, after) = self.0.split_at(next);
            let is_it = |column: &Column| column.name == name;
            let at = after.iter().position(is_it).map(|at| next + at);
            if let Some(at) = at.or_else(|| before.iter().position(is_it)) {
                values[at] = Some(value);
                next = at + 1;
            }
        }
        Ok(values)
    }
}

fn push_value(out: &mut Vec<u8>, kind: Kind, json: &str) -> anyhow::Result<()> {
    match kind {
        Kind::Json => out.extend_from_slice(json.as_bytes()),
        Kind::Jsonb => {
            // Its version.
            out.push(1);
            out.extend_from_slice(json.as_bytes());
        }
        Kind::Integer => out.extend_from_slice(&json.parse::<i32>()?.to_be_bytes()),
        Kind::Bigint => out.extend_from_slice(&json.parse::<i64>()?.to_be_bytes()),
        Kind::Boolean => out.push(u8::from(json == "true")),
        Kind::Timestamp => {
            let at: DateTime<Utc> = serde_json::from_str(json)?;
            let micros = at.timestamp_micros() - YEAR_2000_MICROS;
            out.extend_from_slice(&micros.to_be_bytes());
        }
        Kind::Uuid => {
            let id: Uuid = serde_json::from_str(json)?;
            out.extend_from_slice(id.as_bytes());
        }
        Kind::Text | Kind::Vector => {
            let quoted = json
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            let decoded: String;
            let text = match quoted {
                Some(text) if !text.contains('\\') => text,
                _ => {
                    decoded = serde_json::from_str(json)?;
                    &decoded
                }
            };
            match kind {
                Kind::Vector => push_vector(out, text)?,
                _ => out.extend_from_slice(text.as_bytes()),
            }
        }
    }
    Ok(())
}

/// A vector as [`crate::search::Lexicon`] writes it: stems of letters and
/// digits, in order, each with its places.
fn push_vector(out: &mut Vec<u8>, text: &str) -> anyhow::Result<()> {
    let count_at = out.len();
    let mut count = 0_i32;
    out.extend_from_slice(&count.to_be_bytes());
    for stem in text.split_terminator(' ') {
        let (stem, places) = stem
            .strip_prefix('\'')
            .and_then(|stem| stem.split_once("':"))
            .context("not a vector")?;
        out.extend_from_slice(stem.as_bytes());
        out.push(0);
        let places_at = out.len();
        let mut of_stem = 0_u16;
        out.extend_from_slice(&of_stem.to_be_bytes());
        for place in places.split(',') {
            out.extend_from_slice(&place.parse::<u16>()?.to_be_bytes());
            of_stem += 1;
        }
        out[places_at..places_at + 2].copy_from_slice(&of_stem.to_be_bytes());
        count += 1;
    }
    out[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
    Ok(())
}
