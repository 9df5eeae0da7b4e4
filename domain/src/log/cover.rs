//! A tree told from left to right, by its leaves and by the roots of whole
//! subtrees between them: so any choice of leaves, in their order, proves
//! itself against a root, in memory for a path.

use tlog_tiles::{EMPTY_HASH, Hash, node_hash};

use super::tiles::{TileAt, Tiles};
use super::{TILE_HEIGHT, TILE_WIDTH};

/// A whole subtree: level, from 0 for leaves, and place in its level.
pub type NodeAt = (u8, u64);

/// The fewest whole subtrees that cover the leaves from `begin` up to `end`.
pub fn gap(begin: u64, end: u64) -> Vec<NodeAt> {
    let (mut nodes, mut at) = (Vec::new(), begin);
    while at < end {
        let largest = u64::BITS - 1 - (end - at).leading_zeros();
        let aligned = match at {
            0 => largest,
            _ => at.trailing_zeros(),
        };
        let level = aligned.min(largest);
        nodes.push((u8::try_from(level).unwrap_or(u8::MAX), at >> level));
        at += 1 << level;
    }
    nodes
}

/// The tile that the root of a whole subtree follows from.
pub fn tile_of((level, index): NodeAt) -> TileAt {
    (
        level / TILE_HEIGHT,
        index >> (TILE_HEIGHT - level % TILE_HEIGHT),
    )
}

/// The root of a whole subtree, by its tile; `None` where that is not here.
pub fn node(tiles: &Tiles, at: NodeAt) -> Option<Hash> {
    let hashes = super::frontier::hashes_of(tiles.get(tile_of(at))?);
    let width = 1_usize << (at.0 % TILE_HEIGHT);
    let within = usize::try_from(at.1).ok()? % (TILE_WIDTH / width) * width;
    let mut level = hashes.get(within..within + width)?.to_vec();
    while level.len() > 1 {
        let pairs = level.as_chunks::<2>().0.iter();
        level = pairs
            .map(|[left, right]| node_hash(*left, *right))
            .collect();
    }
    level.first().copied()
}

/// What has been told of a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cover {
    size: u64,
    /// Whole subtrees, the largest first: the ones of the size's bits.
    subtrees: Vec<(u8, Hash)>,
}

impl Cover {
    /// How many leaves have been told of.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next leaf.
    pub fn push_leaf(&mut self, leaf: Hash) {
        self.push((0, self.size), leaf);
    }

    /// The subtrees up to a leaf; whether these were as many as there must be.
    pub fn skip_to(&mut self, end: u64, roots: &[Hash]) -> bool {
        if end < self.size {
            return false;
        }
        let nodes = gap(self.size, end);
        if nodes.len() != roots.len() {
            return false;
        }
        for (at, root) in nodes.into_iter().zip(roots) {
            self.push(at, *root);
        }
        true
    }

    /// The root of what was told of: RFC 6962, section 2.1.
    pub fn root(&self) -> Hash {
        let subtrees = self.subtrees.iter().rev().map(|(_, root)| *root);
        subtrees
            .reduce(|right, left| node_hash(left, right))
            .unwrap_or(EMPTY_HASH)
    }

    fn push(&mut self, (mut level, _): NodeAt, mut root: Hash) {
        self.size += 1 << level;
        while let Some((_, left)) = self.subtrees.pop_if(|(other, _)| *other == level) {
            root = node_hash(left, root);
            level += 1;
        }
        self.subtrees.push((level, root));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tlog_tiles::record_hash;

    use super::*;
    use crate::log::Frontier;

    fn tree(size: u64) -> (Vec<Hash>, Hash, Tiles) {
        let leaves: Vec<_> = (0..size).map(|n| record_hash(&n.to_be_bytes())).collect();
        let (mut frontier, mut tiles) = (Frontier::default(), Tiles::default());
        for leaf in &leaves {
            frontier.push(*leaf, &mut |tile| {
                tiles.insert((tile.level, tile.index), tile.data)
            });
        }
        for tile in frontier.grown_since(0) {
            tiles.insert((tile.level, tile.index), tile.data);
        }
        (leaves, frontier.root(), tiles)
    }

    proptest! {
        #[test]
        fn any_choice_of_leaves_leads_to_the_root(
            size in 1_u64..1_500,
            chosen in proptest::collection::btree_set(0_u64..1_500, 0..40),
            wrong in 0_u64..1_500,
        ) {
            let (leaves, root, tiles) = tree(size);
            let chosen: Vec<_> = chosen.into_iter().filter(|n| *n < size).collect();
            let told = |leaf: &dyn Fn(u64) -> Hash| {
                let mut cover = Cover::default();
                let skip = |cover: &mut Cover, end| {
                    let roots = gap(cover.size(), end).into_iter().map(|at| node(&tiles, at));
                    let roots: Option<Vec<_>> = roots.collect();
                    cover.skip_to(end, &roots.expect("every tile is here"))
                };
                for n in &chosen {
                    assert!(skip(&mut cover, *n));
                    cover.push_leaf(leaf(*n));
                }
                assert!(skip(&mut cover, size));
                cover
            };
            let right = told(&|n| leaves[n as usize]);
            prop_assert_eq!((right.size(), right.root()), (size, root));
            let changed = told(&|n| if n == wrong { record_hash(b"x") } else { leaves[n as usize] });
            prop_assert_eq!(changed.root() == root, !chosen.contains(&wrong));
        }
    }
}
