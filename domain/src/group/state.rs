//! One group: what it does with a command, and what its events add up to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    CLIENTS_MAX, Client, ClientsAdded, Command, Created, EVENT_CLIENTS_MAX, Error, Event,
    NewClient, Patch, Settings, Updated,
};
use crate::PhoneNumber;

/// One group. Of its clients only the numbers are kept: no more is needed to
/// decide.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    group_id: i32,
    settings: Option<Settings>,
    phones: BTreeSet<PhoneNumber>,
}

impl Group {
    /// How it is set; `None` before it is made.
    pub const fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// Whether a client has this number.
    pub fn knows(&self, phone_number: &PhoneNumber) -> bool {
        self.phones.contains(phone_number)
    }

    /// What follows from a command. No event where the work is already done.
    ///
    /// # Errors
    /// [`Error`] when the command must not be carried out.
    pub fn decide(&self, command: Command) -> Result<Vec<Event>, Error> {
        match (command, &self.settings) {
            (
                Command::Create {
                    group_id,
                    created_by,
                    settings,
                },
                known,
            ) => {
                let settings = settings.checked()?;
                match known {
                    None => Ok(vec![Event::Created(Created {
                        group_id,
                        created_by,
                        settings,
                    })]),
                    Some(known) if *known == settings => Ok(vec![]),
                    Some(_) => Err(Error::AlreadyCreated),
                }
            }
            (_, None) => Err(Error::Unknown),
            (Command::Update { updated_by, patch }, Some(known)) => {
                self.update(updated_by, patch, known)
            }
            (Command::AddClients(clients), Some(_)) => self.add_clients(clients),
        }
    }

    fn update(
        &self,
        updated_by: String,
        patch: Patch,
        known: &Settings,
    ) -> Result<Vec<Event>, Error> {
        let settings = patch.applied_to(known).checked()?;
        if settings == *known {
            return Ok(vec![]);
        }
        Ok(vec![Event::Updated(Updated {
            group_id: self.group_id,
            updated_by,
            settings,
        })])
    }

    fn add_clients(&self, clients: Vec<NewClient>) -> Result<Vec<Event>, Error> {
        let mut seen = BTreeSet::new();
        let fresh: Vec<_> = clients
            .into_iter()
            .filter(|client| {
                !self.phones.contains(&client.phone_number)
                    && seen.insert(client.phone_number.clone())
            })
            .collect();
        if self.phones.len() + fresh.len() > CLIENTS_MAX {
            return Err(Error::TooManyClients);
        }
        // As many clients as numbers: both only grow, and together.
        let first = i32::try_from(self.phones.len()).map_err(|_| Error::TooManyClients)?;
        let mut numbered = (first + 1..).zip(fresh).map(|(id, new)| Client {
            id,
            name: new.name,
            phone_number: new.phone_number,
            email: new.email,
            empresa: new.empresa,
            cargo: new.cargo,
            variables: new.variables,
        });
        let mut events = Vec::new();
        loop {
            let clients: Vec<_> = numbered.by_ref().take(EVENT_CLIENTS_MAX).collect();
            if clients.is_empty() {
                return Ok(events);
            }
            events.push(Event::ClientsAdded(ClientsAdded {
                group_id: self.group_id,
                clients,
            }));
        }
    }
}

impl cqrs_es::Aggregate for Group {
    const TYPE: &'static str = "group";
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
            Event::Created(created) => {
                self.group_id = created.group_id;
                self.settings = Some(created.settings);
            }
            Event::Updated(updated) => self.settings = Some(updated.settings),
            Event::ClientsAdded(added) => {
                let phones = added.clients.into_iter().map(|client| client.phone_number);
                self.phones.extend(phones);
            }
        }
    }
}
