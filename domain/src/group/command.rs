//! What may be asked of a group.

use serde_json::{Map, Value};

use super::{CLIENTS_MAX, NAME_CHARS_MAX, Settings};
use crate::PhoneNumber;

/// What may be asked of a group.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make it.
    Create {
        /// Its number; as text, the stream's id.
        group_id: i32,
        /// Who asks: `user:7` or `service`.
        created_by: String,
        /// How to set it.
        settings: Settings,
    },
    /// Change its settings.
    Update {
        /// Who asks: `user:7` or `service`.
        updated_by: String,
        /// What to change.
        patch: Patch,
    },
    /// Add clients. Those whose number is there already, or comes twice, are
    /// left out without a word; see [`Group::knows`](super::Group::knows).
    AddClients(Vec<NewClient>),
}

/// What to change of a group's settings: `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// The name.
    pub name: Option<String>,
    /// The agent; `Some(None)` takes it away.
    pub agent_id: Option<Option<String>>,
    /// Our number; `Some(None)` takes it away.
    pub phone_number_id: Option<Option<String>>,
    /// The country code. Clients that are there keep their numbers.
    pub prefix: Option<String>,
    /// The variables, all of them.
    pub variables: Option<Map<String, Value>>,
}

/// A client to add.
#[derive(Clone, Debug, PartialEq)]
pub struct NewClient {
    /// May be empty. Personal.
    pub name: String,
    /// Personal.
    pub phone_number: PhoneNumber,
    /// Personal.
    pub email: Option<String>,
    /// Where the client works. Personal.
    pub empresa: Option<String>,
    /// As what. Personal.
    pub cargo: Option<String>,
    /// What else the agent is told. Personal.
    pub variables: Map<String, Value>,
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such group.
    #[error("there is no such group")]
    Unknown,
    /// The number is taken.
    #[error("the group exists already")]
    AlreadyCreated,
    /// The name is empty or too long.
    #[error("must have 1 to {NAME_CHARS_MAX} characters")]
    InvalidName,
    /// The prefix is no country code.
    #[error("must be a country code such as +57")]
    InvalidPrefix,
    /// There would be too many clients.
    #[error("a group has at most {CLIENTS_MAX} clients")]
    TooManyClients,
}

impl Error {
    /// The field of the request that is wrong, where one is.
    pub const fn field(&self) -> Option<&'static str> {
        match self {
            Self::InvalidName => Some("name"),
            Self::InvalidPrefix => Some("prefix"),
            Self::TooManyClients => Some("clients"),
            Self::Unknown | Self::AlreadyCreated => None,
        }
    }
}

impl Patch {
    /// The settings with this changed.
    pub(super) fn applied_to(self, settings: &Settings) -> Settings {
        let known = settings.clone();
        Settings {
            name: self.name.unwrap_or(known.name),
            agent_id: self.agent_id.unwrap_or(known.agent_id),
            phone_number_id: self.phone_number_id.unwrap_or(known.phone_number_id),
            prefix: self.prefix.unwrap_or(known.prefix),
            variables: self.variables.unwrap_or(known.variables),
        }
    }
}

impl Settings {
    /// The settings as they are kept: trimmed, the prefix with its `+`.
    ///
    /// # Errors
    /// [`Error`] when the name or the prefix is wrong.
    pub fn checked(self) -> Result<Self, Error> {
        let name = self.name.trim();
        if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
            return Err(Error::InvalidName);
        }
        let code = self.prefix.trim().trim_start_matches('+');
        let plausible = (1..=3).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_digit())
            && !code.starts_with('0');
        if !plausible {
            return Err(Error::InvalidPrefix);
        }
        let given = |id: Option<String>| id.filter(|id| !id.trim().is_empty());
        Ok(Self {
            name: name.to_owned(),
            prefix: format!("+{code}"),
            agent_id: given(self.agent_id),
            phone_number_id: given(self.phone_number_id),
            variables: self.variables,
        })
    }
}
