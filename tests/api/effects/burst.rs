//! Many people write at once while workers die: everybody is answered, once,
//! in order.

use std::collections::BTreeMap;

use bitacora::ledger::events::{self, Filter};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sandbox::{Channel, Rates};

use super::{World, calm};
use crate::harness::app::opener;

/// What each person wrote, in the order in which the ledger has it.
async fn heard(world: &World) -> BTreeMap<String, Vec<String>> {
    let filter = Filter {
        event_type: Some("message.received".to_owned()),
        ..Filter::default()
    };
    let received = events::list(&world.api.pool, &opener(), &filter, 100_000).await;
    let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in received.unwrap() {
        let text = |field: &str| event.payload[field].as_str().unwrap().to_owned();
        heard
            .entry(text("contact"))
            .or_default()
            .push(text("content"));
    }
    heard
}

/// The message that an answer of the stand-in's agent quotes.
fn quoted(answer: &str) -> String {
    let rest = answer.split_once('«').expect("the agent quotes").1;
    rest.split_once('»').expect("the agent quotes").0.to_owned()
}

/// `phones` people write `messages` each, in bursts; between the bursts a
/// worker dies.
async fn burst(seed: u64, phones: usize, messages: usize, rates: Rates) {
    let mut world = World::start(rates, seed).await;
    world.add_worker().await;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut letters: Vec<_> = (0..phones)
        .map(|phone| (format!("+57300{phone:07}"), 0))
        .collect();
    while !letters.is_empty() {
        let some = rng.random_range(1..=phones * 5);
        let mut batch = Vec::new();
        for _ in 0..some {
            if letters.is_empty() {
                break;
            }
            let at = rng.random_range(0..letters.len());
            let (phone, said) = &mut letters[at];
            *said += 1;
            batch.push((Channel::Whatsapp, phone.clone(), format!("mensaje {said}")));
            if *said == messages {
                letters.swap_remove(at);
            }
        }
        world.hear(batch).await;
        for _ in 0..rng.random_range(0..20) {
            world.tick().await;
        }
        world.kill_a_worker().await;
    }
    let all = i64::try_from(phones * messages).unwrap();
    let received = "select count(*) from events where event_type = 'message.received'";
    world.until("messages received", received, all).await;
    for _ in 0..3 {
        world.tick().await;
        world.kill_a_worker().await;
    }
    world.until_settled().await;

    let heard = heard(&world).await;
    assert_eq!(heard.len(), phones);
    let sent = world.sent();
    for (phone, said) in &heard {
        let answers = sent.get(phone).map(Vec::as_slice).unwrap_or_default();
        let answered: Vec<_> = answers.iter().map(|answer| quoted(&answer.body)).collect();
        assert_eq!(&answered, said, "seed {seed}, {phone}");
    }
    let dead = "select count(*) from effects where state not in ('done')";
    world.until("effects not done", dead, 0).await;
    world.stop_and_compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_messages_from_each_of_fifty_phones_are_answered_once_in_order() {
    burst(1, 50, 20, calm()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_on_the_way_every_message_is_answered_once_in_order() {
    for seed in seeds() {
        let rates = Rates {
            twice: 0.1,
            late: 0.1,
            late_secs: "1..5".parse().unwrap(),
            refused: 0.03,
            hang: 0.02,
            session_error: 0.03,
            correction: 0.2,
            ..calm()
        };
        burst(seed, 12, 8, rates).await;
    }
}

/// `BURST_SEEDS=100..200` runs many.
fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("BURST_SEEDS").ok();
    let given = given.as_deref().and_then(|text| text.split_once(".."));
    given.map_or(2..6, |(from, to)| {
        from.parse().unwrap()..to.parse().unwrap()
    })
}
