//! Packing of what will be encrypted, for what is encrypted cannot be
//! compressed any more: a first byte says how, then the packed bytes.
//!
//! Webhooks are short, and most of each is the provider's field names. So
//! zstd is given a dictionary that knows them: `packing_1.txt`, made once of
//! the providers' documented examples and the shapes of our own events; and
//! `packing_2.bin`, which goes before it, knows how often what comes, so that
//! this need not be counted and written each time. What was packed with one is
//! opened with it for ever: it never changes; another one would be another
//! form. docs/adr/0023.

use std::cell::RefCell;
use std::sync::LazyLock;
use std::thread::LocalKey;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

/// As it came.
const PLAIN: u8 = 0;
/// LZ4, its size before; read, and not written any more.
const LZ4: u8 = 1;
/// The size as four bytes, little-endian, then a zstd frame that was made with
/// `packing_1.txt`; read, and not written any more.
const ZSTD_1: u8 = 2;
/// The same, made with both files, without the size in the frame.
const ZSTD_2: u8 = 3;
const SIZE_BYTES: usize = size_of::<u32>();
/// Bytes from which on packing is worth it.
const PACKED_BYTES_MIN: usize = 64;

const TEXT: &[u8] = include_bytes!("packing_1.txt");
const TABLES: &[u8] = include_bytes!("packing_2.bin");
/// Of webhooks of 1.5 KiB level 1 leaves a twentieth more, and is done in five
/// sixths of the time.
const LEVEL: i32 = 3;

static PACKING_2: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(&[TABLES, TEXT].concat(), LEVEL));
static UNPACKING_1: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(TEXT));
static UNPACKING_2: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(&[TABLES, TEXT].concat()));

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(compressor().ok());
    static DECOMPRESSOR_1: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::with_prepared_dictionary(&UNPACKING_1).ok());
    static DECOMPRESSOR_2: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::with_prepared_dictionary(&UNPACKING_2).ok());
}

fn compressor() -> std::io::Result<Compressor<'static>> {
    let mut zstd = Compressor::with_prepared_dictionary(&PACKING_2)?;
    // The form says which, and how long it was.
    zstd.include_dictid(false)?;
    zstd.include_contentsize(false)?;
    Ok(zstd)
}

/// Packs, if that makes it smaller. (Without the memory for a compressor it
/// stays as it came: nothing is lost.)
pub(super) fn pack(plain: &[u8]) -> Vec<u8> {
    if plain.len() >= PACKED_BYTES_MIN
        && let Some(packed) = zstd(plain)
        && packed.len() < plain.len()
    {
        return packed;
    }
    let mut packed = Vec::with_capacity(plain.len() + 1);
    packed.push(PLAIN);
    packed.extend_from_slice(plain);
    packed
}

/// What was packed; `None` when it is damaged, or of a form that is not known.
pub(super) fn unpack(mut packed: Vec<u8>) -> Option<Vec<u8>> {
    match *packed.first()? {
        PLAIN => {
            packed.remove(0);
            Some(packed)
        }
        LZ4 => lz4_flex::decompress_size_prepended(&packed[1..]).ok(),
        ZSTD_1 => unzstd(&DECOMPRESSOR_1, &packed[1..]),
        ZSTD_2 => unzstd(&DECOMPRESSOR_2, &packed[1..]),
        _ => None,
    }
}

fn zstd(plain: &[u8]) -> Option<Vec<u8>> {
    let size = u32::try_from(plain.len()).ok()?;
    let frame = COMPRESSOR.with_borrow_mut(|zstd| zstd.as_mut()?.compress(plain).ok())?;
    let mut packed = Vec::with_capacity(1 + SIZE_BYTES + frame.len());
    packed.push(ZSTD_2);
    packed.extend_from_slice(&size.to_le_bytes());
    packed.extend_from_slice(&frame);
    Some(packed)
}

type Unpacking = LocalKey<RefCell<Option<Decompressor<'static>>>>;

fn unzstd(with: &'static Unpacking, packed: &[u8]) -> Option<Vec<u8>> {
    let (size, frame) = packed.split_first_chunk::<SIZE_BYTES>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    with.with_borrow_mut(|zstd| zstd.as_mut()?.decompress(frame, size).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    const WEBHOOK: &str = r#"{"type":"post_call_transcription","event_timestamp":1763700000,"data":{"agent_id":"agent_9","conversation_id":"conv_77","status":"done","transcript":[{"role":"agent","message":"¿Le queda bien el jueves?","time_in_call_secs":0}],"metadata":{"start_time_unix_secs":1763699905,"call_duration_secs":95,"cost":296,"phone_call":{"type":"twilio","direction":"outbound","phone_number_id":"phnum_1","agent_number":"+576015550100","external_number":"+573001234567","call_sid":"CA0"},"termination_reason":"end_call tool was called."}}}"#;

    proptest! {
        #[test]
        fn what_was_packed_comes_back(plain in prop::collection::vec(any::<u8>(), 0..4096)) {
            prop_assert_eq!(unpack(pack(&plain)), Some(plain));
        }

        #[test]
        fn words_come_back(words in "[a-zñ {}\":]{0,4000}") {
            prop_assert_eq!(unpack(pack(words.as_bytes())), Some(words.into_bytes()));
        }
    }

    #[test]
    fn a_short_webhook_shrinks_to_a_fraction() {
        let packed = pack(WEBHOOK.as_bytes());
        assert!(packed.len() * 4 < WEBHOOK.len(), "{} bytes", packed.len());
    }

    #[test]
    fn the_dictionaries_are_what_they_were() {
        let digest = |bytes| hex::encode(Sha256::digest(bytes));
        assert_eq!(
            digest(TEXT),
            "3ecb7c00a455ef60bb85ff5be525ce173d231a2a6ab9be29c2de9848fc46a9b4"
        );
        assert_eq!(
            digest(TABLES),
            "d36235ae0bcc9bd433398e8f63b2efb52f8de9db36de6bac50230e791c5d53c6"
        );
    }

    #[test]
    fn every_form_that_was_ever_written_is_read() {
        let hola = "hola ".repeat(30);
        let mut lz4 = vec![LZ4];
        lz4.extend(lz4_flex::compress_prepend_size(hola.as_bytes()));
        assert_eq!(unpack(lz4).unwrap(), hola.as_bytes());
        for zstd in [
            "024600000028b52ffd2046e50000786275656e617320746172646573307d03006dabaa875d9585ae4d81",
            "034600000028b52ffd0000cd0000f380029d55ff51b75c5dfe1d0503fc6d4b875da3a17b775b62",
        ] {
            assert_eq!(
                unpack(hex::decode(zstd).unwrap()).unwrap(),
                br#"{"role":"agent","message":"Hola, buenas tardes","time_in_call_secs":0}"#
            );
        }
    }

    #[test]
    fn what_is_damaged_is_nothing() {
        let packed = pack(WEBHOOK.as_bytes());
        assert_eq!(unpack(packed[..packed.len() - 1].to_vec()), None);
        assert_eq!(unpack(vec![ZSTD_2, 1]), None);
        assert_eq!(unpack(vec![9, 9]), None);
        assert_eq!(unpack(vec![]), None);
    }
}
