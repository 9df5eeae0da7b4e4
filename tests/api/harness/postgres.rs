//! A throw-away PostgreSQL for the whole test process, and a database in it
//! for each test.
//!
//! The server is stopped, by its process id, when this process ends, however
//! it ends: a shell waits for the end of a pipe that only we hold open.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bitacora::local_postgres::{Durability, LocalPostgres};
use sqlx::{Connection, PgConnection};

struct Server {
    superuser_url: String,
    _until_we_end: Option<ChildStdin>,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);
const TEMPLATE: &str = "bitacora_template";

/// The address of a new database with this version's tables.
pub async fn fresh_database() -> String {
    let server = server();
    let name = format!(
        "test_{}_{}",
        std::process::id(),
        DATABASES.fetch_add(1, Ordering::Relaxed)
    );
    let mut conn = PgConnection::connect(&server.superuser_url).await.unwrap();
    sqlx::query(&format!("create database {name} template {TEMPLATE}"))
        .execute(&mut conn)
        .await
        .unwrap();
    at(&server.superuser_url, &name)
}

/// A new, empty database that belongs to a role with no other rights, and its
/// address for that role.
pub async fn database_of_an_ordinary_role() -> String {
    let server = server();
    let name = format!(
        "plain_{}_{}",
        std::process::id(),
        DATABASES.fetch_add(1, Ordering::Relaxed)
    );
    let mut conn = superuser().await;
    for sql in [
        format!("create role {name} login password 'plain'"),
        format!("create database {name} owner {name}"),
    ] {
        sqlx::query(&sql).execute(&mut conn).await.unwrap();
    }
    let (_, host) = server.superuser_url.rsplit_once('@').unwrap();
    at(&format!("postgres://{name}:plain@{host}"), &name)
}

/// The same database for the superuser.
pub fn as_superuser(url: &str) -> String {
    at(&server().superuser_url, url.rsplit_once('/').unwrap().1)
}

/// A connection that may do everything on the tests' server.
pub async fn superuser() -> PgConnection {
    PgConnection::connect(&server().superuser_url)
        .await
        .unwrap()
}

/// Ends every connection to a database, as a restart of the server does.
/// Returns how many there were.
pub async fn end_connections(database: &str) -> i64 {
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = $1 and pid <> pg_backend_pid()";
    let query = sqlx::query_scalar(sql).bind(database);
    query.fetch_one(&mut superuser().await).await.unwrap()
}

/// Makes a database refuse everybody from now on.
pub async fn take_away(database: &str) {
    let sql = format!("alter database {database} allow_connections false");
    let taken = sqlx::query(&sql).execute(&mut superuser().await).await;
    taken.unwrap();
    end_connections(database).await;
}

/// The address of a database that [`fresh_database`] made.
pub fn named(database: &str) -> String {
    at(&server().superuser_url, database)
}

/// The address of another database of the same server.
fn at(url: &str, database: &str) -> String {
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

fn server() -> &'static Server {
    // On a thread of its own: the runtime of one test must not hold what all
    // tests use.
    SERVER.get_or_init(|| {
        let start = || tokio::runtime::Runtime::new().unwrap().block_on(start());
        std::thread::spawn(start)
            .join()
            .expect("PostgreSQL for the tests did not start")
    })
}

async fn start() -> Server {
    let server = match std::env::var("TEST_DATABASE_URL") {
        Ok(superuser_url) => Server {
            superuser_url,
            _until_we_end: None,
        },
        Err(_) => throw_away_server().await,
    };
    let mut conn = PgConnection::connect(&server.superuser_url)
        .await
        .expect("no PostgreSQL at TEST_DATABASE_URL");
    sqlx::query(&format!("drop database if exists {TEMPLATE}"))
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query(&format!("create database {TEMPLATE}"))
        .execute(&mut conn)
        .await
        .unwrap();
    let pool = sqlx::PgPool::connect(&at(&server.superuser_url, TEMPLATE))
        .await
        .unwrap();
    bitacora::ledger::migrate(&pool).await.unwrap();
    pool.close().await;
    server
}

async fn throw_away_server() -> Server {
    let dir = tempfile::Builder::new()
        .prefix("bitacora-test-")
        .tempdir()
        .unwrap()
        .keep();
    // The server may run as another user than we do.
    std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    let server = LocalPostgres::start(&dir, "test".to_owned(), Durability::ThrowAway)
        .await
        .unwrap();
    let pid = server.process_id().unwrap().to_string();
    let stop = "trap '' INT TERM HUP; cat > /dev/null; kill -QUIT \"$1\"; \
                while kill -0 \"$1\" 2> /dev/null; do sleep 0.1; done; rm -rf \"$2\" \"$3\"";
    let mut watcher = Command::new("sh")
        .args(["-c", stop, "sh", &pid])
        .arg(&dir)
        .arg(server.data_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Server {
        superuser_url: server.superuser_url(),
        _until_we_end: watcher.stdin.take(),
    }
}
