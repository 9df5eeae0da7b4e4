//! The world: what the three providers know, and what is going to happen when.
//!
//! Everything that will happen is a [`Step`] on one agenda, and happens in the order of its due
//! time, then of its planning. Nothing here waits, sends or reads a clock of its own: the driver
//! does, so the same world runs in real time and by hand.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    builderbot,
    clock::Clock,
    elevenlabs,
    fate::Fate,
    options::Options,
    phones,
    requests::Requests,
    truth::Truth,
    twilio,
    webhooks::{self, Parcel, Postman},
};

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A batch begins to call.
    StartBatch { batch: usize },
    /// A recipient's number is dialled.
    Dial {
        batch: usize,
        recipient: usize,
        attempt: u32,
    },
    /// A telephone is picked up, by a person or a machine.
    PickUp { conversation: usize },
    /// A call is given up without an answer.
    GiveUp { conversation: usize },
    /// A call ends.
    HangUp { conversation: usize },
    /// An ended conversation has been analysed.
    Analysed { conversation: usize },
    /// A message reaches its next status.
    Message {
        message: usize,
        status: twilio::Status,
    },
    /// A person sends a message.
    Write(Box<phones::Letter>),
    /// A webhook is due.
    Deliver { webhook: usize, copy: usize },
}

/// The state of everything.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) clock: Arc<Clock>,
    pub(crate) fate: Fate,
    pub(crate) requests: Requests,
    pub(crate) postman: Postman,
    pub(crate) elevenlabs: elevenlabs::State,
    pub(crate) twilio: twilio::State,
    pub(crate) builderbot: builderbot::State,
    pub(crate) phones: phones::State,
    /// The sandbox's own address, for the links in its answers.
    pub(crate) base_url: String,
    agenda: BTreeMap<(u64, u64), Step>,
    planned: u64,
    ordinals: HashMap<String, u32>,
}

impl World {
    pub(crate) fn new(options: Options, clock: Arc<Clock>) -> Self {
        let fate = Fate::new(options.seed);
        Self {
            elevenlabs: elevenlabs::State::new(&options, fate, clock.unix()),
            clock,
            fate,
            requests: Requests::default(),
            postman: Postman::default(),
            twilio: twilio::State::default(),
            builderbot: builderbot::State::default(),
            phones: phones::State::default(),
            base_url: String::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            ordinals: HashMap::new(),
            options,
        }
    }

    /// Plans a step for a moment of the world's time.
    pub(crate) fn plan_at(&mut self, at_ms: u64, step: Step) {
        self.planned += 1;
        self.agenda.insert((at_ms, self.planned), step);
    }

    /// Plans a step for so many milliseconds from now.
    pub(crate) fn plan_in(&mut self, delay_ms: u64, step: Step) {
        self.plan_at(self.clock.now_ms() + delay_ms, step);
    }

    /// How many things of this name there have been before: the rest of a thing's own name.
    pub(crate) fn nth(&mut self, name: &str) -> u32 {
        let count = self.ordinals.entry(name.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    /// An id for ElevenLabs' error bodies.
    pub(crate) fn request_id(&mut self) -> String {
        let nth = self.nth("request id");
        self.fate.draw("request id", &nth.to_string()).hex()
    }

    /// When the next step is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.agenda.keys().next().map(|(due, _)| *due)
    }

    /// How many steps are planned.
    pub(crate) fn planned(&self) -> usize {
        self.agenda.len()
    }

    /// Takes the next step if it is due by `until_ms`.
    pub(crate) fn take_next(&mut self, until_ms: u64) -> Option<(u64, Step)> {
        let next = self
            .agenda
            .first_entry()
            .filter(|e| e.key().0 <= until_ms)?;
        let ((due, _), step) = next.remove_entry();
        Some((due, step))
    }

    /// Takes every planned delivery off the agenda, in order.
    pub(crate) fn take_deliveries(&mut self) -> Vec<Step> {
        let all = self
            .agenda
            .extract_if(.., |_, step| matches!(step, Step::Deliver { .. }));
        all.map(|(_, step)| step).collect()
    }

    /// Lets a step happen. Returns what has to be sent, if it was a delivery.
    pub(crate) fn happen(&mut self, step: Step) -> Option<Parcel> {
        match step {
            Step::StartBatch { batch } => elevenlabs::calls::start(self, batch),
            Step::Dial {
                batch,
                recipient,
                attempt,
            } => {
                elevenlabs::calls::dial(self, batch, recipient, attempt);
            }
            Step::PickUp { conversation } => elevenlabs::calls::pick_up(self, conversation),
            Step::GiveUp { conversation } => elevenlabs::calls::give_up(self, conversation),
            Step::HangUp { conversation } => elevenlabs::calls::hang_up(self, conversation),
            Step::Analysed { conversation } => elevenlabs::calls::analysed(self, conversation),
            Step::Message { message, status } => twilio::delivery::reach(self, message, status),
            Step::Write(letter) => phones::write(self, *letter),
            Step::Deliver { webhook, copy } => return webhooks::hand_over(self, webhook, copy),
        }
        None
    }

    /// What really happened.
    pub(crate) fn truth(&self) -> Truth {
        Truth {
            seed: self.options.seed,
            now_unix_ms: self.clock.unix_ms(),
            pending: self.planned() + self.postman.parked(),
            batches: elevenlabs::truth_of_batches(self),
            conversations: elevenlabs::truth_of_conversations(self),
            messages: self.all_messages(),
            webhooks: self.postman.truth(),
            requests: self.requests.truth(),
        }
    }

    fn all_messages(&self) -> Vec<crate::truth::MessageTruth> {
        let mut all = twilio::truth_of_messages(self);
        all.extend(self.builderbot.truth());
        all
    }
}
