//! What a leaf commits to: every column of an event or a delivery, as stored.
//!
//! An entry is a line that names the form, then the fields in their order, each
//! as a length (four bytes, big-endian, -1 for null) and that many bytes. Of a
//! text or of bytes that may be long the field is the SHA-256, so that every
//! entry fits into an entry bundle (C2SP tlog-tiles: less than 64 KiB), and an
//! entry says nothing of what a person said. Never change a form: make a next
//! one with another first line.

use sha2::{Digest, Sha256};
use tlog_tiles::{Hash, record_hash};

/// The first line of an event's entry.
const EVENT_V1: &[u8] = b"bitacora.event/v1\n";
/// The first line of a delivery's entry.
const DELIVERY_V1: &[u8] = b"bitacora.delivery/v1\n";

/// An event as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLeaf<'a> {
    /// Place in the one total order.
    pub position: i64,
    /// Kind of aggregate.
    pub aggregate_type: &'a [u8],
    /// The aggregate.
    pub aggregate_id: &'a [u8],
    /// Place in its stream.
    pub sequence: i64,
    /// Name.
    pub event_type: &'a [u8],
    /// Version.
    pub event_version: &'a [u8],
    /// The JSON text, byte for byte.
    pub payload: &'a [u8],
    /// The JSON text, byte for byte.
    pub metadata: &'a [u8],
    /// Microseconds since 1970.
    pub occurred_at: Option<i64>,
    /// Microseconds since 1970.
    pub recorded_at: i64,
    /// The delivery that brought it.
    pub delivery_id: Option<[u8; 16]>,
}

/// A delivery as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryLeaf<'a> {
    /// UUID version 7.
    pub id: [u8; 16],
    /// Place among the deliveries.
    pub seq: i64,
    /// Whose.
    pub provider: &'a [u8],
    /// Which webhook.
    pub route: &'a [u8],
    /// What was made of it.
    pub verdict: &'a [u8],
    /// Why.
    pub reason: Option<&'a [u8]>,
    /// By what it was found authentic.
    pub authentication: &'a [u8],
    /// What is the same for ever.
    pub dedup_key: Option<&'a [u8]>,
    /// What is the same for minutes.
    pub repeat_key: Option<&'a [u8]>,
    /// The first of its kind.
    pub duplicate_of: Option<[u8; 16]>,
    /// What it is a second reading of.
    pub reprocess_of: Option<[u8; 16]>,
    /// Of its last event.
    pub position: Option<i64>,
    /// Microseconds since 1970.
    pub received_at: i64,
    /// Where from.
    pub remote_addr: Option<&'a [u8]>,
    /// Path and query.
    pub request_target: &'a [u8],
    /// The JSON text, byte for byte.
    pub headers: &'a [u8],
    /// Byte for byte; null where it is that of another delivery.
    pub body: Option<&'a [u8]>,
    /// Its size.
    pub body_bytes: i64,
}

impl EventLeaf<'_> {
    /// The entry: what the leaf is the hash of.
    pub fn entry(&self) -> Vec<u8> {
        let mut entry = Entry::new(EVENT_V1);
        entry.number(self.position);
        entry.bytes(self.aggregate_type);
        entry.bytes(self.aggregate_id);
        entry.number(self.sequence);
        entry.bytes(self.event_type);
        entry.bytes(self.event_version);
        entry.digest(self.payload);
        entry.digest(self.metadata);
        entry.optional(self.occurred_at, Entry::number);
        entry.number(self.recorded_at);
        entry.optional(self.delivery_id, |entry, id| entry.bytes(&id));
        entry.0
    }

    /// The leaf.
    pub fn hash(&self) -> Hash {
        record_hash(&self.entry())
    }
}

impl DeliveryLeaf<'_> {
    /// The entry: what the leaf is the hash of.
    pub fn entry(&self) -> Vec<u8> {
        let mut entry = Entry::new(DELIVERY_V1);
        entry.bytes(&self.id);
        entry.number(self.seq);
        entry.bytes(self.provider);
        entry.bytes(self.route);
        entry.bytes(self.verdict);
        entry.optional(self.reason, Entry::digest);
        entry.bytes(self.authentication);
        entry.optional(self.dedup_key, Entry::bytes);
        entry.optional(self.repeat_key, Entry::bytes);
        entry.optional(self.duplicate_of, |entry, id| entry.bytes(&id));
        entry.optional(self.reprocess_of, |entry, id| entry.bytes(&id));
        entry.optional(self.position, Entry::number);
        entry.number(self.received_at);
        entry.optional(self.remote_addr, Entry::digest);
        entry.digest(self.request_target);
        entry.digest(self.headers);
        entry.optional(self.body, Entry::digest);
        entry.number(self.body_bytes);
        entry.0
    }

    /// The leaf.
    pub fn hash(&self) -> Hash {
        record_hash(&self.entry())
    }
}

/// Room for an entry without growing.
const ENTRY_BYTES: usize = 512;

struct Entry(Vec<u8>);

impl Entry {
    fn new(form: &[u8]) -> Self {
        let mut entry = Vec::with_capacity(ENTRY_BYTES);
        entry.extend_from_slice(form);
        Self(entry)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // PostgreSQL holds no field of 2 GiB.
        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    fn digest(&mut self, bytes: &[u8]) {
        self.bytes(&Sha256::digest(bytes));
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.0.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
}
