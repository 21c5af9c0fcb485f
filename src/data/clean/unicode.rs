//! `unicode`: repairs and normalises characters.
//!
//! Duty: undoes UTF-8 that was read as Windows-1252 ("cafÃ©"), where what stands there can
//! hardly be meant; takes away controls, byte order marks and invisible joints; makes line ends
//! and blanks uniform; brings the text into a normal form of Unicode. Prohibition: never drops.

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfkc_quick};

use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// What is done.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Unicode {
    /// The normal form.
    pub form: Form,
    /// Undo UTF-8 that was read as Windows-1252.
    pub repair: bool,
    /// Take away controls and invisible characters, make line ends and blanks uniform.
    pub controls: bool,
}

/// A normal form of Unicode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As it is.
    None,
    /// Composed.
    #[default]
    Nfc,
    /// Composed, and without differences of appearance.
    Nfkc,
}

impl Default for Unicode {
    fn default() -> Self {
        Self { form: Form::Nfc, repair: true, controls: true }
    }
}

impl Step for Unicode {
    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for Unicode {
    fn apply(&self, document: &mut Document) -> Verdict {
        let ascii = document.text().is_ascii();
        if self.repair && !ascii {
            document.rewrite(repaired);
        }
        let plain = |byte: u8| byte == b'\n' || byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        if self.controls && !(ascii && document.text().bytes().all(plain)) {
            document.rewrite(without_controls);
        }
        let normal = ascii
            || match self.form {
                Form::None => true,
                Form::Nfc => is_nfc_quick(document.text().chars()) == IsNormalized::Yes,
                Form::Nfkc => is_nfkc_quick(document.text().chars()) == IsNormalized::Yes,
            };
        if !normal {
            document.rewrite(|text, out| {
                match self.form {
                    Form::Nfkc => out.extend(text.nfkc()),
                    _ => out.extend(text.nfc()),
                }
                out != text
            });
        }
        Verdict::Keep
    }
}

/// The byte that Windows-1252 shows as this character.
fn windows_1252(character: char) -> Option<u8> {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    match u32::from(character) {
        code @ (0x80..=0xff) => u8::try_from(code).ok(),
        _ => HIGH.iter().position(|&high| high == character).map(|at| 0x80 + at as u8),
    }
}

/// The character that the beginning of `text` shows byte for byte, and the bytes that it takes.
fn misread(text: &str) -> Option<(char, usize)> {
    let lead = windows_1252(text.chars().next()?)?;
    // The leads that real text hardly ever has before a sign: Ã, Â; and â€ and ðŸ.
    let length = match lead {
        0xc2 | 0xc3 => 2,
        0xe2 => 3,
        0xf0 => 4,
        _ => return None,
    };
    let (mut bytes, mut taken) = ([0u8; 4], 0);
    for (at, character) in text.chars().take(length).enumerate() {
        bytes[at] = windows_1252(character)?;
        taken += character.len_utf8();
    }
    // A closing quotation mark may follow a capital.
    let quote = length == 2 && bytes[1] == 0xbb;
    let sign = length != 3 || matches!(bytes[1], 0x80..=0x84);
    let whole = std::str::from_utf8(&bytes[..length]).ok()?;
    whole.chars().next().filter(|_| sign && !quote).map(|character| (character, taken))
}

fn repaired(text: &str, out: &mut String) -> bool {
    let (mut from, mut at) = (0, 0);
    while let Some(lead) = text[at..].find(['Ã', 'Â', 'â', 'ð']) {
        at += lead;
        match misread(&text[at..]) {
            Some((character, taken)) => {
                out.push_str(&text[from..at]);
                out.push(character);
                at += taken;
                from = at;
            }
            None => at += 2,
        }
    }
    out.push_str(&text[from..]);
    from > 0
}

fn without_controls(text: &str, out: &mut String) -> bool {
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\t' => out.push(character),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' | '\u{85}' | '\u{2028}' => out.push('\n'),
            '\u{2029}' => out.push_str("\n\n"),
            // Blanks of other widths; U+3000 is a blank of its script.
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' => out.push(' '),
            // Soft hyphens, zero-width blanks and marks of direction at no place that needs them.
            '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{200e}' | '\u{200f}' => {}
            control if control.is_control() => {}
            other => out.push(other),
        }
    }
    out != text
}
