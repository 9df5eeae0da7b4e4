//! Signed heads of the tree: C2SP tlog-checkpoint in a C2SP signed-note,
//! Ed25519.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use signed_note::{Note, StandardSigner, StandardVerifier, Verifier, VerifierList};
use tlog_tiles::{Checkpoint, Hash};

/// Ed25519, in keys of signed notes.
const ED25519: u8 = 1;

/// Why a key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongKey {
    /// The signer's.
    #[error("is no signer key: it must be like PRIVATE+KEY+<name>+<id>+<base64>")]
    Signer,
    /// A verifier's.
    #[error("is no verifier key: it must be like <name>+<id>+<base64>")]
    Verifier,
    /// The name of either.
    #[error("must not be empty and must hold neither a space, a plus sign nor a comma")]
    Name,
}

/// Why a note is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It has not the form.
    #[error("it is no checkpoint")]
    Malformed,
    /// None of the known keys has signed it.
    #[error("it is signed by none of the known keys")]
    Unknown,
    /// A known key is named, and has not signed it.
    #[error("its signature is wrong")]
    WrongSignature,
}

/// A head of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Whose tree.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl Head {
    /// Reads a note without asking who signed it.
    ///
    /// # Errors
    /// [`NotOpened::Malformed`].
    pub fn read(note: &str) -> Result<Self, NotOpened> {
        let note = Note::from_bytes(note.as_bytes()).map_err(|_| NotOpened::Malformed)?;
        Self::of(&note)
    }

    fn of(note: &Note) -> Result<Self, NotOpened> {
        let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|_| NotOpened::Malformed)?;
        Ok(Self {
            origin: checkpoint.origin().to_owned(),
            size: checkpoint.size(),
            root: *checkpoint.hash(),
        })
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }
}

/// Signs heads.
#[derive(Clone)]
pub struct Signer {
    origin: String,
    signer: StandardSigner,
    verifier_key: String,
}

impl Signer {
    /// A signer by the text of its key. The log is called `origin`, or else
    /// as the key is.
    ///
    /// # Errors
    /// [`WrongKey`].
    pub fn new(signer_key: &str, origin: Option<&str>) -> Result<Self, WrongKey> {
        let signer = StandardSigner::new(signer_key).map_err(|_| WrongKey::Signer)?;
        let verifier_key = verifier_key(signer_key).ok_or(WrongKey::Signer)?;
        let name = signed_note::Signer::name(&signer);
        let origin = origin.unwrap_or(name).to_owned();
        if origin.is_empty() || origin.contains(char::is_control) {
            return Err(WrongKey::Name);
        }
        Ok(Self {
            origin,
            signer,
            verifier_key,
        })
    }

    /// What the log is called.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The key by which others verify.
    pub fn verifier_key(&self) -> &str {
        &self.verifier_key
    }

    /// The signed note of a head.
    ///
    /// # Errors
    /// [`WrongKey`] never, of a signer that was made here.
    pub fn sign(&self, size: u64, root: Hash) -> Result<String, WrongKey> {
        let head = Head {
            origin: self.origin.clone(),
            size,
            root,
        };
        let mut note = Note::new(head.text().as_bytes(), &[]).map_err(|_| WrongKey::Name)?;
        note.add_sigs(&[&self.signer])
            .map_err(|_| WrongKey::Signer)?;
        String::from_utf8(note.to_bytes()).map_err(|_| WrongKey::Name)
    }
}

/// The text of a signer key: of 32 random bytes and a name, such as
/// `example.com/bitacora`.
///
/// # Errors
/// [`WrongKey::Name`].
pub fn signer_key(name: &str, seed: &[u8; 32]) -> Result<String, WrongKey> {
    if !signed_note::is_key_name_valid(name) || name.contains(',') {
        return Err(WrongKey::Name);
    }
    let key = SigningKey::from_bytes(seed);
    let public = [&[ED25519], key.verifying_key().as_bytes().as_slice()].concat();
    let id = signed_note::key_id(name, &public);
    let private = STANDARD.encode([&[ED25519], seed.as_slice()].concat());
    Ok(format!("PRIVATE+KEY+{name}+{id:08x}+{private}"))
}

fn verifier_key(signer_key: &str) -> Option<String> {
    let mut parts = signer_key.splitn(5, '+').skip(2);
    let (name, _id, private) = (parts.next()?, parts.next()?, parts.next()?);
    let private = STANDARD.decode(private).ok()?;
    let seed = private.get(1..)?.try_into().ok()?;
    let key = SigningKey::from_bytes(seed).verifying_key();
    Some(signed_note::new_ed25519_verifier_key(name, &key))
}

/// Keys that are believed.
#[derive(Clone, Default)]
pub struct Verifiers {
    keys: Vec<String>,
    verifiers: Vec<StandardVerifier>,
}

impl Verifiers {
    /// By the texts of the keys; one twice is once.
    ///
    /// # Errors
    /// [`WrongKey::Verifier`].
    pub fn new(keys: impl IntoIterator<Item = String>) -> Result<Self, WrongKey> {
        let mut known = Self::default();
        for key in keys {
            let verifier = StandardVerifier::new(&key).map_err(|_| WrongKey::Verifier)?;
            let same = |other: &StandardVerifier| {
                (other.name(), other.key_id()) == (verifier.name(), verifier.key_id())
            };
            if !known.verifiers.iter().any(same) {
                known.verifiers.push(verifier);
                known.keys.push(key);
            }
        }
        Ok(known)
    }

    /// Their texts.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Reads a note, if one of the keys has signed it.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(&self, note: &str) -> Result<Head, NotOpened> {
        let note = Note::from_bytes(note.as_bytes()).map_err(|_| NotOpened::Malformed)?;
        let boxed =
            |verifier: &StandardVerifier| -> Box<dyn Verifier> { Box::new(verifier.clone()) };
        let list = VerifierList::new(self.verifiers.iter().map(boxed).collect());
        match note.verify(&list) {
            Ok(_) => Head::of(&note),
            Err(signed_note::NoteError::InvalidSignature { .. }) => Err(NotOpened::WrongSignature),
            Err(_) => Err(NotOpened::Unknown),
        }
    }
}
