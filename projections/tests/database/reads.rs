//! What the lists give.

use domain::{Channel, Direction, Provider};
use projections::interactions::{self, Filter};
use projections::{audit_log, users};
use sqlx::PgConnection;

use crate::facts::*;
use crate::harness::*;

async fn folded(facts: &[Told]) -> Database {
    let database = Database::create().await;
    append(&database.pool, facts).await;
    database.engine().settle().await.unwrap();
    database
}

async fn ids(conn: &mut PgConnection, filter: Filter) -> Vec<String> {
    let rows = interactions::list(conn, &filter, None, 50).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

#[tokio::test]
async fn every_filter_finds_what_it_names_and_nothing_else() {
    let facts = [
        whole_call(1),
        vec![failed(2, 30)],
        whole_chat(CLIENT),
        whole_sms("SM7"),
    ]
    .concat();
    let database = folded(&facts).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let chat = chat_id(CLIENT);
    let all = ["SM7", "conv_2", &chat, "conv_1"];
    let cases: Vec<(Filter, &[&str])> = vec![
        (Filter::default(), &all),
        (
            Filter {
                channel: Some(Channel::Sms),
                ..Default::default()
            },
            &all[..1],
        ),
        (
            Filter {
                status: Some("failed".into()),
                ..Default::default()
            },
            &all[1..2],
        ),
        (
            Filter {
                direction: Some(Direction::Inbound),
                ..Default::default()
            },
            &all[2..3],
        ),
        (
            Filter {
                provider: Some(Provider::Twilio),
                channel: Some(Channel::Whatsapp),
                ..Default::default()
            },
            &all[2..3],
        ),
        (
            Filter {
                phone_key: Some(phones().key(CLIENT)),
                ..Default::default()
            },
            &all,
        ),
        (
            Filter {
                phone_key: Some(phones().key("+1")),
                ..Default::default()
            },
            &[],
        ),
        (
            Filter {
                agent_id: Some("agent_1".into()),
                status: Some("completed".into()),
                ..Default::default()
            },
            &all[3..],
        ),
        (
            Filter {
                batch_id: Some("btcal_1".into()),
                ..Default::default()
            },
            &all[3..],
        ),
        (
            Filter {
                from: Some(at(20)),
                to: Some(at(50)),
                ..Default::default()
            },
            &all[1..3],
        ),
    ];
    for (filter, expected) in cases {
        let said = format!("{filter:?}");
        assert_eq!(ids(&mut conn, filter).await, expected, "{said}");
    }
}

#[tokio::test]
async fn words_are_found_by_stem_and_without_accents() {
    let database = folded(&[whole_call(1), whole_chat(CLIENT)].concat()).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let chat = chat_id(CLIENT);
    for (q, expected) in [
        ("acordamos pagar", vec![]),
        ("acuerda pagar", vec!["conv_1"]),
        ("PAGARÁ acuerdos", vec!["conv_1"]),
        ("tarjetas", vec![chat.as_str()]),
        ("manana", vec![chat.as_str()]),
        ("\"hola ana\"", vec!["conv_1"]),
        ("\"ana hola\"", vec![]),
        ("tarjeta or decime", vec![chat.as_str(), "conv_1"]),
        ("tarjeta -cuando", vec![]),
        ("", vec![]),
        ("'); drop table interactions; --", vec![]),
        ("???", vec![]),
    ] {
        let filter = Filter {
            q: Some(q.into()),
            ..Default::default()
        };
        assert_eq!(ids(&mut conn, filter).await, expected, "{q}");
    }
}

#[tokio::test]
async fn pages_join_without_a_gap_or_a_repeat() {
    let facts: Vec<_> = (1..=25).map(|n| failed(n, i64::from(n) / 4)).collect();
    let database = folded(&facts).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let all = ids(&mut conn, Filter::default()).await;
    let (mut paged, mut cursor) = (Vec::new(), None);
    loop {
        let filter = Filter::default();
        let page = interactions::list(&mut conn, &filter, cursor.as_ref(), 4)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        cursor = Some(last.cursor());
        paged.extend(page.into_iter().map(|row| row.id));
    }
    assert_eq!((paged.len(), paged), (25, all));
}

#[tokio::test]
async fn a_call_answers_to_its_legs_id_too() {
    let database = folded(&whole_call(1)).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let by_session = interactions::detail(&mut conn, &projections::Opener::default(), "conv_1")
        .await
        .unwrap();
    let by_leg = interactions::detail(&mut conn, &projections::Opener::default(), "CA1")
        .await
        .unwrap();
    assert_eq!(by_session, by_leg);
    let detail = by_leg.unwrap();
    let call = detail.call.unwrap();
    assert_eq!((detail.events.len(), call.transcript.len()), (6, 3));
    assert_eq!(call.audio_delivery_id, detail.events[5].delivery_id);
    assert_eq!(
        interactions::detail(&mut conn, &projections::Opener::default(), "CA2")
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn the_audit_log_is_listed_newest_first_by_who_what_and_when() {
    let database = folded(&[act("user:1", "login", 5), act("service", "export", 6)]).await;
    append(&database.pool, &[act("user:1", "export", 7)]).await;
    database.engine().settle().await.unwrap();
    let mut conn = database.pool.acquire().await.unwrap();
    let all = audit_log::list(&mut conn, &audit_log::Filter::default(), None, 10)
        .await
        .unwrap();
    let positions =
        |rows: &[audit_log::Entry]| rows.iter().map(|row| row.position).collect::<Vec<_>>();
    assert_eq!(positions(&all), [3, 2, 1]);
    let cases = [
        (
            audit_log::Filter {
                actor: Some("user:1".into()),
                ..Default::default()
            },
            None,
            vec![3, 1],
        ),
        (
            audit_log::Filter {
                action: Some("export".into()),
                ..Default::default()
            },
            None,
            vec![3, 2],
        ),
        (
            audit_log::Filter {
                from: Some(all[0].recorded_at),
                ..Default::default()
            },
            None,
            vec![3],
        ),
        (
            audit_log::Filter {
                to: Some(all[0].recorded_at),
                ..Default::default()
            },
            None,
            vec![2, 1],
        ),
        (audit_log::Filter::default(), Some(3), vec![2, 1]),
    ];
    for (filter, before, expected) in cases {
        let rows = audit_log::list(&mut conn, &filter, before, 10)
            .await
            .unwrap();
        assert_eq!(positions(&rows), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn people_are_found_by_number_and_by_address() {
    let database = folded(&[person(1), person(2)]).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let all = users::list(&mut conn, None, 10).await.unwrap();
    assert_eq!(all.iter().map(|user| user.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        users::get(&mut conn, 2).await.unwrap().as_ref(),
        Some(&all[1])
    );
    let by_email = users::by_email(&mut conn, "P2@Example.com").await.unwrap();
    assert_eq!(by_email.as_ref(), Some(&all[1]));
    assert_eq!(
        users::by_email(&mut conn, "nobody@example.com")
            .await
            .unwrap(),
        None
    );
}
