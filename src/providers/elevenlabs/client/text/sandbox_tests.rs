//! Sessions with the sandbox's agents, over a real socket.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Url;
use sandbox::{AGENT_COLLECTIONS, AGENT_SURVEY, Control, Fault, Options, Rates, Sandbox, Scripted};
use serde_json::json;
use tokio::time::timeout;

use super::{Opening, Session, Timing, TurnError};
use crate::clock::Source;
use crate::providers::elevenlabs::client::{Client, Settings};
use crate::providers::http::Policy;

const KEY: &str = "the-key";
const AGENT: &str = "elevenlabs.agent_get";
const TURN: &str = "elevenlabs.session_turn";
/// Longer than any test takes: a test that waits for it fails.
const FOREVER: Duration = Duration::from_secs(30);

/// A sandbox where nothing happens by itself, and a client of it.
async fn world(rates: Rates) -> (Sandbox, Client) {
    let options = Options {
        manual_clock: true,
        clock_start_unix: Some(1_761_694_070),
        elevenlabs_api_key: Some(KEY.to_owned()),
        rates,
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    let settings = Settings {
        base_url: Url::parse(&sandbox.url()).unwrap(),
        api_key: Some(KEY.to_owned()),
        policy: Policy::default(),
    };
    let now = || chrono::DateTime::from_timestamp(1_761_694_070, 0).unwrap();
    let source = Source::new(now, StdRng::seed_from_u64(1));
    (sandbox, Client::new(&settings, source).unwrap())
}

fn opening(agent_id: &str) -> Opening {
    let variables = json!({"client_name": "Ana García"});
    Opening {
        agent_id: agent_id.to_owned(),
        user_id: "contact-42".to_owned(),
        dynamic_variables: variables.as_object().cloned().unwrap(),
        context: None,
    }
}

/// Turns are over soon.
fn hurried() -> Timing {
    Timing {
        settling: Duration::from_millis(300),
        ..Timing::default()
    }
}

async fn session(client: &Client) -> Session {
    let opening = opening(AGENT_COLLECTIONS);
    let opened = client.open_text_session_within(&opening, hurried()).await;
    opened.unwrap_or_else(|error| panic!("not opened: {error}"))
}

async fn trap(sandbox: &Sandbox, operation: &str, fault: Fault) {
    let control = Control {
        script: vec![Scripted {
            operation: operation.to_owned(),
            times: 1,
            fault,
        }],
        ..Control::default()
    };
    sandbox.control(control).await.unwrap();
}

async fn error_of(client: &Client, opening: &Opening) -> TurnError {
    match client.open_text_session(opening).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// The provider's name for the error that ended a session.
fn named(error: &TurnError) -> (&str, u16) {
    match error {
        TurnError::Session {
            error_type, code, ..
        } => (error_type, *code),
        other => panic!("another error: {other}"),
    }
}

fn status(error: &TurnError) -> Option<u16> {
    match error {
        TurnError::Http(error) => error.status(),
        other => panic!("another error: {other}"),
    }
}

#[tokio::test]
async fn turns_are_answered_in_one_conversation_and_the_greeting_is_none() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let mut session = session(&client).await;
    assert!(session.is_open());
    for text in ["¿Precio?", "Gracias"] {
        let answer = session.ask(text).await.unwrap();
        let quoted = format!("Sobre «{text}»: ");
        assert!(answer.starts_with(&quoted), "{answer}");
    }
    let truth = sandbox.truth();
    let [conversation] = truth.conversations.as_slice() else {
        panic!("not one conversation");
    };
    assert_eq!(conversation.id, session.conversation_id());
    assert_eq!(conversation.user_messages, ["¿Precio?", "Gracias"]);
    assert!(conversation.agent_messages[0].starts_with("Hola Ana García"));
    assert_eq!(conversation.status, "in-progress");
    session.close().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn an_agent_without_a_greeting_is_talked_with_too() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let mute = json!({"conversation_config": {"agent": {"first_message": ""}}});
    client.patch_agent(AGENT_COLLECTIONS, &mute).await.unwrap();
    // First nothing is known, and then that there is no greeting.
    trap(&sandbox, AGENT, Fault::Refuse(403)).await;
    for greeting in [Duration::from_millis(50), 2 * FOREVER] {
        let timing = Timing {
            greeting,
            ..hurried()
        };
        let opening = opening(AGENT_COLLECTIONS);
        let opened = client.open_text_session_within(&opening, timing);
        let mut session = timeout(FOREVER, opened).await.unwrap().unwrap();
        let answer = session.ask("Hola").await.unwrap();
        assert!(answer.starts_with("Sobre «Hola»: "), "{answer}");
    }
    assert_eq!(sandbox.truth().request_count(AGENT), 2);
    sandbox.stop().await;
}

#[tokio::test]
async fn whether_an_agent_greets_is_asked_once() {
    let (sandbox, client) = world(Rates::ideal()).await;
    for _ in 0..2 {
        session(&client.clone()).await.close().await;
    }
    assert_eq!(sandbox.truth().request_count(AGENT), 1);
    let mute = json!({"conversation_config": {"agent": {"first_message": ""}}});
    client.patch_agent(AGENT_COLLECTIONS, &mute).await.unwrap();
    session(&client).await.close().await;
    let asked = sandbox.truth().request_count(AGENT);
    assert_eq!(asked, 2, "it has been changed");
    sandbox.stop().await;
}

#[tokio::test]
async fn context_arrives_before_and_between_turns() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let mut opening = opening(AGENT_COLLECTIONS);
    opening.context = Some("paga el viernes".to_owned());
    let opened = client.open_text_session_within(&opening, hurried()).await;
    let mut session = opened.unwrap();
    let answer = session.ask("¿Qué hablamos?").await.unwrap();
    assert!(answer.ends_with("paga el viernes"), "{answer}");
    session.tell("ya pagó").await.unwrap();
    let answer = session.ask("¿Qué hablamos?").await.unwrap();
    assert!(answer.ends_with("ya pagó"), "{answer}");
    let told = &sandbox.truth().conversations[0].context;
    assert_eq!(told, &["paga el viernes", "ya pagó"]);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_correction_is_what_is_answered() {
    let rates = Rates {
        correction: 1.0,
        ..Rates::ideal()
    };
    let (sandbox, client) = world(rates).await;
    let mut session = session(&client).await;
    for text in ["Hola", "¿condiciones?"] {
        let answer = session.ask(text).await.unwrap();
        assert!(answer.ends_with(" (corregido)"), "{answer}");
        assert_eq!(answer.matches("Sobre «").count(), 1, "{answer}");
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn an_error_of_the_provider_ends_the_session() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let mut session = session(&client).await;
    trap(&sandbox, TURN, Fault::SessionError("llm_error".to_owned())).await;
    let error = session.ask("Hola").await.unwrap_err();
    assert_eq!(named(&error), ("llm_error", 1002));
    assert!(error.is_passing());
    assert!(!session.is_open());
    assert_eq!(session.ask("Hola").await, Err(TurnError::Closed));
    assert_eq!(session.tell("nada").await, Err(TurnError::Closed));
    sandbox.stop().await;
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_given_up() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let timing = Timing {
        silence: Duration::from_millis(100),
        ..Timing::default()
    };
    for (fault, heard) in [(Fault::Hang, 0), (Fault::HangAfterWork, 1)] {
        let opening = opening(AGENT_COLLECTIONS);
        let opened = client.open_text_session_within(&opening, timing).await;
        let mut session = opened.unwrap();
        trap(&sandbox, TURN, fault).await;
        let error = session.ask("Hola").await.unwrap_err();
        assert_eq!(error, TurnError::TimedOut("the agent's answer"));
        assert!(error.is_passing() && !session.is_open());
        let truth = sandbox.truth();
        let conversation = truth.conversations.last().unwrap();
        assert_eq!(conversation.user_messages.len(), heard);
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn a_session_that_lasts_too_long_is_found_closed() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let mut session = session(&client).await;
    session.ask("Hola").await.unwrap();
    sandbox.advance(Duration::from_secs(601)).await;
    // Returns when the session has found out.
    let closed = timeout(FOREVER, session.commands.closed()).await;
    assert!(closed.is_ok(), "the session is still open");
    assert!(!session.is_open());
    assert_eq!(session.ask("Hola").await, Err(TurnError::Closed));
    sandbox.stop().await;
}

#[tokio::test]
async fn an_agent_that_asks_for_authorization_is_reached_by_a_signed_url() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let opened = client.open_text_session(&opening(AGENT_SURVEY)).await;
    let mut session = opened.unwrap();
    session.ask("Hola").await.unwrap();
    let truth = sandbox.truth();
    let sockets = &truth.requests["elevenlabs.session_open"].requests;
    assert!(sockets[0].path.contains("conversation_signature=cvtkn_"));
    assert_eq!(truth.request_count("elevenlabs.signed_url"), 1);
    sandbox.stop().await;
}

#[tokio::test]
async fn an_agent_that_permits_no_override_is_asked_without() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let forbidden = json!({"platform_settings": {"overrides": {
        "conversation_config_override": {"conversation": {"text_only": false}},
    }}});
    client
        .patch_agent(AGENT_COLLECTIONS, &forbidden)
        .await
        .unwrap();
    let mut session = session(&client).await;
    session.ask("Hola").await.unwrap();
    let truth = sandbox.truth();
    assert_eq!(truth.request_count("elevenlabs.session_open"), 2);
    assert_eq!(truth.conversations.len(), 1);
    sandbox.stop().await;
}

#[tokio::test]
async fn who_may_not_enter_is_told_why() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let unknown = error_of(&client, &opening("agent_none")).await;
    assert_eq!((status(&unknown), unknown.is_passing()), (Some(404), false));

    let needs = json!({"conversation_config": {"agent": {"first_message": "Hola {{nadie}}"}}});
    client.patch_agent(AGENT_COLLECTIONS, &needs).await.unwrap();
    let missing = error_of(&client, &opening(AGENT_COLLECTIONS)).await;
    assert_eq!(named(&missing), ("missing_dynamic_variable", 1008));
    assert!(!missing.is_passing());
    assert!(!missing.reason().contains("nadie"));

    trap(&sandbox, "elevenlabs.session_open", Fault::Refuse(429)).await;
    let refused = error_of(&client, &opening(AGENT_SURVEY)).await;
    assert_eq!(refused.reason(), "the provider wants fewer requests: 429");
    assert!(refused.is_passing());
    sandbox.stop().await;
}

#[tokio::test]
async fn an_opening_that_hangs_is_given_up() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let soon = Duration::from_millis(100);
    let all = Timing::default();
    let connect = Timing {
        connect: soon,
        ..all
    };
    let opening = Timing {
        opening: soon,
        ..all
    };
    for (operation, timing, late) in [
        ("elevenlabs.session_open", connect, "the connection"),
        ("elevenlabs.signed_url", opening, "the signed URL"),
    ] {
        trap(&sandbox, operation, Fault::Hang).await;
        let opening = self::opening(AGENT_COLLECTIONS);
        let opened = client.open_text_session_within(&opening, timing).await;
        assert_eq!(opened.err(), Some(TurnError::TimedOut(late)));
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn the_seeds_way_is_not_offered() {
    let (sandbox, client) = world(Rates::ideal()).await;
    let error = client.message("conv_1", "Hola").await.unwrap_err();
    assert_eq!(status(&error), Some(404));
    assert!(!error.is_passing());
    sandbox.stop().await;
}
