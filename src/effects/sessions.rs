//! The agent's sessions that this process keeps open, one a conversation.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::providers::elevenlabs::client::text::Session;

/// A session, and how far it knows the conversation.
pub struct Kept {
    /// The session.
    pub(super) session: Session,
    /// With which agent.
    pub(super) agent_id: String,
    /// The turns that it answered.
    pub(super) turns: HashSet<String>,
    /// The position up to which it knows what was written.
    pub(super) known: i64,
}

/// Sessions that nobody uses at the moment, by conversation. A provider's plan
/// allows so many at once, so they are few and the least used give way.
pub struct Sessions {
    most: usize,
    kept: Mutex<HashMap<String, (Kept, Instant)>>,
}

impl Sessions {
    /// For so many at most.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            kept: Mutex::default(),
        }
    }

    /// Takes a conversation's session, if it is open and with this agent.
    pub(super) fn take(&self, lane: &str, agent_id: &str) -> Option<Kept> {
        let (kept, _) = self.lock().remove(lane)?;
        (kept.session.is_open() && kept.agent_id == agent_id).then_some(kept)
    }

    /// Keeps a session for the next turn.
    pub(super) fn keep(&self, lane: &str, kept: Kept) {
        let mut all = self.lock();
        all.insert(lane.to_owned(), (kept, Instant::now()));
        while all.len() > self.most {
            let used = all.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = used.map(|(lane, _)| lane.clone()) else {
                break;
            };
            all.remove(&oldest);
        }
    }

    /// Lets go of all of them: the provider has no room for another.
    pub(super) fn let_go(&self) {
        self.lock().clear();
    }

    /// Lets go of those that nobody has used for so long, or that are closed.
    pub fn sweep(&self, idle: Duration) {
        self.lock()
            .retain(|_, (kept, used)| kept.session.is_open() && used.elapsed() < idle);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Kept, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
