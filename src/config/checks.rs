//! The settings of [`Config`](super::Config), checked one by one. What is wrong
//! is said by the name of its variable.

use anyhow::{Context, bail};

use super::{SecretList, ServeSettings};
use crate::providers;
use crate::providers::elevenlabs;

pub(super) fn secrets(list: &Option<SecretList>) -> Vec<String> {
    list.as_ref().map(|list| list.0.clone()).unwrap_or_default()
}

pub(super) fn required(list: &Option<SecretList>, name: &str) -> anyhow::Result<Vec<String>> {
    let secrets = secrets(list);
    if secrets.is_empty() {
        bail!(
            "{name} is not set: set it to a long random value, for example the output of `openssl rand -hex 32` (with no DATABASE_URL, local mode makes one)"
        );
    }
    Ok(secrets)
}

pub(super) fn provider_secrets(settings: &ServeSettings) -> providers::Secrets {
    let of = |tokens, keys| providers::Credentials::new(secrets(tokens), secrets(keys));
    providers::Secrets {
        elevenlabs: of(
            &settings.elevenlabs_webhook_token,
            &settings.elevenlabs_webhook_secret,
        ),
        builderbot: of(&settings.builderbot_webhook_token, &None),
        twilio: of(&settings.twilio_webhook_token, &settings.twilio_auth_token),
    }
}

pub(super) fn elevenlabs(settings: &ServeSettings) -> anyhow::Result<elevenlabs::client::Settings> {
    let given = &settings.elevenlabs_base_url;
    Ok(elevenlabs::client::Settings {
        base_url: base_url(
            "ELEVENLABS_BASE_URL",
            given,
            elevenlabs::client::DEFAULT_BASE_URL,
        )?,
        api_key: api_key("ELEVENLABS_API_KEY", &settings.elevenlabs_api_key)?,
        policy: providers::http::Policy::default(),
    })
}

/// The address of a provider's API.
pub(super) fn base_url(name: &str, given: &str, default: &str) -> anyhow::Result<reqwest::Url> {
    let given = if given.is_empty() { default } else { given };
    let url: reqwest::Url = given.parse().with_context(|| format!("{name} is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        bail!("{name} must be like {default}, not {given:?}");
    }
    Ok(url)
}

/// The first of the keys, if there is any; all must fit into a header.
pub(super) fn api_key(name: &str, given: &Option<SecretList>) -> anyhow::Result<Option<String>> {
    let keys = secrets(given);
    let fits = |key: &String| key.bytes().all(|byte| byte.is_ascii_graphic());
    if !keys.iter().all(fits) {
        bail!("{name} holds characters that no key has");
    }
    Ok(keys.into_iter().next())
}

pub(super) fn timezone(given: &str) -> anyhow::Result<chrono_tz::Tz> {
    given.parse().map_err(|_| {
        anyhow::anyhow!(
            "TIMEZONE must be a name of the IANA database like America/Bogota, not {given:?}"
        )
    })
}

pub(super) fn public_url(given: Option<&str>, port: u16) -> anyhow::Result<String> {
    let Some(given) = given.filter(|url| !url.is_empty()) else {
        return Ok(format!("http://localhost:{port}"));
    };
    let uri: poem::http::Uri = given.parse().context("PUBLIC_URL is no URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        bail!("PUBLIC_URL must be like https://bitacora.example.com, not {given:?}");
    }
    Ok(given.trim_end_matches('/').to_owned())
}

pub(super) fn origins(given: &[String]) -> anyhow::Result<Vec<String>> {
    let given: Vec<String> = given
        .iter()
        .map(|o| o.trim().to_owned())
        .filter(|o| !o.is_empty())
        .collect();
    for origin in &given {
        let well_formed = origin == "*"
            || (origin.starts_with("http://") || origin.starts_with("https://"))
                && !origin
                    .trim_end_matches('/')
                    .splitn(3, '/')
                    .nth(2)
                    .unwrap_or("")
                    .contains('/');
        if !well_formed {
            bail!(
                "CORS_ALLOWED_ORIGINS must list origins like https://app.example.com, not {origin:?}"
            );
        }
    }
    Ok(given
        .into_iter()
        .map(|o| o.trim_end_matches('/').to_owned())
        .collect())
}
