//! Sessions with a provider that does what a test wants of it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::{Opening, Session, Timing, TurnError};
use crate::providers::http;

/// Longer than any test takes: a test that waits for it fails.
const FOREVER: Duration = Duration::from_secs(30);

/// The provider takes so long: the pace of what it says is what is tested.
async fn takes(how_long: Duration) {
    let _ = timeout(how_long, std::future::pending::<()>()).await;
}

/// The provider's end of a socket.
struct Provider(WebSocketStream<TcpStream>);

impl Provider {
    async fn next(&mut self) -> Message {
        let next = timeout(FOREVER, self.0.next()).await.unwrap();
        next.unwrap().unwrap()
    }

    /// The next frame, which has this type.
    async fn hears(&mut self, kind: &str) -> Value {
        let message = self.next().await;
        let frame: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    async fn says(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn answers(&mut self, event_id: u64, text: &str) {
        let event = json!({"agent_response": text, "event_id": event_id});
        self.says(json!({"type": "agent_response", "agent_response_event": event}))
            .await;
    }

    /// Opens the session, and greets.
    async fn greets(&mut self) {
        self.opens().await;
        self.answers(1, "Hola.").await;
    }

    async fn opens(&mut self) {
        self.hears("conversation_initiation_client_data").await;
        let event = json!({"conversation_id": "conv_1"});
        let kind = "conversation_initiation_metadata";
        self.says(json!({"type": kind, "conversation_initiation_metadata_event": event}))
            .await;
    }

    async fn pings(&mut self, event_id: u64) {
        self.says(json!({"type": "ping", "ping_event": {"event_id": event_id}}))
            .await;
        let pong = self.hears("pong").await;
        assert_eq!(pong["event_id"], event_id);
    }

    async fn is_left(&mut self) {
        let message = self.next().await;
        assert!(message.is_close(), "{message}");
    }
}

/// A provider that does this with who comes; what it returns is returned.
async fn start<F, R>(script: impl FnOnce(Provider) -> F + Send + 'static) -> (JoinHandle<R>, String)
where
    F: Future<Output = R> + Send,
    R: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "ws://{}/v1/convai/conversation",
        listener.local_addr().unwrap()
    );
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(Provider(accept_async(stream).await.unwrap())).await
    });
    (task, url)
}

async fn try_open(url: &str, timing: Timing) -> Result<Session, TurnError> {
    open_knowing(Some(true), url, timing).await
}

async fn open_knowing(
    greets: Option<bool>,
    url: &str,
    timing: Timing,
) -> Result<Session, TurnError> {
    let opening = Opening {
        agent_id: "agent_1".to_owned(),
        user_id: "contact-42".to_owned(),
        dynamic_variables: Map::new(),
        context: None,
    };
    Session::open(url, &opening, timing, greets, true).await
}

/// Turns are over soon.
fn hurried() -> Timing {
    Timing {
        settling: Duration::from_millis(300),
        ..Timing::default()
    }
}

async fn open(url: &str, timing: Timing) -> Session {
    let opened = try_open(url, timing).await;
    opened.unwrap_or_else(|error| panic!("not opened: {error}"))
}

/// The provider has done what it should.
async fn done<R>(task: JoinHandle<R>) -> R {
    timeout(FOREVER, task).await.unwrap().unwrap()
}

#[tokio::test]
async fn pings_are_answered_whoever_speaks() {
    let (task, url) = start(async |mut provider: Provider| {
        provider.greets().await;
        provider.pings(1).await;
        provider.0.send(Message::Ping("x".into())).await.unwrap();
        assert!(provider.next().await.is_pong());
        provider
    })
    .await;
    let mut session = open(&url, hurried()).await;
    // No one asks anything while it pings.
    let mut provider = done(task).await;
    let answering = async {
        provider.hears("user_message").await;
        provider.pings(2).await;
        provider.answers(2, "Cuesta 3.").await;
        provider.pings(3).await;
    };
    let (answer, ()) = tokio::join!(session.ask("¿precio?"), answering);
    assert_eq!(answer.unwrap(), "Cuesta 3.");
    provider.pings(4).await;
}

#[tokio::test]
async fn an_answer_in_several_frames_is_whole_whatever_is_known() {
    for (greets, greeting) in [
        (Some(true), Some(Duration::from_millis(600))),
        (Some(false), None),
        (None, Some(Duration::ZERO)),
        (None, None),
    ] {
        let (task, url) = start(async move |mut provider: Provider| {
            provider.opens().await;
            if let Some(late) = greeting {
                takes(late).await;
                provider.answers(1, "Hola.").await;
            }
            provider.hears("user_message").await;
            provider.answers(2, "Uno.").await;
            let part = json!({"type": "start", "text": "", "event_id": 2});
            provider
                .says(json!({"type": "agent_chat_response_part", "text_response_part": part}))
                .await;
            takes(Duration::from_millis(900)).await;
            provider.answers(2, "Dos.").await;
            provider.says(json!({"type": "agent_typing"})).await;
            takes(Duration::from_millis(900)).await;
            provider.answers(3, "Tres.").await;
            provider
        })
        .await;
        let timing = Timing {
            greeting: Duration::from_millis(300),
            ..hurried()
        };
        let mut session = open_knowing(greets, &url, timing).await.unwrap();
        let answer = session.ask("¿precio?").await;
        let whole = Ok("Uno.\n\nDos.\n\nTres.".to_owned());
        assert_eq!(answer, whole, "{greets:?}, {greeting:?}");
        done(task).await;
    }
}

#[tokio::test]
async fn words_that_are_lost_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let (task, url) = start(async |mut provider: Provider| {
        provider.greets().await;
        provider.hears("user_message").await;
        provider.answers(2, "Uno.").await;
        provider
    })
    .await;
    let mut session = open(&url, hurried()).await;
    assert_eq!(session.ask("¿precio?").await.as_deref(), Ok("Uno."));
    let mut provider = done(task).await;
    provider.answers(3, "Dos.").await;
    // It is heard by then.
    provider.pings(1).await;
    let counted = recorder.handle().render();
    assert!(
        counted.contains("bitacora_agent_words_lost_total 1"),
        "{counted}"
    );
}

#[tokio::test]
async fn a_session_that_is_dropped_or_closed_is_closed_there_too() {
    for drops in [true, false] {
        let (task, url) = start(async |mut provider: Provider| {
            provider.greets().await;
            provider.is_left().await;
        })
        .await;
        let session = open(&url, Timing::default()).await;
        if drops {
            let Session { task, commands, .. } = session;
            drop(commands);
            done(task).await;
        } else {
            timeout(FOREVER, session.close()).await.unwrap();
        }
        done(task).await;
    }
}

#[tokio::test]
async fn an_opening_that_is_given_up_is_closed() {
    let (task, url) = start(async |mut provider: Provider| {
        provider.hears("conversation_initiation_client_data").await;
        provider
    })
    .await;
    let mut provider = tokio::select! {
        _ = open(&url, Timing::default()) => panic!("it was opened"),
        provider = done(task) => provider,
    };
    provider.is_left().await;

    let (task, url) = start(async |mut provider: Provider| {
        provider.hears("conversation_initiation_client_data").await;
        provider.is_left().await;
    })
    .await;
    let timing = Timing {
        opening: Duration::from_millis(100),
        ..Timing::default()
    };
    let late = try_open(&url, timing).await.err();
    assert_eq!(late, Some(TurnError::TimedOut("the session's opening")));
    done(task).await;
}

#[tokio::test]
async fn a_turn_that_is_given_up_closes_the_session() {
    let (task, url) = start(async |mut provider: Provider| {
        provider.greets().await;
        provider.hears("user_message").await;
        provider
    })
    .await;
    let mut session = open(&url, Timing::default()).await;
    let mut provider = tokio::select! {
        _ = session.ask("uno") => panic!("no one has answered"),
        provider = done(task) => provider,
    };
    assert_eq!(session.ask("dos").await, Err(TurnError::Closed));
    assert!(!session.is_open());
    provider.is_left().await;
}

#[tokio::test]
async fn a_provider_that_goes_away_is_no_riddle() {
    let closing = |code: u16, reason: &str| {
        let reason = reason.to_owned();
        async move |mut provider: Provider| {
            provider.greets().await;
            provider.hears("user_message").await;
            let reason = reason.as_str().into();
            let close = CloseFrame {
                code: code.into(),
                reason,
            };
            provider.0.close(Some(close)).await.unwrap();
            provider.is_left().await;
        }
    };
    let (task, url) = start(closing(1011, "the words")).await;
    let mut session = open(&url, Timing::default()).await;
    let error = session.ask("Hola").await.unwrap_err();
    assert_eq!(error.reason(), "the session failed: code 1011");
    done(task).await;

    let (task, url) = start(closing(1000, "")).await;
    let mut session = open(&url, Timing::default()).await;
    assert_eq!(session.ask("Hola").await, Err(TurnError::Closed));
    done(task).await;

    let (task, url) = start(async |mut provider: Provider| {
        provider.greets().await;
        provider.hears("user_message").await;
    })
    .await;
    let mut session = open(&url, Timing::default()).await;
    assert_eq!(session.ask("Hola").await, Err(TurnError::Closed));
    done(task).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_session() {
    let (task, url) = start(async |mut provider: Provider| {
        provider.greets().await;
        provider.hears("user_message").await;
        // We need not take it all, so it may not be sent.
        let huge = Message::text("x".repeat((1 << 20) + 1));
        let _ = timeout(FOREVER, provider.0.send(huge)).await.unwrap();
    })
    .await;
    let mut session = open(&url, Timing::default()).await;
    assert_eq!(session.ask("Hola").await, Err(TurnError::Closed));
    assert!(!session.is_open());
    done(task).await;
}

#[tokio::test]
async fn a_provider_that_takes_nothing_does_not_hold_us() {
    let (task, url) = start(async |mut provider: Provider| {
        provider.greets().await;
        provider
    })
    .await;
    let timing = Timing {
        write: Duration::from_millis(200),
        goodbye: Duration::from_millis(200),
        ..Timing::default()
    };
    let mut session = open(&url, timing).await;
    let provider = done(task).await;
    // More than two sockets' buffers hold.
    let much = "x".repeat(64 << 20);
    let told = timeout(FOREVER, session.tell(&much)).await.unwrap();
    assert_eq!(told, Err(TurnError::Closed));
    assert!(!session.is_open());
    timeout(FOREVER, session.close()).await.unwrap();
    drop(provider);
}

#[tokio::test]
async fn a_door_that_does_not_open_is_told() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let (task, plain) = start(async |_: Provider| ()).await;
    for url in [
        format!("ws://{address}/"),
        // Nobody speaks TLS there; that we do is what this is about.
        plain.replace("ws://", "wss://"),
        "ws://".to_owned(),
    ] {
        let error = try_open(&url, Timing::default()).await.err();
        let expected = http::Error::NotSent("no socket could be opened");
        assert_eq!(error, Some(TurnError::Http(expected)), "{url}");
    }
    task.abort();
}
