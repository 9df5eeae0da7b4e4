//! What can happen to a group.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::PhoneNumber;

/// An event of a `group` stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    /// Somebody made it.
    #[serde(rename = "group.created")]
    Created(Created),
    /// Somebody changed its settings.
    #[serde(rename = "group.updated")]
    Updated(Updated),
    /// Clients joined it.
    #[serde(rename = "group.clients_added")]
    ClientsAdded(ClientsAdded),
}

impl Event {
    /// The event's name in the ledger.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "group.created",
            Self::Updated(_) => "group.updated",
            Self::ClientsAdded(_) => "group.clients_added",
        }
    }
}

impl cqrs_es::DomainEvent for Event {
    fn event_type(&self) -> String {
        self.name().to_owned()
    }

    fn event_version(&self) -> String {
        crate::event::version(self.name()).to_owned()
    }
}

/// Somebody made a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// Its number; as text, the stream's id.
    pub group_id: i32,
    /// Who made it: `user:7` or `service`.
    pub created_by: String,
    /// How it is set.
    #[serde(flatten)]
    pub settings: Settings,
}

/// Somebody changed a group's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Updated {
    /// Its number.
    pub group_id: i32,
    /// Who changed it: `user:7` or `service`.
    pub updated_by: String,
    /// How it is set now, what did not change included.
    #[serde(flatten)]
    pub settings: Settings,
}

/// How a group is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// The agent that calls its clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The provider's id of the number that they are called from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number_id: Option<String>,
    /// The country code of numbers that have none, such as `+57`.
    pub prefix: String,
    /// What the agent is told of the group.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
}

/// Clients joined a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientsAdded {
    /// The group.
    pub group_id: i32,
    /// Who joined, at most [`EVENT_CLIENTS_MAX`](super::EVENT_CLIENTS_MAX).
    /// Personal.
    pub clients: Vec<Client>,
}

/// A client of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// The number within the group, from 1 in the order of joining.
    pub id: i32,
    /// May be empty. Personal.
    #[serde(default)]
    pub name: String,
    /// Personal.
    pub phone_number: PhoneNumber,
    /// Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Where the client works. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empresa: Option<String>,
    /// As what. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cargo: Option<String>,
    /// What else the agent is told. Personal.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
}

impl Client {
    /// What the agent is told when the client is called: the group's
    /// variables, then the client's own, then name, email, empresa and cargo;
    /// of two by one name the later counts.
    pub fn dynamic_variables(&self, of_group: &Map<String, Value>) -> Map<String, Value> {
        let mut told = of_group.clone();
        told.extend(self.variables.clone());
        let known = [
            ("name", Some(&self.name).filter(|name| !name.is_empty())),
            ("email", self.email.as_ref()),
            ("empresa", self.empresa.as_ref()),
            ("cargo", self.cargo.as_ref()),
        ];
        let known = known.into_iter();
        told.extend(known.filter_map(|(key, value)| Some((key.to_owned(), value?.clone().into()))));
        told
    }
}
