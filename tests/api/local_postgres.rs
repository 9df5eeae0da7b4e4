//! The PostgreSQL that the program runs itself.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use bitacora::local_postgres::{Durability, LocalPostgres};
use sqlx::{Connection, PgConnection};

#[tokio::test]
async fn the_last_that_uses_it_stops_it_whoever_started_it() {
    let dir = tempfile::tempdir().unwrap();
    // The server may run as another user than we do.
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let start = async || {
        let password = "test".to_owned();
        LocalPostgres::start(dir.path(), password, Durability::ThrowAway).await
    };
    let first = start().await.unwrap();
    let second = start().await.unwrap();
    let url = second.url();
    assert_eq!(first.url(), url);
    first.stop().await.unwrap();
    PgConnection::connect(&url).await.unwrap();
    // As one that was killed: it says nothing, its lock is gone.
    drop(second);
    let third = start().await.unwrap();
    assert_eq!(third.url(), url, "it ran on");
    third.stop().await.unwrap();
    assert!(PgConnection::connect(&url).await.is_err());
}
