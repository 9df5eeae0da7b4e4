//! Keys that nobody configured, kept in the database so that all replicas have
//! the same. See docs/adr/0022.

use anyhow::{Context, ensure};
use domain::log::note::signer_key;
use sqlx::PgPool;

use crate::clock::Source;
use crate::config::{LogSettings, SecretList, Settings};

const MASTER_KEY: &str = "MASTER_KEY";
const LOG_SIGNING_KEY: &str = "LOG_SIGNING_KEY";
/// How many random bytes the master key is made of.
const MASTER_KEY_BYTES: usize = 32;

/// Puts the kept master key behind those that are set, so that what was written
/// under it can be read; makes one where none is set and nothing was written
/// yet.
///
/// # Errors
/// When the database does not answer, or data is under a key that is not set.
pub async fn fill_master_key(
    pool: &PgPool,
    settings: &mut Settings,
    source: &Source,
) -> anyhow::Result<()> {
    let given = &settings.master_key;
    let mut kept = find(pool, MASTER_KEY).await?;
    if kept.is_none() && is_empty(given) && settings.subject_encryption {
        let unused = "not exists (select from subject_keys where wrapped_key is not null)";
        keep(pool, MASTER_KEY, &source.secret(MASTER_KEY_BYTES), unused).await?;
        kept = find(pool, MASTER_KEY).await?;
        // Never on in the clear, and under another key, because one was forgotten.
        ensure!(
            kept.is_some(),
            "MASTER_KEY is not set, and personal data on this ledger is encrypted under one: set it"
        );
    }
    if is_empty(given) && kept.is_some() {
        tracing::warn!(
            "MASTER_KEY is not set: the keys of persons are under one that is kept in the database beside them"
        );
    }
    settings.master_key = joined(given, kept)?;
    Ok(())
}

/// As [`fill_master_key`], the key that signs the transparency log. One is only
/// made with a `source`.
///
/// # Errors
/// As [`fill_master_key`].
pub async fn fill_log_key(
    pool: &PgPool,
    settings: &mut LogSettings,
    source: Option<&Source>,
) -> anyhow::Result<()> {
    let given = &settings.log_signing_key;
    let mut kept = find(pool, LOG_SIGNING_KEY).await?;
    if let Some(source) = source.filter(|_| kept.is_none() && is_empty(given)) {
        let mut seed = [0; 32];
        source.fill(&mut seed);
        let name = match settings.log_origin.as_deref().map(str::trim) {
            Some(origin) if !origin.is_empty() => origin.to_owned(),
            _ => format!("bitacora.local/{}", source.secret(4)),
        };
        let key = signer_key(&name, &seed).context("LOG_ORIGIN")?;
        let unused = "not exists (select from log_checkpoints)";
        keep(pool, LOG_SIGNING_KEY, &key, unused).await?;
        kept = find(pool, LOG_SIGNING_KEY).await?;
    }
    if source.is_some() && is_empty(given) && kept.is_some() {
        tracing::warn!(
            "LOG_SIGNING_KEY is not set: the ledger is sealed by a key that is kept in the database; who may change both is only found out by heads that others keep"
        );
    }
    settings.log_signing_key = joined(given, kept)?;
    Ok(())
}

fn is_empty(given: &Option<SecretList>) -> bool {
    given.as_ref().is_none_or(SecretList::is_empty)
}

/// The first of a list is used, all are understood.
fn joined(given: &Option<SecretList>, kept: Option<String>) -> anyhow::Result<Option<SecretList>> {
    let given = given.iter().flat_map(|keys| keys.all().iter().cloned());
    let all: Vec<String> = given.chain(kept).collect();
    match all.is_empty() {
        true => Ok(None),
        false => Ok(Some(all.join(",").parse()?)),
    }
}

async fn find(pool: &PgPool, name: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("select value from kept_keys where name = $1")
        .bind(name)
        .fetch_optional(pool)
        .await
}

async fn keep(pool: &PgPool, name: &str, value: &str, unused: &str) -> sqlx::Result<()> {
    let sql = format!(
        "insert into kept_keys (name, value) select $1, $2 where {unused} on conflict do nothing"
    );
    sqlx::query(&sql)
        .bind(name)
        .bind(value)
        .execute(pool)
        .await?;
    Ok(())
}
