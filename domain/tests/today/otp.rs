//! One event of each kind of one-time codes, with every field that it may have.

use bitacora_domain::otp::{Attempted, Event as Otp, Requested, Verified};
use bitacora_domain::{Event, PhoneNumber};
use chrono::DateTime;

pub fn today() -> Vec<Event> {
    let at = DateTime::from_timestamp(1_761_694_074, 0).unwrap_or_default();
    let events = vec![
        Otp::Requested(Requested {
            challenge_id: "otp_0001".into(),
            phone_number: PhoneNumber::parse("+573001234567").expect("it is one"),
            purpose: "login".into(),
            expires_at: at,
            attempts_max: 5,
            requested_by: "service".into(),
        }),
        Otp::Attempted(Attempted { attempt: 1, at }),
        Otp::Verified(Verified { attempt: 1, at }),
    ];
    events.into_iter().map(Event::Otp).collect()
}
