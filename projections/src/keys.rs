//! The keys under which personal data on the ledger is, for whoever reads it.
//!
//! They are looked up anew each time, so that what was erased a moment ago is
//! not read by anybody, on whatever replica.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, bail};
use domain::sealed::{self, MasterKeys, SubjectKey};
use sqlx::PgConnection;
use uuid::Uuid;

/// Opens what is sealed. Without master keys it opens nothing, and reads a
/// ledger on which nothing is sealed.
#[derive(Clone, Debug, Default)]
pub struct Opener(Option<MasterKeys>);

impl Opener {
    /// Of these master keys.
    pub fn new(masters: Option<MasterKeys>) -> Self {
        Self(masters)
    }

    /// The keys that still are, of these.
    ///
    /// # Errors
    /// When the database fails, or the master keys are others than those that
    /// the ledger was written with.
    pub async fn keys(
        &self,
        conn: &mut PgConnection,
        mut ids: Vec<Uuid>,
    ) -> anyhow::Result<Opened> {
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(Opened::default());
        }
        let Some(masters) = &self.0 else {
            bail!("the ledger holds encrypted data, and MASTER_KEY is not set");
        };
        // Each by the index, whatever the statistics say.
        let sql = "select key.id, key.wrapped_key from unnest($1::uuid[]) as wanted (id)
                   cross join lateral (
                       select id, wrapped_key from public.subject_keys
                       where id = wanted.id limit 1) as key
                   where key.wrapped_key is not null";
        let kept: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(sql).bind(&ids).fetch_all(conn).await?;
        let unwrap = |(id, wrapped): (Uuid, Vec<u8>)| Ok((id, masters.unwrap(id, &wrapped)?));
        Ok(Opened(
            kept.into_iter()
                .map(unwrap)
                .collect::<anyhow::Result<_>>()?,
        ))
    }

    /// The payloads of events, by their names, as they were before they were
    /// sealed; what is erased is gone from them.
    ///
    /// # Errors
    /// As [`Self::keys`], or when a payload is damaged.
    pub async fn open_payloads(
        &self,
        conn: &mut PgConnection,
        payloads: &mut [(&str, &mut String)],
    ) -> anyhow::Result<()> {
        let ids = payloads.iter();
        let ids = ids
            .flat_map(|(name, payload)| sealed::key_ids(name, payload))
            .collect();
        let keys = self.keys(conn, ids).await?;
        for (name, payload) in payloads {
            if let Cow::Owned(opened) = keys.payload(name, payload)? {
                **payload = opened;
            }
        }
        Ok(())
    }
}

/// Keys, by their ids.
#[derive(Debug, Default)]
pub struct Opened(HashMap<Uuid, SubjectKey>);

impl Opened {
    /// Whether a key still is.
    pub fn has(&self, id: Uuid) -> bool {
        self.0.contains_key(&id)
    }

    /// A payload as it was before it was sealed.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn payload<'a>(&self, name: &str, payload: &'a str) -> anyhow::Result<Cow<'a, str>> {
        let opened = sealed::open_payload(name, payload, |id| self.0.get(&id));
        opened.context("what is sealed in it is damaged")
    }

    /// A body as it came; empty once it is erased.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn body(&self, stored: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let Some(id) = sealed::body_key_id(&stored) else {
            return Ok(stored);
        };
        let Some(key) = self.0.get(&id) else {
            return Ok(Vec::new());
        };
        sealed::open_body(key, &stored).context("a sealed body is damaged")
    }
}

/// How often keys were destroyed.
pub(crate) async fn epoch(conn: &mut PgConnection) -> sqlx::Result<i64> {
    let sql = "select epoch from public.subject_epoch";
    sqlx::query_scalar(sql).fetch_one(conn).await
}
