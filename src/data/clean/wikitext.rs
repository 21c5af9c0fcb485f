//! `wikitext`: the text of a page of a wiki, without its markup.
//!
//! Duty: templates, tables, references, files and categories go; links and headings leave their
//! text. What has no markup passes unchanged. Limits: markup inside markup to any depth, in one
//! pass. Prohibition: expands no template.

use serde::{Deserialize, Serialize};

use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// It has no settings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wikitext {}

impl Step for Wikitext {
    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for Wikitext {
    fn apply(&self, document: &mut Document) -> Verdict {
        document.rewrite(|text, out| {
            let mut plain = String::with_capacity(text.len());
            inline(text, 0, &mut plain);
            lines(&plain, out);
            out != text
        });
        match document.text().is_empty() {
            true => Verdict::Drop("no_text"),
            false => Verdict::Keep,
        }
    }
}

/// Elements that go with all that they hold.
const ELEMENTS: [&str; 8] =
    ["ref", "gallery", "math", "timeline", "score", "imagemap", "syntaxhighlight", "references"];

/// Links inside links are followed so far.
const DEPTH_MAX: usize = 16;
/// How far behind its beginning markup of one line may end, and elements.
const LINE_BYTES: usize = 4 << 10;
const ELEMENT_BYTES: usize = 64 << 10;

/// Writes the text without what stands in brackets.
fn inline(text: &str, depth: usize, out: &mut String) {
    let closings = closings(text.as_bytes());
    let closed = |at: usize| {
        let found = closings.binary_search_by_key(&at, |&(open, _)| open).ok()?;
        Some(closings[found].1 - at)
    };
    let mut at = 0;
    while let Some(next) = text[at..].find(['{', '[', '<', '\'', '&', '_']) {
        out.push_str(&text[at..at + next]);
        at += next;
        let here = &text[at..];
        let taken = match here.as_bytes()[0] {
            b'{' => closed(at),
            b'[' if here.starts_with("[[") => {
                let taken = closed(at);
                taken.into_iter().for_each(|taken| link(&here[2..taken - 2], depth, out));
                taken
            }
            b'[' => external(here, depth, out),
            b'<' => element(here),
            b'\'' if here.starts_with("''") => {
                Some(here.len() - here.trim_start_matches('\'').len())
            }
            b'&' => entity(here, out),
            b'_' if here.starts_with("__") => magic(here),
            _ => None,
        };
        at += taken.unwrap_or_else(|| {
            out.push_str(&here[..1]);
            1
        });
    }
    out.push_str(&text[at..]);
}

/// Where templates, tables and links begin that end, and behind which byte.
fn closings(bytes: &[u8]) -> Vec<(usize, usize)> {
    let kinds: [(&[u8], &[u8]); 3] = [(b"{{", b"}}"), (b"{|", b"|}"), (b"[[", b"]]")];
    let mut open: [Vec<usize>; 3] = Default::default();
    let (mut found, mut at) = (Vec::new(), 0);
    while at + 1 < bytes.len() {
        let pair = &bytes[at..at + 2];
        let opens = kinds.iter().position(|(sign, _)| *sign == pair);
        let closes = kinds.iter().position(|(_, sign)| *sign == pair);
        if let Some(kind) = opens {
            open[kind].push(at);
        } else if let Some(start) = closes.and_then(|kind| open[kind].pop()) {
            found.push((start, at + 2));
        }
        at += if opens.is_some() || closes.is_some() { 2 } else { 1 };
    }
    found.sort_unstable();
    found
}

/// The first bytes of a text, up to a whole character.
fn window(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn link(inner: &str, depth: usize, out: &mut String) {
    let target = inner.split('|').next().unwrap_or(inner);
    // `File:`, `Category:`, `fr:` and their like in every language. A leading colon makes a link.
    let special = target.split_once(':').is_some_and(|(space, _)| {
        !space.is_empty() && !space.contains(' ') && !space.ends_with(|c: char| c.is_ascii_digit())
    });
    if special || depth >= DEPTH_MAX {
        return;
    }
    let shown = inner.rsplit('|').next().unwrap_or(inner);
    inline(shown.trim_start_matches(':'), depth + 1, out);
}

fn external(text: &str, depth: usize, out: &mut String) -> Option<usize> {
    let text = window(text, LINE_BYTES);
    let end = text.find([']', '\n']).filter(|&end| text.as_bytes()[end] == b']')?;
    let inner = &text[1..end];
    if !["http://", "https://", "//", "ftp://"].iter().any(|scheme| inner.starts_with(scheme)) {
        return None;
    }
    if let Some((_, shown)) = inner.split_once(' ') {
        // Inside may be bold letters, and no further address.
        match depth < DEPTH_MAX {
            true => inline(shown, depth + 1, out),
            false => out.push_str(shown),
        }
    }
    Some(end + 1)
}

fn element(text: &str) -> Option<usize> {
    if text.starts_with("<!--") {
        let end = window(text, ELEMENT_BYTES).find("-->");
        return Some(end.map_or(4, |at| at + 3));
    }
    let name = text[1..].trim_start_matches('/');
    let length = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    let end = window(text, LINE_BYTES).find('>')?;
    if length == 0 || name[..length].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let opens = !text.starts_with("</") && !text[..end].ends_with('/');
    let name = name[..length].to_ascii_lowercase();
    if opens && ELEMENTS.contains(&name.as_str()) {
        let close = format!("</{name}");
        let inner = window(&text[end..], ELEMENT_BYTES).to_ascii_lowercase().find(&close);
        let behind =
            inner.and_then(|at| text[end + at..].find('>').map(|more| end + at + more + 1));
        return Some(behind.unwrap_or(end + 1));
    }
    Some(end + 1)
}

fn entity(text: &str, out: &mut String) -> Option<usize> {
    let known = [
        ("&nbsp;", ' '),
        ("&amp;", '&'),
        ("&lt;", '<'),
        ("&gt;", '>'),
        ("&quot;", '"'),
        ("&ndash;", '–'),
        ("&mdash;", '—'),
    ];
    let (name, character) = known.iter().find(|(name, _)| text.starts_with(name))?;
    out.push(*character);
    Some(name.len())
}

/// `__TOC__` and its like.
fn magic(text: &str) -> Option<usize> {
    let inner = window(&text[2..], 64);
    let length = inner.find("__").filter(|&length| length > 0)?;
    inner[..length].bytes().all(|byte| byte.is_ascii_uppercase()).then_some(length + 4)
}

/// Writes lines without signs of headings and lists; several blank ones become one.
fn lines(text: &str, out: &mut String) {
    let mut blank = true;
    for line in text.lines() {
        let mut line = line.trim();
        if line.starts_with('=') && line.ends_with('=') {
            line = line.trim_matches('=').trim();
        }
        line = line.trim_start_matches(['*', '#', ':', ';']).trim_start();
        if line.is_empty() {
            if !blank {
                out.push('\n');
            }
            blank = true;
            continue;
        }
        out.push_str(line);
        out.push('\n');
        blank = false;
    }
    out.truncate(out.trim_end().len());
}
