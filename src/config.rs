//! Settings: every flag and environment variable, read once at the start.
//!
//! The names are those of the five systems that this one replaces (contract,
//! section 9). A wrong value stops the start with a message that names it.

mod checks;
mod log;
mod messaging;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono::Days;
use clap::Args;
use domain::sealed::MasterKeys;

use crate::effects;
use crate::erasure::Retention;
use crate::otp::OtpSettings;
use crate::providers;
use crate::providers::{builderbot, elevenlabs, twilio};

pub use log::LogKeys;

/// What the operator may set. Flags win over the environment, the environment
/// over a `.env` file in the working directory.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// PostgreSQL to use. Absent: a local one that this program runs itself.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,

    /// Where local mode keeps its database and generated secrets.
    #[arg(long, env = "DATA_DIR", default_value = ".bitacora", global = true)]
    pub data_dir: PathBuf,

    /// How log lines look; `auto` is text on a terminal and JSON elsewhere.
    /// `RUST_LOG` sets what is logged.
    #[arg(long, env = "LOG_FORMAT", default_value = "auto", global = true)]
    pub log_format: LogFormat,

    /// Connections to PostgreSQL, at most.
    #[arg(long, env = "DATABASE_CONNECTIONS_MAX", default_value_t = 20, global = true,
          value_parser = clap::value_parser!(u32).range(4..=500))]
    pub database_connections_max: u32,

    /// Key under which the keys of persons are kept, of 32 characters or more.
    /// Comma-separated for rotation: the first is used, all are understood.
    /// Without one, one is made and kept in the database.
    #[arg(long, env = "MASTER_KEY", hide_env_values = true, global = true)]
    pub master_key: Option<SecretList>,

    /// Whether personal data is encrypted before it is stored.
    #[arg(long, env = "SUBJECT_ENCRYPTION", default_value = "true", global = true,
          action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub subject_encryption: bool,
}

impl Settings {
    /// Whether the database is a local one.
    pub fn is_local(&self) -> bool {
        self.database_url.as_deref().is_none_or(str::is_empty)
    }

    /// What the keys of persons are under; `None`: nothing is encrypted.
    ///
    /// # Errors
    /// When one may be guessed.
    pub fn master_keys(&self) -> anyhow::Result<Option<MasterKeys>> {
        let keys = checks::secrets(&self.master_key);
        if keys.is_empty() {
            return Ok(None);
        }
        if keys.iter().any(|key| key.len() < MASTER_KEY_CHARS_MIN) {
            anyhow::bail!(
                "MASTER_KEY has less than {MASTER_KEY_CHARS_MIN} characters: take the output of `openssl rand -hex 32`"
            );
        }
        Ok(Some(MasterKeys::new(keys.iter().map(String::as_str))))
    }
}

/// How the transparency log is signed, and whose signatures are believed.
#[derive(Args, Clone, Debug, Default)]
pub struct LogSettings {
    /// Key that signs the heads of the transparency log, as `bitacora log-key` makes one. The
    /// first of a list signs, every one is believed. Without one, one is made and kept in the database.
    #[arg(long, env = "LOG_SIGNING_KEY", hide_env_values = true)]
    pub log_signing_key: Option<SecretList>,

    /// What the log is called, for ever. Default: as its key is.
    #[arg(long, env = "LOG_ORIGIN")]
    pub log_origin: Option<String>,

    /// Verifier keys that are believed too, comma-separated: those of signing keys that are no
    /// longer used.
    #[arg(long, env = "LOG_VERIFIER_KEYS", value_delimiter = ',')]
    pub log_verifier_keys: Vec<String>,
}

/// What `bitacora serve` may be told beside [`Settings`].
#[derive(Args, Clone, Debug)]
pub struct ServeSettings {
    /// Address to listen on.
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: std::net::IpAddr,

    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "PORT")]
    pub port: Option<u16>,

    /// The older name of `PORT`.
    #[arg(long, env = "APP_PORT", hide = true)]
    pub app_port: Option<u16>,

    /// The address by which providers reach us, without a path: Twilio signs
    /// it. Default: `http://localhost:PORT`.
    #[arg(long, env = "PUBLIC_URL")]
    pub public_url: Option<String>,

    /// Token that ElevenLabs' webhooks bring in `X-Webhook-Token`.
    /// Comma-separated for rotation, as is every secret below.
    #[arg(long, env = "ELEVENLABS_WEBHOOK_TOKEN", hide_env_values = true)]
    pub elevenlabs_webhook_token: Option<SecretList>,

    /// Secret under which ElevenLabs signs webhooks (`wsec_…`).
    #[arg(long, env = "ELEVENLABS_WEBHOOK_SECRET", hide_env_values = true)]
    pub elevenlabs_webhook_secret: Option<SecretList>,

    /// Key of ElevenLabs' API. Without one no calls can be made.
    #[arg(long, env = "ELEVENLABS_API_KEY", hide_env_values = true)]
    pub elevenlabs_api_key: Option<SecretList>,

    /// Address of ElevenLabs' API, without a path.
    #[arg(long, env = "ELEVENLABS_BASE_URL", default_value = elevenlabs::client::DEFAULT_BASE_URL)]
    pub elevenlabs_base_url: String,

    /// Seconds between two looks at batches that are being called.
    #[arg(long, env = "BATCH_POLL_SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub batch_poll_seconds: u64,

    /// Seconds between two searches for calls whose webhook never came.
    #[arg(long, env = "RECONCILE_SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub reconcile_seconds: u64,

    /// Seconds that a webhook may be late after the end of its call before it
    /// counts as missing.
    #[arg(long, env = "RECONCILE_GRACE_SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub reconcile_grace_seconds: u64,

    /// Seconds after which a stream of a batch's status is closed.
    #[arg(long, env = "SSE_TIMEOUT_SECONDS", default_value_t = 1800,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub sse_timeout_seconds: u64,

    /// Where "today" is, by its name in the IANA database.
    #[arg(long, env = "TIMEZONE", default_value = "America/Bogota")]
    pub timezone: String,

    /// How the agent is asked for its answer to a message.
    #[arg(long, env = "ELEVENLABS_TEXT_MODE", default_value = "websocket")]
    pub elevenlabs_text_mode: TextMode,

    /// Token that builderbot's webhooks bring.
    #[arg(long, env = "BUILDERBOT_WEBHOOK_TOKEN", hide_env_values = true)]
    pub builderbot_webhook_token: Option<SecretList>,

    /// Address of builderbot's API, with or without `/api/v2`.
    #[arg(long, env = "BUILDERBOT_API_URL", default_value = builderbot::client::DEFAULT_BASE_URL)]
    pub builderbot_api_url: String,

    /// Key of builderbot's API. Without one nothing is sent by it.
    #[arg(long, env = "BUILDERBOT_API_KEY", hide_env_values = true)]
    pub builderbot_api_key: Option<SecretList>,

    /// The project of builderbot's whose number sends. The same.
    #[arg(long, env = "BUILDERBOT_PROJECT_ID")]
    pub builderbot_project_id: Option<String>,

    /// Whether the agent answers messages that came by builderbot.
    #[arg(long, env = "BUILDERBOT_REPLY", default_value = "false", action = clap::ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub builderbot_reply: bool,

    /// Token that Twilio's webhooks may bring.
    #[arg(long, env = "TWILIO_WEBHOOK_TOKEN", hide_env_values = true)]
    pub twilio_webhook_token: Option<SecretList>,

    /// Twilio's auth token, under which it signs webhooks. The first of a list
    /// opens its API.
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide_env_values = true)]
    pub twilio_auth_token: Option<SecretList>,

    /// Our account at Twilio (`AC…`). Without one nothing is sent by it.
    #[arg(long, env = "TWILIO_ACCOUNT_SID")]
    pub twilio_account_sid: Option<String>,

    /// The number that SMS are sent from. Without one none are.
    #[arg(long, env = "TWILIO_FROM_NUMBER")]
    pub twilio_from_number: Option<String>,

    /// The number that WhatsApp messages are sent from, with or without
    /// `whatsapp:`. Without one none are.
    #[arg(long, env = "TWILIO_WHATSAPP_FROM")]
    pub twilio_whatsapp_from: Option<String>,

    /// Address of Twilio's API, without a path.
    #[arg(long, env = "TWILIO_BASE_URL", default_value = twilio::client::DEFAULT_BASE_URL)]
    pub twilio_base_url: String,

    /// The template (`HX…`) as which the first message after a call goes.
    #[arg(long, env = "WHATSAPP_FIRST_CONTENT_SID")]
    pub whatsapp_first_content_sid: Option<String>,

    /// The agent that answers clients of whom no call is known.
    #[arg(long, env = "WHATSAPP_AGENT_ID")]
    pub whatsapp_agent_id: Option<String>,

    /// Days after which what calls brought is erased. Without it, never, as with
    /// those below.
    #[arg(long, env = "RETENTION_CALL_DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub retention_call_days: Option<u64>,

    /// The same of WhatsApp.
    #[arg(long, env = "RETENTION_WHATSAPP_DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub retention_whatsapp_days: Option<u64>,

    /// The same of text messages and one-time codes.
    #[arg(long, env = "RETENTION_SMS_DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub retention_sms_days: Option<u64>,

    /// The same of requests that were not authentic, or not understood.
    #[arg(long, env = "RETENTION_UNVERIFIED_DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub retention_unverified_days: Option<u64>,

    /// Seconds for which a one-time code is good.
    #[arg(long, env = "OTP_TTL_SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(30..=3600))]
    pub otp_ttl_seconds: u64,

    /// Guesses at one code.
    #[arg(long, env = "OTP_MAX_ATTEMPTS", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=20))]
    pub otp_max_attempts: u32,

    /// Codes for one number and purpose within the window.
    #[arg(long, env = "OTP_RATE_LIMIT_MAX", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub otp_rate_limit_max: u32,

    /// Seconds of that window.
    #[arg(long, env = "OTP_RATE_LIMIT_WINDOW_SECONDS", default_value_t = 900,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub otp_rate_limit_window_seconds: u64,

    /// Countries to whose numbers codes are sent: ISO 3166, comma-separated.
    #[arg(long, env = "OTP_ALLOWED_COUNTRIES", default_value = messaging::DEFAULT_COUNTRIES)]
    pub otp_allowed_countries: String,

    /// Codes within an hour for numbers that differ in their last four digits
    /// only.
    #[arg(long, env = "OTP_PREFIX_RATE_LIMIT_MAX", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub otp_prefix_rate_limit_max: u32,

    /// Codes within an hour for everybody together.
    #[arg(long, env = "OTP_HOURLY_MAX", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub otp_hourly_max: u32,

    /// Token by which our other services call the API (`X-Service-Token`).
    #[arg(long, env = "MICROSERVICE_TOKEN", hide_env_values = true)]
    pub microservice_token: Option<SecretList>,

    /// Secret under which login tokens are signed; should have 32 characters or more. The
    /// first of a list signs, every one verifies.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<SecretList>,

    /// The transparency log.
    #[command(flatten)]
    pub log: LogSettings,

    /// Seconds between two heads of the transparency log; 0 seals nothing.
    #[arg(long, env = "LOG_SEAL_SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub log_seal_seconds: u64,

    /// Whether phone numbers are masked in answers.
    #[arg(long, env = "PII_MASKING_ENABLED", default_value = "true", action = clap::ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub pii_masking_enabled: bool,

    /// Origins that browsers may call from, comma-separated; `*` for any.
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,

    /// Serve `/metrics` there without a token, and not on the main port.
    #[arg(long, env = "METRICS_ADDR")]
    pub metrics_addr: Option<SocketAddr>,

    /// Take the caller's address from the last entry of `X-Forwarded-For`. Set
    /// it only behind a proxy of your own that writes that header.
    #[arg(long, env = "TRUST_PROXY", default_value = "false", action = clap::ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub trust_proxy: bool,

    /// Only answer HTTP; leave the background work to other processes.
    #[arg(long)]
    pub api: bool,

    /// Only do background work (projections); answer only `/livez`,
    /// `/readyz`, `/health` and `/metrics`.
    #[arg(long)]
    pub worker: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How the agent is asked for its answer to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TextMode {
    /// By a text-only session, as the provider offers it.
    Websocket,
    /// By one request for each message, as an older system did. The provider
    /// does not offer it today.
    Http,
}

/// One or more secrets, the newest first. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretList(Vec<String>);

impl std::str::FromStr for SecretList {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let secrets = text.split(',').map(str::trim).filter(|s| !s.is_empty());
        Ok(Self(secrets.map(str::to_owned).collect()))
    }
}

impl fmt::Debug for SecretList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretList({} hidden)", self.0.len())
    }
}

impl SecretList {
    /// Each of them, in their order.
    pub fn all(&self) -> &[String] {
        &self.0
    }

    /// The newest, which signs.
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Everything `serve` needs to know, checked.
#[derive(Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The address by which providers reach us, without a trailing slash.
    pub public_url: String,
    /// What providers' webhooks are told by.
    pub provider_secrets: providers::Secrets,
    /// Where ElevenLabs' API is and how it knows us.
    pub elevenlabs: elevenlabs::client::Settings,
    /// How the agent is asked for its answer to a message.
    pub text_mode: TextMode,
    /// Where Twilio's API is, how it knows us, and which numbers are ours.
    pub twilio: twilio::client::Settings,
    /// Where builderbot's API is and how it knows us.
    pub builderbot: builderbot::client::Settings,
    /// Whether the agent answers messages that came by builderbot.
    pub builderbot_reply: bool,
    /// The template as which the first message after a call goes.
    pub first_content_sid: Option<String>,
    /// The agent that answers clients of whom no call is known.
    pub default_agent_id: Option<String>,
    /// The rules of one-time codes.
    pub otp: OtpSettings,
    /// How effects are settled.
    pub effects: effects::Policy,
    /// Time between two looks at batches that are being called.
    pub batch_poll: Duration,
    /// Time between two searches for calls whose webhook never came.
    pub reconcile_every: Duration,
    /// How late a webhook may be before it counts as missing.
    pub reconcile_grace: Duration,
    /// After how long a stream of a batch's status is closed.
    pub sse_timeout: Duration,
    /// Where "today" is.
    pub timezone: chrono_tz::Tz,
    /// Tokens of our other services.
    pub service_tokens: Vec<String>,
    /// Secrets of login tokens; the first signs.
    pub jwt_secrets: Vec<String>,
    /// Who signs the transparency log, if anybody does, and who is believed.
    pub log: LogKeys,
    /// Time between two heads of the transparency log.
    pub seal_every: Duration,
    /// For how long personal data is kept.
    pub retention: Retention,
    /// What the keys of persons are under.
    pub master_keys: Option<MasterKeys>,
    /// Whether what is personal is encrypted. What was, is read in any case.
    pub seals: bool,
    /// Whether phone numbers are masked in answers.
    pub mask_phone_numbers: bool,
    /// Origins that browsers may call from.
    pub cors_allowed_origins: Vec<String>,
    /// Where metrics are served without a token.
    pub metrics_addr: Option<SocketAddr>,
    /// Whether `X-Forwarded-For` is believed.
    pub trust_proxy: bool,
    /// Whether this process answers the API.
    pub api: bool,
    /// Whether this process does background work.
    pub worker: bool,
}

/// Fewest characters of a good secret for login tokens: the bytes of an
/// HMAC-SHA256 key (RFC 7518, section 3.2).
const JWT_SECRET_CHARS_MIN: usize = 32;
/// Fewest characters of a master key.
const MASTER_KEY_CHARS_MIN: usize = 32;
const DEFAULT_PORT: u16 = 3000;

impl Config {
    /// Checks the settings and puts them together.
    ///
    /// # Errors
    /// When a value is missing or wrong; the message names the variable.
    pub fn new(settings: &ServeSettings) -> anyhow::Result<Self> {
        let port = settings.port.or(settings.app_port).unwrap_or(DEFAULT_PORT);
        let jwt_secrets = checks::required(&settings.jwt_secret, "JWT_SECRET")?;
        if jwt_secrets
            .iter()
            .any(|secret| secret.len() < JWT_SECRET_CHARS_MIN)
        {
            tracing::warn!(
                "JWT_SECRET has less than {JWT_SECRET_CHARS_MIN} characters and may be guessed: take the output of `openssl rand -hex 32`"
            );
        }
        let public_url = checks::public_url(settings.public_url.as_deref(), port)?;
        Ok(Self {
            listen: SocketAddr::new(settings.host, port),
            provider_secrets: checks::provider_secrets(settings),
            elevenlabs: checks::elevenlabs(settings)?,
            text_mode: settings.elevenlabs_text_mode,
            twilio: messaging::twilio(settings, &public_url)?,
            builderbot: messaging::builderbot(settings)?,
            builderbot_reply: settings.builderbot_reply,
            first_content_sid: messaging::first_content_sid(settings)?,
            default_agent_id: messaging::default_agent_id(settings)?,
            otp: messaging::otp(settings)?,
            effects: effects::Policy::default(),
            public_url,
            batch_poll: Duration::from_secs(settings.batch_poll_seconds),
            reconcile_every: Duration::from_secs(settings.reconcile_seconds),
            reconcile_grace: Duration::from_secs(settings.reconcile_grace_seconds),
            sse_timeout: Duration::from_secs(settings.sse_timeout_seconds),
            timezone: checks::timezone(&settings.timezone)?,
            service_tokens: checks::required(&settings.microservice_token, "MICROSERVICE_TOKEN")?,
            jwt_secrets,
            log: LogKeys::new(&settings.log)?,
            seal_every: Duration::from_secs(settings.log_seal_seconds),
            retention: Retention {
                call: settings.retention_call_days.map(Days::new),
                whatsapp: settings.retention_whatsapp_days.map(Days::new),
                sms: settings.retention_sms_days.map(Days::new),
                unverified: settings.retention_unverified_days.map(Days::new),
            },
            master_keys: None,
            seals: false,
            mask_phone_numbers: settings.pii_masking_enabled,
            cors_allowed_origins: checks::origins(&settings.cors_allowed_origins)?,
            metrics_addr: settings.metrics_addr,
            trust_proxy: settings.trust_proxy,
            api: settings.api || !settings.worker,
            worker: settings.worker || !settings.api,
        })
    }

    /// The same with what personal data is encrypted under.
    ///
    /// # Errors
    /// As [`Settings::master_keys`].
    pub fn sealing(mut self, settings: &Settings) -> anyhow::Result<Self> {
        self.master_keys = settings.master_keys()?;
        self.seals = settings.subject_encryption;
        Ok(self)
    }
}
