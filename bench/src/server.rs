//! The PostgreSQL server on which everything is measured, and how the service
//! is started on it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use sqlx::{Connection, PgConnection};

use crate::webhook;

/// A PostgreSQL server on which databases may be made.
#[derive(Clone, Debug)]
pub struct Server {
    url: String,
    /// Its first process.
    pub postmaster: u32,
    bin: PathBuf,
}

impl Server {
    /// The server at this address, which ends in `/postgres`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn at(url: &str) -> anyhow::Result<Self> {
        let mut conn = PgConnection::connect(url).await?;
        let sql = "select pg_read_file('postmaster.pid')";
        let file: String = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
        let postmaster = file.lines().next().context("no process id")?.parse()?;
        let url = url.trim_end_matches("/postgres").to_owned();
        let program = std::fs::read_link(format!("/proc/{postmaster}/exe"))?;
        let bin = program.parent().context("no folder")?.to_owned();
        Ok(Self {
            url,
            postmaster,
            bin,
        })
    }

    /// The address of a database.
    pub fn database(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    /// Runs statements in a database.
    ///
    /// # Errors
    /// When one fails.
    pub async fn run(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let mut conn = PgConnection::connect(&self.database(database)).await?;
        sqlx::raw_sql(sql).execute(&mut conn).await?;
        Ok(conn.close().await?)
    }

    /// Whether there is a database of this name.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn has(&self, database: &str) -> anyhow::Result<bool> {
        let mut conn = PgConnection::connect(&self.database("postgres")).await?;
        let sql = "select exists (select from pg_database where datname = $1)";
        let exists = sqlx::query_scalar(sql).bind(database);
        Ok(exists.fetch_one(&mut conn).await?)
    }

    /// Makes an empty database, unless there is one of this name.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn make(&self, database: &str) -> anyhow::Result<()> {
        match self.has(database).await? {
            true => Ok(()),
            false => {
                self.run("postgres", &format!("create database {database}"))
                    .await
            }
        }
    }

    /// Drops a database, if there is one of this name.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn drop(&self, database: &str) -> anyhow::Result<()> {
        let drop = format!("drop database if exists {database} with (force)");
        self.run("postgres", &drop).await
    }

    /// Makes the files of the log, as many as the server keeps
    /// (`min_wal_size`), as one that has run for some days has them. A new one
    /// is 16 MiB of zeros and a flush, for which every commit waits.
    ///
    /// # Errors
    /// When the server refuses: it must be its superuser who asks.
    pub async fn warm_up(&self) -> anyhow::Result<()> {
        let make_files = "do $$
            declare
                files bigint := pg_size_bytes(current_setting('min_wal_size'))
                    / pg_size_bytes(current_setting('wal_segment_size'));
            begin
                for n in 1..files loop
                    perform pg_logical_emit_message(false, 'bench', '');
                    perform pg_switch_wal();
                end loop;
            end $$";
        self.run("postgres", make_files).await?;
        // Those that are behind it are used again.
        self.run("postgres", "checkpoint").await
    }

    /// One value of one row.
    ///
    /// # Errors
    /// When the statement fails or gives nothing.
    pub async fn ask(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let mut conn = PgConnection::connect(&self.database(database)).await?;
        let sql = format!("select ({sql})::text");
        let value: Option<String> = sqlx::query_scalar(&sql).fetch_one(&mut conn).await?;
        value.context("null")
    }

    /// A program of this server's version.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// By which the benchmark calls the API.
pub const TOKEN: &str = "0123456789012345678901234567890123456789";
const MASTER_KEY: &str = "a-master-key-for-the-bench-of-32-characters";

/// A command of the service, with what it needs to start.
pub fn service(program: &str, args: &[&str], database_url: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("DATABASE_URL", database_url)
        .env("JWT_SECRET", TOKEN)
        .env("MICROSERVICE_TOKEN", TOKEN)
        .env("MASTER_KEY", MASTER_KEY)
        .env("ELEVENLABS_WEBHOOK_SECRET", webhook::SECRET);
    command
}
