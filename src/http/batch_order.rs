//! Reads the body of an order of calls, naming everything that is wrong with
//! it.

use domain::PhoneNumber;
use domain::batch::{PhoneProvider, RECIPIENTS_MAX, Recipient};
use poem_openapi::Object;
use serde_json::{Map, Value};

use super::error::Failure;
use super::params::{NO_UNIX_TIME, UNIX_TIMES};

/// Longest name of a batch, and longest id of the provider.
const NAME_CHARS_MAX: usize = 200;
/// Faults that are named, at most.
const FAULTS_MAX: usize = 50;

/// Calls to order.
#[derive(Object)]
#[oai(example)]
pub struct SubmitBody {
    /// What the batch is called, 1 to 200 characters.
    call_name: String,
    /// The agent that speaks.
    agent_id: String,
    /// The provider's id of the number that calls.
    agent_phone_number_id: String,
    /// Whom to call, 1 to 10,000.
    recipients: Vec<RecipientBody>,
    /// When to begin, in Unix seconds; `null` is at once.
    scheduled_time_unix: Option<i64>,
    /// `twilio` or `sip_trunk`; `null` leaves it to the provider.
    phone_provider: Option<String>,
}

/// Somebody to call.
#[derive(Object)]
pub struct RecipientBody {
    /// In E.164.
    phone_number: String,
    /// What the agent is told: texts, numbers, true or false.
    dynamic_variables: Option<Value>,
}

impl poem_openapi::types::Example for SubmitBody {
    fn example() -> Self {
        Self {
            call_name: "Campaña Marketing Octubre".to_owned(),
            agent_id: "agent_123".to_owned(),
            agent_phone_number_id: "phnum_789".to_owned(),
            recipients: vec![RecipientBody {
                phone_number: "+573001234567".to_owned(),
                dynamic_variables: Some(serde_json::json!({"nombre": "Juan"})),
            }],
            scheduled_time_unix: None,
            phone_provider: Some("twilio".to_owned()),
        }
    }
}

/// An order that is well formed.
pub struct Order {
    /// What the batch is called.
    pub call_name: String,
    /// The agent that speaks.
    pub agent_id: String,
    /// The provider's id of the number that calls.
    pub agent_phone_number_id: String,
    /// Whom to call.
    pub recipients: Vec<Recipient>,
    /// When to begin.
    pub scheduled_time_unix: Option<i64>,
    /// Through whom.
    pub phone_provider: Option<PhoneProvider>,
}

/// Reads an order.
///
/// # Errors
/// 400 that names every field that is wrong, up to a limit.
pub fn read(body: &Value) -> Result<Order, Failure> {
    let Value::Object(fields) = body else {
        return Err(Failure::field("body", "must be a JSON object"));
    };
    let mut faults = Faults::default();
    let order = Order {
        call_name: faults.text(fields, "call_name"),
        agent_id: faults.id(fields, "agent_id"),
        agent_phone_number_id: faults.id(fields, "agent_phone_number_id"),
        recipients: faults.recipients(fields.get("recipients")),
        scheduled_time_unix: faults.time(fields.get("scheduled_time_unix")),
        phone_provider: faults.phone_provider(fields.get("phone_provider")),
    };
    if faults.0.is_empty() {
        return Ok(order);
    }
    faults.0.truncate(FAULTS_MAX);
    Err(Failure::fields(faults.0))
}

/// What is wrong, by field.
#[derive(Default)]
struct Faults(Vec<(String, String)>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push((field.into(), message.into()));
    }

    fn text(&mut self, fields: &Map<String, Value>, name: &str) -> String {
        match fields.get(name) {
            None | Some(Value::Null) => self.add(name, "is required"),
            Some(Value::String(text)) if text.trim().is_empty() => {
                self.add(name, "must not be empty");
            }
            Some(Value::String(text)) if text.chars().count() > NAME_CHARS_MAX => {
                self.add(
                    name,
                    format!("must have at most {NAME_CHARS_MAX} characters"),
                );
            }
            Some(Value::String(text)) if text.contains('\0') => {
                self.add(name, "must not hold the character NUL");
            }
            Some(Value::String(text)) => return text.trim().to_owned(),
            Some(_) => self.add(name, "must be a text"),
        }
        String::new()
    }

    fn id(&mut self, fields: &Map<String, Value>, name: &str) -> String {
        let id = self.text(fields, name);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if !id.chars().all(plain) {
            self.add(name, "must be an id of letters, digits, _ and -");
        }
        id
    }

    fn recipients(&mut self, given: Option<&Value>) -> Vec<Recipient> {
        let list = match given {
            None | Some(Value::Null) => {
                self.add("recipients", "is required");
                return Vec::new();
            }
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.add("recipients", "must be a list");
                return Vec::new();
            }
        };
        if !(1..=RECIPIENTS_MAX).contains(&list.len()) {
            let message = format!(
                "must have 1 to {RECIPIENTS_MAX} entries, not {}",
                list.len()
            );
            self.add("recipients", message);
            return Vec::new();
        }
        let mut recipients = Vec::with_capacity(list.len());
        for (n, entry) in list.iter().enumerate() {
            if self.0.len() > FAULTS_MAX {
                break;
            }
            recipients.extend(self.recipient(n, entry));
        }
        recipients
    }

    fn recipient(&mut self, n: usize, given: &Value) -> Option<Recipient> {
        let Value::Object(fields) = given else {
            self.add(format!("recipients[{n}]"), "must be an object");
            return None;
        };
        let field = format!("recipients[{n}].phone_number");
        let phone_number = match fields.get("phone_number") {
            None | Some(Value::Null) => {
                self.add(field, "is required");
                None
            }
            Some(Value::String(number)) => match PhoneNumber::parse(number.trim()) {
                Ok(number) => Some(number),
                Err(error) => {
                    self.add(field, error.to_string());
                    None
                }
            },
            Some(_) => {
                self.add(field, "must be a text");
                None
            }
        };
        let dynamic_variables = self.variables(n, fields.get("dynamic_variables"));
        Some(Recipient {
            phone_number: phone_number?,
            dynamic_variables,
            client_id: None,
        })
    }

    fn variables(&mut self, n: usize, given: Option<&Value>) -> Map<String, Value> {
        let field = format!("recipients[{n}].dynamic_variables");
        let variables = match given {
            None | Some(Value::Null) => return Map::new(),
            Some(Value::Object(variables)) => variables,
            Some(_) => {
                self.add(field, "must be an object");
                return Map::new();
            }
        };
        for (name, value) in variables {
            if value.is_array() || value.is_object() {
                self.add(
                    format!("{field}.{name}"),
                    "must be a text, a number, true or false",
                );
            }
            let has_nul = value.as_str().is_some_and(|text| text.contains('\0'));
            if has_nul || name.contains('\0') {
                self.add(field.clone(), "must not hold the character NUL");
            }
        }
        variables.clone()
    }

    fn time(&mut self, given: Option<&Value>) -> Option<i64> {
        let given = given.filter(|given| !given.is_null())?;
        let time = given.as_i64().filter(|time| UNIX_TIMES.contains(time));
        if time.is_none() {
            self.add("scheduled_time_unix", NO_UNIX_TIME);
        }
        time
    }

    fn phone_provider(&mut self, given: Option<&Value>) -> Option<PhoneProvider> {
        let given = given.filter(|given| !given.is_null())?;
        let provider = given.as_str().and_then(|word| word.parse().ok());
        if provider.is_none() {
            self.add("phone_provider", "must be twilio, sip_trunk or null");
        }
        provider
    }
}
