//! Text-only sessions with an agent, over the provider's WebSocket. Source:
//! its AsyncAPI document, and PROVIDERS.md, section 2.5.
//!
//! A session is opened by a signed URL, which every agent takes, those that
//! ask for no authorization too: so our key never goes over the socket. It
//! lives as long as its [`Session`], and at most as long as the agent permits
//! (ten minutes where it says nothing); a later one is another conversation,
//! that knows of this one what [`Opening::context`] tells it.
//!
//! Of the agent's `client_events`, `agent_response` is needed. With
//! `agent_response_correction`, `agent_chat_response_part`,
//! `agent_tool_request`, `agent_tool_response` and `context_usage` besides we
//! see when it has finished; without them that is guessed (see `turn.rs`).
//! Whether it greets is asked of the provider (see `greeting.rs`).
//!
//! Invariant: nothing here logs or repeats words, URLs or keys, and no wait is
//! without a limit. A proxy that the environment names is not used.

mod error;
mod frames;
mod greeting;
mod line;
mod message;
mod protocol;
#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
mod sandbox_tests;
#[cfg(test)]
mod socket_tests;
mod turn;
#[cfg(test)]
mod turn_tests;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use self::error::TurnError;
pub(super) use self::greeting::Greeters;
use self::line::{Command, Line};
use self::protocol::Protocol;
use super::{Client, answers};

/// What a session is opened with.
#[derive(Clone)]
pub struct Opening {
    /// Whom to talk with.
    pub agent_id: String,
    /// Who talks, in our words: the provider shows it beside the conversation.
    pub user_id: String,
    /// Filled into the agent's prompt and first message: `client_name`…
    pub dynamic_variables: Map<String, Value>,
    /// What the agent should know before anyone speaks: what came of the call,
    /// the chat so far.
    pub context: Option<String>,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For the connection, its encryption and the upgrade of the protocol.
    pub connect: Duration,
    /// For the signed URL and what is asked of the agent, and again from our
    /// first frame to the session.
    pub opening: Duration,
    /// For the greeting of an agent that has one, from the session's opening.
    pub greeting_known: Duration,
    /// For an agent to begin its greeting where the provider did not say
    /// whether it has one. If it has none this is waited twice: when the
    /// session is opened, and after its first answer.
    pub greeting: Duration,
    /// For an answer, whatever signs of life there are.
    pub turn: Duration,
    /// For the first words of an answer, or a sign of life before them. The
    /// provider gives a model 20 s.
    pub silence: Duration,
    /// For the rest of an answer that has begun and is visibly unfinished.
    pub pause: Duration,
    /// For a correction, or more words, after an answer that seems finished.
    pub settling: Duration,
    /// For the provider to take a frame from us.
    pub write: Duration,
    /// For it to take our leave.
    pub goodbye: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            opening: Duration::from_secs(10),
            greeting_known: Duration::from_secs(10),
            greeting: Duration::from_secs(3),
            turn: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            pause: Duration::from_secs(10),
            settling: Duration::from_secs(1),
            write: Duration::from_secs(10),
            goodbye: Duration::from_secs(2),
        }
    }
}

/// A session, kept open: it answers the provider's pings by itself. Dropping
/// it closes it.
pub struct Session {
    conversation_id: String,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl Client {
    /// Opens a session, as [`Timing::default`] has it.
    ///
    /// # Errors
    /// [`TurnError`].
    pub async fn open_text_session(&self, opening: &Opening) -> Result<Session, TurnError> {
        self.open_text_session_within(opening, Timing::default())
            .await
    }

    /// Opens a session. Returns when it is the person's turn: the agent's
    /// greeting has been heard, or none came.
    ///
    /// An agent that does not let us ask for a session without audio is taken
    /// to have none by itself, and asked again without that.
    ///
    /// # Errors
    /// [`TurnError`].
    pub async fn open_text_session_within(
        &self,
        opening: &Opening,
        timing: Timing,
    ) -> Result<Session, TurnError> {
        match self.open_once(opening, timing, true).await {
            Err(error) if error.is_forbidden_override() => {
                tracing::debug!(
                    agent_id = opening.agent_id,
                    "the agent permits no override of text_only"
                );
                self.open_once(opening, timing, false).await
            }
            outcome => outcome,
        }
    }

    async fn open_once(
        &self,
        opening: &Opening,
        timing: Timing,
        text_only: bool,
    ) -> Result<Session, TurnError> {
        let agent_id = &opening.agent_id;
        let url = async {
            timeout(timing.opening, self.signed_url(agent_id))
                .await
                .map_err(|_| TurnError::TimedOut("the signed URL"))?
        };
        let greets = async { Ok(self.greets(agent_id, timing.opening).await) };
        let (url, greets) = tokio::try_join!(url, greets)?;
        Session::open(&url, opening, timing, greets, text_only).await
    }

    /// The way into a session with an agent, good for 15 minutes. Whoever has
    /// it may enter: a secret.
    async fn signed_url(&self, agent_id: &str) -> Result<String, TurnError> {
        let path = ["conversation", "get-signed-url"];
        let request = self.request(Method::GET, &path)?;
        let body = self.http.ask(request.query(&[("agent_id", agent_id)]));
        Ok(answers::signed_url(&body.await?)?)
    }
}

impl Session {
    async fn open(
        url: &str,
        opening: &Opening,
        timing: Timing,
        greets: Option<bool>,
        text_only: bool,
    ) -> Result<Self, TurnError> {
        let socket = line::connect(url, &timing).await?;
        // One at a time, as methods take `&mut self`.
        let (commands, obeyed) = mpsc::channel(1);
        let (opened, ready) = oneshot::channel();
        let line = Line {
            socket,
            timing,
            protocol: Protocol::new(Instant::now(), timing, greets, opening.context.clone()),
            agent_id: opening.agent_id.clone(),
            commands: obeyed,
            opened: Some(opened),
            answered: None,
        };
        let hello = frames::hello(opening, text_only);
        // Ends when `commands` is dropped, here or with the session.
        let task = tokio::spawn(line.hold(hello));
        let conversation_id = ready.await.unwrap_or(Err(TurnError::Closed))?;
        Ok(Self {
            conversation_id,
            commands,
            task,
        })
    }

    /// The provider's id of the conversation.
    pub fn conversation_id(&self) -> &str {
        &self.conversation_id
    }

    /// Whether it can still be spoken in, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Says something to the agent and returns its answer.
    ///
    /// A turn that fails closes the session, and so does the next one where
    /// this future is dropped before it is done.
    ///
    /// # Errors
    /// [`TurnError`]; the agent may have heard it nevertheless.
    pub async fn ask(&mut self, text: &str) -> Result<String, TurnError> {
        let (answered, answer) = oneshot::channel();
        let text = text.to_owned();
        self.command(Command::Ask { text, answered }).await?;
        answer.await.unwrap_or(Err(TurnError::Closed))
    }

    /// Tells the agent something that it need not answer.
    ///
    /// # Errors
    /// [`TurnError::Closed`]
    pub async fn tell(&mut self, context: &str) -> Result<(), TurnError> {
        let (sent, done) = oneshot::channel();
        let frame = frames::contextual_update(context);
        self.command(Command::Send { frame, sent }).await?;
        done.await.map_err(|_| TurnError::Closed)
    }

    /// Closes it, and returns when that is done.
    pub async fn close(self) {
        drop(self.commands);
        // It panics no more than it would have without us.
        let _ = self.task.await;
    }

    async fn command(&self, command: Command) -> Result<(), TurnError> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| TurnError::Closed)
    }
}
