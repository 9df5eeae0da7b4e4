//! OpenDocument spreadsheets, row by row. The library that reads the other
//! formats lays an ods out whole, and a few bytes can say that a cell is
//! repeated a million times.

use std::io::{BufReader, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::package::Archive;
use super::rows::Rows;
use super::{CELL_CHARS_MAX, COLUMNS_MAX, Error, ROWS_MAX, cells};

/// Where the manifest says that a part is encrypted.
const ENCRYPTED: &str = "encryption-data";
/// Longest text that is read of a cell: enough to see that it is too long.
const TEXT_BYTES_MAX: usize = 4 * (CELL_CHARS_MAX + 1);

pub(super) fn read(archive: &mut Archive<'_>, rows: &mut Rows<'_>) -> Result<(), Error> {
    let mut manifest = String::new();
    if let Ok(mut part) = archive.by_name("META-INF/manifest.xml") {
        part.read_to_string(&mut manifest)
            .map_err(|_| Error::Unreadable)?;
    }
    if manifest.contains(ENCRYPTED) {
        return Err(Error::Encrypted);
    }
    let content = archive
        .by_name("content.xml")
        .map_err(|_| Error::Unreadable)?;
    let mut xml = Reader::from_reader(BufReader::new(content));
    let mut buffer = Vec::new();
    let mut sheet = Sheet::default();
    loop {
        buffer.clear();
        let event = xml
            .read_event_into(&mut buffer)
            .map_err(|_| Error::Unreadable)?;
        let over = match event {
            Event::Start(start) => {
                sheet.start(&start, rows)?;
                false
            }
            Event::Empty(start) => {
                sheet.start(&start, rows)?;
                sheet.end(start.name().as_ref(), rows)?
            }
            Event::End(end) => sheet.end(end.name().as_ref(), rows)?,
            Event::Text(text) => {
                sheet.text(&text.xml10_content());
                false
            }
            Event::CData(text) => {
                sheet.text(&text.xml10_content());
                false
            }
            Event::GeneralRef(entity) => {
                sheet.entity(&entity);
                false
            }
            Event::Eof => true,
            _ => false,
        };
        if over {
            return Ok(());
        }
    }
}

/// What is being read.
#[derive(Default)]
struct Sheet {
    /// The number of the row, from 1.
    row_at: usize,
    row_repeated: usize,
    row: Vec<String>,
    cell: Option<Cell>,
    /// Within so many notes, whose text is not the cell's.
    notes: usize,
}

struct Cell {
    repeated: usize,
    /// What it says beside its text.
    value: Option<String>,
    text: String,
    paragraphs: usize,
}

impl Sheet {
    fn start(&mut self, start: &BytesStart<'_>, rows: &Rows<'_>) -> Result<(), Error> {
        match start.name().as_ref() {
            "table:table" if !rows.any() => self.row_at = 1,
            "table:table-row" => {
                self.row.clear();
                self.row_repeated = repeated(start, "table:number-rows-repeated")?;
            }
            "table:table-cell" | "table:covered-table-cell" => {
                self.cell = Some(Cell {
                    repeated: repeated(start, "table:number-columns-repeated")?,
                    value: value(start)?,
                    text: String::new(),
                    paragraphs: 0,
                });
            }
            "office:annotation" => self.notes += 1,
            "text:p" => {
                if self.notes == 0
                    && let Some(cell) = &mut self.cell
                {
                    cell.paragraphs += 1;
                    if cell.paragraphs > 1 {
                        self.text("\n");
                    }
                }
            }
            "text:s" => self.text(" "),
            "text:tab" => self.text("\t"),
            "text:line-break" => self.text("\n"),
            _ => {}
        }
        Ok(())
    }

    /// Whether the sheet with the clients is over.
    fn end(&mut self, name: &str, rows: &mut Rows<'_>) -> Result<bool, Error> {
        match name {
            "office:annotation" => self.notes = self.notes.saturating_sub(1),
            "table:table-cell" | "table:covered-table-cell" => {
                if let Some(cell) = self.cell.take() {
                    let room = COLUMNS_MAX.saturating_sub(self.row.len());
                    let text = cell.value.unwrap_or(cell.text);
                    let repeated = std::iter::repeat_n(text, cell.repeated.min(room));
                    self.row.extend(repeated);
                }
            }
            "table:table-row" => {
                let empty = self.row.iter().all(|cell| cell.trim().is_empty());
                // One more than may be is enough to be told that it is one.
                let times = if empty { 0 } else { self.row_repeated };
                for n in 0..times.min(ROWS_MAX + 2) {
                    rows.push(self.row_at.saturating_add(n), &self.row)?;
                }
                self.row_at = self.row_at.saturating_add(self.row_repeated);
            }
            // The clients are on the first sheet that is not empty.
            "table:table" => return Ok(rows.any()),
            _ => {}
        }
        Ok(false)
    }

    fn text(&mut self, text: &str) {
        if self.notes == 0
            && let Some(cell) = &mut self.cell
            && cell.text.len() < TEXT_BYTES_MAX
        {
            cell.text.push_str(text);
        }
    }

    fn entity(&mut self, entity: &quick_xml::events::BytesRef<'_>) {
        if let Ok(Some(c)) = entity.resolve_char_ref() {
            self.text(c.encode_utf8(&mut [0; 4]));
        } else if let Some(text) = quick_xml::escape::resolve_predefined_entity(entity) {
            self.text(text);
        }
    }
}

fn repeated(start: &BytesStart<'_>, name: &str) -> Result<usize, Error> {
    let given = attribute(start, name)?;
    Ok(given.and_then(|it| it.parse().ok()).unwrap_or(1))
}

/// What a cell says beside its text: a number, a date, a truth value.
fn value(start: &BytesStart<'_>) -> Result<Option<String>, Error> {
    let kind = attribute(start, "office:value-type")?;
    Ok(match kind.as_deref() {
        Some("float" | "currency" | "percentage") => {
            let value = attribute(start, "office:value")?;
            value.map(|it| it.parse().map_or(it, cells::number))
        }
        Some("date") => attribute(start, "office:date-value")?,
        Some("boolean") => {
            let value = attribute(start, "office:boolean-value")?;
            value.map(|it| cells::boolean(it == "true"))
        }
        Some("string") => attribute(start, "office:string-value")?,
        // Durations read better as they are shown.
        _ => None,
    })
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, Error> {
    for attribute in start.attributes().with_checks(false) {
        let attribute = attribute.map_err(|_| Error::Unreadable)?;
        if attribute.key.as_ref() == name {
            let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0);
            return value
                .map(|value| Some(value.into_owned()))
                .map_err(|_| Error::Unreadable);
        }
    }
    Ok(None)
}
