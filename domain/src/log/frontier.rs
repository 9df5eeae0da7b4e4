//! The right edge of the tree: all that is needed to go on with it.
//!
//! `tlog_tiles` stores and reads a tree hash by hash; appending a hundred
//! thousand leaves a second wants the tiles as they fill, and no reads.

use tlog_tiles::{EMPTY_HASH, Hash, node_hash};

use super::{HASH_BYTES, TILE_WIDTH};

/// A tree of some size by its partial tiles: one a level, the leaves first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frontier {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

/// A tile that changed: where it is and all of its hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedTile {
    /// 0 is that of the leaves.
    pub level: u8,
    /// Place in its level.
    pub index: u64,
    /// The hashes, one behind another.
    pub data: Vec<u8>,
}

impl Frontier {
    /// Goes on with a tree of this size. `tile` gives the hashes of a tile,
    /// by its level and index. `None` when one has not as many as it must.
    pub fn resume(size: u64, mut tile: impl FnMut(u8, u64) -> Option<Vec<Hash>>) -> Option<Self> {
        let mut levels = Vec::new();
        let mut count = size;
        while count > 0 {
            let width = usize::try_from(count % TILE_WIDTH as u64).ok()?;
            let level = u8::try_from(levels.len()).ok()?;
            let mut hashes = match width {
                0 => vec![],
                _ => tile(level, count / TILE_WIDTH as u64)?,
            };
            if hashes.len() < width {
                return None;
            }
            hashes.truncate(width);
            levels.push(hashes);
            count /= TILE_WIDTH as u64;
        }
        Some(Self { size, levels })
    }

    /// The partial tiles of a tree of this size: level and index.
    pub fn partial_tiles(size: u64) -> Vec<(u8, u64)> {
        let mut tiles = Vec::new();
        let (mut count, mut level) = (size, 0);
        while count > 0 {
            if !count.is_multiple_of(TILE_WIDTH as u64) {
                tiles.push((level, count / TILE_WIDTH as u64));
            }
            count /= TILE_WIDTH as u64;
            level += 1;
        }
        tiles
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf. `full` is given every tile that is full with it.
    pub fn push(&mut self, leaf: Hash, full: &mut impl FnMut(ChangedTile)) {
        self.size += 1;
        let mut hash = leaf;
        let mut count = self.size;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if hashes.len() < TILE_WIDTH {
                return;
            }
            hash = subtree_root(hashes);
            full(changed(level, count / TILE_WIDTH as u64 - 1, hashes));
            hashes.clear();
            count /= TILE_WIDTH as u64;
        }
    }

    /// The partial tiles that have more hashes than in a tree of `old_size`.
    pub fn grown_since(&self, old_size: u64) -> Vec<ChangedTile> {
        let mut grown = Vec::new();
        let (mut count, mut old) = (self.size, old_size);
        for (level, hashes) in self.levels.iter().enumerate() {
            if count > old && !hashes.is_empty() {
                grown.push(changed(level, count / TILE_WIDTH as u64, hashes));
            }
            count /= TILE_WIDTH as u64;
            old /= TILE_WIDTH as u64;
        }
        grown
    }

    /// The root: RFC 6962, section 2.1.
    pub fn root(&self) -> Hash {
        let mut rest: Option<Hash> = None;
        for hashes in &self.levels {
            let mut whole = hashes.clone();
            whole.extend(rest);
            rest = (!whole.is_empty()).then(|| subtree_root(&whole));
        }
        rest.unwrap_or(EMPTY_HASH)
    }
}

fn changed(level: usize, index: u64, hashes: &[Hash]) -> ChangedTile {
    let mut data = Vec::with_capacity(hashes.len() * HASH_BYTES);
    for hash in hashes {
        data.extend_from_slice(&hash.0);
    }
    // 2^64 leaves have eight levels.
    let level = u8::try_from(level).unwrap_or(u8::MAX);
    ChangedTile { level, index, data }
}

/// The root over subtrees of one size, of which only the last may be smaller.
fn subtree_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => EMPTY_HASH,
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
            node_hash(subtree_root(left), subtree_root(right))
        }
    }
}

/// The hashes of a tile.
pub fn hashes_of(data: &[u8]) -> Vec<Hash> {
    let (hashes, _) = data.as_chunks::<HASH_BYTES>();
    hashes.iter().map(|hash| Hash(*hash)).collect()
}
