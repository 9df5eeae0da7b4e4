//! One-time codes on their way: contract, section 7.

use bitacora::otp::Otp;
use sandbox::Fault;
use serde_json::{Value, json};

use super::{World, calm};
use crate::harness::app::{answer, ok};
use crate::harness::read_models::assert_equal_a_rebuild;
use crate::otp::cells_with;

#[tokio::test(flavor = "multi_thread")]
async fn a_code_reaches_its_telephone_once_and_is_nowhere_else() {
    let world = World::start(calm(), 41).await;
    // Two that nobody heard the answer to, one of them after it had gone out.
    for fault in [Fault::HangAfterWork, Fault::Hang] {
        world.script("twilio.message_create", 1, fault).await;
    }
    let mut challenges = vec![];
    for n in 0..6 {
        let phone = format!("+57300123456{n}");
        let body = json!({"phone_number": phone, "purpose": "login"});
        let (status, made) = answer(world.api.post_as("service", "/api/otp", &body)).await;
        assert_eq!(status, 202, "{made}");
        let id = made["data"]["challenge_id"].as_str().unwrap().to_owned();
        challenges.push((id, phone));
    }
    let delivered = "select count(*) from otp_challenges where status = 'delivered'";
    world.until("delivered", delivered, 6).await;

    let mut codes = vec![];
    for (id, phone) in &challenges {
        let texts = world.sent_to(phone);
        let code = world.api.app().otp.code(id);
        assert_eq!(texts, [Otp::text(&code)], "{phone}");
        // As the person reads it.
        let read: String = texts[0].chars().filter(char::is_ascii_digit).collect();
        let body = json!({"challenge_id": id, "code": read});
        ok(world.api.post_as("service", "/api/otp/verify", &body)).await;
        codes.push(read);
    }
    world.until_settled().await;
    for (id, phone) in &challenges {
        let path = format!("/api/interactions/{id}");
        let shown = world.api.read(&path).await["data"].take();
        let row = json!([shown["status"], shown["message_count"], shown["provider"]]);
        assert_eq!(row, json!(["verified", 1, "twilio"]), "{phone}");
        let message = &shown["messages"][0];
        let message = json!([message["content"], message["status"], message["direction"]]);
        let kept = json!([Otp::masked_text(), "delivered", "outbound"]);
        assert_eq!(message, kept);
    }
    let listed = world.api.read("/api/interactions?channel=sms").await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(6));
    for code in codes {
        assert_eq!(
            cells_with(&world.api.pool, &code).await,
            Vec::<String>::new()
        );
    }
    let queue = world.api.get_as("service", "/api/effects");
    let queue: Value = ok(queue).await;
    for effect in queue["data"].as_array().unwrap() {
        assert_eq!(effect["content"], Value::Null, "{effect}");
    }
    assert_equal_a_rebuild(&world.api.pool).await;
    world.stop().await;
}
