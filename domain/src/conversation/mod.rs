//! Conversations: what we write to a client by WhatsApp, and who does it, the
//! agent or a person.
//!
//! One stream is one client's number. What the client writes is a fact of the
//! provider's (`message.received`); what is here was decided by us: that a
//! call goes on by WhatsApp, that a person takes over, what the person writes.
//! What follows from both (an answer is owed, a message is owed) is the policy
//! of the projection `effects`.

mod consent;
mod event;
mod said;
mod state;

#[cfg(test)]
mod tests;

pub use consent::Consent;
pub use event::{Call, Changed, Event, FirstMessage, MessageWritten, Started, Template};
pub use said::said;
pub use state::{Command, Conversation, Error};

use crate::words::vocabulary;
use crate::{Channel, PhoneIndex, PhoneNumber, sealed};

vocabulary! {
    /// Who speaks for us.
    Status {
        /// The agent answers.
        Active = "active",
        /// A person has taken over, the agent is silent.
        Escalated = "escalated",
        /// Nobody, until the client writes again.
        Closed = "closed",
    }
}

impl Status {
    /// Who speaks once the client has written: what was closed is open again.
    pub const fn after_message(self) -> Self {
        match self {
            Self::Closed => Self::Active,
            status => status,
        }
    }

    /// Who speaks after a decision. A person who has taken over stays until
    /// the agent is told to go on, even when another call was made.
    pub const fn after(self, event: &Event) -> Self {
        match event {
            Event::Started(_) => self.after_message(),
            Event::Resumed(_) => Self::Active,
            Event::Escalated(_) => Self::Escalated,
            Event::Closed(_) => Self::Closed,
            Event::MessageWritten(_) => self,
        }
    }
}

/// Why nothing more is said in a conversation as things stand; `None` where
/// it may be. `by_agent`: the agent would speak, and no person or program.
pub const fn silenced(status: Status, opted_out: bool, by_agent: bool) -> Option<&'static str> {
    match status {
        _ if opted_out => Some("the client wants to hear no more"),
        Status::Escalated if by_agent => Some("a person has taken over"),
        Status::Closed if by_agent => Some("the conversation was closed"),
        _ => None,
    }
}

/// Most UTF-16 units of one message, Twilio's limit (`Body`).
pub const MESSAGE_UNITS_MAX: usize = 1_600;
/// Most parts of one answer: an agent that says more is cut short.
pub const PARTS_MAX: usize = 10;

/// How the id of a conversation begins; the rest is the key of the number.
pub const ID_PREFIX: &str = "conv_local_";

/// The id of the conversation with a number: free of personal data.
pub fn id(contact: &str, index: &PhoneIndex) -> String {
    format!("{ID_PREFIX}{}", index.key(contact))
}

/// Words as providers' copies of them are known again: blanks do not matter.
pub fn normalised(content: &str) -> String {
    let words: Vec<_> = content.split_whitespace().collect();
    words.join(" ")
}

/// The conversation that a message belongs to: WhatsApp's, with a person's
/// number only, and not with a group or a broadcast. A person who was erased
/// still has theirs.
pub fn of(channel: Channel, contact: &str, index: &PhoneIndex) -> Option<String> {
    let is_person = PhoneNumber::parse(contact).is_ok() || sealed::key_of_erased(contact).is_some();
    (is_person && channel == Channel::Whatsapp).then(|| id(contact, index))
}

/// A text in parts that each fit one message, cut between paragraphs, lines,
/// sentences or words where there are any. Nothing but blanks at the cuts is
/// left out; empty for an empty text.
pub fn parts(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && parts.len() < PARTS_MAX {
        let fitting = fitting(rest);
        let cut = if fitting == rest.len() {
            fitting
        } else {
            best_cut(&rest[..fitting])
        };
        parts.push(rest[..cut].trim_end().to_owned());
        rest = rest[cut..].trim_start();
    }
    parts
}

/// How many bytes of a text fit one message.
fn fitting(text: &str) -> usize {
    let mut units = 0;
    for (at, c) in text.char_indices() {
        units += c.len_utf16();
        if units > MESSAGE_UNITS_MAX {
            return at;
        }
    }
    text.len()
}

/// Where to cut: after the last of the best separators in the second half.
fn best_cut(head: &str) -> usize {
    let enough = head.len() / 2;
    let separators = ["\n\n", "\n", ". ", " "];
    let mut cuts = separators.iter().filter_map(|separator| {
        let at = head.rfind(separator)? + separator.len();
        (at > enough).then_some(at)
    });
    cuts.next().unwrap_or(head.len())
}
