//! What proves the rows of a file together: between two of them the roots of
//! the subtrees that are not in it. So a file of neighbours has hardly any, and
//! no file needs more memory than a path of the tree.

use std::collections::BTreeSet;

use anyhow::Context;
use domain::log::cover::{self, NodeAt};
use domain::log::line::Line;
use domain::log::note::Head;
use domain::log::{Tiles, Verifiers};
use sqlx::PgPool;

use super::file::Proved;
use crate::ledger::log::{self, Checkpoint};

/// Rows that are proved at once: their tiles are in memory.
const AT_ONCE: usize = 100;

/// A tree that is being told.
pub(super) struct Proofs {
    checkpoint: Checkpoint,
    /// Leaves that were told of.
    told: u64,
    /// What the log is called.
    pub(super) origin: String,
    /// The key that signed its head, if it is known.
    pub(super) public_key: Option<String>,
}

impl Proofs {
    /// Proofs that lead to the last signed head; `None` where nothing is signed.
    pub(super) async fn begin(pool: &PgPool, keys: &Verifiers) -> anyhow::Result<Option<Self>> {
        let Some(checkpoint) = log::latest(pool).await? else {
            return Ok(None);
        };
        let head = Head::read(&checkpoint.note).context("the last checkpoint")?;
        let signed = |key: &&String| {
            let alone = Verifiers::new([(*key).clone()]);
            alone.is_ok_and(|key| key.open(&checkpoint.note).is_ok())
        };
        let public_key = keys.keys().iter().find(signed).cloned();
        Ok(Some(Self {
            checkpoint,
            told: 0,
            origin: head.origin,
            public_key,
        }))
    }

    /// Up to where rows are proved: position and number of delivery.
    pub(super) fn heads(&self) -> (i64, i64) {
        (self.checkpoint.last_position, self.checkpoint.last_seq)
    }

    /// Rows with what proves them. Rows come in their order.
    pub(super) async fn prove(
        &mut self,
        pool: &PgPool,
        rows: Vec<Line>,
    ) -> anyhow::Result<Vec<Proved>> {
        let (mut positions, mut ids) = (Vec::new(), Vec::new());
        for row in &rows {
            match row {
                Line::Event(event) => positions.push(event.position),
                Line::Delivery(delivery) => ids.push(delivery.id),
            }
        }
        let places = log::places(pool, &positions, &ids).await?;
        let mut placed = Vec::with_capacity(rows.len());
        for line in rows {
            let leaf = match &line {
                Line::Event(event) => places.events.get(&event.position),
                Line::Delivery(delivery) => places.deliveries.get(&delivery.id),
            };
            let leaf = *leaf.context("a row of a sealed range is not sealed")?;
            let gap = cover::gap(self.told, leaf);
            self.told = leaf + 1;
            placed.push((line, leaf, gap));
        }
        let mut proved = Vec::with_capacity(placed.len());
        let mut placed = placed.into_iter().peekable();
        while placed.peek().is_some() {
            let some: Vec<_> = placed.by_ref().take(AT_ONCE).collect();
            let gaps = some.iter().flat_map(|(.., gap)| gap);
            let tiles = tiles_of(pool, gaps).await?;
            for (line, leaf, gap) in some {
                proved.push(Proved {
                    line,
                    opened: None,
                    leaf: Some(leaf),
                    skipped: roots(&tiles, &gap)?,
                });
            }
        }
        Ok(proved)
    }

    /// What is behind the last row, and the signed head.
    pub(super) async fn end(self, pool: &PgPool) -> anyhow::Result<(Vec<String>, String)> {
        let gap = cover::gap(self.told, self.checkpoint.size);
        let tiles = tiles_of(pool, gap.iter()).await?;
        Ok((roots(&tiles, &gap)?, self.checkpoint.note))
    }
}

async fn tiles_of(pool: &PgPool, nodes: impl Iterator<Item = &NodeAt>) -> anyhow::Result<Tiles> {
    let needed: BTreeSet<_> = nodes.map(|at| cover::tile_of(*at)).collect();
    Ok(log::load(pool, &needed).await?)
}

fn roots(tiles: &Tiles, gap: &[NodeAt]) -> anyhow::Result<Vec<String>> {
    let root = |at: &NodeAt| cover::node(tiles, *at).map(|root| root.to_string());
    let roots: Option<_> = gap.iter().map(root).collect();
    roots.context("tiles of the transparency log are missing: run `bitacora verify`")
}
