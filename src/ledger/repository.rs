//! The event repository of postgres-es, with what is personal sealed on its
//! way in and opened on its way out.
//!
//! A write that has begun goes on to its end, though its caller go away: it
//! begins a transaction of its own, see [`crate::transaction`].

use cqrs_es::Aggregate;
use cqrs_es::persist::{
    PersistedEventRepository, PersistenceError, ReplayStream, SerializedEvent, SerializedSnapshot,
};
use domain::sealed::Subject;
use postgres_es::PostgresEventRepository;
use projections::keys::Opener;
use serde_json::Value;
use sqlx::{Connection, FromRow, PgConnection, PgPool};

use super::keyring::{Keyring, Sealed, is_outdated, tell_known};

/// How often a decision is sealed again because keys were destroyed meanwhile.
const SEALINGS_MAX: u32 = 5;
const UNIQUE_VIOLATION: &str = "23505";

/// Events of decisions.
pub(super) struct Repository {
    stock: PostgresEventRepository,
    pool: PgPool,
    sealing: Sealing,
}

/// How decisions are sealed and opened.
#[derive(Clone, Default)]
pub(super) struct Sealing {
    pub(super) keyring: Option<Keyring>,
    pub(super) opener: Opener,
    /// Whom events are about that name nobody.
    pub(super) whose: Option<Subject>,
}

impl Repository {
    pub(super) fn new(pool: PgPool, sealing: Sealing) -> Self {
        Self {
            stock: PostgresEventRepository::new(pool.clone()),
            pool,
            sealing,
        }
    }

    async fn events_after(
        &self,
        stream: (&str, &str),
        sequence: usize,
    ) -> anyhow::Result<Vec<SerializedEvent>> {
        let mut conn = self.pool.acquire().await?;
        let sql = "select aggregate_type, aggregate_id, sequence, event_type, event_version,
                          payload::text as payload, metadata
                     from events
                    where aggregate_type = $1 and aggregate_id = $2 and sequence > $3
                    order by sequence";
        let rows = sqlx::query_as(sql)
            .bind(stream.0)
            .bind(stream.1)
            .bind(i64::try_from(sequence)?);
        let mut rows: Vec<Row> = rows.fetch_all(&mut *conn).await?;
        let payloads = rows.iter_mut();
        let mut payloads: Vec<_> = payloads
            .map(|row| (row.event_type.as_str(), &mut row.payload))
            .collect();
        let opener = &self.sealing.opener;
        opener.open_payloads(&mut conn, &mut payloads).await?;
        rows.into_iter().map(Row::event).collect()
    }

    async fn write(
        &self,
        aggregate_type: &str,
        events: &[SerializedEvent],
    ) -> Result<(), PersistenceError> {
        for _ in 1..SEALINGS_MAX {
            match self.insert(aggregate_type, events).await {
                Err(error) if is_outdated(&error) => self.learn().await.map_err(failed)?,
                written => return written.map_err(failed),
            }
        }
        let written = self.insert(aggregate_type, events).await;
        written.map_err(failed)
    }

    async fn learn(&self) -> sqlx::Result<()> {
        match &self.sealing.keyring {
            Some(keyring) => keyring.refresh(&mut *self.pool.acquire().await?).await,
            None => Ok(()),
        }
    }

    async fn insert(&self, aggregate_type: &str, events: &[SerializedEvent]) -> sqlx::Result<()> {
        let mut conn = self.pool.acquire().await?;
        let mut sealed = Sealed::default();
        let payloads: Vec<String> = events
            .iter()
            .map(|event| self.sealed(aggregate_type, event, &mut sealed))
            .collect();
        let sealed = [sealed];
        if let Some(keyring) = &self.sealing.keyring {
            keyring.write_keys(&mut conn, sealed.iter()).await?;
        }
        let mut tx = conn.begin().await?;
        if self.sealing.keyring.is_some() {
            tell_known(&mut tx, sealed[0].epoch, true).await?;
        }
        for (event, payload) in events.iter().zip(&payloads) {
            insert(&mut tx, aggregate_type, event, payload).await?;
        }
        tx.commit().await?;
        if let Some(keyring) = &self.sealing.keyring {
            keyring.are_durable(sealed.iter());
        }
        Ok(())
    }

    fn sealed(&self, aggregate_type: &str, event: &SerializedEvent, sealed: &mut Sealed) -> String {
        let payload = event.payload.to_string();
        let Some(keyring) = &self.sealing.keyring else {
            return payload;
        };
        if sealed.is_empty() {
            sealed.epoch = keyring.epoch();
        }
        let stream = (aggregate_type, event.aggregate_id.as_str());
        let whose = self.sealing.whose.as_ref();
        match keyring.seal_event(&event.event_type, stream, &payload, whose, sealed) {
            Some((payload, _)) => payload,
            None => payload,
        }
    }
}

async fn insert(
    conn: &mut PgConnection,
    aggregate_type: &str,
    event: &SerializedEvent,
    payload: &str,
) -> sqlx::Result<()> {
    let sql = "insert into events (aggregate_type, aggregate_id, sequence, event_type,
                                   event_version, payload, metadata)
               values ($1, $2, $3, $4, $5, $6::json, $7)";
    sqlx::query(sql)
        .bind(aggregate_type)
        .bind(&event.aggregate_id)
        .bind(i64::try_from(event.sequence).unwrap_or(i64::MAX))
        .bind(&event.event_type)
        .bind(&event.event_version)
        .bind(payload)
        .bind(&event.metadata)
        .execute(conn)
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct Row {
    aggregate_type: String,
    aggregate_id: String,
    sequence: i64,
    event_type: String,
    event_version: String,
    payload: String,
    metadata: Value,
}

impl Row {
    fn event(self) -> anyhow::Result<SerializedEvent> {
        Ok(SerializedEvent::new(
            self.aggregate_id,
            usize::try_from(self.sequence)?,
            self.aggregate_type,
            self.event_type,
            self.event_version,
            serde_json::from_str(&self.payload)?,
            self.metadata,
        ))
    }
}

impl PersistedEventRepository for Repository {
    async fn get_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        let events = self.events_after((A::TYPE, aggregate_id), 0).await;
        events.map_err(|error| PersistenceError::UnknownError(error.into()))
    }

    async fn get_last_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
        last_sequence: usize,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        let events = self
            .events_after((A::TYPE, aggregate_id), last_sequence)
            .await;
        events.map_err(|error| PersistenceError::UnknownError(error.into()))
    }

    async fn get_snapshot<A: Aggregate>(
        &self,
        aggregate_id: &str,
    ) -> Result<Option<SerializedSnapshot>, PersistenceError> {
        self.stock.get_snapshot::<A>(aggregate_id).await
    }

    async fn persist<A: Aggregate>(
        &self,
        events: &[SerializedEvent],
        _snapshot: Option<(String, Value, usize)>,
    ) -> Result<(), PersistenceError> {
        let repository = Self::new(self.pool.clone(), self.sealing.clone());
        let events = events.to_vec();
        let writing = tokio::spawn(async move { repository.write(A::TYPE, &events).await });
        writing
            .await
            .unwrap_or_else(|died| Err(PersistenceError::UnknownError(Box::new(died))))
    }

    async fn stream_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
    ) -> Result<ReplayStream, PersistenceError> {
        self.stock.stream_events::<A>(aggregate_id).await
    }

    async fn stream_all_events<A: Aggregate>(&self) -> Result<ReplayStream, PersistenceError> {
        self.stock.stream_all_events::<A>().await
    }
}

fn failed(error: sqlx::Error) -> PersistenceError {
    let code = error.as_database_error().and_then(|error| error.code());
    match error {
        _ if code.is_some_and(|code| code == UNIQUE_VIOLATION) => {
            PersistenceError::OptimisticLockError
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => {
            PersistenceError::ConnectionError(Box::new(error))
        }
        _ => PersistenceError::UnknownError(Box::new(error)),
    }
}
