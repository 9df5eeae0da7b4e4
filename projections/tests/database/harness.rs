//! A fresh database, a ledger to append to, and everything in the read models
//! as text, to compare.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::bail;
use async_trait::async_trait;
use domain::event::Recorded;
use projections::{Engine, Projection};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use crate::facts::{Told, phones};

/// A database that is dropped with this.
pub struct Database {
    pub pool: PgPool,
    server: PgConnectOptions,
    name: String,
}

impl Database {
    pub async fn create() -> Self {
        let url = std::env::var("TEST_DATABASE_URL").expect(
            "TEST_DATABASE_URL must be the address of a PostgreSQL server on which these tests \
             may create databases, such as postgres://postgres@127.0.0.1:55432/postgres",
        );
        let server: PgConnectOptions = url.parse().expect("TEST_DATABASE_URL is not an address");
        let mut conn = server
            .connect()
            .await
            .expect("no PostgreSQL at TEST_DATABASE_URL");
        let sql = "select 'projections_' || replace(gen_random_uuid()::text, '-', '')";
        let name: String = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
        let create = format!("create database {name}");
        sqlx::query(&create).execute(&mut conn).await.unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_with(server.clone().database(&name))
            .await
            .unwrap();
        sqlx::migrate!("../migrations").run(&pool).await.unwrap();
        Self { pool, server, name }
    }

    pub fn engine(&self) -> Engine {
        Engine::new(self.pool.clone(), projections::all(&phones()))
    }
}

impl Drop for Database {
    /// Also when the test fails. A thread, for a runtime cannot block in itself.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let drop = async move {
            let mut conn = server.connect().await?;
            let drop = format!("drop database {name} with (force)");
            sqlx::query(&drop).execute(&mut conn).await?;
            conn.close().await
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let dropped = std::thread::spawn(move || runtime.unwrap().block_on(drop)).join();
        if !std::thread::panicking() {
            dropped.unwrap().unwrap();
        }
    }
}

/// Appends facts in their order, as the ledger's writer does.
pub async fn append(pool: &PgPool, facts: &[Told]) {
    let column = |of: fn(&Told) -> String| facts.iter().map(of).collect::<Vec<_>>();
    let sql = "
        insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version,
                            payload, metadata, occurred_at, delivery_id)
        select kind, id,
               row_number() over (partition by kind, id order by place)
                   + coalesce((select max(sequence) from events
                               where aggregate_type = kind and aggregate_id = id), 0),
               type, version, payload::json, metadata::json, at, gen_random_uuid()
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                    $7::timestamptz[]) with ordinality
             as fact (kind, id, type, version, payload, metadata, at, place)
        order by place";
    sqlx::query(sql)
        .bind(column(|told| told.fact.stream.aggregate_type.to_owned()))
        .bind(column(|told| told.fact.stream.aggregate_id.clone()))
        .bind(column(|told| told.fact.event.name().to_owned()))
        .bind(column(|told| told.fact.event.version().to_owned()))
        .bind(column(|told| {
            serde_json::to_string(&told.fact.event).unwrap()
        }))
        .bind(column(|told| match told.provider {
            Some(provider) => format!(r#"{{"provider":"{provider}"}}"#),
            None => "{}".to_owned(),
        }))
        .bind(
            facts
                .iter()
                .map(|told| told.fact.occurred_at)
                .collect::<Vec<_>>(),
        )
        .execute(pool)
        .await
        .unwrap();
}

/// Every row of every read model, as text.
pub async fn dump(pool: &PgPool) -> Vec<String> {
    let mut rows = Vec::new();
    for projection in projections::all(&phones()) {
        for table in projection.tables() {
            let sql = format!("select '{table}: ' || t::text from {table} t order by 1");
            let of_table: Vec<String> = sqlx::query_scalar(&sql).fetch_all(pool).await.unwrap();
            rows.extend(of_table);
        }
    }
    rows
}

pub async fn count(pool: &PgPool, table: &str) -> i64 {
    let sql = format!("select count(*) from {table}");
    sqlx::query_scalar(&sql).fetch_one(pool).await.unwrap()
}

pub async fn head(pool: &PgPool) -> i64 {
    let mut conn = pool.acquire().await.unwrap();
    projections::feed::head(&mut conn).await.unwrap()
}

/// The projection `interactions` in the hands of a test.
pub struct Tampered {
    inner: Arc<dyn Projection>,
    pub version: i32,
    /// Fails when it has folded a batch and this counts down to 0.
    pub fails_in: AtomicI32,
}

impl Tampered {
    pub fn new(version: i32, fails_in: i32) -> Arc<Self> {
        Arc::new(Self {
            inner: projections::all(&phones()).remove(0),
            version,
            fails_in: AtomicI32::new(fails_in),
        })
    }

    pub fn engine(self: &Arc<Self>, pool: &PgPool) -> Engine {
        Engine::new(pool.clone(), vec![self.clone()])
    }
}

#[async_trait]
impl Projection for Tampered {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn version(&self) -> i32 {
        self.version
    }

    fn tables(&self) -> &'static [&'static str] {
        self.inner.tables()
    }

    fn event_types(&self) -> &'static [&'static str] {
        self.inner.event_types()
    }

    async fn apply(&self, conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<()> {
        self.inner.apply(conn, batch).await?;
        if self.fails_in.fetch_sub(1, Ordering::SeqCst) == 1 {
            bail!("the machine caught fire");
        }
        Ok(())
    }
}

/// Numbers that look random and are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for n in (1..things.len()).rev() {
            things.swap(n, self.below(n + 1));
        }
    }
}
