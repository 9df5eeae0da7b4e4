//! The service from outside: over HTTP, on a real PostgreSQL.
//!
//! One binary, so that one server and one build serve all. Each test has a
//! database of its own.
#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    clippy::zombie_processes,
    reason = "a test that fails may panic, and its tables of cases are types of their own"
)]

mod harness;

mod audit;
mod batches;
mod commands;
mod conversations;
mod crash;
mod effects;
mod erasure;
mod errors;
mod export;
mod groups;
mod idempotency;
mod ingest;
mod interactions;
mod ledger;
mod local_postgres;
mod log;
mod openapi;
mod otp;
mod privacy;
mod rebuild;
mod replicas;
mod reprocess;
mod scale;
mod subjects;
mod users;
