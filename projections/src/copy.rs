//! Rows as PostgreSQL's binary COPY reads them: it takes them as they are,
//! where a third of the time of a fold was spent on reading text.
//!
//! A row is what serde makes of it, and each of its fields goes straight into
//! the bytes of the column with its name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde::ser::{Error as _, Impossible, Serialize, SerializeMap, SerializeStruct, Serializer};
use serde_json::Error;
use sqlx::PgConnection;

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

/// Writes rows of one table.
pub(crate) struct Encoder {
    columns: Arc<[Column]>,
    /// The values of a row, in the order of its fields.
    values: Vec<u8>,
    /// Where in them that of each column is, if it has one.
    places: Vec<Option<Range<usize>>>,
    /// The column after the last that had a field: mostly the next to have one.
    next: usize,
    /// Of a field that is to be found its column; only its memory is kept.
    name: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(columns: Arc<[Column]>) -> Self {
        Self {
            places: vec![None; columns.len()],
            columns,
            values: Vec::new(),
            next: 0,
            name: Vec::new(),
        }
    }

    /// Appends a row. A column that it has no field for is null, and a field
    /// without a column is left out.
    pub(crate) fn push<R: Serialize>(&mut self, out: &mut Vec<u8>, row: &R) -> anyhow::Result<()> {
        self.values.clear();
        self.places.fill(None);
        self.next = 0;
        row.serialize(Sink::Row(self))?;
        out.extend_from_slice(&i16::try_from(self.places.len())?.to_be_bytes());
        for place in &self.places {
            let value = place.clone().map(|place| &self.values[place]);
            let bytes = value.map_or(Ok(-1), |value| i32::try_from(value.len()))?;
            out.extend_from_slice(&bytes.to_be_bytes());
            out.extend_from_slice(value.unwrap_or_default());
        }
        Ok(())
    }

    fn take<V: Serialize + ?Sized>(&mut self, name: &str, value: &V) -> Result<(), Error> {
        let (before, after) = self.columns.split_at(self.next);
        let is_it = |column: &Column| column.name == name;
        let at = after.iter().position(is_it).map(|at| self.next + at);
        let Some(at) = at.or_else(|| before.iter().position(is_it)) else {
            return Ok(());
        };
        self.next = at + 1;
        let start = self.values.len();
        let out = &mut self.values;
        let is_there = match self.columns[at].kind {
            Kind::Json => push_json(out, value)?,
            Kind::Jsonb => {
                // Its version.
                out.push(1);
                push_json(out, value)?
            }
            kind => {
                let pushed = value.serialize(Sink::Value(kind, out));
                pushed.map_err(|error| Error::custom(format_args!("column {name}: {error}")))?
            }
        };
        self.places[at] = is_there.then_some(start..self.values.len());
        Ok(())
    }
}

/// Whether it is anything but `null`.
fn push_json<V: Serialize + ?Sized>(out: &mut Vec<u8>, value: &V) -> Result<bool, Error> {
    let start = out.len();
    serde_json::to_writer(&mut *out, value)?;
    Ok(&out[start..] != b"null")
}

/// What takes a row, an object whose fields are the columns; or a value that is
/// not JSON, and gives whether it is anything but null.
enum Sink<'e> {
    Row(&'e mut Encoder),
    Value(Kind, &'e mut Vec<u8>),
}

fn refused() -> Error {
    Error::custom("a value of another type cannot be copied")
}

impl<'e> Serializer for Sink<'e> {
    type Ok = bool;
    type Error = Error;
    type SerializeSeq = Impossible<bool, Error>;
    type SerializeTuple = Impossible<bool, Error>;
    type SerializeTupleStruct = Impossible<bool, Error>;
    type SerializeTupleVariant = Impossible<bool, Error>;
    type SerializeMap = Fields<'e>;
    type SerializeStruct = Fields<'e>;
    type SerializeStructVariant = Impossible<bool, Error>;

    /// What has a binary form gives that.
    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_str(self, text: &str) -> Result<bool, Error> {
        match self {
            Self::Value(Kind::Text, out) => out.extend_from_slice(text.as_bytes()),
            Self::Value(Kind::Timestamp, out) => {
                let at: DateTime<Utc> = text.parse().map_err(Error::custom)?;
                let micros = at.timestamp_micros() - YEAR_2000_MICROS;
                out.extend_from_slice(&micros.to_be_bytes());
            }
            _ => return Err(refused()),
        }
        Ok(true)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<bool, Error> {
        match self {
            Self::Value(Kind::Uuid | Kind::Vector, out) => out.extend_from_slice(bytes),
            _ => return Err(refused()),
        }
        Ok(true)
    }

    fn serialize_i64(self, number: i64) -> Result<bool, Error> {
        match self {
            Self::Value(Kind::Bigint, out) => out.extend_from_slice(&number.to_be_bytes()),
            Self::Value(Kind::Integer, out) => {
                let number = i32::try_from(number).map_err(Error::custom)?;
                out.extend_from_slice(&number.to_be_bytes());
            }
            _ => return Err(refused()),
        }
        Ok(true)
    }

    fn serialize_bool(self, is_so: bool) -> Result<bool, Error> {
        match self {
            Self::Value(Kind::Boolean, out) => out.push(is_so.into()),
            _ => return Err(refused()),
        }
        Ok(true)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields<'e>, Error> {
        match self {
            Self::Row(encoder) => Ok(Fields(encoder)),
            Self::Value(..) => Err(refused()),
        }
    }

    fn serialize_struct(self, _: &str, _: usize) -> Result<Fields<'e>, Error> {
        self.serialize_map(None)
    }

    fn serialize_none(self) -> Result<bool, Error> {
        Ok(false)
    }

    fn serialize_unit(self) -> Result<bool, Error> {
        Ok(false)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<bool, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &str,
        value: &T,
    ) -> Result<bool, Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &str, _: u32, name: &str) -> Result<bool, Error> {
        self.serialize_str(name)
    }

    fn serialize_char(self, c: char) -> Result<bool, Error> {
        self.serialize_str(c.encode_utf8(&mut [0; 4]))
    }

    fn serialize_u64(self, number: u64) -> Result<bool, Error> {
        self.serialize_i64(number.try_into().map_err(Error::custom)?)
    }

    fn serialize_i8(self, value: i8) -> Result<bool, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<bool, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<bool, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u8(self, value: u8) -> Result<bool, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<bool, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<bool, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_f32(self, _: f32) -> Result<bool, Error> {
        Err(refused())
    }

    fn serialize_f64(self, _: f64) -> Result<bool, Error> {
        Err(refused())
    }

    fn serialize_unit_struct(self, _: &str) -> Result<bool, Error> {
        Err(refused())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &str,
        _: u32,
        _: &str,
        _: &T,
    ) -> Result<bool, Error> {
        Err(refused())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Error> {
        Err(refused())
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        Err(refused())
    }

    fn serialize_tuple_struct(
        self,
        _: &str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        Err(refused())
    }

    fn serialize_tuple_variant(
        self,
        _: &str,
        _: u32,
        _: &str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(refused())
    }

    fn serialize_struct_variant(
        self,
        _: &str,
        _: u32,
        _: &str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(refused())
    }
}

/// Takes the fields of a row. Where serde flattens one object into another, it
/// makes a map of them.
struct Fields<'e>(&'e mut Encoder);

impl SerializeStruct for Fields<'_> {
    type Ok = bool;
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.0.take(name, value)
    }

    fn end(self) -> Result<bool, Error> {
        Ok(true)
    }
}

impl SerializeMap for Fields<'_> {
    type Ok = bool;
    type Error = Error;

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        name: &K,
        value: &V,
    ) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.0.name);
        bytes.clear();
        name.serialize(Sink::Value(Kind::Text, &mut bytes))?;
        let name = str::from_utf8(&bytes).map_err(Error::custom)?;
        self.0.take(name, value)?;
        self.0.name = bytes;
        Ok(())
    }

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Error> {
        Err(refused())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Error> {
        Err(refused())
    }

    fn end(self) -> Result<bool, Error> {
        Ok(true)
    }
}
