//! The socket of a session, held by a task of its own until either side has
//! had enough. It answers pings at once, whoever speaks.
//!
//! Only the socket and the waiting are here; what is said is [`Protocol`]'s.
//! Invariant: nothing here waits without a limit on a provider that does not
//! read, does not write, or does not close.

use std::future::pending;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::Timing;
use super::error::TurnError;
use super::protocol::{Act, Protocol};
use crate::providers::http;

/// Most bytes of one message of the provider's.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How much is read at once: a session is kept for long, and says little.
const READ_BUFFER_BYTES: usize = 16 << 10;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the session is asked to do.
pub(super) enum Command {
    /// To say this to the agent and to bring its answer.
    Ask {
        text: String,
        answered: oneshot::Sender<Result<String, TurnError>>,
    },
    /// To send this frame.
    Send {
        frame: String,
        sent: oneshot::Sender<()>,
    },
}

/// Opens a socket. The URL may open the door to others: it is never logged.
pub(super) async fn connect(url: &str, timing: &Timing) -> Result<Socket, TurnError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let connecting = connect_async_with_config(url, Some(config), true);
    match timeout(timing.connect, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(refused(&error).into()),
        Err(_) => Err(TurnError::TimedOut("the connection")),
    }
}

/// Why there is no socket. What the library says of it may hold the URL.
fn refused(error: &tungstenite::Error) -> http::Error {
    const TOO_MANY_REQUESTS: u16 = 429;
    let tungstenite::Error::Http(response) = error else {
        return http::Error::NotSent("no socket could be opened");
    };
    let refusal = http::Refusal {
        status: response.status().as_u16(),
        code: String::new(),
        message: String::new(),
        body: Value::Null,
    };
    if refusal.status != TOO_MANY_REQUESTS {
        return http::Error::Refused(refusal);
    }
    let header = response.headers().get("retry-after");
    let secs = header.and_then(|it| it.to_str().ok()?.trim().parse().ok());
    http::Error::RateLimited {
        retry_after: secs.map(std::time::Duration::from_secs),
        refusal,
    }
}

/// A session's socket and who waits for what comes from it.
pub(super) struct Line {
    pub(super) socket: Socket,
    pub(super) timing: Timing,
    pub(super) protocol: Protocol,
    /// For the log.
    pub(super) agent_id: String,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) opened: Option<oneshot::Sender<Result<String, TurnError>>>,
    pub(super) answered: Option<oneshot::Sender<Result<String, TurnError>>>,
}

/// The socket takes no more, or shall not.
struct Over;

impl Line {
    /// Holds the session, beginning with our first frame.
    pub(super) async fn hold(mut self, hello: String) {
        let mut over = self.perform(vec![Act::Send(hello)]).await;
        while over.is_ok() {
            over = self.step().await;
        }
        self.commands.close();
        // Who does not take a goodbye in time gets none.
        let _ = timeout(self.timing.goodbye, SinkExt::close(&mut self.socket)).await;
    }

    /// Waits for the next thing to happen and does what follows from it.
    async fn step(&mut self) -> Result<(), Over> {
        let due = self.protocol.due();
        let tick = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        let acts = tokio::select! {
            command = self.commands.recv() => match command {
                Some(command) => return self.obey(command).await,
                None => return Err(Over),
            },
            frame = self.socket.next() => match frame {
                Some(Ok(Message::Text(frame))) => self.protocol.take(now(), &frame),
                Some(Ok(Message::Close(close))) => self.protocol.fail(closed(close)),
                Some(Ok(_)) => Vec::new(),
                Some(Err(_)) | None => self.protocol.fail(TurnError::Closed),
            },
            () = tick => self.protocol.tick(now()),
        };
        self.perform(acts).await
    }

    async fn obey(&mut self, command: Command) -> Result<(), Over> {
        match command {
            Command::Ask { text, answered } => {
                self.answered = Some(answered);
                let acts = self.protocol.ask(now(), &text);
                self.perform(acts).await
            }
            Command::Send { frame, sent } => {
                self.perform(vec![Act::Send(frame)]).await?;
                // Who gave up waiting need not be told.
                let _ = sent.send(());
                Ok(())
            }
        }
    }

    async fn perform(&mut self, acts: Vec<Act>) -> Result<(), Over> {
        // So that who is told of the end finds the session closed.
        if acts.contains(&Act::Close) {
            self.commands.close();
        }
        for act in acts {
            match act {
                Act::Send(frame) => {
                    if let Err(error) = self.send(frame).await {
                        let acts = self.protocol.fail(error);
                        self.commands.close();
                        acts.into_iter().for_each(|act| self.tell(act));
                        return Err(Over);
                    }
                }
                Act::Close => return Err(Over),
                Act::Lost => self.lose(),
                told => self.tell(told),
            }
        }
        Ok(())
    }

    /// Tells who waits for it.
    fn tell(&mut self, act: Act) {
        let (waiting, outcome) = match act {
            Act::Opened(outcome) => (self.opened.take(), outcome),
            Act::Answered(outcome) => (self.answered.take(), outcome),
            Act::Send(_) | Act::Close | Act::Lost => return,
        };
        if let Some(waiting) = waiting {
            // Who gave up waiting need not be told.
            let _ = waiting.send(outcome);
        }
    }

    /// So that an operator sees it.
    fn lose(&self) {
        metrics::counter!("bitacora_agent_words_lost_total").increment(1);
        let agent_id = &self.agent_id;
        tracing::warn!(agent_id, "the agent spoke after its turn: lost");
    }

    async fn send(&mut self, frame: String) -> Result<(), TurnError> {
        let sending = self.socket.send(Message::text(frame));
        match timeout(self.timing.write, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(TurnError::Closed),
            Err(_) => Err(TurnError::TimedOut("the taking of a frame")),
        }
    }
}

/// What a close frame means. The provider's ends are told before by an error
/// event, other servers' by the frame alone.
fn closed(close: Option<CloseFrame>) -> TurnError {
    match close {
        Some(close) if !matches!(u16::from(close.code), 1000 | 1001 | 1005) => TurnError::Session {
            error_type: String::new(),
            code: close.code.into(),
            message: close.reason.as_str().to_owned(),
        },
        _ => TurnError::Closed,
    }
}

fn now() -> Instant {
    Instant::now()
}
