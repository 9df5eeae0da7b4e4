use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use proptest::prelude::*;

use super::*;
use crate::PhoneNumber;

const EXPIRES: i64 = 300;
const ATTEMPTS_MAX: u32 = 5;

fn at(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_761_694_000 + secs, 0).unwrap()
}

fn request(phone: &str, purpose: &str) -> Command {
    Command::Request(Requested {
        challenge_id: "otp_1".into(),
        phone_number: PhoneNumber::parse(phone).unwrap(),
        purpose: purpose.into(),
        expires_at: at(EXPIRES),
        attempts_max: ATTEMPTS_MAX,
        requested_by: "service".into(),
    })
}

fn attempt(attempt: u32, secs: i64) -> Command {
    Command::Attempt {
        attempt,
        at: at(secs),
    }
}

fn verify(attempt: u32, secs: i64) -> Command {
    Command::Verify {
        attempt,
        at: at(secs),
    }
}

/// Carries a command out; how many events came of it.
fn tell(challenge: &mut Challenge, command: Command) -> Result<usize, Error> {
    let events = challenge.decide(command)?;
    let count = events.len();
    for event in events {
        challenge.apply(event);
    }
    Ok(count)
}

fn requested() -> Challenge {
    let mut challenge = Challenge::default();
    tell(&mut challenge, request("+573001234567", "login")).unwrap();
    challenge
}

#[test]
fn a_challenge_is_made_once() {
    let mut challenge = requested();
    assert_eq!(
        tell(&mut challenge, request("+573001234567", "login")),
        Ok(0)
    );
    for other in [
        request("+573001234567", "pay"),
        request("+573007654321", "login"),
    ] {
        assert_eq!(tell(&mut challenge, other), Err(Error::AlreadyRequested));
    }
}

#[test]
fn nobody_guesses_at_what_nobody_asked_for() {
    let mut challenge = Challenge::default();
    assert_eq!(tell(&mut challenge, attempt(1, 0)), Err(Error::Unknown));
    assert_eq!(tell(&mut challenge, verify(1, 0)), Err(Error::Unknown));
}

#[test]
fn the_right_code_is_taken_once() {
    let mut challenge = requested();
    assert_eq!(tell(&mut challenge, verify(1, 1)), Err(Error::NotAttempted));
    assert_eq!(tell(&mut challenge, attempt(1, 1)), Ok(1));
    assert_eq!(tell(&mut challenge, attempt(2, 2)), Ok(1));
    assert_eq!(
        tell(&mut challenge, verify(1, 1)),
        Ok(1),
        "whoever guessed in between changes nothing"
    );
    assert_eq!(tell(&mut challenge, verify(2, 2)), Err(Error::AlreadyUsed));
    assert_eq!(tell(&mut challenge, attempt(3, 3)), Err(Error::AlreadyUsed));
}

#[test]
fn of_two_who_count_the_same_guess_one_is_overtaken() {
    let mut challenge = requested();
    assert_eq!(tell(&mut challenge, attempt(1, 0)), Ok(1));
    assert_eq!(tell(&mut challenge, attempt(1, 0)), Err(Error::Overtaken));
    assert_eq!(tell(&mut challenge, attempt(3, 0)), Err(Error::Overtaken));
    assert_eq!(challenge.attempts(), 1);
}

#[test]
fn a_code_that_was_used_is_used_and_one_that_expired_has_expired_whatever_was_guessed() {
    let mut challenge = requested();
    for n in 1..=ATTEMPTS_MAX {
        tell(&mut challenge, attempt(n, 0)).unwrap();
    }
    assert_eq!(
        tell(&mut challenge, attempt(6, EXPIRES - 1)),
        Err(Error::AttemptsExceeded)
    );
    assert_eq!(
        tell(&mut challenge, attempt(6, EXPIRES)),
        Err(Error::Expired)
    );
    tell(&mut challenge, verify(5, 0)).unwrap();
    assert_eq!(
        tell(&mut challenge, attempt(6, EXPIRES)),
        Err(Error::AlreadyUsed)
    );
}

proptest! {
    /// Whatever is told in whatever order, by whoever has read whatever.
    #[test]
    fn never_more_guesses_than_there_are_and_one_is_right_at_most(
        steps in proptest::collection::vec((0..4_usize, 0..8_u32, 0..400_i64), 0..60)
    ) {
        let mut challenge = requested();
        let (mut guesses, mut right) = (vec![], 0);
        for (step, n, secs) in steps {
            let command = match step {
                0 => attempt(n, secs),
                1 => attempt(challenge.attempts() + 1, secs),
                2 => verify(n, secs),
                _ => request("+573001234567", "login"),
            };
            let is_guess = matches!(command, Command::Attempt { .. });
            let is_right = matches!(command, Command::Verify { .. });
            if tell(&mut challenge, command) != Ok(1) { continue; }
            prop_assert!(secs < EXPIRES);
            prop_assert!(right == 0, "nothing happens once it was used");
            if is_guess { guesses.push(challenge.attempts()); }
            right += usize::from(is_right);
        }
        let counted: Vec<u32> = (1..=challenge.attempts()).collect();
        prop_assert!(challenge.attempts() <= ATTEMPTS_MAX);
        prop_assert_eq!(guesses, counted);
    }
}
