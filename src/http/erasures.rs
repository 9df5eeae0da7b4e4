//! The right to be forgotten. What is erased is in no answer, record or log
//! line: not even the number that was asked to be.

use std::sync::Arc;

use domain::PhoneNumber;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::{Json, Response};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use uuid::Uuid;

use super::auth::{Access, Auth, Caller};
use super::body::Body;
use super::error::Failure;
use super::reply::{self, Success};
use super::{Tag, audit};
use crate::app::App;
use crate::erasure::{self, Error};

/// Longest reason that is taken.
const REASON_CHARS_MAX: usize = 500;

/// Why somebody is erased.
#[derive(Deserialize, Object)]
#[oai(rename = "ErasureRequest", example)]
struct RequestBody {
    /// Why: 1 to 500 characters. It is kept for ever, so it must name nobody: the number of a case will do.
    reason: String,
}

impl Example for RequestBody {
    fn example() -> Self {
        Self {
            reason: "Solicitud 2025-114, Ley 1581".to_owned(),
        }
    }
}

/// What was erased.
#[derive(Debug, Object)]
#[oai(rename = "Erasure", example)]
struct ErasureView {
    /// The erasure: its stream on the ledger is `subject/<id>`.
    id: Uuid,
    /// The position of the event that tells of it.
    position: i64,
    /// How many keys were destroyed.
    keys_destroyed: i64,
}

impl Example for ErasureView {
    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x019a_2b4c_0000_7000_8000_0000_0000_0001),
            position: 100_412,
            keys_destroyed: 7,
        }
    }
}

/// What asking for an erasure answers.
#[derive(ApiResponse)]
enum Erased {
    /// The keys are destroyed. A worker folds the read models anew; `GET /api/projections` tells how far it is.
    #[oai(status = 202)]
    Accepted(Json<Success<ErasureView>>),
}

/// Routes for whoever answers for personal data.
pub struct Api;

#[OpenApi(tag = "Tag::Ledger")]
impl Api {
    /// Erase a person
    ///
    /// Destroys the keys under which everything that is held of them on the ledger is encrypted: calls, conversations,
    /// messages, recordings, their places in batches and groups. No event changes and every proof holds; what was
    /// personal in them reads as erased, and statistics stay. Interactions, conversations and groups do not show it any
    /// more; then the read models are folded anew without it. It cannot be undone. 404 for a number of which nothing is
    /// held, or that was erased. For the role `admin`.
    #[oai(
        path = "/api/subjects/:phone/erase",
        method = "post",
        operation_id = "erase_subject"
    )]
    async fn erase(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The person's number in E.164, such as `+573001234567`.
        phone: Path<String>,
        body: Body<RequestBody>,
    ) -> Result<Response<Erased>, Failure> {
        let caller = Caller::from(auth);
        let act = async {
            let number =
                PhoneNumber::parse(&phone.0).or_else(|_| PhoneNumber::from_digits(&phone.0));
            let number = number.map_err(|error| Failure::field("phone", error.to_string()))?;
            let reason = body.0.reason.trim();
            if str::is_empty(reason) || reason.chars().count() > REASON_CHARS_MAX {
                let says = format!("must have 1 to {REASON_CHARS_MAX} characters");
                return Err(Failure::field("reason", says));
            }
            let order = erasure::order(&app, reason, &caller.actor());
            audit::begin(&app, &caller, "erase_subject", Some(target(order.id))).await?;
            let done = erasure::person(&app, &number, &order).await;
            let done = done.map_err(refused)?;
            Ok(ErasureView {
                id: order.id,
                position: done.position,
                keys_destroyed: i64::try_from(done.keys_count).unwrap_or(i64::MAX),
            })
        };
        let about = |done: Option<&ErasureView>| done.map(|done| target(done.id));
        let (view, audited_at) =
            audit::recorded_of(&app, &caller, Access::Admin, "erase_subject", about, act).await?;
        let position = view.position.max(audited_at);
        let body = reply::success(view);
        Ok(Response::new(Erased::Accepted(body)).header("X-Ledger-Position", position.to_string()))
    }
}

fn target(erasure: Uuid) -> String {
    format!("erasure:{erasure}")
}

fn refused(error: Error) -> Failure {
    match error {
        Error::Unknown => Failure::not_found(&error.to_string()),
        Error::Behind => Failure::unavailable(&error.to_string()),
        Error::Internal(error) => error.into(),
    }
}
