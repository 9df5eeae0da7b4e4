mod decisions;
mod orders;
mod recipients;
mod statuses;

use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;

use super::*;
use crate::PhoneNumber;
use crate::call::Outcome;

const CREATED: i64 = 1_761_694_000;

fn at(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(CREATED + secs, 0).unwrap()
}

/// An order for so many recipients.
fn order(recipients: usize) -> Box<Requested> {
    let recipient = |n: usize| Recipient {
        phone_number: PhoneNumber::parse(&format!("+57300{n:07}")).unwrap(),
        dynamic_variables: serde_json::Map::new(),
        client_id: None,
    };
    Box::new(Requested {
        batch_id: "0190a0b0-0000-7000-8000-000000000001".into(),
        call_name: "Octubre".into(),
        agent_id: "agent_1".into(),
        agent_phone_number_id: "phnum_1".into(),
        scheduled_time_unix: None,
        phone_provider: None,
        group: None,
        requested_by: "user:7".into(),
        requested_at: at(0),
        recipients: (0..recipients).map(recipient).collect(),
    })
}

/// The provider's words, so many seconds after the beginning.
fn snapshot(status: &str, retry_count: i64, secs: i64) -> Snapshot {
    Snapshot {
        id: "btcal_1".into(),
        name: "Octubre".into(),
        status: status.into(),
        agent_id: "agent_1".into(),
        created_at_unix: CREATED,
        last_updated_at_unix: CREATED + secs,
        total_calls_scheduled: 3,
        retry_count,
        ..Snapshot::default()
    }
}

/// A line of the provider's list.
fn seen(n: usize, conversation: Option<&str>, status: &str, secs: i64) -> RecipientSeen {
    RecipientSeen {
        conversation_id: conversation.map(Into::into),
        phone_number: Some(format!("+57300{n:07}")),
        ..RecipientSeen::new(order(0).recipient_id(n), status, CREATED + secs)
    }
}

/// Carries a command out.
fn tell(batch: &mut Batch, command: Command) -> Result<Vec<&'static str>, Error> {
    let events = batch.decide(command)?;
    let names = events.iter().map(Event::name).collect();
    for event in events {
        batch.apply(event);
    }
    Ok(names)
}

fn observe(status: &str, retry_count: i64, secs: i64, recipients: &[RecipientSeen]) -> Command {
    Command::Observe {
        batch: snapshot(status, retry_count, secs),
        recipients: recipients.to_vec(),
    }
}

fn requested() -> Batch {
    let mut batch = Batch::default();
    tell(&mut batch, Command::Request(order(3))).unwrap();
    batch
}

fn submitted() -> Batch {
    let mut batch = requested();
    tell(&mut batch, Command::AttemptSubmit { looked_up: None }).unwrap();
    let batch_at = snapshot("pending", 0, 1);
    let report = Command::ReportSubmitted {
        adopted: false,
        batch: batch_at,
    };
    tell(&mut batch, report).unwrap();
    batch
}

/// Ended: one completed, one failed, one voicemail.
fn finished() -> Batch {
    let mut batch = submitted();
    let list = [
        seen(0, Some("conv_0"), "completed", 60),
        seen(1, Some("conv_1"), "failed", 61),
        seen(2, Some("conv_2"), "voicemail", 62),
    ];
    tell(&mut batch, observe("completed", 0, 62, &list)).unwrap();
    batch
}

fn by() -> String {
    "user:7".into()
}

fn refused(attempt: u32, retryable: bool) -> Refused {
    Refused {
        attempt,
        status: Some(if retryable { 503 } else { 422 }),
        message: "no".into(),
        retryable,
    }
}
