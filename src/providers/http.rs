//! Asking a provider something over HTTP: one time-out, one retry policy, one
//! set of errors, for the clients of every provider.
//!
//! What matters about a failed request is whether it may have been carried
//! out; [`Error`] tells. Only requests that change nothing are repeated here:
//! whoever wants to repeat another must look first.
//!
//! Invariant: nothing here logs or repeats a key, an address or a body.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::DateTime;
use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::clock;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take from its first byte to the answer's last.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same for requests about messages: they are small, and people wait.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a request that changes nothing is made, the first time included.
const ATTEMPTS_MAX: u32 = 3;
/// How long to wait before the second attempt; doubled before each further.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest wait that is spent here. A provider that asks for more is
/// reported to the caller, who has better things to do than to wait.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long an unused connection is kept: less than servers usually do, for a
/// request on one that is being closed is an uncertain request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes of an answer: the largest are recordings and the lists of a
/// batch's 10,000 recipients with their variables.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Most bytes of a refusal that are kept.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// How we introduce ourselves.
const USER_AGENT: &str = concat!("bitacora/", env!("CARGO_PKG_VERSION"));

/// When to give up, and when to try again.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a request may take from its first byte to the answer's last.
    pub timeout: Duration,
    /// How often a request that changes nothing is made, at most.
    pub attempts_max: u32,
    /// How long to wait before the second attempt; doubled before each further.
    pub pause_first: Duration,
    /// The longest wait.
    pub pause_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            timeout: TIMEOUT,
            attempts_max: ATTEMPTS_MAX,
            pause_first: PAUSE_FIRST,
            pause_max: PAUSE_MAX,
        }
    }
}

impl Policy {
    /// The policy of clients that send messages.
    pub fn of_messages() -> Self {
        Self {
            timeout: MESSAGE_TIMEOUT,
            ..Self::default()
        }
    }

    /// How long one request may hold up its sender, everything included.
    pub fn one_request(&self) -> Duration {
        self.connect_timeout + self.timeout
    }
}

/// Why a request brought no answer that can be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is no key for the provider.
    #[error("the provider is not configured")]
    NotConfigured,
    /// It was surely not carried out: the provider was not reached.
    #[error("the provider was not reached: {0}")]
    NotSent(&'static str),
    /// The provider answered, and refused or failed.
    #[error("the provider answered {0}")]
    Refused(Refusal),
    /// The provider wants fewer requests. It was not carried out.
    #[error("the provider wants fewer requests: {refusal}")]
    RateLimited {
        /// After how long it wants to be asked again, if it says so.
        retry_after: Option<Duration>,
        /// Its words.
        refusal: Refusal,
    },
    /// It went out and no answer came, or none that can be read: it may have
    /// been carried out.
    #[error("the provider's answer did not come: {0}")]
    Uncertain(&'static str),
}

/// A refusal in the provider's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The provider's code for it; empty where it gives none.
    pub code: String,
    /// The provider's sentence; empty where it gives none. May repeat what was
    /// sent, telephone numbers included: never log it.
    pub message: String,
    /// The whole body: JSON where it is, else its beginning as text.
    pub body: Value,
}

/// Without the sentence, which may hold personal data: this goes into logs.
impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code.as_str() {
            "" => write!(f, "{}", self.status),
            code => write!(f, "{} {code}", self.status),
        }
    }
}

impl Error {
    /// Whether a request that should have an effect may have had it: no answer
    /// came, or one that says that the provider broke on the way.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Uncertain(_) => true,
            Self::Refused(refusal) => refusal.status >= 500 || refusal.status == 408,
            Self::NotConfigured | Self::NotSent(_) | Self::RateLimited { .. } => false,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::RateLimited { .. } => true,
            Self::NotConfigured => false,
            Self::Uncertain(_) | Self::Refused(_) => self.may_have_happened(),
        }
    }

    /// The provider's words, where it said any.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) | Self::RateLimited { refusal, .. } => Some(refusal),
            Self::NotConfigured | Self::NotSent(_) | Self::Uncertain(_) => None,
        }
    }

    /// The HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }
}

/// A provider's code and sentence, taken out of the body of a refusal.
pub type ReadWords = fn(&Value) -> (String, String);

/// Makes requests to one provider.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    source: clock::Source,
    policy: Policy,
    words: ReadWords,
}

impl Http {
    /// A client. `local` is for a provider on this machine, which no proxy
    /// can reach.
    ///
    /// # Errors
    /// When the TLS library does not start.
    pub fn new(
        policy: Policy,
        local: bool,
        words: ReadWords,
        source: clock::Source,
    ) -> reqwest::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(policy.connect_timeout)
            .timeout(policy.timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            // A key must not follow a redirection.
            .redirect(reqwest::redirect::Policy::none());
        if local {
            builder = builder.no_proxy();
        }
        Ok(Self {
            client: builder.build()?,
            source,
            policy,
            words,
        })
    }

    /// The client below, to make a request with.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Makes a request that changes something: once, whatever comes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn act(&self, request: RequestBuilder) -> Result<Bytes, Error> {
        let response = request.send().await.map_err(|error| classify(&error))?;
        self.read(response).await
    }

    /// Makes a request that changes nothing, again where that may help.
    ///
    /// # Errors
    /// [`Error`] of the last attempt.
    pub async fn ask(&self, request: RequestBuilder) -> Result<Bytes, Error> {
        let mut pause = self.policy.pause_first;
        for _ in 1..self.policy.attempts_max {
            let Some(copy) = request.try_clone() else {
                break;
            };
            let error = match self.act(copy).await {
                Ok(body) => return Ok(body),
                Err(error) if error.is_passing() => error,
                Err(error) => return Err(error),
            };
            let wanted = match &error {
                // A second time-out would only double the wait.
                Error::Uncertain(TIMED_OUT) => return Err(error),
                Error::RateLimited { retry_after, .. } => retry_after.unwrap_or_default(),
                _ => Duration::ZERO,
            };
            let wait = self.source.jittered(pause, 1.0).max(wanted);
            if wait > self.policy.pause_max {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        self.act(request).await
    }

    async fn read(&self, response: Response) -> Result<Bytes, Error> {
        let status = response.status();
        if status.is_success() {
            let (body, complete) = read_body(response, ANSWER_BYTES_MAX).await;
            return complete.map(|()| body);
        }
        let retry_after = self.retry_after(&response);
        // That it was refused is told by the status; of the words, what comes.
        let (body, _) = read_body(response, REFUSAL_BYTES_MAX).await;
        let refusal = self.refusal(status, &body);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Error::RateLimited {
                retry_after,
                refusal,
            });
        }
        Err(Error::Refused(refusal))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> Refusal {
        let body = serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
        let (code, message) = (self.words)(&body);
        Refusal {
            status: status.as_u16(),
            code,
            message,
            body,
        }
    }

    /// `Retry-After` as seconds or as a date. Source: RFC 9110, 10.2.3.
    fn retry_after(&self, response: &Response) -> Option<Duration> {
        let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(secs) = value.parse() {
            return Some(Duration::from_secs(secs));
        }
        let at = DateTime::parse_from_rfc2822(value).ok()?;
        (at.to_utc() - self.source.now()).to_std().ok()
    }
}

/// Whether a provider is on this machine, as a stand-in is.
pub(super) fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

const TIMED_OUT: &str = "it timed out";

/// What a failed exchange means. What `reqwest` says of it holds the address.
fn classify(error: &reqwest::Error) -> Error {
    if error.is_connect() {
        return Error::NotSent("no connection could be made");
    }
    if error.is_builder() {
        return Error::NotSent("the request could not be made");
    }
    if error.is_timeout() {
        return Error::Uncertain(TIMED_OUT);
    }
    Error::Uncertain("the connection broke")
}

/// Reads a body of at most `bytes_max`; what was read before a failure is kept.
async fn read_body(mut response: Response, bytes_max: usize) -> (Bytes, Result<(), Error>) {
    let mut whole = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if whole.len() + chunk.len() > bytes_max => {
                whole.extend_from_slice(&chunk[..bytes_max - whole.len()]);
                return (
                    whole.freeze(),
                    Err(Error::Uncertain("the answer is too large")),
                );
            }
            Ok(Some(chunk)) => whole.extend_from_slice(&chunk),
            Ok(None) => return (whole.freeze(), Ok(())),
            Err(error) => return (whole.freeze(), Err(classify(&error))),
        }
    }
}
