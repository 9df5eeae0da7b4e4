//! The people at the other end: they read our messages, answer some, and may ask us to stop.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{
    builderbot, script,
    stamps::DAY_SECS,
    twilio,
    world::{Step, World},
};

/// Words by which a person opts out, and in again. Twilio's own.
const STOP_WORDS: [&str; 6] = ["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT"];
const START_WORDS: [&str; 3] = ["START", "YES", "UNSTOP"];

/// How a person writes to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// WhatsApp by Twilio.
    #[default]
    Whatsapp,
    /// SMS by Twilio.
    Sms,
    /// WhatsApp by builderbot.cloud.
    Builderbot,
}

/// A person's message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Letter {
    pub(crate) channel: Channel,
    /// With its plus sign.
    pub(crate) number: String,
    /// The service's number; its usual one when absent.
    pub(crate) to: Option<String>,
    pub(crate) body: String,
    pub(crate) profile_name: Option<String>,
    pub(crate) media: Option<String>,
    pub(crate) location: Option<(f64, f64)>,
    pub(crate) button_payload: Option<String>,
    pub(crate) reply_to_sid: Option<String>,
}

/// What is known of people.
#[derive(Default)]
pub(crate) struct State {
    opted_out: HashSet<String>,
    /// When they last wrote, in Unix seconds.
    wrote: HashMap<String, u64>,
    replies: HashMap<String, u32>,
}

impl State {
    pub(crate) fn has_opted_out(&self, number: &str) -> bool {
        self.opted_out.contains(number)
    }

    /// Whether free text may be sent by WhatsApp: within 24 hours of their last message.
    pub(crate) fn window_is_open(&self, number: &str, now_unix: u64) -> bool {
        let wrote = self.wrote.get(number);
        wrote.is_some_and(|at| now_unix < at + DAY_SECS)
    }

    /// Opens the window, as if they had just written.
    pub(crate) fn open_window(&mut self, number: &str, now_unix: u64) {
        self.wrote.insert(number.to_owned(), now_unix);
    }

    /// Closes the window, as if they had never written.
    pub(crate) fn close_window(&mut self, number: &str) {
        self.wrote.remove(number);
    }
}

/// [`Step::Write`]: a person sends a message.
pub(crate) fn write(world: &mut World, letter: Letter) {
    let now = world.clock.unix();
    let word = letter.body.trim().to_uppercase();
    if STOP_WORDS.contains(&word.as_str()) {
        world.phones.opted_out.insert(letter.number.clone());
    } else if START_WORDS.contains(&word.as_str()) {
        world.phones.opted_out.remove(&letter.number);
    }
    match letter.channel {
        Channel::Builderbot => builderbot::receive(world, &letter),
        Channel::Whatsapp => {
            world.phones.open_window(&letter.number, now);
            let own = twilio::whatsapp_sender(&world.options);
            let to = letter.to.clone().unwrap_or(own);
            let from = format!("whatsapp:{}", letter.number);
            twilio::incoming::receive(world, from, to, &letter);
        }
        Channel::Sms => {
            let own = world.options.twilio_from_number.clone();
            let to = letter.to.clone().unwrap_or(own);
            twilio::incoming::receive(world, letter.number.clone(), to, &letter);
        }
    }
}

/// A message of ours that reached someone.
pub(crate) struct Heard {
    pub(crate) channel: Channel,
    pub(crate) number: String,
    pub(crate) our_address: Option<String>,
    pub(crate) sid: Option<String>,
}

/// Lets someone think about an answer to our message.
pub(crate) fn consider_reply(world: &mut World, heard: &Heard) {
    if heard.channel == Channel::Sms {
        return;
    }
    let rates = world.options.rates.clone();
    let answers = world
        .fate
        .draw("phone", &heard.number)
        .chance(rates.phone_answers);
    let given = world
        .phones
        .replies
        .get(&heard.number)
        .copied()
        .unwrap_or(0);
    if !answers || given >= rates.phone_replies {
        return;
    }
    world.phones.replies.insert(heard.number.clone(), given + 1);
    let name = format!("{}/{given}", heard.number);
    let mut draw = world.fate.draw("reply", &name);
    let wait_ms = draw.within(rates.reply_secs.times(1000));
    let stops = draw.chance(rates.phone_stop);
    let shows = draw.chance(rates.phone_media) && !stops;
    let said = script::person(world.fate.draw("reply text", &name), given);
    let letter = Letter {
        channel: heard.channel,
        number: heard.number.clone(),
        to: heard.our_address.clone(),
        body: match (stops, shows) {
            (true, _) => "STOP".to_owned(),
            (_, true) => String::new(),
            _ => said,
        },
        profile_name: None,
        media: shows.then(|| "image/png".to_owned()),
        location: None,
        button_payload: None,
        reply_to_sid: heard.sid.clone(),
    };
    world.plan_in(wait_ms, Step::Write(Box::new(letter)));
}
