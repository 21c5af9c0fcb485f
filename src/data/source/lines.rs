//! One JSON line to the text of its document.
//!
//! Duty: finds one field, without building the others. Prohibition: reads no file.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Most fields that are named where one is missing.
const NAMES_MAX: usize = 8;

/// The text of a line's `field`; an error says what was expected and found.
pub(super) fn text_of<'a>(line: &'a str, field: &str) -> Result<Cow<'a, str>, String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let found = Field(field).deserialize(&mut json).and_then(|text| json.end().map(|()| text));
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

struct Field<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut text = None;
        while let Some(Text(name)) = fields.next_key()? {
            if name == self.0 {
                text = Some(fields.next_value::<Text<'de>>()?.0);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        text.ok_or_else(|| A::Error::custom(format_args!("missing field `{}`", self.0)))
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
