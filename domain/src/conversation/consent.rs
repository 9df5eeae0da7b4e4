//! Whether a client wants to hear from us.

/// Words that end it: Twilio's own, and what Spanish speakers write.
/// Source: `twilio.com/docs/messaging/features/opt-out-keywords`.
const OUT: &[&str] = &[
    "STOP",
    "STOPALL",
    "UNSUBSCRIBE",
    "CANCEL",
    "END",
    "QUIT",
    "REVOKE",
    "OPTOUT",
    "BAJA",
    "ALTO",
    "PARAR",
];
/// Words that begin it again: Twilio's own, and `ALTA`.
const IN: &[&str] = &["START", "YES", "UNSTOP", "ALTA"];

/// What a client says about being written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// No more.
    Out,
    /// Again.
    In,
}

impl Consent {
    /// Reads a message that is nothing but one of the words.
    pub fn read(content: &str) -> Option<Self> {
        let is_said = |c: &char| c.is_alphanumeric();
        let word: String = content
            .trim()
            .to_uppercase()
            .chars()
            .filter(is_said)
            .collect();
        let one_of = |words: &[&str]| words.contains(&word.as_str());
        match () {
            () if content.trim().contains(char::is_whitespace) => None,
            () if one_of(OUT) => Some(Self::Out),
            () if one_of(IN) => Some(Self::In),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_alone_counts_however_it_is_written() {
        for out in ["STOP", " stop. ", "¡Baja!", "opt-out"] {
            assert_eq!(Consent::read(out), Some(Consent::Out), "{out}");
        }
        assert_eq!(Consent::read("start"), Some(Consent::In));
        for other in ["", "no stop", "stop por favor", "Sí", "cancelar mi cita"] {
            assert_eq!(Consent::read(other), None, "{other}");
        }
    }
}
