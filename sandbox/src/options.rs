//! What a person chooses when starting the sandbox.

use clap::Args;

use crate::rates::Rates;

/// The sandbox's settings. The defaults suit a service on this machine with the same secrets.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Address to listen on.
    #[arg(long, default_value_t = Options::default().host)]
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = Options::default().port)]
    pub port: u16,
    /// Where the service takes its webhooks.
    #[arg(long, default_value_t = Options::default().webhook_base)]
    pub webhook_base: String,
    /// The service's own idea of its address, over which Twilio signs; `webhook_base` when absent.
    #[arg(long, env = "PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Everything that happens is drawn from this number.
    #[arg(long, default_value_t = Options::default().seed)]
    pub seed: u64,
    /// How many seconds of the world pass in one of ours. Delays shrink, timestamps stay real.
    #[arg(long, default_value_t = Options::default().speed)]
    pub speed: f64,
    /// Time stands still until it is told to move: for tests.
    #[arg(long)]
    pub manual_clock: bool,
    /// The manual clock's first moment, in Unix seconds; now when absent.
    #[arg(long)]
    pub clock_start_unix: Option<u64>,

    /// Signs ElevenLabs' webhooks. Of a comma-separated list the first is used.
    #[arg(long, env = "ELEVENLABS_WEBHOOK_SECRET", hide_env_values = true, default_value_t = Options::default().elevenlabs_webhook_secret)]
    pub elevenlabs_webhook_secret: String,
    /// The only `xi-api-key` that is good; any is when absent.
    #[arg(long, env = "ELEVENLABS_API_KEY", hide_env_values = true)]
    pub elevenlabs_api_key: Option<String>,
    /// Repeat an unsuccessful `post_call_transcription` by the provider's schedule (off there too).
    #[arg(long)]
    pub elevenlabs_retries: bool,
    /// Post a `post_call_audio` after each answered call.
    #[arg(long, default_value_t = Options::default().elevenlabs_audio, action = clap::ArgAction::Set)]
    pub elevenlabs_audio: bool,
    /// Post a `post_call_transcription` after each text session too.
    #[arg(long, default_value_t = Options::default().text_session_webhooks, action = clap::ArgAction::Set)]
    pub text_session_webhooks: bool,
    /// Agents that exist besides the sandbox's own.
    #[arg(long, value_delimiter = ',')]
    pub agents: Vec<String>,
    /// How many calls of one batch run at once, unless the batch says otherwise.
    #[arg(long, default_value_t = Options::default().concurrency)]
    pub concurrency: usize,

    /// The only account that exists.
    #[arg(long, env = "TWILIO_ACCOUNT_SID", default_value_t = Options::default().twilio_account_sid)]
    pub twilio_account_sid: String,
    /// Its token: opens the API, signs the webhooks. Of a comma-separated list the first is used.
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide_env_values = true, default_value_t = Options::default().twilio_auth_token)]
    pub twilio_auth_token: String,
    /// The number that simulated people write SMS to.
    #[arg(long, env = "TWILIO_FROM_NUMBER", default_value_t = Options::default().twilio_from_number)]
    pub twilio_from_number: String,
    /// The WhatsApp sender that simulated people write to.
    #[arg(long, env = "TWILIO_WHATSAPP_FROM", default_value_t = Options::default().twilio_whatsapp_from)]
    pub twilio_whatsapp_from: String,
    /// Refuse free text to someone who has not written for 24 hours, as WhatsApp does.
    #[arg(long, default_value_t = Options::default().whatsapp_window, action = clap::ArgAction::Set)]
    pub whatsapp_window: bool,
    /// Post voice status callbacks for batch calls too.
    #[arg(long)]
    pub voice_callbacks: bool,

    /// Sent as `?token=` with builderbot's webhooks.
    #[arg(long, env = "BUILDERBOT_WEBHOOK_TOKEN", hide_env_values = true)]
    pub builderbot_webhook_token: Option<String>,
    /// The only `x-api-builderbot` that is good; any is when absent.
    #[arg(long, env = "BUILDERBOT_API_KEY", hide_env_values = true)]
    pub builderbot_api_key: Option<String>,
    /// The project of builderbot's own webhooks.
    #[arg(long, env = "BUILDERBOT_PROJECT_ID", default_value_t = Options::default().builderbot_project_id)]
    pub builderbot_project_id: String,

    /// What the world does, how often.
    #[command(flatten)]
    pub rates: Rates,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 0,
            webhook_base: "http://127.0.0.1:3000".into(),
            public_url: None,
            seed: 1,
            speed: 1.0,
            manual_clock: false,
            clock_start_unix: None,
            elevenlabs_webhook_secret: "wsec_sandbox".into(),
            elevenlabs_api_key: None,
            elevenlabs_retries: false,
            elevenlabs_audio: true,
            text_session_webhooks: true,
            agents: Vec::new(),
            concurrency: 10,
            twilio_account_sid: "AC00000000000000000000000000000001".into(),
            twilio_auth_token: "sandbox-twilio-auth-token".into(),
            twilio_from_number: "+14155550100".into(),
            twilio_whatsapp_from: "whatsapp:+14155238886".into(),
            whatsapp_window: true,
            voice_callbacks: false,
            builderbot_webhook_token: None,
            builderbot_api_key: None,
            builderbot_project_id: "00000000-0000-4000-8000-000000000001".into(),
            rates: Rates::default(),
        }
    }
}

impl Options {
    /// What is wrong with these options, in words, or nothing.
    pub(crate) fn problem(&self) -> Option<String> {
        if !(self.speed.is_finite() && self.speed > 0.0) {
            return Some(format!("speed must be above 0, not {}", self.speed));
        }
        if self.concurrency == 0 {
            return Some("concurrency must be at least 1".into());
        }
        self.rates.problem()
    }

    /// The service's address as the outside sees it, without a slash at the end.
    pub(crate) fn public_base(&self) -> &str {
        self.public_url
            .as_deref()
            .unwrap_or(&self.webhook_base)
            .trim_end_matches('/')
    }

    /// Where to send a request that is addressed to `url`: the service's public address may not be
    /// reachable from here, its webhook address is.
    pub(crate) fn reachable(&self, url: &str) -> String {
        let url = url.split('#').next().unwrap_or(url);
        match url.strip_prefix(self.public_base()) {
            Some(path) => format!("{}{path}", self.webhook_base.trim_end_matches('/')),
            None => url.to_owned(),
        }
    }
}

/// The first of a comma-separated list of secrets: the one that signs.
pub(crate) fn first_secret(list: &str) -> &str {
    list.split(',').next().unwrap_or(list).trim()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_command_line_is_sound_and_its_flags_are_read() {
        Cli::command().debug_assert();
        let words = "x --seed 7 --rate-never 0.2 --late-secs 1..2 --elevenlabs-audio false";
        let options = Cli::parse_from(words.split(' ')).options;
        assert_eq!((options.seed, options.rates.never), (7, 0.2));
        assert!(!options.elevenlabs_audio);
        assert_eq!(options.rates.late_secs.max, 2);
        assert!(Cli::try_parse_from(["x", "--rate-never", "2"]).is_err());
    }

    #[test]
    fn the_public_address_is_signed_and_the_other_is_called() {
        let options = Options {
            public_url: Some("https://cc.example.com/".to_owned()),
            ..Options::default()
        };
        let url = "https://cc.example.com/webhooks/x?y=1#rc=2";
        assert_eq!(
            options.reachable(url),
            "http://127.0.0.1:3000/webhooks/x?y=1"
        );
        assert_eq!(options.reachable("http://other/x"), "http://other/x");
    }
}
