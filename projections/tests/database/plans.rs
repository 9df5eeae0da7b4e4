//! Every list reads an index, with and without each filter, at volume.

use domain::{Channel, Direction, Provider};
use projections::interactions::{Cursor, Filter};
use projections::{audit_log, interactions};
use sqlx::PgConnection;

use crate::facts::at;
use crate::harness::*;

const ROWS: i64 = 200_000;

#[tokio::test]
async fn every_list_reads_an_index_at_volume() {
    let database = Database::create().await;
    fill(&database).await;
    let mut conn = database.pool.acquire().await.unwrap();
    for filter in filters() {
        for after in [
            None,
            Some(Cursor {
                started_at: at(ROWS / 2),
                id: "x".into(),
            }),
        ] {
            let plan = interactions::explain(&mut conn, &filter, after.as_ref(), 50)
                .await
                .unwrap();
            assert_reads_an_index(&plan, &format!("{filter:?}"));
            reads_few_pages(&mut conn, &filter, after.as_ref()).await;
        }
    }
    for filter in audit_filters() {
        for before in [None, Some(ROWS / 2)] {
            let plan = audit_log::explain(&mut conn, &filter, before, 50)
                .await
                .unwrap();
            assert_reads_an_index(&plan, &format!("{filter:?}"));
        }
    }
}

fn assert_reads_an_index(plan: &[String], of: &str) {
    let plan = plan.join("\n");
    assert!(
        plan.contains("Index") && !plan.contains("Seq Scan"),
        "{of}\n{plan}"
    );
}

/// A list may be short of rows and long of work; its time tells. Wide enough
/// for a busy machine, and a tenth of what reading everything takes.
async fn reads_few_pages(conn: &mut PgConnection, filter: &Filter, after: Option<&Cursor>) {
    let begun = std::time::Instant::now();
    interactions::list(conn, filter, after, 50).await.unwrap();
    let took = begun.elapsed();
    assert!(took.as_millis() < 500, "{took:?} for {filter:?}");
}

fn filters() -> Vec<Filter> {
    let q = |q: &str| Filter {
        q: Some(q.into()),
        ..Default::default()
    };
    let mut filters = vec![
        Filter::default(),
        Filter {
            channel: Some(Channel::Sms),
            ..Default::default()
        },
        Filter {
            status: Some("voicemail".into()),
            ..Default::default()
        },
        Filter {
            status: Some("completed".into()),
            ..Default::default()
        },
        Filter {
            status: Some("no such".into()),
            ..Default::default()
        },
        Filter {
            direction: Some(Direction::Inbound),
            ..Default::default()
        },
        Filter {
            provider: Some(Provider::Builderbot),
            ..Default::default()
        },
        Filter {
            phone_key: Some("phone_77".into()),
            ..Default::default()
        },
        Filter {
            agent_id: Some("agent_7".into()),
            ..Default::default()
        },
        Filter {
            batch_id: Some("batch_77".into()),
            ..Default::default()
        },
        Filter {
            from: Some(at(500)),
            ..Default::default()
        },
        Filter {
            to: Some(at(500)),
            ..Default::default()
        },
        Filter {
            from: Some(at(1_000)),
            to: Some(at(2_000)),
            ..Default::default()
        },
        Filter {
            channel: Some(Channel::Call),
            status: Some("completed".into()),
            direction: Some(Direction::Outbound),
            provider: Some(Provider::Elevenlabs),
            agent_id: Some("agent_7".into()),
            from: Some(at(1_000)),
            ..Default::default()
        },
        q("rarisima"),
        q("desconocida"),
        q("hola"),
        q("hola -adios"),
        q("\"hola mundo\""),
    ];
    filters.push(Filter {
        channel: Some(Channel::Sms),
        ..q("hola")
    });
    filters
}

fn audit_filters() -> Vec<audit_log::Filter> {
    let (actor, action) = (Some("user:7".to_owned()), Some("login".to_owned()));
    vec![
        audit_log::Filter::default(),
        audit_log::Filter {
            actor: actor.clone(),
            ..Default::default()
        },
        audit_log::Filter {
            action: action.clone(),
            ..Default::default()
        },
        audit_log::Filter {
            actor,
            action,
            from: Some(at(5)),
            to: Some(at(ROWS)),
        },
    ]
}

/// Rows as a busy year leaves them, set-wise; no fold is that fast.
async fn fill(database: &Database) {
    let sql = format!(
        "
        insert into interactions (id, channel, provider, direction, status, phone_key, agent_id,
            batch_id, started_at, last_event_at, message_count, first_position, last_position)
        select 'i' || n, (array['call','whatsapp','sms'])[1 + (n % 10 > 6)::int + (n % 10 > 8)::int],
            (array['elevenlabs','twilio'])[1 + (n % 10 > 6)::int],
            (array['outbound','inbound'])[1 + (n % 100 = 0)::int],
            case when n % 5000 = 0 then 'voicemail' when n % 9 = 0 then 'failed' else 'completed' end,
            'phone_' || n % 50000, case when n % 10 < 7 then 'agent_' || n % 20 end,
            case when n % 3 = 0 then 'batch_' || n / 500 end,
            t, t, 1, n, n
        from generate_series(1, {ROWS}) as n,
            lateral (select to_timestamp(1761694000 + n) as t) as time;
        insert into call_details (interaction_id, transcript, has_audio, analysis,
            dynamic_variables, sources, search)
        select 'i' || n, '[]', false, '{{}}', '{{}}', '{{}}',
            to_tsvector('simple', 'hola mundo ' || case when n % 40000 = 7 then 'rarisima' else 'palabra' || n % 5000 end)
        from generate_series(1, {ROWS}) as n where n % 10 < 7;
        insert into messages (interaction_id, id, direction, status, media, details, created_at,
            updated_at, first_position, search)
        select 'i' || n, 'm' || n, 'inbound', 'received', '[]', '{{}}', now(), now(), n,
            to_tsvector('simple', 'hola mundo palabra' || n % 5000)
        from generate_series(1, {ROWS}) as n where n % 10 >= 7;
        insert into audit_log (position, occurred_at, recorded_at, actor, action, outcome)
        select n, now(), now(), 'user:' || n % 500, (array['login','reveal'])[1 + n % 2], 'ok'
        from generate_series(1, {ROWS}) as n;
        analyze interactions, call_details, messages, audit_log;"
    );
    sqlx::raw_sql(&sql).execute(&database.pool).await.unwrap();
}
