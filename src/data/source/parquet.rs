//! Tables in Parquet.
//!
//! Duty: a document for each row, from the column of the text and that of the address; the place
//! of a row is its number. A damaged group of rows is one bad record. Limits: some rows of the two
//! columns at once. Prohibition: reads no other column.

use std::fs::File;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};

use super::records::{RECORD_BYTES_MAX, Records};
use super::{Fields, SourceFile};
use crate::data::error::DataError;

/// Rows that are read at once.
const ROWS: usize = 256;

/// Reads every row.
pub(super) fn read(
    file: &SourceFile,
    fields: &Fields,
    records: &mut Records<'_>,
) -> Result<(), DataError> {
    let opened = File::open(&file.path).map_err(DataError::io(&file.path, "open"))?;
    let reader = match SerializedFileReader::new(opened) {
        Ok(reader) => reader,
        Err(error) => {
            records.bad(0, format!("expected a Parquet file: {error}"));
            return Ok(());
        }
    };
    let schema = reader.metadata().file_metadata().schema_descr();
    let column = |name: &str| {
        let leaf = |at: &usize| schema.column(*at).path().string() == name;
        let is_bytes = |at: &usize| schema.column(*at).physical_type() == Type::BYTE_ARRAY;
        (0..schema.num_columns()).find(leaf).filter(is_bytes)
    };
    let Some(text) = column(&fields.text) else {
        let names = schema.columns().iter().map(|column| column.path().string());
        let names = names.take(8).collect::<Vec<_>>().join(", ");
        let field = &fields.text;
        let reason =
            format!("expected a column of strings \"{field}\" (see data.field) among {names}");
        records.bad(0, reason);
        return Ok(());
    };
    let url = column(&fields.url).filter(|&url| url != text);
    let mut first = 0;
    for group in 0..reader.num_row_groups() {
        let rows = reader.metadata().row_group(group).num_rows().max(0) as u64;
        let read = reader.get_row_group(group).map_err(Ended::Bad);
        let read = read.and_then(|group| read_group(&*group, (text, url), first, records));
        match read {
            Ok(()) => {}
            Err(Ended::Enough) => return Ok(()),
            Err(Ended::Failed(error)) => return Err(error),
            Err(Ended::Bad(error)) => {
                records.bad(first, format!("expected a group of {rows} rows: {error}"));
            }
        }
        first += rows;
    }
    Ok(())
}

/// Why a group of rows was not read to its end.
enum Ended {
    Enough,
    Bad(ParquetError),
    Failed(DataError),
}

impl From<ParquetError> for Ended {
    fn from(error: ParquetError) -> Self {
        Self::Bad(error)
    }
}

/// A column of strings, some rows at a time.
struct Strings {
    column: ColumnReaderImpl<ByteArrayType>,
    /// Of a row that has a value.
    level: i16,
    levels: Vec<i16>,
    values: Vec<ByteArray>,
}

impl Strings {
    fn open(group: &dyn RowGroupReader, at: usize) -> Result<Self, Ended> {
        let descriptor = group.metadata().column(at).column_descr();
        let (level, repeats) = (descriptor.max_def_level(), descriptor.max_rep_level());
        match group.get_column_reader(at)? {
            ColumnReader::ByteArrayColumnReader(column) if repeats == 0 => {
                Ok(Self { column, level, levels: Vec::new(), values: Vec::new() })
            }
            _ => Err(Ended::Bad(ParquetError::General("a list, not a string".to_owned()))),
        }
    }

    /// The next rows, `None` where there is no value.
    fn rows(&mut self) -> Result<Vec<Option<ByteArray>>, Ended> {
        self.levels.clear();
        self.values.clear();
        let levels = (self.level > 0).then_some(&mut self.levels);
        let (rows, _, _) = self.column.read_records(ROWS, levels, None, &mut self.values)?;
        let mut values = self.values.drain(..);
        if self.level == 0 {
            return Ok(values.map(Some).collect());
        }
        let value = |&level: &i16| if level == self.level { values.next() } else { None };
        Ok(self.levels[..rows.min(self.levels.len())].iter().map(value).collect())
    }
}

fn read_group(
    group: &dyn RowGroupReader,
    (text, url): (usize, Option<usize>),
    first: u64,
    records: &mut Records<'_>,
) -> Result<(), Ended> {
    let mut texts = Strings::open(group, text)?;
    let mut urls = url.map(|url| Strings::open(group, url)).transpose()?;
    let mut row = first;
    loop {
        let rows = texts.rows()?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut addresses = urls.as_mut().map_or(Ok(Vec::new()), Strings::rows)?.into_iter();
        for text in rows {
            let address = addresses.next().flatten();
            let address = address.as_ref().and_then(|url| std::str::from_utf8(url.data()).ok());
            let text = text.as_ref().map_or(&[][..], ByteArray::data);
            match std::str::from_utf8(text) {
                Err(_) => records.bad(row, "it is not UTF-8"),
                Ok(text) if text.len() > RECORD_BYTES_MAX => {
                    let got = text.len();
                    records
                        .bad(row, format!("expected at most {RECORD_BYTES_MAX} bytes, got {got}"));
                }
                Ok(text) => {
                    let more = records.document(row, address.unwrap_or_default(), text);
                    if !more.map_err(Ended::Failed)? {
                        return Err(Ended::Enough);
                    }
                }
            }
            row += 1;
        }
    }
}
