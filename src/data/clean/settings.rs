//! Checks that settings of several steps share.
//!
//! Duty: the problem names the setting. Prohibition: knows no step.

use std::fmt::Display;
use std::path::Path;

use crate::data::error::DataError;

/// A share lies between 0 and 1.
pub(super) fn share(name: &str, value: f64) -> Result<(), String> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(()),
        false => Err(format!("{name}: expected a share from 0 to 1, got {value}")),
    }
}

/// The upper limit `name` is not below the lower one.
pub(super) fn ordered<T: PartialOrd + Display>(name: &str, min: T, max: T) -> Result<(), String> {
    match min <= max {
        true => Ok(()),
        false => Err(format!("{name}: expected at least {min}, got {max}")),
    }
}

/// The lines of a file of words, without blank ones and those that begin with `#`.
///
/// # Errors
/// [`DataError::Config`] for a file that cannot be read.
pub(super) fn read_list(path: &Path) -> Result<Vec<String>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// The error for a file of a step that cannot be read.
pub(super) fn unreadable(path: &Path, error: &dyn Display) -> DataError {
    let problem = format!("expected a file that can be read, got {}: {error}", path.display());
    DataError::Config { key: "data.clean", problem }
}

/// blake3 of a file that a step reads.
///
/// # Errors
/// As [`read_list`].
pub(in crate::data) fn digest_of(path: &Path) -> Result<[u8; 32], DataError> {
    let mut hasher = blake3::Hasher::new();
    let read = std::fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    read.map_err(|error| unreadable(path, &error))?;
    Ok(*hasher.finalize().as_bytes())
}
