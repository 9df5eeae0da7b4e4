//! WhatsApp and SMS messages, as their providers report them.

mod event;
mod status;

pub use event::{Button, Event, Kind, Location, Media, Received, Sent, StatusChanged};
pub use status::Status;
