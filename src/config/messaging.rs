//! The settings of messages and one-time codes, checked.

use std::time::Duration;

use anyhow::bail;
use domain::PhoneNumber;

use super::ServeSettings;
use super::checks::{api_key, base_url, secrets};
use crate::otp::OtpSettings;
use crate::providers::http::Policy;
use crate::providers::{builderbot, twilio};

/// Where one-time codes are sent to unless the operator says otherwise.
pub(super) const DEFAULT_COUNTRIES: &str =
    "AR,BO,CL,CO,CR,CU,DO,EC,ES,GT,HN,MX,NI,PA,PE,PR,PY,SV,US,UY,VE";
/// Where Twilio tells how far a message has come: our path, and behind the `#`
/// what Twilio is to do when we do not answer. Of its own it tries once.
const STATUS_CALLBACK: &str = "/webhooks/twilio/sms/status#rc=3&rp=5xx,ct,rt";
/// Hex digits of an id of Twilio's, after its two letters.
const SID_DIGITS: usize = 32;
/// Most characters of a name that SMS are sent from. Twilio's limit.
const SENDER_NAME_CHARS_MAX: usize = 11;
/// Most characters of an agent's or a project's id.
const ID_CHARS_MAX: usize = 128;

pub(super) fn twilio(
    settings: &ServeSettings,
    public_url: &str,
) -> anyhow::Result<twilio::client::Settings> {
    let account_sid = given(&settings.twilio_account_sid);
    if account_sid.is_some_and(|sid| !is_sid(sid, "AC")) {
        bail!("TWILIO_ACCOUNT_SID must be AC and 32 hex digits");
    }
    let sms_from = given(&settings.twilio_from_number);
    if sms_from.is_some_and(|from| !is_sms_sender(from)) {
        bail!("TWILIO_FROM_NUMBER must be a number like +14155550100, a short code or a name");
    }
    let whatsapp_from = given(&settings.twilio_whatsapp_from);
    let whatsapp_from = whatsapp_from.map(|from| from.strip_prefix("whatsapp:").unwrap_or(from));
    if whatsapp_from.is_some_and(|from| PhoneNumber::parse(from).is_err()) {
        bail!("TWILIO_WHATSAPP_FROM must be like whatsapp:+14155238886");
    }
    let tokens = secrets(&settings.twilio_auth_token);
    let public_url = public_url.split('#').next().unwrap_or_default();
    Ok(twilio::client::Settings {
        base_url: base_url(
            "TWILIO_BASE_URL",
            &settings.twilio_base_url,
            twilio::client::DEFAULT_BASE_URL,
        )?,
        account_sid: account_sid.map(str::to_owned),
        auth_token: tokens.into_iter().next(),
        sms_from: sms_from.map(str::to_owned),
        whatsapp_from: whatsapp_from.map(str::to_owned),
        status_callback: format!("{public_url}{STATUS_CALLBACK}"),
        policy: Policy::of_messages(),
    })
}

pub(super) fn builderbot(settings: &ServeSettings) -> anyhow::Result<builderbot::client::Settings> {
    let project_id = given(&settings.builderbot_project_id);
    if project_id.is_some_and(|id| !is_id(id)) {
        bail!("BUILDERBOT_PROJECT_ID holds characters that no id has");
    }
    let settings_of_client = builderbot::client::Settings {
        base_url: base_url(
            "BUILDERBOT_API_URL",
            &settings.builderbot_api_url,
            builderbot::client::DEFAULT_BASE_URL,
        )?,
        api_key: api_key("BUILDERBOT_API_KEY", &settings.builderbot_api_key)?,
        project_id: project_id.map(str::to_owned),
        policy: Policy::of_messages(),
    };
    let can_send = settings_of_client.api_key.is_some() && project_id.is_some();
    if settings.builderbot_reply && !can_send {
        bail!("BUILDERBOT_REPLY needs BUILDERBOT_API_KEY and BUILDERBOT_PROJECT_ID");
    }
    Ok(settings_of_client)
}

pub(super) fn first_content_sid(settings: &ServeSettings) -> anyhow::Result<Option<String>> {
    let sid = given(&settings.whatsapp_first_content_sid);
    if sid.is_some_and(|sid| !is_sid(sid, "HX")) {
        bail!("WHATSAPP_FIRST_CONTENT_SID must be HX and 32 hex digits");
    }
    Ok(sid.map(str::to_owned))
}

pub(super) fn default_agent_id(settings: &ServeSettings) -> anyhow::Result<Option<String>> {
    let id = given(&settings.whatsapp_agent_id);
    if id.is_some_and(|id| !is_id(id)) {
        bail!("WHATSAPP_AGENT_ID holds characters that no id has");
    }
    Ok(id.map(str::to_owned))
}

pub(super) fn otp(settings: &ServeSettings) -> anyhow::Result<OtpSettings> {
    Ok(OtpSettings {
        ttl: Duration::from_secs(settings.otp_ttl_seconds),
        attempts_max: settings.otp_max_attempts,
        rate_limit_max: settings.otp_rate_limit_max,
        rate_limit_window: Duration::from_secs(settings.otp_rate_limit_window_seconds),
        allowed_countries: countries(&settings.otp_allowed_countries)?,
        prefix_rate_limit_max: settings.otp_prefix_rate_limit_max,
        hourly_max: settings.otp_hourly_max,
    })
}

fn countries(list: &str) -> anyhow::Result<Vec<String>> {
    let read = |list: &str| -> Vec<String> {
        let codes = list
            .split(',')
            .map(str::trim)
            .filter(|code| !code.is_empty());
        codes.map(str::to_ascii_uppercase).collect()
    };
    let mut countries = read(list);
    if countries.is_empty() {
        countries = read(DEFAULT_COUNTRIES);
    }
    // A code that is none would keep out a whole country, without a word.
    let is_country = |code: &String| code.parse::<phonenumber::country::Id>().is_ok();
    match countries.iter().find(|code| !is_country(code)) {
        Some(code) => bail!(
            "OTP_ALLOWED_COUNTRIES must list countries by two letters, like CO,MX, not {code:?}"
        ),
        None => Ok(countries),
    }
}

/// A setting's value; files of settings have empty ones.
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().map(str::trim).filter(|it| !it.is_empty())
}

fn is_sid(text: &str, letters: &str) -> bool {
    let digits = text.strip_prefix(letters).unwrap_or_default();
    digits.len() == SID_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A number, a short code, or a name with a letter in it.
fn is_sms_sender(text: &str) -> bool {
    let short = (3..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let named = text.len() <= SENDER_NAME_CHARS_MAX
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b' ');
    PhoneNumber::parse(text).is_ok() || short || named
}

fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte);
    text.len() <= ID_CHARS_MAX && text.bytes().all(plain)
}

#[cfg(test)]
#[path = "messaging_tests.rs"]
mod tests;
