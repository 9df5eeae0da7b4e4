//! What goes in and out: groups and their clients.

use domain::group::NewClient;
use domain::phone::{PhoneNumber, mask, mask_in, mask_json};
use poem_openapi::Object;
use poem_openapi::types::{Example, MaybeUndefined};
use serde::Deserialize;
use serde_json::{Value, json};

use super::variables;
use crate::http::time::Time;
use crate::import::Rejected;

/// Longest text of one field of a client.
const FIELD_CHARS_MAX: usize = 2_000;

/// A group to make.
#[derive(Deserialize, Object)]
#[oai(rename = "NewGroup", example)]
pub struct NewGroupBody {
    /// 1 to 200 characters.
    pub name: String,
    /// The agent that calls its clients. A group without one is called by the user's.
    #[oai(rename = "agentId")]
    #[serde(rename = "agentId")]
    pub agent_id: Option<String>,
    /// The provider's id of the number that they are called from.
    #[oai(rename = "phoneNumberId")]
    #[serde(rename = "phoneNumberId")]
    pub phone_number_id: Option<String>,
    /// The country code of numbers that have none; `+57` if not given.
    pub prefix: Option<String>,
    /// What the agent is told of the group.
    pub variables: Option<Value>,
    /// A document of clients in base64.
    pub base64: Option<String>,
    /// The document's name. Its kind is told by its content.
    pub document_name: Option<String>,
}

impl Example for NewGroupBody {
    fn example() -> Self {
        Self {
            name: "Médicos Test".to_owned(),
            agent_id: Some("agent_1601k8xw7yc5ex893rd7qj9ybppn".to_owned()),
            phone_number_id: None,
            prefix: Some("+57".to_owned()),
            variables: Some(json!({"ciudad": "Barranquilla"})),
            base64: Some("bm9tYnJlLGNlbHVsYXIKRHIuIEdhcmPDrWEsMzAwIDEyMyA0NTY3Cg==".to_owned()),
            document_name: Some("clientes.csv".to_owned()),
        }
    }
}

/// What to change of a group.
#[derive(Deserialize, Object)]
#[oai(rename = "GroupPatch", example)]
pub struct GroupPatchBody {
    /// 1 to 200 characters.
    #[serde(default)]
    pub name: MaybeUndefined<String>,
    /// The agent that calls its clients.
    #[oai(rename = "agentId")]
    #[serde(default, rename = "agentId")]
    pub agent_id: MaybeUndefined<String>,
    /// The provider's id of the number that they are called from.
    #[oai(rename = "phoneNumberId")]
    #[serde(default, rename = "phoneNumberId")]
    pub phone_number_id: MaybeUndefined<String>,
    /// The country code of numbers that have none.
    pub prefix: Option<String>,
    /// What the agent is told of the group, all of it.
    pub variables: Option<Value>,
}

impl Example for GroupPatchBody {
    fn example() -> Self {
        Self {
            name: MaybeUndefined::Value("Médicos Bogotá".to_owned()),
            agent_id: MaybeUndefined::Undefined,
            phone_number_id: MaybeUndefined::Undefined,
            prefix: Some("+57".to_owned()),
            variables: None,
        }
    }
}

/// Clients to add.
#[derive(Deserialize, Object)]
#[oai(rename = "NewClients", example)]
pub struct NewClientsBody {
    /// At least one.
    pub clients: Vec<NewClientBody>,
}

impl Example for NewClientsBody {
    fn example() -> Self {
        let client = NewClientBody {
            name: Some("Dr. García".to_owned()),
            phone: "300 123 4567".to_owned(),
            email: Some("garcia@example.com".to_owned()),
            empresa: None,
            cargo: Some("Médico".to_owned()),
            variables: Some(serde_json::json!({"ciudad": "Bogotá"})),
        };
        Self {
            clients: vec![client],
        }
    }
}

/// A client to add.
#[derive(Deserialize, Object)]
#[oai(rename = "NewClient")]
pub struct NewClientBody {
    /// Full name.
    pub name: Option<String>,
    /// As people write it; without a country code it gets the group's prefix.
    pub phone: String,
    /// E-mail address.
    pub email: Option<String>,
    /// Where the client works.
    pub empresa: Option<String>,
    /// As what.
    pub cargo: Option<String>,
    /// What else the agent is told.
    pub variables: Option<Value>,
}

impl NewClientBody {
    /// The client, or why it cannot be added.
    pub fn read(self, prefix: &str) -> Result<NewClient, String> {
        let text = |given: Option<String>| {
            let given = given.unwrap_or_default().replace('\0', "");
            match given.trim() {
                it if it.chars().count() > FIELD_CHARS_MAX => {
                    Err("un campo tiene más de 2.000 caracteres".to_owned())
                }
                it => Ok(Some(it.to_owned()).filter(|it| !str::is_empty(it))),
            }
        };
        let phone = self.phone.trim();
        if str::is_empty(phone) {
            return Err("falta el teléfono".to_owned());
        }
        Ok(NewClient {
            name: text(self.name)?.unwrap_or_default(),
            phone_number: PhoneNumber::national(phone, prefix)
                .map_err(|_| "el teléfono no es un número válido".to_owned())?,
            email: text(self.email)?,
            empresa: text(self.empresa)?,
            cargo: text(self.cargo)?,
            variables: variables("variables", self.variables)
                .map_err(|_| "las variables no son textos, números o valores de verdad")?,
        })
    }
}

/// A group.
#[derive(Debug, Object)]
#[oai(rename = "Group", rename_all = "camelCase")]
pub struct GroupView {
    /// Its number.
    pub id: i32,
    /// Its name.
    name: String,
    /// The agent that calls its clients.
    agent_id: Option<String>,
    /// The provider's id of the number that they are called from.
    phone_number_id: Option<String>,
    /// The country code of numbers that have none.
    prefix: String,
    /// What the agent is told of the group.
    variables: Value,
    /// How many clients it has.
    clients_count: i32,
    /// Who made it: `user:7` or `service`.
    created_by: String,
    /// When.
    created_at: Time,
    /// When its settings or clients last changed.
    updated_at: Time,
}

impl From<projections::groups::Group> for GroupView {
    fn from(group: projections::groups::Group) -> Self {
        Self {
            id: group.id,
            name: group.name,
            agent_id: group.agent_id,
            phone_number_id: group.phone_number_id,
            prefix: group.prefix,
            variables: Value::Object(group.variables),
            clients_count: group.clients_count,
            created_by: group.created_by,
            created_at: group.created_at.into(),
            updated_at: group.updated_at.into(),
        }
    }
}

/// A group that was made.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct CreatedGroup {
    /// The group.
    #[oai(flatten)]
    pub group: GroupView,
    /// The rows of the document that could not be used.
    pub rejected: Vec<RejectedRow>,
}

/// Clients that were added.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct AddedClients {
    /// How many are new.
    pub added: i32,
    /// How many the group has now.
    pub clients_count: i32,
    /// Those that could not be added.
    pub rejected: Vec<RejectedRow>,
}

/// A row that could not be used.
#[derive(Debug, Object)]
pub struct RejectedRow {
    /// As a spreadsheet numbers its rows; in a list of clients, the place from 1.
    pub row: usize,
    /// Why, in Spanish.
    pub reason: String,
}

impl From<Rejected> for RejectedRow {
    fn from(rejected: Rejected) -> Self {
        Self {
            row: rejected.row,
            reason: rejected.reason,
        }
    }
}

/// A client of a group.
#[derive(Debug, Object)]
#[oai(rename = "GroupClient", rename_all = "camelCase")]
pub struct ClientView {
    /// The number within the group.
    id: i32,
    /// Full name.
    name: String,
    /// The number, masked unless revealed.
    phone: String,
    /// E-mail address.
    email: Option<String>,
    /// Where the client works.
    empresa: Option<String>,
    /// As what.
    cargo: Option<String>,
    /// What else the agent is told.
    variables: Value,
    /// When the client joined.
    created_at: Time,
}

impl ClientView {
    /// A client, its number masked wherever it stands.
    pub fn new(row: projections::groups::GroupClient, masked: bool) -> Self {
        let hide = |text: String| match masked {
            true => mask_in(&text, &row.phone_number),
            false => text,
        };
        let variables = Value::Object(row.variables);
        Self {
            id: row.id,
            name: hide(row.name),
            email: row.email.map(hide),
            empresa: row.empresa.map(hide),
            cargo: row.cargo.map(hide),
            variables: match masked {
                true => mask_json(&variables, &row.phone_number),
                false => variables,
            },
            created_at: row.created_at.into(),
            phone: match masked {
                true => mask(&row.phone_number),
                false => row.phone_number,
            },
        }
    }
}
