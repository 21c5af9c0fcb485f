//! The keys of a section, and the one that somebody may have meant.
//!
//! Duty: asks serde itself for the names of fields, so that no list is kept by hand.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

/// The names of the fields that `T`, a struct, is read from.
pub(crate) fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // The probe holds no data, so this always ends in an error that means nothing.
    let _ = T::deserialize(Probe(&mut fields)).map(drop);
    fields
}

/// A deserializer that only listens to what it is asked for.
struct Probe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("a probe has no data"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The key among `known` that is nearest to `section.key`. Whoever names a section means it, unless
/// the very key, or one a slip of the fingers away, stands in another.
pub(crate) fn nearest(section: &str, key: &str, known: &[(String, String)]) -> Option<String> {
    let distance = |(s, k): &&(String, String)| {
        let slip = edits(key, k);
        // Short forms, as `lr` for `learning_rate`, are far apart by letters.
        let apart = if is_short_for(key, k) { slip.min(2) } else { slip };
        let rank = match (s == section, slip) {
            (_, 0) => 0,
            (true, _) if apart <= 2 || 2 * apart <= k.len() => 1,
            (false, 1) => 2,
            (true, _) => 3,
            (false, _) => 4,
        };
        (rank, apart, s != section)
    };
    let (section, key) = known.iter().min_by_key(distance)?;
    Some(if section.is_empty() { key.clone() } else { format!("{section}.{key}") })
}

/// `lr` and `lrate` for `learning_rate`, `warm` for `warmup`: the same first letter, and all
/// letters in order.
fn is_short_for(short: &str, key: &str) -> bool {
    let mut letters = key.chars();
    short.len() > 1
        && short.chars().next() == key.chars().next()
        && short.chars().all(|wanted| letters.any(|letter| letter == wanted))
}

/// Letters to insert, delete or replace to get from `a` to `b` (Levenshtein).
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
