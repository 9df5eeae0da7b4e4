//! What each column of a document is, by its header: in Spanish or English,
//! in any case and with any accents.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::{COLUMNS_MAX, Error};

/// Longest name of a variable.
const VARIABLE_CHARS_MAX: usize = 100;

/// What a column is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Phone,
    Email,
    Empresa,
    Cargo,
    /// Something else that the agent is told, by its header.
    Variable(String),
    /// It has no header.
    Nothing,
}

/// The columns of a row of headers.
///
/// # Errors
/// [`Error::NoPhoneColumn`].
pub(super) fn read(headers: &[String]) -> Result<Vec<Column>, Error> {
    let mut columns: Vec<Column> = Vec::new();
    for header in headers.iter().take(COLUMNS_MAX) {
        let known = known(header).filter(|known| !columns.contains(known));
        columns.push(known.unwrap_or_else(|| variable(header, &columns)));
    }
    if columns.contains(&Column::Phone) {
        Ok(columns)
    } else {
        Err(Error::NoPhoneColumn)
    }
}

/// Of two columns of one kind the first counts; the other is a variable.
fn known(header: &str) -> Option<Column> {
    Some(match folded(header).as_str() {
        "name" | "nombre" | "nombres" | "nombre completo" | "full name" => Column::Name,
        "phone" | "phone number" | "telefono" | "numero de telefono" | "telefono celular"
        | "celular" | "movil" | "mobile" => Column::Phone,
        "email" | "e mail" | "mail" | "correo" | "correo electronico" => Column::Email,
        "empresa" | "company" | "compania" => Column::Empresa,
        "cargo" | "position" | "puesto" => Column::Cargo,
        _ => return None,
    })
}

fn variable(header: &str, before: &[Column]) -> Column {
    let name: String = header.trim().chars().take(VARIABLE_CHARS_MAX).collect();
    if name.is_empty() {
        return Column::Nothing;
    }
    let taken = |name: &String| before.contains(&Column::Variable(name.clone()));
    let numbered = (2..).map(|n| format!("{name}_{n}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names
        .find(|name| !taken(name))
        .map_or(Column::Nothing, Column::Variable)
}

/// Letters and digits in lower case and without accents, words by one space.
fn folded(header: &str) -> String {
    let letters = header.nfkd().filter(|c| !is_combining_mark(*c));
    let plain: String = letters
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}
