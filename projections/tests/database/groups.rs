//! Groups and their clients.

use domain::group::{Client, ClientsAdded, Created, Event as GroupEvent, Settings, Updated};
use domain::{Event, Fact, PhoneNumber, StreamId};
use projections::engine::Rebuild;
use projections::groups;
use serde_json::json;

use crate::facts::{Told, at, phones};
use crate::harness::*;

const CLIENTS: i32 = 2_500;

fn told(id: i32, event: GroupEvent, secs: i64) -> Told {
    let stream = StreamId {
        aggregate_type: "group",
        aggregate_id: id.to_string(),
    };
    let fact = Fact {
        stream,
        event: Event::Group(event),
        occurred_at: Some(at(secs)),
    };
    Told {
        fact,
        provider: None,
    }
}

fn settings(name: &str) -> Settings {
    Settings {
        name: name.into(),
        agent_id: Some("agent_1".into()),
        phone_number_id: None,
        prefix: "+57".into(),
        variables: json!({"ciudad": "Bogotá"}).as_object().cloned().unwrap(),
    }
}

pub fn made(id: i32, name: &str) -> Told {
    let created = Created {
        group_id: id,
        created_by: "user:1".into(),
        settings: settings(name),
    };
    told(id, GroupEvent::Created(created), i64::from(id))
}

fn number(n: i32) -> PhoneNumber {
    PhoneNumber::parse(&format!("+5730{n:08}")).unwrap()
}

pub fn joined(id: i32, clients: std::ops::RangeInclusive<i32>) -> Told {
    let client = |n: i32| Client {
        id: n,
        name: format!("Cliente \0{n}"),
        phone_number: number(n),
        email: Some(format!("c{n}@example.com")),
        empresa: None,
        cargo: None,
        variables: json!({"nota\0": "a\0b"}).as_object().cloned().unwrap(),
    };
    let added = ClientsAdded {
        group_id: id,
        clients: clients.map(client).collect(),
    };
    told(id, GroupEvent::ClientsAdded(added), 100)
}

fn renamed(id: i32, name: &str) -> Told {
    let updated = Updated {
        group_id: id,
        updated_by: "user:2".into(),
        settings: Settings {
            agent_id: None,
            ..settings(name)
        },
    };
    told(id, GroupEvent::Updated(updated), 200)
}

#[tokio::test]
async fn a_group_is_what_its_events_add_up_to() {
    let database = Database::create().await;
    let facts = [
        made(1, "Médicos"),
        made(2, "Odontólogos"),
        joined(1, 1..=1_000),
        joined(1, 1_001..=2_000),
        joined(2, 1..=3),
        joined(1, 2_001..=CLIENTS),
        renamed(1, "Médicos de Cali"),
    ];
    append(&database.pool, &facts).await;
    database.engine().settle().await.unwrap();
    let mut conn = database.pool.acquire().await.unwrap();

    let group = groups::get(&mut conn, 1).await.unwrap().unwrap();
    assert_eq!(
        (group.name.as_str(), group.clients_count),
        ("Médicos de Cali", CLIENTS)
    );
    assert_eq!(group.agent_id, None);
    assert_eq!(group.variables["ciudad"], "Bogotá");
    assert_eq!((group.created_at, group.updated_at), (at(1), at(200)));
    assert_eq!(groups::get(&mut conn, 3).await.unwrap(), None);

    let all = groups::list(&mut conn, None, 10).await.unwrap();
    assert_eq!(all.iter().map(|group| group.id).collect::<Vec<_>>(), [1, 2]);
    let after = groups::list(&mut conn, Some(1), 10).await.unwrap();
    assert_eq!(after.len(), 1);

    let page = groups::clients(&mut conn, 1, Some(CLIENTS - 1), 10).await;
    let page = page.unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(page[0].name, format!("Cliente {CLIENTS}"));
    assert_eq!(page[0].variables["nota"], "ab");
    let first = groups::clients(&mut conn, 1, None, 7).await.unwrap();
    assert_eq!(first.iter().map(|c| c.id).sum::<i32>(), 28);
}

#[tokio::test]
async fn somebody_is_found_in_every_group_by_the_key_of_the_number() {
    let database = Database::create().await;
    let facts = [
        made(1, "a"),
        made(2, "b"),
        joined(1, 1..=9),
        joined(2, 1..=3),
    ];
    append(&database.pool, &facts).await;
    database.engine().settle().await.unwrap();
    let mut conn = database.pool.acquire().await.unwrap();
    let key = phones().key(number(2).as_str());
    let found = groups::by_phone(&mut conn, &key, 10).await.unwrap();
    let found: Vec<_> = found.iter().map(|c| (c.group_id, c.id)).collect();
    assert_eq!(found, [(1, 2), (2, 2)]);
}

#[tokio::test]
async fn a_rebuild_gives_the_same_groups() {
    let database = Database::create().await;
    let facts = [
        made(1, "a"),
        joined(1, 1..=40),
        made(2, "b"),
        renamed(2, "c"),
        joined(1, 41..=60),
    ];
    let engine = database.engine();
    for fact in &facts {
        append(&database.pool, std::slice::from_ref(fact)).await;
        engine.settle().await.unwrap();
    }
    let live = dump(&database.pool).await;
    assert_eq!(count(&database.pool, "group_clients").await, 60);
    let rebuilt = engine.rebuild("groups", |_| ()).await.unwrap();
    let Rebuild::Done { differences, .. } = rebuilt else {
        panic!("it was not rebuilt")
    };
    assert_eq!(differences, Some(vec![]));
    assert_eq!(dump(&database.pool).await, live);
}
