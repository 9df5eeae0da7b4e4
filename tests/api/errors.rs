//! Bad input and bad credentials: the exact error that each gets. Contract,
//! section 0.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::app::{JWT_SECRET, Options, SERVICE_TOKEN};
use crate::harness::{TestApp, fixture, postgres};

pub const UNKNOWN_ID: &str = "0199a000-0000-7000-8000-000000000000";
const ROLES: [&str; 5] = ["agent", "supervisor", "admin", "auditor", "service"];

/// An error as it must be: status, code, message, details.
pub type Expected<'a> = (u16, &'a str, &'a str, Value);

/// Checks the whole answer: nothing more and nothing less than the contract's
/// error, with the same request id in body and header.
pub async fn assert_error(what: &str, request: RequestBuilder, expected: Expected<'_>) {
    let (status, code, message, details) = expected;
    let response = request.send().await.unwrap();
    let got = response.status().as_u16();
    let id = header(&response, "x-request-id")
        .expect("an X-Request-Id")
        .to_owned();
    assert_eq!(
        header(&response, "content-type"),
        Some("application/json; charset=utf-8"),
        "{what}"
    );
    let body: Value = response.json().await.unwrap();
    let mut whole = json!({
        "success": false, "message": message, "error": message, "code": code, "request_id": id,
    });
    if !details.is_null() {
        whole["details"] = details;
    }
    assert_eq!((got, body), (status, whole), "{what}");
}

pub fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

/// What a wrong field gets.
pub fn invalid<'a>(field: &str, message: &'a str, whole: &'a str) -> Expected<'a> {
    (
        400,
        "validation_error",
        whole,
        json!([{"field": field, "message": message}]),
    )
}

/// A row for each parameter that can be wrong, of each list and each resource.
#[tokio::test]
async fn a_malformed_parameter_is_told_by_its_name() {
    let app = TestApp::start().await;
    let long = "x".repeat(501);
    let time = "must be a time like 2025-10-28T23:29:50Z";
    let limit = "must be from 1 to 200";
    let cursor = "is none that this list gave out";
    let rows: Vec<(String, &str, &str)> = vec![
        ("/api/interactions?limit=0".into(), "limit", limit),
        ("/api/interactions?limit=201".into(), "limit", limit),
        ("/api/interactions?limit=-1".into(), "limit", limit),
        ("/api/users?limit=0".into(), "limit", limit),
        ("/api/deliveries?limit=0".into(), "limit", limit),
        ("/api/audit-log?limit=0".into(), "limit", limit),
        ("/api/ledger/events?limit=0".into(), "limit", limit),
        ("/api/interactions?cursor=x".into(), "cursor", cursor),
        ("/api/interactions?cursor=%00".into(), "cursor", cursor),
        // `["2025-01-01T00:00:00Z","\u0000"]`, which PostgreSQL cannot hold.
        (
            "/api/interactions?cursor=WyIyMDI1LTAxLTAxVDAwOjAwOjAwWiIsIlx1MDAwMCJd".into(),
            "cursor",
            cursor,
        ),
        ("/api/users?cursor=x".into(), "cursor", cursor),
        ("/api/deliveries?cursor=MQ".into(), "cursor", cursor),
        ("/api/audit-log?cursor=bnVsbA".into(), "cursor", cursor),
        ("/api/ledger/events?cursor=e30".into(), "cursor", cursor),
        ("/api/interactions?from=yesterday".into(), "from", time),
        ("/api/interactions?to=2025-10-28".into(), "to", time),
        (
            "/api/ledger/events?from=2025-10-28T23:29:50".into(),
            "from",
            time,
        ),
        ("/api/ledger/events?to=1761694190".into(), "to", time),
        (
            "/api/deliveries?from=2025-13-01T00:00:00Z".into(),
            "from",
            time,
        ),
        ("/api/deliveries?to=x".into(), "to", time),
        ("/api/audit-log?from=x".into(), "from", time),
        ("/api/audit-log?to=x".into(), "to", time),
        (
            "/api/interactions?channel=telegram".into(),
            "channel",
            "must be one of: call, whatsapp, sms",
        ),
        (
            "/api/interactions?direction=up".into(),
            "direction",
            "must be one of: inbound, outbound",
        ),
        (
            "/api/interactions?provider=acme".into(),
            "provider",
            "must be one of: elevenlabs, twilio, builderbot",
        ),
        (
            "/api/deliveries?provider=acme".into(),
            "provider",
            "must be one of: elevenlabs, twilio, builderbot",
        ),
        (
            "/api/deliveries?verdict=lost".into(),
            "verdict",
            "must be one of: accepted, duplicate, quarantined, rejected",
        ),
        (
            "/api/interactions?phone=12".into(),
            "phone",
            "is not a phone number in E.164 form, such as +573001234567",
        ),
        (
            "/api/interactions?phone=%2B57%20300%201234567".into(),
            "phone",
            "is not a phone number in E.164 form, such as +573001234567",
        ),
        (
            "/api/interactions/x?as_of=soon".into(),
            "as_of",
            "must be a ledger position or a time like 2025-10-28T23:29:50Z",
        ),
        (
            "/api/batch-calls/x/status?as_of=soon".into(),
            "as_of",
            "must be a ledger position or a time like 2025-10-28T23:29:50Z",
        ),
        (
            "/api/batch-calling/x?as_of=2025-13-01".into(),
            "as_of",
            "must be a ledger position or a time like 2025-10-28T23:29:50Z",
        ),
        (
            "/api/conversations/%2B573001234567?as_of=1.5".into(),
            "as_of",
            "must be a ledger position or a time like 2025-10-28T23:29:50Z",
        ),
        (
            "/api/interactions?q=%00".into(),
            "q",
            "must not hold the character NUL",
        ),
        (
            "/api/interactions?status=a%00".into(),
            "status",
            "must not hold the character NUL",
        ),
        (
            "/api/interactions?agent_id=%00".into(),
            "agent_id",
            "must not hold the character NUL",
        ),
        (
            "/api/interactions?batch_id=%00".into(),
            "batch_id",
            "must not hold the character NUL",
        ),
        (
            "/api/interactions?phone=%00".into(),
            "phone",
            "must not hold the character NUL",
        ),
        (
            "/api/ledger/events?type=%00".into(),
            "type",
            "must not hold the character NUL",
        ),
        (
            "/api/ledger/events?aggregate_type=%00".into(),
            "aggregate_type",
            "must not hold the character NUL",
        ),
        (
            "/api/ledger/events?aggregate_id=%00".into(),
            "aggregate_id",
            "must not hold the character NUL",
        ),
        (
            "/api/audit-log?actor=%00".into(),
            "actor",
            "must not hold the character NUL",
        ),
        (
            "/api/audit-log?action=%00".into(),
            "action",
            "must not hold the character NUL",
        ),
        (
            "/api/interactions/a%00b".into(),
            "id",
            "must not hold the character NUL",
        ),
        (
            "/api/interactions/a%00b/audio".into(),
            "id",
            "must not hold the character NUL",
        ),
        (
            format!("/api/interactions?q={long}"),
            "q",
            "must have at most 500 characters",
        ),
        (
            format!("/api/interactions?agent_id={long}"),
            "agent_id",
            "must have at most 500 characters",
        ),
        (
            format!("/api/ledger/events?type={long}"),
            "type",
            "must have at most 500 characters",
        ),
        (
            format!("/api/audit-log?actor={long}"),
            "actor",
            "must have at most 500 characters",
        ),
        (
            format!("/api/interactions/{long}"),
            "id",
            "must have at most 500 characters",
        ),
    ];
    for (path, field, message) in rows {
        let whole = format!("{field} {message}");
        assert_error(
            &path,
            app.get_as("admin", &path),
            invalid(field, message, &whole),
        )
        .await;
    }
    app.stop().await;
}

/// What the framework's own parsers refuse, in our shape and with the name.
#[tokio::test]
async fn a_parameter_of_the_wrong_type_is_told_by_its_name() {
    let app = TestApp::start().await;
    for (path, field) in [
        ("/api/interactions?limit=ten", "limit"),
        ("/api/interactions?reveal=perhaps", "reveal"),
        ("/api/interactions/x?raw=2", "raw"),
        ("/api/ledger/events?after=last", "after"),
        ("/api/ledger/stream?after=last", "after"),
        ("/api/deliveries/not-a-uuid", "id"),
    ] {
        let response = app.get_as("admin", path).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["code"], &body["details"][0]["field"]),
            (&json!("validation_error"), &json!(field)),
            "{path}"
        );
        let message = format!(
            "{field} {}",
            body["details"][0]["message"].as_str().unwrap()
        );
        assert_eq!(body["message"], message, "{path}");
        assert_eq!(body["error"], message, "{path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_malformed_body_is_told_what_is_wrong_with_it() {
    let app = TestApp::start().await;
    let post = |path: &str, content_type: Option<&str>, body: &[u8]| {
        let request = app
            .client
            .post(format!("{}{path}", app.url))
            .bearer_auth(app.token("admin"));
        let request = match content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        };
        request.body(body.to_vec())
    };
    let json_type = Some("application/json");
    // (what, path, content type, body, a part of the message)
    let rows: [(&str, &str, Option<&str>, &[u8], &str); 4] = [
        (
            "no JSON",
            "/api/auth/login",
            json_type,
            b"{",
            "EOF while parsing",
        ),
        ("nothing", "/api/auth/login", json_type, b"", "is no JSON"),
        (
            "no UTF-8",
            "/api/auth/login",
            json_type,
            b"\"\xff\"",
            "is no JSON",
        ),
        (
            "an array",
            "/api/auth/login",
            json_type,
            b"[]",
            "must be a JSON object",
        ),
    ];
    for (what, path, content_type, body, part) in rows {
        let (status, answer) = crate::harness::app::answer(post(path, content_type, body)).await;
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!("validation_error")),
            "{what}: {answer}"
        );
        assert_eq!(answer["details"][0]["field"], "body", "{what}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(part), "{what}: {message}");
        assert_eq!(answer["message"], answer["error"], "{what}");
    }
    for (path, body, field, message) in [
        ("/api/auth/login", json!({}), "email", "is required"),
        (
            "/api/auth/login",
            json!({"email": "a@b"}),
            "password",
            "is required",
        ),
        (
            "/api/auth/login",
            json!({"email": 1, "password": "x"}),
            "email",
            "invalid type: integer `1`, expected a string",
        ),
        (
            "/api/users",
            json!({"name": "Ana", "email": "a@b", "password": "x", "role": "agent", "agentId": []}),
            "agentId",
            "invalid type: sequence, expected a string",
        ),
    ] {
        let request = post(path, json_type, body.to_string().as_bytes());
        let whole = format!("{field} {message}");
        assert_error(path, request, invalid(field, message, &whole)).await;
    }
    for content_type in [
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("nonsense"),
    ] {
        let request = post(
            "/api/auth/login",
            content_type,
            b"{\"email\":\"a@b\",\"password\":\"x\"}",
        );
        let (status, answer) = crate::harness::app::answer(request).await;
        assert_eq!(
            (status, &answer["code"]),
            (415, &json!("unsupported_media_type")),
            "{content_type:?}: {answer}"
        );
    }
    app.stop().await;
}

/// Whatever a person may type into a form is an answer below 500.
#[tokio::test]
async fn no_text_of_a_body_breaks_anything() {
    let app = TestApp::start().await;
    let nul = json!({"email": "a\u{0}@example.com", "password": "x"});
    assert_error(
        "a NUL in an address",
        app.post_as("nobody", "/api/auth/login", &nul),
        (401, "unauthorized", "Unauthorized", Value::Null),
    )
    .await;
    let long = json!({"email": "a".repeat(100_000), "password": "p".repeat(100_000)});
    assert_error(
        "endless",
        app.post_as("nobody", "/api/auth/login", &long),
        (401, "unauthorized", "Unauthorized", Value::Null),
    )
    .await;
    let mut huge = serde_json::to_vec(&json!({"email": "a", "password": "x"})).unwrap();
    huge.resize(2 << 20, b' ');
    let request = app
        .client
        .post(format!("{}/api/auth/login", app.url))
        .header("content-type", "application/json")
        .body(huge);
    let message = "The body is larger than 1048576 bytes";
    assert_error(
        "two megabytes",
        request,
        (413, "payload_too_large", message, Value::Null),
    )
    .await;
    app.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_done_is_405() {
    let app = TestApp::start().await;
    let nothing = "There is nothing at this address; see /api/docs";
    for path in [
        "/",
        "/nothing",
        "/api",
        "/api/",
        "/api/nothing",
        "/api/interactions/x/y",
        "/webhooks",
        "/webhooks/acme",
        "/api//interactions",
    ] {
        assert_error(
            path,
            app.get_as("admin", path),
            (404, "not_found", nothing, Value::Null),
        )
        .await;
    }
    let unknown = format!("/api/deliveries/{UNKNOWN_ID}");
    for (path, message) in [
        (
            "/api/interactions/conv_unknown",
            "Interacción no encontrada",
        ),
        (
            "/api/interactions/conv_unknown?as_of=5",
            "Interacción no encontrada",
        ),
        (
            "/api/interactions/conv_unknown/audio",
            "La interacción no tiene grabación",
        ),
        (unknown.as_str(), "There is no such delivery"),
    ] {
        assert_error(
            path,
            app.get_as("admin", path),
            (404, "not_found", message, Value::Null),
        )
        .await;
    }
    let replay = app.post_as("admin", "/api/projections/nothing/replay", &json!({}));
    let message = "There is no such projection; see GET /api/projections";
    assert_error("a replay", replay, (404, "not_found", message, Value::Null)).await;
    let reprocess = app.post_as("admin", &format!("{unknown}/reprocess"), &json!({}));
    assert_error(
        "a reprocess",
        reprocess,
        (404, "not_found", "There is no such delivery", Value::Null),
    )
    .await;

    let message = "This address does not take this method; see /api/docs";
    for (method, path) in [
        (Method::DELETE, "/api/interactions"),
        (Method::PUT, "/api/interactions/x"),
        (Method::POST, "/api/ledger/events"),
        (Method::PATCH, "/api/users"),
        (Method::GET, "/api/auth/login"),
        (Method::GET, "/webhooks/elevenlabs/call"),
        (Method::PUT, "/webhook/twilio/incoming"),
        (Method::POST, "/health"),
        (Method::POST, "/api/docs"),
        (Method::DELETE, "/api/openapi.json"),
        (Method::OPTIONS, "/api/interactions"),
    ] {
        let request = app
            .client
            .request(method.clone(), format!("{}{path}", app.url))
            .bearer_auth(app.token("admin"));
        let expected = (405, "method_not_allowed", message, Value::Null);
        assert_error(&format!("{method} {path}"), request, expected).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn a_credential_that_is_missing_or_wrong_is_401_and_says_no_more() {
    let app = TestApp::start().await;
    let now = app.clock.now().timestamp();
    let signed = |secret: &str, claims: Value| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let claims = |exp: i64| json!({"sub": "7", "role": "admin", "iat": now - 60, "exp": exp});
    let bearer = |token: String| ("authorization", format!("Bearer {token}"));
    let good = app.token("admin");
    // {"alg":"none"} with the good one's claims, with and without its signature.
    let mut parts = good.split('.');
    let (_, body, signature) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let hs384 = {
        let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS384);
        jsonwebtoken::encode(&header, &claims(now + 60), &key).unwrap()
    };
    let rows: Vec<(&str, Option<(&str, String)>)> = vec![
        ("nothing", None),
        ("garbage", Some(bearer("garbage".into()))),
        ("an empty token", Some(bearer(String::new()))),
        ("no scheme", Some(("authorization", good.clone()))),
        (
            "another scheme",
            Some(("authorization", format!("Basic {good}"))),
        ),
        (
            "name and password",
            Some(("authorization", "Basic YWRtaW46YWRtaW4=".into())),
        ),
        (
            "alg none, signed",
            Some(bearer(format!("{none}.{body}.{signature}"))),
        ),
        (
            "alg none, not signed",
            Some(bearer(format!("{none}.{body}."))),
        ),
        ("another algorithm", Some(bearer(hs384))),
        (
            "a signature cut short",
            Some(bearer(good[..good.len() - 2].to_owned())),
        ),
        (
            "another secret",
            Some(bearer(signed(
                "another-secret-of-at-least-32-characters",
                claims(now + 60),
            ))),
        ),
        ("over", Some(bearer(signed(JWT_SECRET, claims(now - 1))))),
        (
            "over this very second",
            Some(bearer(signed(JWT_SECRET, claims(now)))),
        ),
        (
            "no end",
            Some(bearer(signed(
                JWT_SECRET,
                json!({"sub": "7", "role": "admin", "iat": now}),
            ))),
        ),
        (
            "no role",
            Some(bearer(signed(
                JWT_SECRET,
                json!({"sub": "7", "iat": now, "exp": now + 60}),
            ))),
        ),
        (
            "no such role",
            Some(bearer(signed(
                JWT_SECRET,
                json!({"sub": "7", "role": "root", "iat": now, "exp": now + 60}),
            ))),
        ),
        (
            "nobody",
            Some(bearer(signed(
                JWT_SECRET,
                json!({"role": "admin", "iat": now, "exp": now + 60}),
            ))),
        ),
        (
            "a wrong service token",
            Some(("x-service-token", "service-toke".into())),
        ),
        (
            "an empty service token",
            Some(("x-service-token", String::new())),
        ),
        (
            "the service token as a login",
            Some(bearer(SERVICE_TOKEN.into())),
        ),
        (
            "a login as the service token",
            Some(("x-service-token", good.clone())),
        ),
    ];
    for (what, credential) in rows {
        let mut request = app.client.get(format!("{}/api/interactions", app.url));
        if let Some((name, value)) = credential {
            request = request.header(name, value);
        }
        assert_error(
            what,
            request,
            (401, "unauthorized", "Unauthorized", Value::Null),
        )
        .await;
    }
    let in_query = app
        .client
        .get(format!("{}/api/interactions?access_token={good}", app.url));
    assert_error(
        "a token in the query",
        in_query,
        (401, "unauthorized", "Unauthorized", Value::Null),
    )
    .await;
    let one_second_left = bearer(signed(JWT_SECRET, claims(now + 1)));
    let request = app
        .client
        .get(format!("{}/api/interactions", app.url))
        .header(one_second_left.0, one_second_left.1);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "the token itself is right");
    let challenge = app
        .get_as("nobody", "/api/interactions")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&challenge, "www-authenticate"), Some("Bearer"));
    app.stop().await;
}

#[tokio::test]
async fn a_rotated_secret_goes_on_to_verify_and_no_longer_signs() {
    let config = |config: &mut bitacora::config::Config| {
        config.jwt_secrets = vec![
            "the-new-secret-of-at-least-32-characters!".into(),
            JWT_SECRET.into(),
        ];
        config.service_tokens = vec!["new".into(), SERVICE_TOKEN.into()];
    };
    let app = TestApp::with(Options {
        config,
        ..Options::default()
    })
    .await;
    for who in ["agent", "service"] {
        assert_eq!(
            app.get_as(who, "/api/interactions")
                .send()
                .await
                .unwrap()
                .status(),
            200,
            "{who}"
        );
    }
    app.stop().await;
}

/// Every guarded route, and who may: everybody else gets 403, and whoever is
/// nobody 401. The order of the roles is that of `ROLES`.
#[tokio::test]
async fn every_route_is_for_its_roles_and_no_others() {
    let app = TestApp::start().await;
    let everybody = &ROLES[..];
    let known = |path: &str, status: u16| ("GET", path.to_owned(), everybody, status, "");
    let auditor = "This needs the role auditor or admin";
    let admin = "This needs the role admin";
    let reveal = "This needs the role supervisor, admin or auditor";
    let may_reveal = &["supervisor", "admin", "auditor"][..];
    let rows: Vec<(&str, String, &[&str], u16, &str)> = vec![
        known("/api/interactions", 200),
        known("/api/interactions/x", 404),
        known("/api/interactions/x/audio", 404),
        known("/api/projections", 200),
        (
            "GET",
            "/api/interactions?reveal=true".into(),
            may_reveal,
            200,
            reveal,
        ),
        (
            "GET",
            "/api/users".into(),
            &["supervisor", "admin", "auditor", "service"],
            200,
            reveal,
        ),
        (
            "GET",
            "/api/ledger/events".into(),
            &["admin", "auditor"],
            200,
            auditor,
        ),
        (
            "GET",
            "/api/ledger/events?reveal=true".into(),
            &["admin", "auditor"],
            200,
            auditor,
        ),
        (
            "GET",
            "/api/ledger/stream".into(),
            &["admin", "auditor"],
            200,
            auditor,
        ),
        (
            "GET",
            "/api/deliveries".into(),
            &["admin", "auditor"],
            200,
            auditor,
        ),
        (
            "GET",
            format!("/api/deliveries/{UNKNOWN_ID}"),
            &["admin", "auditor"],
            404,
            auditor,
        ),
        (
            "GET",
            "/api/audit-log".into(),
            &["admin", "auditor"],
            200,
            auditor,
        ),
        (
            "POST",
            format!("/api/deliveries/{UNKNOWN_ID}/reprocess"),
            &["admin"],
            404,
            admin,
        ),
        (
            "POST",
            "/api/projections/interactions/replay".into(),
            &["admin"],
            202,
            admin,
        ),
        ("POST", "/api/users".into(), &["admin"], 201, admin),
    ];
    let body = json!({"name": "Ana", "email": "ana@example.com", "password": "contraseña", "role": "agent"});
    for (method, path, may, status, refusal) in rows {
        let request = |role: &str| match method {
            "GET" => app.get_as(role, &path),
            _ => app.post_as(role, &path, &body),
        };
        let what = format!("{method} {path}");
        assert_error(
            &what,
            request("nobody"),
            (401, "unauthorized", "Unauthorized", Value::Null),
        )
        .await;
        for role in ROLES {
            if may.contains(&role) {
                let got = request(role).send().await.unwrap().status().as_u16();
                assert_eq!(got, status, "{what} as {role}");
            } else {
                assert_error(
                    &format!("{what} as {role}"),
                    request(role),
                    (403, "forbidden", refusal, Value::Null),
                )
                .await;
            }
        }
    }
    for role in ["nobody", "agent", "supervisor", "admin", "auditor"] {
        let expected = (401, "unauthorized", "Unauthorized", Value::Null);
        assert_error(
            &format!("/metrics as {role}"),
            app.get_as(role, "/metrics"),
            expected,
        )
        .await;
    }
    for path in [
        "/health",
        "/api/health",
        "/livez",
        "/readyz",
        "/api/docs",
        "/api/openapi.json",
    ] {
        assert_eq!(
            app.get_as("nobody", path).send().await.unwrap().status(),
            200,
            "{path} is public"
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn a_request_id_is_taken_over_where_it_is_harmless() {
    let app = TestApp::start().await;
    let longest = "i".repeat(128);
    let too_long = "i".repeat(129);
    for (given, taken) in [
        ("req-1.2:3_A", true),
        (longest.as_str(), true),
        (too_long.as_str(), false),
        ("", false),
        ("a b", false),
        ("<script>", false),
        ("1;drop", false),
    ] {
        for path in ["/api/nothing", "/livez", "/api/interactions"] {
            let request = app
                .client
                .get(format!("{}{path}", app.url))
                .header("X-Request-Id", given);
            let response = request.send().await.unwrap();
            let answered = header(&response, "x-request-id").unwrap().to_owned();
            assert_eq!(answered == given, taken, "{given:?} {path}: {answered}");
            assert!(
                taken || uuid::Uuid::parse_str(&answered).is_ok(),
                "{given:?} {path}: {answered}"
            );
            if let Ok(body) = response.json::<Value>().await {
                assert_eq!(body["request_id"], answered, "{given:?} {path}");
            }
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn every_answer_carries_helmets_headers() {
    let app = TestApp::start().await;
    let expected = [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("origin-agent-cluster", "?1"),
        ("referrer-policy", "no-referrer"),
        (
            "strict-transport-security",
            "max-age=31536000; includeSubDomains",
        ),
        ("x-content-type-options", "nosniff"),
        ("x-dns-prefetch-control", "off"),
        ("x-download-options", "noopen"),
        ("x-frame-options", "SAMEORIGIN"),
        ("x-permitted-cross-domain-policies", "none"),
        ("x-xss-protection", "0"),
    ];
    let requests = [
        app.get_as("agent", "/api/interactions"),
        app.get_as("nobody", "/api/interactions"),
        app.get_as("nobody", "/nothing"),
        app.get_as("nobody", "/api/docs"),
        app.elevenlabs(fixture("elevenlabs/post_call_audio.json")),
        preflight(&app, "https://app.example.com"),
    ];
    for request in requests {
        let response = request.send().await.unwrap();
        let url = response.url().clone();
        for (name, value) in expected {
            assert_eq!(header(&response, name), Some(value), "{url}");
        }
        assert!(
            header(&response, "content-security-policy")
                .unwrap()
                .contains("default-src 'self'"),
            "{url}"
        );
        assert!(header(&response, "x-request-id").is_some(), "{url}");
        assert!(
            header(&response, "server").is_none() && header(&response, "x-powered-by").is_none(),
            "{url}"
        );
    }
    app.stop().await;
}

fn preflight(app: &TestApp, origin: &str) -> RequestBuilder {
    app.client
        .request(Method::OPTIONS, format!("{}/api/interactions", app.url))
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "authorization,content-type",
        )
}

#[tokio::test]
async fn only_allowed_origins_may_read_answers_in_a_browser() {
    let app = TestApp::start().await;
    let allowed = "https://app.example.com";
    let response = preflight(&app, allowed).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        header(&response, "access-control-allow-origin"),
        Some(allowed)
    );
    assert_eq!(
        header(&response, "access-control-allow-headers"),
        Some("authorization,content-type")
    );
    assert!(
        header(&response, "access-control-allow-methods")
            .unwrap()
            .contains("POST")
    );
    assert_eq!(
        header(&response, "access-control-allow-credentials"),
        None,
        "no cookies: tokens travel in a header"
    );

    for (origin, role, status) in [(allowed, "agent", 200), (allowed, "nobody", 401)] {
        let response = app
            .get_as(role, "/api/interactions")
            .header("Origin", origin)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(
            header(&response, "access-control-allow-origin"),
            Some(origin)
        );
        assert_eq!(header(&response, "vary"), Some("Origin"));
        let exposed = header(&response, "access-control-expose-headers")
            .unwrap()
            .to_lowercase();
        assert!(
            ["x-request-id", "x-ledger-position", "retry-after"]
                .iter()
                .all(|name| exposed.contains(name)),
            "{exposed}"
        );
    }
    // An error keeps its shape across origins.
    let request = app
        .get_as("nobody", "/api/interactions")
        .header("Origin", allowed);
    assert_error(
        "across origins",
        request,
        (401, "unauthorized", "Unauthorized", Value::Null),
    )
    .await;

    for origin in [
        "https://evil.example.com",
        "https://app.example.com.evil.com",
        "http://app.example.com",
        "null",
    ] {
        let response = preflight(&app, origin).send().await.unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                header(&response, "access-control-allow-origin")
            ),
            (405, None),
            "{origin}"
        );
        let response = app
            .get_as("agent", "/api/interactions")
            .header("Origin", origin)
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                header(&response, "access-control-allow-origin")
            ),
            (200, None),
            "{origin}"
        );
        assert_eq!(header(&response, "vary"), Some("Origin"), "{origin}");
    }
    app.stop().await;
}

/// 503 with `Retry-After` everywhere, but for what says that the process lives.
#[tokio::test]
async fn without_its_database_the_service_says_so_and_lives() {
    let app = TestApp::start().await;
    app.pool.close().await;
    // The writer has a connection of its own.
    postgres::take_away(&app.database()).await;
    let away = "The database is not available, try again";
    let requests = [
        ("a webhook", app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))),
        ("interactions", app.get_as("agent", "/api/interactions")),
        ("an interaction", app.get_as("agent", "/api/interactions/x")),
        ("its past", app.get_as("agent", "/api/interactions/x?as_of=1")),
        ("its audio", app.get_as("agent", "/api/interactions/x/audio")),
        ("a reveal", app.get_as("admin", "/api/interactions?reveal=true")),
        ("events", app.get_as("auditor", "/api/ledger/events")),
        ("the stream", app.get_as("auditor", "/api/ledger/stream")),
        ("deliveries", app.get_as("auditor", "/api/deliveries")),
        ("a delivery", app.get_as("auditor", &format!("/api/deliveries/{UNKNOWN_ID}"))),
        ("the audit log", app.get_as("auditor", "/api/audit-log")),
        ("projections", app.get_as("agent", "/api/projections")),
        ("users", app.get_as("admin", "/api/users")),
        ("a replay", app.post_as("admin", "/api/projections/users/replay", &json!({}))),
        ("a login", app.post_as("nobody", "/api/auth/login", &json!({"email": "a@b", "password": "x"}))),
        (
            "a new user",
            app.post_as(
                "admin",
                "/api/users",
                &json!({"name": "Ana", "email": "a@b.co", "password": "contraseña", "role": "agent"}),
            ),
        ),
    ];
    for (what, request) in requests {
        let copy = request.try_clone().unwrap();
        assert_error(what, request, (503, "unavailable", away, Value::Null)).await;
        let response = copy.send().await.unwrap();
        assert_eq!(header(&response, "retry-after"), Some("2"), "{what}");
    }
    for (path, status, body) in [("/livez", 200, "ok"), ("/readyz", 503, "database away")] {
        let response = app.get_as("nobody", path).send().await.unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                response.text().await.unwrap().as_str()
            ),
            (status, body),
            "{path}"
        );
    }
    for path in ["/health", "/api/health"] {
        let response = app.get_as("nobody", path).send().await.unwrap();
        assert_eq!(response.status(), 503, "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["status"], &body["dependencies"]["database"]),
            (&json!("degraded"), &json!("disconnected"))
        );
    }
    app.stop().await;
}

/// A database that was restarted costs an answer of 503, never one of 500, and
/// then all is well again.
#[tokio::test]
async fn connections_that_died_are_told_as_503_and_replaced() {
    let app = TestApp::start().await;
    let database: String = sqlx::query_scalar("select current_database()")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    let mut other = crate::harness::postgres::superuser().await;
    sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1")
        .bind(database)
        .execute(&mut other)
        .await
        .unwrap();
    let mut answers = Vec::new();
    for _ in 0..30 {
        let response = app
            .get_as("agent", "/api/interactions")
            .send()
            .await
            .unwrap();
        let retry_after = response.headers().contains_key("retry-after");
        answers.push((response.status().as_u16(), retry_after));
    }
    assert!(
        answers
            .iter()
            .all(|answer| [(200, false), (503, true)].contains(answer)),
        "{answers:?}"
    );
    assert_eq!(answers.last(), Some(&(200, false)), "{answers:?}");
    app.stop().await;
}

/// A database that takes no connections is away, as one that is not there.
#[tokio::test]
async fn a_database_that_refuses_connections_is_told_as_503() {
    let app = TestApp::start().await;
    crate::harness::postgres::take_away(&app.database()).await;
    for path in ["/api/stats", "/api/conversations", "/api/interactions"] {
        let away = "The database is not available, try again";
        let request = app.get_as("agent", path);
        assert_error(path, request, (503, "unavailable", away, Value::Null)).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn health_tells_what_is_there() {
    let config = |config: &mut bitacora::config::Config| {
        config.provider_secrets.builderbot = Default::default()
    };
    let app = TestApp::with(Options {
        config,
        ..Options::default()
    })
    .await;
    app.clock.advance(chrono::Duration::seconds(90));
    let body: Value = app
        .get_as("nobody", "/health")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let expected = json!({
        "status": "ok",
        "timestamp": app.clock.now().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        "service": "bitacora",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": 90,
        "dependencies": {
            "database": "connected", "queue": "ok", "twilio": "ok", "elevenlabs": "ok", "builderbot": "not_configured",
        },
    });
    assert_eq!(body, expected);
    app.stop().await;
}
