//! Packing of what will be encrypted, for what is encrypted cannot be
//! compressed any more: a first byte says how, then the packed bytes.
//!
//! Webhooks are short, and most of each is the provider's field names. So
//! zstd is given a dictionary that knows them: `packing_1.txt`, made once of
//! the providers' documented examples and the shapes of our own events. What
//! was packed with it is opened with it for ever: it never changes; another
//! one would be another form. docs/adr/0023.

use std::cell::RefCell;
use std::sync::LazyLock;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

/// As it came.
const PLAIN: u8 = 0;
/// LZ4, its size before; read, and not written any more.
const LZ4: u8 = 1;
/// The size as four bytes, little-endian, then a zstd frame that was made with
/// `packing_1.txt`.
const ZSTD_1: u8 = 2;
const SIZE_BYTES: usize = size_of::<u32>();
/// Bytes from which on packing is worth it.
const PACKED_BYTES_MIN: usize = 64;

const DICTIONARY_1: &[u8] = include_bytes!("packing_1.txt");
/// On webhooks of 1.5 KiB level 1 takes half as long again and saves a tenth.
const LEVEL: i32 = -1;

static PACKING_1: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY_1, LEVEL));
static UNPACKING_1: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY_1));

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::with_prepared_dictionary(&PACKING_1).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::with_prepared_dictionary(&UNPACKING_1).ok());
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
        ZSTD_1 => unzstd(&packed[1..]),
        _ => None,
    }
}

fn zstd(plain: &[u8]) -> Option<Vec<u8>> {
    let size = u32::try_from(plain.len()).ok()?;
    let frame = COMPRESSOR.with_borrow_mut(|zstd| zstd.as_mut()?.compress(plain).ok())?;
    let mut packed = Vec::with_capacity(1 + SIZE_BYTES + frame.len());
    packed.push(ZSTD_1);
    packed.extend_from_slice(&size.to_le_bytes());
    packed.extend_from_slice(&frame);
    Some(packed)
}

fn unzstd(packed: &[u8]) -> Option<Vec<u8>> {
    let (size, frame) = packed.split_first_chunk::<SIZE_BYTES>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    DECOMPRESSOR.with_borrow_mut(|zstd| zstd.as_mut()?.decompress(frame, size).ok())
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
        assert!(packed.len() * 3 < WEBHOOK.len(), "{} bytes", packed.len());
    }

    #[test]
    fn the_dictionary_is_what_it_was() {
        assert_eq!(
            hex::encode(Sha256::digest(DICTIONARY_1)),
            "3ecb7c00a455ef60bb85ff5be525ce173d231a2a6ab9be29c2de9848fc46a9b4"
        );
    }

    #[test]
    fn every_form_that_was_ever_written_is_read() {
        let hola = "hola ".repeat(30);
        let mut lz4 = vec![LZ4];
        lz4.extend(lz4_flex::compress_prepend_size(hola.as_bytes()));
        assert_eq!(unpack(lz4).unwrap(), hola.as_bytes());
        let zstd_1 = hex::decode(
            "024600000028b52ffd2046e50000786275656e617320746172646573307d03006dabaa875d9585ae4d81",
        )
        .unwrap();
        assert_eq!(
            unpack(zstd_1).unwrap(),
            br#"{"role":"agent","message":"Hola, buenas tardes","time_in_call_secs":0}"#
        );
    }

    #[test]
    fn what_is_damaged_is_nothing() {
        let packed = pack(WEBHOOK.as_bytes());
        assert_eq!(unpack(packed[..packed.len() - 1].to_vec()), None);
        assert_eq!(unpack(vec![ZSTD_1, 1]), None);
        assert_eq!(unpack(vec![9, 9]), None);
        assert_eq!(unpack(vec![]), None);
    }
}
