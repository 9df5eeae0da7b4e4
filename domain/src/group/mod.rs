//! Groups of clients that are called together.
//!
//! A client's number is unique within the group; adding somebody who is there
//! changes nothing. Clients come in events of at most [`EVENT_CLIENTS_MAX`],
//! so that no event grows with a document.

mod command;
mod event;
mod state;

#[cfg(test)]
mod tests;

pub use command::{Command, Error, NewClient, Patch};
pub use event::{Client, ClientsAdded, Created, Event, Settings, Updated};
pub use state::Group;

/// Most clients of one event.
pub const EVENT_CLIENTS_MAX: usize = 1_000;
/// Most clients of one group.
pub const CLIENTS_MAX: usize = 200_000;
/// Most characters of a group's name.
pub const NAME_CHARS_MAX: usize = 200;
/// The prefix of groups that name none: Colombia.
pub const PREFIX_DEFAULT: &str = "+57";
