//! The requests that came in, and the faults that await the next ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    fate::Fate,
    http::Call,
    rates::Rates,
    truth::{OperationTruth, RequestTruth},
};

/// Of one operation, as many requests are kept whole; the rest are only counted.
const REQUESTS_KEPT: usize = 20_000;

/// Of one request, as many bytes of the body are kept.
const BODY_BYTES_KEPT: usize = 64 * 1024;

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Refuse it with this HTTP status and the provider's own body; do nothing.
    Refuse(u16),
    /// Carry it out, then answer as if it had failed with this HTTP status.
    RefuseAfterWork(u16),
    /// Refuse it with this Twilio code; do nothing.
    TwilioCode(u32),
    /// Never answer; do nothing.
    Hang,
    /// Carry it out and never answer.
    HangAfterWork,
    /// Carry it out and answer after so many real milliseconds more.
    SlowMs(u64),
    /// End a text session with this `error_type` (operation `elevenlabs.session_turn`).
    SessionError(String),
}

/// A fault that waits for the next requests of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Trap {
    pub(crate) operation: String,
    pub(crate) times: u32,
    pub(crate) fault: Fault,
}

/// Which request of which operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    operation: &'static str,
    number: u64,
}

/// The log of requests and the traps set for them.
#[derive(Default)]
pub(crate) struct Requests {
    operations: BTreeMap<&'static str, OperationTruth>,
    traps: Vec<Trap>,
}

impl Requests {
    /// Writes a request down.
    pub(crate) fn record(
        &mut self,
        operation: &'static str,
        call: &Call,
        at_unix_ms: u64,
    ) -> Ticket {
        let known = self.operations.entry(operation).or_default();
        let number = known.count;
        known.count += 1;
        if known.requests.len() < REQUESTS_KEPT {
            let kept = &call.body[..call.body.len().min(BODY_BYTES_KEPT)];
            known.requests.push(RequestTruth {
                at_unix_ms,
                path: call.path_and_query.clone(),
                body: String::from_utf8_lossy(kept).into_owned(),
                body_bytes: call.body.len(),
                carried_out: false,
                answer: None,
            });
        }
        Ticket { operation, number }
    }

    /// Notes that a request had its effect.
    pub(crate) fn carried_out(&mut self, ticket: Ticket) {
        if let Some(operation) = self.operations.get_mut(ticket.operation) {
            operation.carried_out += 1;
            if let Some(request) = operation.requests.get_mut(ticket.number as usize) {
                request.carried_out = true;
            }
        }
    }

    /// Notes the HTTP status that a request was answered with.
    pub(crate) fn answered(&mut self, ticket: Ticket, status: u16) {
        if let Some(operation) = self.operations.get_mut(ticket.operation)
            && let Some(request) = operation.requests.get_mut(ticket.number as usize)
        {
            request.answer = Some(status);
        }
    }

    /// Sets a trap; later ones wait for earlier ones.
    pub(crate) fn set_trap(&mut self, trap: Trap) {
        self.traps.push(trap);
    }

    /// Springs the first trap set for `operation`, if any.
    pub(crate) fn spring(&mut self, operation: &str) -> Option<Fault> {
        let at = self
            .traps
            .iter()
            .position(|t| t.operation == operation || t.operation == "*")?;
        let trap = self.traps.get_mut(at)?;
        let fault = trap.fault.clone();
        trap.times = trap.times.saturating_sub(1);
        if trap.times == 0 {
            self.traps.remove(at);
        }
        Some(fault)
    }

    /// What goes wrong with the request: what was scripted, else what chance says.
    pub(crate) fn fault(&mut self, ticket: Ticket, fate: Fate, rates: &Rates) -> Option<Fault> {
        if let Some(fault) = self.spring(ticket.operation) {
            return Some(fault);
        }
        let mut draw = fate.draw("request", &ticket.name());
        let (refused, busy, hung) = (
            draw.chance(rates.refused),
            draw.chance(0.5),
            draw.chance(rates.hang),
        );
        match (refused, hung) {
            (true, _) => Some(Fault::Refuse(if busy { 429 } else { 500 })),
            (false, true) => Some(Fault::HangAfterWork),
            (false, false) => None,
        }
    }

    /// Everything that came in, by operation.
    pub(crate) fn truth(&self) -> BTreeMap<String, OperationTruth> {
        self.operations
            .iter()
            .map(|(name, operation)| ((*name).to_owned(), operation.clone()))
            .collect()
    }
}

impl Ticket {
    /// The request's name, for fate.
    pub(crate) fn name(self) -> String {
        format!("{}#{}", self.operation, self.number)
    }
}
