//! A PostgreSQL of our own, for whoever sets no `DATABASE_URL`: started from
//! the installed binaries, on a free port of the loopback address, as an
//! unprivileged user when we are root (PostgreSQL refuses to run as root).
//!
//! A process that finds it running joins it, and the last of those that use it
//! stops it. If we are killed it runs on, and the next start joins it. Who uses
//! it is told by a lock on a file, which the kernel takes from the dead.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use nix::unistd::{Uid, User};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::process::Command;

/// Users to run as when we are root, the first that exists.
const UNPRIVILEGED_USERS: [&str; 2] = ["postgres", "nobody"];
/// Where data goes when the unprivileged user cannot reach the data directory.
const FALLBACK_DATA_DIR: &str = "/var/lib/bitacora";
const DATABASE: &str = "bitacora";
const ROLE: &str = "bitacora";

/// How much a local database cares about its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// What was committed survives a power cut.
    Durable,
    /// For tests: fast, and lost at a crash.
    ThrowAway,
}

/// A running PostgreSQL.
#[derive(Debug)]
pub struct LocalPostgres {
    bin: PathBuf,
    data: PathBuf,
    owner: Option<User>,
    port: u16,
    password: String,
    /// Locked, shared by all processes that use the server.
    in_use: File,
}

impl LocalPostgres {
    /// Starts the database that lives in `dir`, made on first use, or joins it
    /// if it runs already. `password` is used when it is made.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, cannot be started, or the directory
    /// cannot be written.
    pub async fn start(
        dir: &Path,
        new_password: String,
        durability: Durability,
    ) -> anyhow::Result<Self> {
        let bin = find_binaries()?;
        let owner = unprivileged_user()?;
        let data = place(dir, owner.as_ref())?;
        let password_file = data.with_extension("password");
        if !data.join("PG_VERSION").exists() {
            make(
                &bin,
                &data,
                &password_file,
                &new_password,
                owner.as_ref(),
                durability,
            )
            .await?;
        }
        let in_use = share(data.with_extension("lock")).await?;
        let password = fs::read_to_string(&password_file)
            .with_context(|| format!("cannot read {}", password_file.display()))?;
        let mut server = Self {
            bin,
            data,
            owner,
            port: 0,
            password,
            in_use,
        };
        server.port = match server.running_port() {
            Some(port) => port,
            None => server.launch().await?,
        };
        server.create_database().await?;
        Ok(server)
    }

    /// The address of the service's own database, as a role that is no
    /// superuser. Holds a password: do not log it.
    pub fn url(&self) -> String {
        format!(
            "postgres://{ROLE}:{}@127.0.0.1:{}/{DATABASE}",
            self.password, self.port
        )
    }

    /// The address of the maintenance database, as the superuser.
    pub fn superuser_url(&self) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{}/postgres",
            self.password, self.port
        )
    }

    /// Where its files are.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The process id of the server.
    pub fn process_id(&self) -> Option<i32> {
        self.pid_file_line(0)?.parse().ok()
    }

    /// Stops the server unless another process uses it, and waits for its end.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop(self) -> anyhow::Result<()> {
        // Who starts now waits for this lock, and then finds the server ended.
        if self.in_use.try_lock().is_err() {
            return Ok(());
        }
        let args = ["stop", "-w", "-m", "fast", "-D"].map(OsString::from);
        run(
            &self.bin.join("pg_ctl"),
            args.into_iter().chain([self.data.clone().into()]),
            &self.data,
            self.owner.as_ref(),
        )
        .await
    }

    /// The port of a server that runs on this data directory.
    fn running_port(&self) -> Option<u16> {
        let pid = nix::unistd::Pid::from_raw(self.process_id()?);
        nix::sys::signal::kill(pid, None).ok()?;
        self.pid_file_line(3)?.parse().ok()
    }

    fn pid_file_line(&self, line: usize) -> Option<String> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        text.lines().nth(line).map(|line| line.trim().to_owned())
    }

    async fn launch(&self) -> anyhow::Result<u16> {
        let port = free_port()?;
        let options =
            format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''");
        let log = self.data.join("server.log");
        let args: Vec<OsString> = vec![
            "start".into(),
            "-w".into(),
            "-s".into(),
            "-D".into(),
            self.data.clone().into(),
            "-l".into(),
            log.clone().into(),
            "-o".into(),
            options.into(),
        ];
        run(
            &self.bin.join("pg_ctl"),
            args,
            &self.data,
            self.owner.as_ref(),
        )
        .await
        .with_context(|| format!("PostgreSQL did not start; its log is {}", log.display()))?;
        Ok(port)
    }

    async fn create_database(&self) -> anyhow::Result<()> {
        // One of the statements holds the password.
        let options: PgConnectOptions = self.superuser_url().parse()?;
        let options = options.disable_statement_logging();
        let mut conn = options
            .connect()
            .await
            .context("cannot connect to the local PostgreSQL")?;
        let exists: bool =
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
                .bind(DATABASE)
                .fetch_one(&mut conn)
                .await?;
        if !exists {
            let role_exists: bool =
                sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
                    .bind(ROLE)
                    .fetch_one(&mut conn)
                    .await?;
            if !role_exists {
                // The password is ours, in hex: nothing in it needs quoting.
                let create = format!("create role {ROLE} login password '{}'", self.password);
                sqlx::query(&create).execute(&mut conn).await?;
            }
            sqlx::query(&format!("create database {DATABASE} owner {ROLE}"))
                .execute(&mut conn)
                .await?;
        }
        conn.close().await?;
        Ok(())
    }
}

/// The directory of `initdb`, `postgres` and `pg_ctl`, the newest if several.
fn find_binaries() -> anyhow::Result<PathBuf> {
    let complete = |dir: &Path| {
        ["initdb", "postgres", "pg_ctl"]
            .iter()
            .all(|b| dir.join(b).is_file())
    };
    let mut installed: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    installed.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let path = std::env::var_os("PATH").unwrap_or_default();
    installed
        .into_iter()
        .map(|(_, dir)| dir)
        .chain(std::env::split_paths(&path))
        .find(|dir| complete(dir))
        .context("PostgreSQL is not installed: run `make setup` (Debian: apt-get install postgresql), or set DATABASE_URL to a database of yours")
}

/// Whom to run as: nobody else unless we are root.
fn unprivileged_user() -> anyhow::Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in UNPRIVILEGED_USERS {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!(
        "running as root, and there is no user {UNPRIVILEGED_USERS:?} to run PostgreSQL as; set DATABASE_URL"
    )
}

/// The data directory, where its owner can reach it.
fn place(dir: &Path, owner: Option<&User>) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let reachable = |path: &Path| {
        path.ancestors().all(|dir| {
            fs::metadata(dir).is_ok_and(|meta| {
                meta.mode() & 0o001 != 0
                    || owner.is_none_or(|owner| meta.uid() == owner.uid.as_raw())
            })
        })
    };
    if reachable(&dir) {
        return Ok(dir.join("postgres"));
    }
    let digest = hex::encode(Sha256::digest(dir.as_os_str().as_encoded_bytes()));
    let elsewhere = Path::new(FALLBACK_DATA_DIR).join(&digest[..12]);
    fs::create_dir_all(&elsewhere)?;
    Ok(elsewhere.join("postgres"))
}

async fn make(
    bin: &Path,
    data: &Path,
    password_file: &Path,
    password: &str,
    owner: Option<&User>,
    durability: Durability,
) -> anyhow::Result<()> {
    if data.exists() {
        // A first start that was cut short left it without PG_VERSION.
        fs::remove_dir_all(data)?;
    }
    fs::create_dir_all(data)?;
    fs::set_permissions(data, Permissions::from_mode(0o700))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(password_file)?;
    file.write_all(password.as_bytes())?;
    if let Some(owner) = owner {
        for path in [data, password_file] {
            chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
    }
    let args: Vec<OsString> = vec![
        "-D".into(),
        data.into(),
        "-U".into(),
        "postgres".into(),
        "-E".into(),
        "UTF8".into(),
        "--locale=C.UTF-8".into(),
        "--auth=scram-sha-256".into(),
        "--no-sync".into(),
        "--pwfile".into(),
        password_file.into(),
    ];
    run(&bin.join("initdb"), args, data, owner)
        .await
        .context("cannot make a database")?;
    let mut conf = fs::OpenOptions::new()
        .append(true)
        .open(data.join("postgresql.conf"))?;
    std::io::Write::write_all(&mut conf, configuration(durability).as_bytes())?;
    Ok(())
}

/// What is set in `postgresql.conf`, with the reasons in docs/OPERATIONS.md.
fn configuration(durability: Durability) -> String {
    let common = "\n# Written by bitacora.\nmax_connections = 200\nshared_buffers = 256MB\n\
                  max_wal_size = 4GB\ncheckpoint_timeout = 15min\nwal_compression = on\n\
                  random_page_cost = 1.1\njit = off\n";
    match durability {
        Durability::Durable => common.to_owned(),
        Durability::ThrowAway => {
            format!("{common}fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n")
        }
    }
}

async fn run(
    program: &Path,
    args: impl IntoIterator<Item = OsString>,
    current_dir: &Path,
    owner: Option<&User>,
) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    // Standard output must not be a pipe: pg_ctl's server would inherit it and
    // keep it open for ever.
    let errors = tempfile_in(current_dir);
    let stderr = fs::File::create(&errors).map_or_else(|_| Stdio::null(), Stdio::from);
    command
        .args(args)
        .current_dir(current_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    if let Some(owner) = owner {
        command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
    }
    let status = command
        .status()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = fs::read_to_string(&errors).unwrap_or_default();
    let _ = fs::remove_file(&errors);
    if !status.success() {
        bail!("{} failed ({status}): {}", program.display(), said.trim());
    }
    Ok(())
}

/// Beside the data directory, which initdb wants empty.
fn tempfile_in(data: &Path) -> PathBuf {
    data.with_extension(format!("{}.stderr", std::process::id()))
}

fn free_port() -> anyhow::Result<u16> {
    let probe = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(probe.local_addr()?.port())
}

/// Takes a share of a lock; waits while another process stops the server.
async fn share(path: PathBuf) -> anyhow::Result<File> {
    let what = format!("cannot lock {}", path.display());
    let lock = move || {
        let file = File::create(path)?;
        file.lock_shared()?;
        Ok::<_, std::io::Error>(file)
    };
    tokio::task::spawn_blocking(lock).await?.context(what)
}
