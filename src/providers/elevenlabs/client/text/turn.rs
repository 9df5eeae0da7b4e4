//! One turn: what the agent says to one message, and when it has finished.
//!
//! Nothing that the provider sends by default marks the end of a turn, so it
//! is taken to be over when the agent has said something and then nothing for
//! a short time. Where the agent's `client_events` let us see more, we wait as
//! it tells: while it speaks (`agent_chat_response_part`), types
//! (`agent_typing`) or uses a tool (`agent_tool_request`,
//! `agent_tool_response`) there is more to come, and after `context_usage`
//! there is not.

use tokio::time::Instant;

use super::Timing;
use super::frames::Part;

/// Most times that an agent is heard in one turn.
const SAID_MAX: usize = 16;

/// A turn under way.
pub(super) struct Turn {
    timing: Timing,
    /// No answer is waited for longer.
    until: Instant,
    /// When the agent last gave a sign of life.
    last: Instant,
    /// Whether it uses a tool, and has said nothing since.
    works: bool,
    /// Whether it types, and has said nothing since.
    types: bool,
    stream: Stream,
    /// Whether what comes first may be a greeting, and an answer come after it.
    doubtful: bool,
    said: Vec<Said>,
}

/// What the agent streams.
#[derive(Clone, Copy, PartialEq)]
enum Stream {
    /// Nothing, or it has stopped.
    Closed,
    /// Something that it has not said yet.
    Open,
    /// It has said something since, and has not stopped.
    Said,
}

/// What the agent said at once.
struct Said {
    event_id: Option<i64>,
    text: String,
}

impl Turn {
    /// A turn that begins with a message sent now. `doubtful` is the first
    /// turn of a session whose greeting has not been heard.
    pub(super) fn new(now: Instant, timing: Timing, doubtful: bool) -> Self {
        Self {
            timing,
            until: now + timing.turn,
            last: now,
            works: false,
            types: false,
            stream: Stream::Closed,
            doubtful,
            said: Vec::new(),
        }
    }

    /// When the turn is over, if nothing happens before.
    pub(super) fn due(&self) -> Instant {
        let more = self.works || self.types || self.stream == Stream::Open;
        let patience = match (self.said.is_empty(), more, self.doubtful) {
            (true, ..) => self.timing.silence,
            (false, true, _) => self.timing.pause,
            (false, false, true) => self.timing.greeting.max(self.timing.settling),
            (false, false, false) => self.timing.settling,
        };
        (self.last + patience).min(self.until)
    }

    /// The agent streams. A straggler of what it has said already is nothing.
    pub(super) fn streams(&mut self, now: Instant, event_id: Option<i64>, part: Part) {
        let said = || event_id.is_some() && self.said.iter().any(|it| it.event_id == event_id);
        self.stream = match (part, self.stream) {
            (Part::Stop, Stream::Closed) => return,
            (Part::Stop, _) => Stream::Closed,
            (Part::Delta, Stream::Closed) if said() => return,
            (Part::Start | Part::Delta, _) => Stream::Open,
        };
        self.last = now;
    }

    /// The agent types, or has stopped to.
    pub(super) fn types(&mut self, now: Instant, on: bool) {
        self.types = on;
        self.last = now;
    }

    /// The agent uses a tool and will go on: what it said before is no greeting.
    pub(super) fn works(&mut self, now: Instant) {
        self.doubtful = false;
        self.works = true;
        self.last = now;
    }

    /// The agent has said something. Words that are none ("" or "...") say
    /// only that it is there.
    pub(super) fn says(&mut self, now: Instant, event_id: Option<i64>, text: String) {
        self.works = false;
        self.types = false;
        if self.stream == Stream::Open {
            self.stream = Stream::Said;
        }
        self.last = now;
        if is_blank(&text) {
            return;
        }
        let known = |it: &&mut Said| event_id.is_some() && it.event_id == event_id;
        if let Some(known) = self.said.iter_mut().rev().find(known) {
            if known.text.starts_with(&text) {
                return;
            }
            if text.starts_with(&known.text) {
                known.text = text;
                return;
            }
        }
        if self.said.len() < SAID_MAX {
            self.said.push(Said { event_id, text });
        }
    }

    /// The agent takes something back and says this instead.
    pub(super) fn corrects(
        &mut self,
        now: Instant,
        event_id: Option<i64>,
        original: &str,
        corrected: String,
    ) {
        if is_blank(&corrected) {
            return;
        }
        let by_id = |it: &Said| event_id.is_some() && it.event_id == event_id;
        let place = self
            .said
            .iter()
            .rposition(|it| it.text == original)
            .or_else(|| self.said.iter().rposition(by_id));
        if let Some(place) = place {
            self.said[place].text = corrected;
            self.last = now;
        }
    }

    /// The provider says that the turn is over. A correction may still come.
    pub(super) fn ends(&mut self, now: Instant) {
        if !self.said.is_empty() {
            self.works = false;
            self.types = false;
            self.stream = Stream::Closed;
            self.last = now;
        }
    }

    /// Whether these words were said in this turn.
    pub(super) fn has_said(&self, event_id: Option<i64>, text: &str) -> bool {
        let same = |it: &Said| it.event_id == event_id && it.text.trim().starts_with(text.trim());
        self.said.iter().any(same)
    }

    /// All that the agent said, if it said anything.
    pub(super) fn answer(&self) -> Option<String> {
        if self.said.is_empty() {
            return None;
        }
        let texts: Vec<_> = self.said.iter().map(|it| it.text.trim()).collect();
        Some(texts.join("\n\n"))
    }
}

/// Whether these are words of no meaning, as the provider sends them where the
/// agent has nothing to say.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim()
        .trim_matches(['.', '…'])
        .chars()
        .all(char::is_whitespace)
}
