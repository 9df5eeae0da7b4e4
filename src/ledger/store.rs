//! Decisions: commands to aggregates, through cqrs-es and postgres-es.
//!
//! Only the plain event store is used: in 0.5.0 the snapshot and aggregate
//! stores apply every event twice. The framework's own queries stay empty; see
//! docs/adr/0002.

use std::collections::HashMap;

use cqrs_es::persist::{EventUpcaster, PersistedEventStore, SerializedEvent};
use cqrs_es::{Aggregate, AggregateError, CqrsFramework, EventStore};
use domain::event::{event_type as event_type_named, upcast};
use projections::keys::Opener;
use sqlx::PgPool;

use super::keyring::Keyring;
use super::repository::{Repository, Sealing};

/// How often a command is tried when others change the same aggregate.
const ATTEMPTS_MAX: usize = 10;

/// Shows aggregates the events of older versions as they are written today.
struct Upcasters;

impl EventUpcaster for Upcasters {
    fn can_upcast(&self, event_type: &str, event_version: &str) -> bool {
        event_type_named(event_type).is_some_and(|kind| kind.version != event_version)
    }

    fn upcast(&self, mut event: SerializedEvent) -> SerializedEvent {
        // One that no step leads from stays as it is, and is not readable.
        if let Some(kind) = event_type_named(&event.event_type)
            && upcast(kind, &event.event_version, &mut event.payload).is_some()
        {
            kind.version.clone_into(&mut event.event_version);
        }
        event
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError<E: std::error::Error> {
    /// The aggregate refused it.
    #[error(transparent)]
    Refused(E),
    /// The ledger did not take it.
    #[error("the ledger did not take a command: {0}")]
    Ledger(String),
}

/// Carries out commands.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    sealing: Sealing,
}

impl Store {
    /// A store on a pool, whose events are as they are decided.
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            sealing: Sealing::default(),
        }
    }

    /// A store whose events are sealed, where there is a keyring, and opened.
    #[must_use]
    pub fn sealing(mut self, keyring: Option<Keyring>, opener: Opener) -> Self {
        self.sealing.keyring = keyring;
        self.sealing.opener = opener;
        self
    }

    /// What it opens events with.
    pub fn opener(&self) -> &Opener {
        &self.sealing.opener
    }

    /// The same store for decisions that are about somebody and name nobody.
    #[must_use]
    pub fn about(&self, address: &str) -> Self {
        let mut store = self.clone();
        let keyring = store.sealing.keyring.as_ref();
        store.sealing.whose = keyring.map(|keyring| keyring.person(address));
        store
    }

    /// Carries out a command and returns the position of the aggregate's last
    /// event. `make` is called again for each attempt.
    ///
    /// # Errors
    /// [`CommandError`] when it was refused or could not be written.
    pub async fn execute<A>(
        &self,
        aggregate_id: &str,
        make: impl Fn() -> A::Command,
        metadata: HashMap<String, String>,
    ) -> Result<i64, CommandError<A::Error>>
    where
        A: Aggregate<Services = ()>,
    {
        let store = self.events_of::<A>();
        let framework = CqrsFramework::new(store, vec![], ());
        for attempt in 1.. {
            match framework
                .execute_with_metadata(aggregate_id, make(), metadata.clone())
                .await
            {
                Ok(()) => break,
                Err(AggregateError::AggregateConflict) if attempt < ATTEMPTS_MAX => {}
                Err(AggregateError::UserError(refusal)) => {
                    return Err(CommandError::Refused(refusal));
                }
                Err(error) => return Err(unusable(&error)),
            }
        }
        sqlx::query_scalar(
            "select position from events where aggregate_type = $1 and aggregate_id = $2
              order by sequence desc limit 1",
        )
        .bind(A::TYPE)
        .bind(aggregate_id)
        .fetch_one(&self.pool)
        .await
        .map_err(|error| CommandError::Ledger(error.to_string()))
    }

    /// An aggregate as it stands; an unknown one as it is before its first
    /// event.
    ///
    /// # Errors
    /// [`CommandError::Ledger`] when it cannot be read.
    pub async fn load<A>(&self, aggregate_id: &str) -> Result<A, CommandError<A::Error>>
    where
        A: Aggregate<Services = ()>,
    {
        let loaded = self.events_of::<A>().load_aggregate(aggregate_id).await;
        loaded
            .map(|context| context.aggregate)
            .map_err(|error| unusable(&error))
    }

    fn events_of<A: Aggregate>(&self) -> PersistedEventStore<Repository, A> {
        let repository = Repository::new(self.pool.clone(), self.sealing.clone());
        PersistedEventStore::new_event_store(repository).with_upcasters(vec![Box::new(Upcasters)])
    }
}

fn unusable<E: std::error::Error>(error: &AggregateError<E>) -> CommandError<E> {
    CommandError::Ledger(match error {
        // Its words may quote an event, and end in a log.
        AggregateError::DeserializationError(_) => {
            "an event of the aggregate cannot be read".to_owned()
        }
        error => error.to_string(),
    })
}
