//! What we ask of Twilio: to send a message, and whether it did. Source:
//! PROVIDERS.md, section 3.6.
//!
//! Twilio knows no idempotency key. A message is sent once; after an answer
//! that did not come, [`Client::find_sent`] tells whether it went out.

use std::fmt;

use chrono::{DateTime, Utc};
use domain::Channel;
use domain::message::Status;
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::clock;
use crate::providers::http::{Error, Http, Policy, is_local};
use crate::providers::lenient::{self, List, Object, Scalar, Text};
use crate::providers::text;

/// The provider, where the operator names no other.
pub const DEFAULT_BASE_URL: &str = "https://api.twilio.com";
/// The version of its API, and the beginning of every path.
const API_VERSION: &str = "2010-04-01";
/// What comes before a WhatsApp number.
const WHATSAPP: &str = "whatsapp:";
/// Messages of one page: the provider's own default. They are to one number
/// and the newest first, so that one page is nearly always enough.
const PAGE_SIZE: usize = 50;
/// Pages that are read before we give up.
const PAGES_MAX: usize = 20;
/// What a trial account puts before every text.
const TRIAL_PREFIX: &str = "Sent from your Twilio trial account - ";
const UNREADABLE: Error = Error::Uncertain("the answer is not readable");

/// Where the provider is, how it knows us, and which numbers are ours.
#[derive(Clone)]
pub struct Settings {
    /// Its address, without a path.
    pub base_url: Url,
    /// Our account (`AC…`). Without one nothing can be sent.
    pub account_sid: Option<String>,
    /// The account's token, which opens the API. The same.
    pub auth_token: Option<String>,
    /// What SMS are sent from. Without one none can be sent.
    pub sms_from: Option<String>,
    /// What WhatsApp messages are sent from, with or without `whatsapp:`. The
    /// same.
    pub whatsapp_from: Option<String>,
    /// Where Twilio tells how far a message has come.
    pub status_callback: String,
    /// When to give up, and when to try again.
    pub policy: Policy,
}

/// Never prints the token.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("base_url", &self.base_url.as_str())
            .field("account_sid", &self.account_sid)
            .field("auth_token", &self.auth_token.as_ref().map(|_| "hidden"))
            .field("sms_from", &self.sms_from)
            .field("whatsapp_from", &self.whatsapp_from)
            .finish_non_exhaustive()
    }
}

/// A message to be sent. Holds personal data: it cannot be printed.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// WhatsApp or SMS.
    pub channel: Channel,
    /// To whom, in E.164.
    pub to: &'a str,
    /// What it says.
    pub content: Content<'a>,
}

/// What a message says.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// Words, at most 1,600 characters.
    Text(&'a str),
    /// A template that WhatsApp has approved.
    Template {
        /// Its id (`HX…`).
        content_sid: &'a str,
        /// What stands for its variables.
        variables: &'a Map<String, Value>,
    },
}

/// A message that the provider has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The provider's id.
    pub message_id: String,
    /// How far it has come.
    pub status: Status,
    /// What it was sent from, without `whatsapp:`.
    pub our_address: String,
    /// When the provider took it, to the second.
    pub created_at: Option<DateTime<Utc>>,
    /// The provider's code of what went wrong since.
    pub error_code: Option<String>,
}

/// Asks Twilio. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: Http,
    base_url: Url,
    account_sid: Option<String>,
    auth_token: Option<String>,
    sms_from: Option<String>,
    whatsapp_from: Option<String>,
    status_callback: String,
    page_size: usize,
}

/// What a request needs: who we are to the provider, and from where to whom.
struct Way<'a> {
    account_sid: &'a str,
    auth_token: &'a str,
    our_address: &'a str,
    from: String,
    to: String,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// When TLS does not start.
    pub fn new(settings: &Settings, source: clock::Source) -> anyhow::Result<Self> {
        let local = is_local(&settings.base_url);
        let bare = |from: &String| from.trim_start_matches(WHATSAPP).to_owned();
        Ok(Self {
            http: Http::new(settings.policy, local, words, source)?,
            base_url: settings.base_url.clone(),
            account_sid: settings.account_sid.clone(),
            auth_token: settings.auth_token.clone(),
            sms_from: settings.sms_from.clone(),
            whatsapp_from: settings.whatsapp_from.as_ref().map(bare),
            status_callback: settings.status_callback.clone(),
            page_size: PAGE_SIZE,
        })
    }

    /// Whether messages can be sent by this channel.
    pub fn is_configured(&self, channel: Channel) -> bool {
        self.way(channel, "").is_ok()
    }

    /// Sends a message. Never repeated: see [`Self::find_sent`].
    ///
    /// # Errors
    /// [`Error`]; an answer that names no message is [`Error::Uncertain`].
    pub async fn send(&self, message: &Outgoing<'_>) -> Result<Accepted, Error> {
        let way = self.way(message.channel, message.to)?;
        let mut form = vec![
            ("To", way.to.clone()),
            ("From", way.from.clone()),
            ("StatusCallback", self.status_callback.clone()),
        ];
        match message.content {
            Content::Text(words) => form.push(("Body", words.to_owned())),
            Content::Template {
                content_sid,
                variables,
            } => {
                form.push(("ContentSid", content_sid.to_owned()));
                if !variables.is_empty() {
                    let variables = Value::Object(variables.clone()).to_string();
                    form.push(("ContentVariables", variables));
                }
            }
        }
        let url = self.messages_url(&way)?;
        let request = way.authorised(self.http.client().post(url).form(&form));
        let body = self.http.act(request).await?;
        let document: Document = lenient::object(&body).map_err(|_| UNREADABLE)?;
        document.accepted(way.our_address).ok_or(UNREADABLE)
    }

    /// The messages that the provider has taken since a moment and that are
    /// just like this one, the oldest first. A template counts as like any
    /// message: the provider shows what became of it, not what it was.
    ///
    /// Not asked by `DateSent`, as one might: by Twilio's words that compares
    /// when a message was sent, and one that still waits has no such time.
    ///
    /// # Errors
    /// [`Error`]; a list that does not end is [`Error::Uncertain`].
    pub async fn find_sent(
        &self,
        message: &Outgoing<'_>,
        since: DateTime<Utc>,
    ) -> Result<Vec<Accepted>, Error> {
        let way = self.way(message.channel, message.to)?;
        let mut query = form_urlencoded::Serializer::new(String::new())
            .append_pair("To", &way.to)
            .append_pair("From", &way.from)
            .append_pair("PageSize", &self.page_size.to_string())
            .finish();
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let mut url = self.messages_url(&way)?;
            url.set_query(Some(&query));
            let request = way.authorised(self.http.client().get(url));
            let page = read_page(&self.http.ask(request).await?)?;
            let is_old = |it: &Document| it.created_at().is_some_and(|at| is_before(at, since));
            let ended = page.messages.iter().any(is_old);
            let wanted = page
                .messages
                .iter()
                .filter(|it| !is_old(it) && it.is_like(message));
            found.extend(wanted.filter_map(|it| it.accepted(way.our_address)));
            match page.next {
                Some(next) if !ended => query = next,
                _ => {
                    // The provider lists the newest first.
                    found.reverse();
                    found.sort_by_key(|it| it.created_at);
                    return Ok(found);
                }
            }
        }
        Err(Error::Uncertain("the list of messages does not end"))
    }

    fn way(&self, channel: Channel, to: &str) -> Result<Way<'_>, Error> {
        let (ours, prefix) = match channel {
            Channel::Sms => (&self.sms_from, ""),
            Channel::Whatsapp => (&self.whatsapp_from, WHATSAPP),
            Channel::Call => (&None, ""),
        };
        let our_address = set(ours)?;
        Ok(Way {
            account_sid: set(&self.account_sid)?,
            auth_token: set(&self.auth_token)?,
            our_address,
            from: format!("{prefix}{our_address}"),
            to: format!("{prefix}{to}"),
        })
    }

    fn messages_url(&self, way: &Way<'_>) -> Result<Url, Error> {
        let mut url = self.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| Error::NotSent("the base URL takes no path"))?
            .pop_if_empty()
            .extend([API_VERSION, "Accounts", way.account_sid, "Messages.json"]);
        Ok(url)
    }
}

fn set(value: &Option<String>) -> Result<&str, Error> {
    value.as_deref().ok_or(Error::NotConfigured)
}

impl Way<'_> {
    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        request.basic_auth(self.account_sid, Some(self.auth_token))
    }
}

/// `api.v2010.account.message`
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    sid: Text,
    status: Text,
    direction: Text,
    body: Text,
    date_created: Text,
    error_code: Text,
}

impl Document {
    /// `None` where it does not say which message it is.
    fn accepted(&self, our_address: &str) -> Option<Accepted> {
        let status = self.status.as_str().to_ascii_lowercase().parse();
        Some(Accepted {
            message_id: self.sid.0.clone().filter(|id| text::is_id(id))?,
            // Whatever its word for it is: it was taken.
            status: status.unwrap_or(Status::Accepted),
            our_address: our_address.to_owned(),
            created_at: self.created_at(),
            error_code: self.error_code.0.as_deref().map(text::word),
        })
    }

    fn created_at(&self) -> Option<DateTime<Utc>> {
        let written = DateTime::parse_from_rfc2822(self.date_created.as_str().trim());
        written.ok().map(|at| at.to_utc())
    }

    fn is_like(&self, message: &Outgoing<'_>) -> bool {
        let seen = self.body.as_str();
        let said = match message.content {
            Content::Text(words) => {
                let seen = seen.strip_prefix(TRIAL_PREFIX).unwrap_or(seen);
                seen.trim() == words.trim()
            }
            Content::Template { .. } => true,
        };
        said && !self.direction.as_str().starts_with("inbound")
    }
}

/// Whether a moment, of which we know the second, was before another.
fn is_before(at: DateTime<Utc>, since: DateTime<Utc>) -> bool {
    at.timestamp() < since.timestamp()
}

/// A page of messages, and the query of the next.
struct Page {
    messages: Vec<Document>,
    next: Option<String>,
}

fn read_page(body: &[u8]) -> Result<Page, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Wire {
        messages: Option<List<Object<Document>>>,
        next_page_uri: Text,
    }
    let wire: Wire = lenient::object(body).map_err(|_| UNREADABLE)?;
    // That there is no list does not say that it is empty.
    let messages = wire.messages.ok_or(UNREADABLE)?.0;
    // Of the address only the query: the token goes nowhere else.
    let next = wire.next_page_uri.0;
    let next = next.and_then(|uri| Some(uri.split_once('?')?.1.to_owned()));
    Ok(Page {
        messages: messages.into_iter().filter_map(|it| it.0).collect(),
        next,
    })
}

/// The code and sentence of a refusal: `{"code":21211,"message":"…"}`.
fn words(body: &Value) -> (String, String) {
    let said = |value: &Value| Scalar::from(value).into_text().unwrap_or_default();
    (said(&body["code"]), said(&body["message"]))
}

#[cfg(test)]
#[path = "client_tests.rs"]
pub(super) mod tests;
