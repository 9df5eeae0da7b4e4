//! Rows of text become clients; what every format has in common.

use std::collections::HashMap;

use domain::PhoneNumber;
use domain::group::NewClient;
use serde_json::Map;

use super::columns::{self, Column};
use super::{CELL_CHARS_MAX, Error, Imported, KEPT_BYTES_MAX, ROWS_MAX, Rejected};

/// How many rows are read between two words on the progress.
const PROGRESS_ROWS: usize = 1_000;
/// Overhead of a kept text, roughly, in bytes.
const TEXT_OVERHEAD_BYTES: usize = 24;

/// Takes a document row by row.
pub(super) struct Rows<'a> {
    prefix: &'a str,
    progress: &'a mut dyn FnMut(usize),
    columns: Option<Vec<Column>>,
    imported: Imported,
    /// Where each number stood first.
    seen: HashMap<PhoneNumber, usize>,
    rows: usize,
    kept_bytes: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(prefix: &'a str, progress: &'a mut dyn FnMut(usize)) -> Self {
        Self {
            prefix,
            progress,
            columns: None,
            imported: Imported::default(),
            seen: HashMap::new(),
            rows: 0,
            kept_bytes: 0,
        }
    }

    /// Whether there was any row, be it of headers.
    pub(super) fn any(&self) -> bool {
        self.columns.is_some()
    }

    /// Takes the next row; `row` is its number in the document, from 1. The
    /// first that is not empty holds the headers.
    pub(super) fn push(&mut self, row: usize, cells: &[String]) -> Result<(), Error> {
        if cells.iter().all(|cell| cell.trim().is_empty()) {
            return Ok(());
        }
        let Some(columns) = &self.columns else {
            self.columns = Some(columns::read(cells)?);
            return Ok(());
        };
        self.rows += 1;
        if self.rows > ROWS_MAX {
            return Err(Error::TooManyRows);
        }
        if self.rows.is_multiple_of(PROGRESS_ROWS) {
            (self.progress)(self.rows);
        }
        match client(columns, cells, self.prefix) {
            Ok(client) => self.keep(row, client)?,
            Err(reason) => self.imported.rejected.push(Rejected { row, reason }),
        }
        Ok(())
    }

    fn keep(&mut self, row: usize, client: NewClient) -> Result<(), Error> {
        if let Some(first) = self.seen.get(&client.phone_number) {
            let reason = format!("el teléfono está repetido: ya está en la fila {first}");
            self.imported.rejected.push(Rejected { row, reason });
            return Ok(());
        }
        self.kept_bytes += bytes(&client);
        if self.kept_bytes > KEPT_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        self.seen.insert(client.phone_number.clone(), row);
        self.imported.clients.push(client);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Imported, Error> {
        (self.progress)(self.rows);
        if self.rows == 0 {
            return Err(Error::Empty);
        }
        Ok(self.imported)
    }
}

/// A row as a client, or why it is none.
fn client(columns: &[Column], cells: &[String], prefix: &str) -> Result<NewClient, String> {
    let (mut name, mut phone, mut email, mut empresa, mut cargo) = Default::default();
    let mut variables = Map::new();
    for (column, cell) in columns.iter().zip(cells) {
        let text = clean(cell);
        if text.chars().count() > CELL_CHARS_MAX {
            return Err("una celda tiene más de 2.000 caracteres".to_owned());
        }
        match column {
            Column::Name => name = text,
            Column::Phone => phone = text,
            Column::Email => email = Some(text).filter(|text| !text.is_empty()),
            Column::Empresa => empresa = Some(text).filter(|text| !text.is_empty()),
            Column::Cargo => cargo = Some(text).filter(|text| !text.is_empty()),
            Column::Variable(key) if !text.is_empty() => {
                variables.insert(key.clone(), text.into());
            }
            Column::Variable(_) | Column::Nothing => {}
        }
    }
    Ok(NewClient {
        name,
        phone_number: number(&phone, prefix)?,
        email,
        empresa,
        cargo,
        variables,
    })
}

/// Without the character NUL, which PostgreSQL's text cannot hold.
fn clean(cell: &str) -> String {
    let text = cell.trim();
    if text.contains('\0') {
        text.replace('\0', "").trim().to_owned()
    } else {
        text.to_owned()
    }
}

/// A telephone number as it stands in a cell, or why it is none.
pub(super) fn number(written: &str, prefix: &str) -> Result<PhoneNumber, String> {
    if written.is_empty() {
        return Err("falta el teléfono".to_owned());
    }
    if is_scientific(written) {
        return Err(
            "el teléfono está en notación científica y perdió cifras: dé formato de texto a la columna"
                .to_owned(),
        );
    }
    // A number that went through a program which takes it for a quantity.
    let digits = written.trim_end_matches('0').strip_suffix('.');
    let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    PhoneNumber::national(digits.unwrap_or(written), prefix)
        .map_err(|_| "el teléfono no es un número válido".to_owned())
}

/// `3.00123E+09`, as spreadsheets save wide numbers into csv.
fn is_scientific(written: &str) -> bool {
    let mut parts = written.splitn(2, ['e', 'E']);
    let (mantissa, exponent) = (parts.next(), parts.next());
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    mantissa.is_some_and(|mantissa| digits(&mantissa.replace([',', '.'], "")))
        && exponent.is_some_and(|exponent| digits(exponent.trim_start_matches(['+', '-'])))
}

/// How much memory a client keeps, roughly.
fn bytes(client: &NewClient) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let variables: usize = client
        .variables
        .iter()
        .map(|(key, value)| {
            key.len() + value.as_str().map_or(0, str::len) + 2 * TEXT_OVERHEAD_BYTES
        })
        .sum();
    client.name.len()
        + optional(&client.email)
        + optional(&client.empresa)
        + optional(&client.cargo)
        + variables
}
