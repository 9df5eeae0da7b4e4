//! The WebSocket of a text-only session: `GET /v1/convai/conversation`.
//!
//! Only the socket and the waiting are here; what is said is [`super::session`]'s.

use std::{pin::pin, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use poem::{
    Endpoint, FromRequest, IntoResponse, Request, Response,
    endpoint::make,
    web::websocket::{CloseCode, Message, WebSocket, WebSocketStream},
};

use super::session::{self, Act, Knock, Session};
use crate::{
    driver::Shared,
    http::{Answer, Call},
    requests::Fault,
};

/// The operation under which openings are counted and trapped.
const OPEN: &str = "elevenlabs.session_open";

/// How often the provider pings, in the world's time.
const PING_MS: u64 = 20_000;

/// The close code of a server that goes away.
const GOING_AWAY: u16 = 1001;

pub(super) fn endpoint(shared: Arc<Shared>) -> impl Endpoint<Output = Response> {
    make(move |request| {
        let shared = shared.clone();
        async move { open(shared, request).await }
    })
}

async fn open(shared: Arc<Shared>, request: Request) -> poem::Result<Response> {
    let (request, mut body) = request.split();
    let upgrade = WebSocket::from_request(&request, &mut body).await?;
    let call = Call::noted(&request.original_uri().to_string(), "");
    match note_opening(&shared, &call) {
        Some(Fault::Hang | Fault::HangAfterWork) => {
            return Ok(shared.hang().await.into_response());
        }
        Some(Fault::Refuse(status)) => return Ok(Answer::empty(status).into_response()),
        _ => {}
    }
    let knock = Knock::of(&call);
    let upgraded = upgrade.on_upgrade(move |socket| async move {
        Line { shared, socket }.hold(knock).await;
    });
    Ok(upgraded.into_response())
}

fn note_opening(shared: &Shared, call: &Call) -> Option<Fault> {
    let mut world = shared.lock();
    let now = world.clock.unix_ms();
    world.requests.record(OPEN, call, now);
    world.requests.spring(OPEN)
}

/// A connected client.
struct Line {
    shared: Arc<Shared>,
    socket: WebSocketStream,
}

/// Why a session goes on no more.
enum End {
    /// The socket is closed, by either side.
    Closed,
    Stopped,
    TooLong,
}

impl Line {
    async fn hold(mut self, knock: Knock) {
        let admitted = session::admit(&mut self.shared.lock(), &knock);
        if let Err(acts) = admitted {
            self.perform(acts).await;
            return;
        }
        let Some(first) = self.first_frame().await else {
            return;
        };
        let begun = Session::begin(&mut self.shared.lock(), &knock, &first);
        match begun {
            Ok((session, acts)) => self.converse(session, acts).await,
            Err(acts) => drop(self.perform(acts).await),
        }
    }

    async fn first_frame(&mut self) -> Option<String> {
        let shared = self.shared.clone();
        tokio::select! {
            () = shared.stopped() => None,
            frame = self.next_frame() => frame,
        }
    }

    /// The next text, skipping what is not text; none when the client is gone.
    async fn next_frame(&mut self) -> Option<String> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => return Some(text),
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) => {}
            }
        }
    }

    async fn converse(mut self, mut session: Session, first: Vec<Act>) {
        let mut open = self.perform(first).await;
        let mut reason = "Client disconnected";
        while open {
            let acts = match self.wait(&mut session).await {
                Ok(acts) => acts,
                Err(End::Closed) => break,
                Err(End::Stopped) => {
                    let reason = String::new();
                    vec![Act::Close {
                        code: GOING_AWAY,
                        reason,
                    }]
                }
                Err(End::TooLong) => {
                    reason = "Max conversation duration exceeded";
                    session.too_long()
                }
            };
            open = self.perform(acts).await;
        }
        session.end(&mut self.shared.lock(), reason);
        self.shared.wake.notify_one();
    }

    /// Waits for a frame, for the next ping, or for the end.
    async fn wait(&mut self, session: &mut Session) -> Result<Vec<Act>, End> {
        let shared = self.shared.clone();
        let clock = &shared.clock;
        let mut too_long = pin!(clock.wait_until(session.deadline_ms));
        let mut ping = pin!(clock.wait_until(clock.now_ms() + PING_MS));
        tokio::select! {
            frame = self.next_frame() => {
                let frame = frame.ok_or(End::Closed)?;
                Ok(session.take(&mut shared.lock(), &frame))
            }
            () = &mut too_long => Err(End::TooLong),
            () = &mut ping => Ok(vec![session.ping()]),
            () = shared.stopped() => Err(End::Stopped),
        }
    }

    /// Does what the session wants; false when that closed the socket.
    async fn perform(&mut self, acts: Vec<Act>) -> bool {
        for act in acts {
            let message = match act {
                Act::Send(frame) => Message::text(frame.to_string()),
                Act::Think(think_ms) => {
                    self.think(think_ms).await;
                    continue;
                }
                Act::Close { code, reason } => {
                    let close = Message::Close(Some((CloseCode::from(code), reason)));
                    let _ = self.socket.send(close).await;
                    let _ = self.socket.close().await;
                    return false;
                }
            };
            if self.socket.send(message).await.is_err() {
                return false;
            }
        }
        true
    }

    /// With a manual clock no one would wake the agent, so it does not think.
    async fn think(&mut self, think_ms: u64) {
        let clock = &self.shared.clock;
        if !clock.is_manual() {
            clock.wait_until(clock.now_ms() + think_ms).await;
        }
    }
}
