//! Parquet: rows are gathered until there are enough of them for a group, whose
//! columns are then written one by one.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::file::{Footer, Header, Row};
use super::table::{self, Cell, Column, Type};

/// A group ends after so many rows,
const GROUP_ROWS: usize = 50_000;
/// or about so many bytes.
const GROUP_BYTES: usize = 16 << 20;

/// A file that grows.
pub(super) struct ParquetFile {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: &'static [Column],
    gathered: Vec<Gathered>,
    rows: usize,
    bytes: usize,
}

/// The values of a column that are there, and for each row whether one is.
#[derive(Default)]
struct Gathered {
    numbers: Vec<i64>,
    texts: Vec<ByteArray>,
    is_there: Vec<i16>,
}

impl ParquetFile {
    pub(super) fn new(columns: &'static [Column], header: &Header) -> anyhow::Result<Self> {
        let fields = columns.iter().map(|(name, r#type)| {
            let r#type = match r#type {
                Type::Text => format!("byte_array {name} (string)"),
                Type::Bytes => format!("byte_array {name}"),
                Type::Number => format!("int64 {name}"),
                Type::Time => format!("int64 {name} (timestamp(micros,true))"),
            };
            format!("optional {};", r#type)
        });
        let fields: String = fields.collect();
        let schema = format!("message {} {{ {fields} }}", header.exported);
        let schema = Arc::new(parse_message_type(&schema)?);
        let about = KeyValue::new("bitacora".to_owned(), serde_json::to_string(header)?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("bitacora {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(vec![about]))
            .build();
        Ok(Self {
            writer: SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?,
            columns,
            gathered: columns.iter().map(|_| Gathered::default()).collect(),
            rows: 0,
            bytes: 0,
        })
    }

    pub(super) fn add(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        for row in rows {
            for (column, cell) in self.gathered.iter_mut().zip(table::cells(row)) {
                self.bytes += column.add(cell);
            }
            self.rows += 1;
            if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
                self.write_group()?;
            }
        }
        Ok(())
    }

    fn write_group(&mut self) -> anyhow::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for ((_, r#type), column) in self.columns.iter().zip(&mut self.gathered) {
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            let Gathered {
                numbers,
                texts,
                is_there,
            } = std::mem::take(column);
            match r#type {
                Type::Text | Type::Bytes => {
                    let column = writer.typed::<ByteArrayType>();
                    column.write_batch(&texts, Some(&is_there), None)?;
                }
                Type::Number | Type::Time => {
                    let column = writer.typed::<Int64Type>();
                    column.write_batch(&numbers, Some(&is_there), None)?;
                }
            }
            writer.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// What there is of the file by now, behind what was taken before.
    pub(super) fn take(&mut self) -> anyhow::Result<Vec<u8>> {
        self.writer.flush()?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    pub(super) fn finish(mut self, footer: &Footer) -> anyhow::Result<Vec<u8>> {
        self.write_group()?;
        let about = serde_json::to_string(footer)?;
        let about = KeyValue::new("bitacora.end".to_owned(), about);
        self.writer.append_key_value_metadata(about);
        Ok(self.writer.into_inner()?)
    }
}

impl Gathered {
    /// Adds what stands in a row; gives about how many bytes that are.
    fn add(&mut self, cell: Option<Cell<'_>>) -> usize {
        self.is_there.push(i16::from(cell.is_some()));
        let text = match cell {
            None => return size_of::<i16>(),
            Some(Cell::Number(number) | Cell::Time(number)) => {
                self.numbers.push(number);
                return size_of::<i64>();
            }
            Some(Cell::Text(text)) => text.as_bytes().to_vec(),
            Some(Cell::Made(text)) => text.into_bytes(),
            Some(Cell::Bytes(bytes)) => bytes.to_vec(),
        };
        let bytes = text.len() + size_of::<ByteArray>();
        self.texts.push(ByteArray::from(text));
        bytes
    }
}
