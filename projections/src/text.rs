//! What is done to text before PostgreSQL gets it, so that no text that a
//! provider sends can make a write fail.

use std::borrow::Cow;

use unicode_normalization::char::{decompose_compatible, is_combining_mark};
use uuid::Uuid;

/// Most bytes of one row's words that can be searched for. A `tsvector` holds
/// at most 1 MiB, and no text of this size can exceed it.
const SEARCHED_BYTES_MAX: usize = 200_000;
/// Longest text that is a key as it stands, in bytes. An index entry holds
/// about 2,700 bytes for all its columns.
const KEY_BYTES_MAX: usize = 256;

/// A text as a key: itself, or if it is absurdly long, a digest of it.
pub(crate) fn key(text: &str) -> Cow<'_, str> {
    if text.len() <= KEY_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!(
        "~{}",
        Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
    ))
}

/// The words of some texts: lower case, without accents, separated by spaces,
/// cut to what can be searched.
pub fn words<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut words = String::new();
    for text in texts {
        push_folded(&mut words, text, |_, _| false);
        words.push(' ');
        if words.len() > SEARCHED_BYTES_MAX {
            break;
        }
    }
    truncate(&mut words, SEARCHED_BYTES_MAX);
    words
}

/// A search as a person types it, folded like the words it is compared with.
/// Quotation marks (a phrase) and a minus before a word (not this) stay.
pub(crate) fn query(text: &str) -> String {
    let mut query = String::new();
    push_folded(&mut query, text, |before, c| {
        c == '"' || (c == '-' && before.is_none_or(char::is_whitespace))
    });
    query
}

/// JSON without `\u0000`, which JSON can hold and PostgreSQL's text cannot.
pub(crate) fn without_nul(json: &str) -> Cow<'_, str> {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return Cow::Borrowed(json);
    }
    let mut clean = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        clean.push_str(before);
        // An escape is two bytes here or `\u0000`; `\\u0000` is a backslash
        // followed by harmless digits.
        let kept = if escape.starts_with(NUL) {
            0
        } else {
            2.min(escape.len())
        };
        clean.push_str(&escape[..kept]);
        rest = &escape[if kept == 0 { NUL.len() } else { kept }..];
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

/// Appends letters and digits, folded; everything else becomes a space but
/// what `keep`, given the character before, lets through.
fn push_folded(out: &mut String, text: &str, keep: impl Fn(Option<char>, char) -> bool) {
    let mut before = None;
    let mut push = |c: char| {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if c.is_alphanumeric() {
            out.extend(c.to_lowercase().filter(|c| !is_combining_mark(*c)));
        } else if keep(before, c) {
            out.push(c);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
        before = Some(c);
    };
    for c in text.chars() {
        // Each for itself: what is put in order by normalising a whole text
        // are the marks, and these go.
        match c.is_ascii() {
            true => push(c),
            false => decompose_compatible(c, |part| {
                if !is_combining_mark(part) {
                    push(part);
                }
            }),
        }
    }
}

fn truncate(text: &mut String, bytes_max: usize) {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_lose_case_accents_and_punctuation() {
        assert_eq!(
            words(["¿Qué tal, ÁNGEL?", "Año-nuevo"]),
            " que tal angel  ano nuevo "
        );
    }

    #[test]
    fn a_search_keeps_its_quotation_marks_and_its_minus() {
        assert_eq!(
            query("\"Acuerdo de PAGÓ\" -mañana pre-pago"),
            "\"acuerdo de pago\" -manana pre pago"
        );
    }

    #[test]
    fn only_a_real_nul_is_taken_out() {
        assert_eq!(without_nul(r#"{"a":"x\u0000y"}"#), r#"{"a":"xy"}"#);
        assert_eq!(without_nul(r#"{"a":"x\\u0000y"}"#), r#"{"a":"x\\u0000y"}"#);
        assert_eq!(
            without_nul(r#"{"a":"\\\u0000\"\u0000"}"#),
            r#"{"a":"\\\""}"#
        );
    }

    #[test]
    fn a_key_is_short_whatever_it_was() {
        assert_eq!(key("conv_1"), "conv_1");
        let long = "x".repeat(100_000);
        assert!(key(&long).len() < KEY_BYTES_MAX);
        assert_ne!(key(&long), key(&"y".repeat(100_000)));
    }

    proptest! {
        #[test]
        fn taking_nul_out_leaves_the_rest_as_it_was(parts in proptest::collection::vec("[\\\\u0\"a\\x00é]{0,6}", 0..6)) {
            let text = parts.concat();
            let clean = without_nul(&serde_json::to_string(&text).unwrap()).into_owned();
            let read: String = serde_json::from_str(&clean).unwrap();
            prop_assert_eq!(read, text.replace('\0', ""));
        }

        #[test]
        fn words_are_only_words(text in "\\PC{0,40}") {
            prop_assert!(words([text.as_str()]).chars().all(|c| c == ' ' || c.is_alphanumeric()));
        }
    }
}
