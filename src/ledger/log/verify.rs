//! Recomputing all of the log from the rows, against its heads and others that
//! were kept outside.
//!
//! One pass over the tables in their order, range by range of the heads: what
//! is in memory is one range, at most `LEAVES_MAX` leaves of each kind, and an
//! eighth of a byte for each leaf.

use std::collections::HashMap;

use domain::log::frontier::{ChangedTile, hashes_of};
use domain::log::note::Head;
use domain::log::{Frontier, HASH_BYTES, Hash, TILE_WIDTH, Verifiers};
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::checkpoints::{COLUMNS, Checkpoint};
use super::diagnose::{Finding, Found, first_difference};
use super::rows::{DeliveryRow, EventRow, Range, Rows};

/// A head that was kept outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Outside {
    /// What it is called in messages: its file.
    pub name: String,
    /// The head, believed.
    pub head: Head,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Leaves that are as they were sealed: all before the finding.
    pub leaves: u64,
    /// The events among them.
    pub events: u64,
    /// The deliveries among them.
    pub deliveries: u64,
    /// Heads that lead to them.
    pub heads: u64,
    /// The heads from outside that do, by name.
    pub confirmed: Vec<String>,
    /// Rows that no head covers yet.
    pub unsealed: i64,
    /// The first thing that is wrong.
    pub finding: Option<Finding>,
}

/// Recomputes everything. `progress` is told how many leaves of how many are
/// done.
///
/// # Errors
/// When the database does not answer.
pub async fn verify(
    pool: &PgPool,
    keys: &Verifiers,
    outside: &[Outside],
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<Report> {
    let last = super::latest(pool).await?;
    let (last_size, last_position, last_seq) = last
        .as_ref()
        .map_or((0, 0, 0), |l| (l.size, l.last_position, l.last_seq));
    // Connections of their own: all four are read at once.
    let (mut heads, mut tiles) = (connect(pool).await?, connect(pool).await?);
    let (mut events, mut deliveries) = (connect(pool).await?, connect(pool).await?);
    let up_to = |up_to| Range {
        after: i64::MIN,
        up_to: Some(up_to),
        ..Range::default()
    };
    let mut pass = Pass {
        keys,
        outside: ordered(outside),
        confirmed_size: 0,
        rows: Reader {
            events: Rows::events(&mut events, up_to(last_position)).await?,
            deliveries: Rows::deliveries(&mut deliveries, up_to(last_seq)).await?,
            next_event: None,
            next_delivery: None,
        },
        kept: Kept::all(&mut tiles),
        tree: Frontier::default(),
        upper: HashMap::new(),
        before: None,
        report: Report::default(),
        pool,
    };
    let sql = format!("select {COLUMNS} from log_checkpoints where size <= $1 order by size");
    let mut checkpoints = sqlx::query_as::<_, Checkpoint>(&sql)
        .bind(i64::try_from(last_size)?)
        .fetch(&mut heads);
    while let Some(checkpoint) = checkpoints.try_next().await? {
        let found = pass.range(checkpoint).await?;
        if found.is_some() {
            pass.report.finding = found;
            return Ok(pass.report);
        }
        progress(pass.tree.size(), last_size);
    }
    let Pass {
        tree,
        upper,
        outside: not_reached,
        mut report,
        ..
    } = pass;
    report.finding = match not_reached.into_iter().next() {
        Some(outside) => Some(Finding::Cut {
            checkpoint: outside.name,
            size: outside.head.size,
            kept: tree.size(),
        }),
        None => upper_tiles(pool, tree, upper).await?,
    };
    let sql = "select (select count(*) from events where position > $1)
                    + (select count(*) from deliveries where seq > $2)";
    let unsealed = sqlx::query_scalar(sql).bind(last_position).bind(last_seq);
    report.unsealed = unsealed.fetch_one(pool).await?;
    Ok(report)
}

/// Its statements are as long as the ledger: that is no news.
async fn connect(pool: &PgPool) -> sqlx::Result<PgConnection> {
    let options = pool.connect_options().as_ref().clone();
    PgConnection::connect_with(&options.disable_statement_logging()).await
}

fn ordered(outside: &[Outside]) -> Vec<Outside> {
    let mut ordered = outside.to_vec();
    ordered.sort_by_key(|outside| outside.head.size);
    ordered
}

/// One pass over the ledger.
struct Pass<'a> {
    keys: &'a Verifiers,
    /// Those that are not reached yet, the smallest first.
    outside: Vec<Outside>,
    /// Leaves that a head from outside has confirmed.
    confirmed_size: u64,
    rows: Reader<'a>,
    kept: Kept<'a>,
    tree: Frontier,
    /// Tiles above those of the leaves, as they must be.
    upper: HashMap<(u8, u64), Vec<u8>>,
    before: Option<Checkpoint>,
    report: Report,
    pool: &'a PgPool,
}

impl Pass<'_> {
    /// Checks what a head covers behind the head before it.
    async fn range(&mut self, head: Checkpoint) -> anyhow::Result<Option<Finding>> {
        let (begin, events_before) = self.before.as_ref().map_or((0, 0), |b| (b.size, b.events));
        let sealed = Sealed {
            begin,
            events: usize::try_from(head.events.saturating_sub(events_before))?,
            leaves: self.kept.take(head.size.saturating_sub(begin)).await?,
        };
        if let Some(forged) = self.forged(&head, begin) {
            return Ok(Some(forged));
        }
        let found = self.rows.take(head.last_position, head.last_seq).await?;
        let finding = if found.hashes().eq(sealed.leaves.iter().copied()) {
            let (end, signed) = (head.size, (head.size, head.root));
            self.advance(&sealed.leaves).or_else(|| {
                let leads_there = (self.tree.size(), self.tree.root()) == signed;
                (!leads_there).then_some(Finding::Range { begin, end })
            })
        } else {
            Some(self.differs(&head, &sealed, found).await?)
        };
        if finding.is_some() {
            return Ok(finding);
        }
        self.report.leaves = head.size;
        self.report.events = head.events;
        self.report.deliveries = head.deliveries;
        self.report.heads += 1;
        self.before = Some(head);
        Ok(None)
    }

    /// Grows the tree, and compares it with the heads from outside on the way.
    fn advance(&mut self, leaves: &[Hash]) -> Option<Finding> {
        for leaf in leaves {
            let upper = &mut self.upper;
            self.tree.push(*leaf, &mut |tile| keep_upper(upper, tile));
            while let Some(outside) = self.outside.first()
                && outside.head.size == self.tree.size()
            {
                if outside.head.root != self.tree.root() {
                    return Some(Finding::Rewritten {
                        checkpoint: outside.name.clone(),
                        begin: self.confirmed_size,
                        end: self.tree.size(),
                    });
                }
                self.confirmed_size = self.tree.size();
                self.report.confirmed.push(self.outside.remove(0).name);
            }
        }
        None
    }

    /// A head that one of the keys has not signed, or that is kept otherwise
    /// than it says.
    fn forged(&self, head: &Checkpoint, begin: u64) -> Option<Finding> {
        let why = match self.keys.open(&head.note) {
            Err(why) => why.to_string(),
            Ok(said) if (said.size, said.root) != (head.size, head.root) => {
                "it is kept with another size or root than it says".to_owned()
            }
            Ok(_) => return None,
        };
        let size = head.size;
        Some(Finding::Forged { size, begin, why })
    }

    /// Rows and tiles differ: says which of them the signed head is against.
    async fn differs(
        &self,
        head: &Checkpoint,
        sealed: &Sealed,
        found: Found,
    ) -> anyhow::Result<Finding> {
        let leads_there = |leaves: &mut dyn Iterator<Item = Hash>| {
            let mut tree = self.tree.clone();
            leaves.for_each(|leaf| tree.push(leaf, &mut |_| ()));
            (tree.size(), tree.root()) == (head.size, head.root)
        };
        if leads_there(&mut sealed.leaves.iter().copied()) {
            let mut conn = connect(self.pool).await?;
            return first_difference(&mut conn, sealed, &found).await;
        }
        if leads_there(&mut found.hashes()) {
            let mut pairs = found.hashes().zip(&sealed.leaves);
            let at = pairs.position(|(row, tile)| row != *tile).unwrap_or(0);
            let index = (sealed.begin + at as u64) / TILE_WIDTH as u64;
            return Ok(Finding::Tile { level: 0, index });
        }
        let (begin, end) = (sealed.begin, head.size);
        Ok(Finding::Range { begin, end })
    }
}

/// What was sealed in a range: the leaves by the tiles.
pub(super) struct Sealed {
    pub(super) begin: u64,
    /// So many leaves are events, the others deliveries.
    pub(super) events: usize,
    pub(super) leaves: Vec<Hash>,
}

fn keep_upper(upper: &mut HashMap<(u8, u64), Vec<u8>>, tile: ChangedTile) {
    if tile.level > 0 {
        upper.insert((tile.level, tile.index), tile.data);
    }
}

/// The tiles above those of the leaves, which prove and seal, but are no
/// evidence themselves.
async fn upper_tiles(
    pool: &PgPool,
    tree: Frontier,
    mut upper: HashMap<(u8, u64), Vec<u8>>,
) -> sqlx::Result<Option<Finding>> {
    for tile in tree.grown_since(0) {
        keep_upper(&mut upper, tile);
    }
    let mut kept = sqlx::query_as::<_, (i16, i64, Vec<u8>)>(
        "select level, index, data from log_tiles where level > 0 order by level, index",
    )
    .fetch(pool);
    while let Some((level, index, data)) = kept.try_next().await? {
        let at = (
            u8::try_from(level).unwrap_or(u8::MAX),
            u64::try_from(index).unwrap_or(u64::MAX),
        );
        // What was sealed meanwhile is longer, or not there at all.
        if let Some(expected) = upper.remove(&at)
            && !data.starts_with(&expected)
        {
            return Ok(Some(Finding::Tile {
                level: at.0,
                index: at.1,
            }));
        }
    }
    let missing = upper.into_keys().min();
    Ok(missing.map(|(level, index)| Finding::Tile { level, index }))
}

/// The leaves as the tiles have them, in order.
struct Kept<'c> {
    tiles: BoxStream<'c, sqlx::Result<(i64, Vec<u8>)>>,
    /// Of the tile that was read last: what is left of it.
    left: std::vec::IntoIter<Hash>,
    /// The tile that comes next.
    next: i64,
    /// One that was read too early: some before it are missing.
    ahead: Option<(i64, Vec<u8>)>,
}

impl<'c> Kept<'c> {
    fn all(conn: &'c mut PgConnection) -> Self {
        let sql = "select index, data from log_tiles where level = 0 order by index";
        Self {
            tiles: sqlx::query_as(sql).fetch(conn),
            left: Vec::new().into_iter(),
            next: 0,
            ahead: None,
        }
    }

    /// The next leaves. Of a tile that is missing or too short some are zeroes,
    /// which no leaf is.
    async fn take(&mut self, count: u64) -> anyhow::Result<Vec<Hash>> {
        let mut leaves = Vec::new();
        while (leaves.len() as u64) < count {
            if let Some(leaf) = self.left.next() {
                leaves.push(leaf);
                continue;
            }
            let (index, data) = match self.ahead.take() {
                Some(tile) => tile,
                None => self.tiles.try_next().await?.unwrap_or((i64::MAX, vec![])),
            };
            let mut data = match index == self.next {
                true => data,
                false => {
                    self.ahead = Some((index, data));
                    vec![]
                }
            };
            data.resize(TILE_WIDTH * HASH_BYTES, 0);
            self.left = hashes_of(&data).into_iter();
            self.next += 1;
        }
        Ok(leaves)
    }
}

/// Both tables, in their order.
struct Reader<'c> {
    events: Rows<'c>,
    deliveries: Rows<'c>,
    next_event: Option<EventRow>,
    next_delivery: Option<DeliveryRow>,
}

impl Reader<'_> {
    /// The rows up to a position and a seq.
    async fn take(&mut self, last_position: i64, last_seq: i64) -> anyhow::Result<Found> {
        let mut found = Found::default();
        loop {
            let row = match self.next_event.take() {
                Some(row) => Some(row),
                None => self.events.next_event().await?,
            };
            let Some(row) = row else { break };
            let leaf = row.leaf()?;
            if leaf.position > last_position {
                self.next_event = Some(row);
                break;
            }
            found.events.push((leaf.position, leaf.hash()));
        }
        loop {
            let row = match self.next_delivery.take() {
                Some(row) => Some(row),
                None => self.deliveries.next_delivery().await?,
            };
            let Some(row) = row else { break };
            let leaf = row.leaf()?;
            if leaf.seq > last_seq {
                self.next_delivery = Some(row);
                break;
            }
            let id = Uuid::from_bytes(leaf.id);
            found.deliveries.push(((leaf.seq, id), leaf.hash()));
        }
        Ok(found)
    }
}
