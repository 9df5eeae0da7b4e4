//! Sealing: what is personal in a delivery and in events is encrypted under a
//! key of the person whom it is about, by whoever brings it.
//!
//! A key that is needed for the first time is drawn here and now; it is written
//! with, and before, the first thing that is under it. So sealing asks no
//! database. Invariant: nothing is appended under a key that was destroyed; see
//! [`Keyring::refresh`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use domain::PhoneIndex;
use domain::sealed::{self, MasterKeys, Subject, SubjectKey};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::prepared::Prepared;
use crate::clock::Source;

/// Keys that a process keeps in memory, twice: of the latest subjects, and of
/// those before them.
const KEYS_MAX: usize = 10_000;
/// What an append says of the erasures that it knows.
const KNOWN: &str = "bitacora.erasures_known";
/// What the ledger answers to one who does not know the last of them.
const ERASED_MEANWHILE: &str = "BE001";

/// The keys that this process seals with.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    masters: MasterKeys,
    phones: PhoneIndex,
    source: Source,
    kept: Mutex<Kept>,
    /// Rises when a connection is lost: a server that took another's place may
    /// not have what that one had.
    server: AtomicU64,
}

#[derive(Default)]
struct Kept {
    epoch: i64,
    keys: HashMap<Arc<Scope>, Arc<Key>>,
    before: HashMap<Arc<Scope>, Arc<Key>>,
}

/// What is under one key.
#[derive(PartialEq, Eq, Hash)]
struct Scope {
    subject: Subject,
    channel: &'static str,
    day: Option<NaiveDate>,
}

/// A key of this process's.
pub(super) struct Key {
    key: Arc<SubjectKey>,
    scope: Arc<Scope>,
    wrapped: Vec<u8>,
    created_at: DateTime<Utc>,
    /// On which server it is known to be durable.
    written_on: AtomicU64,
}

/// Under what something was sealed.
#[derive(Default)]
pub(super) struct Sealed {
    pub(super) epoch: i64,
    keys: Vec<Arc<Key>>,
}

impl Sealed {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Keyring {
    /// Makes it ready, and sees whether the master keys are those of this
    /// ledger.
    ///
    /// # Errors
    /// When they are not, or the database does not answer.
    pub async fn load(
        pool: &PgPool,
        masters: MasterKeys,
        phones: PhoneIndex,
        source: Source,
    ) -> anyhow::Result<Self> {
        let sql = "select id, wrapped_key from subject_keys where wrapped_key is not null
                   order by id desc limit 1";
        let latest: Option<(Uuid, Vec<u8>)> = sqlx::query_as(sql).fetch_optional(pool).await?;
        if let Some((id, wrapped)) = latest {
            masters.unwrap(id, &wrapped)?;
        }
        let keyring = Self(Arc::new(Inner {
            masters,
            phones,
            source,
            kept: Mutex::default(),
            server: AtomicU64::new(1),
        }));
        keyring.refresh(&mut *pool.acquire().await?).await?;
        Ok(keyring)
    }

    /// Learns of erasures; forgets every key if there were any.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn refresh(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        let sql = "select epoch from subject_epoch";
        let epoch = sqlx::query_scalar(sql).fetch_one(conn).await?;
        let mut kept = self.kept();
        if kept.epoch < epoch {
            *kept = Kept {
                epoch,
                ..Kept::default()
            };
        }
        Ok(())
    }

    /// How many erasures it knows of.
    pub(super) fn epoch(&self) -> i64 {
        self.kept().epoch
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose an address is.
    pub(super) fn person(&self, address: &str) -> Subject {
        Subject::Person(self.0.phones.key(address))
    }

    /// Seals an entry.
    pub(super) fn seal(&self, prepared: &mut Prepared) {
        let mut sealed = Sealed {
            epoch: self.epoch(),
            ..Sealed::default()
        };
        let mut person = None;
        for event in &mut prepared.events {
            let stream = (
                event.stream.aggregate_type,
                event.stream.aggregate_id.as_str(),
            );
            if let Some((payload, whose)) =
                self.seal_event(event.name, stream, &event.payload, None, &mut sealed)
            {
                event.payload = payload;
                person = person.or(whose);
            }
        }
        let stream = prepared.events.first().map(|event| &event.stream);
        let stream = stream.filter(|stream| stream.aggregate_type != "delivery");
        if let Some(delivery) = &mut prepared.delivery {
            let subject = match (person, stream) {
                (Some(person), _) => person,
                (None, Some(stream)) => {
                    Subject::Stream(stream_name((stream.aggregate_type, &stream.aggregate_id)))
                }
                (None, None) => match &prepared.identity {
                    Some(identity) => Subject::Delivery(identity.key()),
                    None => Subject::Unverified,
                },
            };
            let channel = stream.map_or(UNVERIFIED, |stream| channel_of(stream.aggregate_type));
            let key = self.key(subject, channel, &mut sealed);
            delivery.body = Bytes::from(sealed::seal_body(&key, &delivery.body));
        }
        prepared.sealed = Some(sealed);
    }

    /// Seals what was sealed under keys of which nobody knows whether they
    /// still are once more, if there were erasures since.
    pub(super) fn seal_again(&self, prepared: &mut Prepared) {
        let Some(sealed) = &prepared.sealed else {
            return;
        };
        if sealed.epoch == self.epoch() {
            return;
        }
        let key = |id: Uuid| {
            sealed
                .keys
                .iter()
                .map(|key| &*key.key)
                .find(|key| key.id() == id)
        };
        for event in &mut prepared.events {
            let opened = sealed::open_payload(event.name, &event.payload, key);
            let opened = opened.map(std::borrow::Cow::into_owned);
            event.payload = opened.expect("what was sealed here can be opened");
        }
        if let Some(delivery) = &mut prepared.delivery
            && let Some(key) = sealed::body_key_id(&delivery.body).and_then(key)
        {
            let opened = sealed::open_body(key, &delivery.body);
            delivery.body = Bytes::from(opened.expect("what was sealed here can be opened"));
        }
        self.seal(prepared);
    }

    /// The payload of an event sealed, and the person whom it is about. `None`
    /// when there is nothing personal in it. `whose`: the subject where the
    /// event names nobody, if that is known.
    pub(super) fn seal_event(
        &self,
        name: &str,
        stream: (&str, &str),
        payload: &str,
        whose: Option<&Subject>,
        sealed: &mut Sealed,
    ) -> Option<(String, Option<Subject>)> {
        let whose = whose.cloned().unwrap_or_else(|| subject_of(stream));
        let mut person = None;
        let channel = channel_of(stream.0);
        let mut key = |subject: &Subject| {
            if matches!(subject, Subject::Person(_)) {
                person.get_or_insert_with(|| subject.clone());
            }
            self.key(subject.clone(), channel, sealed)
        };
        let payload =
            sealed::seal_payload(name, stream, payload, &self.0.phones, &whose, &mut key)?;
        Some((payload, person))
    }

    fn key(&self, subject: Subject, channel: &'static str, sealed: &mut Sealed) -> Arc<SubjectKey> {
        let now = self.0.source.now();
        let scope = Scope {
            subject,
            channel,
            day: (channel != OTHER).then(|| now.date_naive()),
        };
        let mut kept = self.kept();
        let known = kept.keys.get(&scope).cloned();
        let key = known.unwrap_or_else(|| {
            let known = kept.before.remove(&scope);
            let key = known.unwrap_or_else(|| Arc::new(self.fresh(scope, now)));
            if kept.keys.len() >= KEYS_MAX {
                kept.before = std::mem::take(&mut kept.keys);
            }
            kept.keys.insert(key.scope.clone(), key.clone());
            key
        });
        drop(kept);
        if !sealed.keys.iter().any(|used| Arc::ptr_eq(used, &key)) {
            sealed.keys.push(key.clone());
        }
        key.key.clone()
    }

    /// A connection was made anew: keys that are in use are written once more.
    pub(super) fn reconnected(&self) {
        self.0.server.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the keys of what is about to be appended, those that are new.
    pub(super) async fn write_keys<'a>(
        &self,
        conn: &mut PgConnection,
        sealed: impl Iterator<Item = &'a Sealed>,
    ) -> sqlx::Result<()> {
        let server = self.0.server.load(Ordering::Relaxed);
        let keys = sealed.flat_map(|sealed| &sealed.keys);
        let mut keys: Vec<&Arc<Key>> = keys
            .filter(|key| key.written_on.load(Ordering::Relaxed) != server)
            .collect();
        keys.sort_unstable_by_key(|key| key.key.id());
        keys.dedup_by_key(|key| key.key.id());
        if keys.is_empty() {
            return Ok(());
        }
        let column = keys.iter();
        let subjects: Vec<String> = column.clone().map(|key| key.scope.subject.name()).collect();
        sqlx::query("select subject_keys_add($1, $2, $3, $4, $5, $6)")
            .bind(column.clone().map(|key| key.key.id()).collect::<Vec<_>>())
            .bind(subjects)
            .bind(
                column
                    .clone()
                    .map(|key| key.scope.channel)
                    .collect::<Vec<_>>(),
            )
            .bind(column.clone().map(|key| key.scope.day).collect::<Vec<_>>())
            .bind(
                column
                    .clone()
                    .map(|key| key.wrapped.as_slice())
                    .collect::<Vec<_>>(),
            )
            .bind(column.map(|key| key.created_at).collect::<Vec<_>>())
            .execute(conn)
            .await?;
        Ok(())
    }

    /// What was appended is durable, and so are its keys.
    pub(super) fn are_durable<'a>(&self, sealed: impl Iterator<Item = &'a Sealed>) {
        let server = self.0.server.load(Ordering::Relaxed);
        for key in sealed.flat_map(|sealed| &sealed.keys) {
            key.written_on.store(server, Ordering::Relaxed);
        }
    }

    fn fresh(&self, scope: Scope, now: DateTime<Utc>) -> Key {
        let mut random = [0; 32];
        self.0.source.fill(&mut random);
        let (key, wrapped) = self.0.masters.fresh(self.0.source.id(), &random);
        Key {
            key: Arc::new(key),
            scope: Arc::new(scope),
            wrapped,
            created_at: now,
            written_on: AtomicU64::new(0),
        }
    }
}

/// Says, for this session or transaction, which erasures are known.
pub(super) async fn tell_known(
    conn: &mut PgConnection,
    epoch: i64,
    is_local: bool,
) -> sqlx::Result<()> {
    sqlx::query("select set_config($1, $2, $3)")
        .bind(KNOWN)
        .bind(epoch.to_string())
        .bind(is_local)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether the ledger refused it because keys were destroyed meanwhile.
pub(super) fn is_outdated(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == ERASED_MEANWHILE)
}

const OTHER: &str = "other";
const UNVERIFIED: &str = "unverified";

/// By which rule of retention a stream's data goes.
fn channel_of(aggregate_type: &str) -> &'static str {
    match aggregate_type {
        "call" => "call",
        "chat" | "conversation" | "effect" => "whatsapp",
        "sms" | "otp" => "sms",
        _ => OTHER,
    }
}

fn stream_name((aggregate_type, aggregate_id): (&str, &str)) -> String {
    format!("{aggregate_type}/{aggregate_id}")
}

/// Whose a stream is, where its events do not say: a conversation's id is the
/// key of an address.
fn subject_of(stream: (&str, &str)) -> Subject {
    let key = stream.1.strip_prefix(domain::conversation::ID_PREFIX);
    match key.filter(|_| stream.0 == "conversation") {
        Some(key) => Subject::Person(key.to_owned()),
        None => Subject::Stream(stream_name(stream)),
    }
}
