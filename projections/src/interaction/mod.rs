//! What an interaction is: the fold of events into the rows of its tables.
//!
//! [`Tables::fold`] is pure and knows no database. Webhooks come late, twice
//! and out of order, so what it does may depend on the order of events only
//! where the order is the meaning: positions, and the first of two claims.
//! Everywhere else it keeps the greatest, the least, or the latest by the
//! provider's time.

mod call;
mod identity;
mod message;
mod store;

use std::collections::BTreeMap;

use domain::event::Recorded;
use domain::{Event, call as calls};

pub(crate) use call::Sources;
pub(crate) use store::{load, save};

use crate::call_details::CallDetail;
use crate::interaction_events::{self, Place};
use crate::interactions::{Detail, Interaction};
use crate::messages::{self, Message};

/// The events that say something of an interaction.
pub(crate) const EVENT_TYPES: &[&str] = &[
    "call.completed",
    "call.audio_received",
    "call.initiation_failed",
    "call.progressed",
    "message.received",
    "message.sent",
    "message.status_changed",
    "effect.sent",
    "effect.duplicated",
    "otp.requested",
    "otp.attempted",
    "otp.verified",
];

/// Rows of the tables, in memory: those that some events touch, as they were
/// and then as they are.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tables {
    pub(crate) interactions: BTreeMap<String, Interaction>,
    pub(crate) calls: BTreeMap<String, CallDetail>,
    pub(crate) messages: BTreeMap<(String, String), Message>,
    /// The telephone leg, or the text message, that is another interaction's,
    /// and which.
    pub(crate) aliases: BTreeMap<String, String>,
    /// New rows only: an event is folded once and never changes.
    pub(crate) events: Vec<Place>,
    /// Interactions that turned out to be part of another, and which. Their
    /// rows are gone from here and their older events must follow.
    pub(crate) absorbed: BTreeMap<String, String>,
}

impl Tables {
    /// What an event does to the rows. Events must come in their order.
    pub(crate) fn fold(&mut self, recorded: &Recorded) {
        let Some(id) = identity::of(recorded) else {
            return;
        };
        let id = match &recorded.event {
            Event::Call(event) => self.fold_call(id, recorded, event),
            _ => self.fold_told(id, recorded),
        };
        self.events.push(Place::of(&id, recorded));
    }

    /// What there is under an id, or under a name that stands for one; and the
    /// positions of the newest of its events, which it is without.
    pub(crate) fn into_detail(mut self, id: &str) -> Option<(Detail, Vec<i64>)> {
        let id = match self.interactions.contains_key(id) {
            true => id,
            false => self.aliases.get(id)?,
        };
        let interaction = self.interactions.remove(id)?;
        let call = self.calls.remove(id);
        let mut messages: Vec<_> = self.messages.into_values().collect();
        messages.retain(|message| message.interaction_id == id);
        messages.sort_by_key(|message| (message.created_at, message.first_position));
        let events = self.events.iter();
        let events = events.filter(|event| event.interaction_id == id);
        let positions = events.map(|event| event.position).collect();
        let messages = newest(messages, messages::MESSAGES_MAX);
        let detail = Detail::new(interaction, call, messages, vec![]);
        Some((detail, newest(positions, interaction_events::EVENTS_MAX)))
    }

    /// Gives the interaction that the event belongs to.
    fn fold_call(&mut self, id: String, recorded: &Recorded, event: &calls::Event) -> String {
        let id = match event {
            // Only the leg's own callbacks follow an alias: a session that a
            // provider reports is an interaction, whatever others call it.
            calls::Event::Progressed(_) => self.aliases.get(&id).cloned().unwrap_or(id),
            _ => id,
        };
        if let Some(leg) = identity::claimed_leg(event) {
            self.claim(leg, &id);
        }
        let call = match self.calls.remove(&id) {
            Some(call) => call.and(recorded, event),
            None => CallDetail::begin(&id, recorded, event),
        };
        self.interactions.insert(id.clone(), call.interaction());
        self.calls.insert(id.clone(), call);
        id
    }

    /// A session says that a telephone leg is its own. The first to say so is
    /// believed; what the leg had gathered by itself becomes the session's.
    fn claim(&mut self, leg: String, id: &str) {
        let is_session = |call: &CallDetail| call.sources.is_session();
        if leg == id
            || self.aliases.contains_key(&leg)
            || self.calls.get(&leg).is_some_and(is_session)
        {
            return;
        }
        if let Some(alone) = self.calls.remove(&leg) {
            self.interactions.remove(&leg);
            let merged = match self.calls.remove(id) {
                Some(call) => call.absorb(alone),
                None => alone.renamed(id),
            };
            self.calls.insert(id.to_owned(), merged);
            self.rename_events(&leg, id);
            self.absorbed.insert(leg.clone(), id.to_owned());
        }
        self.aliases.insert(leg, id.to_owned());
    }

    /// The new events of one interaction become another's.
    fn rename_events(&mut self, from: &str, to: &str) {
        for event in &mut self.events {
            if event.interaction_id == from {
                to.clone_into(&mut event.interaction_id);
            }
        }
    }
}

/// The last so many.
fn newest<T>(mut rows: Vec<T>, most: usize) -> Vec<T> {
    rows.drain(..rows.len().saturating_sub(most));
    rows
}

#[cfg(test)]
mod tests;
