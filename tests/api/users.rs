//! Logins, and the people who have one. Contract, sections 0 and 4.

use std::collections::BTreeSet;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{Duration, SecondsFormat};
use futures_util::future::join_all;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::errors::{UNKNOWN_ID, assert_error, header, invalid};
use crate::harness::app::{BEGINNING_UNIX, Options, SERVICE_TOKEN, answer, ok};
use crate::harness::{TestApp, postgres};

const EMAIL: &str = "ana@example.com";
const PASSWORD: &str = "una contraseña larga";
/// What somebody waits for at most.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
const TAKEN: &str = "a user with this e-mail address exists already";

fn somebody(email: &str, role: &str) -> Value {
    json!({"name": "Ana García", "email": email, "password": PASSWORD, "role": role})
}

/// Registers somebody, who gets the password [`PASSWORD`].
async fn register(app: &TestApp, email: &str, role: &str) -> Value {
    let request = app.post_as("admin", "/api/users", &somebody(email, role));
    let (status, body) = answer(request).await;
    assert_eq!(status, 201, "{body}");
    body["data"].clone()
}

fn login(app: &TestApp, email: &str, password: &str) -> RequestBuilder {
    let body = json!({"email": email, "password": password});
    app.post_as("nobody", "/api/auth/login", &body)
}

/// A login from another network address.
fn login_from(app: &TestApp, from: &str, email: &str, password: &str) -> RequestBuilder {
    login(app, email, password).header("X-Forwarded-For", from)
}

async fn behind_a_proxy() -> TestApp {
    let config = |config: &mut bitacora::config::Config| config.trust_proxy = true;
    TestApp::with(Options {
        config,
        ..Options::default()
    })
    .await
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// Too many: nothing but the wait tells one refusal from another.
async fn assert_closed(what: &str, request: RequestBuilder, retry_after: &str) {
    let response = request.try_clone().unwrap().send().await.unwrap();
    assert_eq!(
        header(&response, "retry-after"),
        Some(retry_after),
        "{what}"
    );
    let message = "Too many failed logins, try again later";
    let expected = (429, "too_many_requests", message, Value::Null);
    assert_error(what, request, expected).await;
}

#[tokio::test]
async fn a_login_gives_a_token_of_twelve_hours_with_the_contracts_claims() {
    let app = TestApp::start().await;
    let user = register(&app, EMAIL, "supervisor").await;
    let body = ok(login(&app, " Ana@Example.COM ", PASSWORD)).await;
    let end = app.clock.now() + Duration::hours(12);
    let token = body["token"].as_str().unwrap();
    let session = json!({
        "token": token, "expires_at": end.to_rfc3339_opts(SecondsFormat::Secs, true), "user": user,
    });
    let mut whole = session.clone();
    whole["success"] = true.into();
    whole["data"] = session;
    assert_eq!(body, whole);

    let mut parts = token.split('.').map(|part| {
        let json = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        serde_json::from_slice::<Value>(&json).unwrap_or_default()
    });
    assert_eq!(parts.next().unwrap()["alg"], "HS256");
    let claims = json!({
        "sub": user["id"].to_string(), "role": "supervisor",
        "iat": BEGINNING_UNIX, "exp": BEGINNING_UNIX + 12 * 3600,
    });
    assert_eq!(parts.next().unwrap(), claims);

    let users = || {
        let request = app.client.get(format!("{}/api/users", app.url));
        status(request.bearer_auth(token))
    };
    app.clock
        .advance(Duration::hours(12) - Duration::seconds(1));
    assert_eq!(users().await, 200, "in its last second");
    app.clock.advance(Duration::seconds(1));
    assert_eq!(users().await, 401, "when it is over");
    app.stop().await;
}

/// Each credential has its own header and its own rights, and a person's word
/// counts where both are brought.
#[tokio::test]
async fn a_service_token_is_no_login_and_a_login_is_no_service_token() {
    let app = TestApp::start().await;
    register(&app, EMAIL, "admin").await;
    let token = ok(login(&app, EMAIL, PASSWORD)).await["token"].clone();
    let token = token.as_str().unwrap();
    let get = |path: &str| app.client.get(format!("{}{path}", app.url));
    for (what, request, expected) in [
        ("a login", get("/metrics").bearer_auth(token), 401),
        (
            "a login as a service",
            get("/metrics").header("X-Service-Token", token),
            401,
        ),
        (
            "a service",
            get("/metrics").header("X-Service-Token", SERVICE_TOKEN),
            200,
        ),
        (
            "a service",
            get("/api/users").header("X-Service-Token", SERVICE_TOKEN),
            200,
        ),
        (
            "a service as a login",
            get("/api/users").bearer_auth(SERVICE_TOKEN),
            401,
        ),
        (
            "a service",
            get("/api/audit-log").header("X-Service-Token", SERVICE_TOKEN),
            403,
        ),
        ("a login", get("/api/audit-log").bearer_auth(token), 200),
    ] {
        assert_eq!(status(request).await, expected, "{what}");
    }
    let both = app
        .post_as(
            "service",
            "/api/users",
            &somebody("eva@example.com", "agent"),
        )
        .bearer_auth(token);
    assert_eq!(status(both).await, 201, "a service may not, the admin may");
    let log = app.read("/api/audit-log?action=create_user&limit=1").await;
    assert_eq!(log["data"][0]["actor"], "user:1", "{log}");
    app.stop().await;
}

#[tokio::test]
async fn whoever_may_not_register_anybody_learns_nothing_of_the_body() {
    let app = TestApp::start().await;
    let roles = ["agent", "supervisor", "auditor", "service"];
    for role in roles {
        let request = app.post_as(role, "/api/users", &json!({}));
        assert_eq!(status(request).await, 403, "{role}");
    }
    app.settle().await;
    let log = app.read("/api/audit-log?action=create_user").await;
    let rows = log["data"].as_array().unwrap();
    assert_eq!(rows.len(), roles.len(), "{log}");
    assert!(rows.iter().all(|row| row["outcome"] == "forbidden"));
    let request = app.post_as("admin", "/api/users", &json!({}));
    assert_eq!(status(request).await, 400);
    app.stop().await;
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_are_told_apart_by_nothing() {
    let app = behind_a_proxy().await;
    register(&app, EMAIL, "agent").await;
    let mut answers = Vec::new();
    for (email, password) in [
        (EMAIL, "not the password"),
        ("nobody@example.com", "not the password"),
        ("nobody@example.com", "nobody has this password"),
        (EMAIL, ""),
        ("", ""),
        ("nobody\u{0}@example.com", PASSWORD),
        ("' or 1=1 --", PASSWORD),
    ] {
        let response = login(&app, email, password).send().await.unwrap();
        let status = response.status();
        let own = ["x-request-id", "date"];
        let headers: Vec<(String, Vec<u8>)> = response
            .headers()
            .iter()
            .filter(|(name, _)| !own.contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        let mut body: Value = response.json().await.unwrap();
        assert!(body["request_id"].take().is_string());
        answers.push((status, headers, body));
    }
    assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
    let message = "Unauthorized";
    let body = json!({
        "success": false, "message": message, "error": message, "code": "unauthorized", "request_id": null,
    });
    assert_eq!(answers[0].2, body);
    for other in &answers[1..] {
        assert_eq!(other, &answers[0]);
    }
    // Refused alike, too: an address that is nobody's closes like any other.
    for (n, email) in [EMAIL, "other@example.com"].iter().enumerate() {
        let from = format!("10.1.{n}");
        for guess in 0..10 - usize::from(n == 0) * 2 {
            let request = login_from(&app, &format!("{from}.{guess}"), email, "wrong");
            assert_eq!(status(request).await, 401, "{email}: {guess}");
        }
        let request = login_from(&app, &format!("{from}.99"), email, PASSWORD);
        assert_closed(email, request, "900").await;
    }
    app.stop().await;
}

#[tokio::test]
async fn ten_failures_close_an_e_mail_address_until_the_first_is_fifteen_minutes_old() {
    let app = behind_a_proxy().await;
    register(&app, EMAIL, "agent").await;
    register(&app, "eva@example.com", "agent").await;
    let guess = |n: usize| login_from(&app, &format!("10.0.0.{n}"), EMAIL, "wrong");
    let right = || login_from(&app, "10.0.1.1", " ANA@example.com", PASSWORD);
    assert_eq!(status(guess(0)).await, 401);
    app.clock.advance(Duration::minutes(1));
    for n in 1..10 {
        assert_eq!(status(guess(n)).await, 401, "{n}");
    }
    assert_closed("the right password, late", right(), "840").await;
    let eva = login_from(&app, "10.0.1.1", "eva@example.com", PASSWORD);
    assert_eq!(status(eva).await, 200, "nobody else is shut out");
    // What was refused is no attempt: it lengthens nothing.
    app.clock
        .advance(Duration::minutes(14) - Duration::seconds(1));
    assert_closed("a second too early", right(), "1").await;
    app.clock.advance(Duration::seconds(1));
    assert_eq!(status(right()).await, 200, "the first failure is forgotten");
    // Whoever is back starts anew.
    for n in 0..10 {
        assert_eq!(status(guess(n)).await, 401, "{n}");
    }
    assert_closed("closed again", right(), "900").await;
    app.stop().await;
}

#[tokio::test]
async fn ten_failures_close_a_network_address_whoever_it_asks_for() {
    let app = behind_a_proxy().await;
    register(&app, EMAIL, "agent").await;
    let right = |from: &str| login_from(&app, from, EMAIL, PASSWORD);
    for n in 0..9 {
        let request = login_from(&app, "10.0.0.1", &format!("{n}@example.com"), "wrong");
        assert_eq!(status(request).await, 401, "{n}");
    }
    assert_eq!(status(right("10.0.0.1")).await, 200);
    let tenth = login_from(&app, "10.0.0.1", "9@example.com", "wrong");
    assert_eq!(
        status(tenth).await,
        401,
        "a success forgives no guesses at others"
    );
    assert_closed("from there", right("10.0.0.1"), "900").await;
    // Only the last entry is the proxy's word; what the caller made up is not.
    assert_closed("in disguise", right("10.9.9.9, 10.0.0.1"), "900").await;
    assert_eq!(status(right("10.0.0.2")).await, 200, "from elsewhere");
    app.clock.advance(Duration::minutes(15));
    assert_eq!(
        status(right("10.0.0.1")).await,
        200,
        "a quarter of an hour on"
    );
    app.stop().await;
}

#[tokio::test]
async fn guesses_at_once_are_counted_one_by_one() {
    let app = TestApp::start().await;
    register(&app, EMAIL, "agent").await;
    let guesses = join_all((0..30).map(|_| status(login(&app, EMAIL, "wrong")))).await;
    let count = |wanted: u16| guesses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(401), count(429)), (10, 20), "{guesses:?}");
    app.stop().await;
}

#[tokio::test]
async fn an_admin_registers_people_and_they_can_log_in_at_once() {
    let app = TestApp::start().await;
    let long = "ñ".repeat(200);
    for (at, name, email, password, role, agent) in [
        (
            1,
            "  Ana García ",
            " Ana@Example.COM ",
            "8 signos",
            "agent",
            json!("agent_1"),
        ),
        (
            2,
            long.as_str(),
            "eva+1@example.com",
            long.as_str(),
            "supervisor",
            Value::Null,
        ),
        (
            3,
            "O'Neil; drop table users",
            "o'neil@example.com",
            "  12345678  ",
            "admin",
            Value::Null,
        ),
        (
            4,
            "审计",
            "auditor@ejemplo.example",
            "🔑🔑🔑🔑🔑🔑🔑🔑",
            "auditor",
            json!("a".repeat(200)),
        ),
    ] {
        let body = json!({"name": name, "email": email, "password": password, "role": role, "agentId": agent});
        let request = app.post_as("admin", "/api/users", &body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 201, "{name}");
        let position: i64 = header(&response, "x-ledger-position")
            .unwrap()
            .parse()
            .unwrap();
        let (audited, kind): (i64, String) = sqlx::query_as(
            "select position, event_type from events order by position desc limit 1",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap();
        assert_eq!((position, kind.as_str()), (audited, "audit.recorded"));
        let expected = json!({
            "id": at, "name": name.trim(), "email": email.trim().to_lowercase(), "role": role, "agentId": agent,
        });
        let got: Value = response.json().await.unwrap();
        assert_eq!(got, json!({"success": true, "data": expected}));
        let list = app.read("/api/users").await;
        assert_eq!(
            list["data"][at - 1],
            expected,
            "a read that follows shows it"
        );
        assert_eq!(ok(login(&app, email, password)).await["user"], expected);
        assert_eq!(
            status(login(&app, email, password.trim_end_matches(' '))).await,
            if password.ends_with(' ') { 401 } else { 200 }
        );
    }
    // A password and what it can be guessed from are in no event.
    let ledger: Vec<String> = sqlx::query_scalar("select e::text from events e")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    let ledger = ledger.concat();
    for secret in ["8 signos", "12345678", "🔑", "argon2"] {
        assert!(!ledger.contains(secret), "{secret}");
    }
    app.stop().await;
}

#[tokio::test]
async fn each_field_of_a_new_person_is_checked() {
    let app = TestApp::start().await;
    let name = "must have 1 to 200 characters";
    let email = "is not an e-mail address";
    let password = "must have 8 to 200 characters";
    let role = "must be one of: agent, supervisor, admin, auditor";
    let agent = "must have at most 200 characters";
    let (long, longer) = ("x".repeat(201), format!("{}@example.com", "x".repeat(243)));
    let rows = [
        ("name", "", name),
        ("name", " \t ", name),
        ("name", &long, name),
        ("name", "A\u{0}na", name),
        ("name", "A\nna", name),
        ("email", "", email),
        ("email", "ana", email),
        ("email", "@example.com", email),
        ("email", "ana@", email),
        ("email", "a@b@c", email),
        ("email", "ana garcia@example.com", email),
        ("email", "ana\u{0}@example.com", email),
        ("email", &longer, email),
        ("password", "", password),
        ("password", "7 signo", password),
        ("password", &long, password),
        ("role", "", role),
        ("role", "root", role),
        ("role", "Admin", role),
        ("agentId", &long, agent),
        ("agentId", "a\u{0}", agent),
    ];
    for (field, value, message) in rows {
        let mut body = somebody(EMAIL, "agent");
        body[field] = value.into();
        let whole = format!("{field} {message}");
        let request = app.post_as("admin", "/api/users", &body);
        assert_error(
            &format!("{field} {value:?}"),
            request,
            invalid(field, message, &whole),
        )
        .await;
    }
    for field in ["name", "email", "password", "role"] {
        for wrong in [None, Some(Value::Null), Some(json!({})), Some(json!(["x"]))] {
            let mut body = somebody(EMAIL, "agent");
            match &wrong {
                Some(wrong) => body[field] = wrong.clone(),
                None => drop(body.as_object_mut().unwrap().remove(field)),
            }
            let (status, body) = answer(app.post_as("admin", "/api/users", &body)).await;
            let got = (status, &body["code"], &body["details"][0]["field"]);
            let expected = (400, &json!("validation_error"), &json!(field));
            assert_eq!(got, expected, "{field} {wrong:?}");
        }
    }
    let registered = app.count("select count(*) from events where event_type = 'user.registered'");
    assert_eq!(registered.await, 0);
    assert_eq!(app.count("select count(*) from credentials").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_a_conflict_and_changes_nothing() {
    let app = TestApp::start().await;
    register(&app, EMAIL, "agent").await;
    for email in [EMAIL, " ANA@EXAMPLE.COM"] {
        let body =
            json!({"name": "Eva", "email": email, "password": "another password", "role": "admin"});
        let request = app.post_as("admin", "/api/users", &body);
        assert_error(email, request, (409, "email_taken", TAKEN, Value::Null)).await;
    }
    assert_eq!(status(login(&app, EMAIL, "another password")).await, 401);
    let session = ok(login(&app, EMAIL, PASSWORD)).await;
    assert_eq!(session["user"]["role"], "agent");
    app.stop().await;
}

/// On two replicas, and neither is written before both have begun: the ledger
/// is locked until both wait for a lock.
#[tokio::test]
async fn of_two_at_once_with_one_address_one_is_registered_and_that_one_can_log_in() {
    let database_url = postgres::fresh_database().await;
    let replica = |seed: u64| {
        TestApp::with(Options {
            database_url: Some(database_url.clone()),
            seed,
            ..Options::default()
        })
    };
    let (app, other_app) = (replica(1).await, replica(2).await);
    let passwords = ["the password of one", "the password of the other"];
    for (at, names) in [["Ana", "Eva"], ["Ana", "Ana"]].into_iter().enumerate() {
        let email = format!("{at}@example.com");
        let body = |which: usize| json!({"name": names[which], "email": email, "password": passwords[which], "role": "agent"});
        let both = [
            app.post_as("admin", "/api/users", &body(0)),
            other_app.post_as("admin", "/api/users", &body(1)),
        ];
        let mut held = bitacora::transaction::begin(&app.pool).await.unwrap();
        sqlx::query("select ledger_lock()")
            .execute(&mut *held)
            .await
            .unwrap();
        let answers = tokio::spawn(join_all(both.map(answer)));
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                         and database = (select oid from pg_database where datname = current_database())";
        let deadline = Instant::now() + PATIENCE;
        while app.count(waiting).await < 2 {
            assert!(Instant::now() < deadline, "they do not wait");
            tokio::task::yield_now().await;
        }
        held.rollback().await.unwrap();
        let answers = answers.await.unwrap();
        let statuses: BTreeSet<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, BTreeSet::from([201, 409]), "{answers:?}");
        for ((got, _), password) in answers.iter().zip(passwords) {
            let expected = if *got == 201 { 200 } else { 401 };
            let got = status(login(&app, &email, password)).await;
            assert_eq!(got, expected, "{names:?}: {password}");
        }
    }
    let registered = app.count("select count(*) from events where event_type = 'user.registered'");
    assert_eq!(registered.await, 2);
    other_app.stop().await;
    app.stop().await;
}

#[tokio::test]
async fn people_are_listed_page_by_page_in_the_order_of_their_numbers() {
    let app = TestApp::start().await;
    let mut people = Vec::new();
    for (n, role) in ["agent", "supervisor", "admin", "auditor", "agent"]
        .into_iter()
        .enumerate()
    {
        people.push(register(&app, &format!("{n}@example.com"), role).await);
    }
    for limit in [1, 2, 5, 200] {
        let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let page = app
                .read(&format!("/api/users?limit={limit}&cursor={cursor}"))
                .await;
            let rows = page["data"].as_array().unwrap();
            assert!(rows.len() <= limit && !rows.is_empty(), "{page}");
            seen.extend(rows.clone());
            pages += 1;
            assert!(pages < 10, "pages without end");
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!(
            (seen, pages),
            (people.clone(), 5_usize.div_ceil(limit)),
            "{limit}"
        );
    }
    app.stop().await;
}

/// Every operation of the document that asks for a person: with an example of
/// its body, so that nothing but the role decides.
fn operations() -> Vec<(String, String, Value)> {
    let document: Value = serde_json::from_str(&bitacora::http::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if !operation["security"].to_string().contains("\"person\"") {
                continue;
            }
            let content = operation["requestBody"]["content"].as_object();
            let schema = content.and_then(|it| it.values().next()?["schema"]["$ref"].as_str());
            let name = schema.and_then(|it| it.rsplit('/').next());
            let example = |name| &document["components"]["schemas"][name]["example"];
            let body = match name {
                Some("GroupPatch") => json!({"name": "Clientes"}),
                Some("NewClients") => {
                    json!({"clients": [{"name": "Juan", "phone": "+573001234567"}]})
                }
                Some("AgentPreparation") => json!({"userId": 1}),
                Some(name) => example(name).clone(),
                None => json!({}),
            };
            assert!(body.is_object(), "{method} {path} has no example");
            let parameters = operation["parameters"].as_array();
            let is_number = |it: &Value| it["name"] == "id" && it["schema"]["type"] == "integer";
            let numbered = parameters.is_some_and(|it| it.iter().any(is_number));
            let path = path
                .replace("{id}", if numbered { "999999" } else { UNKNOWN_ID })
                .replace("{position}", "999999")
                .replace("{index}", "000")
                .replace("{name}", "interactions")
                .replace("{phone}", "%2B573009998877")
                .replace("/api/export", "/api/export?kind=events");
            found.push((method.to_uppercase(), path, body));
        }
    }
    assert!(found.len() > 10, "{found:?}");
    found
}

#[tokio::test]
async fn each_role_may_what_the_one_below_may_and_an_auditor_reads_all_and_changes_nothing() {
    let app = TestApp::start().await;
    let facts = "select count(*) from events where event_type <> 'audit.recorded'";
    for (method, path, body) in operations() {
        let request = |role: &str| match method.as_str() {
            "GET" => app.get_as(role, &path),
            _ => {
                let (client, built) = app.post_as(role, &path, &body).build_split();
                let mut built = built.unwrap();
                *built.method_mut() = method.parse().unwrap();
                RequestBuilder::from_parts(client, built)
            }
        };
        let before = app.count(facts).await;
        let auditor = status(request("auditor")).await;
        let expected = if method == "GET" {
            auditor != 403
        } else {
            auditor == 403
        };
        assert!(expected, "{method} {path} as auditor: {auditor}");
        assert_eq!(app.count(facts).await, before, "{method} {path} as auditor");
        let mut below = false;
        for role in ["agent", "supervisor", "admin"] {
            let (got, answer) = match path.ends_with("/stream") {
                // Its answer has no end.
                true => (status(request(role)).await, Value::Null),
                false => answer(request(role)).await,
            };
            // The provider may be away: that is no matter of roles.
            let carried_out = ![400, 401, 500].contains(&got);
            assert!(carried_out, "{method} {path} as {role}: {got}: {answer}");
            let may = got != 403;
            assert!(
                may || !below,
                "{method} {path}: {role} may not what a lower role may"
            );
            below = may;
        }
        assert!(below, "{method} {path} as admin");
    }
    app.stop().await;
}
