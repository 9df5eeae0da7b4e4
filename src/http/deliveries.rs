//! Deliveries, for the auditor: who sent us what, and what was made of it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::Provider;
use domain::delivery::Verdict;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::auth::{Access, Auth, Caller};
use super::error::Failure;
use super::reply::{self, Commanded, Page, Success};
use super::time::Time;
use super::{Tag, audit, params};
use crate::app::App;
use crate::ledger::deliveries::{self, Detail, Filter, Summary};
use crate::ledger::{Claim, Delivery, Entry, Receipt};
use crate::providers::{self, Normalised, Outcome, Webhook};
use crate::signatures::{self, Checked};

/// A delivery as it is listed.
#[derive(Debug, Object)]
#[oai(rename = "Delivery")]
struct SummaryView {
    /// UUID version 7: ordered by time of receipt.
    id: Uuid,
    /// `elevenlabs`, `twilio` or `builderbot`.
    provider: String,
    /// Which webhook, such as `elevenlabs/call`.
    route: String,
    /// `accepted`, `duplicate`, `quarantined` or `rejected`.
    verdict: String,
    /// Why it was put aside or refused.
    reason: Option<String>,
    /// `token`, `signature`, `none`, or `reprocess`.
    authentication: String,
    /// The first delivery of its kind.
    duplicate_of: Option<Uuid>,
    /// The delivery of which this is a second reading.
    reprocess_of: Option<Uuid>,
    /// The second reading of this delivery that was understood.
    reprocessed_as: Option<Uuid>,
    /// The ledger position of its last event.
    position: Option<i64>,
    /// When it came.
    received_at: Time,
    /// From which network address.
    remote_addr: Option<String>,
    /// Size of its body.
    body_bytes: i32,
}

/// A delivery whole.
#[derive(Debug, Object)]
#[oai(rename = "DeliveryDetail")]
struct DetailView {
    /// What is listed of it.
    #[oai(flatten)]
    summary: SummaryView,
    /// Path and query, without secrets.
    request_target: String,
    /// Headers, without secrets.
    headers: serde_json::Value,
    /// The body, where it is UTF-8.
    body: Option<String>,
    /// The body byte for byte, in base64.
    body_base64: String,
    /// Whether whom it is about was erased: then the body is empty, and its signature cannot be checked.
    erased: bool,
    /// The signature, checked again over the stored bytes.
    signature: SignatureView,
}

/// What a second check of the signature says.
#[derive(Debug, Object)]
#[oai(rename = "SignatureCheck")]
struct SignatureView {
    /// Whether the delivery brought a signature.
    present: bool,
    /// Whether it is right; `null` where there is none, or nothing to check it with: the body was erased.
    valid: Option<bool>,
    /// Why it is not, or cannot be, found right.
    reason: Option<String>,
}

impl From<Checked> for SignatureView {
    fn from(checked: Checked) -> Self {
        Self {
            present: checked.present,
            valid: checked.valid,
            reason: checked.reason,
        }
    }
}

/// What a second reading came to.
#[derive(Debug, Object)]
#[oai(rename = "Reprocessed", example)]
struct ReprocessView {
    /// `accepted`; `duplicate` when the same was on the ledger already; `quarantined` when it still cannot be
    /// understood.
    status: String,
    /// The second reading.
    delivery_id: Option<Uuid>,
    /// The ledger position of its last event.
    position: Option<i64>,
    /// Why it still cannot be understood.
    reason: Option<String>,
}

impl poem_openapi::types::Example for ReprocessView {
    fn example() -> Self {
        Self {
            status: "quarantined".to_owned(),
            delivery_id: None,
            position: None,
            reason: Some("unknown type \"unredacted_transcript\"".to_owned()),
        }
    }
}

impl From<Summary> for SummaryView {
    fn from(row: Summary) -> Self {
        Self {
            id: row.id,
            provider: row.provider,
            route: row.route,
            verdict: row.verdict,
            reason: row.reason,
            authentication: row.authentication,
            duplicate_of: row.duplicate_of,
            reprocess_of: row.reprocess_of,
            reprocessed_as: row.reprocessed_as,
            position: row.position,
            received_at: row.received_at.into(),
            remote_addr: row.remote_addr,
            body_bytes: row.body_bytes,
        }
    }
}

/// Routes for the auditor.
pub struct Api;

#[OpenApi(tag = "Tag::Ledger")]
impl Api {
    /// What providers sent
    ///
    /// The newest first. For the roles `auditor` and `admin`.
    #[oai(
        path = "/api/deliveries",
        method = "get",
        operation_id = "list_deliveries"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each parameter of the operation"
    )]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// `accepted`, `duplicate`, `quarantined` or `rejected`.
        verdict: Query<Option<String>>,
        /// `elevenlabs`, `twilio` or `builderbot`.
        provider: Query<Option<String>>,
        /// Received at or after this time.
        from: Query<Option<String>>,
        /// Received before or at this time.
        to: Query<Option<String>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<SummaryView>>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let limit = reply::limit(limit.0)?;
        let filter = Filter {
            verdict: params::word::<Verdict>("verdict", verdict.0)?
                .map(|verdict| verdict.to_string()),
            provider: params::word::<Provider>("provider", provider.0)?
                .map(|provider| provider.to_string()),
            from: params::time("from", from.0.as_deref())?,
            to: params::time("to", to.0.as_deref())?,
            before: reply::read_cursor(cursor.0.as_deref())?,
        };
        let rows = deliveries::list(&app.pool, &filter, limit + 1).await?;
        Ok(reply::page(rows, limit, |row| row.id, SummaryView::from))
    }

    /// One delivery with its bytes
    ///
    /// The raw body and headers (secrets removed), and the signature checked again over the stored bytes. It shows
    /// whatever the provider sent, so it is put on record. For the roles `auditor` and `admin`.
    #[oai(
        path = "/api/deliveries/:id",
        method = "get",
        operation_id = "get_delivery"
    )]
    async fn get(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The delivery.
        id: Path<Uuid>,
    ) -> Result<Json<Success<DetailView>>, Failure> {
        let caller = Caller::from(auth);
        let read = async {
            let found = deliveries::get(&app.pool, &app.opener, id.0).await?;
            found.ok_or_else(unknown)
        };
        let (detail, _) = audit::recorded(
            &app,
            &caller,
            Access::Auditor,
            "get_delivery",
            Some(id.0.to_string()),
            read,
        )
        .await?;
        Ok(reply::success(show(&app, detail)))
    }

    /// Read a delivery again
    ///
    /// For a quarantined delivery, after the program has learnt to understand it: its facts go onto the ledger now.
    /// Twice is as good as once. For the role `admin`.
    #[oai(
        path = "/api/deliveries/:id/reprocess",
        method = "post",
        operation_id = "reprocess_delivery"
    )]
    async fn reprocess(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The delivery.
        id: Path<Uuid>,
    ) -> Result<Commanded<ReprocessView>, Failure> {
        let caller = Caller::from(auth);
        let target = Some(id.0.to_string());
        let act = reprocess(&app, &caller, id.0);
        let (view, audited_at) = audit::recorded(
            &app,
            &caller,
            Access::Admin,
            "reprocess_delivery",
            target,
            act,
        )
        .await?;
        let position = view.position.unwrap_or_default().max(audited_at);
        app.readable(&["interactions", "audit_log"], position).await;
        Ok(reply::commanded(view, None, position))
    }
}

fn unknown() -> Failure {
    Failure::not_found("There is no such delivery")
}

fn webhook(route: &str) -> Result<Webhook, Failure> {
    Webhook::named(route).ok_or_else(|| {
        Failure::conflict("unknown_route", "This program does not know that webhook")
    })
}

async fn reprocess(app: &App, caller: &Caller, id: Uuid) -> Result<ReprocessView, Failure> {
    let detail = deliveries::get(&app.pool, &app.opener, id).await?;
    let detail = detail.ok_or_else(unknown)?;
    if detail.summary.verdict != Verdict::Quarantined.as_str() {
        return Err(Failure::conflict(
            "not_quarantined",
            format!(
                "Only a quarantined delivery can be read again; this one is {}",
                detail.summary.verdict
            ),
        ));
    }
    if detail.is_erased {
        return Err(Failure::gone(
            "erased",
            "Whom this delivery is about was erased",
        ));
    }
    let webhook = webhook(&detail.summary.route)?;
    let content_type = detail
        .headers
        .get("content-type")
        .and_then(|value| value.as_str());
    let Normalised { identity, outcome } =
        providers::normalise(webhook, &detail.body, content_type, &app.phone_index);
    let facts = match outcome {
        Outcome::Facts(facts) => facts,
        Outcome::Quarantined { reason } => {
            let status = Verdict::Quarantined.to_string();
            return Ok(ReprocessView {
                status,
                delivery_id: None,
                position: None,
                reason: Some(reason),
            });
        }
    };
    let delivery = Delivery {
        id: app.source.id(),
        provider: webhook.provider(),
        route: webhook.name(),
        authentication: "reprocess".to_owned(),
        // Facts without a time of their own happened when they first came.
        received_at: detail.summary.received_at,
        remote_addr: None,
        request_target: detail.request_target,
        headers: detail.headers.to_string(),
        body: Bytes::from(detail.body),
        reprocess_of: Some(id),
    };
    let target = Some(id.to_string());
    audit::begin(app, caller, "reprocess_delivery", target).await?;
    let Receipt {
        verdict,
        delivery_id,
        position,
    } = app
        .writer
        .append(Entry::Delivery(
            Box::new(delivery),
            Claim::Facts { identity, facts },
        ))
        .await?;
    let status = verdict.map_or_else(String::new, |verdict| verdict.to_string());
    Ok(ReprocessView {
        status,
        delivery_id,
        position,
        reason: None,
    })
}

fn show(app: &App, detail: Detail) -> DetailView {
    DetailView {
        erased: detail.is_erased,
        signature: signatures::check(&app.config, &detail).into(),
        request_target: detail.request_target,
        headers: detail.headers,
        body_base64: STANDARD.encode(&detail.body),
        body: String::from_utf8(detail.body).ok(),
        summary: detail.summary.into(),
    }
}
