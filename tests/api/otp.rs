//! One-time codes. Contract, section 7.

use std::collections::BTreeMap;

use bitacora::ledger::Entry;
use bitacora::otp::{Order, Otp, OtpSettings, RequestError};
use chrono::Duration;
use domain::effect::{self, code_id};
use domain::{Channel, Event, Fact, PhoneNumber, Provider, StreamId};
use futures_util::future::join_all;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::errors::{assert_error, header, invalid};
use crate::harness::TestApp;
use crate::harness::app::{answer, ok};
use crate::harness::read_models::assert_equal_a_rebuild;
use crate::privacy::{capture, captured};
use crate::replicas::two;

const PHONE: &str = "+573001234567";

fn ask(app: &TestApp, phone_number: &str, purpose: &str) -> RequestBuilder {
    let body = json!({"phone_number": phone_number, "purpose": purpose});
    app.post_as("service", "/api/otp", &body)
}

/// A challenge that must be made: its `data`.
async fn asked(app: &TestApp, purpose: &str) -> Value {
    let (status, body) = answer(ask(app, PHONE, purpose)).await;
    assert_eq!(status, 202, "{body}");
    body["data"].clone()
}

async fn challenge(app: &TestApp) -> String {
    let data = asked(app, "login").await;
    data["challenge_id"].as_str().unwrap().to_owned()
}

fn give_back(app: &TestApp, challenge_id: &str, code: &str) -> RequestBuilder {
    let body = json!({"challenge_id": challenge_id, "code": code});
    app.post_as("service", "/api/otp/verify", &body)
}

fn right(app: &TestApp, challenge_id: &str) -> String {
    app.app().otp.code(challenge_id).as_str().to_owned()
}

/// Six digits that are not the code.
fn wrong(app: &TestApp, challenge_id: &str) -> String {
    let code: u32 = right(app, challenge_id).parse().unwrap();
    format!("{:06}", (code + 1) % 1_000_000)
}

fn verified() -> Value {
    json!({"success": true, "data": {"verified": true}})
}

/// Status, `code` and `attempts_left` of a refusal.
async fn refusal(request: RequestBuilder) -> (u16, String, Value) {
    let (status, body) = answer(request).await;
    let code = body["code"].as_str().unwrap_or_default().to_owned();
    (status, code, body["attempts_left"].clone())
}

fn retry_after(response: &Response) -> u64 {
    header(response, "retry-after").unwrap().parse().unwrap()
}

fn z(at: chrono::DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

#[tokio::test]
async fn a_code_is_asked_for_and_given_back_once() {
    let app = TestApp::start().await;
    let response = ask(&app, PHONE, "Login").send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert!(header(&response, "x-ledger-position").is_some());
    let body: Value = response.json().await.unwrap();
    let id = body["data"]["challenge_id"].as_str().unwrap().to_owned();
    let now = app.clock.now();
    let data = json!({
        "challenge_id": id,
        "expires_at": z(now + Duration::seconds(300)),
        "resend_after": z(now + Duration::seconds(30)),
    });
    assert_eq!(body, json!({"success": true, "data": data}));
    let uuid: uuid::Uuid = id.strip_prefix("otp_").unwrap().parse().unwrap();
    assert_eq!(uuid.get_version_num(), 4);
    assert_eq!(status_of(&app, &id).await, "requested");

    let code = right(&app, &id);
    let response = give_back(&app, &id, &code).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(header(&response, "x-ledger-position").is_some());
    assert_eq!(response.json::<Value>().await.unwrap(), verified());
    assert_eq!(status_of(&app, &id).await, "verified");
    assert_error(
        "used",
        give_back(&app, &id, &code),
        (
            409,
            "otp_already_used",
            "El código ya fue usado",
            Value::Null,
        ),
    )
    .await;

    app.settle().await;
    let records = app.read("/api/audit-log").await;
    let acts: Vec<_> = records["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| json!([it["action"], it["target"], it["outcome"], it["actor"]]))
        .collect();
    assert_eq!(
        acts,
        [
            json!(["verify_otp", id, "otp_already_used", "service"]),
            json!(["verify_otp", id, "ok", "service"]),
            json!(["request_otp", id, "ok", "service"]),
        ]
    );
    assert_equal_a_rebuild(&app.pool).await;
    app.stop().await;
}

async fn status_of(app: &TestApp, challenge_id: &str) -> String {
    let sql = "select status from otp_challenges where challenge_id = $1";
    let status = sqlx::query_scalar(sql).bind(challenge_id);
    status.fetch_one(&app.pool).await.unwrap()
}

#[tokio::test]
async fn wrong_codes_are_counted_down_and_then_the_right_one_is_too_late() {
    let app = TestApp::start().await;
    let id = challenge(&app).await;
    let guess = wrong(&app, &id);
    let (status, body) = answer(give_back(&app, &id, &guess)).await;
    assert_eq!(status, 400, "{body}");
    let told = json!([
        body["code"],
        body["message"],
        body["attempts_left"],
        body["details"]
    ]);
    let words = "El código no es correcto";
    assert_eq!(told, json!(["otp_invalid", words, 4, {"attempts_left": 4}]));
    for left in (0..4).rev() {
        let refused = refusal(give_back(&app, &id, &guess)).await;
        assert_eq!(refused, (400, "otp_invalid".to_owned(), json!(left)));
    }
    app.settle().await;
    assert_eq!(status_of(&app, &id).await, "exhausted");
    for code in [right(&app, &id), guess] {
        let response = give_back(&app, &id, &code).send().await.unwrap();
        assert_eq!(response.status(), 429);
        assert_eq!(retry_after(&response), 300);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["code"], "otp_attempts_exceeded");
    }
    let sql = "select attempts from otp_challenges";
    let attempts: i32 = sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap();
    assert_eq!(attempts, 5);
    app.stop().await;
}

#[tokio::test]
async fn a_code_is_good_until_its_last_second() {
    let app = TestApp::start().await;
    let [early, late] = [challenge(&app).await, challenge(&app).await];
    app.clock.advance(Duration::seconds(299));
    let in_time = give_back(&app, &early, &right(&app, &early));
    assert_eq!(ok(in_time).await, verified());
    app.clock.advance(Duration::seconds(1));
    for code in [right(&app, &late), wrong(&app, &late)] {
        assert_error(
            "expired",
            give_back(&app, &late, &code),
            (410, "otp_expired", "El código ha vencido", Value::Null),
        )
        .await;
    }
    let used = give_back(&app, &early, &right(&app, &early));
    assert_eq!(refusal(used).await.1, "otp_already_used");
    app.stop().await;
}

#[tokio::test]
async fn what_is_no_code_is_no_guess_and_is_not_repeated() {
    let app = TestApp::start().await;
    let id = challenge(&app).await;
    let number = right(&app, &id).parse::<u32>().unwrap();
    for code in [
        json!(""),
        json!("12345"),
        json!("1234567"),
        json!("12345a"),
        json!("１２３４５６"),
        json!(" 12345"),
        json!(number),
        json!([right(&app, &id)]),
        Value::Null,
    ] {
        let body = json!({"challenge_id": id, "code": code});
        let request = app.post_as("service", "/api/otp/verify", &body);
        let message = "must be 6 digits";
        let expected = invalid("code", message, "code must be 6 digits");
        assert_error(&code.to_string(), request, expected).await;
    }
    let missing = app.post_as("service", "/api/otp/verify", &json!({"challenge_id": id}));
    assert_error(
        "missing",
        missing,
        invalid("code", "is required", "code is required"),
    )
    .await;
    let nothing = app.post_as("service", "/api/otp/verify", &json!({"code": "123456"}));
    let message = "is required, or else phone_number and purpose";
    let whole = "challenge_id is required, or else phone_number and purpose";
    assert_error("nothing", nothing, invalid("challenge_id", message, whole)).await;
    assert_eq!(guesses(&app).await, 0);
    app.stop().await;
}

async fn guesses(app: &TestApp) -> i64 {
    app.count("select count(*) from events where event_type = 'otp.attempted'")
        .await
}

#[tokio::test]
async fn a_wrong_order_is_told_by_the_names_of_its_fields() {
    let app = TestApp::start().await;
    let phone = "is not a phone number in E.164 form, such as +573001234567";
    let purpose = "must have 1 to 64 of the characters a-z, 0-9, _ and -";
    for number in [
        "",
        "3001234567",
        "+57 300 1234567",
        "+0573001234567",
        "whatsapp:+573001234567",
    ] {
        let whole = format!("phone_number {phone}");
        let expected = invalid("phone_number", phone, &whole);
        assert_error(number, ask(&app, number, "login"), expected).await;
    }
    for word in ["", "log in", "año", &"x".repeat(65)] {
        let whole = format!("purpose {purpose}");
        let expected = invalid("purpose", purpose, &whole);
        assert_error(word, ask(&app, PHONE, word), expected).await;
    }
    let both = json!([
        {"field": "phone_number", "message": phone}, {"field": "purpose", "message": purpose},
    ]);
    let whole = format!("phone_number {phone}; purpose {purpose}");
    let expected = (400, "validation_error", whole.as_str(), both);
    assert_error("both", ask(&app, "", ""), expected).await;
    let country = "is of a country that no codes are sent to";
    for number in ["+8801712345678", "+881612345678", "+18765551234"] {
        let whole = format!("phone_number {country}");
        let expected = invalid("phone_number", country, &whole);
        assert_error(number, ask(&app, number, "login"), expected).await;
    }
    let none = "is no number of its country: write it in E.164, without a trunk 0";
    for number in ["+5703001234567", "+57003001234567", "+5730012345678"] {
        let whole = format!("phone_number {none}");
        let expected = invalid("phone_number", none, &whole);
        assert_error(number, ask(&app, number, "login"), expected).await;
    }
    let unknown = "otp_00000000-0000-4000-8000-000000000000";
    for id in [unknown, "x", "' or 1 = 1"] {
        assert_error(
            id,
            give_back(&app, id, "123456"),
            (404, "not_found", "Código no encontrado", Value::Null),
        )
        .await;
    }
    assert_eq!(app.count("select count(*) from otp_requests").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn whoever_may_operate_may_and_nobody_else() {
    let app = TestApp::start().await;
    for (role, status) in [
        ("nobody", 401),
        ("auditor", 403),
        ("agent", 202),
        ("service", 202),
    ] {
        let body = json!({"phone_number": PHONE, "purpose": role});
        let (got, body) = answer(app.post_as(role, "/api/otp", &body)).await;
        assert_eq!(got, status, "{role}: {body}");
        let id = body["data"]["challenge_id"].as_str().unwrap_or("otp_x");
        let body = json!({"challenge_id": id, "code": right(&app, id)});
        let given_back = answer(app.post_as(role, "/api/otp/verify", &body)).await;
        let status = if status == 202 { 200 } else { status };
        assert_eq!(given_back.0, status, "{role}: {given_back:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn without_its_id_the_latest_challenge_of_a_number_and_a_purpose_is_meant() {
    let app = TestApp::start().await;
    let by_phone = |purpose: &str, code: &str| {
        let body = json!({"phone_number": PHONE, "purpose": purpose, "code": code});
        app.post_as("service", "/api/otp/verify", &body)
    };
    assert_eq!(refusal(by_phone("login", "123456")).await.0, 404);
    let first = challenge(&app).await;
    let latest = challenge(&app).await;
    asked(&app, "pay").await;
    // As a request that was killed right after it was counted leaves it.
    let cut_short = "insert into otp_requests (challenge_id, phone_key, purpose, prefix_key, at)
        select 'otp_cut_short', phone_key, purpose, prefix_key, at from otp_requests
         where challenge_id = $1";
    let cut_short = sqlx::query(cut_short).bind(&latest);
    cut_short.execute(&app.pool).await.unwrap();

    let old = refusal(by_phone("login", &right(&app, &first))).await;
    assert_eq!(old, (400, "otp_invalid".to_owned(), json!(4)));
    let new = by_phone("LOGIN", &right(&app, &latest));
    assert_eq!(ok(new).await, verified());
    let old = give_back(&app, &first, &right(&app, &first));
    assert_eq!(ok(old).await, verified(), "the others stay as they are");
    app.stop().await;
}

#[tokio::test]
async fn so_many_may_be_asked_for_in_any_span_of_the_windows_length() {
    let app = TestApp::start().await;
    let began = app.clock.now();
    let at = |secs| z(began + Duration::seconds(secs));
    assert_eq!(asked(&app, "login").await["resend_after"], at(30));
    app.clock.advance(Duration::seconds(400));
    assert_eq!(asked(&app, "login").await["resend_after"], at(430));
    app.clock.advance(Duration::seconds(400));
    assert_eq!(asked(&app, "login").await["resend_after"], at(900));
    app.clock.advance(Duration::milliseconds(99_500));

    let response = ask(&app, PHONE, "login").send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), retry_after(&response)),
        (429, 1)
    );
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], "otp_rate_limited");
    asked(&app, "another").await;
    let other = ask(&app, "+573007654321", "login");
    assert_eq!(answer(other).await.0, 202);

    app.clock.advance(Duration::milliseconds(500));
    assert_eq!(asked(&app, "login").await["resend_after"], at(1300));
    assert_eq!(refusal(ask(&app, PHONE, "login")).await.0, 429);
    app.clock.advance(Duration::seconds(3600));
    asked(&app, "login").await;
    let kept = app.count("select count(*) from otp_requests").await;
    assert_eq!(kept, 1, "what no limit looks back on is forgotten");
    app.stop().await;
}

/// Codes with settings of the test's own, beside the service.
fn codes(app: &TestApp, settings: OtpSettings) -> Otp {
    let app = app.app();
    let (pool, store) = (app.pool.clone(), app.store.clone());
    let (index, source) = (app.phone_index.clone(), app.source.clone());
    Otp::new(
        pool,
        store,
        index,
        source,
        &app.config.jwt_secrets,
        settings,
    )
    .unwrap()
}

/// Whether a code may be asked for, and if not, when.
async fn may(otp: &Otp, phone_number: &str, purpose: &str) -> Result<(), u64> {
    let order = Order {
        challenge_id: otp.fresh_id(),
        phone_number: PhoneNumber::parse(phone_number).unwrap(),
        purpose: purpose.to_owned(),
    };
    match otp.request(order, Default::default()).await {
        Ok(_) => Ok(()),
        Err(RequestError::Limited(retry_after)) => Err(retry_after),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn blocks_of_numbers_and_all_together_have_limits_that_take_nothing_from_each_other() {
    let app = TestApp::start().await;
    let settings = OtpSettings {
        prefix_rate_limit_max: 2,
        hourly_max: 4,
        ..OtpSettings::default()
    };
    let otp = codes(&app, settings);
    assert_eq!(may(&otp, "+573001230001", "a").await, Ok(()));
    app.clock.advance(Duration::minutes(10));
    assert_eq!(may(&otp, "+573001230002", "a").await, Ok(()));
    for n in 3..9 {
        let number = format!("+57300123000{n}");
        assert_eq!(may(&otp, &number, "a").await, Err(3000), "{number}");
    }
    assert_eq!(may(&otp, "+573001240001", "a").await, Ok(()));
    assert_eq!(may(&otp, "+573001240001", "a").await, Ok(()));
    assert_eq!(may(&otp, "+573001250001", "a").await, Err(3000), "all");
    assert_eq!(
        may(&otp, "+573001240001", "a").await,
        Err(3600),
        "of two limits the longer one"
    );
    assert_eq!(app.count("select count(*) from otp_requests").await, 4);
    app.clock.advance(Duration::minutes(50));
    assert_eq!(may(&otp, "+573001230003", "a").await, Ok(()));
    assert_eq!(may(&otp, "+573001250001", "a").await, Err(600));
    app.stop().await;
}

#[tokio::test]
async fn one_telephone_has_one_limit_under_all_of_its_numbers() {
    let app = TestApp::start().await;
    let settings = OtpSettings {
        allowed_countries: vec!["MX".to_owned(), "AR".to_owned()],
        ..OtpSettings::default()
    };
    let otp = codes(&app, settings);
    for [one, other] in [
        ["+5215512345678", "+525512345678"],
        ["+5491133334444", "+541133334444"],
    ] {
        assert_eq!(may(&otp, one, "a").await, Ok(()));
        assert_eq!(may(&otp, other, "a").await, Ok(()));
        assert_eq!(may(&otp, one, "a").await, Ok(()));
        assert_eq!(may(&otp, other, "a").await, Err(900), "{other}");
        assert_eq!(may(&otp, one, "a").await, Err(900), "{one}");
    }
    let blocks = "select count(distinct prefix_key) from otp_requests";
    assert_eq!(app.count(blocks).await, 2);
    app.stop().await;
}

#[tokio::test]
async fn codes_go_to_the_countries_that_are_named() {
    let app = TestApp::start().await;
    let settings = OtpSettings {
        allowed_countries: vec!["us".to_owned(), "AR".to_owned()],
        ..OtpSettings::default()
    };
    let otp = codes(&app, settings);
    for (phone_number, is_allowed) in [
        ("+14155550100", true),
        ("+10005550100", false),
        ("+18765551234", false),
        ("+5491133334444", true),
        (PHONE, false),
    ] {
        let order = Order {
            challenge_id: otp.fresh_id(),
            phone_number: PhoneNumber::parse(phone_number).unwrap(),
            purpose: "login".to_owned(),
        };
        let made = otp.request(order, Default::default()).await;
        assert_eq!(made.is_ok(), is_allowed, "{phone_number}: {made:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_repeat_under_its_key_finds_the_same_challenge() {
    let app = TestApp::start().await;
    let again = |purpose: &str| ask(&app, PHONE, purpose).header("Idempotency-Key", "key-1");
    let (status, first) = answer(again("login")).await;
    assert_eq!(status, 202, "{first}");
    assert_eq!(answer(again("login")).await, (202, first.clone()));
    assert_eq!(refusal(again("pay")).await.1, "idempotency_key_reused");

    // As a kill leaves it: nobody has noted the answer, or nothing but the count.
    for (n, forgotten) in [
        "delete from idempotency_keys",
        "delete from idempotency_keys",
    ]
    .iter()
    .enumerate()
    {
        sqlx::query(forgotten).execute(&app.pool).await.unwrap();
        app.clock.advance(Duration::seconds(20));
        let (status, body) = answer(again("login")).await;
        assert_eq!(status, 202, "{n}: {body}");
        for field in ["challenge_id", "expires_at"] {
            assert_eq!(body["data"][field], first["data"][field], "{n}: {field}");
        }
    }
    assert_eq!(app.count("select count(*) from otp_requests").await, 1);
    let made = "select count(*) from events where event_type = 'otp.requested'";
    assert_eq!(app.count(made).await, 1);
    sqlx::query("delete from idempotency_keys")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(refusal(again("pay")).await.1, "idempotency_key_reused");

    for (secs, status) in [(259, 202), (1, 410), (86_400, 410)] {
        app.clock.advance(Duration::seconds(secs));
        sqlx::query("delete from idempotency_keys")
            .execute(&app.pool)
            .await
            .unwrap();
        let (got, code, _) = refusal(again("login")).await;
        let expected = if status == 410 { "otp_expired" } else { "" };
        assert_eq!((got, code.as_str()), (status, expected), "{secs}");
    }
    assert_eq!(app.count(made).await, 1);
    app.stop().await;
}

#[tokio::test]
async fn whoever_cannot_be_counted_soon_is_told_to_come_again() {
    let app = TestApp::start().await;
    let mut hung = bitacora::transaction::begin(&app.pool).await.unwrap();
    let lock = "select pg_advisory_xact_lock(hashtextextended('otp_requests', 4245))";
    sqlx::query(lock).execute(&mut *hung).await.unwrap();
    let response = ask(&app, PHONE, "login").send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(retry_after(&response), 2);
    assert_eq!(app.count("select count(*) from otp_requests").await, 0);
    hung.rollback().await.unwrap();
    asked(&app, "login").await;
    app.stop().await;
}

#[tokio::test]
async fn an_id_that_was_counted_for_one_number_gets_no_other_past_the_limits() {
    let app = TestApp::start().await;
    let otp = codes(&app, OtpSettings::default());
    assert_eq!(may(&otp, PHONE, "login").await, Ok(()));
    // As a failure between the count and the challenge leaves it.
    let cut_short = "update otp_requests set challenge_id = 'otp_cut_short'";
    sqlx::query(cut_short).execute(&app.pool).await.unwrap();
    for (phone_number, purpose, is_made) in [
        ("+573007654321", "login", false),
        (PHONE, "pay", false),
        (PHONE, "login", true),
    ] {
        let order = Order {
            challenge_id: "otp_cut_short".to_owned(),
            phone_number: PhoneNumber::parse(phone_number).unwrap(),
            purpose: purpose.to_owned(),
        };
        match otp.request(order, Default::default()).await {
            Ok(_) => assert!(is_made, "{phone_number} {purpose}"),
            Err(RequestError::Taken) => assert!(!is_made, "{phone_number} {purpose}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(app.count("select count(*) from otp_requests").await, 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_at_once_on_two_replicas_get_what_one_may_have() {
    let apps = two([|_| {}, |_| {}]).await;
    let requests = (0..100).map(|n| answer(ask(&apps[n % 2], PHONE, "login")));
    let statuses = count(join_all(requests).await.iter().map(|(status, _)| *status));
    assert_eq!(statuses, BTreeMap::from([(202, 3), (429, 97)]));
    let made = "select count(*) from events where event_type = 'otp.requested'";
    assert_eq!(apps[0].count(made).await, 3);
    apps[0].settle().await;
    assert_equal_a_rebuild(&apps[0].pool).await;
    for app in apps {
        app.stop().await;
    }
}

fn count<K: Ord>(all: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    all.fold(BTreeMap::new(), |mut counts, key| {
        *counts.entry(key).or_default() += 1;
        counts
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_guesses_at_once_on_two_replicas_are_no_more_than_five() {
    let apps = two([|_| {}, |_| {}]).await;
    let id = challenge(&apps[0]).await;
    let guess = wrong(&apps[0], &id);
    let refusals = (0..100).map(|n| refusal(give_back(&apps[n % 2], &id, &guess)));
    let refusals = count(
        join_all(refusals)
            .await
            .into_iter()
            .map(|(status, code, left)| (status, code, left.as_u64())),
    );
    let invalid = |left| ((400, "otp_invalid".to_owned(), Some(left)), 1);
    let exceeded = ((429, "otp_attempts_exceeded".to_owned(), None), 95);
    let expected: BTreeMap<_, _> = (0..5).map(invalid).chain([exceeded]).collect();
    assert_eq!(refusals, expected);
    assert_eq!(guesses(&apps[0]).await, 5);
    let late = refusal(give_back(&apps[1], &id, &right(&apps[1], &id))).await;
    assert_eq!(late.0, 429);

    // Of the right code, which all have, one is taken.
    let id = challenge(&apps[1]).await;
    let code = right(&apps[0], &id);
    let given_back = (0..100).map(|n| answer(give_back(&apps[n % 2], &id, &code)));
    let statuses = count(join_all(given_back).await.iter().map(|(status, _)| *status));
    assert_eq!(statuses.get(&200), Some(&1), "{statuses:?}");
    assert!(
        statuses.keys().all(|it| [200, 409, 429].contains(it)),
        "{statuses:?}"
    );
    let verified = "select count(*) from events where event_type = 'otp.verified'";
    assert_eq!(apps[0].count(verified).await, 1);
    assert!(guesses(&apps[0]).await <= 10);
    apps[0].settle().await;
    assert_equal_a_rebuild(&apps[0].pool).await;
    for app in apps {
        app.stop().await;
    }
}

/// The provider takes the message of a code.
async fn send(app: &TestApp, challenge_id: &str, message_id: &str) {
    let event = effect::Event::Sent(Box::new(effect::Sent {
        attempt: 1,
        adopted: false,
        provider: Provider::Twilio,
        channel: Channel::Sms,
        message_id: Some(message_id.to_owned()),
        interaction_id: challenge_id.to_owned(),
        contact: PHONE.to_owned(),
        our_address: Some("+14155550100".to_owned()),
        content: Otp::masked_text(),
        content_sid: None,
    }));
    let fact = Fact {
        stream: StreamId::effect(code_id(challenge_id)),
        event: Event::Effect(event),
        occurred_at: None,
    };
    let entry = Entry::Facts(vec![fact], json!({}));
    app.app().writer.append(entry).await.unwrap();
}

/// A callback of Twilio about a text message.
async fn callback(app: &TestApp, message_id: &str, status: &str) {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("MessageSid", message_id)
        .append_pair("MessageStatus", status)
        .append_pair("From", "+14155550100")
        .append_pair("To", PHONE)
        .finish();
    ok(app.twilio("/webhooks/twilio/sms/status", form)).await;
}

#[tokio::test]
async fn the_sms_its_callbacks_and_the_verification_are_one_interaction() {
    let app = TestApp::start().await;
    let sid = |n: u32| format!("SM{n:032}");
    for (n, callbacks_first) in [(1, false), (2, true)] {
        let id = challenge(&app).await;
        let sid = sid(n);
        if callbacks_first {
            callback(&app, &sid, "delivered").await;
            app.settle().await;
            assert_eq!(
                app.read(&format!("/api/interactions/{sid}")).await["data"]["id"],
                sid.as_str()
            );
            callback(&app, &sid, "sent").await;
            send(&app, &id, &sid).await;
        } else {
            send(&app, &id, &sid).await;
            app.settle().await;
            callback(&app, &sid, "sent").await;
            callback(&app, &sid, "delivered").await;
        }
        app.settle().await;
        assert_eq!(status_of(&app, &id).await, "delivered");
        ok(give_back(&app, &id, &right(&app, &id))).await;

        let read =
            async |id: &str| app.read(&format!("/api/interactions/{id}")).await["data"].take();
        let shown = read(&id).await;
        assert_eq!(read(&sid).await, shown, "it answers to both names");
        let row = [
            "id",
            "channel",
            "direction",
            "status",
            "phone_number",
            "message_count",
        ]
        .map(|field| shown[field].clone());
        assert_eq!(
            json!(row),
            json!([id, "sms", "outbound", "verified", "+57******4567", 1])
        );
        let message = &shown["messages"][0];
        assert_eq!(
            json!([message["content"], message["status"]]),
            json!([Otp::masked_text(), "delivered"])
        );
        let mut types: Vec<_> = shown["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        types.sort_unstable();
        assert_eq!(
            types,
            [
                "effect.sent",
                "message.status_changed",
                "message.status_changed",
                "otp.attempted",
                "otp.requested",
                "otp.verified"
            ]
        );
    }
    let listed = app.read("/api/interactions?channel=sms").await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    assert_equal_a_rebuild(&app.pool).await;
    app.stop().await;
}

/// Every cell of every table that holds a text as a word of its own. Times
/// are left out: their fractions may be any digits.
pub async fn cells_with(pool: &PgPool, word: &str) -> Vec<String> {
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text, data_type::text
           from information_schema.columns
          where table_schema = 'public' and data_type not like 'timestamp%'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(columns.len() > 100, "{columns:?}");
    let mut found = Vec::new();
    for (table, column, kind) in columns {
        let text = match kind.as_str() {
            "bytea" => format!("encode({column}, 'escape')"),
            _ => format!("{column}::text"),
        };
        let sql = format!("select {text} from {table} where {text} ~ $1");
        let cells =
            sqlx::query_scalar(&sql).bind(format!("(^|[^0-9a-zA-Z.]){word}([^0-9a-zA-Z]|$)"));
        let cells: Vec<String> = cells.fetch_all(pool).await.unwrap();
        found.extend(
            cells
                .into_iter()
                .map(|cell| format!("{table}.{column}: {cell}")),
        );
    }
    found
}

#[tokio::test]
async fn no_column_and_no_log_line_holds_a_code_or_what_gives_it_away() {
    capture();
    let app = TestApp::start().await;
    let mut codes = vec![];
    for n in 0..3 {
        let request = ask(&app, PHONE, "login").header("Idempotency-Key", format!("ask-{n}"));
        let (status, body) = answer(request).await;
        assert_eq!(status, 202, "{body}");
        let id = body["data"]["challenge_id"].as_str().unwrap().to_owned();
        send(&app, &id, &format!("SM{n:032}")).await;
        let (code, guess) = (right(&app, &id), wrong(&app, &id));
        let keyed =
            |code: &str, key: String| give_back(&app, &id, code).header("Idempotency-Key", key);
        assert_eq!(answer(keyed(&guess, format!("wrong-{n}"))).await.0, 400);
        let number = json!({"challenge_id": id, "code": code.parse::<u32>().unwrap()});
        let number = app.post_as("service", "/api/otp/verify", &number);
        assert_eq!(
            answer(number.header("Idempotency-Key", format!("number-{n}")))
                .await
                .0,
            400
        );
        assert_eq!(answer(keyed(&code, format!("right-{n}"))).await.0, 200);
        codes.push(code);
    }
    app.settle().await;
    let kept = "select count(*) from idempotency_keys where operation = '/api/otp/verify'";
    assert_eq!(
        app.count(kept).await,
        0,
        "of a body with a code not even a digest: whoever tries a million codes finds it"
    );
    assert!(
        !cells_with(&app.pool, "otp").await.is_empty()
            && !cells_with(&app.pool, PHONE.trim_start_matches('+'))
                .await
                .is_empty(),
        "the search finds what is there"
    );
    let log = captured();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() > 9, "{log}");
    for code in codes {
        assert_eq!(cells_with(&app.pool, &code).await, Vec::<String>::new());
        for line in &lines {
            let mut line = line.clone();
            line["timestamp"] = Value::Null;
            line["seconds"] = Value::Null;
            assert!(!line.to_string().contains(&code), "{line}");
        }
    }
    app.stop().await;
}
