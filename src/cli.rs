//! The command line.

mod export;
mod group;
mod verify;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgGroup, Parser, Subcommand};
use domain::log::Signer;
use domain::log::note::signer_key;
use domain::sealed::MasterKeys;
use domain::user::Role;
use indicatif::{ProgressBar, ProgressStyle};
use projections::engine::{Rebuild, RebuildProgress};
use projections::{Engine, Opener};
use sandbox::Sandbox;
use sqlx::PgPool;

use crate::accounts::{Accounts, NewUser};
use crate::config::{Config, ServeSettings, Settings};
use crate::export::Misplaced;
use crate::ledger::{self, Entry, Limits, Store, write_batch};
use crate::local_postgres::{Durability, LocalPostgres};
use crate::{app, clock, dev, http, kept_keys, local, serve, telemetry};

/// A wrong setting; as in BSD's sysexits.
const EXIT_CONFIG: u8 = 78;
/// The ledger is not what was sealed.
const EXIT_NOT_AS_SEALED: u8 = 3;
/// Wrong usage, as clap has it.
const EXIT_USAGE: u8 = 2;
/// The database cannot be reached.
const EXIT_UNAVAILABLE: u8 = 69;
/// Who acts here, in the audit log.
const ACTOR: &str = "command line";
/// How often a long command says how far it is, where there is no terminal.
const PLAIN_PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Bitácora keeps the log of a contact centre: every call, WhatsApp and SMS
/// webhook, once, for ever, on PostgreSQL.
///
/// With no DATABASE_URL it runs a PostgreSQL of its own, so `bitacora serve` is
/// all it takes to try it. Every flag is an environment variable too, and may
/// stand in a file `.env` in the working directory.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not what was sealed (`verify`), 69 the database cannot be
/// reached, 78 a setting is missing or wrong.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take webhooks, answer the API, keep the read models up to date.
    ///
    /// Does both by default; `--api` or `--worker` alone does one. Any number of
    /// processes may run on one database.
    Serve(Box<ServeSettings>),
    /// Serve with no account at any provider: a sandbox plays them.
    ///
    /// Calls run 60 times as fast as real ones; secrets are generated and known to both sides.
    /// With no DATABASE_URL the PostgreSQL is its own too. `make demo` runs a campaign on it.
    Dev(Box<dev::DevSettings>),
    /// The providers' sandbox alone: ElevenLabs, Twilio and builderbot.cloud on one address.
    ///
    /// Takes their requests, places calls and delivers messages in a world of its own, and calls
    /// back with signed webhooks: as late, doubled or lost as the rates below say. The same seed
    /// tells the same story again. `GET /sandbox/truth` says what really happened, `POST
    /// /sandbox/control` changes the world; see sandbox/README.md.
    ///
    /// It takes the service's secrets from the same variables as `serve`:
    /// `set -a; . .bitacora/secrets.env; bitacora sandbox --speed 60`
    #[command(mut_arg("port", |arg| arg.default_value("4010")))]
    Sandbox(Box<sandbox::Options>),
    /// Bring the database to this version's tables (serve does it too).
    Migrate,
    /// Fold read models anew from the whole ledger, beside the live ones.
    ///
    /// Reads and webhooks go on meanwhile; the new tables replace the old ones at the end.
    #[command(group(ArgGroup::new("which").required(true)))]
    Replay {
        /// A projection or one of its tables, such as `interactions`.
        #[arg(group = "which")]
        projection: Option<String>,
        /// Every projection.
        #[arg(long, group = "which")]
        all: bool,
    },
    /// Write interactions, events or deliveries to a file, all of one ledger position.
    ///
    /// `bitacora export --kind events --reveal -o events.jsonl`
    Export(Box<export::ExportArgs>),
    /// Manage people.
    #[command(subcommand)]
    User(UserCommand),
    /// Manage groups of clients.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Check that the ledger is what was sealed, or that a proof proves something.
    ///
    /// Recomputes the transparency log from every event and delivery, compares it with every signed head
    /// and with the checkpoints that you kept outside, and names the first row that was changed,
    /// removed, inserted or put into another order. Exit code 3: something is not as it was sealed.
    Verify(Box<verify::VerifyArgs>),
    /// Make a key under which the heads of the transparency log are signed.
    ///
    /// Prints LOG_SIGNING_KEY, which is a secret, and on standard error the verifier key, which is for
    /// whoever checks the log.
    LogKey {
        /// What the log is called, for ever, such as `example.com/bitacora`.
        name: String,
    },
    /// Print the OpenAPI document.
    Openapi,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Give a person a login.
    ///
    /// The password is read from standard input:
    /// `printf %s "$PASSWORD" | bitacora user add --name Ana --email ana@example.com --role admin --password-stdin`
    Add {
        /// Full name.
        #[arg(long)]
        name: String,
        /// E-mail address.
        #[arg(long)]
        email: String,
        /// agent, supervisor, admin or auditor.
        #[arg(long)]
        role: Role,
        /// The voice agent that calls in the person's name.
        #[arg(long)]
        agent_id: Option<String>,
        /// Read the password from standard input.
        #[arg(long, required = true)]
        password_stdin: bool,
    },
}

/// A mistake in the settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongSetting(pub(crate) String);

/// Runs a command to its end and says how it went.
pub fn run() -> ExitCode {
    // Before any thread is there: it changes the environment.
    if let Err(error) = dotenvy::from_path(".env")
        && !error.not_found()
    {
        eprintln!("bitacora: .env cannot be read: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let cli = Cli::parse();
    telemetry::start_logging(cli.settings.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bitacora: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(execute(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bitacora: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let database_away = |cause: &(dyn std::error::Error + 'static)| {
        matches!(
            cause.downcast_ref::<sqlx::Error>(),
            Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_))
        )
    };
    let wrong_address = |cause: &(dyn std::error::Error + 'static)| {
        matches!(
            cause.downcast_ref::<sqlx::Error>(),
            Some(sqlx::Error::Configuration(_))
        )
    };
    if error.is::<Misplaced>() {
        EXIT_USAGE
    } else if error.is::<WrongSetting>() || error.chain().any(wrong_address) {
        EXIT_CONFIG
    } else if error.is::<verify::NotAsSealed>() || error.is::<verify::NotProved>() {
        EXIT_NOT_AS_SEALED
    } else if error.chain().any(database_away) {
        EXIT_UNAVAILABLE
    } else {
        1
    }
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    let Cli {
        mut settings,
        command,
    } = cli;
    let source = clock::Source::system();
    let reads = match &command {
        Command::Verify(args) => args.file.is_none(),
        Command::Export(_) | Command::Replay { .. } => true,
        _ => false,
    };
    if reads {
        is_there(&settings)?;
    }
    let needs_keys = match command {
        Command::Dev(_) => true,
        Command::Serve(_)
        | Command::Replay { .. }
        | Command::Export(_)
        | Command::User(_)
        | Command::Group(_) => settings.is_local(),
        _ => false,
    };
    if needs_keys {
        local::fill_master_key(&mut settings, &source)?;
    }
    match command {
        Command::Openapi => {
            print!("{}", http::openapi());
            Ok(())
        }
        Command::Verify(mut args) => {
            if settings.is_local() {
                local::fill_log_key(&mut args.log, &settings.data_dir)?;
            }
            if let Some(path) = &args.file
                && verify::is_export(path)?
            {
                return verify::export(path, &args.known_keys()?);
            }
            if let Some(path) = &args.file {
                return verify::file(path, &args.keys()?);
            }
            with_database(&settings, &source, |pool| async move {
                kept_keys::fill_log_key(&pool, &mut args.log, None).await?;
                let keys = args.keys()?;
                let outside = args.outside(&keys)?;
                verify::database(pool, keys, outside).await
            })
            .await
        }
        Command::LogKey { name } => {
            let mut seed = [0; 32];
            source.fill(&mut seed);
            let key = signer_key(&name, &seed)
                .map_err(|error| WrongSetting(format!("the name {error}")))?;
            println!("{key}");
            eprintln!("verifier key: {}", Signer::new(&key, None)?.verifier_key());
            Ok(())
        }
        Command::Serve(mut serve_settings) => {
            let secrets = if settings.is_local() {
                Some(local::fill_secrets(
                    &mut serve_settings,
                    &settings.data_dir,
                    &source,
                )?)
            } else {
                None
            };
            serve_until_stopped(settings, *serve_settings, source, secrets, None).await
        }
        Command::Dev(dev_settings) => dev::run(settings, *dev_settings, source).await,
        Command::Sandbox(options) => dev::sandbox_alone(*options).await,
        Command::Migrate => with_database(&settings, &source, |_| async { Ok(()) }).await,
        Command::Replay { projection, all: _ } => {
            with_database(&settings, &source, |pool| {
                replay(pool, projection, &settings, source.clone())
            })
            .await
        }
        Command::Export(mut args) => {
            if settings.is_local() {
                local::fill_log_key(&mut args.log, &settings.data_dir)?;
            }
            with_database(&settings, &source, |pool| {
                export::run(pool, *args, &settings, source.clone())
            })
            .await
        }
        Command::Group(command) => {
            with_database(&settings, &source, |pool| {
                group::run(pool, command, &settings, source.clone())
            })
            .await
        }
        Command::User(UserCommand::Add {
            name,
            email,
            role,
            agent_id,
            password_stdin: _,
        }) => {
            let mut password = String::new();
            std::io::stdin()
                .read_to_string(&mut password)
                .context("cannot read the password")?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            let new = NewUser {
                name,
                email,
                password,
                role,
                agent_id,
            };
            with_database(&settings, &source, |pool| {
                add_user(pool, new, &settings, source.clone())
            })
            .await
        }
    }
}

/// Whoever reads a ledger is not shown an empty one that was made for it.
fn is_there(settings: &Settings) -> anyhow::Result<()> {
    let dir = &settings.data_dir;
    if settings.is_local() && !dir.exists() {
        return Err(WrongSetting(format!(
            "there is no database in {}: set DATABASE_URL, or DATA_DIR to where it is",
            dir.display()
        ))
        .into());
    }
    Ok(())
}

/// The database that is set, or the local one: started if need be, and then
/// stopped again at the end.
async fn open_database(
    settings: &Settings,
    source: &clock::Source,
) -> anyhow::Result<(PgPool, Option<LocalPostgres>)> {
    let given = settings
        .database_url
        .as_deref()
        .filter(|url| !url.is_empty());
    let (url, server) = match given {
        Some(url) => (url.to_owned(), None),
        None => {
            let password = source.secret(16);
            let server =
                LocalPostgres::start(&settings.data_dir, password, Durability::Durable).await?;
            (server.url(), Some(server))
        }
    };
    let pool = app::connect(&url, settings.database_connections_max).await?;
    ledger::migrate(&pool)
        .await
        .context("cannot migrate the database")?;
    Ok((pool, server))
}

async fn with_database<F: Future<Output = anyhow::Result<()>>>(
    settings: &Settings,
    source: &clock::Source,
    work: impl FnOnce(PgPool) -> F,
) -> anyhow::Result<()> {
    let (pool, server) = open_database(settings, source).await?;
    let outcome = work(pool.clone()).await;
    pool.close().await;
    if let Some(server) = server {
        server.stop().await?;
    }
    outcome
}

/// Serves until a signal comes. `secrets` is where generated secrets are, and
/// whether some are new; `sandbox` plays the providers.
pub(crate) async fn serve_until_stopped(
    mut settings: Settings,
    mut serve_settings: ServeSettings,
    source: clock::Source,
    secrets: Option<(PathBuf, bool)>,
    sandbox: Option<&Sandbox>,
) -> anyhow::Result<()> {
    // What is wrong with them is said before a database is opened.
    config_of(&settings, &serve_settings)?;
    let mut stop = StopSignal::new()?;
    let (pool, server) = open_database(&settings, &source).await?;
    kept_keys::fill_master_key(&pool, &mut settings, &source).await?;
    let seals = serve_settings.log_seal_seconds > 0;
    let log = &mut serve_settings.log;
    kept_keys::fill_log_key(&pool, log, seals.then_some(&source)).await?;
    let config = config_of(&settings, &serve_settings)?;
    let metrics = telemetry::start_metrics()?;
    let running = serve::start(config, pool, source.clone(), metrics, Limits::default()).await?;
    if let Some((file, new)) = secrets {
        let password = local::first_admin(&running.app.accounts, &source).await?;
        print_welcome(&running, &file, new, password.as_deref());
    }
    if let Some(sandbox) = sandbox {
        dev::introduce(&running, sandbox).await?;
    }
    tracing::info!(address = %running.address, api = running.app.config.api, worker = running.app.config.worker, version = env!("CARGO_PKG_VERSION"), "serving");
    stop.received().await;
    tracing::info!("stopping: finishing what was begun");
    running.stop().await;
    if let Some(server) = server {
        server.stop().await?;
    }
    tracing::info!("stopped");
    Ok(())
}

fn config_of(settings: &Settings, serve_settings: &ServeSettings) -> anyhow::Result<Config> {
    let config = Config::new(serve_settings).and_then(|config| config.sealing(settings));
    config.map_err(|error| WrongSetting(format!("{error:#}")).into())
}

/// What a newcomer needs, on standard output, where no log line is.
fn print_welcome(
    running: &serve::Running,
    secrets: &std::path::Path,
    new: bool,
    password: Option<&str>,
) {
    let port = running.address.port();
    println!(
        "Bitácora is at http://localhost:{port}  (API docs: http://localhost:{port}/api/docs)"
    );
    if let Some(password) = password {
        println!(
            "First login:     {}  password: {password}   (shown only this once)",
            local::ADMIN_EMAIL
        );
    }
    if new {
        println!(
            "Service token:   X-Service-Token: {}",
            running.app.config.service_tokens[0]
        );
        println!(
            "Webhook tokens and signing secrets were generated into {}:",
            secrets.display()
        );
        println!(
            "  set -a; . {}; set +a      puts them into your shell",
            secrets.display()
        );
    } else {
        println!("Tokens and signing secrets are in {}", secrets.display());
    }
}

/// SIGTERM, as orchestrators send it, or Ctrl-C.
pub(crate) struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignal {
    pub(crate) fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What a command needs beside the database: the index of people, and a store.
pub(crate) async fn store_of(
    pool: &PgPool,
    settings: &Settings,
    source: &clock::Source,
) -> anyhow::Result<(domain::PhoneIndex, Store)> {
    let masters = kept_master_keys(pool, settings, source).await?;
    let sealing = masters.clone().filter(|_| settings.subject_encryption);
    let (index, keyring) = ledger::keys(pool, sealing, source).await?;
    let store = Store::new(pool.clone()).sealing(keyring, Opener::new(masters));
    Ok((index, store))
}

/// Those that are set, and the one that is kept in the database.
async fn kept_master_keys(
    pool: &PgPool,
    settings: &Settings,
    source: &clock::Source,
) -> anyhow::Result<Option<MasterKeys>> {
    let mut settings = settings.clone();
    kept_keys::fill_master_key(pool, &mut settings, source).await?;
    master_keys(&settings)
}

fn master_keys(settings: &Settings) -> anyhow::Result<Option<MasterKeys>> {
    let keys = settings.master_keys();
    keys.map_err(|error| WrongSetting(format!("{error:#}")).into())
}

async fn add_user(
    pool: PgPool,
    new: NewUser,
    settings: &Settings,
    source: clock::Source,
) -> anyhow::Result<()> {
    let (index, store) = store_of(&pool, settings, &source).await?;
    let accounts = Accounts::new(pool.clone(), store, index, source.clone());
    let metadata = std::collections::HashMap::from([("actor".to_owned(), ACTOR.to_owned())]);
    let registered = accounts.register(new, metadata).await;
    let target = match &registered {
        Ok((user, _)) => format!("user:{}", user.user_id),
        Err(_) => "user".to_owned(),
    };
    put_on_record(&pool, &source, "create_user", target, &registered).await?;
    let (user, _) = registered?;
    println!(
        "User {} <{}> may log in as {}.",
        user.user_id, user.email, user.role
    );
    Ok(())
}

/// Writes down that somebody with a shell did something.
async fn put_on_record<T, E>(
    pool: &PgPool,
    source: &clock::Source,
    action: &str,
    target: String,
    outcome: &Result<T, E>,
) -> anyhow::Result<()> {
    let outcome = if outcome.is_ok() { "ok" } else { "failed" };
    write_down(pool, source, action, target, outcome, None).await
}

/// As [`put_on_record`], with more on it, free of personal data.
async fn write_down(
    pool: &PgPool,
    source: &clock::Source,
    action: &str,
    target: String,
    outcome: &str,
    detail: Option<String>,
) -> anyhow::Result<()> {
    let recorded = domain::audit::Recorded {
        actor: ACTOR.to_owned(),
        role: None,
        action: action.to_owned(),
        target: Some(target),
        outcome: outcome.to_owned(),
        from: None,
        request_id: None,
        detail,
    };
    let entry = Entry::Facts(vec![recorded.at(source.now())], serde_json::json!({}));
    let mut conn = pool.acquire().await?;
    write_batch(&mut conn, Limits::default(), vec![entry], |_| Ok(())).await?;
    Ok(())
}

async fn replay(
    pool: PgPool,
    name: Option<String>,
    settings: &Settings,
    source: clock::Source,
) -> anyhow::Result<()> {
    let (index, store) = store_of(&pool, settings, &source).await?;
    let engine = Engine::new(pool.clone(), projections::all(&index));
    let engine = engine.opening(store.opener().clone());
    let names: Vec<&'static str> = match &name {
        None => engine.names().collect(),
        Some(name) => vec![engine.resolve(name).with_context(|| {
            let known: Vec<_> = engine.names().collect();
            format!(
                "there is no projection {name:?}; there are: {}",
                known.join(", ")
            )
        })?],
    };
    let what = names.join(", ");
    for name in &names {
        let (action, target) = ("replay_projection", (*name).to_owned());
        write_down(&pool, &source, action, target, "begun", None).await?;
    }
    // Where no service does: rows that know less of the ledger cannot be
    // compared. Of one that has stopped, its rebuild is what matters.
    let _ = engine.run_all(names.iter().copied()).await;
    let rebuilt = engine.rebuild_all(&names, progress_of(&what)).await?;
    let mut last = Ok(());
    for (name, rebuilt) in rebuilt {
        let replayed = rebuilt.and_then(|rebuilt| show_rebuilt(name, rebuilt));
        let target = name.to_owned();
        put_on_record(&pool, &source, "replay_projection", target, &replayed).await?;
        last = last.and(replayed);
    }
    last
}

/// Shows how far a rebuild is.
fn progress_of(what: &str) -> impl FnMut(RebuildProgress) {
    let bar = progress_bar(what.to_owned(), "events");
    let what = what.to_owned();
    let mut said = std::time::Instant::now();
    move |progress| {
        bar.set_length(u64::try_from(progress.head).unwrap_or_default());
        bar.set_position(u64::try_from(progress.position).unwrap_or_default());
        if progress.position >= progress.head {
            bar.finish_and_clear();
        } else if bar.is_hidden() && said.elapsed() >= PLAIN_PROGRESS_INTERVAL {
            said = std::time::Instant::now();
            println!(
                "{what}: position {} of {}",
                progress.position, progress.head
            );
        }
    }
}

fn show_rebuilt(name: &str, rebuilt: Rebuild) -> anyhow::Result<()> {
    match rebuilt {
        Rebuild::HeldElsewhere => bail!("{name} is being rebuilt by another process already"),
        Rebuild::Superseded => bail!("{name} belongs to a newer version of this program"),
        Rebuild::Done {
            position,
            differences,
        } => {
            println!("{name}: rebuilt up to position {position}");
            for table in differences.unwrap_or_default() {
                let differing = table.only_before.max(table.only_after);
                println!("  {}: {differing} rows differ from before", table.table);
                for row in table.rows {
                    let how = match (row.before, row.after) {
                        (true, false) => "only before",
                        (false, true) => "only now",
                        _ => "otherwise than before",
                    };
                    println!("    {}: {how}", row.key);
                }
            }
            Ok(())
        }
    }
}

/// A bar on a terminal; nothing to draw elsewhere, where plain lines serve.
fn progress_bar(name: impl Into<String>, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{eta}} left");
    let style =
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0)
        .with_style(style)
        .with_prefix(name.into())
}
