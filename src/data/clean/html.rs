//! `html`: the text of a page, without what stands around it.
//!
//! Duty: a page becomes blocks, one for each paragraph, heading, item or cell; scripts, forms and
//! the parts that a page declares to be navigation go; so do blocks that are mostly links, and
//! headings with nothing below. What does not begin as a page passes unchanged. The bytes become
//! tokens by html5gum, as browsers make them. Prohibition: builds no tree.

use html5gum::{Token, Tokenizer};
use serde::{Deserialize, Serialize};

use super::settings::share;
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// What a block must be.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Html {
    /// Largest share of a block's characters in links.
    pub max_link_share: f64,
    /// Shorter blocks stay only beside ones that stay.
    pub short_block: u64,
}

impl Default for Html {
    fn default() -> Self {
        Self { max_link_share: 0.5, short_block: 25 }
    }
}

/// Elements whose content is never text.
const DROPPED: [&str; 16] = [
    "script", "style", "noscript", "template", "svg", "math", "head", "select", "button", "iframe",
    "object", "canvas", "video", "audio", "textarea", "form",
];
/// Elements that stand around the text.
const AROUND: [&str; 5] = ["nav", "footer", "aside", "header", "menu"];
/// Elements inside a line.
const INLINE: [&str; 26] = [
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "u", "var",
];

impl Step for Html {
    fn validate(&self) -> Result<(), String> {
        share("max_link_share", self.max_link_share)
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for Html {
    fn apply(&self, document: &mut Document) -> Verdict {
        if !is_page(document.text()) {
            return Verdict::Keep;
        }
        document.rewrite(|text, out| {
            self.write(text, true, out);
            if out.is_empty() {
                // A page that declares everything to be around the text has it there.
                self.write(text, false, out);
            }
            true
        });
        match document.text().is_empty() {
            true => Verdict::Drop("no_text"),
            false => Verdict::Keep,
        }
    }
}

/// Whether a text begins as a page does: with a tag, a comment or a declaration.
fn is_page(text: &str) -> bool {
    let mut start = text.trim_start().bytes();
    start.next() == Some(b'<')
        && start
            .next()
            .is_some_and(|byte| byte == b'!' || byte == b'?' || byte.is_ascii_alphabetic())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Plain,
    Heading,
    Item,
    /// As it is written.
    Formatted,
}

#[derive(Debug, Default)]
struct Block {
    text: String,
    kind: Kind,
    characters: usize,
    linked: usize,
}

#[derive(Default)]
struct Blocks {
    done: Vec<Block>,
    open: Block,
    /// Names of open elements whose content is passed over, outermost first.
    hidden: Vec<&'static str>,
    links: usize,
    formatted: usize,
}

impl Html {
    fn write(&self, page: &str, without_around: bool, out: &mut String) {
        let mut blocks = Blocks::default();
        for token in Tokenizer::new(page).flatten() {
            match token {
                Token::StartTag(tag) => {
                    let name = std::str::from_utf8(&tag.name).unwrap_or_default();
                    blocks.start(name, without_around, tag.self_closing);
                }
                Token::EndTag(tag) => {
                    blocks.end(std::str::from_utf8(&tag.name).unwrap_or_default());
                }
                Token::String(text) => {
                    blocks.text(std::str::from_utf8(&text).unwrap_or_default());
                }
                _ => {}
            }
        }
        blocks.finish(Kind::Plain);
        self.join(&blocks.done, out);
    }

    /// Writes the blocks that are the text.
    fn join(&self, blocks: &[Block], out: &mut String) {
        let short = |block: &Block| (block.characters as u64) < self.short_block;
        let linked =
            |block: &Block| block.linked as f64 > self.max_link_share * block.characters as f64;
        let good = |at: usize| {
            blocks
                .get(at)
                .is_some_and(|block| block.kind != Kind::Heading && !short(block) && !linked(block))
        };
        for (at, block) in blocks.iter().enumerate() {
            let beside = || good(at + 1) || at > 0 && good(at - 1);
            let kept = match block.kind {
                Kind::Heading => !linked(block) && good(at + 1),
                _ => !linked(block) && (!short(block) || beside()),
            };
            if kept {
                if !out.is_empty() {
                    out.push('\n');
                }
                if block.kind == Kind::Item {
                    out.push_str("- ");
                }
                out.push_str(block.text.trim_end());
            }
        }
    }
}

impl Blocks {
    fn start(&mut self, name: &str, without_around: bool, closed: bool) {
        let hides = DROPPED.iter().chain(AROUND.iter().filter(|_| without_around));
        if let Some(hidden) = hides.copied().find(|hidden| *hidden == name) {
            self.finish(Kind::Plain);
            if !closed {
                self.hidden.push(hidden);
            }
            return;
        }
        match name {
            "a" => self.links += 1,
            "br" => self.line(),
            "body" => self.hidden.clear(),
            "pre" => {
                self.finish(Kind::Formatted);
                self.formatted += 1;
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.finish(Kind::Heading),
            "li" => self.finish(Kind::Item),
            "td" | "th" if !self.open.text.is_empty() => self.open.text.push(' '),
            _ if INLINE.contains(&name) || matches!(name, "img" | "wbr" | "td" | "th") => {}
            _ => self.finish(Kind::Plain),
        }
    }

    fn end(&mut self, name: &str) {
        if let Some(at) = self.hidden.iter().rposition(|hidden| *hidden == name) {
            self.hidden.truncate(at);
            return;
        }
        match name {
            "a" => self.links = self.links.saturating_sub(1),
            "pre" => {
                self.formatted = self.formatted.saturating_sub(1);
                self.finish(Kind::Plain);
            }
            _ if INLINE.contains(&name) || matches!(name, "td" | "th") => {}
            _ => self.finish(Kind::Plain),
        }
    }

    fn line(&mut self) {
        if !self.open.text.is_empty() {
            self.open.text.truncate(self.open.text.trim_end().len());
            self.open.text.push('\n');
        }
    }

    fn text(&mut self, text: &str) {
        if !self.hidden.is_empty() {
            return;
        }
        if self.formatted > 0 {
            self.open.text.push_str(text);
            self.open.characters += text.chars().count();
            return;
        }
        for (number, word) in text.split(is_blank).enumerate() {
            let open = &mut self.open.text;
            if number > 0 && !open.is_empty() && !open.ends_with(is_blank) {
                open.push(' ');
            }
            let characters = word.chars().count();
            open.push_str(word);
            self.open.characters += characters;
            self.open.linked += if self.links > 0 { characters } else { 0 };
        }
    }

    /// Ends the open block; the next one is of this kind.
    fn finish(&mut self, next: Kind) {
        let block = std::mem::take(&mut self.open);
        if block.text.trim().is_empty() {
            // An item may hold a paragraph.
            let inner = next == Kind::Plain;
            self.open.kind = if inner { block.kind } else { next };
        } else {
            self.done.push(block);
            self.open.kind = next;
        }
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\n' | '\t' | '\r' | '\u{c}')
}
