//! Rows as the bytes of a file.

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use serde_json::Value;

use super::file::{Footer, Header, Row};
use super::order::{Format, Kind, Order};
use super::parquet::ParquetFile;
use super::table::{self, Cell, Column};

/// A file that grows.
pub(super) struct Encoder {
    format: Form,
    masked: bool,
    columns: &'static [Column],
}

enum Form {
    Jsonl(Vec<u8>),
    Csv(Box<csv::Writer<Vec<u8>>>),
    Parquet(Box<ParquetFile>),
}

/// The last line.
#[derive(Serialize)]
struct Last<'a> {
    kind: &'static str,
    #[serde(flatten)]
    footer: &'a Footer,
}

impl Encoder {
    pub(super) fn new(order: &Order, header: Header) -> anyhow::Result<Self> {
        let columns = table::columns(order.kind(), order.masked);
        let format = match order.format {
            Format::Jsonl => {
                let mut lines = Vec::new();
                line(&mut lines, &header)?;
                Form::Jsonl(lines)
            }
            Format::Csv => {
                let mut rows = csv::WriterBuilder::new()
                    .terminator(csv::Terminator::CRLF)
                    .from_writer(Vec::new());
                rows.write_record(columns.iter().map(|(name, _)| name))?;
                Form::Csv(Box::new(rows))
            }
            Format::Parquet => Form::Parquet(Box::new(ParquetFile::new(columns, &header)?)),
        };
        let masked = order.masked && order.kind() == Kind::Deliveries;
        Ok(Self {
            format,
            masked,
            columns,
        })
    }

    pub(super) fn add(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        match &mut self.format {
            Form::Jsonl(lines) => {
                for row in &rows {
                    match self.masked {
                        false => line(lines, row)?,
                        true => line(lines, &without_sent(row)?)?,
                    }
                }
            }
            Form::Csv(csv) => {
                for row in &rows {
                    let cells = table::cells(row).into_iter().take(self.columns.len());
                    csv.write_record(cells.map(|cell| cell.map_or_else(String::new, shown)))?;
                }
            }
            Form::Parquet(file) => file.add(&rows)?,
        }
        Ok(())
    }

    /// What there is of the file by now, behind what was taken before.
    pub(super) fn take(&mut self) -> anyhow::Result<Vec<u8>> {
        Ok(match &mut self.format {
            Form::Jsonl(lines) => std::mem::take(lines),
            Form::Csv(csv) => taken(csv)?,
            Form::Parquet(file) => file.take()?,
        })
    }

    /// The end of the file.
    pub(super) fn finish(self, footer: &Footer) -> anyhow::Result<Vec<u8>> {
        match self.format {
            Form::Jsonl(mut lines) => {
                let kind = "footer";
                line(&mut lines, &Last { kind, footer })?;
                Ok(lines)
            }
            Form::Csv(mut csv) => taken(&mut csv),
            Form::Parquet(file) => file.finish(footer),
        }
    }
}

fn line(lines: &mut Vec<u8>, row: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *lines, row)?;
    lines.push(b'\n');
    Ok(())
}

fn without_sent(row: &Row) -> anyhow::Result<Value> {
    let mut row = serde_json::to_value(row)?;
    let fields = row.as_object_mut().context("a row is an object")?;
    for sent in ["request_target", "headers", "body"] {
        fields.remove(sent);
    }
    Ok(row)
}

fn taken(csv: &mut csv::Writer<Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    csv.flush()?;
    let empty = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let written = std::mem::replace(csv, empty);
    written
        .into_inner()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// A cell as text: times as everywhere, bytes as base64.
fn shown(cell: Cell<'_>) -> String {
    match cell {
        Cell::Text(text) => text.to_owned(),
        Cell::Made(text) => text,
        Cell::Number(number) => number.to_string(),
        Cell::Time(micros) => DateTime::from_timestamp_micros(micros)
            .map_or_else(String::new, |at| {
                at.to_rfc3339_opts(SecondsFormat::Micros, true)
            }),
        Cell::Bytes(bytes) => STANDARD.encode(bytes),
    }
}
