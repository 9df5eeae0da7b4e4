//! Excel's spreadsheets before 2007. The library lays their tables out whole
//! and sets memory aside for what they say that they have, so the records are
//! walked first, and it is shown nothing but the records that were walked.

use std::collections::BTreeSet;
use std::io::{Cursor, Read, Write};

use calamine::{Reader, SheetVisible, Xls, XlsError};

use super::rows::Rows;
use super::{COLUMNS_MAX, DOCUMENT_BYTES_MAX, Error, cells};

/// Most cells of the rectangles that hold the sheets' cells, together.
const CELLS_MAX: u64 = 4_000_000;
/// Most sheets.
const SHEETS_MAX: u64 = 64;
/// Most bytes of text in all cells together.
const TEXT_BYTES_MAX: u64 = 128 << 20;

// Types of records, MS-XLS 2.3.
const FILE_PASS: u16 = 0x002f;
const CONTINUE: u16 = 0x003c;
const BOUND_SHEET: u16 = 0x0085;
const SHARED_TEXTS: u16 = 0x00fc;
const SHARED_TEXT_CELL: u16 = 0x00fd;
const MANY_NUMBERS: u16 = 0x00bd;
const DIMENSIONS: u16 = 0x0200;
/// Formula, RString, Number, Label, BoolErr, Rk.
const CELLS: [u16; 6] = [0x0006, 0x00d6, 0x0203, 0x0204, 0x0205, 0x027e];

pub(super) fn read(document: &[u8], rows: &mut Rows<'_>) -> Result<(), Error> {
    let records = records(document)?;
    check(&records)?;
    let mut book: Xls<_> = Xls::new(Cursor::new(wrapped(&records)?)).map_err(error)?;
    let sheets = book.sheets_metadata().iter();
    let shown = sheets.filter(|sheet| sheet.visible == SheetVisible::Visible);
    let names: Vec<_> = shown.map(|sheet| sheet.name.clone()).collect();
    for name in names {
        let range = book.worksheet_range(&name).map_err(error)?;
        let (first_row, first_column) = range.start().unwrap_or_default();
        let mut row = vec![String::new(); (first_column as usize).min(COLUMNS_MAX)];
        let indent = row.len();
        for (n, cells) in range.rows().enumerate() {
            row.truncate(indent);
            row.extend(cells.iter().take(COLUMNS_MAX - indent).map(cells::of_xls));
            rows.push(first_row as usize + n + 1, &row)?;
        }
        // The clients are on the first sheet that is not empty.
        if rows.any() {
            break;
        }
    }
    Ok(())
}

/// The stream of records out of the compound file.
fn records(document: &[u8]) -> Result<Vec<u8>, Error> {
    let mut file = cfb::CompoundFile::open(Cursor::new(document)).map_err(|_| Error::Unreadable)?;
    if file.exists("/EncryptedPackage") {
        return Err(Error::Encrypted);
    }
    let name = if file.exists("/Workbook") {
        "/Workbook"
    } else {
        "/Book"
    };
    let stream = file.open_stream(name).map_err(|_| Error::Unreadable)?;
    let mut records = Vec::new();
    let read = stream
        .take(DOCUMENT_BYTES_MAX as u64)
        .read_to_end(&mut records);
    read.map_err(|_| Error::Unreadable)?;
    Ok(records)
}

/// A compound file with these records and nothing else.
pub(super) fn wrapped(records: &[u8]) -> Result<Vec<u8>, Error> {
    let write = || -> std::io::Result<Vec<u8>> {
        let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new()))?;
        file.create_stream("/Workbook")?.write_all(records)?;
        file.flush()?;
        Ok(file.into_inner().into_inner())
    };
    write().map_err(|_| Error::Unreadable)
}

/// Refuses what would make the library take too much memory or time.
fn check(records: &[u8]) -> Result<(), Error> {
    let mut walk = Walk::default();
    let mut rest = records;
    while let [t0, t1, l0, l1, after @ ..] = rest {
        walk.sheets_at.remove(&(records.len() - rest.len()));
        let kind = u16::from_le_bytes([*t0, *t1]);
        let bytes = usize::from(u16::from_le_bytes([*l0, *l1]));
        let Some((data, next)) = after.split_at_checked(bytes) else {
            break;
        };
        walk.record(kind, data)?;
        rest = next;
    }
    // A sheet that begins within a record would be read as others than these.
    if walk.sheets_at.is_empty() {
        Ok(())
    } else {
        Err(Error::Unreadable)
    }
}

#[derive(Default)]
struct Walk<'a> {
    sheets: u64,
    /// Where sheets begin that have not been come across.
    sheets_at: BTreeSet<usize>,
    /// The largest row and column of any sheet.
    corner: (u64, u64),
    /// The table of shared texts, in its records, and then their sizes.
    shared: Vec<&'a [u8]>,
    shared_bytes: Option<Vec<usize>>,
    text_bytes: usize,
    last_kind: u16,
}

impl<'a> Walk<'a> {
    fn record(&mut self, kind: u16, data: &'a [u8]) -> Result<(), Error> {
        let word = |at: usize| match data.get(at..at + 2) {
            Some([low, high]) => u64::from(u16::from_le_bytes([*low, *high])),
            _ => 0,
        };
        let long = |at: usize| word(at) | word(at + 2) << 16;
        match kind {
            FILE_PASS if word(0) != 0 => return Err(Error::Encrypted),
            BOUND_SHEET => {
                self.sheets += 1;
                self.sheets_at.insert(long(0) as usize);
            }
            // Before Excel 97, and since.
            DIMENSIONS if data.len() == 10 => {
                self.dimensions((word(0), word(2)), word(6))?;
            }
            DIMENSIONS => self.dimensions((long(0), long(4)), word(10))?,
            SHARED_TEXTS if !self.shared.is_empty() => return Err(Error::Unreadable),
            SHARED_TEXTS => self.shared.push(data.get(8..).unwrap_or_default()),
            CONTINUE if self.last_kind == SHARED_TEXTS => self.shared.push(data),
            SHARED_TEXT_CELL => {
                let shared = std::mem::take(&mut self.shared);
                let sizes = self.shared_bytes.get_or_insert_with(|| text_bytes(&shared));
                self.text_bytes += sizes.get(long(6) as usize).copied().unwrap_or_default();
                self.shared = shared;
                self.cell(word(0), word(2));
            }
            MANY_NUMBERS => self.cell(word(0), word(2) + data.len() as u64 / 6),
            _ if CELLS.contains(&kind) => self.cell(word(0), word(2)),
            _ => {}
        }
        if kind != CONTINUE {
            self.last_kind = kind;
        }
        // A sheet without an end goes on into the next one.
        let cells = (self.corner.0 + 1) * (self.corner.1 + 1) * self.sheets.max(1);
        let texts = self.text_bytes as u64 * self.sheets.max(1);
        if self.sheets > SHEETS_MAX || cells > CELLS_MAX || texts > TEXT_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        Ok(())
    }

    fn dimensions(&mut self, rows: (u64, u64), columns: u64) -> Result<(), Error> {
        // The wrong way round, the library would count below 0.
        if rows.1 > 0 && columns > 0 && rows.0 >= rows.1 {
            return Err(Error::Unreadable);
        }
        self.cell(rows.1.saturating_sub(1), columns.saturating_sub(1));
        Ok(())
    }

    fn cell(&mut self, row: u64, column: u64) {
        self.corner = (self.corner.0.max(row), self.corner.1.max(column));
    }
}

/// The size of each shared text, MS-XLS 2.5.293. Where a text goes on in the
/// next record, that begins with a byte which says how wide its characters are.
fn text_bytes(segments: &[&[u8]]) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut segments = segments.iter().copied();
    let mut data = segments.next().unwrap_or_default();
    loop {
        if data.is_empty() {
            match segments.next() {
                Some(next) => data = next,
                None => return sizes,
            }
        }
        let [c0, c1, flags, rest @ ..] = data else {
            return sizes;
        };
        data = rest;
        let mut left = usize::from(u16::from_le_bytes([*c0, *c1]));
        sizes.push(left * 3);
        let (mut skipped, mut wide) = (0, flags & 1 != 0);
        if let (true, [r0, r1, rest @ ..]) = (flags & 8 != 0, data) {
            skipped += 4 * usize::from(u16::from_le_bytes([*r0, *r1]));
            data = rest;
        }
        if let (true, [e0, e1, e2, e3, rest @ ..]) = (flags & 4 != 0, data) {
            skipped += u32::from_le_bytes([*e0, *e1, *e2, *e3]) as usize;
            data = rest;
        }
        while left > 0 {
            let width = if wide { 2 } else { 1 };
            let here = left.min(data.len() / width);
            data = &data[here * width..];
            left -= here;
            if left > 0 {
                let Some([flags, rest @ ..]) = segments.next() else {
                    return sizes;
                };
                (wide, data) = (flags & 1 != 0, rest);
            }
        }
        while skipped > 0 {
            let here = skipped.min(data.len());
            data = &data[here..];
            skipped -= here;
            if skipped > 0 {
                let Some(next) = segments.next() else {
                    return sizes;
                };
                data = next;
            }
        }
    }
}

fn error(error: XlsError) -> Error {
    match error {
        XlsError::Password => Error::Encrypted,
        _ => Error::Unreadable,
    }
}
