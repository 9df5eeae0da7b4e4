//! The transparency log, for the auditor: signed heads, and proofs. The tiles
//! are in `http::tiles`.

use std::sync::Arc;

use domain::log::line::Line;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Json, PlainText};
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::auth::{Access, Auth, Caller};
use super::error::Failure;
use super::reply::{self, Page, Success};
use super::time::Time;
use super::{Tag, params};
use crate::app::App;
use crate::ledger::log::{self, Checkpoint, Damaged};

/// A signed head of the transparency log.
#[derive(Debug, Object)]
#[oai(rename = "Checkpoint", example)]
struct CheckpointView {
    /// Leaves of the tree.
    size: u64,
    /// Its root hash, base64.
    root: String,
    /// The signed note (C2SP tlog-checkpoint). Keep one outside: it is what `bitacora verify` compares with.
    checkpoint: String,
    /// When it was signed.
    sealed_at: Time,
    /// The last event that it covers, 0 for none.
    last_position: i64,
    /// The events among its leaves.
    events: u64,
    /// The deliveries among its leaves.
    deliveries: u64,
}

/// A checkpoint of the documentation.
pub(super) const EXAMPLE_CHECKPOINT: &str = "example.com/bitacora\n2\nKPLubG8X/EwMffc4yT6l6aWypcpxoC6rBayA1A7ih/E=\n\n\
    — example.com/bitacora 2ihx1sFxGPWMfbbwqtqSRHASrZlJ7O3WuOGeyYkZ3FKvVBoYSNeU9pHklQ5pacMb7mGeNoWfpxf8AEYB8eyfxR84TwY=\n";

/// A proof of the documentation: of the first of the two leaves.
pub(super) fn example_proof() -> String {
    let hash = "oxtY24/zG/hsWbbIrgBBZXpkNDV2yJ4AYWzEmfo1OkY=";
    format!("c2sp.org/tlog-proof@v1\nindex 0\n{hash}\n\n{EXAMPLE_CHECKPOINT}")
}

impl poem_openapi::types::Example for CheckpointView {
    fn example() -> Self {
        Self {
            size: 2,
            root: "KPLubG8X/EwMffc4yT6l6aWypcpxoC6rBayA1A7ih/E=".to_owned(),
            checkpoint: EXAMPLE_CHECKPOINT.to_owned(),
            sealed_at: chrono::DateTime::UNIX_EPOCH.into(),
            last_position: 1,
            events: 1,
            deliveries: 1,
        }
    }
}

impl From<Checkpoint> for CheckpointView {
    fn from(checkpoint: Checkpoint) -> Self {
        Self {
            size: checkpoint.size,
            root: checkpoint.root.to_string(),
            checkpoint: checkpoint.note,
            sealed_at: checkpoint.sealed_at.into(),
            last_position: checkpoint.last_position,
            events: checkpoint.events,
            deliveries: checkpoint.deliveries,
        }
    }
}

/// What the log is.
#[derive(Debug, Object)]
#[oai(rename = "TransparencyLog", example)]
struct LogView {
    /// What it is called; `null` while nothing is sealed here.
    origin: Option<String>,
    /// The keys whose signatures are good (C2SP signed-note verifier keys), the newest first.
    verifier_keys: Vec<String>,
    /// The last head.
    latest: Option<CheckpointView>,
}

impl poem_openapi::types::Example for LogView {
    fn example() -> Self {
        let key = "example.com/bitacora+da2871d6+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
        Self {
            origin: Some("example.com/bitacora".to_owned()),
            verifier_keys: vec![key.to_owned()],
            latest: Some(CheckpointView::example()),
        }
    }
}

/// That one tree is the beginning of another.
#[derive(Debug, Object)]
#[oai(rename = "ConsistencyProof", example)]
struct ConsistencyView {
    /// The smaller tree.
    from: CheckpointView,
    /// The larger tree.
    to: CheckpointView,
    /// RFC 6962, 2.1.2: hashes, base64.
    proof: Vec<String>,
}

impl poem_openapi::types::Example for ConsistencyView {
    fn example() -> Self {
        // A tree begins with itself: there is nothing to prove.
        Self {
            from: CheckpointView::example(),
            to: CheckpointView::example(),
            proof: vec![],
        }
    }
}

/// That something of an interaction is in the log.
#[derive(Debug, Object)]
#[oai(rename = "InteractionProof")]
struct RowProofView {
    /// `event` or `delivery`.
    kind: String,
    /// The event's position or the delivery's id.
    id: String,
    /// The `tlog-proof`; `null` when it is not covered by the checkpoint yet.
    proof: Option<String>,
}

/// That an interaction is in the log.
#[derive(Debug, Object)]
#[oai(rename = "InteractionProofs", example)]
struct InteractionProofsView {
    /// The head that all of them lead to.
    checkpoint: String,
    /// Its events in order (the newest 2,000), and the deliveries that brought them.
    rows: Vec<RowProofView>,
}

impl poem_openapi::types::Example for InteractionProofsView {
    fn example() -> Self {
        let event = RowProofView {
            kind: "event".to_owned(),
            id: "1".to_owned(),
            proof: Some(example_proof()),
        };
        Self {
            checkpoint: EXAMPLE_CHECKPOINT.to_owned(),
            rows: vec![event],
        }
    }
}

/// Routes for the auditor.
pub struct Api;

#[OpenApi(tag = "Tag::Ledger")]
impl Api {
    /// The signed head of the ledger
    ///
    /// A C2SP tlog-checkpoint: keep it outside, and nobody can change what it covers unseen. `at` gives the last one
    /// that was signed by then. For the roles `auditor` and `admin`.
    #[oai(
        path = "/api/ledger/checkpoint",
        method = "get",
        operation_id = "get_checkpoint"
    )]
    async fn checkpoint(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// A time.
        at: Query<Option<String>>,
    ) -> Result<PlainText<String>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let found = match params::time("at", at.0.as_deref())? {
            Some(at) => log::at_time(&app.pool, at).await?,
            None => log::latest(&app.pool).await?,
        };
        Ok(PlainText(found.ok_or_else(none_yet)?.note))
    }

    /// Signed heads
    ///
    /// The newest first. For the roles `auditor` and `admin`.
    #[oai(
        path = "/api/ledger/checkpoints",
        method = "get",
        operation_id = "list_checkpoints"
    )]
    async fn checkpoints(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// Signed at or after this time.
        from: Query<Option<String>>,
        /// Signed before or at this time.
        to: Query<Option<String>>,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<CheckpointView>>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let limit = reply::limit(limit.0)?;
        let from = params::time("from", from.0.as_deref())?;
        let to = params::time("to", to.0.as_deref())?;
        let before = reply::read_cursor(cursor.0.as_deref())?;
        let rows = log::list(&app.pool, from, to, before, limit + 1).await?;
        Ok(reply::page(
            rows,
            limit,
            |row| row.size,
            CheckpointView::from,
        ))
    }

    /// The transparency log
    ///
    /// Its name, the keys by which its heads are verified, the last head. For the roles `auditor` and `admin`.
    #[oai(
        path = "/api/ledger/log",
        method = "get",
        operation_id = "get_transparency_log"
    )]
    async fn log(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
    ) -> Result<Json<Success<LogView>>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let keys = &app.config.log;
        Ok(reply::success(LogView {
            origin: keys
                .signer
                .as_ref()
                .map(|signer| signer.origin().to_owned()),
            verifier_keys: keys.verifiers.keys().to_vec(),
            latest: log::latest(&app.pool).await?.map(CheckpointView::from),
        }))
    }

    /// Proof that an event is in the ledger
    ///
    /// A C2SP tlog-proof: the way from the event to a signed head, with the head. Its `extra` line is the entry that
    /// the leaf is the hash of, see docs/TRANSPARENCY.md. For the roles `auditor` and `admin`.
    #[oai(
        path = "/api/ledger/events/:position/proof",
        method = "get",
        operation_id = "prove_event"
    )]
    async fn prove_event(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The event.
        position: Path<i64>,
        /// The checkpoint of this size, the last if not given.
        size: Query<Option<u64>>,
    ) -> Result<PlainText<String>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let checkpoint = checkpoint(&app, size.0).await?;
        let mut rows = log::events(&app.pool, &[position.0]).await?;
        let row = rows
            .pop()
            .ok_or_else(|| Failure::not_found("There is no such event"))?;
        prove_one(&app, &checkpoint, Line::Event(row)).await
    }

    /// Proof that a delivery is in the ledger
    ///
    /// As of an event. For the roles `auditor` and `admin`.
    #[oai(
        path = "/api/deliveries/:id/proof",
        method = "get",
        operation_id = "prove_delivery"
    )]
    async fn prove_delivery(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The delivery.
        id: Path<Uuid>,
        /// The checkpoint of this size, the last if not given.
        size: Query<Option<u64>>,
    ) -> Result<PlainText<String>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let checkpoint = checkpoint(&app, size.0).await?;
        let mut rows = log::deliveries(&app.pool, &[id.0]).await?;
        let row = rows
            .pop()
            .ok_or_else(|| Failure::not_found("There is no such delivery"))?;
        prove_one(&app, &checkpoint, Line::Delivery(row)).await
    }

    /// Proof that an interaction is in the ledger
    ///
    /// One C2SP tlog-proof for each of its events, and for each delivery that brought one, all to the same head. For
    /// the roles `auditor` and `admin`.
    #[oai(
        path = "/api/interactions/:id/proof",
        method = "get",
        operation_id = "prove_interaction"
    )]
    async fn prove_interaction(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The interaction; a call also answers to its carrier's id (`CA…`).
        id: Path<String>,
        /// The checkpoint of this size, the last if not given.
        size: Query<Option<u64>>,
    ) -> Result<Json<Success<InteractionProofsView>>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let checkpoint = checkpoint(&app, size.0).await?;
        let mut conn = app.pool.acquire().await?;
        let positions = projections::interactions::newest_positions(&mut conn, &id.0).await?;
        drop(conn);
        let positions =
            positions.ok_or_else(|| Failure::not_found("There is no such interaction"))?;
        let events = log::events(&app.pool, &positions).await?;
        let mut brought: Vec<Uuid> = events
            .iter()
            .filter_map(|event| event.delivery_id)
            .collect();
        brought.sort_unstable();
        brought.dedup();
        let deliveries = log::deliveries(&app.pool, &brought).await?;
        let rows: Vec<Line> = events
            .into_iter()
            .map(Line::Event)
            .chain(deliveries.into_iter().map(Line::Delivery))
            .collect();
        let proofs = log::prove_rows(&app.pool, &checkpoint, &rows)
            .await
            .map_err(failure)?;
        let show = |(row, proof): (&Line, Option<domain::log::Proof>)| {
            let (kind, id) = match row {
                Line::Event(event) => ("event", event.position.to_string()),
                Line::Delivery(delivery) => ("delivery", delivery.id.to_string()),
            };
            RowProofView {
                kind: kind.to_owned(),
                id,
                proof: proof.map(|proof| proof.text()),
            }
        };
        Ok(reply::success(InteractionProofsView {
            rows: rows.iter().zip(proofs).map(show).collect(),
            checkpoint: checkpoint.note,
        }))
    }

    /// Proof that the ledger only grew
    ///
    /// That the tree of one checkpoint is the beginning of another's: RFC 6962, 2.1.2. For the roles `auditor` and
    /// `admin`.
    #[oai(
        path = "/api/ledger/consistency",
        method = "get",
        operation_id = "prove_consistency"
    )]
    async fn consistency(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The size of the smaller tree: that of a checkpoint. The first if not given.
        from: Query<Option<u64>>,
        /// The size of the larger one, the last if not given.
        to: Query<Option<u64>>,
    ) -> Result<Json<Success<ConsistencyView>>, Failure> {
        Caller::from(auth).require(Access::Auditor)?;
        let old = match from.0 {
            Some(size) => checkpoint(&app, Some(size)).await?,
            None => log::first(&app.pool).await?.ok_or_else(none_yet)?,
        };
        let new = checkpoint(&app, to.0).await?;
        if old.size > new.size {
            return Err(Failure::field("from", "must not be more than to"));
        }
        let proof = log::consistency(&app.pool, &old, &new).await;
        let proof = proof.map_err(failure)?;
        Ok(reply::success(ConsistencyView {
            from: old.into(),
            to: new.into(),
            proof: proof.iter().map(ToString::to_string).collect(),
        }))
    }
}

fn none_yet() -> Failure {
    Failure::not_found("There is no such checkpoint")
}

async fn checkpoint(app: &App, size: Option<u64>) -> Result<Checkpoint, Failure> {
    let found = match size {
        Some(size) => log::of_size(&app.pool, size).await?,
        None => log::latest(&app.pool).await?,
    };
    found.ok_or_else(none_yet)
}

async fn prove_one(
    app: &App,
    checkpoint: &Checkpoint,
    row: Line,
) -> Result<PlainText<String>, Failure> {
    let proofs = log::prove_rows(&app.pool, checkpoint, &[row]).await;
    let proof = proofs.map_err(failure)?.pop().flatten();
    match proof {
        Some(proof) => Ok(PlainText(proof.text())),
        None => Err(Failure::conflict(
            "not_sealed",
            format!(
                "The checkpoint of size {} does not cover it",
                checkpoint.size
            ),
        )),
    }
}

/// What does not match is said to the auditor, and to the operator.
pub(super) fn failure(error: anyhow::Error) -> Failure {
    match error.downcast::<Damaged>() {
        Ok(damaged) => {
            tracing::error!(%damaged, "the ledger is not what was sealed");
            Failure::conflict("ledger_damaged", damaged.to_string())
        }
        Err(error) => error.into(),
    }
}
