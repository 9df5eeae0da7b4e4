//! A conversation from the call to its end.

use sandbox::{Channel, Control, Inbound};
use serde_json::{Value, json};

use super::{World, calm};
use crate::harness::app::{answer, ok};

const ANA: &str = "+573001234567";

fn texts(conversation: &Value) -> Vec<(String, String)> {
    let messages = conversation["messages"].as_array().unwrap();
    let text = |message: &Value, field: &str| message[field].as_str().unwrap().to_owned();
    messages
        .iter()
        .map(|message| (text(message, "direction"), text(message, "content")))
        .collect()
}

/// Ana has written before, so that we may write freely.
async fn open_window(world: &World) {
    world
        .control(Control {
            open_window: vec![ANA.to_owned()],
            ..Control::default()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_by_whatsapp() {
    let world = World::start(calm(), 1).await;
    open_window(&world).await;
    let (status, first) = world.completes("rcpt_1", ANA).await;
    assert_eq!(
        (status, &first["status"]),
        (200, &json!("message_sent")),
        "{first}"
    );
    let sid = first["whatsapp_message_id"].as_str().unwrap();
    assert!(sid.starts_with("SM"));
    let (_, again) = world.completes("rcpt_1", ANA).await;
    assert_eq!(again["whatsapp_message_id"], first["whatsapp_message_id"]);

    world
        .hears(ANA, "Sí me interesa, ¿cuál es el precio?")
        .await;
    world
        .until(
            "answers",
            "select count(*) from effects where state = 'done'",
            3,
        )
        .await;
    world.until_settled().await;
    world.sandbox.settle().await;
    world.workers[0].settle().await;

    let conversation = world.conversation(ANA).await;
    assert_eq!(conversation["status"], "active");
    assert_eq!(conversation["client_name"], "Ana García");
    let texts = texts(&conversation);
    let directions: Vec<_> = texts
        .iter()
        .map(|(direction, _)| direction.as_str())
        .collect();
    assert_eq!(directions, ["outbound", "inbound", "outbound"]);
    assert!(texts[0].1.starts_with("¡Hola Ana!"), "{}", texts[0].1);
    assert!(texts[2].1.contains("120.000 pesos"), "{}", texts[2].1);
    for ours in [0, 2] {
        assert_eq!(conversation["messages"][ours]["status"], "read");
    }
    let sent = world.sent_to(ANA);
    assert_eq!(sent, [texts[0].1.clone(), texts[2].1.clone()]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_takes_over_and_gives_back() {
    let world = World::start(calm(), 2).await;
    open_window(&world).await;
    world.completes("rcpt_1", ANA).await;
    let path = |action: &str| format!("/api/conversations/{ANA}/{action}");
    let post =
        |action: &str, body: Value| ok(world.api.post_as("supervisor", &path(action), &body));
    post("escalate", json!({"reason": "pide una persona"})).await;
    world.hears(ANA, "¿Hay alguien?").await;
    let inbound = "select count(*) from conversation_messages where direction = 'inbound'";
    world.until("inbound", inbound, 1).await;
    post("messages", json!({"content": "Hola Ana, le escribe Luis."})).await;
    world.until_settled().await;
    assert_eq!(world.sent_to(ANA).len(), 2, "the agent is silent");
    assert_eq!(world.sent_to(ANA)[1], "Hola Ana, le escribe Luis.");
    post("resume", json!({})).await;
    world.hears(ANA, "¿Y el precio?").await;
    world.until("sent", "select count(*) from conversation_messages where direction = 'outbound' and twilio_message_id is not null", 3).await;
    assert!(world.sent_to(ANA)[2].contains("¿Y el precio?"));
    // The agent was told what the two said without it.
    let truth = world.sandbox.truth();
    let session = truth.conversations.iter().find(|it| it.text_only).unwrap();
    let context = session.context.join("\n");
    assert!(
        context.contains("Asesor: Hola Ana, le escribe Luis."),
        "{context}"
    );
    assert!(context.contains("Cliente: ¿Hay alguien?"), "{context}");
    post("close", json!({})).await;
    assert_eq!(world.conversation(ANA).await["status"], "closed");
    world.stop_and_compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_serves_a_conversation_and_another_worker_goes_on_with_its_history() {
    let mut world = World::start(calm(), 3).await;
    let answered = "select count(*) from effects where kind = 'message' and state = 'done'";
    for (n, said) in ["uno", "dos", "tres"].into_iter().enumerate() {
        world.hears(ANA, said).await;
        world.until("answers", answered, n as i64 + 1).await;
    }
    let sessions = |world: &World| {
        let truth = world.sandbox.truth().conversations;
        truth
            .into_iter()
            .filter(|it| it.text_only)
            .collect::<Vec<_>>()
    };
    assert_eq!(sessions(&world).len(), 1);
    assert_eq!(sessions(&world)[0].user_messages, ["uno", "dos", "tres"]);
    world.kill_a_worker().await;
    world.hears(ANA, "cuatro").await;
    world.until("answers", answered, 4).await;
    let second = &sessions(&world)[1];
    assert_eq!(second.user_messages, ["cuatro"]);
    let history = second.context.join("\n");
    for line in ["Cliente: uno", "Agente: Sobre «tres»"] {
        assert!(history.contains(line), "{history}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_long_for_one_message_goes_out_in_parts_in_order() {
    let world = World::start(calm(), 4).await;
    world.hears(ANA, "¿Me puede enviar las condiciones?").await;
    world.hears(ANA, "gracias").await;
    let answered = "select count(*) from effects where kind = 'turn' and state = 'done'";
    world.until("answers", answered, 2).await;
    world.until_settled().await;
    let sent = world.sent_to(ANA);
    assert!(sent.len() > 2, "{sent:?}");
    assert!(sent[0].starts_with("Sobre «¿Me puede enviar las condiciones?»"));
    assert!(sent[sent.len() - 2].ends_with("eso es todo."), "{sent:?}");
    assert!(sent[sent.len() - 1].starts_with("Sobre «gracias»"));
    assert!(sent.iter().all(|body| body.encode_utf16().count() <= 1_600));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_stop_is_left_alone() {
    let world = World::start(calm(), 5).await;
    open_window(&world).await;
    world.completes("rcpt_1", ANA).await;
    world.hears(ANA, "STOP").await;
    let opted_out = "select count(*) from effect_lanes where opted_out";
    world.until("opted out", opted_out, 1).await;
    world.hears(ANA, "Hola").await;
    let inbound = "select count(*) from conversation_messages where direction = 'inbound'";
    world.until("inbound", inbound, 2).await;
    world.until_settled().await;
    let (status, refused) = world.completes("rcpt_2", ANA).await;
    assert_eq!(
        (status, &refused["code"]),
        (409, &json!("opted_out")),
        "{refused}"
    );
    let path = format!("/api/conversations/{ANA}/messages");
    let body = json!({"content": "¿Seguro?"});
    let (status, _) = answer(world.api.post_as("supervisor", &path, &body)).await;
    assert_eq!(status, 409);
    assert_eq!(world.sent_to(ANA).len(), 1, "nothing but the first message");
    let dropped = "select count(*) from effects where state = 'dropped'";
    world.until("dropped", dropped, 0).await;
    world.hears(ANA, "START").await;
    world.until("opted in", opted_out, 0).await;
    world.hears(ANA, "Hola otra vez").await;
    world
        .until(
            "answers",
            "select count(*) from effects where kind = 'turn' and state = 'done'",
            1,
        )
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builderbot_is_answered_by_builderbot_and_pictures_are_seen() {
    let world = World::start(calm(), 6).await;
    world
        .hear([(Channel::Builderbot, ANA.to_owned(), "Hola".to_owned())])
        .await;
    let answered = "select count(*) from effects where kind = 'message' and state = 'done'";
    world.until("answers", answered, 1).await;
    let inbound = vec![Inbound {
        from: ANA.to_owned(),
        media: Some("image/png".to_owned()),
        ..Inbound::default()
    }];
    world
        .control(Control {
            inbound,
            ..Control::default()
        })
        .await;
    world.until("answers", answered, 2).await;
    world.sandbox.settle().await;
    world.until_settled().await;
    let sent = &world.sent()[ANA];
    let ways: Vec<_> = sent
        .iter()
        .map(|message| message.provider.as_str())
        .collect();
    // The truth lists Twilio's messages first.
    assert_eq!(ways, ["twilio", "builderbot"]);
    assert!(
        sent[0].body.contains("[El cliente envió una imagen]"),
        "{}",
        sent[0].body
    );
    let conversation = world.conversation(ANA).await;
    let shown = texts(&conversation);
    assert_eq!(
        shown.len(),
        4,
        "builderbot's own word of our message is that message: {shown:?}"
    );
    assert_eq!(conversation["messages"][2]["kind"], "image");
    world.stop_and_compare().await;
}
