//! Personal data under the keys of the persons whom it is about.
//!
//! Bodies of deliveries and the personal fields of events are encrypted before
//! they are stored; who destroys a person's keys has erased the person, and no
//! row of the ledger changes. Pure: keys and randomness are passed in.
//! docs/adr/0020.

mod body;
mod key;
mod packing;
mod payload;

pub use body::{body_key_id, open_body, seal_body};
pub use key::{MasterKeys, SubjectKey, WrongMasterKey};
pub use payload::{key_ids, open_payload, seal_payload};

/// What erased words read as.
pub const ERASED_WORDS: &str = "[erased]";
/// What an erased address reads as.
const ERASED_ADDRESS: &str = "erased";

/// Whether an address is one that was erased.
pub fn is_erased(address: &str) -> bool {
    let rest = address.strip_prefix(ERASED_ADDRESS);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Digits of an address's key.
const KEY_DIGITS: usize = 32;

/// The key of the address that this one was, if it still has one.
pub(crate) fn key_of_erased(address: &str) -> Option<&str> {
    let rest = address.strip_prefix(ERASED_ADDRESS)?;
    let key = rest.strip_prefix('-')?;
    (key.len() == KEY_DIGITS && key.bytes().all(|b| b.is_ascii_hexdigit())).then_some(key)
}

/// Whose data something is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The person with an address, by its key.
    Person(String),
    /// What no address is known of: a stream, as `type/id`.
    Stream(String),
    /// A delivery of which nothing is known, by what makes another the same.
    Delivery(crate::fact::DedupKey),
    /// Whoever sent what was not authentic.
    Unverified,
}

impl Subject {
    /// As it is written in the table of keys.
    pub fn name(&self) -> String {
        match self {
            Self::Person(key) => format!("person:{key}"),
            Self::Stream(stream) => format!("stream:{stream}"),
            Self::Delivery(key) => format!("delivery:{}", hex::encode(key.0)),
            Self::Unverified => "unverified".to_owned(),
        }
    }
}
