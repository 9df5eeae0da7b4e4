//! What we ask of builderbot.cloud: to send a WhatsApp message. Source:
//! PROVIDERS.md, section 4.1.
//!
//! What it answers is not documented, and no id of a message is known. A
//! message is sent once, and an uncertain one cannot be looked up.

use std::fmt;

use domain::PhoneNumber;
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::clock;
use crate::providers::http::{Error, Http, Policy, Refusal, is_local};

/// The provider, where the operator names no other.
pub const DEFAULT_BASE_URL: &str = "https://app.builderbot.cloud";
/// The beginning of every path. People have it in their settings, or not.
const API: [&str; 2] = ["api", "v2"];

/// Where the provider is and how it knows us.
#[derive(Clone)]
pub struct Settings {
    /// Its address, with or without `/api/v2`.
    pub base_url: Url,
    /// The project's key. Without one nothing can be sent.
    pub api_key: Option<String>,
    /// The project whose number sends. The same.
    pub project_id: Option<String>,
    /// When to give up, and when to try again.
    pub policy: Policy,
}

/// Never prints the key.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("base_url", &self.base_url.as_str())
            .field("api_key", &self.api_key.as_ref().map(|_| "hidden"))
            .field("project_id", &self.project_id)
            .finish_non_exhaustive()
    }
}

/// Asks builderbot. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: Http,
    base_url: Url,
    api_key: Option<HeaderValue>,
    project_id: Option<String>,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// When the key cannot be sent in a header, or TLS does not start.
    pub fn new(settings: &Settings, source: clock::Source) -> anyhow::Result<Self> {
        let key = |key: &String| {
            let mut value = HeaderValue::from_str(key).map_err(|_| {
                anyhow::anyhow!("BUILDERBOT_API_KEY holds characters that no key has")
            })?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        let local = is_local(&settings.base_url);
        Ok(Self {
            http: Http::new(settings.policy, local, words, source)?,
            base_url: settings.base_url.clone(),
            api_key: settings.api_key.as_ref().map(key).transpose()?,
            project_id: settings.project_id.clone(),
        })
    }

    /// Whether messages can be sent.
    pub fn is_configured(&self) -> bool {
        self.api_key.is_some() && self.project_id.is_some()
    }

    /// Sends a text. Never repeated: the provider knows no idempotency key.
    ///
    /// # Errors
    /// [`Error`]; also where it answers 200 and speaks of an error.
    pub async fn send(&self, number: &PhoneNumber, text: &str) -> Result<(), Error> {
        let key = self.api_key.clone().ok_or(Error::NotConfigured)?;
        let project_id = self.project_id.as_deref().ok_or(Error::NotConfigured)?;
        let url = messages_url(&self.base_url, project_id)?;
        let body = json!({
            "messages": {"content": text},
            "number": number.digits(),
            "checkIfExists": false,
        });
        let request = self.http.client().post(url).json(&body);
        let answer = self
            .http
            .act(request.header("x-api-builderbot", key))
            .await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if !is_refusal(&answer) {
            return Ok(());
        }
        let (code, message) = words(&answer);
        Err(Error::Refused(Refusal {
            status: 200,
            code,
            message,
            body: answer,
        }))
    }
}

fn messages_url(base_url: &Url, project_id: &str) -> Result<Url, Error> {
    const NO_PATH: Error = Error::NotSent("the base URL takes no path");
    let given = base_url.path_segments().ok_or(NO_PATH)?;
    let mut path: Vec<&str> = given.filter(|part| !part.is_empty()).collect();
    if path.ends_with(&API) {
        path.truncate(path.len() - API.len());
    }
    let mut url = base_url.clone();
    url.path_segments_mut()
        .map_err(|()| NO_PATH)?
        .clear()
        .extend(path)
        .extend(API)
        .extend([project_id, "messages"]);
    Ok(url)
}

/// Whether an answer of success speaks of an error, in whatever form.
fn is_refusal(answer: &Value) -> bool {
    match &answer["error"] {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) | Value::Number(_) => true,
        Value::String(said) => !said.trim().is_empty(),
        Value::Array(errors) => !errors.is_empty(),
        Value::Object(error) => !error.is_empty(),
    }
}

/// The sentence of a refusal: those who use it read `error`. There are no codes.
fn words(body: &Value) -> (String, String) {
    let error = &body["error"];
    let said = error.as_str().or_else(|| error["message"].as_str());
    (String::new(), said.unwrap_or_default().to_owned())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
