//! The projections on a real PostgreSQL, whose address is in
//! `TEST_DATABASE_URL`; each test has a database of its own.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

/// By the name that the workspace gives it.
extern crate bitacora_projections as projections;

mod batch_lists;
mod batches;
mod campaign;
mod conversations;
mod facts;
mod groups;
mod harness;
mod live;
mod past;
mod reads;
mod rebuild;
mod search;
mod talk;
