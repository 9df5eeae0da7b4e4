//! What may go into a fact: cleaned, limited, and with telephone numbers only
//! where they are declared to be.

use domain::{PhoneNumber, phone};

/// Most characters of an id, ours or a provider's.
const ID_CHARS_MAX: usize = 128;
/// Most characters of a provider's word or id, such as a status.
const WORD_CHARS_MAX: usize = 128;
/// Most characters of a provider's word in the reason of a quarantine.
const REASON_WORD_CHARS_MAX: usize = 64;
/// Most digits of such a word: fewer than any telephone number has.
const REASON_WORD_DIGITS_MAX: usize = 4;
/// Most characters of a provider's remark, such as why a call ended.
const REMARK_CHARS_MAX: usize = 500;
/// Most characters of an address.
const ADDRESS_CHARS_MAX: usize = 256;
/// Fewest digits in a row that are taken for a telephone number.
const NUMBER_DIGITS_MIN: usize = 7;
/// Most digits in a row that are.
const NUMBER_DIGITS_MAX: usize = 15;

/// A text that PostgreSQL can hold: it has no U+0000.
pub(super) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Whether a text can be an aggregate's id or part of a delivery's identity.
pub(super) fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte);
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// An id that must be there, or the reason for a quarantine.
pub(super) fn required_id(text: Option<&str>, name: &str) -> Result<String, String> {
    match text.map(str::trim).filter(|id| !id.is_empty()) {
        None => Err(missing(name)),
        Some(id) if is_id(id) => Ok(id.to_owned()),
        Some(_) => Err(format!("{name} is not an id")),
    }
}

/// The reason for a quarantine where something must be there and is not.
pub(super) fn missing(name: &str) -> String {
    format!("{name} is missing")
}

/// The reason for a quarantine where a word has no meaning to us. It is logged,
/// so the word is repeated only where it looks like a provider's name of
/// something, and not like what a person said or a number.
pub(super) fn unknown(name: &str, word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let is_name = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.len() <= REASON_WORD_CHARS_MAX
        && word.chars().all(plain)
        && digits <= REASON_WORD_DIGITS_MAX;
    if is_name {
        format!("unknown {name} \"{word}\"")
    } else {
        format!("unknown {name}, which is no plain word")
    }
}

/// A provider's word or id.
pub(super) fn word(text: &str) -> String {
    clean(clipped(text.trim(), WORD_CHARS_MAX))
}

/// A provider's remark, of which nobody promises that it holds no telephone
/// number: whatever looks like one is masked.
pub(super) fn remark(text: &str) -> String {
    masked(&clean(clipped(text.trim(), REMARK_CHARS_MAX)))
}

/// A person's address: E.164 with its `+` where it is a number, else as it is.
pub(super) fn address(text: &str) -> String {
    let text = text.trim();
    match PhoneNumber::parse(text).or_else(|_| PhoneNumber::from_digits(text)) {
        Ok(number) => number.to_string(),
        Err(_) => clean(clipped(text, ADDRESS_CHARS_MAX)),
    }
}

fn clipped(text: &str, chars_max: usize) -> &str {
    let end = text.char_indices().nth(chars_max);
    end.map_or(text, |(at, _)| &text[..at])
}

/// The text with every row of digits that may be a telephone number masked.
fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[start..].bytes().take_while(u8::is_ascii_digit).count();
        let end = start + digits;
        let number = &rest[start..end];
        out.push_str(&rest[..start]);
        if (NUMBER_DIGITS_MIN..=NUMBER_DIGITS_MAX).contains(&digits) {
            let masked = phone::mask(&format!("+{number}"));
            out.push_str(masked.trim_start_matches('+'));
        } else {
            out.push_str(number);
        }
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        for good in ["conv_01", "SM00", "a.b:c@d-e", &"x".repeat(128)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", "a b", "año", "a\0b", "a/b", &"x".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_number_gets_its_plus_and_anything_else_stays() {
        assert_eq!(address("+5491133334444"), "+5491133334444");
        assert_eq!(address("5491133334444"), "+5491133334444");
        assert_eq!(
            address(" 5491133334444"),
            "+5491133334444",
            "a plus that was not escaped"
        );
        assert_eq!(
            address("120363041234567890@g.us"),
            "120363041234567890@g.us"
        );
        assert_eq!(address("22395"), "22395", "a short code");
    }

    #[test]
    fn numbers_in_a_remark_are_masked() {
        assert_eq!(
            remark("INVITE sip:+5491133334444@host failed: 486 (SIP 486)"),
            "INVITE sip:+54*******4444@host failed: 486 (SIP 486)"
        );
        assert_eq!(
            remark("SM00000000000000000000000000000011"),
            "SM00000000000000000000000000000011"
        );
        assert_eq!(remark("a\0b"), "a\u{fffd}b");
        assert_eq!(remark(&"ñ".repeat(600)).chars().count(), 500);
    }

    #[test]
    fn an_unknown_word_is_repeated_harmlessly() {
        for name in [
            "answering_machine_detection",
            "message.v2",
            "x",
            &"x".repeat(64),
        ] {
            assert_eq!(unknown("type", name), format!("unknown type \"{name}\""));
        }
        for other in [
            "",
            "<script>\n",
            "Ana García",
            "ana@example.com",
            "573001234567",
            "tel:573001234567",
            &"x".repeat(65),
        ] {
            assert_eq!(
                unknown("type", other),
                "unknown type, which is no plain word"
            );
        }
    }
}
