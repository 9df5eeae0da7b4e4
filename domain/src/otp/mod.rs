//! One-time codes: a person is sent one, and has so many guesses and so much
//! time to give it back.
//!
//! A challenge never knows its code, which follows from the challenge's id and
//! the server's secret. A guess is counted by an event of its own before it is
//! looked at; the stream's sequence sees to it that no two guesses are counted
//! as one.

mod command;
mod event;
mod state;

#[cfg(test)]
mod tests;

pub use command::{Command, Error};
pub use event::{Attempted, Event, Requested, Verified};
pub use state::Challenge;

use crate::words::vocabulary;

vocabulary! {
    /// How a challenge stands. That its time is over is for whoever reads to
    /// tell, by `expires_at`.
    Status {
        /// The code is to be sent.
        Requested = "requested",
        /// The provider has it.
        Sent = "sent",
        /// The telephone has it.
        Delivered = "delivered",
        /// It could not be sent, or not be delivered.
        Failed = "failed",
        /// It was given back.
        Verified = "verified",
        /// There is no guess left.
        Exhausted = "exhausted",
    }
}

/// The id of a challenge, which is also that of its interaction.
pub fn id(id: uuid::Uuid) -> String {
    format!("otp_{id}")
}
