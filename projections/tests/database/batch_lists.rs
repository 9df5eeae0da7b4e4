//! The lists and numbers of batches, and that each reads an index.

use domain::batch::Status;
use domain::call::Outcome;
use projections::batches::{self, CallStats, Cursor, DayStats, Filter, HistoryCursor};
use sqlx::PgConnection;

use crate::campaign::Campaign;
use crate::facts::{at, whole_call};
use crate::harness::*;

/// Three batches of two groups: one whole, one just submitted, one ordered.
async fn three() -> Database {
    let database = Database::create().await;
    let other = Campaign {
        group_id: Some(56),
        ..Campaign::new(3, 2)
    };
    let whole = Campaign::new(1, 8);
    for facts in [
        whole.webhooks(),
        whole.stream(),
        Campaign::new(2, 2).submitted(),
        vec![other.requested()],
    ] {
        append(&database.pool, &facts).await;
    }
    database.engine().settle().await.unwrap();
    database
}

async fn names(conn: &mut PgConnection, filter: Filter) -> Vec<String> {
    let rows = batches::list(conn, &filter, None, 50).await.unwrap();
    rows.into_iter().map(|row| row.call_name).collect()
}

#[tokio::test]
async fn every_filter_finds_its_batches_newest_first() {
    let database = three().await;
    let mut conn = database.pool.acquire().await.unwrap();
    let all = ["Campaña 3", "Campaña 2", "Campaña 1"];
    let filter = Filter::default;
    assert_eq!(names(&mut conn, filter()).await, all);
    let cases: [(Filter, &[&str]); 5] = [
        (
            Filter {
                status: Some(Status::PartiallyCompleted),
                ..filter()
            },
            &all[2..],
        ),
        (
            Filter {
                group_id: Some(55),
                ..filter()
            },
            &all[1..],
        ),
        (
            Filter {
                from: Some(at(2)),
                ..filter()
            },
            &all[..2],
        ),
        (
            Filter {
                to: Some(at(2)),
                ..filter()
            },
            &all[2..],
        ),
        (
            Filter {
                group_id: Some(1),
                ..filter()
            },
            &[],
        ),
    ];
    for (filter, expected) in cases {
        let label = format!("{filter:?}");
        assert_eq!(names(&mut conn, filter).await, expected, "{label}");
    }
    let mut paged = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = batches::list(&mut conn, &filter(), cursor.as_ref(), 1)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        cursor = Some(last.cursor());
        paged.extend(page.into_iter().map(|row| row.call_name));
    }
    assert_eq!(paged, all);
}

#[tokio::test]
async fn those_who_work_find_their_work() {
    let database = three().await;
    let mut conn = database.pool.acquire().await.unwrap();
    let ids = |rows: Vec<batches::Batch>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    let open = batches::open_orders(&mut conn, None, 9).await.unwrap();
    assert_eq!(ids(open), [Campaign::new(3, 0).id()]);
    let unsettled = batches::unsettled(&mut conn, None, 9).await.unwrap();
    let cursor = unsettled[0].cursor();
    assert_eq!(ids(unsettled), [Campaign::new(2, 0).id()]);
    let after = batches::unsettled(&mut conn, Some(&cursor), 9).await;
    assert_eq!(after.unwrap(), []);
}

#[tokio::test]
async fn a_groups_history_has_every_call_newest_first() {
    let database = three().await;
    let mut conn = database.pool.acquire().await.unwrap();
    let history = batches::call_history(&mut conn, 55, None, 50)
        .await
        .unwrap();
    assert_eq!(history.len(), 8 + 4, "eight recipients, four called again");
    assert!(history.is_sorted_by_key(|row| std::cmp::Reverse(row.called_at)));
    let again: Vec<_> = history.iter().filter(|row| row.attempt == 2).collect();
    assert_eq!(again.len(), 4);
    let first = &history[0];
    assert_eq!(
        (first.batch_id.as_str(), first.call_name.as_str()),
        ("btcal_1", "Campaña 1")
    );
    assert!(first.variables["name"].is_string());
    let talked = history.iter().find(|row| row.status == Outcome::Completed);
    assert!(talked.unwrap().summary.is_some());

    let mut paged = Vec::new();
    let mut cursor: Option<HistoryCursor> = None;
    loop {
        let page = batches::call_history(&mut conn, 55, cursor.as_ref(), 5)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        cursor = Some(last.cursor());
        paged.extend(page);
    }
    assert_eq!(paged, history);
    let other = batches::call_history(&mut conn, 56, None, 50)
        .await
        .unwrap();
    assert_eq!(other, []);
}

#[tokio::test]
async fn a_groups_numbers_add_up_in_all_and_by_day() {
    let database = three().await;
    let mut conn = database.pool.acquire().await.unwrap();
    let (all, days) = batches::call_stats(&mut conn, 55, "America/Bogota")
        .await
        .unwrap();
    let expected = CallStats {
        total: 10,
        completed: 4,
        failed: 2,
        voicemail: 2,
        in_progress: 0,
        pending: 2,
        cancelled: 0,
        answer_rate: 0.5,
        avg_duration_secs: 30.0,
        total_duration_secs: 120,
    };
    assert_eq!(all, expected);
    let day = |stats| DayStats {
        day: "2025-10-28".parse().unwrap(),
        stats,
    };
    assert_eq!(days, [day(expected)], "23:26 in UTC is 18:26 there");
    let (_, days) = batches::call_stats(&mut conn, 55, "Asia/Tokyo")
        .await
        .unwrap();
    assert_eq!(days[0].day.to_string(), "2025-10-29");
    let (none, days) = batches::call_stats(&mut conn, 99, "UTC").await.unwrap();
    assert_eq!((none, days), (CallStats::default(), vec![]));
    assert!(
        batches::call_stats(&mut conn, 55, "Mars/Base")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn what_webhooks_left_out_is_found_missing_until_it_comes() {
    let database = Database::create().await;
    let campaign = Campaign::new(1, 4);
    append(&database.pool, &campaign.stream()).await;
    append(&database.pool, &whole_call(7)[..5]).await;
    let engine = database.engine();
    engine.settle().await.unwrap();
    let mut conn = database.pool.acquire().await.unwrap();
    let missing = batches::missing_calls(&mut conn, at(0), at(90), 9)
        .await
        .unwrap();
    let called_once: Vec<_> = missing.iter().map(|call| &*call.conversation_id).collect();
    assert_eq!(
        called_once,
        ["conv_1_0_0", "conv_1_2_0"],
        "the others ended later"
    );
    let missing = batches::missing_calls(&mut conn, at(0), at(999), 9)
        .await
        .unwrap();
    assert_eq!(missing.len(), 6);
    assert_eq!(
        (missing[0].status, missing[0].ended_at),
        (Outcome::Completed, at(50))
    );

    append(&database.pool, &campaign.webhooks()).await;
    engine.settle().await.unwrap();
    let missing = batches::missing_calls(&mut conn, at(0), at(999), 9)
        .await
        .unwrap();
    assert_eq!(missing, []);
    let unheard = batches::missing_recordings(&mut conn, at(0), at(999), 9)
        .await
        .unwrap();
    let all = ["conv_1_0_0", "conv_1_2_0", "conv_7", "conv_1_1_1"];
    assert_eq!(unheard, all, "in the order in which they ended");
    append(&database.pool, &whole_call(7)[5..]).await;
    engine.settle().await.unwrap();
    let unheard = batches::missing_recordings(&mut conn, at(0), at(999), 9)
        .await
        .unwrap();
    assert_eq!(unheard.len(), 3);
}

const BATCHES: i64 = 20_000;

#[tokio::test]
async fn no_list_of_batches_reads_a_whole_table() {
    let database = Database::create().await;
    fill(&database).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let after = Cursor {
        created_at: at(BATCHES / 2),
        id: "x".into(),
    };
    for filter in filters() {
        for after in [None, Some(&after)] {
            let plan = batches::explain(&mut conn, &filter, after, 50)
                .await
                .unwrap();
            let plan = plan.join("\n");
            let reads_an_index = plan.contains("Index") && !plan.contains("Seq Scan");
            assert!(reads_an_index, "{filter:?}\n{plan}");
        }
    }
    let before = whole_reads(&mut conn).await;
    assert!(
        batches::find(&mut conn, "btcal_77")
            .await
            .unwrap()
            .is_some()
    );
    assert!(batches::find(&mut conn, "b77").await.unwrap().is_some());
    assert_eq!(
        batches::unsettled(&mut conn, Some(&after), 50)
            .await
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        batches::open_orders(&mut conn, Some(&after), 50)
            .await
            .unwrap()
            .len(),
        2
    );
    let history = HistoryCursor {
        called_at: at(BATCHES / 2),
        conversation_id: "x".into(),
    };
    for after in [None, Some(&history)] {
        let rows = batches::call_history(&mut conn, 7, after, 50)
            .await
            .unwrap();
        assert_eq!(rows.len(), 50);
    }
    assert_eq!(
        batches::recipients(&mut conn, "b77").await.unwrap().len(),
        10
    );
    let (all, _) = batches::call_stats(&mut conn, 7, "UTC").await.unwrap();
    assert_eq!(all.total, 400);
    let missing = batches::missing_calls(&mut conn, at(0), at(BATCHES + 1), 50)
        .await
        .unwrap();
    assert_eq!(missing.len(), 20);
    batches::missing_recordings(&mut conn, at(0), at(BATCHES), 50)
        .await
        .unwrap();
    let of_calls = batches::of_calls(&mut conn, &["c770", "s88"])
        .await
        .unwrap();
    assert_eq!(of_calls.len(), 2);
    assert_eq!(whole_reads(&mut conn).await, before);
}

fn filters() -> [Filter; 6] {
    let filter = Filter::default;
    [
        filter(),
        Filter {
            status: Some(Status::Completed),
            ..filter()
        },
        Filter {
            status: Some(Status::Retrying),
            ..filter()
        },
        Filter {
            group_id: Some(7),
            ..filter()
        },
        Filter {
            from: Some(at(1_000)),
            to: Some(at(2_000)),
            ..filter()
        },
        Filter {
            status: Some(Status::Completed),
            group_id: Some(7),
            from: Some(at(1_000)),
            ..filter()
        },
    ]
}

/// How often a table of these was read from end to end.
async fn whole_reads(conn: &mut PgConnection) -> Vec<(String, i64)> {
    sqlx::query("select pg_stat_force_next_flush()")
        .execute(&mut *conn)
        .await
        .unwrap();
    let sql = "select relname::text, seq_scan from pg_stat_user_tables
               where relname like 'batch%' or relname like 'call%' or relname = 'interactions'
               order by 1";
    sqlx::query_as(sql).fetch_all(conn).await.unwrap()
}

/// Batches of ten, every hundredth of group 7; set-wise.
async fn fill(database: &Database) {
    let sql = format!(
        "
        insert into batches (id, batch_id, call_name, status, agent_id, group_id, created_at,
            total_calls_dispatched, total_calls_scheduled, retry_count, recipients_count, pending,
            in_progress, completed, failed, cancelled, voicemail, has_open_order, is_unsettled, state)
        select 'b' || n, 'btcal_' || n, 'x', case when n % 7 = 0 then 'failed' else 'completed' end,
            'a', case when n % 500 = 0 then 7 else 100 + n % 90 end, to_timestamp(1761694000 + n),
            10, 10, 0, 10, 0, 0, 10, 0, 0, 0, n % 5000 = 0, n % 5000 = 0, state
        from generate_series(1, {BATCHES}) as n, (select '{}'::json as state) as s;
        insert into batch_recipients (batch_key, id, place, variables, status, conversation_id,
            called_at, call_duration, attempts, seen)
        select 'b' || n, 'r' || r, r, '{{}}', 'completed', 'c' || n || r,
            to_timestamp(1761694000 + n), 30, 1, '{{}}'
        from generate_series(1, {BATCHES}) as n, generate_series(0, 9) as r;
        insert into call_attempts (batch_key, recipient_id, conversation_id, group_id, attempt,
            status, called_at, missing_since)
        select 'b' || n, 'r' || r, 'c' || n || r, case when n % 500 = 0 then 7 else 100 + n % 90 end,
            1, 'completed', to_timestamp(1761694000 + n),
            case when n % 1000 = 0 and r = 0 then to_timestamp(1761694000 + n) end
        from generate_series(1, {BATCHES}) as n, generate_series(0, 9) as r;
        insert into batch_calls (conversation_id, call_sid, facts)
        select 'c' || n || '0', 's' || n, '{{}}' from generate_series(1, {BATCHES}) as n;
        insert into call_details (interaction_id, transcript, has_audio, analysis,
            dynamic_variables, sources, search)
        select 'c' || n || '0', '[]', n % 1000 = 0, '{{}}', '{{}}', '{{}}', ''
        from generate_series(1, {BATCHES}) as n;
        insert into interactions (id, channel, status, conversation_id, started_at, ended_at,
            last_event_at, message_count, first_position, last_position)
        select 'c' || n || '0', 'call', 'completed', 'c' || n || '0', t, t, t, 0, n, n
        from generate_series(1, {BATCHES}) as n,
            lateral (select to_timestamp(1761694000 + n) as t) as time;
        analyze batches, batch_recipients, call_attempts, batch_calls, call_details, interactions;",
        serde_json::to_string(&domain::batch::Batch::default()).unwrap(),
    );
    sqlx::raw_sql(&sql).execute(&database.pool).await.unwrap();
}
