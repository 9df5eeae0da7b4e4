//! Readers of JSON that take what they can: a number where a text was
//! promised, null where a list was. A value that cannot be used counts as
//! missing; only what is no JSON at all is an error.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::text;

/// From here on a number of seconds is one of milliseconds: as seconds it
/// would be past the year 5000.
const MILLISECONDS_FROM: i64 = 100_000_000_000;
/// The last microsecond that RFC 3339 can write.
const INSTANT_MICROS_MAX: i64 = 253_402_300_799_999_999;

/// A value without parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Scalar<'a> {
    /// Null, missing, a list or an object.
    #[default]
    Nothing,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Real(f64),
    /// A text.
    Text(Cow<'a, str>),
}

impl<'a> From<&'a Value> for Scalar<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Bool(it) => Self::Bool(*it),
            Value::String(it) => Self::Text(Cow::Borrowed(it)),
            Value::Number(it) => match (it.as_i64(), it.as_f64()) {
                (Some(whole), _) => Self::Whole(whole),
                (None, Some(real)) => Self::Real(real),
                (None, None) => Self::Nothing,
            },
            Value::Null | Value::Array(_) | Value::Object(_) => Self::Nothing,
        }
    }
}

impl Scalar<'_> {
    /// The text, if there is any, fit for PostgreSQL.
    pub(super) fn into_text(self) -> Option<String> {
        let text = match self {
            Self::Nothing => return None,
            Self::Bool(it) => it.to_string(),
            Self::Whole(it) => it.to_string(),
            Self::Real(it) => it.to_string(),
            Self::Text(it) if it.contains('\0') => text::clean(&it),
            Self::Text(it) => it.into_owned(),
        };
        (!text.is_empty()).then_some(text)
    }

    /// The number, rounded.
    pub(super) fn whole(&self) -> Option<i64> {
        let rounded = |real: f64| (real.abs() < 9e15).then(|| real.round() as i64);
        match self {
            Self::Whole(it) => Some(*it),
            Self::Real(it) => rounded(*it),
            Self::Text(it) => {
                let it = it.trim();
                it.parse()
                    .ok()
                    .or_else(|| it.parse().ok().and_then(rounded))
            }
            Self::Nothing | Self::Bool(_) => None,
        }
    }

    /// Whether it says yes.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Bool(it) => *it,
            Self::Text(it) => it.trim().eq_ignore_ascii_case("true"),
            Self::Whole(it) => *it == 1,
            Self::Nothing | Self::Real(_) => false,
        }
    }

    /// The instant: seconds or milliseconds since 1970, or RFC 3339. The same
    /// instant is the same however it is written.
    pub(super) fn instant(&self) -> Option<DateTime<Utc>> {
        let micros = match self {
            Self::Whole(it) => micros_of_whole(*it),
            Self::Real(it) => micros_of_real(*it),
            Self::Text(it) => {
                let it = it.trim();
                if let Ok(whole) = it.parse() {
                    micros_of_whole(whole)
                } else if let Ok(real) = it.parse() {
                    micros_of_real(real)
                } else {
                    DateTime::parse_from_rfc3339(it).ok()?.timestamp_micros()
                }
            }
            Self::Nothing | Self::Bool(_) => return None,
        };
        let plausible = (1..=INSTANT_MICROS_MAX).contains(&micros);
        plausible
            .then(|| DateTime::from_timestamp_micros(micros))
            .flatten()
    }
}

fn micros_of_whole(number: i64) -> i64 {
    let unit = if number >= MILLISECONDS_FROM {
        1_000
    } else {
        1_000_000
    };
    number.saturating_mul(unit)
}

fn micros_of_real(number: f64) -> i64 {
    let unit = if number >= MILLISECONDS_FROM as f64 {
        1e3
    } else {
        1e6
    };
    (number * unit).round() as i64
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, it: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Whole(it))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(it).map_or(Scalar::Real(it as f64), Scalar::Whole))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Real(it))
    }

    fn visit_borrowed_str<E>(self, it: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(it)))
    }

    fn visit_str<E>(self, it: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(it.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_list(seq).map(|()| Scalar::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        skip_object(map).map(|()| Scalar::Nothing)
    }
}

fn skip_list<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn skip_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// A text, cleaned; `None` where there is none or an empty one.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Text(pub(super) Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Scalar::deserialize(deserializer).map(|it| Self(it.into_text()))
    }
}

impl Text {
    /// The text, or `""`.
    pub(super) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A whole number.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Whole(pub(super) Option<i64>);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Scalar::deserialize(deserializer).map(|it| Self(it.whole()))
    }
}

/// True, or not.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Scalar::deserialize(deserializer).map(|it| Self(it.is_true()))
    }
}

/// An instant.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Instant(pub(super) Option<DateTime<Utc>>);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Scalar::deserialize(deserializer).map(|it| Self(it.instant()))
    }
}

/// An object of a known shape; `None` where there is something else.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

/// A list; empty where there is something else.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

/// The part of a visitor that takes every scalar for nothing.
macro_rules! scalars_are_nothing {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    scalars_are_nothing!();

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_list(seq).map(|()| Object(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|it| Object(Some(it)))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    scalars_are_nothing!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            list.push(element);
        }
        Ok(List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        skip_object(map).map(|()| List(Vec::new()))
    }
}

/// Reads a body that should be a JSON object. Text cut in the middle of a
/// surrogate pair (`"\ud83d"`, as JavaScript's `slice` leaves it) is JSON, but
/// no text that Rust can hold: the half becomes U+FFFD. So nothing is borrowed
/// from the body here; see [`object_in`] for a reader that borrows.
pub(super) fn object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    match object_in(body) {
        Ok(object) => Ok(object),
        Err(reason) => match without_half_pairs(body) {
            Some(mended) => object_in(&mended),
            None => Err(reason),
        },
    }
}

/// Reads a body that should be a JSON object, and may borrow from it.
pub(super) fn object_in<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    match serde_json::from_slice::<Object<T>>(body) {
        Ok(Object(Some(object))) => Ok(object),
        Ok(Object(None)) => Err("the body is not a JSON object".to_owned()),
        // The error's own words may repeat the body's.
        Err(error) => Err(format!(
            "the body is not readable as JSON at line {} column {}",
            error.line(),
            error.column()
        )),
    }
}

/// The body with every lone half of a surrogate pair replaced; `None` where
/// there is none.
pub(super) fn without_half_pairs(body: &[u8]) -> Option<Vec<u8>> {
    let mut mended = body.to_vec();
    let mut changed = false;
    let mut at = 0;
    while at < body.len() {
        if body[at] != b'\\' {
            at += 1;
            continue;
        }
        at += match (escaped_unit(body, at), escaped_unit(body, at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended[at + 2..at + 6].copy_from_slice(b"fffd");
                changed = true;
                6
            }
            // Any other escape; the second byte may be a backslash itself.
            _ => 2,
        };
    }
    changed.then_some(mended)
}

/// The UTF-16 unit of a `\uXXXX` that begins here.
fn escaped_unit(body: &[u8], at: usize) -> Option<u16> {
    let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// Makes every text in a value fit for PostgreSQL, keys included.
pub(super) fn clean(value: Value) -> Value {
    match value {
        Value::String(it) if it.contains('\0') => Value::String(text::clean(&it)),
        Value::Array(list) => Value::Array(list.into_iter().map(clean).collect()),
        Value::Object(map) => Value::Object(clean_map(map)),
        other => other,
    }
}

/// [`clean`], of an object's parts.
pub(super) fn clean_map(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter()
        .map(|(key, value)| (text::clean(&key), clean(value)))
        .collect()
}

#[cfg(test)]
#[path = "lenient_tests.rs"]
mod tests;
