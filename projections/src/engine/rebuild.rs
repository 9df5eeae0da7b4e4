//! Folds a projection anew beside the live tables and puts the new tables in
//! their place, while everybody goes on reading and writing.
//!
//! The new tables live in a schema of their own, which the search path of one
//! connection puts before `public`; so the projection's own SQL fills them. The
//! live tables are not touched before the last transaction, which swaps all of
//! them or none.

use std::collections::BTreeSet;

use anyhow::Context;
use futures_util::future::join_all;
use sqlx::PgPool;

use super::parity::Difference;
use super::shadow::Shadow;
use super::turn::Turn;
use super::{BATCH_EVENTS_MAX, Engine};
use crate::feed::{self, Page};
use crate::keys::Opener;

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildProgress {
    /// The position up to which the ledger has been folded.
    pub position: i64,
    /// The ledger's last position.
    pub head: i64,
}

/// What came of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// The new tables are live.
    Done {
        /// Up to which position they hold the ledger.
        position: i64,
        /// Where they differ from the old ones, table by table. `None` when
        /// the two could not be compared: another version, or one that
        /// had stopped short of where the new one is.
        differences: Option<Vec<Difference>>,
    },
    /// Another replica is at it.
    HeldElsewhere,
    /// The live rows are of a newer version than this program's.
    Superseded,
}

impl Engine {
    /// The projections that must be rebuilt now: their rows are of an older
    /// version or show what was erased since, or a rebuild was asked for or interrupted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rebuilds_due(&self) -> anyhow::Result<Vec<&'static str>> {
        let names: Vec<&str> = self.names().collect();
        let versions: Vec<i32> = self.projections.iter().map(|p| p.version()).collect();
        let sql = "select p.name from unnest($1::text[], $2::int[]) as p (name, version)
                   where exists (select from projection_checkpoints c where c.name = p.name
                       and (c.build = 'live' and c.version < p.version
                            or c.build = 'live' and c.version = p.version
                               and c.epoch < (select epoch from subject_epoch)
                               and not exists (select from projection_checkpoints failed
                                   where failed.name = c.name and failed.build = 'rebuild'
                                     and failed.error is not null)
                            or c.build = 'rebuild' and c.version <= p.version and c.error is null))";
        let due: Vec<String> = sqlx::query_scalar(sql)
            .bind(names)
            .bind(versions)
            .fetch_all(&self.pool)
            .await?;
        Ok(due.iter().filter_map(|name| self.resolve(name)).collect())
    }

    /// Asks whichever replica is free to rebuild a projection. Asking again
    /// while it is under way changes nothing; one that failed starts anew.
    ///
    /// # Errors
    /// When there is no such projection, or the database fails.
    pub async fn request_rebuild(&self, name: &str) -> anyhow::Result<()> {
        let version = self.projection(name)?.version();
        let sql = "insert into projection_checkpoints as c (name, build, version)
                   values ($1, 'rebuild', $2)
                   on conflict (name, build) do update set version = excluded.version, position = 0,
                       error = null, started_at = now(), updated_at = now()
                   where c.error is not null";
        sqlx::query(sql)
            .bind(name)
            .bind(version)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Rebuilds a projection: from the beginning, or from where the last try
    /// was interrupted. `report` is called after every batch.
    ///
    /// # Errors
    /// When an event cannot be applied or the database fails. The live tables
    /// are then as they were, and the rebuild's checkpoint says why.
    pub async fn rebuild(
        &self,
        name: &str,
        report: impl FnMut(RebuildProgress) + Send,
    ) -> anyhow::Result<Rebuild> {
        let rebuilt = self.rebuild_all(&[name], report).await?;
        let (_, rebuilt) = rebuilt.into_iter().next().context("nothing was rebuilt")?;
        rebuilt
    }

    /// Rebuilds several projections, which share one reading of the ledger. One
    /// that fails does not keep the others.
    ///
    /// # Errors
    /// When there is no such projection, or the database fails.
    pub async fn rebuild_all(
        &self,
        names: &[&str],
        report: impl FnMut(RebuildProgress) + Send,
    ) -> anyhow::Result<Vec<(&'static str, anyhow::Result<Rebuild>)>> {
        let mut shadows = Vec::with_capacity(names.len());
        for name in names {
            let projection = self.projection(name)?;
            // Its own session, closed at the end: with it go its search path and
            // its lock, also when this future is dropped half-way.
            let conn = self.pool.acquire().await?.detach();
            shadows.push(Shadow::new(projection, self.opener.clone(), conn));
        }
        join_all(shadows.iter_mut().map(Shadow::begin)).await;
        catch_up(&self.pool, &self.opener, &mut shadows, report).await;
        let mut rebuilt = Vec::with_capacity(shadows.len());
        for mut shadow in shadows {
            shadow.finish(&self.pool).await;
            let projection = shadow.projection;
            rebuilt.push((projection.name(), self.close(shadow).await));
        }
        self.folded.send_modify(|_| ());
        Ok(rebuilt)
    }

    async fn close(&self, shadow: Shadow<'_>) -> anyhow::Result<Rebuild> {
        let projection = shadow.projection;
        // First of all: a transaction that failed half-way is rolled back only
        // by this, and until then holds the row that the error goes to.
        let (released, outcome) = shadow.close().await;
        match &outcome {
            Ok(_) => released?,
            Err(error) => self.record_error(projection, "rebuild", error).await,
        }
        outcome.with_context(|| format!("rebuilding projection {}", projection.name()))
    }
}

/// Folds page after page into all of them, until there is no more. Meanwhile
/// the next page is read, in a task of its own: folding keeps this one busy.
async fn catch_up(
    pool: &PgPool,
    opener: &Opener,
    shadows: &mut [Shadow<'_>],
    mut report: impl FnMut(RebuildProgress) + Send,
) {
    let positions = shadows.iter().filter(|shadow| shadow.is_under_way());
    let Some(from) = positions.map(|shadow| shadow.position).min() else {
        return;
    };
    let read = |types, from| tokio::spawn(read_page(pool.clone(), opener.clone(), types, from));
    let mut next = Some(read(types(shadows), from));
    while let Some(reading) = next {
        let (page, head) = match reading.await.map_err(anyhow::Error::from).flatten() {
            Ok(read) => read,
            Err(error) => {
                let why = format!("{error:#}");
                for shadow in shadows.iter_mut().filter(|shadow| shadow.is_under_way()) {
                    shadow.fail(anyhow::anyhow!(why.clone()));
                }
                return;
            }
        };
        let position = page.upto();
        let is_last = page.is_empty() || position >= head;
        next = (!is_last).then(|| read(types(shadows), position));
        let under_way = shadows.iter_mut().filter(|shadow| shadow.is_under_way());
        join_all(under_way.map(|shadow| shadow.fold(&page))).await;
        report(RebuildProgress { position, head });
    }
}

/// What any of them reads.
fn types(shadows: &[Shadow<'_>]) -> Vec<&'static str> {
    let under_way = shadows.iter().filter(|shadow| shadow.is_under_way());
    let types = under_way.flat_map(|shadow| shadow.projection.event_types());
    types
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// The page after a position, and the ledger's last position.
async fn read_page(
    pool: PgPool,
    opener: Opener,
    types: Vec<&'static str>,
    from: i64,
) -> anyhow::Result<(Page, i64)> {
    let mut turn = Turn::begin(&pool).await?;
    let conn = turn.conn()?;
    let head = feed::head(conn).await?.max(from);
    let page = feed::page_of(conn, &opener, &types, (from, head), BATCH_EVENTS_MAX).await?;
    turn.roll_back().await?;
    Ok((page, head))
}
