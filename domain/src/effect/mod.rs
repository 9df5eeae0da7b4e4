//! Effects: what we owe the outside, and what became of each attempt to
//! settle it.
//!
//! An effect is one debt: one message to send, one turn of the voice agent to
//! ask for. What is owed follows from the ledger by a policy (a fold, see the
//! projection `effects`); its stream here says what was done about it. The
//! stream, and no lease, is what keeps an effect from happening twice: an
//! attempt is on the ledger before it is made, and an attempt of which nobody
//! knows whether it arrived is *uncertain* until it was looked up.

mod command;
mod event;
mod state;

#[cfg(test)]
mod tests;

pub use command::{Command, Error};
pub use event::{
    Answered, Attempted, Bounced, Dropped, Duplicated, Event, Failed, Part, Retried, Sent,
    Uncertain,
};
pub use state::{Effect, Standing};

use crate::words::vocabulary;

vocabulary! {
    /// What is owed.
    Kind {
        /// A message to a client.
        Message = "message",
        /// The agent's answer to what a client wrote.
        Turn = "turn",
        /// A one-time code to a client.
        Code = "code",
    }
}

vocabulary! {
    /// What a refusal leads to.
    Remedy {
        /// The same again, later.
        Retry = "retry",
        /// The same person by an approved template: free text is not allowed.
        Template = "template",
        /// Nothing more to this person: they do not want it.
        OptOut = "opt_out",
        /// Nothing more until a person has looked at it.
        DeadLetter = "dead_letter",
    }
}

/// The id of the turn that answers the message at a position.
pub fn turn_id(position: i64) -> String {
    format!("turn_{position}")
}

/// The position of the message that a turn answers; `None` of any other effect.
pub fn turn_position(id: &str) -> Option<i64> {
    let position = id.strip_prefix("turn_")?.parse().ok()?;
    (turn_id(position) == id).then_some(position)
}

/// The id of a part, from 1, of the answer that a turn gave.
pub fn part_id(turn_id: &str, part: usize) -> String {
    format!("{turn_id}.{part}")
}

/// The turn whose answer a message is a part of; `None` of any other effect.
pub fn turn_of_part(part_id: &str) -> Option<&str> {
    let (turn, part) = part_id.rsplit_once('.')?;
    let is_one = turn_position(turn).is_some() && part.parse::<usize>().is_ok();
    is_one.then_some(turn)
}

/// The id of the message that follows a completed call: one a recipient,
/// however often and under whatever number the call is reported.
pub fn first_message_id(recipient_id: &str) -> String {
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, recipient_id.as_bytes());
    format!("first_{id}")
}

/// The id of a message that a person writes.
pub fn written_id(id: uuid::Uuid) -> String {
    format!("written_{id}")
}

/// The id of the text message that brings a one-time code.
pub fn code_id(challenge_id: &str) -> String {
    format!("code_{challenge_id}")
}

/// The challenge whose code an effect sends; `None` of any other effect.
pub fn challenge_of(effect_id: &str) -> Option<&str> {
    effect_id.strip_prefix("code_")
}
