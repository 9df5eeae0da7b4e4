//! How often, and how long: the probabilities and ranges that the world draws from.
//!
//! All of them can change at run time (`POST /sandbox/control`), so a test can start with a well
//! behaved world and then break one thing. Durations are in the world's time, which `speed` shortens.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use clap::Args;
use serde::{Deserialize, Serialize};

/// An inclusive range of whole numbers, written `3..20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
}

impl Span {
    /// A range from `min` to `max`, both included.
    pub const fn new(min: u64, max: u64) -> Self {
        Self { min, max }
    }

    /// The same range in another unit.
    pub(crate) const fn times(self, factor: u64) -> RangeInclusive<u64> {
        self.min * factor..=self.max * factor
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.min, self.max)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let number = |part: &str| {
            part.trim()
                .parse::<u64>()
                .map_err(|_| format!("`{text}` is not a range such as 3..20"))
        };
        let span = Self::new(number(min)?, number(max)?);
        if span.min > span.max {
            return Err(format!("`{text}` ends before it begins"));
        }
        Ok(span)
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err(format!("`{text}` is not a probability between 0 and 1")),
    }
}

/// What the world does, how often and how slowly. Probabilities are between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Calls that reach no one: busy, not answered, or a connection error.
    #[arg(long = "rate-failed", value_parser = probability, default_value_t = Rates::default().failed)]
    pub failed: f64,
    /// Calls that reach a voicemail. What is neither failed nor voicemail is answered.
    #[arg(long = "rate-voicemail", value_parser = probability, default_value_t = Rates::default().voicemail)]
    pub voicemail: f64,
    /// Calls in progress that a cancelled batch does not cut off: they end, and say so, later.
    #[arg(long = "rate-cancel-survivor", value_parser = probability, default_value_t = Rates::default().cancel_survivor)]
    pub cancel_survivor: f64,

    /// Webhooks that are never sent.
    #[arg(long = "rate-never", value_parser = probability, default_value_t = Rates::default().never)]
    pub never: f64,
    /// Webhooks that are sent twice.
    #[arg(long = "rate-twice", value_parser = probability, default_value_t = Rates::default().twice)]
    pub twice: f64,
    /// Webhooks that are late, by `late_secs`.
    #[arg(long = "rate-late", value_parser = probability, default_value_t = Rates::default().late)]
    pub late: f64,
    /// Webhooks that the next one about the same call or message overtakes.
    #[arg(long = "rate-out-of-order", value_parser = probability, default_value_t = Rates::default().out_of_order)]
    pub out_of_order: f64,

    /// API requests refused before any work, half with 429 and half with 500.
    #[arg(long = "rate-refused", value_parser = probability, default_value_t = Rates::default().refused)]
    pub refused: f64,
    /// API requests that are carried out and never answered: the ambiguous time-out.
    #[arg(long = "rate-hang", value_parser = probability, default_value_t = Rates::default().hang)]
    pub hang: f64,

    /// Messages that fail after Twilio took them.
    #[arg(long = "rate-message-failed", value_parser = probability, default_value_t = Rates::default().message_failed)]
    pub message_failed: f64,
    /// Delivered WhatsApp messages that are read.
    #[arg(long = "rate-message-read", value_parser = probability, default_value_t = Rates::default().message_read)]
    pub message_read: f64,
    /// Phones that answer at all (see `phone_replies`).
    #[arg(long = "rate-phone-answers", value_parser = probability, default_value_t = Rates::default().phone_answers)]
    pub phone_answers: f64,
    /// Answers that are STOP.
    #[arg(long = "rate-phone-stop", value_parser = probability, default_value_t = Rates::default().phone_stop)]
    pub phone_stop: f64,
    /// Answers that are a picture.
    #[arg(long = "rate-phone-media", value_parser = probability, default_value_t = Rates::default().phone_media)]
    pub phone_media: f64,
    /// How many times a phone answers, each time to one of our messages.
    #[arg(long, default_value_t = Rates::default().phone_replies)]
    pub phone_replies: u32,

    /// Turns of a text session that end it with an error.
    #[arg(long = "rate-session-error", value_parser = probability, default_value_t = Rates::default().session_error)]
    pub session_error: f64,
    /// Turns of a text session whose answer is corrected after it was given.
    #[arg(long = "rate-correction", value_parser = probability, default_value_t = Rates::default().correction)]
    pub correction: f64,

    /// How late a late webhook is, in seconds.
    #[arg(long, default_value_t = Rates::default().late_secs)]
    pub late_secs: Span,
    /// How long an API request takes, in real milliseconds; nothing with a manual clock.
    #[arg(long, default_value_t = Rates::default().latency_ms)]
    pub latency_ms: Span,
    /// How long a telephone rings before it is answered, in seconds.
    #[arg(long, default_value_t = Rates::default().ring_secs)]
    pub ring_secs: Span,
    /// How long an answered call lasts, in seconds.
    #[arg(long, default_value_t = Rates::default().call_secs)]
    pub call_secs: Span,
    /// How long the provider analyses an ended call, in seconds.
    #[arg(long, default_value_t = Rates::default().analysis_secs)]
    pub analysis_secs: Span,
    /// How long a person takes to answer a message, in seconds.
    #[arg(long, default_value_t = Rates::default().reply_secs)]
    pub reply_secs: Span,
    /// How long the agent of a text session thinks, in milliseconds; nothing with a manual clock.
    #[arg(long, default_value_t = Rates::default().think_ms)]
    pub think_ms: Span,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            failed: 0.15,
            voicemail: 0.10,
            cancel_survivor: 0.0,
            never: 0.0,
            twice: 0.0,
            late: 0.0,
            out_of_order: 0.0,
            refused: 0.0,
            hang: 0.0,
            message_failed: 0.02,
            message_read: 0.8,
            phone_answers: 1.0,
            phone_stop: 0.0,
            phone_media: 0.0,
            phone_replies: 0,
            session_error: 0.0,
            correction: 0.1,
            late_secs: Span::new(30, 600),
            latency_ms: Span::new(5, 40),
            ring_secs: Span::new(3, 20),
            call_secs: Span::new(30, 180),
            analysis_secs: Span::new(2, 10),
            reply_secs: Span::new(5, 60),
            think_ms: Span::new(200, 1200),
        }
    }
}

impl Rates {
    /// Every call is answered, every message arrives and is read, nothing misbehaves.
    pub fn ideal() -> Self {
        Self {
            failed: 0.0,
            voicemail: 0.0,
            message_failed: 0.0,
            message_read: 1.0,
            correction: 0.0,
            ..Self::default()
        }
    }

    /// What is wrong with these rates, in words, or nothing.
    pub(crate) fn problem(&self) -> Option<String> {
        let probabilities = [
            self.failed,
            self.voicemail,
            self.cancel_survivor,
            self.never,
            self.twice,
            self.late,
            self.out_of_order,
            self.refused,
            self.hang,
            self.message_failed,
            self.message_read,
            self.phone_answers,
            self.phone_stop,
            self.phone_media,
            self.session_error,
            self.correction,
        ];
        if let Some(wrong) = probabilities.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Some(format!("{wrong} is not a probability between 0 and 1"));
        }
        (self.failed + self.voicemail > 1.0)
            .then(|| "failed and voicemail calls together exceed all calls".to_owned())
    }

    pub(crate) fn misbehaviour(&self) -> Misbehaviour {
        Misbehaviour {
            never: self.never,
            twice: self.twice,
            late: self.late,
            out_of_order: self.out_of_order,
        }
    }
}

/// How often one kind of webhook misbehaves, when it differs from the general [`Rates`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Misbehaviour {
    /// Never sent.
    pub never: f64,
    /// Sent twice.
    pub twice: f64,
    /// Sent late.
    pub late: f64,
    /// Overtaken by the next one.
    pub out_of_order: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_what_it_writes() {
        for text in ["3..20", "7..7"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("9".parse::<Span>().unwrap(), Span::new(9, 9));
        for text in ["", "a..b", "9..3", "-1..2"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_probability_is_between_nothing_and_certainty() {
        assert_eq!(probability("0.25"), Ok(0.25));
        for text in ["1.01", "-0.1", "NaN", "often"] {
            assert!(probability(text).is_err(), "{text}");
        }
    }
}
