//! The pure part of Bitácora: what can happen (events), what may be decided
//! (aggregates) and the words both use.
//!
//! Nothing here reads a clock, draws a random number, opens a socket or knows
//! a provider, a database or HTTP. Whatever differs between providers has been
//! translated before it gets here.

pub mod audit;
pub mod batch;
pub mod call;
pub mod conversation;
pub mod delivery;
pub mod effect;
pub mod event;
pub mod fact;
pub mod group;
pub mod line;
pub mod log;
pub mod message;
pub mod otp;
pub mod phone;
pub mod sealed;
pub mod subject;
pub mod user;
mod words;

pub use event::Event;
pub use fact::{Fact, StreamId};
pub use phone::{PhoneIndex, PhoneNumber};
pub use words::{Channel, Direction, Provider};
