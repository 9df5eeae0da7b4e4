//! Telephone numbers: reading, masking, and looking people up by them.
//!
//! Every lookup by phone goes through [`PhoneIndex`], so that a number never
//! has to be a key in the clear.

use std::fmt;

use hmac::{Hmac, Mac};
use phonenumber::Mode;
use phonenumber::metadata::DATABASE;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

/// Fewest digits, country code included, that are taken for a number.
const E164_DIGITS_MIN: usize = 7;
/// Most digits that E.164 allows, country code included.
const E164_DIGITS_MAX: usize = 15;
/// Most digits in a number as people write it: `0057…` is two more.
const WRITTEN_DIGITS_MAX: usize = E164_DIGITS_MAX + 3;
/// How many of the last digits a masked number still shows.
const SHOWN_DIGITS: usize = 4;

/// A number in E.164: `+`, a country code that does not begin with 0, at most
/// fifteen digits. Whether it exists is not checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PhoneNumber(String);

/// Why a text is no telephone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a phone number in E.164 form, such as +573001234567")]
pub struct InvalidPhone;

impl PhoneNumber {
    /// Reads strict E.164, `+573001234567`.
    ///
    /// # Errors
    /// [`InvalidPhone`] when the text is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidPhone> {
        let digits = text.strip_prefix('+').ok_or(InvalidPhone)?;
        Self::from_digits(digits)
    }

    /// Reads the digits of E.164 without the `+`, as builderbot writes them.
    ///
    /// # Errors
    /// [`InvalidPhone`] when the text is anything else.
    pub fn from_digits(digits: &str) -> Result<Self, InvalidPhone> {
        let plausible = (E164_DIGITS_MIN..=E164_DIGITS_MAX).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        plausible
            .then(|| Self(format!("+{digits}")))
            .ok_or(InvalidPhone)
    }

    /// Reads a number as people write it, with whatever between the digits;
    /// without a country code it is one of the country of `prefix` (`+57`).
    /// Unlike [`Self::parse`], only what that country's plan allows is taken.
    ///
    /// # Errors
    /// [`InvalidPhone`] when it cannot be called.
    pub fn national(raw: &str, prefix: &str) -> Result<Self, InvalidPhone> {
        let (digits, international) = written_digits(raw).ok_or(InvalidPhone)?;
        let code = prefix.trim().trim_start_matches('+');
        let national = digits.trim_start_matches('0');
        let candidates = match international {
            true => [digits.clone(), String::new()],
            // As of the country first: its numbers may begin like its code.
            false => [
                format!("{code}{national}"),
                match digits.starts_with(code) {
                    true => digits.clone(),
                    false => String::new(),
                },
            ],
        };
        let mut numbers = candidates.iter().filter_map(|e164| callable(e164));
        numbers.next().ok_or(InvalidPhone)
    }

    /// The country that it is of, in ISO 3166's two letters; where several
    /// share a code and no plan of theirs knows the number, the chief one.
    /// `None` where it is of no country: of a satellite, or of nobody.
    pub fn country(&self) -> Option<String> {
        let parsed = phonenumber::parse(None, self.as_str()).ok()?;
        if let Some(country) = parsed.country().id() {
            return Some(country.as_ref().to_owned());
        }
        let sharing = DATABASE.by_code(&parsed.code().value())?;
        let chief = sharing.iter().find(|it| it.is_main_country_for_code());
        let id = chief.or(sharing.first())?.id();
        id.bytes()
            .all(|b| b.is_ascii_uppercase())
            .then(|| id.to_owned())
    }

    /// The number to count by: of several that ring at one telephone the same
    /// one. Mexico's mobiles are reached with a 1 before them too, Argentina's
    /// with a 9. `None` where nobody can tell whom it reaches: its country's
    /// plan has no such numbers, or writes it otherwise (without a trunk 0).
    pub fn canonical(&self) -> Option<Self> {
        let digits = self.digits();
        let mobile = |with: &str| digits.strip_prefix(with).filter(|it| it.len() == 10);
        let number = match (mobile("521"), mobile("549")) {
            (Some(rest), _) => Self(format!("+52{rest}")),
            (_, Some(rest)) => Self(format!("+54{rest}")),
            _ => self.clone(),
        };
        let parsed = phonenumber::parse(None, number.as_str()).ok()?;
        let national = parsed.national().to_string();
        let length = u16::try_from(national.len()).ok()?;
        let mut plans = DATABASE.by_code(&parsed.code().value())?.into_iter();
        // Looser than `is_valid`, which does not know ranges that are new.
        let is_planned = plans.any(|plan| {
            let kinds = plan.descriptors();
            let mut lengths = [kinds.mobile(), kinds.fixed_line()].into_iter().flatten();
            kinds.general().is_match(&national)
                && lengths.any(|it| it.possible_length().contains(&length))
        });
        let spelling = parsed.format().mode(Mode::E164).to_string();
        (is_planned && spelling == number.0).then_some(number)
    }

    /// The number with its `+`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number without its `+`.
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }
}

/// The digits of a number as people write it, and whether it has its country
/// code. `None` where there is anything else than digits and what separates
/// them.
fn written_digits(raw: &str) -> Option<(String, bool)> {
    let mut digits = String::new();
    let mut plus = false;
    for c in raw.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '+' if digits.is_empty() && !plus => plus = true,
            '-' | '(' | ')' | '.' | '/' | '_' | '\'' | '\u{2010}'..='\u{2015}' | '\u{2212}' => {}
            // Marks of direction and of width come along when people copy.
            c if c.is_whitespace() || ('\u{200b}'..='\u{200f}').contains(&c) => {}
            '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {}
            _ => return None,
        }
        if digits.len() > WRITTEN_DIGITS_MAX {
            return None;
        }
    }
    match digits.strip_prefix("00") {
        Some(rest) if !plus => Some((rest.to_owned(), true)),
        _ => Some((digits, plus)),
    }
}

/// The digits as a number, if its country's plan has such numbers.
fn callable(e164_digits: &str) -> Option<PhoneNumber> {
    let number = PhoneNumber::from_digits(e164_digits).ok()?;
    let parsed = phonenumber::parse(None, number.as_str()).ok()?;
    phonenumber::is_valid(&parsed).then_some(number)
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hides a number but for its country code and last four digits:
/// `+573001234567` becomes `+57******4567`. What is not a number (a group, a
/// provider's own id) keeps its last four characters only.
pub fn mask(address: &str) -> String {
    let shown_from = address
        .char_indices()
        .rev()
        .nth(SHOWN_DIGITS - 1)
        .map_or(0, |(at, _)| at);
    let kept = match PhoneNumber::parse(address) {
        Ok(number) => 1 + country_code_len(number.digits()),
        Err(_) => 0,
    };
    if shown_from <= kept {
        return "*".repeat(address.chars().count());
    }
    let hidden = address[kept..shown_from].chars().count();
    let mut masked = String::with_capacity(address.len());
    masked.push_str(&address[..kept]);
    masked.extend(std::iter::repeat_n('*', hidden));
    masked.push_str(&address[shown_from..]);
    masked
}

/// A document with a number masked wherever it stands in it.
pub fn mask_json(document: &Value, number: &str) -> Value {
    match document {
        Value::String(text) => Value::String(mask_in(text, number)),
        Value::Array(items) => items.iter().map(|item| mask_json(item, number)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), mask_json(value, number)))
            .collect(),
        Value::Number(digits) => {
            let text = digits.to_string();
            let masked = mask_in(&text, number);
            if masked == text {
                document.clone()
            } else {
                Value::String(masked)
            }
        }
        Value::Null | Value::Bool(_) => document.clone(),
    }
}

/// Masks every occurrence of `address` in a text, with or without its `+`.
pub fn mask_in(text: &str, address: &str) -> String {
    let bare = address.trim_start_matches('+');
    if bare.len() <= SHOWN_DIGITS || !text.contains(bare) {
        return text.to_owned();
    }
    text.replace(bare, mask(address).trim_start_matches('+'))
}

/// How many of a number's digits are its country code. No code begins
/// another, so the first two digits tell (ITU-T E.164, list of codes); a list
/// of fifty masked numbers must not parse fifty numbers.
fn country_code_len(digits: &str) -> usize {
    match digits.as_bytes() {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0'..=b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        _ => 3,
    }
}

/// The one way to look a person up by phone: a keyed hash, so that neither an
/// index nor a stream id holds a number in the clear.
#[derive(Clone)]
pub struct PhoneIndex {
    mac: Hmac<Sha256>,
}

impl fmt::Debug for PhoneIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneIndex(secret)")
    }
}

impl PhoneIndex {
    /// An index under `secret`. The same secret must be used for the life of
    /// a ledger: stream ids are made with it.
    pub fn new(secret: &[u8]) -> Self {
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
        Self { mac }
    }

    /// The key of an address: 32 hex digits (128 bits). What an erased address
    /// of a conversation reads as still has the key of that address.
    pub fn key(&self, address: &str) -> String {
        if let Some(key) = crate::sealed::key_of_erased(address) {
            return key.to_owned();
        }
        let mut mac = self.mac.clone();
        mac.update(address.as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_masked_number_shows_its_country_and_four_digits() {
        assert_eq!(mask("+573001234567"), "+57******4567");
        assert_eq!(mask("+14155550100"), "+1******0100");
        assert_eq!(mask("+5491133334444"), "+54*******4444");
    }

    #[test]
    fn every_country_code_is_told_by_its_first_digits() {
        for code in (1..=999_u16).filter(|code| DATABASE.by_code(code).is_some()) {
            let len = code.to_string().len();
            assert_eq!(
                country_code_len(&format!("{code}5551234567")),
                len,
                "{code}"
            );
        }
    }

    #[test]
    fn what_is_not_a_number_is_hidden_too() {
        assert_eq!(mask("12036304@g.us"), "*********g.us");
        assert_eq!(mask("ab"), "**");
        assert_eq!(mask(""), "");
    }

    #[test]
    fn every_occurrence_in_a_text_is_masked() {
        assert_eq!(
            mask_in("whatsapp:+573001234567, WaId 573001234567", "+573001234567"),
            "whatsapp:+57******4567, WaId 57******4567"
        );
    }

    #[test]
    fn strict_reading_refuses_what_is_not_e164() {
        for bad in [
            "",
            "+",
            "573001234567",
            "+57300",
            "+0573001234567",
            "+57 300 1234567",
            "+5730012345678901",
        ] {
            assert_eq!(PhoneNumber::parse(bad), Err(InvalidPhone), "{bad}");
        }
    }

    #[test]
    fn a_number_is_read_however_it_is_written() {
        for written in [
            "3001234567",
            "300-123-4567",
            "(300) 123-4567",
            "57 300 123 4567",
            "+573001234567",
            "0057 300 123 4567",
            "+57 (300) 123.4567",
            "03001234567",
            "\u{202a}+57\u{a0}300\u{a0}1234567\u{202c}",
        ] {
            let number = PhoneNumber::national(written, "+57");
            let number = number.as_ref().map(PhoneNumber::as_str);
            assert_eq!(number, Ok("+573001234567"), "{written}");
        }
    }

    #[test]
    fn numbers_of_other_countries_and_prefixes_are_read_too() {
        for (written, prefix, number) in [
            ("+1 415 555 0100", "+57", "+14155550100"),
            ("(415) 555-0100", "+1", "+14155550100"),
            ("1 415 555 0100", "1", "+14155550100"),
            ("55 1234 5678", "+52", "+525512345678"),
            ("612 345 678", "+34", "+34612345678"),
            ("601 2345678", "+57", "+576012345678"),
        ] {
            let read = PhoneNumber::national(written, prefix);
            let read = read.as_ref().map(PhoneNumber::as_str);
            assert_eq!(read, Ok(number), "{written}");
        }
    }

    #[test]
    fn a_number_is_of_a_country_even_if_its_plan_does_not_know_it() {
        for (number, country) in [
            ("+573001234567", Some("CO")),
            ("+5790000000", Some("CO")),
            ("+14155550100", Some("US")),
            ("+18095551234", Some("DO")),
            ("+10005550100", Some("US")),
            ("+447400123456", Some("GB")),
            ("+447624123456", Some("IM")),
            ("+440000000000", None),
            ("+77011234567", Some("KZ")),
            ("+881612345678", None),
            ("+9990000000", None),
        ] {
            let known = PhoneNumber::parse(number).unwrap().country();
            assert_eq!(known.as_deref(), country, "{number}");
        }
    }

    #[test]
    fn spellings_of_one_telephone_are_counted_as_one() {
        for (number, canonical) in [
            ("+573001234567", Some("+573001234567")),
            ("+573000000001", Some("+573000000001")),
            ("+573999999999", Some("+573999999999")),
            ("+14155550100", Some("+14155550100")),
            ("+18095551234", Some("+18095551234")),
            ("+447400123456", Some("+447400123456")),
            ("+390612345678", Some("+390612345678")),
            ("+2250102030405", Some("+2250102030405")),
            ("+525512345678", Some("+525512345678")),
            ("+5215512345678", Some("+525512345678")),
            ("+541133334444", Some("+541133334444")),
            ("+5491133334444", Some("+541133334444")),
            ("+5492231234567", Some("+542231234567")),
            ("+5703001234567", None),
            ("+57003001234567", None),
            ("+570573001234567", None),
            ("+57573001234567", None),
            ("+5730012345678", None),
            ("+57300123456", None),
            ("+52015512345678", None),
            ("+520445512345678", None),
            ("+52115512345678", None),
            ("+5401133334444", None),
            ("+54111533334444", None),
            ("+54901133334444", None),
            ("+114155550100", None),
            ("+10005550100", None),
            ("+4407400123456", None),
            ("+440000000000", None),
            ("+9990000000", None),
        ] {
            let counted = PhoneNumber::parse(number).unwrap().canonical();
            let counted = counted.as_ref().map(PhoneNumber::as_str);
            assert_eq!(counted, canonical, "{number}");
        }
    }

    #[test]
    fn what_nobody_can_be_called_at_is_no_number() {
        for bad in [
            "",
            "   ",
            "+",
            "123",
            "30012345",
            "300123456789",
            "ana@example.com",
            "3001234567 ext 3",
            "+57",
            "0000000000",
            "3001234567.5e9",
            "++573001234567",
        ] {
            assert_eq!(
                PhoneNumber::national(bad, "+57"),
                Err(InvalidPhone),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn separators_change_nothing(
            digits in "3(00|01|02|10|11|15|20)[0-9]{7}",
            separators in proptest::collection::vec("[ ().-]{0,2}", 11),
            code in proptest::sample::select(vec!["", "57", "+57", "0057"]),
        ) {
            let written: String = digits
                .chars()
                .zip(&separators)
                .flat_map(|(digit, between)| between.chars().chain([digit]))
                .collect();
            let read = PhoneNumber::national(&format!("{code}{written}"), "+57");
            let number = format!("+57{digits}");
            prop_assert_eq!(read.as_ref().map(PhoneNumber::as_str), Ok(number.as_str()));
        }

        #[test]
        fn what_was_read_once_is_read_the_same_again(text in "\\PC{0,20}|[0-9+ ()-]{6,16}") {
            if let Ok(number) = PhoneNumber::national(&text, "+57") {
                prop_assert_eq!(PhoneNumber::national(number.as_str(), "+57"), Ok(number.clone()));
                prop_assert_eq!(PhoneNumber::national(number.as_str(), "+1"), Ok(number.clone()));
                prop_assert_eq!(PhoneNumber::parse(number.as_str()), Ok(number));
            }
        }
    }

    proptest! {
        #[test]
        fn masking_never_panics_and_never_shows_more_than_it_may(text in "\\PC{0,24}") {
            let masked = mask(&text);
            prop_assert_eq!(masked.chars().count(), text.chars().count());
        }

        #[test]
        fn a_number_has_one_key_and_the_key_does_not_hold_it(digits in "[1-9][0-9]{9,13}") {
            let index = PhoneIndex::new(b"secret");
            let number = format!("+{digits}");
            prop_assert_eq!(index.key(&number), index.key(&number));
            prop_assert!(!index.key(&number).contains(&digits));
            prop_assert_ne!(index.key(&number), PhoneIndex::new(b"other").key(&number));
        }
    }
}
