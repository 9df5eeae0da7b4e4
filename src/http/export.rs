//! Exports, for the auditor: see `crate::export`.

use std::sync::Arc;

use bytes::Bytes;
use domain::delivery::Verdict;
use domain::{Channel, Direction, Provider};
use futures_util::{Stream, StreamExt};
use poem::Body;
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Binary;
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::json;
use tokio::sync::mpsc;

use super::auth::{Access, Auth, Caller};
use super::error::Failure;
use super::{Tag, audit, interactions, params};
use crate::app::App;
use crate::export::{self, Export, Filters, Format, Kind, Made, Order};

/// A file.
#[derive(ApiResponse)]
enum File {
    /// A header, a line each, a footer: without the footer it is not whole.
    #[oai(status = 200, content_type = "application/jsonl")]
    Jsonl(
        Binary<Body>,
        /// A name for it.
        #[oai(header = "Content-Disposition")]
        String,
        /// The ledger position that all of it is of.
        #[oai(header = "X-Ledger-Position")]
        i64,
    ),
    /// With the names of the columns.
    #[oai(status = 200, content_type = "text/csv; charset=utf-8")]
    Csv(
        Binary<Body>,
        /// A name for it.
        #[oai(header = "Content-Disposition")]
        String,
        /// The ledger position that all of it is of.
        #[oai(header = "X-Ledger-Position")]
        i64,
    ),
    /// With filter and position in its metadata.
    #[oai(status = 200, content_type = "application/vnd.apache.parquet")]
    Parquet(
        Binary<Body>,
        /// A name for it.
        #[oai(header = "Content-Disposition")]
        String,
        /// The ledger position that all of it is of.
        #[oai(header = "X-Ledger-Position")]
        i64,
    ),
}

/// Routes for the auditor.
pub struct Api;

#[OpenApi(tag = "Tag::Ledger")]
impl Api {
    /// Interactions, events or deliveries as a file
    ///
    /// All of one ledger position, in the order of the list (interactions) or of the ledger. With `reveal=true`,
    /// JSON lines of events and deliveries hold the rows as they are stored, with proofs that lead to a signed
    /// checkpoint: `bitacora verify FILE` checks them without this service. Numbers are masked, and what providers
    /// sent is left out, unless `reveal=true`. CSV holds the values as they are, also those that a spreadsheet
    /// would take for a formula (`+57…`): import its columns as text. On record with its end and the number of rows.
    /// For the roles `auditor` and `admin`.
    #[oai(path = "/api/export", method = "get", operation_id = "export")]
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each parameter of the operation"
    )]
    async fn export(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// `interactions`, `events` or `deliveries`.
        kind: Query<String>,
        /// `jsonl`, `csv` or `parquet`; `jsonl` if not given.
        format: Query<Option<String>>,
        /// Whether to show whole phone numbers, and what providers sent.
        reveal: Query<Option<bool>>,
        /// Of interactions: `call`, `whatsapp` or `sms`.
        channel: Query<Option<String>>,
        /// Of interactions.
        status: Query<Option<String>>,
        /// Of interactions: `inbound` or `outbound`.
        direction: Query<Option<String>>,
        /// Of interactions and deliveries: `elevenlabs`, `twilio` or `builderbot`.
        provider: Query<Option<String>>,
        /// Of interactions: the client's whole number, in E.164.
        phone: Query<Option<String>>,
        /// Of interactions: the voice agent.
        agent_id: Query<Option<String>>,
        /// Of interactions: the batch of the call.
        batch_id: Query<Option<String>>,
        /// Of interactions: words, as in a web search.
        q: Query<Option<String>>,
        /// Of events: only those behind this position.
        after: Query<Option<i64>>,
        /// Of events: of this type, such as `call.completed`.
        r#type: Query<Option<String>>,
        /// Of events: of this kind of aggregate.
        aggregate_type: Query<Option<String>>,
        /// Of events: of this aggregate.
        aggregate_id: Query<Option<String>>,
        /// Of deliveries: `accepted`, `duplicate`, `quarantined` or `rejected`.
        verdict: Query<Option<String>>,
        /// Begun, recorded or received at or after this time.
        from: Query<Option<String>>,
        /// Begun, recorded or received before or at this time.
        to: Query<Option<String>>,
    ) -> Result<File, Failure> {
        let caller = Caller::from(auth);
        let read = || {
            let kind: Option<Kind> = params::word("kind", Some(kind.0))?;
            let kind = kind.ok_or_else(|| Failure::field("kind", "is missing"))?;
            let format = params::word::<Format>("format", format.0)?.unwrap_or(Format::Jsonl);
            let filters = Filters {
                channel: params::word::<Channel>("channel", channel.0)?,
                status: params::text("status", status.0)?,
                direction: params::word::<Direction>("direction", direction.0)?,
                phone_key: interactions::phone_key(&app, phone.0)?,
                agent_id: params::text("agent_id", agent_id.0)?,
                batch_id: params::text("batch_id", batch_id.0)?,
                q: params::text("q", q.0)?,
                after: after.0,
                event_type: params::text("type", r#type.0)?,
                aggregate_type: params::text("aggregate_type", aggregate_type.0)?,
                aggregate_id: params::text("aggregate_id", aggregate_id.0)?,
                verdict: params::word::<Verdict>("verdict", verdict.0)?,
                provider: params::word::<Provider>("provider", provider.0)?,
                from: params::time("from", from.0.as_deref())?,
                to: params::time("to", to.0.as_deref())?,
            };
            let masked = !reveal.0.unwrap_or(false) && app.config.mask_phone_numbers;
            let order = Order::new(kind, format, masked, filters);
            let order = order.map_err(|wrong| Failure::field(wrong.field, wrong.to_string()))?;
            Ok((format, order))
        };
        let (format, order) =
            audit::readable(&app, &caller, Access::Auditor, "export", read()).await?;
        let name = |position| {
            let name = order.file_name(position);
            format!("attachment; filename=\"{name}\"")
        };
        let act = Act::of(&app, &caller, &order);
        let begun = async {
            caller.require(Access::Auditor)?;
            // Each holds a connection and is read for as long as it takes.
            let turn = app.exporting.clone().try_acquire_owned();
            let turn = turn.map_err(|_| Failure::unavailable("Too many exports are being made"))?;
            Ok((
                turn,
                Export::begin(
                    (&app.pool, &app.opener),
                    &app.config.log.verifiers,
                    order.clone(),
                )
                .await?,
            ))
        };
        let (turn, export) = match begun.await {
            Ok(begun) => begun,
            Err(failure) => {
                let failure: Failure = failure;
                act.tell(&app, failure.code(), None).await?;
                return Err(failure);
            }
        };
        act.tell(&app, "begun", None).await?;
        let position = export.position;
        let (parts, receiver) = export::parts();
        let app = app.0.clone();
        tokio::spawn(async move {
            let mut made = Made::default();
            let ended = export.make(&parts, &mut made).await;
            if let Err(error) = &ended {
                let error = format!("{error:#}");
                tracing::warn!(error, rows = made.rows, "an export was cut short");
            }
            let outcome = if ended.is_ok() { "ok" } else { "cut_short" };
            let told = act.tell(&app, outcome, Some(made)).await;
            if told.is_err() {
                tracing::error!("the end of an export could not be put on record");
            }
            // Only now: whoever has the last byte finds the record of it. The
            // file of an export that was cut short has no end.
            match ended.is_ok() && told.is_ok() {
                true => drop(parts),
                false => parts.cut_short().await,
            }
            drop(turn);
        });
        let body = Binary(Body::from_bytes_stream(coming(receiver)));
        Ok(match format {
            Format::Jsonl => File::Jsonl(body, name(position), position),
            Format::Csv => File::Csv(body, name(position), position),
            Format::Parquet => File::Parquet(body, name(position), position),
        })
    }
}

/// The parts of a file; an error where it was cut short, so that the
/// connection is.
pub(super) fn coming(
    receiver: mpsc::Receiver<export::Part>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    let next = |mut receiver: mpsc::Receiver<export::Part>| async move {
        let part = receiver.recv().await?;
        Some((part, receiver))
    };
    futures_util::stream::unfold(receiver, next)
        .map(|part| part.ok_or_else(|| std::io::Error::other("the export was cut short")))
}

/// What is put on record of an export.
struct Act {
    recorded: domain::audit::Recorded,
    order: serde_json::Value,
}

impl Act {
    fn of(app: &App, caller: &Caller, order: &Order) -> Self {
        let act = audit::Act {
            caller: Some(caller),
            action: "export",
            target: Some(order.kind().as_str().to_owned()),
            outcome: "begun",
        };
        let mut described = order.record();
        described["reveal"] = json!(app.config.mask_phone_numbers && !order.masked);
        Self {
            recorded: act.recorded(),
            order: described,
        }
    }

    async fn tell(&self, app: &App, outcome: &str, made: Option<Made>) -> Result<i64, Failure> {
        let mut detail = self.order.clone();
        if let Some(made) = made {
            detail["rows"] = json!(made.rows);
            detail["bytes"] = json!(made.bytes);
        }
        let recorded = domain::audit::Recorded {
            outcome: outcome.to_owned(),
            detail: Some(detail.to_string()),
            ..self.recorded.clone()
        };
        audit::append(app, recorded).await
    }
}
