//! The ledger: what came in (`deliveries`) and what it means (`events`).
//!
//! This is the only code that writes either table, apart from postgres-es,
//! which appends the events of decisions. Invariants: both tables only grow;
//! positions are commit order; an identity is on the ledger once.

mod append;
mod columns;
pub mod deliveries;
mod entry;
pub mod erase;
pub mod events;
pub mod held;
mod incoming;
mod keyring;
pub mod lines;
pub mod log;
mod prepared;
mod rejections;
mod repository;
mod store;
mod writer;

pub use append::{Step, write_batch};
pub use entry::{Claim, Delivery, Entry, Receipt};
pub use keyring::Keyring;
pub use store::{CommandError, Store};
pub use writer::{Limits, NotWritten, Room, Writer, WriterTask};

use sqlx::PgPool;

/// Brings the database to this version's tables.
///
/// # Errors
/// When a migration fails, or the database is newer than this program.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    sqlx::migrate!("./migrations").run(pool).await
}

/// What people are looked up by, and, where there are master keys, what their
/// data is sealed with.
///
/// # Errors
/// When the database does not answer, or was written with other master keys.
pub async fn keys(
    pool: &PgPool,
    masters: Option<domain::sealed::MasterKeys>,
    source: &crate::clock::Source,
) -> anyhow::Result<(domain::PhoneIndex, Option<Keyring>)> {
    let mut fresh = [0; 32];
    source.fill(&mut fresh);
    let phones = phone_index(pool, &fresh).await?;
    let Some(masters) = masters else {
        return Ok((phones, None));
    };
    let keyring = Keyring::load(pool, masters, phones.clone(), source.clone()).await?;
    Ok((phones, Some(keyring)))
}

/// The key under which phone numbers are looked up, made on first use and
/// kept for the life of the ledger.
///
/// # Errors
/// When the database does not answer.
pub async fn phone_index(pool: &PgPool, fresh_key: &[u8]) -> sqlx::Result<domain::PhoneIndex> {
    sqlx::query("insert into instance (phone_index_key) values ($1) on conflict do nothing")
        .bind(fresh_key)
        .execute(pool)
        .await?;
    let key: Vec<u8> = sqlx::query_scalar("select phone_index_key from instance")
        .fetch_one(pool)
        .await?;
    Ok(domain::PhoneIndex::new(&key))
}
