//! Conversations from outside: contract, section 6. What the worker would put
//! on the ledger is put there by hand; what it does is in `effects`.

use std::time::Duration;

use bitacora::ledger::{Entry, events};
use domain::conversation::{self, Changed, Event as Decision, FirstMessage, Started};
use domain::effect::{
    self, Answered, Attempted, Event as Outcome, Failed, Part, Remedy, Sent, first_message_id,
};
use domain::{Channel, Event, Fact, PhoneNumber, Provider, StreamId};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::app::{answer, ok};
use crate::harness::past::Past;
use crate::harness::read_models::assert_equal_a_rebuild;
use crate::harness::{TestApp, fixture};

const ANA: &str = "+573001234567";
const INCOMING: &str = "/webhook/twilio/incoming";
const STATUS: &str = "/webhooks/twilio/sms/status";
const COMPLETED: &str = "/api/call-completed";
const NOT_SENT: &str = "Failed to send WhatsApp message";
/// How long something that happens by itself may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn path(phone: &str) -> String {
    format!("/api/conversations/{}", phone.replace('+', "%2B"))
}

fn id(app: &TestApp, phone: &str) -> String {
    conversation::id(phone, &app.app().phone_index)
}

/// What the main backend posts, as in the replaced service's document.
fn completed(recipient: &str, phone: &str) -> Value {
    json!({
        "batch_id": "btcal_9201k8pjch8teq3t428mqt82xe3d",
        "agent_id": "agent_4701k8fcsvhaes5s1h6tw894g98s",
        "agent_name": "Agente Admin - test ana 4",
        "phone_number_id": "phnum_1401k8gyww19evptjqeqnm8hs3x5",
        "batch_name": "Llamada test ana 4 - 28/10/2025",
        "recipient": {
            "id": recipient,
            "phone_number": phone,
            "status": "completed",
            "conversation_id": "conv_0001example00000000000000000",
            "created_at_unix": 1761694074,
            "updated_at_unix": 1761694074
        },
        "call_metadata": {
            "client_name": "Ana García",
            "client_id": 42,
            "group_id": 5,
            "group_name": "Campaña Octubre"
        }
    })
}

/// Puts an event on the ledger, as the test's clock stands.
async fn append(app: &TestApp, kind: &'static str, id: &str, event: Event) -> i64 {
    let fact = Fact {
        stream: StreamId {
            aggregate_type: kind,
            aggregate_id: id.to_owned(),
        },
        event,
        occurred_at: Some(app.clock.now()),
    };
    let entry = Entry::Facts(vec![fact], json!({}));
    let receipt = app.app().writer.append(entry).await.unwrap();
    receipt.position.unwrap()
}

async fn happened(app: &TestApp, effect_id: &str, event: Outcome) {
    append(app, "effect", effect_id, Event::Effect(event)).await;
}

async fn attempted(app: &TestApp, effect_id: &str) {
    let at = app.clock.now();
    let attempted = Attempted { attempt: 1, at };
    happened(app, effect_id, Outcome::Attempted(attempted)).await;
}

async fn taken(app: &TestApp, effect_id: &str, provider: Provider, message_id: Option<&str>) {
    let sent = Sent {
        attempt: 1,
        adopted: false,
        provider,
        channel: Channel::Whatsapp,
        message_id: message_id.map(str::to_owned),
        interaction_id: "wa_1".to_owned(),
        contact: ANA.to_owned(),
        our_address: None,
        content: String::new(),
        content_sid: None,
    };
    happened(app, effect_id, Outcome::Sent(Box::new(sent))).await;
}

async fn refused(app: &TestApp, effect_id: &str, code: &str, remedy: Remedy) {
    let failed = Failed {
        attempt: 1,
        status: Some(400),
        code: Some(code.to_owned()),
        message: "Phone number not whitelisted".to_owned(),
        remedy,
        retry_at: None,
    };
    happened(app, effect_id, Outcome::Failed(failed)).await;
}

/// The agent answers the message at a position.
async fn answered(app: &TestApp, position: i64, words: &str) -> String {
    let turn = effect::turn_id(position);
    let part = effect::part_id(&turn, 1);
    let answered = Answered {
        attempt: 1,
        agent_id: "agent_1".to_owned(),
        session_id: Some("conv_text_1".to_owned()),
        parts: vec![Part {
            effect_id: part.clone(),
            content: words.to_owned(),
        }],
    };
    happened(app, &turn, Outcome::Answered(Box::new(answered))).await;
    part
}

/// Waits until the first message to a recipient is owed.
async fn owed(app: &TestApp, recipient: &str) -> String {
    let effect_id = first_message_id(recipient);
    let mut news = app.app().news.clone();
    let there = async {
        loop {
            news.borrow_and_update();
            let sql = "select count(*) from events where event_type = 'conversation.started'
                       and payload -> 'message' ->> 'effect_id' = $1";
            let count: i64 = sqlx::query_scalar(sql)
                .bind(&effect_id)
                .fetch_one(&app.pool)
                .await
                .unwrap();
            if count > 0 {
                return;
            }
            news.changed().await.unwrap();
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, there).await;
    in_time.expect("nothing was begun");
    effect_id
}

/// A client's message by Twilio; gives its position.
async fn writes(app: &TestApp, phone: &str, sid: &str, words: &str) -> i64 {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("MessageSid", sid)
        .append_pair("From", &format!("whatsapp:{phone}"))
        .append_pair("To", "whatsapp:+14155238886")
        .append_pair("ProfileName", "Ana")
        .append_pair("Body", words)
        .finish();
    ok(app.twilio(INCOMING, form)).await;
    app.count("select max(position) from events where event_type = 'message.received'")
        .await
}

/// A conversation that we began, put on the ledger at the test's time.
async fn began(app: &TestApp, recipient: &str, phone: &str) -> String {
    let effect_id = first_message_id(recipient);
    let started = Started {
        phone_number: PhoneNumber::parse(phone).unwrap(),
        call: conversation::Call {
            recipient_id: recipient.to_owned(),
            agent_id: "agent_1".to_owned(),
            client_name: Some("Ana García".to_owned()),
            ..conversation::Call::default()
        },
        message: FirstMessage {
            effect_id: effect_id.clone(),
            content: "¡Hola Ana!".to_owned(),
            template: None,
        },
        requested_by: "service".to_owned(),
    };
    let event = Event::Conversation(Decision::Started(Box::new(started)));
    append(app, "conversation", &id(app, phone), event).await;
    effect_id
}

async fn read(app: &TestApp, role: &str, phone: &str) -> Value {
    app.settle().await;
    let answer = ok(app.get_as(role, &path(phone))).await;
    assert_eq!(answer["success"], true);
    answer["conversation"].clone()
}

#[tokio::test]
async fn a_completed_call_goes_on_by_whatsapp() {
    let app = TestApp::start().await;
    ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    app.settle().await;
    let body = completed("rcpt_1", ANA);
    let response = app.post_as("service", COMPLETED, &body).send();
    let (response, ()) = tokio::join!(response, async {
        let effect_id = owed(&app, "rcpt_1").await;
        attempted(&app, &effect_id).await;
        taken(
            &app,
            &effect_id,
            Provider::Twilio,
            Some("SM1234567890abcdef"),
        )
        .await;
    });
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().contains_key("x-ledger-position"));
    let first: Value = response.json().await.unwrap();
    let expected = json!({
        "success": true,
        "message": "Conversación iniciada exitosamente",
        "conversation_id": id(&app, ANA),
        "whatsapp_message_id": "SM1234567890abcdef",
        "status": "message_sent"
    });
    assert_eq!(first, expected);

    // The same recipient again, under whatever number, is not written to again.
    for phone in [ANA, "+573009999999"] {
        let again = ok(app.post_as("service", COMPLETED, &completed("rcpt_1", phone))).await;
        assert_eq!(again, expected);
    }
    let sql = "select count(*) from events where event_type = 'conversation.started'";
    assert_eq!(app.count(sql).await, 1);

    let conversation = read(&app, "service", ANA).await;
    for (field, value) in [
        ("phone_number", json!(ANA)),
        ("client_name", json!("Ana García")),
        ("status", json!("active")),
        (
            "elevenlabs_conversation_id",
            json!("conv_0001example00000000000000000"),
        ),
        ("agent_id", json!("agent_4701k8fcsvhaes5s1h6tw894g98s")),
        ("batch_id", json!("btcal_9201k8pjch8teq3t428mqt82xe3d")),
        ("recipient_id", json!("rcpt_1")),
        ("call_duration_secs", json!(94)),
        ("message_count", json!(1)),
        ("opted_out", json!(false)),
    ] {
        assert_eq!(conversation[field], value, "{field}");
    }
    let metadata = &conversation["metadata"];
    assert_eq!(metadata["group_name"], "Campaña Octubre");
    assert_eq!(
        (&metadata["client_id"], &metadata["group_id"]),
        (&json!(42), &json!(5))
    );
    let message = &conversation["messages"][0];
    let content = message["content"].as_str().unwrap();
    assert!(
        content.starts_with("¡Hola Ana! Gracias por tu tiempo"),
        "{content}"
    );
    let summary = conversation["call_summary"].as_str().unwrap();
    assert!(content.contains(summary), "{content}");
    assert_eq!(
        (&message["direction"], &message["status"]),
        (&json!("outbound"), &json!("sent"))
    );
    assert_eq!(message["provider_message_id"], "SM1234567890abcdef");
}

#[tokio::test]
async fn what_twilio_refuses_is_told_in_its_words() {
    let app = TestApp::start().await;
    let request = || answer(app.post_as("service", COMPLETED, &completed("rcpt_1", ANA)));
    let ((status, body), ()) = tokio::join!(request(), async {
        let effect_id = owed(&app, "rcpt_1").await;
        refused(&app, &effect_id, "63024", Remedy::DeadLetter).await;
    });
    let told = |status: u16, body: &Value| {
        assert_eq!(status, 502, "{body}");
        assert_eq!(body["success"], false);
        assert_eq!(body["error"], NOT_SENT);
        assert_eq!(body["message"], "No se pudo enviar el mensaje de WhatsApp");
        assert_eq!(body["details"], "Phone number not whitelisted");
        assert_eq!(body["code"], "provider_error");
        assert!(body["request_id"].is_string());
    };
    told(status, &body);
    let (status, body) = request().await;
    told(status, &body);
    let conversation = read(&app, "service", ANA).await;
    let message = &conversation["messages"][0];
    assert_eq!(
        (&message["status"], &message["error_code"]),
        (&json!("failed"), &json!("63024"))
    );
}

#[tokio::test]
async fn a_message_that_waits_is_answered_202_and_then_as_it_stands() {
    let app = TestApp::start().await;
    let body = completed("rcpt_1", ANA);
    let (first, ()) = tokio::join!(answer(app.post_as("service", COMPLETED, &body)), async {
        let effect_id = owed(&app, "rcpt_1").await;
        refused(&app, &effect_id, "20429", Remedy::Retry).await;
    });
    assert_eq!(first.0, 202, "{}", first.1);
    assert_eq!(first.1["success"], true);
    assert_eq!(first.1["status"], "queued");
    assert_eq!(first.1["whatsapp_message_id"], Value::Null);
    let effect_id = first_message_id("rcpt_1");
    taken(&app, &effect_id, Provider::Twilio, Some("SM1")).await;
    let then = ok(app.post_as("service", COMPLETED, &body)).await;
    assert_eq!(then["whatsapp_message_id"], "SM1");
}

#[tokio::test]
async fn the_end_of_a_call_that_says_too_little_is_refused_by_field() {
    let app = TestApp::start().await;
    let without = |pointer: &str, field: &str| {
        let mut body = completed("rcpt_1", ANA);
        let object = body.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        object.remove(field);
        body
    };
    let with = |pointer: &str, value: Value| {
        let mut body = completed("rcpt_1", ANA);
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    for (body, field) in [
        (without("", "agent_id"), "agent_id"),
        (with("/agent_id", json!(" ")), "agent_id"),
        (without("", "recipient"), "recipient"),
        (without("/recipient", "id"), "recipient.id"),
        (with("/recipient/id", json!("")), "recipient.id"),
        (
            without("/recipient", "phone_number"),
            "recipient.phone_number",
        ),
        (
            with("/recipient/phone_number", json!("3001234567")),
            "recipient.phone_number",
        ),
        (
            with("/recipient/phone_number", json!(7)),
            "recipient.phone_number",
        ),
        (
            with("/call_metadata/client_name", json!("a\0b")),
            "call_metadata.client_name",
        ),
        (
            with("/call_metadata/group_id", json!("x")),
            "call_metadata.group_id",
        ),
        (json!([]), "body"),
    ] {
        let (status, answer) = answer(app.post_as("service", COMPLETED, &body)).await;
        assert_eq!(status, 400, "{body} {answer}");
        assert_eq!(answer["details"][0]["field"], field, "{answer}");
    }
    // It is for services, and says so before it looks at the body.
    for (role, status) in [
        ("nobody", 401),
        ("agent", 403),
        ("supervisor", 403),
        ("auditor", 403),
        ("admin", 400),
    ] {
        let (got, answer) = answer(app.post_as(role, COMPLETED, &json!({}))).await;
        assert_eq!(got, status, "{role}: {answer}");
    }
    let sql = "select count(*) from events where event_type = 'conversation.started'";
    assert_eq!(app.count(sql).await, 0);
}

#[tokio::test]
async fn nobody_writes_to_a_client_who_asked_for_no_more() {
    let app = TestApp::start().await;
    writes(&app, ANA, "SM1", "¡Baja!").await;
    let (status, body) = answer(app.post_as("service", COMPLETED, &completed("r", ANA))).await;
    assert_eq!(
        (status, &body["code"]),
        (409, &json!("opted_out")),
        "{body}"
    );
    assert_eq!(body["error"], NOT_SENT);
    assert_eq!(body["message"], "El cliente pidió no recibir más mensajes");
    let write = || {
        app.post_as(
            "agent",
            &format!("{}/messages", path(ANA)),
            &json!({"content": "Hola"}),
        )
    };
    let (status, body) = answer(write()).await;
    assert_eq!(
        (status, &body["code"]),
        (409, &json!("opted_out")),
        "{body}"
    );
    assert_eq!(read(&app, "agent", ANA).await["opted_out"], true);
    writes(&app, ANA, "SM2", "alta").await;
    ok(write()).await;
}

#[tokio::test]
async fn a_conversation_reads_as_it_was_written() {
    let app = TestApp::start().await;
    let first = began(&app, "rcpt_1", ANA).await;
    attempted(&app, &first).await;
    // The callback may be faster than our own word.
    let status = |sid: &str, status: &str| {
        format!(
            "MessageSid={sid}&MessageStatus={status}&From=whatsapp%3A%2B14155238886\
             &To=whatsapp%3A%2B573001234567"
        )
    };
    ok(app.twilio(STATUS, status("SM1", "delivered"))).await;
    taken(&app, &first, Provider::Twilio, Some("SM1")).await;
    app.clock.advance(chrono::Duration::seconds(60));
    let asked = writes(&app, ANA, "SM2", "Sí me interesa, ¿cuál es el precio?").await;
    app.clock.advance(chrono::Duration::seconds(3));
    let part = answered(&app, asked, "El plan Premium cuesta $99/mes...").await;
    attempted(&app, &part).await;
    taken(&app, &part, Provider::Twilio, Some("SM3")).await;
    ok(app.twilio(STATUS, status("SM3", "read"))).await;

    let conversation = read(&app, "service", ANA).await;
    assert_eq!(conversation["message_count"], 3);
    assert_eq!(conversation["started_at"], "2025-10-28T23:30:00Z");
    assert_eq!(conversation["last_message_at"], "2025-10-28T23:31:03Z");
    let messages = conversation["messages"].as_array().unwrap();
    let shown: Vec<_> = messages
        .iter()
        .map(|it| {
            let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
            [
                text("direction"),
                text("author"),
                text("status"),
                text("timestamp"),
            ]
            .join(" ")
        })
        .collect();
    assert_eq!(
        shown,
        [
            "outbound first delivered 2025-10-28T23:30:00Z",
            "inbound client received 2025-10-28T23:31:00Z",
            "outbound agent read 2025-10-28T23:31:03Z",
        ]
    );
    assert_eq!(messages[2]["content"], "El plan Premium cuesta $99/mes...");
    assert_eq!(messages[2]["in_reply_to"], "SM2");
    let answers: Vec<_> = messages.iter().map(|it| &it["answer"]).collect();
    assert_eq!(answers, [&Value::Null, &json!("answered"), &Value::Null]);
    let newest = ok(app.get_as("service", &format!("{}?limit=1", path(ANA)))).await;
    assert_eq!(newest["conversation"]["messages"], json!([messages[2]]));

    // The number as people put it into a path, or the conversation's id.
    for named in [
        "+573001234567",
        "573001234567",
        "%20573001234567",
        &id(&app, ANA),
    ] {
        let found = ok(app.get_as("service", &format!("/api/conversations/{named}"))).await;
        assert_eq!(found["conversation"], conversation, "{named}");
    }
    for unknown in ["%2B573009999999", "nadie", "conv_local_0"] {
        let (status, body) =
            answer(app.get_as("service", &format!("/api/conversations/{unknown}"))).await;
        assert_eq!(status, 404, "{unknown}");
        assert_eq!(body["message"], "Conversación no encontrada");
    }
    let (status, body) = answer(app.get_as("service", &format!("{}?limit=201", path(ANA)))).await;
    assert_eq!(
        (status, &body["details"][0]["field"]),
        (400, &json!("limit"))
    );
}

#[tokio::test]
async fn an_agent_sees_no_number_wherever_it_stands() {
    let app = TestApp::start().await;
    writes(&app, ANA, "SM1", "Llámeme al 573001234567").await;
    let masked = read(&app, "agent", ANA).await;
    assert_eq!(masked["phone_number"], "+57******4567");
    assert_eq!(masked["messages"][0]["content"], "Llámeme al 57******4567");
    for role in ["supervisor", "admin", "auditor", "service"] {
        let whole = read(&app, role, ANA).await;
        assert_eq!(whole["phone_number"], ANA, "{role}");
        assert_eq!(whole["messages"][0]["content"], "Llámeme al 573001234567");
    }
    let list = ok(app.get_as("agent", "/api/conversations")).await;
    assert_eq!(list["data"][0]["phone_number"], "+57******4567");
    // Whoever sees no number finds the conversation by its id.
    let id = list["data"][0]["id"].as_str().unwrap();
    ok(app.get_as("agent", &format!("/api/conversations/{id}"))).await;
    assert!(!list.to_string().contains("3001234567"));
    let (status, _) = answer(app.get_as("nobody", &path(ANA))).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn what_is_not_text_is_shown_too() {
    let app = TestApp::start().await;
    for name in ["media", "voice", "location", "button"] {
        let form = fixture(&format!("twilio/whatsapp.inbound.{name}.form"));
        // The fixtures share an id; here each is a message.
        let form = String::from_utf8(form).unwrap();
        let sid = form
            .split('&')
            .find(|it| it.starts_with("MessageSid="))
            .unwrap();
        let form = form.replace(sid, &format!("MessageSid=SM{name}"));
        ok(app.twilio(INCOMING, form)).await;
    }
    let conversation = read(&app, "service", "+5491133334444").await;
    let messages = conversation["messages"].as_array().unwrap();
    let kinds: Vec<_> = messages
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["image", "voice", "location", "button"]);
    assert_eq!(messages[0]["media"][0]["content_type"], "image/jpeg");
    assert_eq!(messages[2]["metadata"]["location"]["label"], "Obelisco");
    assert_eq!(messages[3]["metadata"]["button"]["payload"], "yes");
    assert_eq!(conversation["client_name"], "Ana");
}

#[tokio::test]
async fn builderbots_messages_are_in_the_same_conversation() {
    let app = TestApp::start().await;
    ok(app.builderbot(fixture("builderbot/message.incoming.json"))).await;
    ok(app.builderbot(fixture("builderbot/message.incoming.group.json"))).await;
    app.settle().await;
    let list = ok(app.get_as("service", "/api/conversations")).await;
    let rows = list["data"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "a group is none: {list}");
    assert_eq!(rows[0]["last_provider"], "builderbot");
    let phone = rows[0]["phone_number"].as_str().unwrap().to_owned();

    let write = format!("{}/messages", path(&phone));
    let written = ok(app.post_as("agent", &write, &json!({"content": "Le escribe Luis."}))).await;
    let message_id = written["data"]["message_id"].as_str().unwrap().to_owned();
    attempted(&app, &message_id).await;
    let outgoing = |words: &str| {
        let body = json!({"eventName": "message.outgoing",
            "data": {"answer": words, "from": phone.trim_start_matches('+'), "projectId": "p"}});
        app.builderbot(body.to_string())
    };
    // builderbot's own word is that message, and what it sends besides another.
    ok(outgoing("Le escribe Luis.")).await;
    taken(&app, &message_id, Provider::Builderbot, None).await;
    ok(outgoing("Menú principal")).await;
    let conversation = read(&app, "service", &phone).await;
    let messages = conversation["messages"].as_array().unwrap();
    let mut shown: Vec<_> = messages
        .iter()
        .map(|it| {
            (
                it["author"].as_str().unwrap(),
                it["status"].as_str().unwrap(),
            )
        })
        .collect();
    shown.sort_unstable();
    assert_eq!(
        shown,
        [
            ("client", "received"),
            ("external", "sent"),
            ("person:user:7", "sent")
        ]
    );
}

#[tokio::test]
async fn builderbots_word_for_an_attempt_is_known_by_its_words() {
    let app = TestApp::start().await;
    let outgoing = |words: &str| {
        let body = json!({"eventName": "message.outgoing",
            "data": {"answer": words, "from": ANA.trim_start_matches('+'), "projectId": "p"}});
        app.builderbot(body.to_string())
    };
    let chat = StreamId::chat(Provider::Builderbot, ANA, &app.app().phone_index);
    let mirrored = async |words: &str| {
        events::was_mirrored(
            &app.pool,
            &crate::harness::app::opener(),
            "written_1",
            &chat.aggregate_id,
            words,
        )
        .await
        .unwrap()
    };
    ok(outgoing("Le escribe Luis.")).await;
    assert!(!mirrored("Le escribe Luis.").await, "nothing was tried");
    attempted(&app, "written_1").await;
    assert!(!mirrored("Le escribe Luis.").await, "it was before");
    ok(outgoing("Menú principal")).await;
    ok(outgoing(" Le escribe\r\n Luis. ")).await;
    assert!(mirrored("Le escribe\nLuis.").await);
    assert!(mirrored("Menú  principal").await);
    assert!(!mirrored("Le escribe Ana.").await);
    attempted(&app, "written_1").await;
    assert!(
        !mirrored("Le escribe Luis.").await,
        "it was another attempt"
    );
}

#[tokio::test]
async fn a_person_takes_over_and_gives_back() {
    let app = TestApp::start().await;
    writes(&app, ANA, "SM1", "Quiero hablar con una persona").await;
    let act = async |role: &str, what: &str, body: Value| {
        answer(app.post_as(role, &format!("{}/{what}", path(ANA)), &body)).await
    };
    let events = "select count(*) from events where aggregate_type = 'conversation'";
    for (what, status, message, count) in [
        (
            "escalate",
            "escalated",
            "Conversación escalada exitosamente",
            1,
        ),
        (
            "escalate",
            "escalated",
            "Conversación escalada exitosamente",
            1,
        ),
        ("resume", "active", "Conversación reanudada exitosamente", 2),
        ("close", "closed", "Conversación cerrada exitosamente", 3),
        ("close", "closed", "Conversación cerrada exitosamente", 3),
    ] {
        let (code, body) = act("agent", what, json!({"reason": "Lo pide la clienta"})).await;
        assert_eq!(code, 200, "{what}: {body}");
        assert_eq!(body["message"], message);
        assert_eq!(body["data"]["status"], status, "{what}");
        assert_eq!(app.count(events).await, count, "{what}");
        let by = &body["data"]["escalated_by"];
        assert_eq!(by == "user:7", status == "escalated");
        assert_eq!(body["data"]["closed_at"].is_string(), status == "closed");
    }
    // A body is not needed.
    let bare = app.client.post(format!("{}{}/resume", app.url, path(ANA)));
    ok(bare.bearer_auth(app.token("supervisor"))).await;

    for (role, status) in [("nobody", 401), ("auditor", 403)] {
        for what in ["close", "escalate", "resume"] {
            assert_eq!(act(role, what, json!({})).await.0, status, "{role} {what}");
        }
    }
    let (status, body) =
        answer(app.post_as("agent", "/api/conversations/573009999999/close", &json!({}))).await;
    assert_eq!((status, &body["code"]), (404, &json!("not_found")));
    let (status, body) = act("agent", "close", json!({"reason": "x".repeat(501)})).await;
    assert_eq!(
        (status, &body["details"][0]["field"]),
        (400, &json!("reason"))
    );

    app.settle().await;
    let log = app
        .read("/api/audit-log?action=escalate_conversation")
        .await;
    let outcomes: Vec<_> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["outcome"].clone())
        .collect();
    assert_eq!(outcomes, [json!("forbidden"), json!("ok"), json!("ok")]);
    let target = format!("conversation:{}", id(&app, ANA));
    assert_eq!(log["data"][0]["target"], target);

    // When the client writes again, what was closed is open.
    act("agent", "close", json!({})).await;
    writes(&app, ANA, "SM2", "¿Hola?").await;
    assert_eq!(read(&app, "agent", ANA).await["status"], "active");
}

#[tokio::test]
async fn nothing_is_decided_by_what_lags_behind_the_ledger() {
    let app = TestApp::start().await;
    writes(&app, ANA, "SM1", "Hola").await;
    app.settle().await;
    let events = "select count(*) from events where aggregate_type = 'conversation'";
    let begun = app.count(events).await;
    // Whoever has the checkpoint folds: nobody else does meanwhile.
    let mut folding = bitacora::transaction::begin(&app.pool).await.unwrap();
    sqlx::query("select from projection_checkpoints where name = 'conversations' for update")
        .execute(&mut *folding)
        .await
        .unwrap();
    // She wants to hear no more, and nobody has read it.
    writes(&app, ANA, "SM2", "baja").await;
    for (at, body) in [
        (path(ANA) + "/messages", json!({"content": "¿Sigue ahí?"})),
        // It is so already, as far as is known.
        (path(ANA) + "/resume", json!({})),
    ] {
        let response = app.post_as("agent", &at, &body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{at}");
        assert!(response.headers().contains_key("retry-after"), "{at}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["code"], "unavailable", "{at}");
    }
    assert_eq!(app.count(events).await, begun);
    folding.rollback().await.unwrap();
    app.settle().await;
    let write = path(ANA) + "/messages";
    let (status, body) =
        answer(app.post_as("agent", &write, &json!({"content": "¿Sigue ahí?"}))).await;
    assert_eq!((status, &body["code"]), (409, &json!("opted_out")));
}

#[tokio::test]
async fn a_person_writes_once_for_each_key() {
    let app = TestApp::start().await;
    writes(&app, ANA, "SM1", "Hola").await;
    let write = format!("{}/messages", path(ANA));
    let said = json!({"content": " Le escribe Luis.\n"});
    let request = || {
        app.post_as("agent", &write, &said)
            .header("Idempotency-Key", "k1")
    };
    let response = request().send().await.unwrap();
    assert!(response.headers().contains_key("x-ledger-position"));
    let first: Value = response.json().await.unwrap();
    assert_eq!(first["data"]["status"], "queued");
    assert_eq!(ok(request()).await, first);
    // Also when the first answer was lost with the process.
    sqlx::query("delete from idempotency_keys")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(ok(request()).await, first);
    let conversation = read(&app, "supervisor", ANA).await;
    let messages = conversation["messages"].as_array().unwrap();
    let ours: Vec<_> = messages
        .iter()
        .filter(|it| it["author"] == "person:user:7")
        .collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0]["id"], first["data"]["message_id"]);
    assert_eq!(
        (&ours[0]["status"], &ours[0]["content"]),
        (&json!("queued"), &json!("Le escribe Luis."))
    );

    for (content, field) in [
        (json!({"content": ""}), "content"),
        (json!({"content": " \n "}), "content"),
        (json!({"content": "ñ".repeat(1_601)}), "content"),
        (json!({"content": "a\0b"}), "content"),
        (json!({}), "content"),
        (json!({"content": 7}), "content"),
    ] {
        let (status, body) = answer(app.post_as("agent", &write, &content)).await;
        assert_eq!(
            (status, &body["details"][0]["field"]),
            (400, &json!(field)),
            "{body}"
        );
    }
    for (role, status) in [("nobody", 401), ("auditor", 403)] {
        assert_eq!(answer(app.post_as(role, &write, &said)).await.0, status);
    }
    let (status, _) =
        answer(app.post_as("agent", "/api/conversations/573009999999/messages", &said)).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn conversations_are_listed_searched_and_paged() {
    let app = TestApp::start().await;
    let phone = |n: i32| format!("+57300{n:07}");
    for n in 1..=5 {
        app.clock.advance(chrono::Duration::seconds(10));
        writes(&app, &phone(n), &format!("SM{n}"), "Hola").await;
    }
    began(&app, "rcpt_2", &phone(2)).await;
    let escalated = Changed {
        by: "user:7".to_owned(),
        reason: None,
    };
    let event = Event::Conversation(Decision::Escalated(escalated));
    append(&app, "conversation", &id(&app, &phone(4)), event).await;
    app.settle().await;
    let numbers = async |query: &str| {
        let list = ok(app.get_as("service", &format!("/api/conversations{query}"))).await;
        let rows = list["data"].as_array().unwrap().clone();
        let numbers: Vec<_> = rows
            .iter()
            .map(|it| it["phone_number"].as_str().unwrap().to_owned())
            .collect();
        (numbers, list["next_cursor"].clone())
    };
    // The first message to 2 is as old as the message of 5: the id decides.
    let (all, none) = numbers("").await;
    assert_eq!(none, Value::Null);
    assert_eq!(all[2..], [4, 3, 1].map(phone));
    let mut paged = Vec::new();
    let mut cursor = String::new();
    for _ in 0..3 {
        let (page, next) = numbers(&format!("?limit=2&cursor={cursor}")).await;
        paged.extend(page);
        cursor = next.as_str().unwrap_or_default().to_owned();
    }
    assert_eq!((paged, cursor.as_str()), (all, ""));
    for (query, found) in [
        ("?status=escalated", vec![4]),
        ("?status=closed", vec![]),
        ("?q=garcia", vec![2]),
        ("?q=ana%20garc%C3%ADa", vec![2]),
        ("?q=luis", vec![]),
        ("?q=573000000003", vec![3]),
        ("?q=%2B57%20300%20000%200003", vec![3]),
        ("?q=%2B573000000003", vec![3]),
        ("?q=5730000000", vec![]),
        ("?status=active&q=573000000004", vec![]),
    ] {
        let found: Vec<_> = found.into_iter().map(phone).collect();
        assert_eq!(numbers(query).await.0, found, "{query}");
    }
    for (query, field) in [
        ("?status=open", "status"),
        ("?limit=0", "limit"),
        ("?cursor=x", "cursor"),
        ("?q=%00", "q"),
    ] {
        let (status, body) =
            answer(app.get_as("service", &format!("/api/conversations{query}"))).await;
        assert_eq!(
            (status, &body["details"][0]["field"]),
            (400, &json!(field)),
            "{query}"
        );
    }
}

#[tokio::test]
async fn the_numbers_of_the_day_are_told() {
    let app = TestApp::start().await;
    let stats = async || {
        app.settle().await;
        let answer = ok(app.get_as("service", "/api/stats")).await;
        assert_eq!(answer["success"], true);
        answer["stats"].clone()
    };
    let nothing = json!({
        "active_conversations": 0,
        "total_conversations_today": 0,
        "messages_sent_today": 0,
        "messages_received_today": 0,
        "response_rate": 0.0,
        "avg_response_time_seconds": 0,
        "queue": {"waiting": 0, "active": 0, "completed": 0, "failed": 0}
    });
    assert_eq!(stats().await, nothing);
    let phone = |n: i32| format!("+57300{n:07}");
    for n in 1..=3 {
        let first = began(&app, &format!("rcpt_{n}"), &phone(n)).await;
        attempted(&app, &first).await;
        taken(&app, &first, Provider::Twilio, Some(&format!("SMf{n}"))).await;
    }
    app.clock.advance(chrono::Duration::seconds(60));
    for n in [1, 2, 9] {
        writes(&app, &phone(n), &format!("SM{n}"), "¿Cuánto cuesta?").await;
    }
    let sql = "select position from events where payload ->> 'message_id' = 'SM1'";
    let asked = app.count(sql).await;
    app.clock.advance(chrono::Duration::seconds(45));
    let part = answered(&app, asked, "Cien.").await;
    attempted(&app, &part).await;
    taken(&app, &part, Provider::Twilio, Some("SMa")).await;
    let told = stats().await;
    for (field, value) in [
        ("active_conversations", json!(4)),
        ("total_conversations_today", json!(4)),
        ("messages_sent_today", json!(4)),
        ("messages_received_today", json!(3)),
        ("response_rate", json!(66.7)),
        ("avg_response_time_seconds", json!(45)),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    // Two answers are still to be asked for; four messages and one turn are done.
    assert_eq!(told["queue"]["waiting"], 2, "{told}");
    assert_eq!(told["queue"]["completed"], 5, "{told}");

    // Tomorrow, by the clock of Bogotá, is another day: 5:00 UTC.
    app.clock.advance(chrono::Duration::hours(6));
    let told = stats().await;
    assert_eq!(told["active_conversations"], 4);
    for field in [
        "total_conversations_today",
        "messages_sent_today",
        "messages_received_today",
    ] {
        assert_eq!(told[field], 0, "{field}");
    }
    assert_eq!(answer(app.get_as("nobody", "/api/stats")).await.0, 401);
}

#[tokio::test]
async fn a_conversation_of_the_past_is_shown_as_it_was_shown_then() {
    let app = TestApp::start().await;
    let paths = [
        path(ANA),
        path("+573007654321"),
        format!("/api/conversations/{}", id(&app, ANA)),
    ];
    let mut past = Past::default();
    past.keep(&app, &paths).await;
    let effect_id = began(&app, "rcpt_1", ANA).await;
    past.keep(&app, &paths).await;
    attempted(&app, &effect_id).await;
    let sid = Some("SM1234567890abcdef");
    taken(&app, &effect_id, Provider::Twilio, sid).await;
    past.keep(&app, &paths).await;
    app.clock.advance(chrono::Duration::seconds(30));
    let asked = writes(&app, ANA, "SMa", "¿Cuánto cuesta?").await;
    writes(&app, "+573007654321", "SMb", "Hola").await;
    past.keep(&app, &paths).await;
    let part = answered(&app, asked, "Cien pesos.").await;
    past.keep(&app, &paths).await;
    refused(&app, &part, "63016", Remedy::DeadLetter).await;
    past.keep(&app, &paths).await;
    for change in ["escalate", "resume", "close"] {
        let path = format!("{}/{change}", path(ANA));
        ok(app.post_as("supervisor", &path, &json!({}))).await;
        past.keep(&app, &paths).await;
    }
    let words = json!({"content": "Le escribe Luis."});
    let path = format!("{}/messages", path(ANA));
    ok(app.post_as("supervisor", &path, &words)).await;
    writes(&app, ANA, "SMc", "baja").await;
    past.keep(&app, &paths).await;
    assert!(past.different() >= 10, "{}", past.different());
    past.is_answered_again(&app).await;
    assert_equal_a_rebuild(&app.pool).await;
    past.is_answered_again(&app).await;
    app.stop().await;
}
