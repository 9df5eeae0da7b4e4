//! Bitácora: an append-only ledger of every call, WhatsApp and SMS webhook of
//! a contact centre. The map of the code is in ARCHITECTURE.md.

pub mod accounts;
pub mod app;
pub mod batches;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conversations;
mod dev;
pub mod effects;
pub mod erasure;
pub mod export;
pub mod groups;
pub mod http;
pub mod import;
mod kept_keys;
pub mod ledger;
mod local;
pub mod local_postgres;
pub mod otp;
pub mod providers;
pub mod serve;
pub mod signatures;
pub mod subjects;
pub mod telemetry;
pub mod transaction;
pub mod worker;
