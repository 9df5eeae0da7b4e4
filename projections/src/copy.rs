//! Rows as PostgreSQL's COPY reads them: a line of text for each, its columns
//! separated by tabs.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Appends a row. Its fields are taken by the names of the columns; one that it
/// does not have is null.
pub(crate) fn push_line<R: Serialize>(
    lines: &mut Vec<u8>,
    row: &R,
    columns: &[&str],
) -> anyhow::Result<()> {
    let json = serde_json::to_string(row)?;
    let mut reader = serde_json::Deserializer::from_str(&json);
    let values = reader.deserialize_map(Values(columns))?;
    for value in values {
        push_value(lines, value.map_or("null", RawValue::get))?;
        lines.push(b'\t');
    }
    lines.pop();
    lines.push(b'\n');
    Ok(())
}

/// Reads an object's values, in the order of the columns.
struct Values<'c>(&'c [&'c str]);

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
            let at = after.iter().position(|column| *column == name);
            let at = at.map(|at| next + at);
            if let Some(at) = at.or_else(|| before.iter().position(|column| *column == name)) {
                values[at] = Some(value);
                next = at + 1;
            }
        }
        Ok(values)
    }
}

/// Text as it is, anything else as JSON writes it. JSON has no control
/// characters, so that only the backslash must be escaped in it.
fn push_value(line: &mut Vec<u8>, json: &str) -> anyhow::Result<()> {
    let quoted = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match quoted {
        Some(text) if !text.contains('\\') => line.extend_from_slice(text.as_bytes()),
        Some(_) => push_escaped(line, &serde_json::from_str::<String>(json)?),
        None if json == "null" => line.extend_from_slice(b"\\N"),
        None => push_escaped(line, json),
    }
    Ok(())
}

fn push_escaped(line: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\n', '\r', '\t']) {
        line.extend_from_slice(&rest.as_bytes()[..at]);
        line.extend_from_slice(match rest.as_bytes()[at] {
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_holds_text_json_and_null() {
        let row = json!({"id": "a\tb\\c\nd", "n": 7, "list": ["x\\y\n"], "none": null, "ñ": "ñ\"", "no": false});
        let mut lines = b"before\n".to_vec();
        push_line(
            &mut lines,
            &row,
            &["ñ", "id", "n", "list", "none", "missing", "no"],
        )
        .unwrap();
        let expected = "before\nñ\"\ta\\tb\\\\c\\nd\t7\t[\"x\\\\\\\\y\\\\n\"]\t\\N\t\\N\tfalse\n";
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }
}
