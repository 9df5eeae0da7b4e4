//! The transparency log in the database: sealing what is new, proving it, and
//! recomputing all of it.
//!
//! It must not change a leaf's form (that is `domain::log`) and must not be in
//! the way of ingest: no lock of the ledger is taken here. Invariants: the
//! signed head, its tiles and the range that it covers are one transaction; no
//! head is signed over tiles that do not lead to the head before it.

mod checkpoints;
mod diagnose;
mod proofs;
mod rows;
mod seal;
mod verify;

pub use checkpoints::{Checkpoint, at_time, first, latest, list, of_size};
pub use diagnose::{Finding, RowName};
pub use proofs::{
    Damaged, Places, Proved, consistency, deliveries, entries, events, load, places, prove,
    prove_rows, tile,
};
pub use seal::{LEAVES_MAX, Step, Turn, seal};
pub use verify::{Outside, Report, verify};
