//! One challenge: what it does with a command, and what its events add up to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Attempted, Command, Error, Event, Requested, Verified};

/// One challenge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    requested: Option<Requested>,
    attempts: u32,
    is_verified: bool,
}

impl Challenge {
    /// How it was asked for; `None` before that.
    pub const fn requested(&self) -> Option<&Requested> {
        self.requested.as_ref()
    }

    /// How many guesses were made.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What follows from a command. No event where the work is already done.
    ///
    /// # Errors
    /// [`Error`] when the command must not be carried out.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match command {
            Command::Request(request) => match &self.requested {
                None => Ok(vec![Event::Requested(request)]),
                Some(known) if is_same(known, &request) => Ok(vec![]),
                Some(_) => Err(Error::AlreadyRequested),
            },
            Command::Attempt { attempt, at } => {
                let requested = self.open(at)?;
                if self.attempts >= requested.attempts_max {
                    return Err(Error::AttemptsExceeded);
                }
                if attempt != self.attempts + 1 {
                    return Err(Error::Overtaken);
                }
                Ok(vec![Event::Attempted(Attempted { attempt, at })])
            }
            Command::Verify { attempt, at } => {
                self.open(at)?;
                if attempt == 0 || attempt > self.attempts {
                    return Err(Error::NotAttempted);
                }
                Ok(vec![Event::Verified(Verified { attempt, at })])
            }
        }
    }

    /// A code is used once, and in its time.
    fn open(&self, at: DateTime<Utc>) -> Result<&Requested, Error> {
        let requested = self.requested.as_ref().ok_or(Error::Unknown)?;
        if self.is_verified {
            return Err(Error::AlreadyUsed);
        }
        if at >= requested.expires_at {
            return Err(Error::Expired);
        }
        Ok(requested)
    }
}

/// Whether two ask for the same, if not at the same time.
fn is_same(known: &Requested, other: &Requested) -> bool {
    known.phone_number == other.phone_number && known.purpose == other.purpose
}

impl cqrs_es::Aggregate for Challenge {
    const TYPE: &'static str = "otp";
    type Command = Command;
    type Event = Event;
    type Error = Error;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        (): &(),
        sink: &cqrs_es::event_sink::EventSink<Self>,
    ) -> Result<(), Error> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Requested(requested) => self.requested = Some(requested),
            Event::Attempted(attempted) => self.attempts = attempted.attempt,
            Event::Verified(_) => self.is_verified = true,
        }
    }
}
