//! How a call turns out, drawn before it is placed.

use serde::{Deserialize, Serialize};

use crate::{fate::Fate, rates::Rates};

/// How a call turns out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallOutcome {
    /// A person answers and talks with the agent.
    Answered,
    /// A machine answers, the agent leaves a message.
    Voicemail,
    /// The line is engaged.
    Busy,
    /// No one answers before the ringing time-out.
    NoAnswer,
    /// The connection fails for a reason that the provider does not know.
    Unknown,
}

impl CallOutcome {
    /// Whether the call is connected at all.
    pub(crate) fn connects(self) -> bool {
        matches!(self, Self::Answered | Self::Voicemail)
    }

    /// ElevenLabs' `failure_reason`.
    pub(crate) fn failure_reason(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            _ => "unknown",
        }
    }

    /// Twilio's final `CallStatus`.
    pub(crate) fn twilio_status(self) -> &'static str {
        match self {
            Self::Answered | Self::Voicemail => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Unknown => "failed",
        }
    }

    /// ElevenLabs' `call_result` in a conversation's metadata.
    pub(crate) fn call_result(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Voicemail => "voicemail",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Unknown => "failed",
        }
    }

    /// The SIP response behind the outcome: code and words.
    pub(crate) fn sip(self) -> (u16, &'static str) {
        match self {
            Self::Answered | Self::Voicemail => (200, "OK"),
            Self::Busy => (486, "Busy here"),
            Self::NoAnswer => (487, "Request terminated"),
            Self::Unknown => (503, "Service unavailable"),
        }
    }
}

/// Everything that is settled about a call before it is placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallFate {
    pub(crate) outcome: CallOutcome,
    /// From having a slot to the number being dialled.
    pub(crate) dial_ms: u64,
    /// From dialling to an answer, or to giving up.
    pub(crate) ring_ms: u64,
    /// From the answer to the end.
    pub(crate) talk_secs: u64,
    /// From the end to the conversation being `done`.
    pub(crate) analysis_ms: u64,
    /// Goes on although its batch is cancelled.
    pub(crate) survives_cancel: bool,
}

impl CallFate {
    /// The fate of the call called `name`; `forced` overrides the outcome and nothing else.
    pub(crate) fn of(
        name: &str,
        fate: Fate,
        rates: &Rates,
        ringing_timeout_secs: u64,
        forced: Option<CallOutcome>,
    ) -> Self {
        let mut draw = fate.draw("call", name);
        let drawn = outcome(draw.unit(), draw.unit(), rates);
        let outcome = forced.unwrap_or(drawn);
        let dial_ms = draw.within(300..=1500);
        let ring = draw.within(rates.ring_secs.times(1000));
        let talk = draw.within(rates.call_secs.times(1));
        let message = draw.within(VOICEMAIL_SECS);
        let busy_tone_ms = draw.within(1_000..=4_000);
        Self {
            outcome,
            dial_ms,
            ring_ms: match outcome {
                CallOutcome::Answered | CallOutcome::Voicemail => {
                    ring.min(ringing_timeout_secs * 1000)
                }
                CallOutcome::NoAnswer => ringing_timeout_secs * 1000,
                CallOutcome::Busy | CallOutcome::Unknown => busy_tone_ms,
            },
            talk_secs: match outcome {
                CallOutcome::Answered => talk,
                CallOutcome::Voicemail => message,
                _ => 0,
            },
            analysis_ms: draw.within(rates.analysis_secs.times(1000)),
            survives_cancel: draw.chance(rates.cancel_survivor),
        }
    }
}

/// How long the agent talks to a machine.
const VOICEMAIL_SECS: std::ops::RangeInclusive<u64> = 5..=15;

/// Of the calls that fail, the share that is busy, and that is not answered; the rest is unknown.
const BUSY_SHARE: f64 = 0.4;
const NO_ANSWER_SHARE: f64 = 0.5;

fn outcome(which: f64, why: f64, rates: &Rates) -> CallOutcome {
    if which < rates.failed {
        match why {
            w if w < BUSY_SHARE => CallOutcome::Busy,
            w if w < BUSY_SHARE + NO_ANSWER_SHARE => CallOutcome::NoAnswer,
            _ => CallOutcome::Unknown,
        }
    } else if which < rates.failed + rates.voicemail {
        CallOutcome::Voicemail
    } else {
        CallOutcome::Answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64, rates: &Rates) -> Vec<CallFate> {
        (0..2_000)
            .map(|i| CallFate::of(&format!("call {i}"), Fate::new(seed), rates, 60, None))
            .collect()
    }

    #[test]
    fn outcomes_follow_the_rates() {
        let rates = Rates {
            failed: 0.3,
            voicemail: 0.2,
            ..Rates::default()
        };
        let all = fates(3, &rates);
        let count = |f: fn(CallOutcome) -> bool| all.iter().filter(|c| f(c.outcome)).count();
        let voicemails = count(|o| o == CallOutcome::Voicemail);
        let failed = count(|o| !o.connects());
        assert!((340..460).contains(&voicemails), "{voicemails}");
        assert!((520..680).contains(&failed), "{failed}");
        assert!(count(|o| o == CallOutcome::Unknown) > 0);
    }

    #[test]
    fn forcing_an_outcome_changes_nothing_that_was_drawn_besides() {
        let rates = Rates::ideal();
        let of = |forced| CallFate::of("x", Fate::new(5), &rates, 60, forced);
        let (free, busy) = (of(None), of(Some(CallOutcome::Busy)));
        assert_eq!(free.dial_ms, busy.dial_ms);
        assert_eq!(free.analysis_ms, busy.analysis_ms);
        assert_eq!((busy.outcome, busy.talk_secs), (CallOutcome::Busy, 0));
    }
}
