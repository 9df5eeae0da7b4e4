//! What we ask of ElevenLabs. Source: the provider's OpenAPI document and its
//! SDK 2.78, as collected in PROVIDERS.md, section 2.
//!
//! Reading may be repeated inside; what has an effect is sent once, and
//! [`Error::may_have_happened`](crate::providers::http::Error::may_have_happened)
//! says whether to look before it is sent again.

mod answers;
pub mod text;

use std::fmt;

use bytes::Bytes;
use domain::batch::{RecipientSeen, Requested, Snapshot};
use domain::sealed::is_erased;
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Url};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::clock;
use crate::providers::http::{Error, Http, Policy, is_local};
use crate::providers::text::is_id;

/// The provider, where the operator names no other.
pub const DEFAULT_BASE_URL: &str = "https://api.elevenlabs.io";
/// Batches in one page of the workspace's list: the provider's own default.
const BATCHES_PAGE: usize = 100;

/// Where the provider is and how it knows us.
#[derive(Clone)]
pub struct Settings {
    /// Its address, without a path.
    pub base_url: Url,
    /// Our key. Without one nothing can be asked.
    pub api_key: Option<String>,
    /// When to give up, and when to try again.
    pub policy: Policy,
}

/// Never prints the key.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("base_url", &self.base_url.as_str())
            .field("api_key", &self.api_key.as_ref().map(|_| "hidden"))
            .finish_non_exhaustive()
    }
}

/// Asks ElevenLabs. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: Http,
    base_url: Url,
    api_key: Option<HeaderValue>,
    policy: Policy,
    greeters: text::Greeters,
}

/// A page of the workspace's batches, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchPage {
    /// The batches, without their recipients.
    pub batches: Vec<Snapshot>,
    /// What to ask for to get the next page; `None` after the last.
    pub next_doc: Option<String>,
}

/// A batch with all of its recipients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchDetail {
    /// The batch.
    pub batch: Snapshot,
    /// Its recipients, in the provider's order.
    pub recipients: Vec<RecipientSeen>,
}

/// A telephone number of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhoneLine {
    /// The provider's id of it.
    pub phone_number_id: String,
    /// The number itself.
    pub phone_number: String,
    /// Its carrier, in the provider's word.
    pub provider: String,
    /// Whether it may call; a provider that does not say so lets it.
    pub supports_outbound: bool,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// When the key cannot be sent in a header, or TLS does not start.
    pub fn new(settings: &Settings, source: clock::Source) -> anyhow::Result<Self> {
        let key = |key: &String| {
            let mut value = HeaderValue::from_str(key).map_err(|_| {
                anyhow::anyhow!("ELEVENLABS_API_KEY holds characters that no key has")
            })?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        let local = is_local(&settings.base_url);
        Ok(Self {
            http: Http::new(settings.policy, local, answers::words, source)?,
            base_url: settings.base_url.clone(),
            api_key: settings.api_key.as_ref().map(key).transpose()?,
            policy: settings.policy,
            greeters: text::Greeters::default(),
        })
    }

    /// Whether there is a key to ask with.
    pub fn is_configured(&self) -> bool {
        self.api_key.is_some()
    }

    /// When this client gives up.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Orders a batch. Never repeated: the provider knows no idempotency key.
    ///
    /// # Errors
    /// [`Error`]; an answer that names no batch is [`Error::Uncertain`].
    pub async fn submit_batch(&self, order: &Requested) -> Result<Snapshot, Error> {
        let request = self.request(Method::POST, &["batch-calling", "submit"])?;
        let body = self.http.act(request.json(&Submit::of(order))).await?;
        answers::batch(&body)
    }

    /// A batch with its recipients.
    ///
    /// # Errors
    /// [`Error`]; 404 for one that does not exist.
    pub async fn get_batch(&self, id: &str) -> Result<BatchDetail, Error> {
        let request = self.request(Method::GET, &["batch-calling", id])?;
        answers::batch_detail(&self.http.ask(request).await?)
    }

    /// Stops a batch and cancels who is not reached. Never repeated here, but
    /// harmless to repeat.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn cancel_batch(&self, id: &str) -> Result<Snapshot, Error> {
        let request = self.request(Method::POST, &["batch-calling", id, "cancel"])?;
        answers::batch(&self.http.act(request).await?)
    }

    /// Calls again who was not reached. Never repeated: each time counts.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn retry_batch(&self, id: &str) -> Result<Snapshot, Error> {
        let request = self.request(Method::POST, &["batch-calling", id, "retry"])?;
        answers::batch(&self.http.act(request).await?)
    }

    /// A page of the workspace's batches, the newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_batches(
        &self,
        agent_id: Option<&str>,
        last_doc: Option<&str>,
    ) -> Result<BatchPage, Error> {
        let mut request = self.request(Method::GET, &["batch-calling", "workspace"])?;
        request = request.query(&[("limit", BATCHES_PAGE)]);
        if let Some(agent_id) = agent_id {
            request = request.query(&[("agent_id", agent_id)]);
        }
        if let Some(last_doc) = last_doc {
            request = request.query(&[("last_doc", last_doc)]);
        }
        answers::batch_page(&self.http.ask(request).await?)
    }

    /// A conversation, byte for byte: the same document that the post-call
    /// webhook brings as its `data`.
    ///
    /// # Errors
    /// [`Error`]; 404 for one that does not exist.
    pub async fn get_conversation(&self, id: &str) -> Result<Bytes, Error> {
        self.http
            .ask(self.request(Method::GET, &["conversations", id])?)
            .await
    }

    /// A recording, as MP3.
    ///
    /// # Errors
    /// [`Error`]; 404 where there is none.
    pub async fn get_audio(&self, id: &str) -> Result<Bytes, Error> {
        let request = self.request(Method::GET, &["conversations", id, "audio"])?;
        self.http.ask(request).await
    }

    /// The workspace's telephone numbers, in the provider's order.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_phone_numbers(&self) -> Result<Vec<PhoneLine>, Error> {
        let request = self.request(Method::GET, &["phone-numbers"])?;
        answers::phone_lines(&self.http.ask(request).await?)
    }

    /// An agent, as the provider describes it.
    ///
    /// # Errors
    /// [`Error`]; 404 for one that does not exist.
    pub async fn get_agent(&self, id: &str) -> Result<Value, Error> {
        let request = self.request(Method::GET, &["agents", id])?;
        answers::object(&self.http.ask(request).await?)
    }

    /// Changes parts of an agent; returns it as it is then. Every change makes
    /// a version, so it is never repeated.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn patch_agent(&self, id: &str, parts: &Value) -> Result<Value, Error> {
        let request = self.request(Method::PATCH, &["agents", id])?;
        let changed = self.http.act(request.json(parts)).await;
        self.greeters.forget(id);
        answers::object(&changed?)
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, Error> {
        let key = self.api_key.clone().ok_or(Error::NotConfigured)?;
        // What is no id would change the address.
        if !path.iter().all(|part| is_id(part)) {
            return Err(Error::NotSent("the id is none that the provider makes"));
        }
        let mut url = self.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| Error::NotSent("the base URL takes no path"))?
            .pop_if_empty()
            .extend(["v1", "convai"])
            .extend(path);
        Ok(self
            .http
            .client()
            .request(method, url)
            .header("xi-api-key", key))
    }
}

/// The body of a submit.
#[derive(Serialize)]
struct Submit<'a> {
    call_name: &'a str,
    agent_id: &'a str,
    agent_phone_number_id: &'a str,
    scheduled_time_unix: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_provider: Option<&'static str>,
    recipients: Vec<SubmitRecipient<'a>>,
}

#[derive(Serialize)]
struct SubmitRecipient<'a> {
    id: String,
    phone_number: &'a str,
    conversation_initiation_client_data: ClientData<'a>,
}

#[derive(Serialize)]
struct ClientData<'a> {
    dynamic_variables: &'a Map<String, Value>,
}

impl<'a> Submit<'a> {
    fn of(order: &'a Requested) -> Self {
        let recipient = |(n, it): (usize, &'a domain::batch::Recipient)| SubmitRecipient {
            id: order.recipient_id(n),
            phone_number: it.phone_number.as_str(),
            conversation_initiation_client_data: ClientData {
                dynamic_variables: &it.dynamic_variables,
            },
        };
        Self {
            call_name: &order.call_name,
            agent_id: &order.agent_id,
            agent_phone_number_id: &order.agent_phone_number_id,
            scheduled_time_unix: order.scheduled_time_unix,
            phone_provider: order.phone_provider.map(|it| it.as_str()),
            recipients: order
                .recipients
                .iter()
                .enumerate()
                .filter(|(_, it)| !is_erased(it.phone_number.as_str()))
                .map(recipient)
                .collect(),
        }
    }
}

/// How far a conversation is, as much of it as the reconciler asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationState {
    /// In the provider's word; nothing more comes after `done` and `failed`.
    pub status: String,
    /// Whether there is a recording.
    pub has_audio: bool,
    /// When it ended, or began where it is not over, in Unix seconds.
    pub ended_at_unix: Option<i64>,
    /// The agent that spoke.
    pub agent_id: Option<String>,
}

impl ConversationState {
    /// Reads the state out of a conversation.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn of(document: &[u8]) -> Result<Self, Error> {
        answers::conversation_state(document)
    }

    /// Whether the provider has said all it will.
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "done" | "failed")
    }
}
