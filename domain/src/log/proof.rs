//! A proof that can be checked offline: C2SP tlog-proof.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tlog_tiles::{Hash, RecordProof, check_record, record_hash};

use super::note::{Head, NotOpened, Verifiers};

/// The first line.
const FORM: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of a proof at most, as the form says.
const HASHES_MAX: usize = 63;

/// That a leaf is in a signed tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// Which leaf, from 0.
    pub index: u64,
    /// The entry, where the proof brings it: the leaf is its hash.
    pub entry: Option<Vec<u8>>,
    /// From the leaf to the root.
    pub hashes: RecordProof,
    /// The signed head.
    pub checkpoint: String,
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// It has not the form.
    #[error("it is no tlog-proof")]
    Malformed,
    /// Of its checkpoint.
    #[error("the checkpoint of the proof is not believed: {0}")]
    Checkpoint(#[from] NotOpened),
    /// It does not lead to the root.
    #[error("the leaf is not in the tree at that index")]
    NotInTree,
}

impl Proof {
    /// Checks that a leaf is in a tree that one of the keys has signed.
    ///
    /// # Errors
    /// [`Unproved`].
    pub fn verify(&self, keys: &Verifiers, leaf: Hash) -> Result<Head, Unproved> {
        let head = keys.open(&self.checkpoint)?;
        if self
            .entry
            .as_ref()
            .is_some_and(|entry| record_hash(entry) != leaf)
        {
            return Err(Unproved::NotInTree);
        }
        check_record(&self.hashes, head.size, head.root, self.index, leaf)
            .map_err(|_| Unproved::NotInTree)?;
        Ok(head)
    }

    /// The text form.
    pub fn text(&self) -> String {
        let mut text = format!("{FORM}\n");
        if let Some(entry) = &self.entry {
            text += &format!("extra {}\n", STANDARD.encode(entry));
        }
        text += &format!("index {}\n", self.index);
        for hash in &self.hashes {
            text += &format!("{hash}\n");
        }
        text + "\n" + &self.checkpoint
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`Unproved::Malformed`].
    pub fn read(text: &str) -> Result<Self, Unproved> {
        Self::parse(text).ok_or(Unproved::Malformed)
    }

    fn parse(text: &str) -> Option<Self> {
        let (top, checkpoint) = text.split_once("\n\n")?;
        let mut lines = top.split('\n').peekable();
        if lines.next()? != FORM {
            return None;
        }
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let entry = match extra {
            Some(line) => Some(STANDARD.decode(line.strip_prefix("extra ")?).ok()?),
            None => None,
        };
        let digits = lines.next()?.strip_prefix("index ")?;
        let index: u64 = digits.parse().ok()?;
        let hashes: Option<Vec<Hash>> = lines.map(|line| Hash::parse_hash(line).ok()).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= HASHES_MAX)?;
        (index.to_string() == digits).then(|| Self {
            index,
            entry,
            hashes,
            checkpoint: checkpoint.to_owned(),
        })
    }
}
