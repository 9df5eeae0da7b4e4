//! One effect: what it does with a command, and what its events add up to.

use serde::{Deserialize, Serialize};

use super::{
    Attempted, Bounced, Command, Dropped, Duplicated, Error, Event, Failed, Remedy, Retried, Sent,
    Uncertain,
};
use crate::words::vocabulary;

vocabulary! {
    /// Where an effect stands.
    Standing {
        /// Owed, and not being tried: never yet, or to be tried again.
        Waiting = "waiting",
        /// An attempt is being made, or was when the process died.
        Attempted = "attempted",
        /// The last attempt may have arrived.
        Uncertain = "uncertain",
        /// Given up until a person wants it tried again.
        Dead = "dead",
        /// Done: the provider took it, or the agent answered.
        Done = "done",
        /// Not owed any more.
        Dropped = "dropped",
    }
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    standing: Standing,
    attempts: u32,
    message_id: Option<String>,
}

impl Default for Effect {
    fn default() -> Self {
        Self {
            standing: Standing::Waiting,
            attempts: 0,
            message_id: None,
        }
    }
}

type Decision = Result<Vec<Event>, Error>;

impl Effect {
    /// Where it stands.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// How many attempts were made.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What follows from a command. No event where the work is already done.
    ///
    /// # Errors
    /// [`Error`] when the command must not be carried out.
    pub fn decide(&self, command: Command) -> Decision {
        match command {
            Command::Attempt {
                attempt,
                looked_up,
                at,
            } => {
                self.may_attempt(looked_up)?;
                if attempt != self.attempts + 1 {
                    return Err(Error::Stale);
                }
                Ok(vec![Event::Attempted(Attempted { attempt, at })])
            }
            Command::ReportUncertain { attempt, reason } => {
                let news = self.is_open(attempt)? && self.standing == Standing::Attempted;
                Ok(when(news, Event::Uncertain(Uncertain { attempt, reason })))
            }
            Command::ReportFailed(failed) => {
                let news = self.is_open(failed.attempt)?;
                Ok(when(news, Event::Failed(failed)))
            }
            Command::ReportSent(sent) => self.report_sent(sent),
            Command::ReportAnswered(answered) => {
                let news = self.is_open(answered.attempt)?;
                Ok(when(news, Event::Answered(answered)))
            }
            Command::ReportBounced(bounced) => self.report_bounced(bounced),
            Command::Drop { reason } => match self.standing {
                Standing::Waiting | Standing::Uncertain => {
                    Ok(vec![Event::Dropped(Dropped { reason })])
                }
                Standing::Attempted => Err(Error::UnderWay),
                Standing::Dead | Standing::Done | Standing::Dropped => Ok(vec![]),
            },
            Command::Retry { retried_by } => match self.standing {
                Standing::Dead => Ok(vec![Event::Retried(Retried { retried_by })]),
                _ => Err(Error::NotDead),
            },
        }
    }

    fn may_attempt(&self, looked_up: Option<u32>) -> Result<(), Error> {
        match self.standing {
            Standing::Waiting => Ok(()),
            Standing::Uncertain if looked_up == Some(self.attempts) => Ok(()),
            Standing::Uncertain => Err(Error::Uncertain),
            Standing::Attempted => Err(Error::UnderWay),
            Standing::Dead => Err(Error::Dead),
            Standing::Done | Standing::Dropped => Err(Error::Settled),
        }
    }

    /// Whether an attempt is the last and nobody has said yet what became of
    /// it. An earlier one, or one that is settled, is no news.
    fn is_open(&self, attempt: u32) -> Result<bool, Error> {
        if attempt == 0 || attempt > self.attempts {
            return Err(Error::NotAttempted);
        }
        let open = matches!(self.standing, Standing::Attempted | Standing::Uncertain);
        Ok(open && attempt == self.attempts)
    }

    /// That a message is out is always news, whichever attempt it was.
    fn report_sent(&self, sent: Box<Sent>) -> Decision {
        if sent.attempt == 0 || sent.attempt > self.attempts {
            return Err(Error::NotAttempted);
        }
        if self.standing != Standing::Done {
            return Ok(vec![Event::Sent(sent)]);
        }
        match sent.message_id {
            Some(message_id) if self.message_id.as_ref() != Some(&message_id) => {
                Ok(vec![Event::Duplicated(Duplicated { message_id })])
            }
            _ => Ok(vec![]),
        }
    }

    fn report_bounced(&self, bounced: Bounced) -> Decision {
        let is_last = self.message_id.as_ref() == Some(&bounced.message_id);
        let news = is_last && self.standing == Standing::Done;
        Ok(when(news, Event::Bounced(bounced)))
    }
}

impl cqrs_es::Aggregate for Effect {
    const TYPE: &'static str = "effect";
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
        self.standing = match event {
            Event::Attempted(Attempted { attempt, .. }) => {
                self.attempts = attempt;
                Standing::Attempted
            }
            Event::Uncertain(_) => Standing::Uncertain,
            Event::Failed(Failed { remedy, .. }) => after(remedy),
            Event::Bounced(Bounced { remedy, .. }) => after(remedy),
            Event::Sent(sent) => {
                self.message_id = sent.message_id;
                Standing::Done
            }
            Event::Answered(_) => Standing::Done,
            Event::Duplicated(_) => self.standing,
            Event::Dropped(_) => Standing::Dropped,
            Event::Retried(_) => Standing::Waiting,
        };
    }
}

/// Where a refusal leaves an effect.
const fn after(remedy: Remedy) -> Standing {
    match remedy {
        Remedy::Retry | Remedy::Template => Standing::Waiting,
        Remedy::OptOut | Remedy::DeadLetter => Standing::Dead,
    }
}

fn when(news: bool, event: Event) -> Vec<Event> {
    if news { vec![event] } else { vec![] }
}
