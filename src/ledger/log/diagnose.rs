//! Which row is not what was sealed, where the tiles are what was signed.

use std::collections::HashSet;
use std::fmt;

use domain::log::Hash;
use domain::log::line::Line;
use sqlx::PgConnection;
use uuid::Uuid;

use super::proofs::{some_deliveries, some_events};
use super::rows::Range;
use super::verify::Sealed;

/// Rows of a range that are compared one by one, at most, to tell a row that
/// was moved from one that was changed.
const COMPARED_MAX: usize = 256;

/// A row by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowName {
    /// An event by its position.
    Event(i64),
    /// A delivery by its seq and its id.
    Delivery(i64, Uuid),
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(position) => write!(f, "event {position}"),
            Self::Delivery(_, id) => write!(f, "delivery {id}"),
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A row says something else than when it was sealed.
    #[error("{row} was changed (leaf {leaf})")]
    Changed {
        /// Which row.
        row: RowName,
        /// Its leaf.
        leaf: u64,
    },
    /// A row is not there any more.
    #[error("{} was removed (leaf {leaf})", between(*.is_event, *.after, *.before))]
    Removed {
        /// Of which kind.
        is_event: bool,
        /// Its leaf.
        leaf: u64,
        /// The row before it.
        after: Option<RowName>,
        /// The row behind it.
        before: Option<RowName>,
    },
    /// A row was not there when it was sealed.
    #[error("{row} was inserted (at leaf {leaf})")]
    Inserted {
        /// Which row.
        row: RowName,
        /// The leaf in whose place it is.
        leaf: u64,
    },
    /// A row stands where another one stood.
    #[error("{row} was put into another order: {stood} is where it stood (leaf {leaf})")]
    Reordered {
        /// Which row, as it is called now.
        row: RowName,
        /// Its place, by what stands there now.
        stood: RowName,
        /// Its leaf.
        leaf: u64,
    },
    /// The rows are right, a tile is not.
    #[error(
        "tile {index} of level {level} of the log was changed or removed; the rows are what was signed"
    )]
    Tile {
        /// 0 is that of the leaves.
        level: u8,
        /// Which.
        index: u64,
    },
    /// A head is not ours.
    #[error(
        "the head of size {size} was changed or signed by somebody else: {why} (leaves {begin} to {size} hang on it)"
    )]
    Forged {
        /// Whose.
        size: u64,
        /// The leaves that the head before it covers.
        begin: u64,
        /// Why it is not believed.
        why: String,
    },
    /// Rows and tiles were changed, and a signed head is against both.
    #[error(
        "something among leaves {begin} to {end} was changed, removed, inserted or reordered, and the tiles with it: the signed head of size {end} is against both"
    )]
    Range {
        /// The first that it may be.
        begin: u64,
        /// Behind the last.
        end: u64,
    },
    /// All that is here agrees with itself, and not with a head from outside.
    #[error(
        "{checkpoint} does not agree: something among leaves {begin} to {end} was rewritten, with tiles and heads"
    )]
    Rewritten {
        /// The head from outside.
        checkpoint: String,
        /// The first that it may be.
        begin: u64,
        /// Behind the last.
        end: u64,
    },
    /// The end of the log is gone.
    #[error("the log was cut: it has {kept} leaves, and {checkpoint} covers {size}")]
    Cut {
        /// The head from outside.
        checkpoint: String,
        /// What it covers.
        size: u64,
        /// What is left.
        kept: u64,
    },
}

fn between(is_event: bool, after: Option<RowName>, before: Option<RowName>) -> String {
    let kind = if is_event { "event" } else { "delivery" };
    // Positions have no gaps but where a transaction failed.
    match (after, before) {
        (Some(RowName::Event(after)), Some(RowName::Event(before))) if before == after + 2 => {
            format!("event {}", after + 1)
        }
        (Some(after), Some(before)) => format!("a {kind} between {after} and {before}"),
        (Some(after), None) => format!("a {kind} behind {after}"),
        (None, Some(before)) => format!("a {kind} before {before}"),
        (None, None) => format!("a {kind}"),
    }
}

/// What is there of a range.
#[derive(Default)]
pub(super) struct Found {
    pub(super) events: Vec<(i64, Hash)>,
    pub(super) deliveries: Vec<((i64, Uuid), Hash)>,
}

impl Found {
    pub(super) fn hashes(&self) -> impl Iterator<Item = Hash> {
        let events = self.events.iter().map(|row| row.1);
        events.chain(self.deliveries.iter().map(|row| row.1))
    }

    fn rows(&self, of_events: bool) -> Vec<(RowName, Hash)> {
        if of_events {
            let name = |(position, hash): &(i64, Hash)| (RowName::Event(*position), *hash);
            return self.events.iter().map(name).collect();
        }
        let name = |((seq, id), hash): &((i64, Uuid), Hash)| (RowName::Delivery(*seq, *id), *hash);
        self.deliveries.iter().map(name).collect()
    }
}

/// The first row that is not what was sealed.
pub(super) async fn first_difference(
    conn: &mut PgConnection,
    sealed: &Sealed,
    found: &Found,
) -> anyhow::Result<Finding> {
    let (events, deliveries) = sealed
        .leaves
        .split_at(sealed.events.min(sealed.leaves.len()));
    let rows = found.rows(true);
    let is_event = !rows.iter().map(|row| row.1).eq(events.iter().copied());
    let (leaves, rows, begin) = match is_event {
        true => (events, rows, sealed.begin),
        false => (
            deliveries,
            found.rows(false),
            sealed.begin + events.len() as u64,
        ),
    };
    let same = rows
        .iter()
        .zip(leaves)
        .take_while(|(row, leaf)| row.1 == **leaf);
    let at = same.count();
    let leaf = begin + at as u64;
    let (Some(expected), Some((row, hash))) = (leaves.get(at), rows.get(at).copied()) else {
        return Ok(match rows.get(at) {
            Some((row, _)) => Finding::Inserted { row: *row, leaf },
            None => Finding::Removed {
                is_event,
                leaf,
                after: rows.last().map(|row| row.0),
                before: None,
            },
        });
    };
    if let Some(moved) = moved_here(conn, *expected, &rows[at..], &leaves[at..]).await? {
        return Ok(Finding::Reordered {
            row: moved,
            stood: row,
            leaf,
        });
    }
    let sealed_later = leaves[at + 1..].contains(&hash);
    let stands_later = rows[at + 1..].iter().any(|row| row.1 == *expected);
    Ok(match (sealed_later, stands_later) {
        (false, true) => Finding::Inserted { row, leaf },
        (false, false) if rows.len() > leaves.len() => Finding::Inserted { row, leaf },
        (false, false) if rows.len() == leaves.len() => Finding::Changed { row, leaf },
        _ => Finding::Removed {
            is_event,
            leaf,
            after: at.checked_sub(1).map(|before| rows[before].0),
            before: Some(row),
        },
    })
}

/// The row that was sealed as this leaf, if it is there under another place:
/// the one that, put into the place of the first of the rows, has this hash.
async fn moved_here(
    conn: &mut PgConnection,
    expected: Hash,
    rows: &[(RowName, Hash)],
    leaves: &[Hash],
) -> anyhow::Result<Option<RowName>> {
    let sealed: HashSet<[u8; 32]> = leaves.iter().map(|leaf| leaf.0).collect();
    let strange = rows.iter().filter(|row| !sealed.contains(&row.1.0));
    let names: Vec<RowName> = strange.map(|row| row.0).take(COMPARED_MAX).collect();
    let mut lines = Vec::with_capacity(names.len());
    for name in names {
        lines.push((name, line(conn, name).await?));
    }
    let Some((_, Some(here))) = lines.first().cloned() else {
        return Ok(None);
    };
    for (name, candidate) in lines.iter().skip(1) {
        let Some(candidate) = candidate else { continue };
        if in_place_of(candidate, &here).any(|line| line.hash() == expected) {
            return Ok(Some(*name));
        }
    }
    // Or only its place in its stream is another's.
    for (name, other) in lines.iter().skip(1) {
        if let (Line::Event(here), Some(Line::Event(other))) = (&here, other) {
            let mut swapped = here.clone();
            swapped.sequence = other.sequence;
            if swapped.leaf().hash() == expected {
                return Ok(Some(*name));
            }
        }
    }
    Ok(None)
}

/// A row as it would be in the place of another.
fn in_place_of(row: &Line, place: &Line) -> impl Iterator<Item = Line> + use<> {
    let mut ways = Vec::new();
    match (row, place) {
        (Line::Event(row), Line::Event(place)) => {
            let mut moved = row.clone();
            moved.position = place.position;
            ways.push(Line::Event(moved.clone()));
            moved.sequence = place.sequence;
            ways.push(Line::Event(moved.clone()));
            moved.recorded_at = place.recorded_at;
            ways.push(Line::Event(moved));
        }
        (Line::Delivery(row), Line::Delivery(place)) => {
            let mut moved = row.clone();
            moved.seq = place.seq;
            ways.push(Line::Delivery(moved.clone()));
            moved.id = place.id;
            ways.push(Line::Delivery(moved));
        }
        _ => {}
    }
    ways.into_iter()
}

async fn line(conn: &mut PgConnection, name: RowName) -> anyhow::Result<Option<Line>> {
    let only = |at: &i64| [*at];
    Ok(match name {
        RowName::Event(position) => {
            let only = only(&position);
            let lines = some_events(conn, these(&only)).await?;
            lines.into_iter().next().map(Line::Event)
        }
        RowName::Delivery(seq, _) => {
            let only = only(&seq);
            let lines = some_deliveries(conn, these(&only)).await?;
            lines.into_iter().next().map(Line::Delivery)
        }
    })
}

fn these(only: &[i64]) -> Range<'_> {
    Range {
        after: i64::MIN,
        only: Some(only),
        ..Range::default()
    }
}
