//! The body of a delivery, sealed: the mark, the key's id, the length of what
//! is inside (4 bytes, big-endian), and the rest.

use uuid::Uuid;

use super::SubjectKey;

/// What no request begins with: it begins and ends with a NUL.
const MARK: &[u8; 8] = b"\0sealed\0";
const LENGTH_AT: usize = MARK.len() + 16;
const SEALED_AT: usize = LENGTH_AT + 4;
const WHAT: &[u8] = b"body";

/// Seals a body.
pub fn seal_body(key: &SubjectKey, body: &[u8]) -> Vec<u8> {
    let sealed = key.seal(WHAT, body);
    let mut out = Vec::with_capacity(SEALED_AT + sealed.len());
    out.extend_from_slice(MARK);
    out.extend_from_slice(key.id().as_bytes());
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend(sealed);
    out
}

/// Under which key a body is; `None` when it is not sealed.
pub fn body_key_id(stored: &[u8]) -> Option<Uuid> {
    let rest = stored.strip_prefix(MARK)?;
    (stored.len() >= SEALED_AT).then(|| Uuid::from_slice(&rest[..16]).ok())?
}

/// A sealed body opened; `None` when it is not of this key.
pub fn open_body(key: &SubjectKey, stored: &[u8]) -> Option<Vec<u8>> {
    key.open(WHAT, stored.get(SEALED_AT..)?)
}
