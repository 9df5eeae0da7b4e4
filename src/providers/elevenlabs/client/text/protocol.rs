//! A text-only session from our side, without the socket and without a clock:
//! it takes what happens and when, and says what to do.
//!
//! **The greeting is no answer.** A session begins with the agent's first
//! message, where it has one, and nothing marks it as such. So we know it from
//! the agent's configuration:
//!
//! - The agent greets: the session is ready when it has said something, or not
//!   within `Timing::greeting_known`.
//! - It does not: the session is ready at once, and all of the first turn counts.
//! - That is unknown: the session is ready when it has said something, or not
//!   begun to within `Timing::greeting`.
//!
//! Where a greeting may have been missed it may still come in the first turn,
//! before the answer. There we wait as long as `Timing::greeting` for the rest,
//! and all that was said counts: nothing in the protocol tells them apart.
//! Whatever the agent says or begins to say while it is not asked is dropped,
//! and so is what comes of it later: its event id is known.
//!
//! **One turn at a time.** A turn that fails, or that its caller has given up,
//! ends the session: its answer may still come, and must answer nothing else.
//! What an agent adds after a turn has settled is lost for the same reason, and
//! that is told ([`Act::Lost`]).

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Timing;
use super::error::TurnError;
use super::frames::{self, Frame, Part};
use super::turn::{Turn, is_blank};

/// How many of the agent's event ids are remembered, the last ones.
const HEARD_MAX: usize = 256;

/// What a session wants done, in order.
#[derive(Debug, PartialEq)]
pub(super) enum Act {
    /// Send a frame.
    Send(String),
    /// Tell who opened the session that it is ready, by this id, or not.
    Opened(Result<String, TurnError>),
    /// Tell who asked.
    Answered(Result<String, TurnError>),
    /// Tell the operator that the agent spoke after its turn.
    Lost,
    /// Close the socket: nothing more will be done.
    Close,
}

/// A session under way.
pub(super) struct Protocol {
    timing: Timing,
    /// What to tell the agent when the session is open.
    context: Option<String>,
    stage: Stage,
    /// Whether the agent is known to greet, or not to.
    greets: Option<bool>,
    /// Whether no greeting is to come: the agent has none, has said something
    /// by itself, or was asked once.
    greeted: bool,
    /// The turn before.
    before: Option<Turn>,
    /// Ids of what the agent has said or begun to say.
    heard: VecDeque<i64>,
    /// How many of them are from before the turn.
    heard_before: usize,
}

enum Stage {
    /// Our first frame is on its way.
    Opening {
        until: Instant,
    },
    /// The session is open; perhaps the agent greets.
    Greeting {
        conversation_id: String,
        /// When it is taken not to.
        quiet: Instant,
        until: Instant,
    },
    /// No one speaks.
    Idle,
    /// It is the agent's turn.
    Turn(Turn),
    Over,
}

impl Protocol {
    /// A session whose first frame is sent now.
    pub(super) fn new(
        now: Instant,
        timing: Timing,
        greets: Option<bool>,
        context: Option<String>,
    ) -> Self {
        let until = now + timing.opening;
        Self {
            timing,
            context: context.filter(|it| !it.trim().is_empty()),
            stage: Stage::Opening { until },
            greets,
            greeted: greets == Some(false),
            before: None,
            heard: VecDeque::new(),
            heard_before: 0,
        }
    }

    /// When [`Self::tick`] has something to do, if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Opening { until } => Some(*until),
            Stage::Greeting { quiet, until, .. } => Some(*quiet.min(until)),
            Stage::Turn(turn) => Some(turn.due()),
            Stage::Idle | Stage::Over => None,
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Act> {
        if self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        match &self.stage {
            Stage::Opening { .. } => self.fail(TurnError::TimedOut("the session's opening")),
            Stage::Greeting { .. } => self.ready(),
            Stage::Turn(turn) => match turn.answer() {
                Some(answer) => {
                    if let Stage::Turn(turn) = std::mem::replace(&mut self.stage, Stage::Idle) {
                        self.before = Some(turn);
                    }
                    vec![Act::Answered(Ok(answer))]
                }
                None => self.fail(TurnError::TimedOut("the agent's answer")),
            },
            Stage::Idle | Stage::Over => Vec::new(),
        }
    }

    /// The person says something.
    pub(super) fn ask(&mut self, now: Instant, text: &str) -> Vec<Act> {
        match self.stage {
            Stage::Idle => {
                let doubtful = !std::mem::replace(&mut self.greeted, true);
                self.heard_before = self.heard.len();
                self.stage = Stage::Turn(Turn::new(now, self.timing, doubtful));
                vec![Act::Send(frames::user_message(text))]
            }
            Stage::Over => vec![Act::Answered(Err(TurnError::Closed))],
            Stage::Opening { .. } | Stage::Greeting { .. } | Stage::Turn(_) => {
                self.stage = Stage::Over;
                vec![Act::Answered(Err(TurnError::Closed)), Act::Close]
            }
        }
    }

    /// The session ends, for this reason. What was said by then is an answer.
    pub(super) fn fail(&mut self, error: TurnError) -> Vec<Act> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Opening { .. } | Stage::Greeting { .. } => {
                vec![Act::Opened(Err(error)), Act::Close]
            }
            Stage::Turn(turn) => {
                vec![Act::Answered(turn.answer().ok_or(error)), Act::Close]
            }
            Stage::Idle => vec![Act::Close],
            Stage::Over => Vec::new(),
        }
    }

    /// The provider has sent a frame.
    pub(super) fn take(&mut self, now: Instant, frame: &str) -> Vec<Act> {
        match frames::read(frame) {
            Frame::Metadata { conversation_id } => return self.opened(now, conversation_id),
            Frame::Ping { event_id } => return vec![Act::Send(frames::pong(&event_id))],
            Frame::ClientTool { tool_call_id } => {
                self.works(now);
                return vec![Act::Send(frames::tool_refusal(&tool_call_id))];
            }
            Frame::Approval { tool_call_id } => {
                self.works(now);
                return vec![Act::Send(frames::disapproval(&tool_call_id))];
            }
            Frame::Failure(error) => return self.fail(error),
            Frame::Response { event_id, text } => return self.says(now, event_id, text),
            Frame::Part { event_id, part } => self.streams(now, event_id, part),
            Frame::Typing { on } => match &mut self.stage {
                Stage::Greeting { quiet, until, .. } if on => *quiet = *until,
                Stage::Turn(turn) => turn.types(now, on),
                _ => {}
            },
            Frame::Tool => self.works(now),
            Frame::Correction {
                event_id,
                original,
                corrected,
            } => {
                if let Stage::Turn(turn) = &mut self.stage {
                    turn.corrects(now, event_id, &original, corrected);
                }
            }
            Frame::TurnOver => {
                if let Stage::Turn(turn) = &mut self.stage {
                    turn.ends(now);
                }
            }
            Frame::Other => {}
        }
        Vec::new()
    }

    fn opened(&mut self, now: Instant, conversation_id: String) -> Vec<Act> {
        let Stage::Opening { until } = self.stage else {
            return Vec::new();
        };
        let (quiet, until) = match self.greets {
            Some(true) => (
                now + self.timing.greeting_known,
                now + self.timing.greeting_known,
            ),
            _ => (now + self.timing.greeting, until),
        };
        self.stage = Stage::Greeting {
            conversation_id,
            quiet,
            until,
        };
        let context = self.context.take();
        let update = context.map(|it| Act::Send(frames::contextual_update(&it)));
        let mut acts: Vec<_> = update.into_iter().collect();
        if self.greeted {
            acts.extend(self.ready());
        }
        acts
    }

    fn ready(&mut self) -> Vec<Act> {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Greeting {
                conversation_id, ..
            } => vec![Act::Opened(Ok(conversation_id))],
            other => {
                self.stage = other;
                Vec::new()
            }
        }
    }

    fn streams(&mut self, now: Instant, event_id: Option<i64>, part: Part) {
        let known = self.hear(event_id);
        match &mut self.stage {
            // It greets, so it is worth waiting for what it says.
            Stage::Greeting { quiet, until, .. } => *quiet = *until,
            Stage::Turn(turn) if !known => turn.streams(now, event_id, part),
            _ => {}
        }
    }

    fn says(&mut self, now: Instant, event_id: Option<i64>, text: String) -> Vec<Act> {
        let known = self.hear(event_id);
        match &mut self.stage {
            Stage::Turn(turn) if !known => turn.says(now, event_id, text),
            Stage::Over => {}
            _ if is_blank(&text) => {}
            Stage::Turn(_) | Stage::Idle => {
                self.greeted = true;
                let before = self.before.as_ref();
                if before.is_some_and(|turn| !turn.has_said(event_id, &text)) {
                    return vec![Act::Lost];
                }
            }
            Stage::Opening { .. } | Stage::Greeting { .. } => {
                self.greeted = true;
                return self.ready();
            }
        }
        Vec::new()
    }

    fn works(&mut self, now: Instant) {
        if let Stage::Turn(turn) = &mut self.stage {
            turn.works(now);
        }
    }

    /// Remembers an id; whether it was known before this turn.
    fn hear(&mut self, event_id: Option<i64>) -> bool {
        let Some(event_id) = event_id else {
            return false;
        };
        if let Some(place) = self.heard.iter().position(|it| *it == event_id) {
            return place < self.heard_before;
        }
        self.heard.push_back(event_id);
        if self.heard.len() > HEARD_MAX {
            self.heard.pop_front();
            self.heard_before = self.heard_before.saturating_sub(1);
        }
        false
    }
}
