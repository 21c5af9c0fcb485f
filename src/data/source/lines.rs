//! One JSON line to the text and the address of its document.
//!
//! Duty: finds these fields, without building the others. Prohibition: reads no file.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Fields;

/// Most fields that are named where one is missing.
const NAMES_MAX: usize = 8;

/// What is taken of a line.
pub(super) struct Record<'a> {
    pub(super) text: Cow<'a, str>,
    /// Where it comes from, if the line says so.
    pub(super) url: Option<Cow<'a, str>>,
}

/// The document of a line; an error says what was expected and found.
pub(super) fn record_of<'a>(line: &'a str, fields: &Fields) -> Result<Record<'a>, String> {
    let field = fields.text.as_str();
    let mut json = serde_json::Deserializer::from_str(line);
    let found = Wanted(fields).deserialize(&mut json);
    let found = found.and_then(|record| json.end().map(|()| record));
    found.map_err(|error| {
        let complaint = error.to_string();
        // The parser counts lines of what it was given, which is one line.
        let complaint = complaint.split(" at line ").next().unwrap_or_default();
        let column = error.column();
        let expected = format!("expected a JSON object with a string \"{field}\" (see data.field)");
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) if !fields.contains_key(field) => {
                let names: Vec<String> =
                    fields.keys().take(NAMES_MAX).map(|name| format!("\"{name}\"")).collect();
                let more = if fields.len() > NAMES_MAX { ", ..." } else { "" };
                match names.is_empty() {
                    true => format!("{expected}, but it is empty"),
                    false => format!("{expected}, but it has only {}{more}", names.join(", ")),
                }
            }
            _ => format!("{expected}: {complaint} (column {column})"),
        }
    })
}

struct Wanted<'f>(&'f Fields);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Record<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Record<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let (mut text, mut url) = (None, None);
        while let Some(Text(name)) = fields.next_key()? {
            if name == self.0.text.as_str() {
                text = Some(fields.next_value::<Text<'de>>()?.0);
            } else if name == self.0.url.as_str() {
                url = fields.next_value::<Perhaps<'de>>()?.0;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        let missing = || A::Error::custom(format_args!("missing field `{}`", self.0.text));
        Ok(Record { text: text.ok_or_else(missing)?, url })
    }
}

/// A string, or anything else, which says nothing.
struct Perhaps<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Perhaps<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str::<Text<'de>>(raw.get()).ok().map(|text| text.0)))
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
