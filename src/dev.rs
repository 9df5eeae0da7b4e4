//! `bitacora dev` and `bitacora sandbox`: the service with no account at any
//! provider. The sandbox plays them; its secrets and the service's are the same.

use std::collections::HashMap;

use anyhow::Context;
use clap::Args;
use domain::PhoneNumber;
use domain::group::{self, NewClient};
use sandbox::{AGENT_COLLECTIONS, Control, Options, PHONE_TWILIO, Rates, Sandbox};
use serde_json::{Map, json};

use crate::app::App;
use crate::cli::{self, StopSignal, WrongSetting};
use crate::config::{SecretList, ServeSettings, Settings};
use crate::serve::Running;
use crate::{clock, groups, local};

/// Bytes of randomness in the key that opens the sandbox to the service.
const KEY_BYTES: usize = 16;

/// Who is in the sample group. Nobody has these numbers.
const SAMPLE_CLIENTS: [(&str, &str); 6] = [
    ("Ana García", "+573005550101"),
    ("Luis Pérez", "+573005550102"),
    ("Marta Ríos", "+573005550103"),
    ("Jorge Díaz", "+573005550104"),
    ("Elena Núñez", "+573005550105"),
    ("Óscar Peña", "+573005550106"),
];

/// What `bitacora dev` may be told: everything of `serve`, and how the world is.
#[derive(Args, Clone, Debug)]
// Calls take seconds here, so looking for news must not take minutes.
#[command(mut_arg("batch_poll_seconds", |arg| arg.default_value("2")))]
#[command(mut_arg("reconcile_seconds", |arg| arg.default_value("5")))]
#[command(mut_arg("reconcile_grace_seconds", |arg| arg.default_value("10")))]
pub struct DevSettings {
    #[command(flatten)]
    serve: ServeSettings,

    /// Port of the providers' sandbox; 0 takes a free one.
    #[arg(long, env = "SANDBOX_PORT", default_value_t = 4010)]
    sandbox_port: u16,

    /// Everything that happens to calls, messages and webhooks is drawn from
    /// this number. Absent: a new one at every start, for the provider's ids
    /// are drawn from it too and the ledger keeps them.
    #[arg(long)]
    seed: Option<u64>,

    /// How many seconds of the providers' world pass in one of ours.
    #[arg(long, default_value_t = 60.0)]
    speed: f64,

    /// How many calls of one batch run at once.
    #[arg(long, default_value_t = Options::default().concurrency)]
    concurrency: usize,

    #[command(flatten)]
    rates: Rates,
}

/// A template: the sandbox takes any.
const TEMPLATE: &str = "HX00000000000000000000000000000001";

/// Serves on a sandbox until told to stop.
///
/// # Errors
/// When the sandbox or the service cannot start.
pub async fn run(
    settings: Settings,
    dev: DevSettings,
    source: clock::Source,
) -> anyhow::Result<()> {
    let mut serve = dev.serve.clone();
    for (name, key) in [
        ("ELEVENLABS_API_KEY", &serve.elevenlabs_api_key),
        ("BUILDERBOT_API_KEY", &serve.builderbot_api_key),
    ] {
        if key.as_ref().is_some_and(|key| !key.is_empty()) {
            tracing::warn!("{name} is set and not used: `dev` only asks its sandbox");
        }
    }
    let secrets = local::fill_secrets(&mut serve, &settings.data_dir, &source)?;
    let key = source.secret(KEY_BYTES);
    let seed = dev.seed.unwrap_or_else(|| fresh_seed(&source));
    let options = options(&dev, &serve, seed, &key);
    let sandbox = start_sandbox(options.clone()).await?;
    point_at(&mut serve, &options, &sandbox.url());
    let outcome =
        cli::serve_until_stopped(settings, serve, source, Some(secrets), Some(&sandbox)).await;
    sandbox.stop().await;
    outcome
}

/// Small enough that every JSON reader shows it as it is.
fn fresh_seed(source: &clock::Source) -> u64 {
    let mut bytes = [0; 4];
    source.fill(&mut bytes);
    u32::from_be_bytes(bytes).into()
}

/// A sandbox that knows the service's secrets. Where the service is, it learns
/// by [`introduce`].
fn options(dev: &DevSettings, serve: &ServeSettings, seed: u64, key: &str) -> Options {
    let first = |list: &Option<SecretList>| {
        let first = list.as_ref().and_then(SecretList::first);
        first.unwrap_or_default().to_owned()
    };
    Options {
        port: dev.sandbox_port,
        seed,
        speed: dev.speed,
        concurrency: dev.concurrency,
        elevenlabs_webhook_secret: first(&serve.elevenlabs_webhook_secret),
        elevenlabs_api_key: Some(key.to_owned()),
        twilio_auth_token: first(&serve.twilio_auth_token),
        builderbot_webhook_token: Some(first(&serve.builderbot_webhook_token)),
        builderbot_api_key: Some(key.to_owned()),
        rates: dev.rates.clone(),
        ..Options::default()
    }
}

/// Everything that the service asks of a provider goes to the sandbox.
fn point_at(serve: &mut ServeSettings, options: &Options, url: &str) {
    let key = |key: &Option<String>| key.as_ref().and_then(|key| key.parse().ok());
    serve.elevenlabs_base_url = url.to_owned();
    serve.elevenlabs_api_key = key(&options.elevenlabs_api_key);
    serve.twilio_base_url = url.to_owned();
    serve.twilio_account_sid = Some(options.twilio_account_sid.clone());
    serve.twilio_from_number = Some(options.twilio_from_number.clone());
    serve.twilio_whatsapp_from = Some(options.twilio_whatsapp_from.clone());
    serve.builderbot_api_url = url.to_owned();
    serve.builderbot_api_key = key(&options.builderbot_api_key);
    serve.builderbot_project_id = Some(options.builderbot_project_id.clone());
    serve.builderbot_reply = true;
    serve.whatsapp_agent_id = Some(AGENT_COLLECTIONS.to_owned());
    // The sandbox keeps WhatsApp's window: nobody may be written to freely first.
    serve.whatsapp_first_content_sid = Some(TEMPLATE.to_owned());
}

async fn start_sandbox(options: Options) -> anyhow::Result<Sandbox> {
    let address = format!("{}:{}", options.host, options.port);
    match Sandbox::start(options).await {
        Ok(sandbox) => Ok(sandbox),
        Err(sandbox::Error::Options(problem)) => Err(WrongSetting(problem).into()),
        Err(error) => Err(error).with_context(|| {
            format!("cannot start the sandbox on {address}: is another process there?")
        }),
    }
}

/// Tells the sandbox where the service is, and the newcomer where the sandbox
/// is; makes the sample group.
///
/// # Errors
/// When the sandbox refuses, or the database does not answer.
pub async fn introduce(running: &Running, sandbox: &Sandbox) -> anyhow::Result<()> {
    let control = Control {
        webhook_base: Some(format!("http://127.0.0.1:{}", running.address.port())),
        public_url: Some(running.app.config.public_url.clone()),
        ..Control::default()
    };
    sandbox
        .control(control)
        .await
        .map_err(|problem| anyhow::anyhow!(problem))?;
    println!(
        "Providers:       a sandbox at {}  (seed {}; what it really did: /sandbox/truth)",
        sandbox.url(),
        sandbox.truth().seed
    );
    sample_group(&running.app).await
}

/// A group to play with, unless there are groups.
async fn sample_group(app: &App) -> anyhow::Result<()> {
    let mut conn = app.pool.acquire().await?;
    let there_are = !projections::groups::list(&mut conn, None, 1)
        .await?
        .is_empty();
    drop(conn);
    if there_are {
        return Ok(());
    }
    let settings = group::Settings {
        name: "Clientes de ejemplo".to_owned(),
        agent_id: Some(AGENT_COLLECTIONS.to_owned()),
        phone_number_id: Some(PHONE_TWILIO.to_owned()),
        prefix: "+57".to_owned(),
        variables: Map::new(),
    };
    let client = |(name, phone): &(&str, &str)| {
        anyhow::Ok(NewClient {
            name: (*name).to_owned(),
            phone_number: PhoneNumber::parse(phone)?,
            email: None,
            empresa: None,
            cargo: None,
            variables: Map::from_iter([("client_name".to_owned(), json!(name))]),
        })
    };
    let clients = SAMPLE_CLIENTS.iter().map(client);
    let clients = clients.collect::<anyhow::Result<Vec<_>>>()?;
    let metadata = HashMap::from([("actor".to_owned(), "local".to_owned())]);
    let (id, _) = groups::create(&app.pool, &app.store, settings, clients, metadata).await?;
    println!("Sample group:    number {id}; POST /api/groups/{id}/call {{\"userId\":1}} calls it");
    Ok(())
}

/// Runs the sandbox alone until told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn sandbox_alone(options: Options) -> anyhow::Result<()> {
    let mut stop = StopSignal::new()?;
    let sandbox = start_sandbox(options.clone()).await?;
    let url = sandbox.url();
    println!("The sandbox is at {url}  (what it really did: {url}/sandbox/truth)");
    println!("A service reaches it by");
    println!("  ELEVENLABS_BASE_URL={url} ELEVENLABS_API_KEY=any");
    println!(
        "  TWILIO_BASE_URL={url} TWILIO_ACCOUNT_SID={}",
        options.twilio_account_sid
    );
    println!("  TWILIO_FROM_NUMBER={}", options.twilio_from_number);
    println!("  TWILIO_WHATSAPP_FROM={}", options.twilio_whatsapp_from);
    println!("  BUILDERBOT_API_URL={url} BUILDERBOT_API_KEY=any");
    println!("  BUILDERBOT_PROJECT_ID={}", options.builderbot_project_id);
    println!("Agent {AGENT_COLLECTIONS} calls from {PHONE_TWILIO}");
    stop.received().await;
    sandbox.stop().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::config::Config;

    #[derive(Parser)]
    struct Dev {
        #[command(flatten)]
        settings: DevSettings,
    }

    #[test]
    fn the_command_line_is_sound() {
        cli::Cli::command().debug_assert();
        Dev::command().debug_assert();
    }

    #[test]
    fn dev_is_in_a_hurry_unless_told_otherwise() {
        let parsed = |words: &str| Dev::parse_from(words.split(' ')).settings;
        assert_eq!(parsed("dev").serve.reconcile_seconds, 5);
        let told = parsed("dev --reconcile-seconds 300 --rate-never 0.5");
        assert_eq!(told.serve.reconcile_seconds, 300);
        assert_eq!(told.rates.never, 0.5);
    }

    #[test]
    fn both_sides_have_the_same_secrets_and_numbers() {
        let mut settings = Dev::parse_from(["dev"]).settings;
        let serve = &mut settings.serve;
        serve.elevenlabs_webhook_secret = "new,old".parse().ok();
        serve.twilio_auth_token = "token".parse().ok();
        serve.microservice_token = "service".parse().ok();
        serve.jwt_secret = "a secret of at least 32 characters".parse().ok();
        // What a developer has for the real ones.
        serve.twilio_account_sid = Some(format!("AC{}", "f".repeat(32)));
        serve.builderbot_api_key = "bb-real".parse().ok();
        let options = options(&settings, &settings.serve, 7, "key");
        assert_eq!(options.elevenlabs_webhook_secret, "new");
        assert_eq!(options.twilio_auth_token, "token");
        assert_eq!(options.elevenlabs_api_key.as_deref(), Some("key"));

        point_at(&mut settings.serve, &options, "http://127.0.0.1:4010");
        let config = Config::new(&settings.serve).unwrap();
        let urls = [
            &config.elevenlabs.base_url,
            &config.twilio.base_url,
            &config.builderbot.base_url,
        ];
        for url in urls {
            assert_eq!(url.as_str(), "http://127.0.0.1:4010/");
        }
        assert_eq!(config.elevenlabs.api_key.as_deref(), Some("key"));
        assert_eq!(config.builderbot.api_key.as_deref(), Some("key"));
        assert_eq!(config.twilio.auth_token.as_deref(), Some("token"));
        assert_eq!(config.twilio.account_sid, Some(options.twilio_account_sid));
        assert_eq!(config.twilio.sms_from, Some(options.twilio_from_number));
        assert_eq!(config.twilio.whatsapp_from.as_deref(), Some("+14155238886"));
        assert!(config.builderbot_reply);
        assert_eq!(config.default_agent_id.as_deref(), Some(AGENT_COLLECTIONS));
    }
}
