//! `Idempotency-Key` on POSTs (contract, section 0): the same key with the
//! same body gets the first answer again, with another body 409.
//!
//! Invariant: of any number of requests with one key, on any replica, one at a
//! time is carried out; the others wait for its answer. Whoever carries it out
//! renews its hold for as long as it does: a request that was cut short by a
//! kill is carried out again once its hold is over.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use poem::http::{Method, StatusCode};
use poem::{Endpoint, IntoResponse, Middleware, Request, Response};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::auth::Caller;
use super::error::Failure;
use super::{auth, error};
use crate::app::App;

const HEADER: &str = "idempotency-key";
/// Longest key that is taken.
const KEY_CHARS_MAX: usize = 255;
/// Largest body that a key is taken with: a group's document and its base64.
const BODY_BYTES_MAX: usize = 64 << 20;
/// How long a key is held by whoever does not renew it any more.
const HOLD_SECS: i64 = 15;
/// How often a hold is renewed while the request is carried out.
const RENEWAL: std::time::Duration = std::time::Duration::from_secs(5);
/// How long a repeat waits for the first answer, and how often it looks.
const WAIT: std::time::Duration = std::time::Duration::from_secs(10);
const POLL: std::time::Duration = std::time::Duration::from_millis(100);
/// When to try again after that: the hold is over by then.
const RETRY_AFTER_SECS: u64 = 5;
/// How long first answers are kept.
const KEEP_HOURS: i64 = 24;
/// Headers of the first answer that are given again.
const KEPT_HEADERS: [&str; 3] = ["content-type", "x-ledger-position", "retry-after"];

/// Where keys mean nothing: the digest of a body with a one-time code would
/// tell the code to whoever tries them all.
const KEYLESS_PATH: &str = "/api/otp/verify";

/// The id of what a request orders. A request that was cut short by a kill and
/// is repeated under its key finds its own order.
pub fn order_id(app: &App, caller: &Caller, path: &str, key: Option<String>) -> Uuid {
    match key {
        Some(key) => {
            let name = format!("{}\n{path}\n{key}", caller.actor());
            Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
        }
        None => app.source.id(),
    }
}

/// Gives first answers again.
pub struct Idempotent(pub Arc<App>);

impl<E: Endpoint> Middleware<E> for Idempotent {
    type Output = IdempotentEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        IdempotentEndpoint {
            inner,
            app: self.0.clone(),
        }
    }
}

/// An endpoint that gives first answers again.
pub struct IdempotentEndpoint<E> {
    inner: E,
    app: Arc<App>,
}

/// Whose key it is, and for what.
struct Claim {
    actor: String,
    key: String,
    operation: String,
    body_digest: Vec<u8>,
}

enum Claimed {
    /// Carry it out.
    Ours,
    /// It was carried out.
    Answered(Response),
}

/// What is known of a key.
enum Known {
    /// It is being carried out.
    Held,
    /// Nobody carries it out: it is there to be taken.
    Free,
    /// It was carried out.
    Answered(Response),
}

impl<E: Endpoint> Endpoint for IdempotentEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let path = request.uri().path();
        let applies =
            request.method() == Method::POST && path.starts_with("/api/") && path != KEYLESS_PATH;
        let key = request.header(HEADER).filter(|_| applies);
        // Whoever is not known is told so by the operation itself.
        let keyed =
            key.and_then(|key| Some((key.to_owned(), auth::caller_of(&self.app, &request)?)));
        let answer = match keyed {
            // On the heap, for few requests have a key and all would carry it.
            Some((key, caller)) => return Box::pin(self.once(request, key, caller)).await,
            None => self.inner.call(request).await,
        };
        answer.map(IntoResponse::into_response)
    }
}

impl<E: Endpoint> IdempotentEndpoint<E> {
    /// Carries out a request under its key, or gives its first answer again.
    async fn once(
        &self,
        mut request: Request,
        key: String,
        caller: Caller,
    ) -> poem::Result<Response> {
        if key.is_empty() || key.len() > KEY_CHARS_MAX {
            let message = format!("must have 1 to {KEY_CHARS_MAX} characters");
            return Err(Failure::field("Idempotency-Key", message).into());
        }
        let body = request.take_body().into_bytes_limit(BODY_BYTES_MAX).await;
        let body = body.map_err(|_| Failure::too_large(BODY_BYTES_MAX))?;
        let claim = Claim {
            actor: caller.actor(),
            operation: request.uri().path().to_owned(),
            body_digest: Sha256::digest(&body).to_vec(),
            key,
        };
        if let Claimed::Answered(response) = claim.take(&self.app).await? {
            return Ok(response);
        }
        request.set_body(body);
        let response = tokio::select! {
            outcome = self.inner.call(request) => match outcome {
                Ok(response) => response.into_response(),
                Err(error) => error::into_response(error),
            },
            never = claim.renew(&self.app) => match never {},
        };
        claim.settle(&self.app, response).await
    }
}

impl Claim {
    /// Takes the key, or waits for the first answer.
    async fn take(&self, app: &App) -> Result<Claimed, Failure> {
        let began = Instant::now();
        loop {
            match self.look(app).await? {
                Known::Answered(response) => return Ok(Claimed::Answered(response)),
                Known::Free if self.hold(app).await? => return Ok(Claimed::Ours),
                Known::Free | Known::Held => {}
            }
            if began.elapsed() >= WAIT {
                let message = "A request with this Idempotency-Key is being carried out, try again in a moment";
                return Err(Failure::in_progress(message, RETRY_AFTER_SECS));
            }
            sleep(POLL).await;
        }
    }

    /// Takes the key if nobody holds it. Tells whether it did.
    async fn hold(&self, app: &App) -> Result<bool, Failure> {
        let now = app.source.now();
        // One statement: of two at once, one inserts and the other conflicts.
        let taken = sqlx::query(
            "insert into idempotency_keys as k
                    (actor, key, operation, body_digest, held_until, created_at)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (actor, key) do update set held_until = excluded.held_until
                where k.status is null and k.held_until <= $6
                  and k.operation = excluded.operation and k.body_digest = excluded.body_digest",
        )
        .bind(&self.actor)
        .bind(&self.key)
        .bind(&self.operation)
        .bind(&self.body_digest)
        .bind(now + Duration::seconds(HOLD_SECS))
        .bind(now)
        .execute(&app.pool)
        .await?;
        Ok(taken.rows_affected() == 1)
    }

    /// Renews the hold until the request has been carried out, which ends this.
    async fn renew(&self, app: &App) -> Infallible {
        loop {
            sleep(RENEWAL).await;
            let renewed = sqlx::query(
                "update idempotency_keys set held_until = $3
                  where actor = $1 and key = $2 and status is null",
            )
            .bind(&self.actor)
            .bind(&self.key)
            .bind(app.source.now() + Duration::seconds(HOLD_SECS))
            .execute(&app.pool)
            .await;
            if let Err(error) = renewed {
                tracing::warn!(%error, "could not renew the hold of an Idempotency-Key");
            }
        }
    }

    /// What is known of the key.
    async fn look(&self, app: &App) -> Result<Known, Failure> {
        type Row = (
            String,
            Vec<u8>,
            DateTime<Utc>,
            Option<i16>,
            Option<serde_json::Value>,
            Option<Vec<u8>>,
        );
        let row: Option<Row> = sqlx::query_as(
            "select operation, body_digest, held_until, status, headers, body
               from idempotency_keys where actor = $1 and key = $2",
        )
        .bind(&self.actor)
        .bind(&self.key)
        .fetch_optional(&app.pool)
        .await?;
        let Some((operation, body_digest, held_until, status, headers, body)) = row else {
            return Ok(Known::Free);
        };
        if operation != self.operation || body_digest != self.body_digest {
            return Err(Failure::conflict(
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request: take a new one",
            ));
        }
        Ok(match status {
            Some(status) => Known::Answered(restore(
                status,
                headers.unwrap_or_default(),
                body.unwrap_or_default(),
            )),
            None if held_until <= app.source.now() => Known::Free,
            None => Known::Held,
        })
    }

    /// Keeps the answer, unless it says to try again: then the key is free.
    async fn settle(&self, app: &App, response: Response) -> poem::Result<Response> {
        let (parts, body) = response.into_parts();
        let body: Bytes = body.into_bytes().await.unwrap_or_default();
        let status = parts.status;
        let outcome = if status.is_server_error() && status != StatusCode::BAD_GATEWAY
            || status == StatusCode::TOO_MANY_REQUESTS
        {
            self.release(app).await
        } else {
            let headers: serde_json::Map<_, _> = KEPT_HEADERS
                .iter()
                .filter_map(|name| Some((name, parts.headers.get(*name)?.to_str().ok()?)))
                .map(|(name, value)| ((*name).to_owned(), value.into()))
                .collect();
            self.keep(app, status, headers.into(), &body).await
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "could not keep the first answer of an Idempotency-Key");
        }
        Ok(Response::from_parts(parts, body.into()))
    }

    async fn keep(
        &self,
        app: &App,
        status: StatusCode,
        headers: serde_json::Value,
        body: &[u8],
    ) -> sqlx::Result<()> {
        sqlx::query(
            "update idempotency_keys set status = $3, headers = $4::json, body = $5
              where actor = $1 and key = $2",
        )
        .bind(&self.actor)
        .bind(&self.key)
        .bind(i16::try_from(status.as_u16()).unwrap_or_default())
        .bind(headers)
        .bind(body)
        .execute(&app.pool)
        .await?;
        forget_old(app, app.source.now()).await
    }

    async fn release(&self, app: &App) -> sqlx::Result<()> {
        sqlx::query(
            "delete from idempotency_keys where actor = $1 and key = $2 and status is null",
        )
        .bind(&self.actor)
        .bind(&self.key)
        .execute(&app.pool)
        .await?;
        Ok(())
    }
}

async fn forget_old(app: &App, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query("delete from idempotency_keys where created_at < $1")
        .bind(now - Duration::hours(KEEP_HOURS))
        .execute(&app.pool)
        .await?;
    Ok(())
}

fn restore(status: i16, headers: serde_json::Value, body: Vec<u8>) -> Response {
    let status = u16::try_from(status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = Response::builder().status(status.unwrap_or(StatusCode::OK));
    for (name, value) in headers.as_object().into_iter().flatten() {
        response = response.header(name, value.as_str().unwrap_or_default());
    }
    response.header("idempotency-replayed", "true").body(body)
}
