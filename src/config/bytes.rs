//! Sizes of memory and disk in a configuration: a whole number of bytes, or `"60 GB"`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes. It is stored as a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Units by name: powers of a thousand, and of 1,024 with an `i`.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const WANTED: &str = "a size like \"60 GB\", \"1.5 GiB\" or a number of bytes";

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..end], text[end..].trim());
        let unit = if unit.is_empty() { "B" } else { unit };
        let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let value: Option<f64> = number.parse().ok();
        let bytes = factor.zip(value).map(|((_, factor), value)| value * *factor as f64);
        match bytes.filter(|bytes| (1.0..i64::MAX as f64).contains(bytes)) {
            Some(bytes) => Ok(Self(bytes as u64)),
            None => Err(format!("expected {WANTED}, got \"{text}\"")),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WANTED)
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Bytes, E> {
                match u64::try_from(bytes) {
                    Ok(bytes) if bytes > 0 => Ok(Bytes(bytes)),
                    _ => Err(E::invalid_value(Unexpected::Signed(bytes), &self)),
                }
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests;
