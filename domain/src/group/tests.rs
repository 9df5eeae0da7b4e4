use super::*;
use crate::PhoneNumber;
use cqrs_es::Aggregate;
use proptest::prelude::*;
use serde_json::{Map, json};

fn settings(name: &str) -> Settings {
    Settings {
        name: name.into(),
        prefix: "57".into(),
        ..Settings::default()
    }
}

fn create(name: &str) -> Command {
    Command::Create {
        group_id: 55,
        created_by: "user:7".into(),
        settings: settings(name),
    }
}

fn client(n: usize) -> NewClient {
    NewClient {
        name: format!("Cliente {n}"),
        phone_number: PhoneNumber::parse(&format!("+57300{n:07}")).unwrap(),
        email: None,
        empresa: None,
        cargo: None,
        variables: Map::new(),
    }
}

fn tell(group: &mut Group, command: Command) -> Result<Vec<Event>, Error> {
    let events = group.decide(command)?;
    for event in events.clone() {
        group.apply(event);
    }
    Ok(events)
}

fn made() -> Group {
    let mut group = Group::default();
    tell(&mut group, create("Médicos Test")).unwrap();
    group
}

fn ids(events: &[Event]) -> Vec<i32> {
    let added = events.iter().filter_map(|event| match event {
        Event::ClientsAdded(added) => Some(&added.clients),
        _ => None,
    });
    added.flatten().map(|client| client.id).collect()
}

#[test]
fn a_group_is_made_once_and_its_prefix_has_a_plus() {
    let mut group = made();
    assert_eq!(group.settings().map(|s| s.prefix.as_str()), Some("+57"));
    assert_eq!(tell(&mut group, create("  Médicos Test ")), Ok(vec![]));
    assert_eq!(tell(&mut group, create("Otro")), Err(Error::AlreadyCreated));
}

#[test]
fn a_group_has_a_name_and_a_country() {
    let with = |name: &str, prefix: &str| {
        let settings = Settings {
            prefix: prefix.into(),
            ..settings(name)
        };
        settings.checked().map(|settings| settings.prefix)
    };
    assert_eq!(with("x", "+1"), Ok("+1".into()));
    assert_eq!(with("  ", "+57"), Err(Error::InvalidName));
    assert_eq!(with(&"x".repeat(201), "+57"), Err(Error::InvalidName));
    for bad in ["", "+", "abc", "+0", "+57300", "+5 7"] {
        assert_eq!(with("x", bad), Err(Error::InvalidPrefix), "{bad}");
    }
}

#[test]
fn an_update_changes_what_it_names_and_no_more() {
    let mut group = made();
    let update = |patch| Command::Update {
        updated_by: "user:7".into(),
        patch,
    };
    let agent = Patch {
        agent_id: Some(Some("agent_1".into())),
        ..Patch::default()
    };
    assert_eq!(tell(&mut group, update(agent.clone())).unwrap().len(), 1);
    assert_eq!(
        tell(&mut group, update(agent)),
        Ok(vec![]),
        "it is so already"
    );
    let renamed = Patch {
        name: Some("Odontólogos".into()),
        ..Patch::default()
    };
    tell(&mut group, update(renamed)).unwrap();
    let known = group.settings().unwrap();
    assert_eq!(known.agent_id.as_deref(), Some("agent_1"));
    let none = Patch {
        agent_id: Some(None),
        ..Patch::default()
    };
    tell(&mut group, update(none)).unwrap();
    assert_eq!(group.settings().unwrap().agent_id, None);
    let nobody = Group::default().decide(update(Patch::default()));
    assert_eq!(nobody, Err(Error::Unknown));
}

#[test]
fn clients_come_in_events_of_bounded_size_and_are_numbered_on() {
    let mut group = made();
    let many: Vec<_> = (0..2_500).map(client).collect();
    let events = tell(&mut group, Command::AddClients(many)).unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(ids(&events), (1..=2_500).collect::<Vec<_>>());
    let more = tell(
        &mut group,
        Command::AddClients(vec![client(7), client(9_000), client(9_000)]),
    );
    assert_eq!(ids(&more.unwrap()), [2_501], "the others were there");
    assert!(group.knows(&client(7).phone_number));
    let again = tell(&mut group, Command::AddClients(vec![client(7)]));
    assert_eq!(again, Ok(vec![]));
}

#[test]
fn a_group_does_not_grow_for_ever() {
    let mut group = made();
    let many = |n: usize| Command::AddClients((0..n).map(client).collect());
    assert_eq!(
        group.decide(many(CLIENTS_MAX + 1)),
        Err(Error::TooManyClients)
    );
    tell(&mut group, many(CLIENTS_MAX)).unwrap();
    let one_more = Command::AddClients(vec![client(CLIENTS_MAX)]);
    assert_eq!(group.decide(one_more), Err(Error::TooManyClients));
}

#[test]
fn an_agent_is_told_of_the_group_and_of_the_client() {
    let object = |value: serde_json::Value| value.as_object().cloned().unwrap();
    let client = Client {
        id: 1,
        name: "Dr. García".into(),
        phone_number: client(1).phone_number,
        email: None,
        empresa: Some("Hospital Central".into()),
        cargo: None,
        variables: object(json!({"ciudad": "Cali", "name": "x"})),
    };
    let told = client.dynamic_variables(&object(json!({"ciudad": "Bogotá", "año": 2025})));
    let expected = json!({
        "año": 2025, "ciudad": "Cali", "name": "Dr. García", "empresa": "Hospital Central",
    });
    assert_eq!(told, object(expected));
}

proptest! {
    #[test]
    fn however_clients_are_added_each_number_is_there_once(
        rounds in proptest::collection::vec(proptest::collection::vec(0..30_usize, 0..20), 0..6)
    ) {
        let mut group = made();
        let mut added = Vec::new();
        for round in rounds {
            let clients = round.into_iter().map(client).collect();
            added.extend(tell(&mut group, Command::AddClients(clients)).unwrap());
        }
        let numbered = ids(&added);
        prop_assert_eq!(&numbered, &(1..=numbered.len() as i32).collect::<Vec<_>>());
        prop_assert!(numbered.len() <= 30);
    }
}
