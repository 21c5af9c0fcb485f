//! Files that hold a document in each of their records.
//!
//! Duty: one reader for each format, and what they share: records are gathered into parts, bad
//! ones counted with their place. Limits: a record of more than [`RECORD_BYTES_MAX`] is bad.
//! Prohibition: a bad record ends nothing.

use super::format::Format;
use super::parts::{BadRecord, PART_BYTES, Part, PartKind, Record};
use super::read::Input;
use super::{Fields, SourceFile, parquet, spool, tar, warc, wiki};
use crate::data::error::DataError;

/// A longer record would have to be held whole.
pub(super) const RECORD_BYTES_MAX: usize = 32 << 20;

/// Reads one file. `memory` gives the next part to fill; `take` gets it filled.
pub(super) fn read(
    (key, fields): (&str, &Fields),
    (number, file): (usize, &SourceFile),
    memory: &mut dyn FnMut() -> Result<Part, DataError>,
    take: &mut dyn FnMut(Part) -> Result<(), DataError>,
) -> Result<(), DataError> {
    if file.format == Format::Documents {
        return spool::read(file, memory, take);
    }
    let left = if file.take < file.bytes { file.take } else { u64::MAX };
    let mut records = Records { number, left, part: Part::default(), memory, take };
    records.begin()?;
    if file.format == Format::Parquet {
        parquet::read(file, fields, &mut records)?;
        Input::open(key, &file.path)?.finish(file)?;
    } else {
        let mut input = Input::open(key, &file.path)?;
        match file.format {
            Format::Warc => warc::read(&mut input, &mut records)?,
            Format::Wikipedia => wiki::read(&mut input, &mut records)?,
            Format::Tar => tar::read(&mut input, fields, &mut records)?,
            Format::Text | Format::JsonLines | Format::Documents | Format::Parquet => {
                unreachable!("these are read elsewhere")
            }
        }
        input.finish(file)?;
    }
    records.take_part()
}

/// Records of one file on their way into parts.
pub(super) struct Records<'a> {
    /// Position of the file in the corpus.
    number: usize,
    /// Bytes of text that are still wanted.
    left: u64,
    part: Part,
    memory: &'a mut dyn FnMut() -> Result<Part, DataError>,
    take: &'a mut dyn FnMut(Part) -> Result<(), DataError>,
}

impl Records<'_> {
    fn begin(&mut self) -> Result<(), DataError> {
        self.part = (self.memory)()?;
        self.part.clear();
        (self.part.kind, self.part.file) = (PartKind::Records, self.number);
        Ok(())
    }

    fn take_part(&mut self) -> Result<(), DataError> {
        (self.take)(std::mem::take(&mut self.part))
    }

    /// Takes a document; false if the source wants no more.
    pub(super) fn document(
        &mut self,
        offset: u64,
        url: &str,
        text: &str,
    ) -> Result<bool, DataError> {
        if self.left == 0 {
            return Ok(false);
        }
        self.part.passed_over.records += 1;
        if text.is_empty() {
            self.part.passed_over.empty += 1;
            return Ok(true);
        }
        self.left = self.left.saturating_sub(text.len() as u64);
        self.part.text.push_str(text);
        let end = self.part.text.len();
        self.part.records.push(Record { end, file: self.number, offset, url: url.to_owned() });
        if end >= PART_BYTES {
            self.take_part()?;
            self.begin()?;
        }
        Ok(true)
    }

    /// Counts a record that is no document.
    pub(super) fn bad(&mut self, offset: u64, reason: impl Into<String>) {
        self.part.passed_over.records += 1;
        let (file, reason) = (self.number, reason.into());
        self.part.passed_over.bad(BadRecord { file, offset, reason });
    }
}

#[cfg(test)]
mod tests;
