//! The measures, by what is looked at, as lines of the report.

mod erasure;
mod folding;
mod full;
mod latency;
mod memory;
mod protection;
mod taking;
