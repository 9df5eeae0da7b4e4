//! What surrounds every request: an id, the caller's address, security
//! headers, one shape for every error, a log line, a measurement.

use std::sync::LazyLock;
use std::time::Instant;

use poem::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use poem::{Endpoint, IntoResponse, Middleware, PathPattern, Request, Response};
use uuid::Uuid;

use super::error;
use crate::clock;

/// Longest request id that is taken over from a caller.
const REQUEST_ID_CHARS_MAX: usize = 128;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// As Helmet 8 sets them (seed call-manager uses Helmet).
const SECURITY_HEADERS: [(&str, &str); 12] = [
    (
        "content-security-policy",
        "default-src 'self';base-uri 'self';font-src 'self' https: data:;form-action 'self';frame-ancestors 'self';img-src 'self' data:;object-src 'none';script-src 'self' 'unsafe-inline';script-src-attr 'none';style-src 'self' https: 'unsafe-inline'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("origin-agent-cluster", "?1"),
    ("referrer-policy", "no-referrer"),
    (
        "strict-transport-security",
        "max-age=31536000; includeSubDomains",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-dns-prefetch-control", "off"),
    ("x-download-options", "noopen"),
    ("x-frame-options", "SAMEORIGIN"),
    ("x-permitted-cross-domain-policies", "none"),
    ("x-xss-protection", "0"),
];

static SECURITY: LazyLock<HeaderMap> = LazyLock::new(|| {
    let pairs = SECURITY_HEADERS.iter().map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    pairs.collect()
});

tokio::task_local! {
    static CONTEXT: Context;
}

/// What a handler may know of the request around it.
#[derive(Clone, Debug)]
pub struct Context {
    /// Sent back as `X-Request-Id`.
    pub request_id: String,
    /// The caller's network address.
    pub remote_addr: String,
}

/// The request that is being answered.
pub fn current() -> Context {
    CONTEXT.try_with(Clone::clone).unwrap_or_else(|_| Context {
        request_id: Uuid::nil().to_string(),
        remote_addr: "unknown".to_owned(),
    })
}

/// Puts a [`Context`] around every request.
pub struct Surround {
    /// Where ids come from.
    pub source: clock::Source,
    /// Whether `X-Forwarded-For` is believed.
    pub trust_proxy: bool,
}

impl<E: Endpoint> Middleware<E> for Surround {
    type Output = Surrounded<E>;

    fn transform(&self, inner: E) -> Self::Output {
        Surrounded {
            inner,
            source: self.source.clone(),
            trust_proxy: self.trust_proxy,
        }
    }
}

/// An endpoint with a [`Context`] around it.
pub struct Surrounded<E> {
    inner: E,
    source: clock::Source,
    trust_proxy: bool,
}

impl<E: Endpoint> Endpoint for Surrounded<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let context = Context {
            request_id: request_id(&request).unwrap_or_else(|| self.source.id().to_string()),
            remote_addr: remote_addr(&request, self.trust_proxy),
        };
        let method = request.method().clone();
        let began = Instant::now();
        let (mut response, route) = CONTEXT
            .scope(context.clone(), async {
                match self.inner.call(request).await {
                    Ok(response) => {
                        let response = response.into_response();
                        let route = response
                            .data::<PathPattern>()
                            .map(|pattern| pattern.0.clone());
                        (response, route)
                    }
                    Err(error) => {
                        let route = error.data::<PathPattern>().map(|pattern| pattern.0.clone());
                        (error::into_response(error), route)
                    }
                }
            })
            .await;
        finish(&mut response, &context);
        // The pattern and not the path, which may hold a phone number, nor the
        // query, which may hold a token. An address that is nobody's has none, or
        // that of the root, under which everything is nested.
        let route = route
            .filter(|pattern| !pattern.is_empty())
            .unwrap_or_else(|| "none".into());
        let status = response.status().as_u16();
        let seconds = began.elapsed().as_secs_f64();
        log_answer(
            &context.request_id,
            method.as_str(),
            &route,
            status,
            seconds,
        );
        metrics::histogram!("bitacora_http_request_seconds", "route" => route.to_string(), "status" => status.to_string())
            .record(seconds);
        Ok(response)
    }
}

/// One line an answer. Webhooks come by the thousand, so those that went well
/// are told at the level `debug` only.
fn log_answer(request_id: &str, method: &str, route: &str, status: u16, seconds: f64) {
    if status >= 500 {
        tracing::error!(request_id, method, route, status, seconds, "answered");
    } else if status < 300 && route.starts_with("/webhook") {
        tracing::debug!(request_id, method, route, status, seconds, "answered");
    } else {
        tracing::info!(request_id, method, route, status, seconds, "answered");
    }
}

fn request_id(request: &Request) -> Option<String> {
    let given = request.header("x-request-id")?;
    let sane = !given.is_empty()
        && given.len() <= REQUEST_ID_CHARS_MAX
        && given
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    sane.then(|| given.to_owned())
}

fn remote_addr(request: &Request, trust_proxy: bool) -> String {
    let forwarded = request
        .header("x-forwarded-for")
        .filter(|_| trust_proxy)
        .and_then(|list| list.rsplit(',').next())
        .map(|last| last.trim().to_owned());
    forwarded.unwrap_or_else(|| {
        request
            .remote_addr()
            .as_socket_addr()
            .map_or_else(|| "unknown".to_owned(), |addr| addr.ip().to_string())
    })
}

fn finish(response: &mut Response, context: &Context) {
    let mut headers = SECURITY.clone();
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // What the answer says itself stands.
    let own = std::mem::take(response.headers_mut());
    let mut name = None;
    for (next, value) in own {
        match next {
            Some(next) => {
                headers.insert(next.clone(), value);
                name = Some(next);
            }
            // A repeated header's name comes once.
            None => {
                name.as_ref().map(|name| headers.append(name, value));
            }
        }
    }
    *response.headers_mut() = headers;
}
