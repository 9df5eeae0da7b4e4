//! What to do about each of Twilio's refusals, whether it answers a request
//! or comes later as the `ErrorCode` of a status. Source: PROVIDERS.md,
//! section 3.6, and Twilio's page of each code.
//!
//! This says what a code means, not whether the message may have gone out:
//! that is [`Error::may_have_happened`](crate::providers::http::Error::may_have_happened).

use domain::effect::Remedy;

use Remedy::{DeadLetter, OptOut, Retry, Template};

/// What helps against a refusal, by its code. What is not known is for a
/// person to look at.
pub fn remedy(code: &str) -> Remedy {
    known(code).unwrap_or(DeadLetter)
}

/// What helps against a refusal, where its code is known.
pub fn known(code: &str) -> Option<Remedy> {
    let code: u32 = code.trim().parse().ok()?;
    let mut refusals = REFUSALS.iter();
    let known = refusals.find(|(known, ..)| *known == code);
    known.map(|(_, remedy, _)| *remedy)
}

/// Every code that a message may meet: what helps, and why.
pub const REFUSALS: &[(u32, Remedy, &str)] = &[
    // Of any request.
    (20003, DeadLetter, "our account or token is wrong"),
    (20404, DeadLetter, "there is no such account or message"),
    (20429, Retry, "too many requests at once; never carried out"),
    (20500, Retry, "Twilio broke"),
    (20503, Retry, "Twilio is away"),
    // Of a request for a message.
    (21211, DeadLetter, "the number is none"),
    (21212, DeadLetter, "our number is none"),
    (21214, DeadLetter, "the number cannot be reached"),
    (
        21408,
        DeadLetter,
        "our account may not send to that country",
    ),
    (21604, DeadLetter, "no number was given"),
    (21606, DeadLetter, "our number cannot send this"),
    (
        21608,
        DeadLetter,
        "a trial account sends to verified numbers only",
    ),
    (
        21610,
        OptOut,
        "the client wrote STOP; until they write START",
    ),
    (21611, Retry, "our number's queue is full; it empties"),
    (21612, DeadLetter, "no way from our number to theirs"),
    (21614, DeadLetter, "the number is no mobile one"),
    (21617, DeadLetter, "the text is too long, and stays so"),
    (21620, DeadLetter, "the address of a file is none"),
    (21654, DeadLetter, "the template is not named"),
    (21655, DeadLetter, "there is no such template"),
    (21656, DeadLetter, "the template's variables are none"),
    (
        21703,
        DeadLetter,
        "the messaging service has no sender for it",
    ),
    (21704, DeadLetter, "the messaging service has no senders"),
    (
        21910,
        DeadLetter,
        "the two numbers are of different channels",
    ),
    // Of an SMS on its way.
    (30001, Retry, "the queue is full; it empties"),
    (30002, DeadLetter, "our account is suspended"),
    (
        30003,
        DeadLetter,
        "the telephone is off; the carrier has tried enough",
    ),
    (
        30004,
        DeadLetter,
        "blocked, by whom is not said: no opt-out to rely on",
    ),
    (30005, DeadLetter, "the number does not exist any more"),
    (
        30006,
        DeadLetter,
        "a landline, or a carrier that takes no SMS",
    ),
    (
        30007,
        DeadLetter,
        "the carrier takes it for spam; again is worse",
    ),
    (
        30008,
        DeadLetter,
        "the carrier does not say why; it may have arrived",
    ),
    (30032, DeadLetter, "our toll-free number is not verified"),
    (
        30034,
        DeadLetter,
        "our number is not registered (A2P 10DLC)",
    ),
    (30410, Retry, "the carrier did not answer Twilio"),
    (30450, DeadLetter, "Twilio takes it for fraud"),
    // Of a WhatsApp message.
    (63003, DeadLetter, "the number has no WhatsApp"),
    (63005, DeadLetter, "WhatsApp does not take this content"),
    (63007, DeadLetter, "our number has no WhatsApp"),
    (63013, DeadLetter, "against WhatsApp's policy"),
    (
        63015,
        DeadLetter,
        "the client has not joined Twilio's sandbox",
    ),
    (63016, Template, "more than 24 hours since the client wrote"),
    (63018, Retry, "our number sends too fast"),
    (63019, DeadLetter, "a file could not be fetched"),
    (63020, DeadLetter, "WhatsApp has not been given our number"),
    (63021, DeadLetter, "the content is not valid"),
    (63024, DeadLetter, "the client's WhatsApp cannot receive it"),
    (
        63027,
        DeadLetter,
        "the template is not there in that language",
    ),
    (
        63028,
        DeadLetter,
        "more or fewer variables than the template has",
    ),
    (
        63030,
        DeadLetter,
        "a parameter that this sort of message has not",
    ),
    (
        63032,
        DeadLetter,
        "the number is in one of WhatsApp's experiments",
    ),
    (
        63033,
        DeadLetter,
        "the client wants no marketing, but may want answers",
    ),
    (
        63038,
        DeadLetter,
        "our day's messages are used up: a day is too long",
    ),
    (63041, DeadLetter, "WhatsApp has paused the template"),
    (
        63049,
        DeadLetter,
        "WhatsApp lets them have no more marketing for now",
    ),
    (63051, DeadLetter, "our WhatsApp account is locked"),
];

#[cfg(test)]
#[path = "refusals_tests.rs"]
mod tests;
