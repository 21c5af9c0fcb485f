//! Files that hold a document in each of their records.
//!
//! Duty: one reader for each format, and what they share: records are gathered into parts, bad
//! ones counted. Prohibition: a bad record ends nothing.

use super::format::Format;
use super::parts::Part;
use super::{Fields, SourceFile, spool};
use crate::data::error::DataError;

/// Reads one file. `memory` gives the next part to fill; `take` gets it filled.
pub(super) fn read(
    (_key, _fields): (&str, &Fields),
    (_number, file): (usize, &SourceFile),
    memory: &mut dyn FnMut() -> Result<Part, DataError>,
    take: &mut dyn FnMut(Part) -> Result<(), DataError>,
) -> Result<(), DataError> {
    match file.format {
        Format::Text | Format::JsonLines => unreachable!("these are read as characters"),
        Format::Documents => spool::read(file, memory, take),
    }
}
