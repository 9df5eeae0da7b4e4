//! Documents of clients: spreadsheets (xlsx, xls, ods) and csv. Contract,
//! section 4.
//!
//! Pure: bytes in, clients and the rows that were refused out. What a document
//! is, its first bytes say; its name counts for nothing. A row that cannot be
//! used is reported and harms no other; a document of which nothing can be
//! used is an [`Error`]. The words are Spanish, for the people who upload.
//!
//! Every size is bounded, because a small file can say that it is a large one:
//! archives are inflated once, into nothing, before they are read, and no
//! table of an xlsx, ods or csv is ever laid out whole. Reading blocks and takes
//! a core: call [`read`] on a blocking thread.
//!
//! 100,000 rows of eight columns, release build, November 2026, one of two busy
//! cores; the peak is that of the whole process, document and clients included:
//!
//! | | document | CPU | peak memory |
//! |---|---|---|---|
//! | csv | 12.3 MB | 0.7 s | 138 MiB |
//! | xlsx | 4.5 MB | 1.1 s | 147 MiB |
//! | ods | 2.2 MB | 1.1 s | 129 MiB |

mod cells;
mod columns;
mod csv;
mod ods;
mod package;
mod rows;
mod xls;
mod xlsx;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use domain::group::NewClient;

use rows::Rows;

/// Most rows of a document, its headers not counted.
pub const ROWS_MAX: usize = 100_000;
/// Largest document.
pub const DOCUMENT_BYTES_MAX: usize = 32 << 20;
/// Most columns that are looked at.
const COLUMNS_MAX: usize = 256;
/// Longest text of one cell.
const CELL_CHARS_MAX: usize = 2_000;
/// Most bytes of text that one document's clients keep.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// What a document holds.
#[derive(Debug, Default)]
pub struct Imported {
    /// Its clients, each number once, in the order of the document.
    pub clients: Vec<NewClient>,
    /// The rows that were refused, in the order of the document.
    pub rejected: Vec<Rejected>,
}

/// A row that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// As a spreadsheet numbers its rows: the headers are mostly row 1.
    pub row: usize,
    /// Why, in Spanish.
    pub reason: String,
}

/// Why nothing of a document can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is nothing in it but perhaps headers.
    #[error("El documento está vacío")]
    Empty,
    /// It is broken, or of another kind.
    #[error("El documento no se puede leer: está dañado o no es xlsx, xls, ods ni csv")]
    Unreadable,
    /// It is encrypted.
    #[error("El documento está protegido con contraseña")]
    Encrypted,
    /// No header is that of a telephone number.
    #[error("El documento no tiene una columna de teléfono (phone, telefono o celular)")]
    NoPhoneColumn,
    /// There are too many rows.
    #[error("El documento tiene más de 100.000 filas")]
    TooManyRows,
    /// It is too large, or says that it is.
    #[error("El documento es demasiado grande")]
    TooLarge,
}

/// Reads a document. Numbers without a country code are of the country of
/// `prefix` (`+57`). `progress` is told, now and then, how many rows were read.
///
/// # Errors
/// [`Error`] when nothing of it can be used.
pub fn read(
    document: &[u8],
    prefix: &str,
    progress: &mut dyn FnMut(usize),
) -> Result<Imported, Error> {
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    let mut rows = Rows::new(prefix, progress);
    // The readers of spreadsheets are not ours, and none of them promises that
    // it never panics.
    let reading = AssertUnwindSafe(|| match document {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => package::read(document, &mut rows),
        [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, ..] => xls::read(document, &mut rows),
        _ => csv::read(document, &mut rows),
    });
    catch_unwind(reading).unwrap_or(Err(Error::Unreadable))?;
    rows.finish()
}
