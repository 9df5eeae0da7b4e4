//! Twilio's errors: the code, the HTTP status and the words of each.

use serde_json::json;

use crate::http::{Answer, Call};

/// Errors of a request: code, HTTP status, words. `{to}`, `{from}` and `{path}` are filled in.
const REFUSALS: &[(u32, u16, &str)] = &[
    (20001, 400, "Invalid parameter"),
    (20003, 401, "Authenticate"),
    (20404, 404, "The requested resource {path} was not found"),
    (20429, 429, "Too Many Requests"),
    (20500, 500, "An internal server error has occurred"),
    (20503, 503, "Service is temporarily unavailable"),
    (
        21211,
        400,
        "The 'To' number {to} is not a valid phone number.",
    ),
    (
        21212,
        400,
        "The 'From' number {from} is not a valid phone number, shortcode, or alphanumeric sender ID.",
    ),
    (21214, 400, "'To' phone number cannot be reached: {to}"),
    (
        21408,
        400,
        "Permission to send an SMS has not been enabled for the region indicated by the 'To' number: {to}.",
    ),
    (21602, 400, "Message body is required."),
    (21603, 400, "A 'From' phone number is required."),
    (21604, 400, "A 'To' phone number is required."),
    (
        21606,
        400,
        "The From phone number {from} is not a valid, SMS-capable inbound phone number or short code for your account.",
    ),
    (
        21608,
        400,
        "The number {to} is unverified. Trial accounts cannot send messages to unverified numbers; verify {to} at twilio.com/user/account/phone-numbers/verified, or purchase a Twilio number to send messages to unverified numbers.",
    ),
    (21609, 400, "The 'StatusCallback' URL is not a valid URL."),
    (21610, 400, "Attempt to send to unsubscribed recipient"),
    (
        21611,
        400,
        "This 'From' number has exceeded the maximum number of queued messages",
    ),
    (
        21612,
        400,
        "The 'To' phone number: {to}, is not currently reachable using the 'From' phone number: {from} via SMS.",
    ),
    (21614, 400, "'To' number is not a valid mobile number"),
    (
        21617,
        400,
        "The concatenated message body exceeds the 1600 character limit",
    ),
    (21620, 400, "Invalid media URL(s)"),
    (21654, 400, "ContentSid Required"),
    (21655, 400, "The ContentSid is Invalid"),
    (21656, 400, "The Content Variables parameter is invalid"),
    (
        21703,
        400,
        "The Messaging Service does not have a phone number available to send a message",
    ),
    (
        21704,
        400,
        "The Messaging Service contains no phone numbers",
    ),
    (
        21910,
        400,
        "Invalid From and To pair. From and To should be of the same channel",
    ),
    (
        63007,
        400,
        "Twilio could not find a Channel with the specified From address",
    ),
    (63038, 429, "Account exceeded the daily messages limit"),
];

/// Errors that come later, by callback: code and words.
const FAILURES: &[(u32, &str)] = &[
    (30001, "Queue overflow"),
    (30002, "Account suspended"),
    (30003, "Unreachable destination handset"),
    (30004, "Message blocked"),
    (30005, "Unknown destination handset"),
    (30006, "Landline or unreachable carrier"),
    (30007, "Message filtered"),
    (30008, "Unknown error"),
    (30032, "Toll-Free Number Has Not Been Verified"),
    (30034, "Message from an Unregistered Number"),
    (30410, "Provider Timeout Error"),
    (30450, "Message delivery blocked"),
    (63003, "Channel could not find To address"),
    (63005, "Channel did not accept given content"),
    (63013, "Message violates channel provider's policy"),
    (
        63015,
        "Channel Sandbox can only send messages to phone numbers that have joined the Sandbox",
    ),
    (
        63016,
        "Message failed to send because more than 24 hours have passed since the customer last replied to this number.",
    ),
    (63018, "Rate limit exceeded for Channel"),
    (63019, "Media failed to download"),
    (
        63020,
        "Business has not accepted the invitation to be messaged for by this number",
    ),
    (63021, "Channel invalid content error"),
    (63024, "Invalid message recipient"),
    (63027, "Template does not exist for a language and locale"),
    (
        63028,
        "Number of parameters provided does not match the expected number of parameters",
    ),
    (63030, "Unsupported parameter for type of channels message"),
    (63032, "User's number is part of an experiment"),
    (63033, "Recipient blocked to receive message"),
    (63041, "Template paused"),
    (63049, "Meta chose not to deliver this marketing message"),
    (63051, "WhatsApp Business Account is locked"),
];

fn body(status: u16, code: u32, message: &str) -> Answer {
    let more_info = format!("https://www.twilio.com/docs/errors/{code}");
    let body = json!({
        "code": code, "message": message, "more_info": more_info, "status": status
    });
    Answer::json(status, &body)
}

/// Whether an error refuses the request, rather than failing the message later.
pub(super) fn refuses(code: u32) -> bool {
    REFUSALS.iter().any(|(known, ..)| *known == code)
}

/// The words of an error that comes by callback.
pub(super) fn words(code: u32) -> Option<&'static str> {
    let known = FAILURES.iter().find(|(known, _)| *known == code);
    known.map(|(_, words)| *words)
}

/// The refusal of a request, by its code.
pub(crate) fn of_code(code: u32, call: &Call) -> Answer {
    let known = REFUSALS.iter().find(|(known, ..)| *known == code);
    let (status, template) = match known {
        Some((_, status, template)) => (*status, *template),
        None => (400, words(code).unwrap_or("Unknown error")),
    };
    let form: Vec<(String, String)> = form_urlencoded::parse(&call.body).into_owned().collect();
    let field = |name: &str| {
        let found = form.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let path = call.path_and_query.split('?').next().unwrap_or_default();
    let message = template
        .replace("{to}", field("To"))
        .replace("{from}", field("From"))
        .replace("{path}", path);
    body(status, code, &message)
}

/// The refusal that goes with an HTTP status.
pub(crate) fn of_status(status: u16) -> Answer {
    let code = match status {
        401 => 20003,
        404 => 20404,
        429 => 20429,
        503 => 20503,
        500..=599 => 20500,
        _ => 20001,
    };
    let known = REFUSALS.iter().find(|(known, ..)| *known == code);
    body(
        status,
        code,
        known.map_or("Unknown error", |(_, _, words)| words),
    )
}

/// A path that does not exist.
pub(crate) fn not_found(path: &str) -> Answer {
    body(
        404,
        20404,
        &format!("The requested resource {path} was not found"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_refusal_has_twilios_four_fields() {
        for (code, status, _) in REFUSALS {
            let call = Call::noted("/x?y", "To=%2B57&From=%2B1");
            let answer = of_code(*code, &call);
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(
                (answer.status, body["code"].as_u64()),
                (*status, Some(u64::from(*code)))
            );
            assert_eq!(body["status"], *status);
            assert_eq!(
                body["more_info"],
                format!("https://www.twilio.com/docs/errors/{code}")
            );
            assert!(!body["message"].as_str().unwrap().contains('{'));
        }
    }

    #[test]
    fn a_bad_number_is_named_as_in_the_recorded_example() {
        let answer = of_code(21211, &Call::noted("/x", "To=123"));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let recorded = json!({
            "code": 21211,
            "message": "The 'To' number 123 is not a valid phone number.",
            "more_info": "https://www.twilio.com/docs/errors/21211",
            "status": 400
        });
        assert_eq!(body, recorded);
    }
}
