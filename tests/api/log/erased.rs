//! A person is erased, and every proof is as it was. docs/adr/0020.

use bitacora::ledger::log::{Outside, latest, verify};
use domain::log::Hash;
use sqlx::PgPool;
use uuid::Uuid;

use super::proofs::{delivery, event, proof};
use super::{seal_all, unsealed, verifiers};
use crate::commands::database_url;
use crate::erasure::{EVA, Person, ZOE, erase, purge};
use crate::harness::TestApp;
use crate::harness::app::ok;
use crate::harness::program;

async fn traffic(app: &TestApp, person: &Person) {
    ok(app.elevenlabs(person.of("elevenlabs/post_call_transcription.json"))).await;
    let form = person.of("twilio/whatsapp.inbound.text.form");
    ok(app.twilio("/webhook/twilio/incoming", form)).await;
    app.settle().await;
}

/// The leaves of all rows there are, as a stranger makes them from the rows.
async fn leaves(pool: &PgPool) -> (Vec<(i64, Hash)>, Vec<(Uuid, Hash)>) {
    let (mut events, mut deliveries) = (vec![], vec![]);
    let positions = sqlx::query_scalar("select position from events order by 1");
    for position in positions.fetch_all(pool).await.unwrap() {
        events.push((position, event(pool, position).await.leaf().hash()));
    }
    let ids = sqlx::query_scalar("select id from deliveries order by seq");
    for id in ids.fetch_all(pool).await.unwrap() {
        deliveries.push((id, delivery(pool, id).await.leaf().hash()));
    }
    (events, deliveries)
}

#[tokio::test]
async fn every_proof_of_a_person_who_was_erased_and_of_others_verifies_still() {
    let app = TestApp::with(unsealed()).await;
    traffic(&app, &ZOE).await;
    traffic(&app, &EVA).await;
    seal_all(&app.pool).await;
    let (events, deliveries) = leaves(&app.pool).await;
    let early = latest(&app.pool).await.unwrap().unwrap();

    assert_eq!(erase(&app, &ZOE).await.0, 202);
    purge(&app).await;
    seal_all(&app.pool).await;

    let sql = "select delivery_id from events where aggregate_id like 'conv_0007example%' limit 1";
    let of_zoe: Uuid = sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap();
    assert!(deliveries.iter().any(|(id, _)| *id == of_zoe));
    let shown = app.read(&format!("/api/deliveries/{of_zoe}")).await;
    assert_eq!(shown["data"]["erased"], true, "{shown}");

    let head = latest(&app.pool).await.unwrap().unwrap();
    assert!(head.size > early.size, "the erasure is a leaf too");
    // By the proof of now and by that of before, the leaf is the one of before.
    for size in [head.size, early.size] {
        for (position, leaf) in &events {
            let path = format!("/api/ledger/events/{position}/proof?size={size}");
            proof(&app, &path)
                .await
                .verify(&verifiers(), *leaf)
                .unwrap();
        }
        for (id, leaf) in &deliveries {
            let path = format!("/api/deliveries/{id}/proof?size={size}");
            proof(&app, &path)
                .await
                .verify(&verifiers(), *leaf)
                .unwrap();
        }
    }
    let (events_now, deliveries_now) = leaves(&app.pool).await;
    assert_eq!(events_now[..events.len()], events);
    assert_eq!(deliveries_now[..deliveries.len()], deliveries);

    let outside = [("early", &early.note), ("late", &head.note)];
    let outside = outside.map(|(name, note)| Outside {
        name: name.to_owned(),
        head: verifiers().open(note).unwrap(),
    });
    let report = verify(&app.pool, &verifiers(), &outside, |_, _| ()).await;
    let report = report.unwrap();
    assert_eq!(report.finding, None);
    assert_eq!(report.confirmed, ["early", "late"]);

    // The program says the same, of a head that was kept outside.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("before.txt");
    std::fs::write(&file, &early.note).unwrap();
    let (url, keys) = (database_url(&app), verifiers().keys()[0].clone());
    let settings = [("DATABASE_URL", url.as_str()), ("LOG_VERIFIER_KEYS", &keys)];
    let args = ["verify", "--checkpoint", file.to_str().unwrap()];
    let ended = program::run(&args, &settings, "").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("all that it covers is here"),
        "{ended:?}"
    );
    app.stop().await;
}
