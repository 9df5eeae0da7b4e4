//! A cell as text, whatever the format makes of it.

use calamine::{Data, DataRef, ExcelDateTime};

/// Largest whole number that a spreadsheet keeps exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A number as people write it: `3001234567.0` is `3001234567`.
pub(super) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        format!("{value:.0}")
    } else {
        value.to_string()
    }
}

/// A truth value as Spanish spreadsheets show it.
pub(super) fn boolean(value: bool) -> String {
    if value { "VERDADERO" } else { "FALSO" }.to_owned()
}

/// A cell of an xlsx.
pub(super) fn of_xlsx(cell: &DataRef<'_>) -> String {
    match cell {
        DataRef::Int(value) => value.to_string(),
        DataRef::Float(value) => number(*value),
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => {
            text.clone()
        }
        DataRef::SharedString(text) => (*text).to_owned(),
        DataRef::Bool(value) => boolean(*value),
        DataRef::DateTime(value) => date_time(value),
        DataRef::Error(_) | DataRef::Empty => String::new(),
    }
}

/// A cell of an xls.
pub(super) fn of_xls(cell: &Data) -> String {
    match cell {
        Data::Int(value) => value.to_string(),
        Data::Float(value) => number(*value),
        Data::String(text) | Data::DateTimeIso(text) | Data::DurationIso(text) => text.clone(),
        Data::Bool(value) => boolean(*value),
        Data::DateTime(value) => date_time(value),
        _ => String::new(),
    }
}

/// A date, with its time where it has one; a duration as hours.
fn date_time(value: &ExcelDateTime) -> String {
    if value.is_duration() || value.as_f64() < 1.0 {
        let secs = (value.as_f64() * 86_400.0).round() as i64;
        return format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60);
    }
    let (year, month, day, hour, minute, second, _) = value.to_ymd_hms_milli();
    let date = format!("{year:04}-{month:02}-{day:02}");
    match (hour, minute, second) {
        (0, 0, 0) => date,
        _ => format!("{date} {hour:02}:{minute:02}:{second:02}"),
    }
}
