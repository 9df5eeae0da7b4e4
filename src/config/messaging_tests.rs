use clap::Parser;

use super::*;
use crate::config::{Config, TextMode};

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    settings: ServeSettings,
}

const NEEDED: [&str; 3] = [
    "serve",
    "--jwt-secret=a secret of at least 32 characters",
    "--microservice-token=token",
];

/// What comes of these flags, in the words of the operator.
fn config(flags: &[&str]) -> Result<Config, String> {
    let words = NEEDED.iter().chain(flags);
    let serve = Serve::try_parse_from(words).map_err(|error| error.to_string())?;
    Config::new(&serve.settings).map_err(|error| format!("{error:#}"))
}

#[test]
fn with_nothing_set_nothing_can_be_sent_and_the_limits_are_the_contracts() {
    let flags = [
        "--twilio-account-sid=",
        "--twilio-from-number=",
        "--twilio-whatsapp-from=",
        "--twilio-base-url=",
        "--builderbot-api-url=",
        "--builderbot-api-key=",
        "--builderbot-project-id=",
        "--whatsapp-first-content-sid=",
        "--whatsapp-agent-id=",
        "--otp-allowed-countries=",
    ];
    // What is left empty counts as not set.
    for flags in [&[][..], &flags] {
        let config = config(flags).unwrap();
        let twilio = &config.twilio;
        assert_eq!(twilio.base_url.as_str(), "https://api.twilio.com/");
        assert_eq!(twilio.account_sid, None);
        assert_eq!((&twilio.sms_from, &twilio.whatsapp_from), (&None, &None));
        let builderbot = &config.builderbot;
        assert_eq!(
            builderbot.base_url.as_str(),
            "https://app.builderbot.cloud/"
        );
        assert_eq!(
            (&builderbot.api_key, &builderbot.project_id),
            (&None, &None)
        );
        assert!(!config.builderbot_reply);
        assert_eq!(config.first_content_sid, None);
        assert_eq!(config.default_agent_id, None);
        assert_eq!(config.text_mode, TextMode::Websocket);
        let expected = OtpSettings {
            ttl: Duration::from_secs(300),
            attempts_max: 5,
            rate_limit_max: 3,
            rate_limit_window: Duration::from_secs(900),
            allowed_countries: DEFAULT_COUNTRIES.split(',').map(str::to_owned).collect(),
            prefix_rate_limit_max: 100,
            hourly_max: 1000,
        };
        assert_eq!(config.otp, expected);
    }
}

#[test]
fn what_is_set_reaches_its_client() {
    let config = config(&[
        "--public-url=https://cc.example.com/",
        "--twilio-account-sid=AC00000000000000000000000000000001",
        "--twilio-auth-token=new,old",
        "--twilio-from-number=+14155550100",
        "--twilio-whatsapp-from=whatsapp:+14155238886",
        "--builderbot-api-url=https://app.builderbot.cloud/api/v2/",
        "--builderbot-api-key=bb-1",
        "--builderbot-project-id=00000000-0000-4000-8000-000000000001",
        "--builderbot-reply=true",
        "--whatsapp-first-content-sid=HX00000000000000000000000000000001",
        "--whatsapp-agent-id=agent_01",
        "--elevenlabs-text-mode=http",
        "--otp-allowed-countries= co, MX,",
    ])
    .unwrap();
    let twilio = &config.twilio;
    assert_eq!(twilio.auth_token.as_deref(), Some("new"));
    assert_eq!(twilio.sms_from.as_deref(), Some("+14155550100"));
    assert_eq!(twilio.whatsapp_from.as_deref(), Some("+14155238886"));
    assert_eq!(
        twilio.status_callback,
        "https://cc.example.com/webhooks/twilio/sms/status#rc=3&rp=5xx,ct,rt"
    );
    assert_eq!(twilio.policy.timeout, Duration::from_secs(10));
    assert_eq!(config.builderbot.api_key.as_deref(), Some("bb-1"));
    assert!(config.builderbot_reply && config.first_content_sid.is_some());
    assert_eq!(config.default_agent_id.as_deref(), Some("agent_01"));
    assert_eq!(config.text_mode, TextMode::Http);
    assert_eq!(config.otp.allowed_countries, ["CO", "MX"]);
}

#[test]
fn every_wrong_value_is_refused_by_its_name() {
    for (flag, value) in [
        ("twilio-account-sid", "SK00000000000000000000000000000001"),
        ("twilio-account-sid", "AC1"),
        ("twilio-from-number", "4155550100"),
        ("twilio-from-number", "a name too long"),
        ("twilio-whatsapp-from", "whatsapp:14155238886"),
        ("twilio-whatsapp-from", "sms:+14155238886"),
        ("twilio-base-url", "nowhere"),
        ("twilio-base-url", "ftp://api.twilio.com"),
        ("builderbot-api-url", "app.builderbot.cloud"),
        ("builderbot-api-key", "bb 1"),
        ("builderbot-project-id", "a/b"),
        ("builderbot-reply", "perhaps"),
        ("builderbot-reply", "true"),
        ("whatsapp-first-content-sid", "hello"),
        ("whatsapp-agent-id", "a b"),
        ("elevenlabs-text-mode", "pigeon"),
        ("otp-ttl-seconds", "29"),
        ("otp-ttl-seconds", "3601"),
        ("otp-max-attempts", "0"),
        ("otp-max-attempts", "21"),
        ("otp-rate-limit-max", "101"),
        ("otp-rate-limit-window-seconds", "86401"),
        ("otp-allowed-countries", "CO,Colombia"),
        ("otp-allowed-countries", "CO,UK"),
        ("otp-prefix-rate-limit-max", "0"),
        ("otp-hourly-max", "0"),
    ] {
        let refused = config(&[&format!("--{flag}={value}")]).err();
        let refused = refused.unwrap_or_else(|| panic!("{flag}={value} is taken"));
        let name = flag.to_uppercase().replace('-', "_");
        assert!(refused.contains(&name), "{flag}={value}: {refused}");
    }
}

#[test]
fn sms_may_be_sent_from_a_short_code_or_a_name() {
    for good in ["72345", "Bitacora", "Mi Banco 24"] {
        let config = config(&[&format!("--twilio-from-number={good}")]).unwrap();
        assert_eq!(config.twilio.sms_from.as_deref(), Some(good));
    }
}
