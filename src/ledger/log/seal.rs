//! Sealing: what is new becomes leaves, and the head of their tree is signed.

use anyhow::{Context, ensure};
use domain::log::frontier::{ChangedTile, hashes_of};
use domain::log::{Frontier, Signer, Verifiers};
use sqlx::{Connection, PgConnection};

use super::checkpoints::{Checkpoint, latest};
use super::rows::{Range, Rows};

/// Leaves of each kind that one transaction seals, at most. To find a leaf its
/// range is counted through, so it must not be large.
pub const LEAVES_MAX: i64 = 32_768;

/// A step of sealing; tests kill the leader before each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has the lock, and nothing else.
    Begin,
    /// The leaves are hashed, nothing is written.
    Hashed,
    /// The tiles are written, the head is not.
    Tiled,
    /// All is written, nobody sees it.
    Commit,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another process is sealing.
    Elsewhere,
    /// There was nothing new.
    Nothing,
    /// A head was signed.
    Sealed {
        /// Over so many new leaves.
        leaves: u64,
        /// There may be more.
        full: bool,
    },
}

/// Seals what is new, `most` of each kind; `known` keys have signed the heads before. An error from `before` abandons it
/// there, as a kill would.
///
/// What it reads may not be on disk yet; its own commit waits for the disk
/// (`synchronous_commit` as the operator set it), and with it for all that
/// came before. So whoever sees the head sees what is durable.
///
/// # Errors
/// Then the connection must not be used again. When the database does not take
/// it, the log has another name than the signer's, or the tiles that are kept do not lead
/// to the last head: then nothing more is signed.
pub async fn seal(
    conn: &mut PgConnection,
    signer: &Signer,
    known: &Verifiers,
    most: i64,
    mut before: impl FnMut(Step) -> sqlx::Result<()>,
) -> anyhow::Result<Turn> {
    let mut tx = conn.begin().await?;
    let leads: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock(4242, 2)")
        .fetch_one(&mut *tx)
        .await?;
    if !leads {
        tx.rollback().await?;
        return Ok(Turn::Elsewhere);
    }
    before(Step::Begin)?;
    let last = latest(&mut *tx).await?;
    if let Some(last) = &last {
        check_head(last, signer, known)?;
    }
    let mut frontier = resume(&mut tx, last.as_ref()).await?;
    let old_size = frontier.size();
    let mut next = last.map_or(Covered::default(), |last| Covered {
        last_position: last.last_position,
        last_seq: last.last_seq,
        events: last.events,
        deliveries: last.deliveries,
    });
    let mut tiles = Vec::new();
    let full = append(&mut tx, most, &mut next, &mut frontier, &mut tiles).await?;
    if frontier.size() == old_size {
        tx.rollback().await?;
        return Ok(Turn::Nothing);
    }
    before(Step::Hashed)?;
    tiles.extend(frontier.grown_since(old_size));
    write_tiles(&mut tx, &tiles).await?;
    before(Step::Tiled)?;
    write_head(&mut tx, signer, &frontier, &next).await?;
    before(Step::Commit)?;
    tx.commit().await?;
    Ok(Turn::Sealed {
        leaves: frontier.size() - old_size,
        full,
    })
}

/// The log goes on under its name, and behind heads of ours alone: else it
/// would give whoever forged one a good signature.
fn check_head(last: &Checkpoint, signer: &Signer, known: &Verifiers) -> anyhow::Result<()> {
    let origin = known
        .open(&last.note)
        .context("the last head of the transparency log: was LOG_SIGNING_KEY replaced? Then LOG_VERIFIER_KEYS needs the old verifier key")?
        .origin;
    ensure!(
        origin == signer.origin(),
        "the transparency log is called {origin}, and this process would call it {}: set LOG_ORIGIN",
        signer.origin()
    );
    Ok(())
}

/// Up to where the leaves go.
#[derive(Default)]
struct Covered {
    last_position: i64,
    last_seq: i64,
    events: u64,
    deliveries: u64,
}

/// The tree as it was left, by its tiles, which must lead to the last head.
async fn resume(conn: &mut PgConnection, last: Option<&Checkpoint>) -> anyhow::Result<Frontier> {
    let Some(last) = last else {
        return Ok(Frontier::default());
    };
    let (levels, indexes): (Vec<i16>, Vec<i64>) = Frontier::partial_tiles(last.size)
        .into_iter()
        .map(|(level, index)| (i16::from(level), i64::try_from(index).unwrap_or(i64::MAX)))
        .unzip();
    let sql = "select level, index, data from log_tiles
                where (level, index) in (select * from unnest($1::smallint[], $2::bigint[]))";
    let query = sqlx::query_as(sql).bind(&levels).bind(&indexes);
    let tiles: Vec<(i16, i64, Vec<u8>)> = query.fetch_all(conn).await?;
    let frontier = Frontier::resume(last.size, |level, index| {
        let wanted = (i16::from(level), i64::try_from(index).unwrap_or(i64::MAX));
        let mut found = tiles.iter().filter(|tile| (tile.0, tile.1) == wanted);
        found.next().map(|tile| hashes_of(&tile.2))
    });
    let frontier = frontier.context("tiles of the transparency log are missing")?;
    ensure!(
        frontier.root() == last.root,
        "the tiles of the transparency log do not lead to its last head: run `bitacora verify`"
    );
    Ok(frontier)
}

/// Appends what is new; whether there may be more.
async fn append(
    conn: &mut PgConnection,
    most: i64,
    next: &mut Covered,
    frontier: &mut Frontier,
    tiles: &mut Vec<ChangedTile>,
) -> anyhow::Result<bool> {
    let (old_events, old_deliveries) = (next.events, next.deliveries);
    let range = |after| Range {
        after,
        limit: Some(most),
        ..Range::default()
    };
    let mut rows = Rows::events(conn, range(next.last_position)).await?;
    while let Some(row) = rows.next_event().await? {
        let leaf = row.leaf()?;
        next.last_position = leaf.position;
        next.events += 1;
        frontier.push(leaf.hash(), &mut |tile| tiles.push(tile));
    }
    drop(rows);
    let mut rows = Rows::deliveries(conn, range(next.last_seq)).await?;
    while let Some(row) = rows.next_delivery().await? {
        let leaf = row.leaf()?;
        next.last_seq = leaf.seq;
        next.deliveries += 1;
        frontier.push(leaf.hash(), &mut |tile| tiles.push(tile));
    }
    drop(rows);
    let most = u64::try_from(most).unwrap_or_default();
    Ok(next.events - old_events >= most || next.deliveries - old_deliveries >= most)
}

async fn write_tiles(conn: &mut PgConnection, tiles: &[ChangedTile]) -> sqlx::Result<()> {
    // A tile that fills was a partial one before, maybe in this very batch.
    let levels: Vec<i16> = tiles.iter().map(|tile| i16::from(tile.level)).collect();
    let indexes: Vec<i64> = tiles
        .iter()
        .map(|tile| i64::try_from(tile.index).unwrap_or(i64::MAX))
        .collect();
    let data: Vec<&[u8]> = tiles.iter().map(|tile| tile.data.as_slice()).collect();
    let sql = "insert into log_tiles (level, index, data)
               select * from unnest($1::smallint[], $2::bigint[], $3::bytea[])
               on conflict (level, index) do update set data = excluded.data";
    let query = sqlx::query(sql).bind(levels).bind(indexes).bind(data);
    query.execute(conn).await?;
    Ok(())
}

async fn write_head(
    conn: &mut PgConnection,
    signer: &Signer,
    frontier: &Frontier,
    covered: &Covered,
) -> anyhow::Result<()> {
    let root = frontier.root();
    let note = signer.sign(frontier.size(), root)?;
    let sql = "insert into log_checkpoints (size, root, note, last_position, last_seq, events, deliveries)
               values ($1, $2, $3, $4, $5, $6, $7)";
    sqlx::query(sql)
        .bind(i64::try_from(frontier.size())?)
        .bind(root.0.as_slice())
        .bind(note)
        .bind(covered.last_position)
        .bind(covered.last_seq)
        .bind(i64::try_from(covered.events)?)
        .bind(i64::try_from(covered.deliveries)?)
        .execute(conn)
        .await?;
    Ok(())
}
