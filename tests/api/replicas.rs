//! Several processes on one ledger: together they are as one.

use std::collections::BTreeSet;

use bitacora::accounts::NewUser;
use bitacora::config::Config;
use domain::user::Role;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::app::{Options, answer, ok};
use crate::harness::read_models::assert_equal_a_rebuild;
use crate::harness::{TestApp, fixture, postgres};
use crate::ingest::{every_fixture, send_fixture};

/// Two replicas on one database.
pub async fn two(configs: [fn(&mut Config); 2]) -> [TestApp; 2] {
    let database_url = postgres::fresh_database().await;
    let start = |seed, config| {
        TestApp::with(Options {
            database_url: Some(database_url.clone()),
            config,
            seed,
            ..Options::default()
        })
    };
    let [a, b] = configs;
    [start(1, a).await, start(2, b).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_copies_over_two_replicas_are_one_event() {
    let apps = two([|_| {}, |_| {}]).await;
    for (body, provider) in [
        (
            fixture("elevenlabs/post_call_transcription.json"),
            "elevenlabs",
        ),
        (fixture("twilio/whatsapp.status.read.form"), "twilio"),
        (fixture("builderbot/message.incoming.json"), "builderbot"),
    ] {
        let before = apps[0].count("select count(*) from events").await;
        let copies = (0..50).map(|n| {
            let app = &apps[n % 2];
            ok(match provider {
                "elevenlabs" => app.elevenlabs(body.clone()),
                "twilio" => app.twilio("/webhooks/twilio/sms/status", body.clone()),
                _ => app.builderbot(body.clone()),
            })
        });
        let answers = join_all(copies).await;
        let of = |status| {
            answers
                .iter()
                .filter(|answer| answer["status"] == status)
                .count()
        };
        assert_eq!((of("accepted"), of("duplicate")), (1, 49), "{provider}");
        let told: BTreeSet<String> = answers
            .iter()
            .map(|answer| format!("{} {}", answer["delivery_id"], answer["position"]))
            .collect();
        assert_eq!(told.len(), 1, "all tell the first one's: {told:?}");
        assert_eq!(
            apps[1].count("select count(*) from events").await,
            before + 1
        );
    }
    for app in apps {
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_project_fold_each_event_once_and_one_goes_on_alone() {
    let [a, b] = two([|_| {}, |_| {}]).await;
    let send = async |apps: &[&TestApp]| {
        let sent = every_fixture()
            .into_iter()
            .enumerate()
            .map(|(n, (name, path))| {
                let app = apps[n % apps.len()];
                ok(send_fixture(app, &name, path))
            });
        join_all(sent).await;
    };
    send(&[&a, &b]).await;
    // The words that builderbot cannot tell from a repeat are new ones later.
    for app in [&a, &b] {
        app.clock.advance(chrono::Duration::minutes(11));
    }
    send(&[&b, &a]).await;
    a.settle().await;
    b.settle().await;
    let list = |app: &TestApp| app.get_as("auditor", "/api/interactions?limit=200");
    assert_eq!(answer(list(&a)).await, answer(list(&b)).await);
    assert_equal_a_rebuild(&b.pool).await;

    a.stop().await;
    let before = b.count("select count(*) from events").await;
    b.clock.advance(chrono::Duration::minutes(11));
    send(&[&b]).await;
    b.settle().await;
    assert!(b.count("select count(*) from events").await > before);
    assert_equal_a_rebuild(&b.pool).await;
    b.stop().await;
}

#[tokio::test]
async fn one_that_only_answers_and_one_that_only_works_are_whole_together() {
    let api = TestApp::with(Options {
        config: |config| config.worker = false,
        ..Options::default()
    })
    .await;
    ok(api.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    let lag = async |app: &TestApp| {
        let statuses = app.app().engine.statuses().await.unwrap();
        statuses
            .iter()
            .map(|status| status.lag_events)
            .collect::<Vec<_>>()
    };
    let lags = lag(&api).await;
    assert!(
        lags.iter().all(|lag| *lag == 1),
        "it leaves the work to others: {lags:?}"
    );
    assert_eq!(ids(&api).await, json!([]));
    let worker = TestApp::with(Options {
        database_url: Some(postgres::named(
            api.pool.connect_options().get_database().unwrap(),
        )),
        config: |config| config.api = false,
        seed: 2,
        ..Options::default()
    })
    .await;
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/health", 200),
        ("/api/interactions", 404),
    ] {
        assert_eq!(
            answer(worker.get_as("auditor", path)).await.0,
            status,
            "{path}"
        );
    }
    let refused = worker.elevenlabs(fixture("elevenlabs/post_call_audio.json"));
    assert_eq!(answer(refused).await.0, 404, "webhooks are not for it");
    api.settle().await;
    assert_eq!(ids(&api).await.as_array().unwrap().len(), 1);
    worker.stop().await;
    api.stop().await;
}

async fn ids(app: &TestApp) -> Value {
    app.read("/api/interactions").await["data"].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_are_counted_over_both() {
    let apps = two([|_| {}, |_| {}]).await;
    let ana = NewUser {
        name: "Ana".into(),
        email: "ana@example.com".into(),
        password: "una contraseña".into(),
        role: Role::Agent,
        agent_id: None,
    };
    let registered = apps[0].app().accounts.register(ana, Default::default());
    registered.await.unwrap();
    let attempt = |n: usize, password: &str| {
        let body = json!({"email": "ana@example.com", "password": password});
        answer(apps[n % 2].post_as("nobody", "/api/auth/login", &body))
    };
    assert_eq!(
        attempt(1, "una contraseña").await.0,
        200,
        "of the other one's registering"
    );
    let guesses = join_all((0..24).map(|n| attempt(n, "a guess"))).await;
    let of = |wanted| {
        guesses
            .iter()
            .filter(|(status, _)| *status == wanted)
            .count()
    };
    assert_eq!((of(401), of(429)), (10, 14), "{guesses:?}");
    for n in 0..2 {
        assert_eq!(
            attempt(n, "una contraseña").await.0,
            429,
            "the right one waits too"
        );
    }
    for app in &apps {
        app.clock.advance(chrono::Duration::minutes(16));
    }
    for n in 0..2 {
        assert_eq!(attempt(n, "una contraseña").await.0, 200);
    }
    for app in apps {
        app.stop().await;
    }
}
