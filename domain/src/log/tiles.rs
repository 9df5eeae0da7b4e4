//! Proofs from tiles: `tlog_tiles` says which hashes it needs, somebody
//! fetches their tiles, and then it proves.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use tlog_tiles::{Error, Hash, HashReader, RecordProof, Tile, TreeProof, prove_record, prove_tree};

use super::{HASH_BYTES, TILE_HEIGHT, TILE_WIDTH};

/// Where a tile is: level and index.
pub type TileAt = (u8, u64);

/// Tiles by their place.
#[derive(Clone, Debug, Default)]
pub struct Tiles(HashMap<TileAt, Vec<u8>>);

impl Tiles {
    /// Adds a tile by its hashes, one behind another.
    pub fn insert(&mut self, at: TileAt, data: Vec<u8>) {
        self.0.insert(at, data);
    }

    /// A tile, if it is here.
    pub fn get(&self, at: TileAt) -> Option<&[u8]> {
        self.0.get(&at).map(Vec::as_slice)
    }

    /// Proves that the leaf at `index` is in the tree of `size` leaves.
    ///
    /// # Errors
    /// When there is no such leaf, or a tile of [`for_record`] is missing.
    pub fn prove_record(&self, size: u64, index: u64) -> Result<RecordProof, Error> {
        prove_record(size, index, self)
    }

    /// Proves that the tree of `size` leaves begins with that of `old_size`.
    ///
    /// # Errors
    /// As [`Self::prove_record`], of [`for_tree`].
    pub fn prove_tree(&self, size: u64, old_size: u64) -> Result<TreeProof, Error> {
        prove_tree(size, old_size, self)
    }
}

impl HashReader for Tiles {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = |index: &u64| {
            let tile = Tile::from_index(TILE_HEIGHT, *index);
            let at = (tile.level(), tile.level_index());
            let data = self.0.get(&at).ok_or(Error::InvalidTile)?;
            let width = (data.len() / HASH_BYTES).min(TILE_WIDTH);
            if width == 0 {
                return Err(Error::InvalidTile);
            }
            let width = u32::try_from(width).map_err(|_| Error::InvalidTile)?;
            Tile::new(TILE_HEIGHT, at.0, at.1, width, false).hash_at_index(data, *index)
        };
        indexes.iter().map(read).collect()
    }
}

/// The tiles that [`Tiles::prove_record`] needs.
pub fn for_record(size: u64, index: u64) -> BTreeSet<TileAt> {
    Asked::by(|asked| drop(prove_record(size, index, asked)))
}

/// The tiles that [`Tiles::prove_tree`] needs.
pub fn for_tree(size: u64, old_size: u64) -> BTreeSet<TileAt> {
    Asked::by(|asked| drop(prove_tree(size, old_size, asked)))
}

/// Takes note of what is asked for, and has none of it.
#[derive(Default)]
struct Asked(RefCell<BTreeSet<TileAt>>);

impl Asked {
    fn by(prove: impl FnOnce(&Self)) -> BTreeSet<TileAt> {
        let asked = Self::default();
        prove(&asked);
        asked.0.into_inner()
    }
}

impl HashReader for Asked {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let tiles = indexes.iter().map(|index| {
            let tile = Tile::from_index(TILE_HEIGHT, *index);
            (tile.level(), tile.level_index())
        });
        self.0.borrow_mut().extend(tiles);
        Err(Error::InvalidTile)
    }
}
