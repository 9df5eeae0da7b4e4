//! The rows of an export, page by page, all of one position.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::log::Verifiers;
use domain::log::line::{DeliveryLine, EventLine, Line};
use domain::phone::{mask, mask_in};
use domain::sealed;
use projections::Opener;
use projections::interactions::{self, Cursor, Interaction};
use sqlx::{PgPool, Postgres, Transaction};

use super::file::{InteractionLine, Proved, Row};
use super::order::{Order, What};
use super::proofs::Proofs;
use crate::ledger::{events, lines};
use crate::transaction;

/// Rows of a page of interactions.
const PAGE_ROWS: i64 = 500;

/// Rows to come.
pub(super) struct Pages {
    pool: PgPool,
    opener: Opener,
    position: i64,
    seq: i64,
    /// A snapshot: the rows of a read model change.
    snapshot: Option<Transaction<'static, Postgres>>,
    after: After,
    proofs: Option<Proofs>,
}

/// Behind what the next page begins.
#[derive(Default)]
struct After {
    interaction: Option<Cursor>,
    position: i64,
    seq: i64,
}

impl Pages {
    pub(super) async fn begin(
        (pool, opener): (&PgPool, &Opener),
        keys: &Verifiers,
        order: &Order,
    ) -> anyhow::Result<Self> {
        let proofs = match order.is_provable() {
            true => Proofs::begin(pool, keys).await?,
            false => None,
        };
        // What is not sealed yet is left out of a file that proves itself.
        let (mut position, seq) = match &proofs {
            Some(proofs) => proofs.heads(),
            None => lines::heads(pool).await?,
        };
        let mut snapshot = None;
        if let What::Interactions(_) = order.what {
            let mut transaction = transaction::begin_snapshot(pool).await?;
            position = projections::engine::position(&mut transaction, "interactions").await?;
            snapshot = Some(transaction);
        }
        Ok(Self {
            pool: pool.clone(),
            opener: opener.clone(),
            position,
            seq,
            snapshot,
            after: After::default(),
            proofs,
        })
    }

    pub(super) fn position(&self) -> i64 {
        self.position
    }

    pub(super) fn seq(&self) -> i64 {
        self.seq
    }

    /// The next rows; none at the end.
    pub(super) async fn next(&mut self, order: &Order) -> anyhow::Result<Vec<Row>> {
        match (&order.what, &mut self.snapshot) {
            (What::Interactions(filter), Some(snapshot)) => {
                let after = self.after.interaction.as_ref();
                let rows = interactions::list(snapshot, filter, after, PAGE_ROWS).await?;
                if let Some(last) = rows.last() {
                    self.after.interaction = Some(last.cursor());
                }
                let lines = rows.into_iter();
                let lines = lines.map(|row| Row::Interaction(interaction(row, order.masked)));
                Ok(lines.collect())
            }
            (What::Interactions(_), None) => Ok(vec![]),
            (What::Events(filter), _) => {
                let filter = events::Filter {
                    after: filter.after.max(self.after.position),
                    ..filter.clone()
                };
                let mut rows = lines::events(&self.pool, &filter, self.position).await?;
                if let Some(last) = rows.last() {
                    self.after.position = last.position;
                }
                let mut opened = self.opened_events(&rows).await?;
                if !order.is_provable() {
                    for (row, opened) in rows.iter_mut().zip(&mut opened) {
                        row.payload = opened.take().unwrap_or(std::mem::take(&mut row.payload));
                    }
                }
                for row in rows.iter_mut().filter(|_| order.masked) {
                    let payload = serde_json::from_str(&row.payload)?;
                    row.payload = domain::event::masked(&row.event_type, payload).to_string();
                }
                let rows = rows.into_iter().map(Line::Event).collect();
                self.prove(rows, opened).await
            }
            (What::Deliveries(filter), _) => {
                let between = (self.after.seq, self.seq);
                let mut rows =
                    lines::deliveries(&self.pool, filter, between, !order.masked).await?;
                if let Some(last) = rows.last() {
                    self.after.seq = last.seq;
                }
                let mut opened = self.opened_deliveries(&rows).await?;
                if !order.is_provable() {
                    for (row, opened) in rows.iter_mut().zip(&mut opened) {
                        row.body = opened.take().or(row.body.take());
                    }
                }
                let opened = opened.into_iter();
                let opened = opened.map(|body| body.map(|body| STANDARD.encode(body)));
                let rows = rows.into_iter().map(Line::Delivery).collect();
                self.prove(rows, opened.collect()).await
            }
        }
    }

    /// The payloads of those that are sealed, opened.
    async fn opened_events(&self, rows: &[EventLine]) -> anyhow::Result<Vec<Option<String>>> {
        let ids = rows.iter();
        let ids = ids.flat_map(|row| sealed::key_ids(&row.event_type, &row.payload));
        let ids: Vec<_> = ids.collect();
        if ids.is_empty() {
            return Ok(vec![None; rows.len()]);
        }
        let mut conn = self.pool.acquire().await?;
        let keys = self.opener.keys(&mut conn, ids).await?;
        let open = |row: &EventLine| match keys.payload(&row.event_type, &row.payload)? {
            Cow::Owned(opened) => Ok(Some(opened)),
            Cow::Borrowed(_) => Ok(None),
        };
        rows.iter().map(open).collect()
    }

    /// The bodies of those that are sealed, opened.
    async fn opened_deliveries(
        &self,
        rows: &[DeliveryLine],
    ) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
        let id = |row: &DeliveryLine| row.body.as_deref().and_then(sealed::body_key_id);
        let ids: Vec<_> = rows.iter().filter_map(id).collect();
        if ids.is_empty() {
            return Ok(vec![None; rows.len()]);
        }
        let mut conn = self.pool.acquire().await?;
        let keys = self.opener.keys(&mut conn, ids).await?;
        let open = |row: &DeliveryLine| match (id(row), &row.body) {
            (Some(_), Some(body)) => keys.body(body.clone()).map(Some),
            _ => Ok(None),
        };
        rows.iter().map(open).collect()
    }

    async fn prove(
        &mut self,
        rows: Vec<Line>,
        opened: Vec<Option<String>>,
    ) -> anyhow::Result<Vec<Row>> {
        let proved = match &mut self.proofs {
            Some(proofs) => proofs.prove(&self.pool, rows).await?,
            None => rows.into_iter().map(Proved::unproved).collect(),
        };
        let proved = proved.into_iter().zip(opened);
        let rows = proved.map(|(row, opened)| Row::Ledger(Proved { opened, ..row }));
        Ok(rows.collect())
    }

    /// What the log is called, and the key that signed its head.
    pub(super) fn log(&self) -> (Option<String>, Option<String>) {
        let proofs = self.proofs.as_ref();
        let log = proofs.map(|proofs| (proofs.origin.clone(), proofs.public_key.clone()));
        let (origin, public_key) = log.unzip();
        (origin, public_key.flatten())
    }

    /// What proves the rows together.
    pub(super) async fn end(self) -> anyhow::Result<(Vec<String>, Option<String>)> {
        Ok(match self.proofs {
            Some(proofs) => {
                let (skipped, checkpoint) = proofs.end(&self.pool).await?;
                (skipped, Some(checkpoint))
            }
            None => (vec![], None),
        })
    }
}

fn interaction(row: Interaction, masked: bool) -> InteractionLine {
    let number = row.phone_number.clone().filter(|_| masked);
    InteractionLine {
        kind: "interaction",
        id: row.id,
        channel: row.channel.to_string(),
        provider: row.provider.map(|it| it.to_string()),
        direction: row.direction.map(|it| it.to_string()),
        status: row.status,
        phone_number: match &number {
            Some(number) => Some(mask(number)),
            None => row.phone_number,
        },
        agent_id: row.agent_id,
        batch_id: row.batch_id,
        conversation_id: row.conversation_id,
        started_at: row.started_at,
        ended_at: row.ended_at,
        last_event_at: row.last_event_at,
        duration_secs: row.duration_secs,
        summary: row.summary.map(|words| match &number {
            Some(number) => mask_in(&words, number),
            None => words,
        }),
        message_count: row.message_count,
    }
}
