//! Whether an agent greets: what the provider says of it, remembered for a
//! while, so that a session knows whether there is a greeting to wait for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::turn::is_blank;
use crate::providers::elevenlabs::client::Client;

/// How long what is known of an agent counts: others may change it too.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// Most agents that something is known of.
const AGENTS_MAX: usize = 256;

/// Which agents greet. Clones know the same.
#[derive(Clone, Default)]
pub(in super::super) struct Greeters(Arc<Mutex<HashMap<String, (bool, Instant)>>>);

impl Greeters {
    fn get(&self, agent_id: &str, now: Instant) -> Option<bool> {
        let known = self.lock().get(agent_id).copied();
        let (greets, since) = known?;
        (now.duration_since(since) < KNOWN_FOR).then_some(greets)
    }

    fn learn(&self, agent_id: &str, greets: bool, now: Instant) {
        let mut all = self.lock();
        all.retain(|_, (_, since)| now.duration_since(*since) < KNOWN_FOR);
        if all.len() >= AGENTS_MAX {
            all.clear();
        }
        all.insert(agent_id.to_owned(), (greets, now));
    }

    /// The agent has been changed.
    pub(in super::super) fn forget(&self, agent_id: &str) {
        self.lock().remove(agent_id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (bool, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Whether this agent greets; `None` where the provider does not say so in
    /// time.
    pub(super) async fn greets(&self, agent_id: &str, within: Duration) -> Option<bool> {
        if let Some(known) = self.greeters.get(agent_id, Instant::now()) {
            return Some(known);
        }
        let greets = match timeout(within, self.get_agent(agent_id)).await {
            Ok(Ok(agent)) => greets(&agent),
            Ok(Err(error)) => {
                tracing::warn!(agent_id, %error, "whether the agent greets is not known");
                None
            }
            Err(_) => None,
        };
        if let Some(greets) = greets {
            self.greeters.learn(agent_id, greets, Instant::now());
        }
        greets
    }
}

fn greets(agent: &Value) -> Option<bool> {
    let agent = agent["conversation_config"]["agent"].as_object()?;
    match agent.get("first_message") {
        None | Some(Value::Null) => Some(false),
        Some(Value::String(text)) => Some(!is_blank(text)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_greets_that_has_a_first_message() {
        let of = |agent: Value| greets(&json!({"conversation_config": {"agent": agent}}));
        assert_eq!(
            of(json!({"first_message": "Hola {{client_name}}"})),
            Some(true)
        );
        for none in [
            json!({}),
            json!({"first_message": null}),
            json!({"first_message": " "}),
        ] {
            assert_eq!(of(none.clone()), Some(false), "{none}");
        }
        for unknown in [json!(null), json!([]), json!({"first_message": 7})] {
            assert_eq!(of(unknown.clone()), None, "{unknown}");
        }
        assert_eq!(greets(&json!({})), None);
    }

    #[test]
    fn what_is_known_is_forgotten_and_limited() {
        let greeters = Greeters::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        greeters.clone().learn("a", true, now);
        greeters.learn("b", false, now);
        assert_eq!(greeters.get("a", now + KNOWN_FOR - second), Some(true));
        assert_eq!(greeters.get("a", now + KNOWN_FOR), None);
        assert_eq!(greeters.get("b", now), Some(false));
        greeters.forget("b");
        assert_eq!(greeters.get("b", now), None);
        for n in 0..=2 * AGENTS_MAX {
            greeters.learn(&n.to_string(), true, now);
        }
        assert!(greeters.lock().len() <= AGENTS_MAX);
    }
}
