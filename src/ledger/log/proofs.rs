//! Where leaves are, and the proofs that they are there.

use std::collections::{BTreeMap, BTreeSet};

use domain::log::line::{DeliveryLine, EventLine, Line};
use domain::log::tiles::{self, TileAt};
use domain::log::{Hash, Proof, RecordProof, Tiles, TreeProof};
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use uuid::Uuid;

use super::checkpoints::Checkpoint;
use super::rows::{Range, Rows};

/// A leaf that is proved.
#[derive(Clone, Debug, PartialEq)]
pub struct Proved {
    /// Which leaf, from 0.
    pub index: u64,
    /// From the leaf to the root of the checkpoint.
    pub proof: RecordProof,
}

/// The log does not lead to what is in the database: `bitacora verify` says
/// where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: run `bitacora verify`")]
pub struct Damaged(String);

fn missing_tiles<E>(_: E) -> Damaged {
    Damaged("tiles of the transparency log are missing".to_owned())
}

/// Where the leaves of events (by position) and of deliveries are. Those that
/// are not sealed yet, or are not there, are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// By position.
    pub events: BTreeMap<i64, u64>,
    /// By id.
    pub deliveries: BTreeMap<Uuid, u64>,
}

/// Finds leaves: counts through the ranges that they are in.
///
/// # Errors
/// When the database does not answer.
pub async fn places(pool: &PgPool, events: &[i64], deliveries: &[Uuid]) -> sqlx::Result<Places> {
    let mut places = Places::default();
    if !events.is_empty() {
        let sql = "
            with asked as (select unnest($1::bigint[]) as position),
            range as (
                select distinct covering.size, coalesce(before.size, 0) as begin,
                       coalesce(before.last_position, 0) as low, covering.last_position as high
                  from asked
                  cross join lateral (
                      select size, last_position from log_checkpoints
                       where last_position >= asked.position order by last_position, size limit 1) covering
                  left join lateral (
                      select size, last_position from log_checkpoints
                       where size < covering.size order by size desc limit 1) before on true),
            leaf as (
                select e.position,
                       range.begin + row_number() over (partition by range.begin order by e.position) - 1 as index
                  from range join events e on e.position > range.low and e.position <= range.high)
            select leaf.position, leaf.index from leaf join asked using (position)";
        let found: Vec<(i64, i64)> = sqlx::query_as(sql).bind(events).fetch_all(pool).await?;
        places.events = found
            .into_iter()
            .map(|(at, index)| (at, unsigned(index)))
            .collect();
    }
    if !deliveries.is_empty() {
        let sql = "
            with asked as (select id, seq from deliveries where id = any($1)),
            range as (
                select distinct covering.size,
                       covering.size - covering.deliveries + coalesce(before.deliveries, 0) as begin,
                       coalesce(before.last_seq, 0) as low, covering.last_seq as high
                  from asked
                  cross join lateral (
                      select size, last_seq, deliveries from log_checkpoints
                       where last_seq >= asked.seq order by last_seq, size limit 1) covering
                  left join lateral (
                      select size, last_seq, deliveries from log_checkpoints
                       where size < covering.size order by size desc limit 1) before on true),
            leaf as (
                select d.seq, range.begin + row_number() over (partition by range.begin order by d.seq) - 1 as index
                  from range join deliveries d on d.seq > range.low and d.seq <= range.high)
            select asked.id, leaf.index from leaf join asked using (seq)";
        let found: Vec<(Uuid, i64)> = sqlx::query_as(sql).bind(deliveries).fetch_all(pool).await?;
        places.deliveries = found
            .into_iter()
            .map(|(id, index)| (id, unsigned(index)))
            .collect();
    }
    Ok(places)
}

fn unsigned(index: i64) -> u64 {
    u64::try_from(index).unwrap_or_default()
}

/// Proves that leaves are in the tree of a checkpoint; `leaves` are index and
/// hash. What is handed out is checked.
///
/// # Errors
/// When the database does not answer, or a leaf is not what was sealed.
pub async fn prove(
    pool: &PgPool,
    checkpoint: &Checkpoint,
    leaves: &[(u64, Hash)],
) -> anyhow::Result<Vec<Proved>> {
    let needed = leaves
        .iter()
        .flat_map(|(index, _)| tiles::for_record(checkpoint.size, *index))
        .collect();
    let tiles = load(pool, &needed).await?;
    let prove = |(index, leaf): &(u64, Hash)| {
        let proof = tiles.prove_record(checkpoint.size, *index);
        let proof = proof.map_err(missing_tiles)?;
        let (size, root) = (checkpoint.size, checkpoint.root);
        tlog_tiles::check_record(&proof, size, root, *index, *leaf)
            .map_err(|_| Damaged(format!("leaf {index} is not what was sealed")))?;
        Ok(Proved {
            index: *index,
            proof,
        })
    };
    leaves.iter().map(prove).collect()
}

/// Proves that rows are in the tree of a checkpoint; `None` for what is not.
///
/// # Errors
/// As [`prove`].
pub async fn prove_rows(
    pool: &PgPool,
    checkpoint: &Checkpoint,
    rows: &[Line],
) -> anyhow::Result<Vec<Option<Proof>>> {
    let (mut positions, mut ids) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Line::Event(event) => positions.push(event.position),
            Line::Delivery(delivery) => ids.push(delivery.id),
        }
    }
    let places = places(pool, &positions, &ids).await?;
    let index = |row: &Line| match row {
        Line::Event(event) => places.events.get(&event.position).copied(),
        Line::Delivery(delivery) => places.deliveries.get(&delivery.id).copied(),
    };
    let index = |row: &Line| index(row).filter(|index| *index < checkpoint.size);
    let leaves: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((index(row)?, row.hash())))
        .collect();
    let mut proved = prove(pool, checkpoint, &leaves).await?.into_iter();
    let prove = |row: &Line| {
        index(row)?;
        let Proved { index, proof } = proved.next()?;
        Some(Proof {
            index,
            entry: Some(row.entry()),
            hashes: proof,
            checkpoint: checkpoint.note.clone(),
        })
    };
    Ok(rows.iter().map(prove).collect())
}

/// Proves that the tree of one checkpoint begins with that of another.
///
/// # Errors
/// When the database does not answer, or it does not.
pub async fn consistency(
    pool: &PgPool,
    old: &Checkpoint,
    new: &Checkpoint,
) -> anyhow::Result<TreeProof> {
    let tiles = load(pool, &tiles::for_tree(new.size, old.size)).await?;
    let proof = tiles.prove_tree(new.size, old.size);
    let proof = proof.map_err(missing_tiles)?;
    tlog_tiles::check_tree(&proof, new.size, new.root, old.size, old.root).map_err(|_| {
        Damaged("the tiles do not lead from one checkpoint to the other".to_owned())
    })?;
    Ok(proof)
}

/// The tiles that are there of those that are needed.
///
/// # Errors
/// When the database does not answer.
pub async fn load(pool: &PgPool, needed: &BTreeSet<TileAt>) -> sqlx::Result<Tiles> {
    let (levels, indexes): (Vec<i16>, Vec<i64>) = needed
        .iter()
        .map(|(level, index)| (i16::from(*level), i64::try_from(*index).unwrap_or(i64::MAX)))
        .unzip();
    let sql = "select level, index, data from log_tiles
                where (level, index) in (select * from unnest($1::smallint[], $2::bigint[]))";
    let query = sqlx::query_as(sql).bind(levels).bind(indexes);
    let found: Vec<(i16, i64, Vec<u8>)> = query.fetch_all(pool).await?;
    let mut tiles = Tiles::default();
    for (level, index, data) in found {
        tiles.insert(
            (u8::try_from(level).unwrap_or(u8::MAX), unsigned(index)),
            data,
        );
    }
    Ok(tiles)
}

/// The hashes of a tile as they are kept.
///
/// # Errors
/// When the database does not answer.
pub async fn tile(pool: &PgPool, (level, index): TileAt) -> sqlx::Result<Option<Vec<u8>>> {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    sqlx::query_scalar("select data from log_tiles where level = $1 and index = $2")
        .bind(i16::from(level))
        .bind(index)
        .fetch_optional(pool)
        .await
}

/// Events as lines, by position; those that are there.
///
/// # Errors
/// When the database does not answer.
pub async fn events(pool: &PgPool, positions: &[i64]) -> anyhow::Result<Vec<EventLine>> {
    let mut conn = Reading::from(pool).await?;
    let lines = some_events(conn.get(), these(positions)).await?;
    conn.done();
    Ok(lines)
}

/// Deliveries as lines, in order; those that are there.
///
/// # Errors
/// When the database does not answer.
pub async fn deliveries(pool: &PgPool, ids: &[Uuid]) -> anyhow::Result<Vec<DeliveryLine>> {
    let mut conn = Reading::from(pool).await?;
    let seqs: Vec<i64> = sqlx::query_scalar("select seq from deliveries where id = any($1)")
        .bind(ids)
        .fetch_all(conn.get())
        .await?;
    let lines = some_deliveries(conn.get(), these(&seqs)).await?;
    conn.done();
    Ok(lines)
}

fn these(only: &[i64]) -> Range<'_> {
    Range {
        only: Some(only),
        ..Range::default()
    }
}

/// A connection for COPY. One that is cut short, because whoever asked has gone,
/// must not go back to the pool: sqlx 0.8 does not take note of it.
struct Reading(Option<PoolConnection<Postgres>>);

impl Reading {
    async fn from(pool: &PgPool) -> sqlx::Result<Self> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    fn get(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is given back at the end")
    }

    fn done(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            drop(conn.detach());
        }
    }
}

pub(super) async fn some_events(
    conn: &mut PgConnection,
    range: Range<'_>,
) -> anyhow::Result<Vec<EventLine>> {
    let mut lines = Vec::new();
    let mut rows = Rows::events(conn, range).await?;
    while let Some(row) = rows.next_event().await? {
        lines.push(EventLine::of(&row.leaf()?));
    }
    Ok(lines)
}

pub(super) async fn some_deliveries(
    conn: &mut PgConnection,
    range: Range<'_>,
) -> anyhow::Result<Vec<DeliveryLine>> {
    let mut lines = Vec::new();
    let mut rows = Rows::deliveries(conn, range).await?;
    while let Some(row) = rows.next_delivery().await? {
        lines.push(DeliveryLine::of(&row.leaf()?));
    }
    Ok(lines)
}

/// The rows of the leaves from `begin` up to `end`, in their order: all that
/// are sealed.
///
/// # Errors
/// When the database does not answer, or rows are missing.
pub async fn entries(pool: &PgPool, begin: u64, end: u64) -> anyhow::Result<Vec<Line>> {
    let mut conn = Reading::from(pool).await?;
    // The ranges that the leaves are in, and where each begins.
    let sql = "
        select c.size, coalesce(b.size, 0), c.events - coalesce(b.events, 0),
               coalesce(b.last_position, 0), c.last_position, coalesce(b.last_seq, 0), c.last_seq
          from log_checkpoints c
          left join lateral (select * from log_checkpoints b where b.size < c.size order by b.size desc limit 1) b on true
         where c.size > $1 and coalesce(b.size, 0) < $2
           and c.size <= (select coalesce(min(size), (select max(size) from log_checkpoints))
                            from log_checkpoints where size >= $2)
         order by c.size";
    let ranges: Vec<(i64, i64, i64, i64, i64, i64, i64)> = sqlx::query_as(sql)
        .bind(i64::try_from(begin)?)
        .bind(i64::try_from(end)?)
        .fetch_all(conn.get())
        .await?;
    let (begin, end) = (i64::try_from(begin)?, i64::try_from(end)?);
    let mut lines = Vec::new();
    for (size, start, events, low, high, low_seq, high_seq) in ranges {
        // Of its events, and then of its deliveries, those between.
        let turn = start + events;
        let cut = |from: i64, to: i64| {
            let offset = (begin - from).max(0);
            (offset, (end.min(to) - from - offset).max(0))
        };
        let (offset, limit) = cut(start, turn);
        if limit > 0 {
            let limit = Some(limit);
            let range = Range {
                after: low,
                up_to: Some(high),
                limit,
                offset,
                ..Range::default()
            };
            let events = some_events(conn.get(), range).await?;
            lines.extend(events.into_iter().map(Line::Event));
        }
        let (offset, limit) = cut(turn, size);
        if limit > 0 {
            let limit = Some(limit);
            let range = Range {
                after: low_seq,
                up_to: Some(high_seq),
                limit,
                offset,
                ..Range::default()
            };
            let deliveries = some_deliveries(conn.get(), range).await?;
            lines.extend(deliveries.into_iter().map(Line::Delivery));
        }
    }
    conn.done();
    let expected = end - begin;
    if i64::try_from(lines.len()) != Ok(expected) {
        return Err(Damaged("rows of sealed leaves are missing".to_owned()).into());
    }
    Ok(lines)
}
