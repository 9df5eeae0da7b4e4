//! Rows as PostgreSQL's COPY reads them: a line of text for each, its columns
//! separated by tabs.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;

/// Appends a row. Its fields are taken by the names of the columns; one that it
/// does not have is null.
pub(crate) fn push_line<R: Serialize>(
    lines: &mut Vec<u8>,
    row: &R,
    columns: &[&str],
) -> anyhow::Result<()> {
    let json = serde_json::to_string(row)?;
    let fields: HashMap<&str, &RawValue> = serde_json::from_str(&json)?;
    for column in columns {
        let value = fields.get(column).map_or("null", |value| value.get());
        push_value(lines, value)?;
        lines.push(b'\t');
    }
    lines.pop();
    lines.push(b'\n');
    Ok(())
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
