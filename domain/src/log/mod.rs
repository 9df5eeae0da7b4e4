//! The transparency log: an RFC 6962 Merkle tree whose leaves are the events
//! and the deliveries of the ledger, and whose heads are signed.
//!
//! Pure: what a leaf commits to ([`leaf`]), how leaves become tiles and roots
//! ([`frontier`]), what is proved ([`tiles`], [`proof`]) and signed ([`note`]).
//! The format is docs/TRANSPARENCY.md; a stranger can recompute all of it.

pub mod cover;
pub mod frontier;
pub mod leaf;
pub mod line;
pub mod note;
pub mod proof;
pub mod tiles;

#[cfg(test)]
mod tests;

pub use cover::Cover;
pub use frontier::Frontier;
pub use leaf::{DeliveryLeaf, EventLeaf};
pub use note::{Signer, Verifiers};
pub use proof::Proof;
pub use tiles::Tiles;
pub use tlog_tiles::{Hash, RecordProof, TreeProof};

/// Levels of the tree in a tile: it has 256 hashes at most.
pub const TILE_HEIGHT: u8 = 8;
/// Hashes of a full tile.
pub const TILE_WIDTH: usize = 1 << TILE_HEIGHT;
/// Bytes of a hash.
pub const HASH_BYTES: usize = tlog_tiles::HASH_SIZE;
