//! One conversation: what it does with a command, and what its events add up
//! to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Changed, Event, MESSAGE_UNITS_MAX, MessageWritten, Started};

/// What may be asked of a conversation.
#[derive(Clone, Debug)]
pub enum Command {
    /// Go on by WhatsApp after a call; done already for a known recipient.
    Start(Box<Started>),
    /// Let a person take over.
    Escalate(Changed),
    /// Let the agent go on.
    Resume(Changed),
    /// End it.
    Close(Changed),
    /// Write to the client; done already for a known effect.
    Write(MessageWritten),
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has no words, or too many for one message.
    #[error("must have 1 to {MESSAGE_UNITS_MAX} characters")]
    InvalidContent,
}

/// One conversation: only what is needed to decide. Who speaks is not: a
/// client who writes again reopens what was closed, and that is no decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    recipients: BTreeSet<String>,
    written: BTreeSet<String>,
}

impl Conversation {
    /// What follows from a command. No event where the work is already done.
    ///
    /// # Errors
    /// [`Error`] when the command must not be carried out.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        Ok(match command {
            Command::Start(started) if self.recipients.contains(&started.call.recipient_id) => {
                vec![]
            }
            Command::Start(started) => vec![Event::Started(started)],
            Command::Escalate(changed) => vec![Event::Escalated(changed)],
            Command::Resume(changed) => vec![Event::Resumed(changed)],
            Command::Close(changed) => vec![Event::Closed(changed)],
            Command::Write(written) if self.written.contains(&written.effect_id) => vec![],
            Command::Write(written) => {
                let units = written.content.encode_utf16().count();
                if written.content.trim().is_empty() || units > MESSAGE_UNITS_MAX {
                    return Err(Error::InvalidContent);
                }
                vec![Event::MessageWritten(written)]
            }
        })
    }
}

impl cqrs_es::Aggregate for Conversation {
    const TYPE: &'static str = "conversation";
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
            Event::Started(started) => {
                self.recipients.insert(started.call.recipient_id);
            }
            Event::MessageWritten(written) => {
                self.written.insert(written.effect_id);
            }
            Event::Escalated(_) | Event::Resumed(_) | Event::Closed(_) => {}
        }
    }
}
