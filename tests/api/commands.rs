//! The commands, as an operator types them: what they print, and how they end.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool};

use crate::harness::app::{ELEVENLABS_TOKEN, MASTER_KEY, ok};
use crate::harness::program::{Program, SETTINGS, add_ana, run};
use crate::harness::read_models::assert_equal_a_rebuild;
use crate::harness::{TestApp, fixture, postgres};

const NOBODY_THERE: &str = "postgres://nobody@127.0.0.1:1/nothing";

#[tokio::test]
async fn a_setting_that_is_missing_or_wrong_is_named_and_ends_with_78() {
    // The settings are looked at first: no database is needed to be told.
    for (name, value, says) in [
        (
            "JWT_SECRET",
            "",
            "JWT_SECRET is not set: set it to a long random value",
        ),
        ("MICROSERVICE_TOKEN", "", "MICROSERVICE_TOKEN is not set"),
        (
            "MASTER_KEY",
            "short",
            "MASTER_KEY has less than 32 characters",
        ),
        (
            "PUBLIC_URL",
            "cc.example.com",
            "PUBLIC_URL must be like https://",
        ),
        (
            "PUBLIC_URL",
            "ftp://cc.example.com",
            "PUBLIC_URL must be like https://",
        ),
        (
            "TIMEZONE",
            "Bogota",
            "TIMEZONE must be a name of the IANA database like America/Bogota",
        ),
        (
            "ELEVENLABS_BASE_URL",
            "nowhere",
            "ELEVENLABS_BASE_URL is no URL",
        ),
        (
            "CORS_ALLOWED_ORIGINS",
            "app.example.com",
            "CORS_ALLOWED_ORIGINS must list origins like",
        ),
        (
            "DATABASE_URL",
            "nonsense",
            "DATABASE_URL is no PostgreSQL address",
        ),
        (
            "DATABASE_URL",
            "mysql://localhost/x",
            "DATABASE_URL is no PostgreSQL address",
        ),
    ] {
        let settings = [SETTINGS, &[("DATABASE_URL", NOBODY_THERE), (name, value)]].concat();
        let ended = run(&["serve"], &settings, "").await;
        assert_eq!(ended.code, Some(78), "{name}={value}: {ended:?}");
        assert!(ended.stderr.contains(says), "{name}={value}: {ended:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_said_to_be_and_ends_with_69() {
    let settings = [SETTINGS, &[("DATABASE_URL", NOBODY_THERE)]].concat();
    for args in [
        &["serve"][..],
        &["migrate"],
        &["replay", "--all"],
        &[
            "user",
            "add",
            "--name",
            "Ana",
            "--email",
            "ana@example.com",
            "--role",
            "admin",
            "--password-stdin",
        ],
    ] {
        let ended = run(args, &settings, "a good password").await;
        assert_eq!(ended.code, Some(69), "{args:?}: {ended:?}");
        let says = "cannot connect to PostgreSQL: is DATABASE_URL right, and is the server up?";
        assert!(ended.stderr.contains(says), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn wrong_usage_is_explained_and_ends_with_2() {
    for (args, says) in [
        (&[][..], "Usage: bitacora"),
        (&["dance"], "unrecognized subcommand 'dance'"),
        (&["serve", "--prot", "1"], "--port"),
        (&["serve", "--port", "x"], "'x'"),
        (&["replay"], "<PROJECTION|--all>"),
        (&["replay", "interactions", "--all"], "cannot be used with"),
        (&["user", "add", "--name", "Ana"], "--email"),
        (
            &[
                "user",
                "add",
                "--name",
                "Ana",
                "--email",
                "a@b.co",
                "--role",
                "boss",
                "--password-stdin",
            ],
            "boss",
        ),
        (
            &[
                "user", "add", "--name", "Ana", "--email", "a@b.co", "--role", "admin",
            ],
            "--password-stdin",
        ),
    ] {
        let ended = run(args, &[], "").await;
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{args:?}: {ended:?}");
        assert!(ended.stdout.is_empty(), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn help_teaches_each_command() {
    for (args, teaches) in [
        (
            &["--help"][..],
            &[
                "serve",
                "migrate",
                "replay",
                "user",
                "openapi",
                "Exit codes",
                "DATABASE_URL",
            ][..],
        ),
        (
            &["serve", "--help"],
            &[
                "--api",
                "--worker",
                "JWT_SECRET",
                "ELEVENLABS_WEBHOOK_SECRET",
                "TWILIO_AUTH_TOKEN",
                "PUBLIC_URL",
            ],
        ),
        (&["migrate", "--help"], &["tables", "DATABASE_URL"]),
        (
            &["replay", "--help"],
            &["interactions", "--all", "go on meanwhile"],
        ),
        (
            &["user", "add", "--help"],
            &["printf %s", "--password-stdin", "--role", "auditor"],
        ),
        (&["openapi", "--help"], &["OpenAPI document"]),
    ] {
        let secret = ("JWT_SECRET", "a secret that no help may show");
        let ended = run(args, &[secret], "").await;
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        for word in teaches {
            assert!(
                ended.stdout.contains(word),
                "{args:?} {word}: {}",
                ended.stdout
            );
        }
        assert!(!ended.stdout.contains(secret.1), "{args:?}");
    }
}

#[tokio::test]
async fn openapi_prints_the_document_that_is_committed() {
    let ended = run(&["openapi"], &[], "").await;
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/bitacora.json");
    assert_eq!(ended.code, Some(0));
    let same = ended.stdout == std::fs::read_to_string(committed).unwrap();
    assert!(same, "run `make openapi`");
}

#[tokio::test]
async fn migrate_makes_the_tables_and_may_be_repeated() {
    let url = postgres::database_of_an_ordinary_role().await;
    for _ in 0..2 {
        let ended = run(&["migrate"], &[("DATABASE_URL", &url)], "").await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let pool = PgPool::connect(&url).await.unwrap();
    let sql = "select count(*) from events, deliveries, interactions";
    let rows: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_database_that_a_newer_version_migrated_is_left_alone() {
    let url = postgres::fresh_database().await;
    let pool = PgPool::connect(&url).await.unwrap();
    let newer =
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (9999, 'from the future', true, '', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    let ended = run(&["migrate"], &[("DATABASE_URL", &url)], "").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("cannot migrate the database"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn somebody_who_was_added_may_log_in_and_nobody_is_added_badly() {
    let app = TestApp::start().await;
    let url = database_url(&app);
    let settings = [("DATABASE_URL", url.as_str()), ("MASTER_KEY", MASTER_KEY)];
    let add = |email, password| add_ana(email, &settings, password);
    // A line end is the shell's, and no part of the password.
    let ended = add("Ana@Example.com", "una contraseña\n").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        ended.stdout,
        "User 1 <ana@example.com> may log in as admin.\n"
    );
    let login = |password: &str| {
        let body = serde_json::json!({"email": "ana@example.com", "password": password});
        app.post_as("nobody", "/api/auth/login", &body)
    };
    assert_eq!(
        ok(login("una contraseña")).await["data"]["user"]["role"],
        "admin"
    );

    for (email, password, says) in [
        (
            "ana@example.com",
            "another password",
            "a user with this e-mail address exists already",
        ),
        (
            "eva@example.com",
            "short",
            "password must have 8 to 200 characters",
        ),
        (
            "eva@example.com",
            "",
            "password must have 8 to 200 characters",
        ),
        ("eva", "a good password", "email is not an e-mail address"),
    ] {
        let ended = add(email, password).await;
        assert_eq!(ended.code, Some(1), "{email}: {ended:?}");
        assert!(ended.stderr.contains(says), "{email}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(
            password.is_empty() || !said.contains(password),
            "{email}: {said}"
        );
    }
    ok(login("una contraseña")).await;
    assert_eq!(
        app.count("select count(*) from events where aggregate_type = 'user'")
            .await,
        1
    );
    app.stop().await;
}

#[tokio::test]
async fn replay_folds_one_or_all_anew_and_tells_what_was_wrong() {
    let app = TestApp::start().await;
    ok(app.elevenlabs(fixture("elevenlabs/post_call_transcription.json"))).await;
    app.settle().await;
    let url = database_url(&app);
    let replay = |what: &'static str| {
        let url = url.clone();
        async move {
            run(
                &["replay", what],
                &[("DATABASE_URL", &url), ("MASTER_KEY", MASTER_KEY)],
                "",
            )
            .await
        }
    };
    let by_hand = "update interactions set summary = 'mentira'";
    sqlx::query(by_hand).execute(&app.pool).await.unwrap();
    let ended = replay("messages").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let sql = "select id from interactions";
    let id: String = sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap();
    assert_eq!(
        ended.stdout,
        format!(
            "interactions: rebuilt up to position 2\n  interactions: 1 rows differ from before\n    \
             {id}: otherwise than before\n"
        ),
        "by the name of a table of it"
    );
    let ended = replay("--all").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let rebuilt: Vec<&str> = ended
        .stdout
        .lines()
        .filter_map(|line| line.split_once(": rebuilt up to position "))
        .map(|(name, _)| name)
        .collect();
    let names: Vec<&str> = app.app().engine.names().collect();
    assert_eq!(rebuilt, names, "{ended:?}");
    let ended = replay("nonsense").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let says = format!(
        "there is no projection \"nonsense\"; there are: {}",
        names.join(", ")
    );
    assert!(ended.stderr.contains(&says), "{ended:?}");
    assert_equal_a_rebuild(&app.pool).await;
    // It compares though no service is there to fold what it puts on record.
    app.stop().await;
    let mut conn = PgConnection::connect(&url).await.unwrap();
    sqlx::query(by_hand).execute(&mut conn).await.unwrap();
    let ended = replay("interactions").await;
    assert!(ended.stdout.contains("1 rows differ"), "{ended:?}");
}

pub fn database_url(app: &TestApp) -> String {
    postgres::named(app.pool.connect_options().get_database().unwrap())
}

/// Two commands to start, nothing to nurse: who sets neither key has both, and
/// the same ones on every replica and after every restart.
#[tokio::test]
async fn keys_that_nobody_configured_are_made_once_and_kept() {
    let url = postgres::fresh_database().await;
    let none = [("MASTER_KEY", ""), ("LOG_SIGNING_KEY", "")];
    let program = Program::serve_with(&url, &none).await;
    let http = reqwest::Client::new();
    let webhook = http
        .post(format!("{}/webhooks/elevenlabs/call", program.url))
        .header("X-Webhook-Token", ELEVENLABS_TOKEN)
        .body(fixture("elevenlabs/post_call_transcription.json"));
    let taken = ok(webhook).await;
    assert_eq!(taken["status"], "accepted");
    let mut conn = PgConnection::connect(&url).await.unwrap();
    let sealed =
        "select payload::text like '{\"sealed\":%' from events where event_type = 'call.completed'";
    let sealed: bool = sqlx::query_scalar(sealed)
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert!(sealed, "it is encrypted");
    let heads = async {
        let sql = "select exists (select from log_checkpoints where last_position > 0)";
        while !sqlx::query_scalar::<_, bool>(sql)
            .fetch_one(&mut conn)
            .await
            .unwrap()
        {}
    };
    tokio::time::timeout(Duration::from_secs(60), heads)
        .await
        .unwrap();
    program.kill().await;
    let verified = run(&["verify"], &[("DATABASE_URL", &url)], "").await;
    assert_eq!(verified.code, Some(0), "{verified:?}");

    let own = [(
        "MASTER_KEY",
        "a-master-key-that-came-later-of-32-characters",
    )];
    for settings in [&none[..], &own[..]] {
        let replayed = [&[("DATABASE_URL", url.as_str())], settings].concat();
        let replayed = run(&["replay", "--all"], &replayed, "").await;
        assert_eq!(replayed.code, Some(0), "{replayed:?}");
        let sql = "select summary from interactions";
        let read: Option<String> = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
        assert!(
            read.is_some_and(|summary| summary.len() > 20),
            "{settings:?}"
        );
    }
    let kept = "select count(*) from kept_keys";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut conn).await.unwrap();
    assert_eq!(kept, 2);

    // Who configured one and forgets it must not go on in the clear.
    let drop_kept = sqlx::query("delete from kept_keys where name = 'MASTER_KEY'");
    drop_kept.execute(&mut conn).await.unwrap();
    let settings = [SETTINGS, &[("DATABASE_URL", url.as_str())], &none[..]].concat();
    let refused = run(&["serve"], &settings, "").await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(
        refused.stderr.contains("MASTER_KEY is not set, and"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_local_ledger_is_exported_with_the_keys_that_lie_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    // The server may run as another user than we do.
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let data = dir.path().join("data").display().to_string();
    let here = [("DATABASE_URL", ""), ("DATA_DIR", data.as_str())];
    // None is made for whoever wants to read one.
    for args in [
        &["verify"][..],
        &["export", "--kind", "events"],
        &["replay", "--all"],
    ] {
        let ended = run(args, &here, "").await;
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(
            ended.stderr.contains("there is no database in"),
            "{ended:?}"
        );
        assert!(!dir.path().join("data").exists());
    }
    let ended = add_ana("ana@example.com", &here, "una contraseña").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = run(&["export", "--kind", "events", "--reveal"], &here, "").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("user.registered"), "{ended:?}");
}
