//! A recording of nothing: a short, silent, valid MP3.

use bytes::Bytes;

/// MPEG-2 layer III, 8 kbit/s, 16 kHz, mono: 576 samples in 36 bytes.
const FRAME_HEADER: [u8; 4] = [0xFF, 0xF3, 0x18, 0xC4];
const FRAME_BYTES: usize = 36;

/// Three seconds, of 36 milliseconds each.
const FRAMES: usize = 84;

/// Three seconds of silence, entitled with the conversation's id so that no two are the same.
pub(super) fn recording(conversation_id: &str) -> Bytes {
    let mut file = id3(conversation_id);
    for _ in 0..FRAMES {
        file.extend_from_slice(&FRAME_HEADER);
        file.resize(file.len() + FRAME_BYTES - FRAME_HEADER.len(), 0);
    }
    file.into()
}

/// An ID3v2.4 tag with a title.
fn id3(title: &str) -> Vec<u8> {
    const UTF8: u8 = 3;
    let text_len = title.len() + 1;
    let frame_len = 10 + text_len;
    let mut tag = b"ID3\x04\x00\x00".to_vec();
    tag.extend_from_slice(&synchsafe(frame_len));
    tag.extend_from_slice(b"TIT2");
    tag.extend_from_slice(&synchsafe(text_len));
    tag.extend_from_slice(&[0, 0, UTF8]);
    tag.extend_from_slice(title.as_bytes());
    tag
}

/// ID3's way of writing a length: seven bits to a byte.
fn synchsafe(length: usize) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| ((length >> shift) & 0x7F) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_a_tag_and_whole_frames() {
        let file = recording("conv_1");
        let tag_bytes = 10 + 10 + 1 + "conv_1".len();
        assert_eq!(&file[..3], b"ID3");
        assert_eq!(file.len(), tag_bytes + FRAMES * FRAME_BYTES);
        assert_eq!(file[tag_bytes..tag_bytes + 4], FRAME_HEADER);
    }
}
