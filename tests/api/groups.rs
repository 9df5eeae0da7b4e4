//! Groups, their clients, and calling them.

use base64::Engine as _;
use bitacora::batches::Outcome;
use bitacora::groups::calls::{self, Wish};
use domain::PhoneNumber;
use domain::batch::{Batch, Command, GroupPart, Recipient, Requested};
use sandbox::{AGENT_SURVEY, Control, Fault, PHONE_TWILIO, Sandbox, Scripted};
use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::app::{BEGINNING_UNIX, Options, answer, ok};

const CSV: &str = "Nombre;Teléfono;Empresa;ciudad
Dr. García;300-123-4567;Hospital Central;Barranquilla
Dra. Peña;(300) 765-4321;;Cali
Otra vez;+57 300 123 4567;;
Nadie;123;;
";

fn base64(document: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(document)
}

async fn provider() -> Sandbox {
    let options = sandbox::Options {
        manual_clock: true,
        clock_start_unix: Some(BEGINNING_UNIX.unsigned_abs()),
        ..sandbox::Options::default()
    };
    Sandbox::start(options).await.unwrap()
}

async fn app_with(provider: &Sandbox) -> TestApp {
    TestApp::with(Options {
        providers_url: Some(provider.url()),
        ..Options::default()
    })
    .await
}

/// The answer to a command, which must have this status; its `data`.
async fn told(request: reqwest::RequestBuilder, status: u16) -> Value {
    let (got, body) = answer(request).await;
    assert_eq!(got, status, "{body}");
    body["data"].clone()
}

async fn group(app: &TestApp, body: &Value) -> i64 {
    let made = told(app.post_as("supervisor", "/api/groups", body), 201).await;
    made["id"].as_i64().unwrap()
}

async fn user(app: &TestApp, agent_id: Option<&str>) -> i64 {
    let body = json!({"name": "Ana", "email": format!("{}@example.com", agent_id.unwrap_or("none")),
                      "password": "una contraseña larga", "role": "agent", "agentId": agent_id});
    let made = told(app.post_as("admin", "/api/users", &body), 201).await;
    made["id"].as_i64().unwrap()
}

#[tokio::test]
async fn a_group_is_made_with_its_document() {
    let app = TestApp::start().await;
    let body = json!({"name": " Médicos Test ", "agentId": "agent_1", "variables": {"especialidad": "General"},
                      "base64": base64(CSV), "document_name": "clientes.csv"});
    let response = app.post_as("supervisor", "/api/groups", &body).send().await;
    let response = response.unwrap();
    assert_eq!(response.status().as_u16(), 201);
    let position = response.headers()["x-ledger-position"].to_str().unwrap();
    assert!(position.parse::<i64>().unwrap() > 0);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["message"], "Grupo creado exitosamente");
    let made = &answer["data"];
    assert_eq!(made["name"], "Médicos Test");
    assert_eq!(
        (&made["clientsCount"], &made["prefix"]),
        (&json!(2), &json!("+57"))
    );
    let expected = json!([
        {"row": 4, "reason": "el teléfono está repetido: ya está en la fila 2"},
        {"row": 5, "reason": "el teléfono no es un número válido"},
    ]);
    assert_eq!(made["rejected"], expected);

    let id = made["id"].as_i64().unwrap();
    let read = app.read(&format!("/api/groups/{id}")).await;
    assert_eq!(read["data"]["clientsCount"], 2);
    assert_eq!(read["data"]["createdBy"], "user:7");
    let list = app.read("/api/groups").await;
    assert_eq!(list["data"][0]["id"], id);
    let clients = app.read(&format!("/api/groups/{id}/clients")).await;
    let first = &clients["data"][0];
    assert_eq!(first["name"], "Dr. García");
    assert_eq!(first["phone"], "+57******4567");
    assert_eq!(first["variables"], json!({"ciudad": "Barranquilla"}));
}

#[tokio::test]
async fn numbers_of_clients_are_shown_on_record_to_those_who_may() {
    let app = TestApp::start().await;
    let id = group(&app, &json!({"name": "a", "base64": base64(CSV)})).await;
    let path = format!("/api/groups/{id}/clients?reveal=true");
    let shown = ok(app.get_as("supervisor", &path)).await;
    assert_eq!(shown["data"][0]["phone"], "+573001234567");
    let (status, _) = answer(app.get_as("agent", &path)).await;
    assert_eq!(status, 403);
    app.settle().await;
    let log = app.read("/api/audit-log?action=reveal_group_clients").await;
    let outcomes: Vec<_> = log["data"].as_array().unwrap().iter().collect();
    assert_eq!(outcomes.len(), 2, "{log}");
    assert_eq!(outcomes[0]["target"], format!("group:{id}"));
}

#[tokio::test]
async fn clients_and_settings_change_and_can_be_read_at_once() {
    let app = TestApp::start().await;
    let id = group(&app, &json!({"name": "a", "agentId": "agent_1"})).await;
    let clients = json!({"clients": [
        {"name": "Ana", "phone": "3001234567", "variables": {"saldo": 1200.5}},
        {"name": "Ana otra vez", "phone": "+57 300 123 4567"},
        {"name": "Nadie", "phone": "12"},
    ]});
    let path = format!("/api/groups/{id}/clients");
    let added = told(app.post_as("service", &path, &clients), 201).await;
    assert_eq!(
        (&added["added"], &added["clientsCount"]),
        (&json!(1), &json!(1))
    );
    let expected = json!([
        {"row": 2, "reason": "el teléfono está repetido"},
        {"row": 3, "reason": "el teléfono no es un número válido"},
    ]);
    assert_eq!(added["rejected"], expected);
    let again = told(app.post_as("service", &path, &clients), 201).await;
    assert_eq!(again["added"], 0);
    assert_eq!(
        again["rejected"][0]["reason"],
        "el teléfono ya está en el grupo"
    );

    let patch = json!({"name": "b", "agentId": null, "variables": {"ciudad": "Cali"}});
    let request = app.client.patch(format!("{}/api/groups/{id}", app.url));
    let request = request.bearer_auth(app.token("agent")).json(&patch);
    let changed = told(request, 200).await;
    assert_eq!(
        (&changed["name"], &changed["agentId"]),
        (&json!("b"), &Value::Null)
    );
    assert_eq!(changed["variables"], json!({"ciudad": "Cali"}));
    let request = app.client.patch(format!("{}/api/groups/{id}", app.url));
    let request = request.bearer_auth(app.token("auditor")).json(&patch);
    assert_eq!(answer(request).await.0, 403);
}

#[tokio::test]
async fn what_is_wrong_with_a_group_is_told() {
    let app = TestApp::start().await;
    let large = "x".repeat(2 << 20);
    for (body, status, message) in [
        (json!({}), 400, "name is required"),
        (
            json!({"name": 7}),
            400,
            "name invalid type: integer `7`, expected a string",
        ),
        (
            json!({"name": "  "}),
            400,
            "name must have 1 to 200 characters",
        ),
        (
            json!({"name": "a", "prefix": "abc"}),
            400,
            "prefix must be a country code such as +57",
        ),
        (
            json!({"name": "a", "variables": {"x": []}}),
            400,
            "variables must hold texts, numbers and truth values only",
        ),
        (
            json!({"name": "a", "base64": "%%%"}),
            400,
            "El documento no está en base64",
        ),
        (
            json!({"name": "a", "base64": base64("nombre\nAna\n")}),
            400,
            "El documento no tiene una columna de teléfono (phone, telefono o celular)",
        ),
        (
            json!({"name": "a", "base64": base64([0, 1, 2])}),
            400,
            "El documento no se puede leer: está dañado o no es xlsx, xls, ods ni csv",
        ),
        (
            json!({"name": "a", "base64": base64(large)}),
            400,
            "El documento no tiene una columna de teléfono (phone, telefono o celular)",
        ),
    ] {
        let (got, answer) = answer(app.post_as("admin", "/api/groups", &body)).await;
        assert_eq!(
            (got, &answer["message"]),
            (status, &json!(message)),
            "{answer}"
        );
        assert_eq!(answer["error"], answer["message"]);
    }
    let unknown = answer(app.get_as("admin", "/api/groups/99")).await;
    assert_eq!(
        (unknown.0, &unknown.1["message"]),
        (404, &json!("Grupo no encontrado"))
    );
    let large = json!({"name": "a", "base64": "x".repeat(2 << 20)});
    let (status, _) = answer(app.post_as("nobody", "/api/groups", &large)).await;
    assert_eq!(status, 413, "large bodies are for those who are known");
    assert_eq!(app.count("select count(*) from groups").await, 0);
}

#[tokio::test]
async fn a_field_that_is_missing_or_wrong_is_told_by_its_name() {
    let app = TestApp::start().await;
    let id = group(&app, &json!({"name": "a"})).await;
    for (path, body, field) in [
        ("clients", json!({}), "clients"),
        (
            "clients",
            json!({"clients": [{"phone": "3001234567"}, {"name": "Ana"}]}),
            "clients[1].phone",
        ),
        ("call", json!({}), "userId"),
        ("call", json!({"userId": "x"}), "userId"),
        (
            "call",
            json!({"userId": 7, "scheduledTimeUnix": -1}),
            "scheduledTimeUnix",
        ),
        ("prepare-agent", json!({}), "userId"),
    ] {
        let path = format!("/api/groups/{id}/{path}");
        let (status, answer) = answer(app.post_as("admin", &path, &body)).await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(answer["details"][0]["field"], field, "{answer}");
    }
    let url = format!("{}/api/groups/{id}/call", app.url);
    let nothing = app.client.post(url).bearer_auth(app.token("agent"));
    let (status, answer) = answer(nothing).await;
    assert_eq!(
        (status, &answer["message"]),
        (
            400,
            &json!("ID de usuario es requerido en el body de la petición")
        )
    );
}

/// Every message of the contract, in its order.
#[tokio::test]
async fn whoever_cannot_call_a_group_is_told_why() {
    let provider = provider().await;
    let app = app_with(&provider).await;
    let bare = user(&app, None).await;
    let no_agent = group(&app, &json!({"name": "a", "base64": base64(CSV)})).await;
    let nobody = group(&app, &json!({"name": "b", "agentId": AGENT_SURVEY})).await;
    let whole = json!({"name": "c", "agentId": AGENT_SURVEY, "base64": base64(CSV)});
    let whole = group(&app, &whole).await;
    let refuse = Control {
        script: vec![Scripted {
            operation: "elevenlabs.phone_number_list".to_owned(),
            times: 9,
            fault: Fault::Refuse(401),
        }],
        ..Control::default()
    };
    provider.control(refuse).await.unwrap();
    let who = "ID de usuario es requerido en el body de la petición";
    let agent =
        "El grupo no tiene un agente asignado. Por favor, asigna un agente al crear el grupo.";
    let number = "No hay números de teléfono disponibles. Por favor, configura un phoneNumberId.";
    for (id, body, status, message) in [
        (99, json!({}), 400, who),
        (whole, json!({"userId": null}), 400, who),
        (99, json!({"userId": 99}), 404, "Grupo no encontrado"),
        (
            no_agent,
            json!({"userId": 99}),
            404,
            "Usuario no encontrado",
        ),
        (no_agent, json!({"userId": bare}), 400, agent),
        (
            nobody,
            json!({"userId": bare}),
            400,
            "El grupo no tiene clientes asignados para llamar",
        ),
        (whole, json!({"userId": bare}), 400, number),
    ] {
        let path = format!("/api/groups/{id}/call");
        let (got, answer) = answer(app.post_as("agent", &path, &body)).await;
        assert_eq!(
            (got, &answer["message"]),
            (status, &json!(message)),
            "{answer}"
        );
        assert_eq!(answer["error"], answer["message"]);
        assert_eq!(answer["success"], false);
    }
    let body = json!({"userId": bare});
    let path = format!("/api/groups/{whole}/call");
    let (status, _) = answer(app.post_as("auditor", &path, &body)).await;
    assert_eq!(status, 403);
    assert_eq!(provider.truth().batches.len(), 0);
    app.stop().await;
    provider.stop().await;
}

#[tokio::test]
async fn a_group_is_called_once_and_its_calls_can_be_followed() {
    let provider = provider().await;
    let app = app_with(&provider).await;
    let user = user(&app, Some(AGENT_SURVEY)).await;
    let body =
        json!({"name": "Médicos Test", "variables": {"ciudad": "Bogotá"}, "base64": base64(CSV)});
    let id = group(&app, &body).await;
    let path = format!("/api/groups/{id}/call");
    let body = json!({"userId": user, "agentPhoneNumberId": null, "scheduledTimeUnix": null});
    let call = || {
        app.post_as("agent", &path, &body)
            .header("Idempotency-Key", "k1")
    };
    let answer = ok(call()).await;
    assert_eq!(
        answer["message"],
        "Llamadas iniciadas exitosamente para el grupo \"Médicos Test\""
    );
    let data = &answer["data"];
    // 2025-10-28 23:30 in UTC is the same day in Bogotá.
    assert_eq!(data["callName"], "Llamada Médicos Test - 28/10/2025");
    assert_eq!(data["agentId"], AGENT_SURVEY);
    assert_eq!(
        (&data["groupId"], &data["recipientsCount"]),
        (&json!(id), &json!(2))
    );
    assert_eq!(data["batchData"]["id"], data["batchId"]);
    assert_eq!(
        data["batchData"]["recipients"][0]["phone_number"],
        "+57******4567"
    );
    assert_eq!(ok(call()).await, answer, "the first answer again");
    // The first process was killed before it could keep its answer.
    sqlx::query("delete from idempotency_keys")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(
        ok(call()).await["data"]["batchId"],
        answer["data"]["batchId"]
    );

    let truth = provider.truth();
    assert_eq!(truth.batches.len(), 1);
    assert_eq!(truth.batches[0].recipients.len(), 2);
    let sent = &truth.requests["elevenlabs.batch_submit"].requests[0].body;
    let sent: Value = serde_json::from_str(sent).unwrap();
    assert_eq!(sent["agent_phone_number_id"], PHONE_TWILIO);
    let told = &sent["recipients"][0]["conversation_initiation_client_data"]["dynamic_variables"];
    let expected =
        json!({"ciudad": "Barranquilla", "empresa": "Hospital Central", "name": "Dr. García"});
    assert_eq!(told, &expected);

    let batch = data["batchId"].as_str().unwrap();
    let list = app.read(&format!("/api/groups/{id}/batch-status")).await;
    assert_eq!(list["data"][0]["batch_id"], batch);
    let one = app
        .read(&format!("/api/groups/{id}/batch-status/{batch}"))
        .await;
    assert_eq!(one["data"]["counts"]["total"], 2);
    let other = group(&app, &json!({"name": "otro"})).await;
    let path = format!("/api/groups/{other}/batch-status/{batch}");
    assert_eq!(
        crate::harness::app::answer(app.get_as("admin", &path))
            .await
            .0,
        404
    );
    let stats = app.read(&format!("/api/groups/{id}/call-stats")).await;
    assert_eq!(stats["data"]["total"], 2);
    assert_eq!(stats["data"]["per_day"][0]["date"], "2025-10-28");
    let history = app.read(&format!("/api/groups/{id}/call-history")).await;
    assert!(history["data"].is_array());
    app.stop().await;
    provider.stop().await;
}

/// The process was killed when the first part was on the ledger and the second
/// was not; since then somebody joined the group.
#[tokio::test]
async fn a_call_that_was_killed_between_its_parts_is_completed() {
    let provider = provider().await;
    let app = app_with(&provider).await;
    let user = user(&app, None).await;
    let number = |n: usize| format!("+57300{n:07}");
    let lines: String = (0..10_001).map(|n| number(n) + "\n").collect();
    let body = json!({"name": "Todos", "agentId": AGENT_SURVEY, "base64": base64(format!("phone\n{lines}"))});
    let id = group(&app, &body).await;
    let call_id = uuid::Uuid::from_u128(7);
    let recipient = |n| Recipient {
        phone_number: PhoneNumber::parse(&number(n)).unwrap(),
        dynamic_variables: serde_json::Map::new(),
        client_id: None,
    };
    let order = Requested {
        batch_id: calls::part_id(call_id, 0),
        call_name: "Llamada de ayer".to_owned(),
        agent_id: AGENT_SURVEY.to_owned(),
        agent_phone_number_id: PHONE_TWILIO.to_owned(),
        scheduled_time_unix: None,
        phone_provider: None,
        group: Some(GroupPart {
            group_id: i32::try_from(id).unwrap(),
            call_id: call_id.to_string(),
            part: 0,
            parts: 2,
        }),
        requested_by: "user:7".to_owned(),
        requested_at: app.clock.now(),
        recipients: (0..10_000).map(recipient).collect(),
    };
    let request = || Command::Request(Box::new(order.clone()));
    let nothing = std::collections::HashMap::new();
    let service = &app.running.as_ref().unwrap().app;
    service
        .store
        .execute::<Batch>(&order.batch_id, request, nothing)
        .await
        .unwrap();
    let path = format!("/api/groups/{id}/clients");
    let late = json!({"clients": [{"name": "Tarde", "phone": number(10_001)}]});
    told(app.post_as("service", &path, &late), 201).await;

    let wish = || Wish {
        call_id,
        user_id: i32::try_from(user).ok(),
        phone_number_id: None,
        scheduled_time_unix: None,
    };
    for _ in 0..2 {
        let group_id = i32::try_from(id).unwrap();
        let metadata = std::collections::HashMap::new();
        let called = calls::call(service, group_id, wish(), metadata)
            .await
            .unwrap();
        assert_eq!(called.call_name, order.call_name);
        let done = |it: &Outcome| matches!(it, Outcome::Done(_));
        assert!(called.parts.iter().all(|(_, part)| done(&part.outcome)));
        let truth = provider.truth();
        let sizes: Vec<_> = truth.batches.iter().map(|it| it.recipients.len()).collect();
        assert_eq!(sizes.iter().max(), Some(&10_000));
        assert_eq!(sizes.len(), 2, "{sizes:?}");
        let recipients = truth.batches.iter().flat_map(|it| &it.recipients);
        let mut numbers: Vec<_> = recipients
            .filter_map(|it| it.phone_number.as_deref())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(sizes.iter().sum::<usize>(), numbers.len(), "none twice");
        assert!((0..10_001).all(|n| numbers.binary_search(&number(n).as_str()).is_ok()));
    }
    let mut other = wish();
    other.scheduled_time_unix = Some(BEGINNING_UNIX + 86_400);
    let refused = calls::call(
        service,
        i32::try_from(id).unwrap(),
        other,
        Default::default(),
    )
    .await;
    assert!(refused.is_err(), "another wish under the same id");
    app.stop().await;
    provider.stop().await;
}

#[tokio::test]
async fn an_agent_is_told_of_the_group_beside_what_it_knows() {
    let provider = provider().await;
    let app = app_with(&provider).await;
    let user = user(&app, None).await;
    let body = json!({"name": "Médicos", "agentId": AGENT_SURVEY, "variables": {"ciudad": "Cali"}});
    let id = group(&app, &body).await;
    let path = format!("/api/groups/{id}/prepare-agent");
    for _ in 0..2 {
        let prepared = ok(app.post_as("agent", &path, &json!({"userId": user}))).await;
        assert_eq!(prepared["message"], "Agente preparado exitosamente");
        let expected = json!({"client_name": "cliente", "ciudad": "Cali", "group_name": "Médicos"});
        assert_eq!(prepared["data"]["variables"], expected);
    }
    let changes = provider.truth().request_count("elevenlabs.agent_update");
    assert_eq!(changes, 1, "nothing was new the second time");
    let (status, _) = answer(app.post_as("agent", &path, &json!({}))).await;
    assert_eq!(status, 400);
    app.stop().await;
    provider.stop().await;
}
