//! Keys: of a subject, and the master keys that wrap those.

use std::fmt;

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::packing::{pack, unpack};

/// The form of a wrapped key.
const WRAPPED_V1: u8 = 1;
/// Bytes that tell master keys apart.
const MASTER_ID_BYTES: usize = 4;

/// The key of one subject. AES-256-GCM-SIV under one nonce: the same text under
/// the same key gives the same bytes, by which repeats are recognised, and
/// nothing else is given away.
///
/// It is kept as its bytes: many are held at once, and what AES makes of one
/// takes thirty times the room and no time worth saving.
pub struct SubjectKey {
    id: Uuid,
    bytes: [u8; 32],
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKey({})", self.id)
    }
}

impl SubjectKey {
    fn cipher(&self) -> Aes256GcmSiv {
        Aes256GcmSiv::new(&self.bytes.into())
    }

    /// Its public name.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Encrypts. `what` says what it is, and must be the same at opening.
    pub(super) fn seal(&self, what: &[u8], plain: &[u8]) -> Vec<u8> {
        let packed = pack(plain);
        let message = Payload {
            msg: &packed,
            aad: what,
        };
        let sealed = self.cipher().encrypt(&Nonce::default(), message);
        sealed.expect("a text of less than 64 GiB can be encrypted")
    }

    /// Decrypts; `None` when it was not encrypted under this key.
    pub(super) fn open(&self, what: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let message = Payload {
            msg: sealed,
            aad: what,
        };
        unpack(self.cipher().decrypt(&Nonce::default(), message).ok()?)
    }
}

/// The keys that wrap the keys of subjects: the first wraps, all unwrap.
#[derive(Clone)]
pub struct MasterKeys(std::sync::Arc<[Master]>);

struct Master {
    id: [u8; MASTER_ID_BYTES],
    cipher: Aes256GcmSiv,
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKeys(secret)")
    }
}

/// None of the master keys opens a key of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "MASTER_KEY does not open the key {0} of the ledger: is it the one that this ledger was written with?"
)]
pub struct WrongMasterKey(pub Uuid);

impl MasterKeys {
    /// Of secrets of any form, at least one; each should be as good as 32
    /// random bytes.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let masters = secrets.into_iter().map(|secret| {
            let id = digest(secret, b"bitacora master key id");
            Master {
                id: [id[0], id[1], id[2], id[3]],
                cipher: Aes256GcmSiv::new((&digest(secret, b"bitacora master key")).into()),
            }
        });
        Self(masters.collect())
    }

    /// A new key of 32 random bytes, and how it is kept.
    pub fn fresh(&self, id: Uuid, random: &[u8; 32]) -> (SubjectKey, Vec<u8>) {
        let master = &self.0[0];
        let mut wrapped = vec![WRAPPED_V1];
        wrapped.extend_from_slice(&master.id);
        let message = Payload {
            msg: random,
            aad: id.as_bytes(),
        };
        let sealed = master.cipher.encrypt(&nonce(id), message);
        wrapped.extend(sealed.expect("a key can be encrypted"));
        (SubjectKey { id, bytes: *random }, wrapped)
    }

    /// A key as it is kept.
    ///
    /// # Errors
    /// [`WrongMasterKey`] when none of these wrapped it.
    pub fn unwrap(&self, id: Uuid, wrapped: &[u8]) -> Result<SubjectKey, WrongMasterKey> {
        let open = || {
            let (&WRAPPED_V1, rest) = wrapped.split_first()? else {
                return None;
            };
            let (master_id, sealed) = rest.split_at_checked(MASTER_ID_BYTES)?;
            let master = self.0.iter().find(|master| master.id == master_id)?;
            let message = Payload {
                msg: sealed,
                aad: id.as_bytes(),
            };
            let bytes = master.cipher.decrypt(&nonce(id), message).ok()?;
            let bytes = bytes.try_into().ok()?;
            Some(SubjectKey { id, bytes })
        };
        open().ok_or(WrongMasterKey(id))
    }
}

/// An id is random, so a nonce of its end is used once.
fn nonce(id: Uuid) -> Nonce {
    let mut nonce = Nonce::default();
    nonce.copy_from_slice(&id.as_bytes()[4..]);
    nonce
}

fn digest(secret: &str, purpose: &[u8]) -> [u8; 32] {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes());
    let mut mac = mac.expect("HMAC takes a key of any length");
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    #[test]
    fn a_key_is_unwrapped_by_any_of_the_master_keys_and_by_no_other() {
        let old = MasterKeys::new(["old"]);
        let (key, wrapped) = old.fresh(ID, &[3; 32]);
        let sealed = key.seal(b"body", b"hola");
        let rotated = MasterKeys::new(["new", "old"]);
        let again = rotated.unwrap(ID, &wrapped).unwrap();
        assert_eq!(again.open(b"body", &sealed).unwrap(), b"hola");
        assert!(MasterKeys::new(["new"]).unwrap(ID, &wrapped).is_err());
        assert!(rotated.unwrap(Uuid::from_u128(8), &wrapped).is_err());
    }

    #[test]
    fn the_same_text_gives_the_same_bytes_under_one_key_only() {
        let keys = MasterKeys::new(["a"]);
        let (one, _) = keys.fresh(ID, &[3; 32]);
        let (other, _) = keys.fresh(ID, &[4; 32]);
        let long = "hola ".repeat(100);
        assert_eq!(
            one.seal(b"x", long.as_bytes()),
            one.seal(b"x", long.as_bytes())
        );
        assert_ne!(one.seal(b"x", b"hola"), other.seal(b"x", b"hola"));
        assert!(one.seal(b"x", long.as_bytes()).len() < 100);
        assert_eq!(
            one.open(b"x", &one.seal(b"x", long.as_bytes())).unwrap(),
            long.as_bytes()
        );
        assert_eq!(one.open(b"y", &one.seal(b"x", b"hola")), None);
        assert_eq!(other.open(b"x", &one.seal(b"x", b"hola")), None);
    }
}
