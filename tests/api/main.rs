//! The service from outside: over HTTP, on a real PostgreSQL.
//!
//! One binary, so that one server and one build serve all. Each test has a
//! database of its own.

mod harness;

mod audit;
mod crash;
mod errors;
mod ingest;
mod interactions;
mod ledger;
mod openapi;
mod replicas;
mod reprocess;
mod users;
