use chrono::DateTime;
use cqrs_es::Aggregate;
use proptest::prelude::*;

use super::*;
use crate::{Channel, Provider};

fn attempt(looked_up: Option<u32>) -> Command {
    attempt_as(looked_up.unwrap_or_default() + 1, looked_up)
}

fn attempt_as(attempt: u32, looked_up: Option<u32>) -> Command {
    Command::Attempt {
        attempt,
        looked_up,
        at: DateTime::UNIX_EPOCH,
    }
}

fn sent(attempt: u32, id: &str) -> Command {
    Command::ReportSent(Box::new(Sent {
        attempt,
        adopted: false,
        provider: Provider::Twilio,
        channel: Channel::Whatsapp,
        message_id: Some(id.into()),
        interaction_id: "wa_1".into(),
        contact: "+573001234567".into(),
        our_address: None,
        content: "Hola".into(),
        content_sid: None,
    }))
}

fn failed(attempt: u32, remedy: Remedy) -> Command {
    Command::ReportFailed(Failed {
        attempt,
        status: Some(400),
        code: None,
        message: String::new(),
        remedy,
        retry_at: None,
    })
}

fn bounced(id: &str, remedy: Remedy) -> Command {
    Command::ReportBounced(Bounced {
        message_id: id.into(),
        code: Some("63016".into()),
        remedy,
        retry_at: None,
    })
}

fn uncertain(attempt: u32) -> Command {
    Command::ReportUncertain {
        attempt,
        reason: "it timed out".into(),
    }
}

fn retry() -> Command {
    Command::Retry {
        retried_by: "user:7".into(),
    }
}

fn tell(effect: &mut Effect, command: Command) -> Result<usize, Error> {
    let events = effect.decide(command)?;
    let news = events.len();
    for event in events {
        effect.apply(event);
    }
    Ok(news)
}

#[test]
fn one_attempt_at_a_time() {
    let mut effect = Effect::default();
    assert_eq!(tell(&mut effect, attempt(None)), Ok(1));
    assert_eq!(tell(&mut effect, attempt(None)), Err(Error::UnderWay));
    assert_eq!(tell(&mut effect, attempt(Some(1))), Err(Error::UnderWay));
    assert_eq!(tell(&mut effect, sent(1, "SM1")), Ok(1));
    assert_eq!(tell(&mut effect, attempt(None)), Err(Error::Settled));
}

#[test]
fn what_is_uncertain_is_looked_up_before_it_is_tried_again() {
    let mut effect = Effect::default();
    tell(&mut effect, attempt(None)).unwrap();
    assert_eq!(tell(&mut effect, uncertain(1)), Ok(1));
    assert_eq!(tell(&mut effect, uncertain(1)), Ok(0), "it is known");
    assert_eq!(tell(&mut effect, attempt(None)), Err(Error::Uncertain));
    assert_eq!(tell(&mut effect, attempt(Some(1))), Ok(1));
    assert_eq!(effect.attempts(), 2);
    assert_eq!(tell(&mut effect, uncertain(7)), Err(Error::NotAttempted));
}

#[test]
fn an_attempt_that_was_held_for_lost_may_have_been_the_one() {
    let mut effect = Effect::default();
    tell(&mut effect, attempt(None)).unwrap();
    tell(&mut effect, uncertain(1)).unwrap();
    tell(&mut effect, attempt(Some(1))).unwrap();
    assert_eq!(tell(&mut effect, sent(1, "SM1")), Ok(1));
    assert_eq!(effect.standing(), Standing::Done);
    assert_eq!(tell(&mut effect, sent(1, "SM1")), Ok(0), "it is known");
    let twice = effect.decide(sent(2, "SM2")).unwrap();
    assert!(matches!(&twice[..], [Event::Duplicated(it)] if it.message_id == "SM2"));
}

#[test]
fn what_was_given_up_waits_for_a_person() {
    let mut effect = Effect::default();
    assert_eq!(tell(&mut effect, retry()), Err(Error::NotDead));
    tell(&mut effect, attempt(None)).unwrap();
    tell(&mut effect, failed(1, Remedy::DeadLetter)).unwrap();
    assert_eq!(tell(&mut effect, attempt(None)), Err(Error::Dead));
    assert_eq!(tell(&mut effect, retry()), Ok(1));
    assert_eq!(tell(&mut effect, retry()), Err(Error::NotDead));
    assert_eq!(tell(&mut effect, attempt(None)), Err(Error::Stale));
    assert_eq!(tell(&mut effect, attempt_as(2, None)), Ok(1));
    assert_eq!(effect.attempts(), 2);
}

#[test]
fn what_was_taken_may_come_back() {
    let mut effect = Effect::default();
    tell(&mut effect, attempt(None)).unwrap();
    tell(&mut effect, sent(1, "SM1")).unwrap();
    assert_eq!(tell(&mut effect, bounced("SM0", Remedy::Retry)), Ok(0));
    assert_eq!(tell(&mut effect, bounced("SM1", Remedy::Template)), Ok(1));
    assert_eq!(effect.standing(), Standing::Waiting);
    assert_eq!(tell(&mut effect, bounced("SM1", Remedy::Template)), Ok(0));
    tell(&mut effect, attempt_as(2, None)).unwrap();
    tell(&mut effect, sent(2, "SM2")).unwrap();
    assert_eq!(tell(&mut effect, bounced("SM1", Remedy::Template)), Ok(0));
    assert_eq!(tell(&mut effect, bounced("SM2", Remedy::OptOut)), Ok(1));
    assert_eq!(effect.standing(), Standing::Dead);
}

#[test]
fn what_is_not_owed_is_dropped_unless_it_is_being_sent() {
    let dropped = || Command::Drop {
        reason: "the conversation was closed".into(),
    };
    let mut effect = Effect::default();
    tell(&mut effect, attempt(None)).unwrap();
    assert_eq!(tell(&mut effect, dropped()), Err(Error::UnderWay));
    tell(&mut effect, failed(1, Remedy::Retry)).unwrap();
    assert_eq!(tell(&mut effect, dropped()), Ok(1));
    assert_eq!(tell(&mut effect, dropped()), Ok(0));
    assert_eq!(tell(&mut effect, attempt(None)), Err(Error::Settled));
}

proptest! {
    /// Whatever is told in whatever order: of the attempts, at most one is in
    /// the open, and a message that is out is never sent again unless it came
    /// back or a person wants it.
    #[test]
    fn nothing_leads_to_a_second_message(steps in proptest::collection::vec(0..9_usize, 0..40)) {
        let mut effect = Effect::default();
        let (mut under_way, mut out) = (false, false);
        for step in steps {
            let n = effect.attempts();
            let command = match step {
                0 | 1 => attempt_as(n + 1, None),
                2 => attempt_as(n + 1, Some(n)),
                3 => uncertain(n),
                4 => failed(n, Remedy::Retry),
                5 => failed(n, Remedy::DeadLetter),
                6 => sent(n, &format!("SM{n}")),
                7 => bounced(&format!("SM{n}"), Remedy::Retry),
                _ => retry(),
            };
            let is_attempt = matches!(command, Command::Attempt { .. });
            let before = effect.standing();
            if tell(&mut effect, command) != Ok(1) { continue; }
            if is_attempt {
                prop_assert!(!under_way && !out, "after {before}");
            }
            under_way = effect.standing() == Standing::Attempted;
            out = effect.standing() == Standing::Done;
        }
    }
}

#[test]
fn an_id_tells_the_turn_it_was_made_of() {
    for position in [1, 4_711, i64::MAX] {
        let turn = turn_id(position);
        assert_eq!(turn_position(&turn), Some(position));
        assert_eq!(turn_of_part(&part_id(&turn, 12)), Some(turn.as_str()));
        assert_eq!(turn_of_part(&turn), None);
    }
    let written = written_id(uuid::Uuid::nil());
    for other in ["turn_", "turn_x", "turn_+7", "turn_07", "first_1", &written] {
        assert_eq!(turn_position(other), None, "{other}");
        assert_eq!(turn_of_part(&part_id(other, 1)), None, "{other}");
    }
    assert_eq!(turn_position("turn_7.1"), None);
    assert_eq!(turn_of_part("turn_7.x"), None);
}
