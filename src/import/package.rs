//! Zip archives: xlsx and ods. What an archive inflates to is measured before
//! any of it is read, by inflating it: what it says of itself is not believed.

use std::io::{BufReader, Cursor, Read};

use quick_xml::Reader;
use quick_xml::events::Event;
use zip::ZipArchive;

use super::rows::Rows;
use super::{Error, ods, xlsx};

/// Most bytes that all parts of an archive may inflate to. 100,000 rows of ten
/// columns are about 60 MiB.
const INFLATED_BYTES_MAX: u64 = 256 << 20;
/// Most parts of an archive.
const PARTS_MAX: usize = 2_000;
/// Fewest bytes that one shared string takes: `<si/>`.
const SHARED_STRING_BYTES_MIN: u64 = 5;

pub(super) type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

pub(super) fn read(document: &[u8], rows: &mut Rows<'_>) -> Result<(), Error> {
    let mut archive = ZipArchive::new(Cursor::new(document)).map_err(|_| Error::Unreadable)?;
    measure(&mut archive)?;
    let has = |name: &str| archive.index_for_name(name).is_some();
    if has("content.xml") {
        return ods::read(&mut archive, rows);
    }
    if has("xl/workbook.bin") {
        return Err(Error::Unreadable);
    }
    xlsx::read(document, rows)
}

fn measure(archive: &mut Archive<'_>) -> Result<(), Error> {
    if archive.len() > PARTS_MAX {
        return Err(Error::TooLarge);
    }
    let mut left = INFLATED_BYTES_MAX;
    for n in 0..archive.len() {
        let part = archive.by_index(n).map_err(|_| Error::Unreadable)?;
        let name = part.name().map_err(|_| Error::Unreadable)?.to_lowercase();
        let bytes = std::io::copy(&mut part.take(left + 1), &mut std::io::sink());
        let bytes = bytes.map_err(|_| Error::Unreadable)?;
        left = left.checked_sub(bytes).ok_or(Error::TooLarge)?;
        if name.ends_with("sharedstrings.xml") {
            check_promise(archive, n, bytes)?;
        }
    }
    Ok(())
}

/// The reader of xlsx sets memory aside for as many strings as the part says
/// that it has.
fn check_promise(archive: &mut Archive<'_>, n: usize, bytes: u64) -> Result<(), Error> {
    let part = archive.by_index(n).map_err(|_| Error::Unreadable)?;
    let mut xml = Reader::from_reader(BufReader::new(part));
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match xml.read_event_into(&mut buffer) {
            Ok(Event::Start(start) | Event::Empty(start))
                if start.local_name().as_ref() == "sst" =>
            {
                let promised = start.attributes_raw();
                let promised = promised.split(|c: char| !c.is_ascii_digit());
                let largest = promised.map(|digits| digits.trim_start_matches('0'));
                let largest = largest.filter_map(|it| match it.len() {
                    0 => None,
                    1..=18 => it.parse::<u64>().ok(),
                    _ => Some(u64::MAX),
                });
                // Any number there: names of attributes can be written in many
                // ways. Years in the names of schemas are small enough.
                let most = (bytes / SHARED_STRING_BYTES_MIN).max(10_000);
                return match largest.max() {
                    Some(largest) if largest > most => Err(Error::TooLarge),
                    _ => Ok(()),
                };
            }
            Ok(Event::Eof) => return Ok(()),
            Err(_) => return Err(Error::Unreadable),
            Ok(_) => {}
        }
    }
}
