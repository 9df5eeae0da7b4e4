//! Conversations: what is read of them, and that the rows in the tables are
//! those of the fold, however few events are folded at a time.

use domain::Provider;
use domain::conversation::{Event as Decision, Status};
use domain::effect::Remedy;
use domain::message::Status as Callback;
use projections::Engine;
use projections::conversations::{self, Answer, Cursor, Filter, MessageStatus};
use projections::engine::Rebuild;
use sqlx::PgConnection;

use crate::facts::*;
use crate::harness::*;
use crate::talk::written;
use crate::talk::*;

const FIRST: &str = "first_rcpt_1";

/// A call goes on, is answered, is taken over; every source tells something.
fn facts() -> Vec<Told> {
    vec![
        started(CLIENT, "rcpt_1", 0),
        attempted(FIRST, 1),
        status(CLIENT, "SM1", Callback::Delivered, 3),
        taken(FIRST, Provider::Twilio, Some("SM1"), 2),
        received(CLIENT, Some("SM2"), "¿Cuánto cuesta?", 60),
        answered(5, "a", &["Cien.", "¿Algo más?"], 64),
        attempted("a.1", 64),
        taken("a.1", Provider::Twilio, Some("SM3"), 65),
        changed(CLIENT, Decision::Escalated, 66),
        status(CLIENT, "SM3", Callback::Read, 70),
        heard(CLIENT, "¿Hola?", 80),
        written(CLIENT, "w1", "Le escribe Luis.", 90),
        attempted("w1", 91),
        echo(CLIENT, "Le escribe Luis.", 92),
        taken("w1", Provider::Builderbot, None, 93),
        echo(CLIENT, "Otra cosa.", 94),
        written(CLIENT, "w2", "¿Sigue ahí?", 100),
        heard(CLIENT, "baja", 110),
    ]
}

async fn one_by_one(database: &Database, facts: &[Told]) {
    let engine = database.engine();
    for fact in facts {
        append(&database.pool, std::slice::from_ref(fact)).await;
        engine.settle().await.unwrap();
    }
}

#[tokio::test]
async fn a_conversation_is_read_with_its_newest_messages_in_order() {
    let database = Database::create().await;
    one_by_one(&database, &facts()).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let id = talk_id(CLIENT);
    let context = conversations::context(&mut conn, &id, 200).await.unwrap();
    let context = context.unwrap();
    let shown: Vec<_> = context
        .messages
        .iter()
        .map(|row| (row.author.as_str(), row.content.as_str(), row.status))
        .collect();
    assert_eq!(
        shown,
        [
            ("first", "¡Hola Ana!", MessageStatus::Delivered),
            ("client", "¿Cuánto cuesta?", MessageStatus::Received),
            ("agent", "Cien.", MessageStatus::Read),
            ("agent", "¿Algo más?", MessageStatus::Dropped),
            ("client", "¿Hola?", MessageStatus::Received),
            ("person:user:7", "Le escribe Luis.", MessageStatus::Sent),
            ("external", "Otra cosa.", MessageStatus::Sent),
            ("person:user:7", "¿Sigue ahí?", MessageStatus::Dropped),
            ("client", "baja", MessageStatus::Received),
        ]
    );
    let row = &context.conversation;
    assert_eq!((row.message_count, row.status), (9, Status::Escalated));
    assert_eq!(row.escalated_by.as_deref(), Some("user:7"));
    assert!(row.opted_out);
    assert_eq!(row.phone_key, phones().key(CLIENT));
    let few = conversations::context(&mut conn, &id, 2).await.unwrap();
    assert_eq!(few.unwrap().messages[..], context.messages[7..]);
    let none = conversations::context(&mut conn, "conv_local_0", 2).await;
    assert_eq!(none.unwrap(), None);
    let first = conversations::message(&mut conn, FIRST).await.unwrap();
    assert_eq!(first.as_ref(), Some(&context.messages[0]));

    let day = conversations::between(&mut conn, at(-1_000), at(1_000)).await;
    let day = day.unwrap();
    assert_eq!((day.started, day.opened, day.responded), (1, 1, 1));
    assert_eq!((day.sent, day.received), (4, 3));
    assert_eq!((day.response_count, day.response_secs), (1, 5));
    let later = conversations::between(&mut conn, at(1_000), at(9_000)).await;
    assert_eq!(later.unwrap().sent, 0);
    let escalated = conversations::count_of(&mut conn, Status::Escalated).await;
    assert_eq!(escalated.unwrap(), 1);
}

#[tokio::test]
async fn a_clients_message_tells_what_became_of_its_answer() {
    let database = Database::create().await;
    let turn = domain::effect::turn_id;
    let one = [
        (vec![], Some(Answer::Waiting)),
        (
            vec![
                attempted(&turn(2), 61),
                refused(&turn(2), "429", Remedy::Retry, 62),
            ],
            Some(Answer::Waiting),
        ),
        (
            vec![refused(&turn(2), "404", Remedy::DeadLetter, 63)],
            Some(Answer::Failed),
        ),
        (
            vec![answered(2, "a", &["Cien."], 64)],
            Some(Answer::Answered),
        ),
    ];
    let begun = vec![
        started(CLIENT, "rcpt_1", 0),
        received(CLIENT, Some("SM1"), "¿Cuánto cuesta?", 60),
    ];
    one_by_one(&database, &begun).await;
    let mut conn = database.pool.acquire().await.unwrap();
    let mut answer_to = async |id: &str| {
        let rows = conversations::newest(&mut conn, &talk_id(CLIENT), 200).await;
        let all = conversations::answers(&mut conn, &rows.unwrap()).await;
        all.unwrap().get(id).copied()
    };
    for (facts, expected) in one {
        one_by_one(&database, &facts).await;
        assert_eq!(answer_to("SM1").await, expected, "{facts:?}");
        assert_eq!(answer_to(FIRST).await, None);
    }
    // A person has taken over: what waits is not wanted, what comes is not owed.
    let over = [
        received(CLIENT, Some("SM2"), "¿Y dos?", 70),
        changed(CLIENT, Decision::Escalated, 71),
        received(CLIENT, Some("SM3"), "¿Hola?", 72),
    ];
    one_by_one(&database, &over).await;
    assert_eq!(answer_to("SM2").await, Some(Answer::Dropped));
    assert_eq!(answer_to("SM3").await, None);
}

#[tokio::test]
async fn the_columns_of_the_replaced_service_are_there_under_its_names() {
    let database = Database::create().await;
    one_by_one(&database, &facts()).await;
    let sql = "select phone_number, client_name, elevenlabs_conversation_id, agent_id, batch_id,
                   recipient_id, s.status, call_summary, call_duration_secs, started_at,
                   last_message_at, closed_at, message_count, s.metadata ->> 'group_name',
                   direction, content, twilio_message_id, elevenlabs_response ->> 'turn_id',
                   sent_at, delivered_at, read_at, m.metadata
               from conversation_state s join conversation_messages m on m.conversation_id = s.id
               where s.metadata ->> 'batch_name' = 'Llamada test' and m.id = 'a.1'";
    let row = sqlx::query(sql).fetch_one(&database.pool).await.unwrap();
    use sqlx::Row;
    let text = |n: usize| row.try_get::<String, _>(n).unwrap();
    assert_eq!(
        [text(0), text(2), text(13), text(14), text(16), text(17)],
        [
            CLIENT,
            "conv_rcpt_1",
            "Campaña Octubre",
            "outbound",
            "SM3",
            "turn_5"
        ]
    );
}

#[tokio::test]
async fn few_events_at_a_time_and_all_at_once_give_the_same_rows() {
    let database = Database::create().await;
    let mut facts = [facts(), whole_talk("+573007654321")].concat();
    one_by_one(&database, &facts[..]).await;
    let mut dice = Dice(7);
    for _ in 0..2 {
        facts = whole_talk("+573001112222");
        dice.shuffle(&mut facts);
        one_by_one(&database, &facts).await;
    }
    let live = dump(&database.pool).await;
    let engine = database.engine();
    assert_equal_a_rebuild(&engine).await;
    assert_eq!(dump(&database.pool).await, live);
    let sql = "select count(*) from conversation_quarters where started + opened + responded + sent
                   + received + response_count = 0";
    let empty: i64 = sqlx::query_scalar(sql)
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(empty, 0);
}

/// While an answer is asked for a person writes; the answer is refused for
/// good. The first of them is at `position`.
fn refused_for_good(contact: &str, position: i64) -> Vec<Told> {
    let name = format!("a{contact}");
    let part = format!("{name}.1");
    vec![
        heard(contact, "¿Cuánto cuesta?", 40),
        written(contact, &format!("w{contact}"), "Le escribe Luis.", 50),
        answered(position, &name, &["Cien."], 60),
        attempted(&part, 61),
        refused(&part, "21610", Remedy::OptOut, 62),
    ]
}

async fn assert_equal_a_rebuild(engine: &Engine) {
    let rebuilt = engine.rebuild("conversations", |_| ()).await.unwrap();
    let Rebuild::Done { differences, .. } = rebuilt else {
        panic!("it was not rebuilt")
    };
    assert_eq!(differences, Some(vec![]));
}

async fn batch_by_batch(database: &Database, engine: &Engine, batches: &[&[Told]]) {
    for batch in batches {
        append(&database.pool, batch).await;
        engine.settle().await.unwrap();
    }
}

#[tokio::test]
async fn wherever_a_batch_ends_the_rows_are_the_same() {
    let database = Database::create().await;
    let engine = database.engine();
    // Every way to cut a few: a bit for each place at which a batch may end.
    for ends in 0..16_u32 {
        let next = head(&database.pool).await + 1;
        let facts = refused_for_good(&contact(i64::from(ends)), next);
        let mut places = 0..facts.len();
        let batches: Vec<_> = facts
            .chunk_by(|_, _| ends >> places.next().unwrap() & 1 == 0)
            .collect();
        batch_by_batch(&database, &engine, &batches).await;
    }
    let sql = "select count(*) from conversation_messages where status = 'queued'";
    let waiting: i64 = sqlx::query_scalar(sql)
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(waiting, 0, "nothing is owed to who wants to hear no more");
    assert_equal_a_rebuild(&engine).await;
    // And many in any order, cut anywhere.
    let mut dice = Dice(11);
    for n in 20..23 {
        let mut facts = [whole_talk(&contact(n)), whole_talk(&contact(n + 10))].concat();
        dice.shuffle(&mut facts);
        let batches: Vec<_> = facts.chunk_by(|_, _| dice.below(6) > 0).collect();
        batch_by_batch(&database, &engine, &batches).await;
    }
    assert_equal_a_rebuild(&engine).await;
}

fn contact(n: i64) -> String {
    format!("+57300{n:07}")
}

async fn ids(conn: &mut PgConnection, filter: &Filter) -> Vec<String> {
    let rows = conversations::list(conn, filter, None, 100).await.unwrap();
    rows.into_iter().map(|row| row.phone_number).collect()
}

#[tokio::test]
async fn the_list_is_by_who_wrote_last_and_finds_by_status_number_and_name() {
    let database = Database::create().await;
    let mut facts: Vec<_> = (1..=7).map(|n| heard(&contact(n), "Hola", n)).collect();
    facts.push(started(&contact(3), "rcpt_3", 100));
    facts.push(changed(&contact(5), Decision::Closed, 101));
    append(&database.pool, &facts).await;
    database.engine().settle().await.unwrap();
    let mut conn = database.pool.acquire().await.unwrap();

    let all = ids(&mut conn, &Filter::default()).await;
    assert_eq!(all, [3, 7, 6, 5, 4, 2, 1].map(contact));
    let mut paged = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let filter = Filter::default();
        let page = conversations::list(&mut conn, &filter, after.as_ref(), 3).await;
        let page = page.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        paged.extend(page.into_iter().map(|row| row.phone_number));
    }
    assert_eq!(paged, all);

    let closed = Filter {
        status: Some(Status::Closed),
        ..Filter::default()
    };
    assert_eq!(ids(&mut conn, &closed).await, [contact(5)]);
    let named = |name: &str| Filter {
        name: Some(name.to_owned()),
        ..Filter::default()
    };
    assert_eq!(ids(&mut conn, &named("garcia")).await, [contact(3)]);
    assert_eq!(ids(&mut conn, &named("ANA")).await.len(), 7);
    assert!(ids(&mut conn, &named("luis")).await.is_empty());
    let numbered = Filter {
        ids: Some(vec![talk_id(&contact(6)), talk_id("+573009999999")]),
        ..Filter::default()
    };
    assert_eq!(ids(&mut conn, &numbered).await, [contact(6)]);
}
