//! What every test needs: a database, the service, a provider's hand.

pub mod app;
pub mod past;
pub mod postgres;
pub mod program;
pub mod read_models;
pub mod sign;

pub use app::TestApp;

/// A body of `tests/fixtures`.
pub fn fixture(path: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
