//! The gate that every API request of every provider passes.
//!
//! It writes the request down, checks the credential, lets it wait, lets it go wrong if it must, and
//! only then has it carried out: operations themselves are plain functions from the world and a
//! [`Call`] to a [`Reply`], and know nothing of HTTP servers, latency or faults.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use poem::{
    Endpoint, EndpointExt, Request, Response,
    endpoint::{BoxEndpoint, make},
    http::{HeaderMap, StatusCode, header},
};
use serde_json::Value;

use crate::{
    builderbot,
    driver::Shared,
    elevenlabs,
    requests::{Fault, Ticket},
    twilio,
    world::World,
};

/// The largest request body taken: a batch of 10,000 recipients is about 3 MiB.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One API request, read.
pub(crate) struct Call {
    pub(crate) path_and_query: String,
    pub(crate) params: HashMap<String, String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// A part of the path.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// A query parameter, the first of its name.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let mut all = self.query.iter();
        all.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// A request that did not come as one, to be written down with the others.
    pub(crate) fn noted(path_and_query: &str, body: &str) -> Self {
        let query = path_and_query.split_once('?').map_or("", |(_, q)| q);
        Self {
            path_and_query: path_and_query.to_owned(),
            params: HashMap::new(),
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    async fn read(request: Request) -> Result<Self, Answer> {
        // The routes below are nested, and see only their part of the path.
        let uri = request.original_uri().clone();
        let query = uri.query().unwrap_or_default();
        let params = request
            .path_params::<HashMap<String, String>>()
            .unwrap_or_default();
        let (parts, body) = request.into_parts();
        let body = body.into_bytes_limit(BODY_BYTES_MAX).await;
        Ok(Self {
            path_and_query: uri.to_string(),
            params,
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            headers: parts.headers,
            body: body.map_err(|_| Answer::empty(413))?,
        })
    }
}

/// One answer, not yet sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: value.to_string().into(),
        }
    }

    pub(crate) fn bytes(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            content_type,
            body: body.into(),
        }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            content_type: "text/plain",
            body: Bytes::new(),
        }
    }

    pub(crate) fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, self.content_type)
            .body(self.body)
    }
}

/// What an operation returns: both sides are answers, so that `?` refuses.
pub(crate) type Reply = Result<Answer, Answer>;

/// An operation.
pub(crate) type Work = fn(&mut World, &Call) -> Reply;

/// Whose API it is: how it knows its callers, and how it refuses.
#[derive(Clone, Copy)]
pub(crate) enum Provider {
    ElevenLabs,
    Twilio,
    Builderbot,
}

impl Provider {
    fn authorise(self, world: &World, call: &Call) -> Result<(), Answer> {
        match self {
            Self::ElevenLabs => elevenlabs::authorise(&world.options, call),
            Self::Twilio => twilio::authorise(&world.options, call),
            Self::Builderbot => builderbot::authorise(&world.options, call),
        }
    }

    fn refusal(self, status: u16, request_id: &str) -> Answer {
        match self {
            Self::ElevenLabs => elevenlabs::errors::of_status(status, request_id),
            Self::Twilio => twilio::errors::of_status(status),
            Self::Builderbot => builderbot::refusal(status),
        }
    }
}

/// The endpoint of one operation.
pub(crate) fn operation(
    shared: &Arc<Shared>,
    provider: Provider,
    name: &'static str,
    work: Work,
) -> BoxEndpoint<'static, Response> {
    let gate = Gate {
        shared: shared.clone(),
        provider,
        name,
        work,
    };
    let gate = Arc::new(gate);
    make(move |request| {
        let gate = gate.clone();
        async move { Ok::<_, poem::Error>(gate.pass(request).await.into_response()) }
    })
    .map_to_response()
    .boxed()
}

struct Gate {
    shared: Arc<Shared>,
    provider: Provider,
    name: &'static str,
    work: Work,
}

impl Gate {
    async fn pass(&self, request: Request) -> Answer {
        let call = match Call::read(request).await {
            Ok(call) => call,
            Err(answer) => return answer,
        };
        let (ticket, admitted) = self.admit(&call);
        let answer = match admitted {
            Ok((fault, latency_ms)) => {
                self.shared.clock.real_pause(latency_ms).await;
                self.answer(ticket, fault, &call).await
            }
            Err(refusal) => refusal,
        };
        self.shared.lock().requests.answered(ticket, answer.status);
        answer
    }

    fn admit(&self, call: &Call) -> (Ticket, Result<(Option<Fault>, u64), Answer>) {
        let mut world = self.shared.lock();
        let world = &mut *world;
        let now = world.clock.unix_ms();
        let ticket = world.requests.record(self.name, call, now);
        let admitted = self.provider.authorise(world, call).map(|()| {
            let rates = &world.options.rates;
            let latency = rates.latency_ms.times(1);
            let fault = world.requests.fault(ticket, world.fate, rates);
            let latency_ms = world.fate.draw("latency", &ticket.name()).within(latency);
            (fault, latency_ms)
        });
        (ticket, admitted)
    }

    async fn answer(&self, ticket: Ticket, fault: Option<Fault>, call: &Call) -> Answer {
        let refuse = |status| {
            let id = self
                .shared
                .lock()
                .fate
                .draw("request", &ticket.name())
                .hex();
            self.provider.refusal(status, &id)
        };
        match fault {
            None | Some(Fault::SessionError(_)) => self.carry_out(ticket, call),
            Some(Fault::Refuse(status)) => refuse(status),
            Some(Fault::TwilioCode(code)) => twilio::errors::of_code(code, call),
            Some(Fault::RefuseAfterWork(status)) => {
                self.carry_out(ticket, call);
                refuse(status)
            }
            Some(Fault::SlowMs(pause_ms)) => {
                self.shared.clock.real_pause(pause_ms).await;
                self.carry_out(ticket, call)
            }
            Some(Fault::Hang) => self.shared.hang().await,
            Some(Fault::HangAfterWork) => {
                self.carry_out(ticket, call);
                self.shared.hang().await
            }
        }
    }

    fn carry_out(&self, ticket: Ticket, call: &Call) -> Answer {
        let mut world = self.shared.lock();
        let reply = (self.work)(&mut world, call);
        if reply.is_ok() {
            world.requests.carried_out(ticket);
        }
        drop(world);
        self.shared.wake.notify_one();
        reply.unwrap_or_else(|refusal| refusal)
    }
}

/// The providers' words for a path or a method that does not exist.
pub(crate) fn no_such_route(path: &str, status: u16) -> Answer {
    match status {
        _ if path.starts_with("/2010-04-01/") => twilio::errors::not_found(path),
        405 => Answer::json(405, &serde_json::json!({"detail": "Method Not Allowed"})),
        _ => Answer::json(status, &serde_json::json!({"detail": "Not Found"})),
    }
}

/// Wraps the routes so that routing errors speak the providers' language.
pub(crate) fn with_route_errors(
    routes: impl Endpoint<Output = Response> + 'static,
) -> impl Endpoint<Output = Response> + 'static {
    routes.around(|routes, request| async move {
        let path = request.uri().path().to_owned();
        match routes.call(request).await {
            Ok(response) => Ok(response),
            Err(error) => Ok(no_such_route(&path, error.status().as_u16()).into_response()),
        }
    })
}
