//! What the provider did and we never heard.

use sandbox::{Channel, Fault};

use super::{World, calm};

const ANA: &str = "+573001234567";
const DONE: &str = "select count(*) from effects where kind = 'message' and state = 'done'";

async fn adopted(world: &World) -> i64 {
    let sql = "select count(*) from events where event_type = 'effect.sent'
               and (payload ->> 'adopted')::boolean";
    world.api.count(sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_went_out_unheard_is_found_and_not_sent_again() {
    let world = World::start(calm(), 11).await;
    world
        .script("twilio.message_create", 1, Fault::HangAfterWork)
        .await;
    world.hears(ANA, "Hola").await;
    world.until("sent", DONE, 1).await;
    assert_eq!(world.sent_to(ANA).len(), 1);
    assert_eq!(adopted(&world).await, 1);
    assert_eq!(
        world.sandbox.truth().request_count("twilio.message_create"),
        1
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_arrived_is_sent_again_once_it_cannot_arrive() {
    let world = World::start(calm(), 12).await;
    world.script("twilio.message_create", 1, Fault::Hang).await;
    world.hears(ANA, "Hola").await;
    world.until("sent", DONE, 1).await;
    assert_eq!(world.sent_to(ANA).len(), 1);
    assert_eq!(adopted(&world).await, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_words_twice_are_two_messages() {
    let world = World::start(calm(), 13).await;
    world.hears(ANA, "Hola").await;
    world.until("sent", DONE, 1).await;
    world
        .script("twilio.message_create", 1, Fault::HangAfterWork)
        .await;
    world.hears(ANA, "Hola").await;
    world.until("sent", DONE, 2).await;
    assert_eq!(world.sent_to(ANA).len(), 2);
    let ids = "select count(distinct provider_message_id) from effects where kind = 'message'";
    assert_eq!(world.api.count(ids).await, 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_while_it_sends_is_followed_by_one_that_looks_first() {
    let mut world = World::start(calm(), 14).await;
    world
        .script("twilio.message_create", 1, Fault::HangAfterWork)
        .await;
    world.hears(ANA, "Hola").await;
    let attempted = "select count(*) from effects where kind = 'message' and state = 'attempted'";
    world.until("attempted", attempted, 1).await;
    world.kill_a_worker().await;
    world.until("sent", DONE, 1).await;
    assert_eq!(world.sent_to(ANA).len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builderbots_own_webhook_tells_of_a_message_that_went_out_unheard() {
    let world = World::start(calm(), 15).await;
    world
        .script("builderbot.message_send", 1, Fault::HangAfterWork)
        .await;
    world
        .hear([(Channel::Builderbot, ANA.to_owned(), "Hola".to_owned())])
        .await;
    world.until("sent", DONE, 1).await;
    assert_eq!(world.sent_to(ANA).len(), 1);
    assert_eq!(adopted(&world).await, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_builderbot_never_tells_of_is_asked_of_a_person() {
    let world = World::start(calm(), 16).await;
    world
        .script("builderbot.message_send", 1, Fault::Hang)
        .await;
    world
        .hear([(Channel::Builderbot, ANA.to_owned(), "Hola".to_owned())])
        .await;
    let dead = "select count(*) from effects where state = 'dead'";
    world.until("dead letters", dead, 1).await;
    assert_eq!(world.sent_to(ANA).len(), 0);
    let listed = world.api.read("/api/effects?state=dead").await;
    let id = listed["data"][0]["id"].as_str().unwrap().to_owned();
    let retry = format!("/api/effects/{id}/retry");
    crate::harness::app::ok(
        world
            .api
            .post_as("supervisor", &retry, &serde_json::json!({})),
    )
    .await;
    world.until("sent", DONE, 1).await;
    assert_eq!(world.sent_to(ANA).len(), 1);
    world.stop().await;
}
