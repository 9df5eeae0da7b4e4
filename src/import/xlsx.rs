//! Excel's spreadsheets since 2007, cell by cell: only the shared texts are
//! held in memory. [`super::package`] has measured the archive.

use std::io::Cursor;

use calamine::{Reader, SheetType, SheetVisible, Xlsx, XlsxError};

use super::rows::Rows;
use super::{COLUMNS_MAX, Error, cells};

pub(super) fn read(document: &[u8], rows: &mut Rows<'_>) -> Result<(), Error> {
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(document)).map_err(error)?;
    let sheets = book.sheets_metadata().iter();
    let shown = sheets.filter(|sheet| {
        sheet.typ == SheetType::WorkSheet && sheet.visible == SheetVisible::Visible
    });
    let names: Vec<_> = shown.map(|sheet| sheet.name.clone()).collect();
    for name in names {
        read_sheet(&mut book, &name, rows)?;
        // The clients are on the first sheet that is not empty.
        if rows.any() {
            break;
        }
    }
    Ok(())
}

fn read_sheet(
    book: &mut Xlsx<Cursor<&[u8]>>,
    name: &str,
    rows: &mut Rows<'_>,
) -> Result<(), Error> {
    let mut reader = book.worksheet_cells_reader(name).map_err(error)?;
    let mut row = Vec::new();
    let mut row_at = 0;
    while let Some(cell) = reader.next_cell().map_err(error)? {
        let (at, column) = cell.get_position();
        if at != row_at {
            rows.push(row_at as usize + 1, &row)?;
            row.clear();
            row_at = at;
        }
        let column = column as usize;
        if column >= COLUMNS_MAX {
            continue;
        }
        if row.len() <= column {
            row.resize(column + 1, String::new());
        }
        row[column] = cells::of_xlsx(cell.get_value());
    }
    rows.push(row_at as usize + 1, &row)
}

fn error(error: XlsxError) -> Error {
    match error {
        XlsxError::Password => Error::Encrypted,
        _ => Error::Unreadable,
    }
}
