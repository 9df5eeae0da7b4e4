//! The transparency log: sealing, proofs, and what is found when somebody
//! tampers with the ledger.

mod erased;
mod proofs;
mod sealing;
mod tamper;

use bitacora::config::LogKeys;
use bitacora::ledger::log::{LEAVES_MAX, Turn, seal};
use domain::log::note::signer_key;
use domain::log::{Signer, Verifiers};
use reqwest::RequestBuilder;
use sqlx::{Connection, PgConnection, PgPool};

use crate::harness::TestApp;
use crate::harness::app::{Options, answer};
use crate::ingest::{every_fixture, send_fixture};

/// Who signs in these tests.
pub fn signer() -> Signer {
    Signer::new(&key(), None).unwrap()
}

/// The key's text, as it is in a setting.
pub fn key() -> String {
    signer_key("example.com/tests", &[1; 32]).unwrap()
}

pub fn verifiers() -> Verifiers {
    Verifiers::new([signer().verifier_key().to_owned()]).unwrap()
}

/// It seals nothing by itself.
pub fn unsealed() -> Options {
    Options {
        config: |config| {
            config.log = LogKeys {
                signer: None,
                verifiers: verifiers(),
            };
        },
        ..Options::default()
    }
}

/// The service with every fixture on the ledger, nothing of it sealed. It seals
/// nothing by itself.
async fn app() -> TestApp {
    let app = TestApp::with(unsealed()).await;
    for (name, path) in every_fixture() {
        send_fixture(&app, &name, path).send().await.unwrap();
    }
    app
}

/// A request that is refused in this way.
async fn refused(request: RequestBuilder, status: u16, code: &str) {
    let (got, body) = answer(request).await;
    assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{body}");
}

/// Seals all that is new.
pub async fn seal_all(pool: &PgPool) {
    while let Turn::Sealed { full: true, .. } = seal_some(pool, LEAVES_MAX).await {}
}

async fn seal_some(pool: &PgPool, most: i64) -> Turn {
    let mut conn = PgConnection::connect_with(&pool.connect_options())
        .await
        .unwrap();
    let turn = seal(&mut conn, &signer(), &verifiers(), most, |_| Ok(()))
        .await
        .unwrap();
    conn.close().await.unwrap();
    turn
}

/// Rows of both kinds, as many of each, behind what is there.
pub async fn fill(pool: &PgPool, count: i64) {
    let sql = "
        with event as (
            insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
            select 'call', 'bulk_' || n, 1, 'call.completed', '1', json_build_object('n', n), '{}'
              from generate_series((select coalesce(max(position), 0) from events) + 1,
                                   (select coalesce(max(position), 0) from events) + $1) as n)
        insert into deliveries (id, provider, route, verdict, authentication, received_at, request_target, headers, body, body_bytes)
        select gen_random_uuid(), 'twilio', 'twilio/sms/status', 'accepted', 'signature', clock_timestamp(),
               '/', '{}', convert_to(n::text, 'UTF8'), 1
          from generate_series(1, $1) as n";
    sqlx::query(sql).bind(count).execute(pool).await.unwrap();
}
