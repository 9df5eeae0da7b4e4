//! Telephone calls, as their providers report them.

mod event;

pub use event::{
    AudioReceived, Completed, Event, InitiationFailed, Medium, Outcome, Progressed, Turn,
};
