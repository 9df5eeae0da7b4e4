//! How a telephone leg goes.

use chrono::{DateTime, Utc};
use domain::call::{Event, Outcome, Progressed};
use domain::{Direction, Event as AnyEvent, Fact, StreamId};

use super::Understood;
use super::params::Params;
use crate::providers::text::{self, missing, required_id, unknown};

/// A status callback of a call.
pub(super) fn progressed(params: &Params<'_>) -> Understood {
    let call_sid = match required_id(params.get("CallSid"), "CallSid") {
        Ok(id) => id,
        Err(reason) => return Understood::unidentified(reason),
    };
    let status = params.get("CallStatus");
    let fact = fact(&call_sid, status, params);
    match (params.get("SequenceNumber"), status) {
        (Some(number), _) => {
            Understood::new("voice_status", &[&call_sid, "sequence", number], fact)
        }
        (None, Some(status)) => {
            Understood::new("voice_status", &[&call_sid, "status", status], fact)
        }
        (None, None) => Understood { key: None, fact },
    }
}

fn fact(call_sid: &str, status: Option<&str>, params: &Params<'_>) -> Result<Fact, String> {
    let status = status.ok_or_else(|| missing("CallStatus"))?;
    let outcome = outcome(status, params)?;
    let direction = direction(params);
    let (theirs, ours) = match direction {
        Some(Direction::Outbound) => ("To", "From"),
        Some(Direction::Inbound) | None => ("From", "To"),
    };
    let event = Event::Progressed(Progressed {
        call_sid: call_sid.to_owned(),
        outcome,
        provider_status: text::word(status),
        sequence_number: params.whole("SequenceNumber"),
        direction,
        phone_number: params.get(theirs).map(text::address),
        agent_number: params.get(ours).map(text::address),
        duration_secs: params.whole("CallDuration").filter(|secs| *secs >= 0),
        sip_status: params.whole("SipResponseCode"),
        recording_url: params.text("RecordingUrl"),
    });
    Ok(Fact {
        stream: StreamId::call(call_sid),
        event: AnyEvent::Call(event),
        occurred_at: params.get("Timestamp").and_then(instant),
    })
}

/// How the call stands. Source: Twilio's `call_enum_status`, and
/// `AnsweredBy` where answering machines are looked for.
fn outcome(status: &str, params: &Params<'_>) -> Result<Outcome, String> {
    let machine = params
        .get("AnsweredBy")
        .is_some_and(|it| it.starts_with("machine"));
    match status {
        "queued" => Ok(Outcome::Pending),
        "initiated" | "ringing" | "in-progress" | "answered" => Ok(Outcome::InProgress),
        "completed" if machine => Ok(Outcome::Voicemail),
        "completed" => Ok(Outcome::Completed),
        "busy" | "no-answer" | "failed" => Ok(Outcome::Failed),
        "canceled" => Ok(Outcome::Cancelled),
        other => Err(unknown("CallStatus", other)),
    }
}

/// `inbound`, `outbound-api` or `outbound-dial`.
fn direction(params: &Params<'_>) -> Option<Direction> {
    match params.get("Direction")? {
        "inbound" => Some(Direction::Inbound),
        it if it.starts_with("outbound") => Some(Direction::Outbound),
        _ => None,
    }
}

/// RFC 2822, `Tue, 28 Oct 2025 23:29:50 +0000`.
fn instant(text: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc2822(text).ok()?;
    Some(instant.to_utc()).filter(|it| it.timestamp() > 0)
}

#[cfg(test)]
#[path = "voice_tests.rs"]
mod tests;
