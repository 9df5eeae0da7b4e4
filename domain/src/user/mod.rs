//! People who work with Bitácora.
//!
//! A password never comes near an event: credentials live in a table of their
//! own, which is not part of the ledger.

use serde::{Deserialize, Serialize};

use crate::words::vocabulary;

vocabulary! {
    /// What a person may do. `agent < supervisor < admin`; an `auditor` reads
    /// everything and changes nothing.
    Role {
        /// Works with clients.
        Agent = "agent",
        /// Watches over agents, and may see whole phone numbers.
        Supervisor = "supervisor",
        /// Changes how things run.
        Admin = "admin",
        /// Reads everything, changes nothing.
        Auditor = "auditor",
    }
}

/// An event of a `user` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// A person was given access.
    #[serde(rename = "user.registered")]
    Registered(Registered),
}

impl cqrs_es::DomainEvent for Event {
    fn event_type(&self) -> String {
        "user.registered".to_owned()
    }

    fn event_version(&self) -> String {
        crate::event::version("user.registered").to_owned()
    }
}

/// A person was given access.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// The person's number here.
    pub user_id: i32,
    /// Personal.
    pub name: String,
    /// In lower case. Personal.
    pub email: String,
    /// What the person may do.
    pub role: Role,
    /// The voice agent that calls in the person's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
}

/// What may be asked of a user.
#[derive(Clone, Debug)]
pub enum Command {
    /// Give a person access.
    Register(Registered),
}

/// Why it was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The person is there, and is not the same.
    #[error("a user with this e-mail address exists already")]
    AlreadyRegistered,
}

/// One person.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    registered: Option<Registered>,
}

impl User {
    /// What follows from a command. No event where the work is already done.
    ///
    /// # Errors
    /// [`Error`] when the command must not be carried out.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        let Command::Register(new) = command;
        match &self.registered {
            None => Ok(vec![Event::Registered(new)]),
            Some(known) if *known == new => Ok(vec![]),
            Some(_) => Err(Error::AlreadyRegistered),
        }
    }
}

impl cqrs_es::Aggregate for User {
    const TYPE: &'static str = "user";
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
        let Event::Registered(registered) = event;
        self.registered = Some(registered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cqrs_es::Aggregate;

    fn ana() -> Registered {
        Registered {
            user_id: 1,
            name: "Ana".into(),
            email: "ana@example.com".into(),
            role: Role::Admin,
            agent_id: None,
        }
    }

    #[test]
    fn registering_twice_the_same_is_done_already() {
        let mut user = User::default();
        let events = user.decide(Command::Register(ana())).unwrap();
        for event in events {
            user.apply(event);
        }
        assert_eq!(user.decide(Command::Register(ana())), Ok(vec![]));
        let other = Registered {
            name: "Eva".into(),
            ..ana()
        };
        assert_eq!(
            user.decide(Command::Register(other)),
            Err(Error::AlreadyRegistered)
        );
    }
}
