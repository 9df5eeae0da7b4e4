//! Documents of separated values: `,`, `;` or tab, in UTF-8, Windows-1252 (of
//! which Latin-1 is a part), or UTF-16 as Excel's "Unicode text".

use std::borrow::Cow;

use encoding_rs::{Encoding, WINDOWS_1252};

use super::rows::Rows;
use super::{COLUMNS_MAX, Error};

const DELIMITERS: [u8; 3] = *b",;\t";
/// Bytes that are looked at for the delimiter, at most.
const SNIFFED_BYTES_MAX: usize = 64 << 10;

pub(super) fn read(document: &[u8], rows: &mut Rows<'_>) -> Result<(), Error> {
    let text = decode(document)?;
    // Rows are numbered as an editor numbers lines, that which only declares
    // the delimiter included.
    let (delimiter, text, lines_before) = match declared(&text) {
        Some((delimiter, rest)) => (delimiter, rest, 1),
        None => (sniff(&text), &*text, 0),
    };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    let mut cells = Vec::new();
    let (mut line, mut counted) = (1 + lines_before, 0);
    while reader
        .read_record(&mut record)
        .map_err(|_| Error::Unreadable)?
    {
        // The reader's own count of lines is one short after `\r\n`.
        let begins = record.position().map_or(0, csv::Position::byte);
        let begins = usize::try_from(begins).unwrap_or_default();
        let breaks = text.as_bytes()[begins..].iter();
        let begins = begins + breaks.take_while(|byte| b"\r\n".contains(byte)).count();
        line += line_ends(&text.as_bytes()[counted..begins]);
        counted = begins;
        cells.clear();
        cells.extend(record.iter().take(COLUMNS_MAX).map(str::to_owned));
        rows.push(line, &cells)?;
    }
    Ok(())
}

/// How many lines end in a text, whatever they end with.
fn line_ends(text: &[u8]) -> usize {
    let pairs = text.windows(2).filter(|pair| pair == b"\r\n").count();
    text.iter().filter(|byte| b"\r\n".contains(byte)).count() - pairs
}

/// The text, borrowed where it is UTF-8 already.
fn decode(document: &[u8]) -> Result<Cow<'_, str>, Error> {
    if let Some((encoding, bom_bytes)) = Encoding::for_bom(document) {
        let (text, _) = encoding.decode_without_bom_handling(&document[bom_bytes..]);
        return Ok(text);
    }
    // No text has it, and pictures, archives and programs do.
    if document.contains(&0) {
        return Err(Error::Unreadable);
    }
    if let Ok(text) = std::str::from_utf8(document) {
        return Ok(Cow::Borrowed(text));
    }
    Ok(WINDOWS_1252.decode_without_bom_handling(document).0)
}

/// Excel's own first line, `sep=;`.
fn declared(text: &str) -> Option<(u8, &str)> {
    let rest = text.strip_prefix("sep=")?;
    let delimiter = *rest.as_bytes().first()?;
    let rest = rest.get(1..)?;
    let rest = rest.strip_prefix('\r').unwrap_or(rest);
    Some((delimiter, rest.strip_prefix('\n')?)).filter(|_| DELIMITERS.contains(&delimiter))
}

/// The delimiter that the first line that is not empty has most of, outside of
/// quotation marks.
fn sniff(text: &str) -> u8 {
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut quoted = false;
    for byte in text.trim_start().bytes().take(SNIFFED_BYTES_MAX) {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            byte if !quoted => {
                if let Some(n) = DELIMITERS.iter().position(|it| *it == byte) {
                    counts[n] += 1;
                }
            }
            _ => {}
        }
    }
    let most = (0..DELIMITERS.len()).rev().max_by_key(|n| counts[*n]);
    DELIMITERS[most.unwrap_or_default()]
}
