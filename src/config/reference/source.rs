//! What documentation comments say, read from the sources of the structs themselves.
//!
//! Duty: names, types, attributes and comments of the structs and enums of a file, as `rustfmt`
//! lays them out; tests hold what is found equal to what serde reads. Prohibition: knows no key.

use std::collections::BTreeMap;

/// A struct or an enum.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// Its fields, in order.
    Struct { doc: String, defaults: bool, fields: Vec<Field> },
    /// Its variants, in order, by their names in files; the tag, if they have fields.
    Enum { doc: String, tag: Option<String>, variants: Vec<Variant> },
}

/// A field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    /// Its type in Rust.
    pub(super) kind: String,
    pub(super) doc: String,
    /// Its keys stand beside those of the struct.
    pub(super) flat: bool,
    /// What it is if it is not given, where the field itself says so: an expression.
    pub(super) default: Option<String>,
}

/// A variant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) doc: String,
    /// The struct that it holds.
    pub(super) holds: Option<String>,
    pub(super) fields: Vec<Field>,
}

/// Reads all items of a source.
pub(super) fn items(source: &str) -> BTreeMap<String, Item> {
    let mut found = BTreeMap::new();
    let mut lines = Lines { rest: source.lines().collect(), source };
    while let Some(said) = lines.said() {
        let line = lines.next();
        if line == "tagged! {" {
            found.extend(tagged(&mut lines));
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let Some(name) = rest.strip_suffix(" {").or(rest.strip_suffix(" {}")) else { continue };
            let fields = if rest.ends_with("{}") { Vec::new() } else { fields(&mut lines) };
            let defaults = said.has("serde", "default");
            found.insert(name.to_owned(), Item::Struct { doc: said.doc, defaults, fields });
        } else if let Some(name) = line.strip_prefix("pub enum ").and_then(|r| r.strip_suffix(" {"))
        {
            let variants = variants(&mut lines);
            let tag = variants.iter().any(|v| !v.fields.is_empty()).then(|| "kind".to_owned());
            found.insert(name.to_owned(), Item::Enum { doc: said.doc, tag, variants });
        }
    }
    found
}

/// Comments and attributes in front of something.
#[derive(Default)]
struct Said {
    doc: String,
    attributes: String,
}

impl Said {
    fn has(&self, name: &str, word: &str) -> bool {
        let words = |c: char| !(c.is_alphanumeric() || c == '_');
        self.attributes.contains(name) && self.attributes.split(words).any(|found| found == word)
    }
}

struct Lines<'a> {
    /// What is left.
    rest: std::collections::VecDeque<&'a str>,
    source: &'a str,
}

impl<'a> Lines<'a> {
    /// The comments and attributes that come next, up to what they belong to; `None` at the end.
    fn said(&mut self) -> Option<Said> {
        let mut said = Said::default();
        loop {
            let line = self.rest.front()?.trim();
            if let Some(text) = line.strip_prefix("///") {
                let space = if said.doc.is_empty() { "" } else { " " };
                // An empty line parts paragraphs, which are one here.
                said.doc += &format!("{}{}", if text.is_empty() { "" } else { space }, text.trim());
            } else if line.starts_with("#[") {
                let mut attribute = String::new();
                while !attribute.ends_with(']') {
                    attribute += self.rest.pop_front()?.trim();
                }
                said.attributes += &attribute;
                continue;
            } else if !line.is_empty() && !line.starts_with("//") {
                return Some(said);
            } else {
                said = Said::default();
            }
            self.rest.pop_front();
        }
    }

    fn next(&mut self) -> &'a str {
        self.rest.pop_front().unwrap_or_default().trim()
    }
}

/// Fields up to the closing bracket.
fn fields(lines: &mut Lines<'_>) -> Vec<Field> {
    let mut fields = Vec::new();
    while let Some(said) = lines.said() {
        let line = lines.next();
        if line.starts_with('}') {
            break;
        }
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let Some((name, kind)) = line.trim_end_matches(',').split_once(": ") else { continue };
        if said.has("serde", "skip") {
            continue;
        }
        let function = said.attributes.split("default = \"").nth(1);
        let function = function.and_then(|rest| rest.split('"').next());
        let default = function.and_then(|name| {
            let body = lines.source.split(&format!("\nfn {name}() ->")).nth(1)?;
            Some(body.lines().nth(1)?.trim().to_owned())
        });
        fields.push(Field {
            name: name.to_owned(),
            kind: kind.to_owned(),
            flat: said.has("serde", "flatten"),
            doc: said.doc,
            default,
        });
    }
    fields
}

fn variants(lines: &mut Lines<'_>) -> Vec<Variant> {
    let mut variants = Vec::new();
    while let Some(said) = lines.said() {
        let line = lines.next();
        if line.starts_with('}') {
            break;
        }
        let fields = if line.ends_with('{') { fields(lines) } else { Vec::new() };
        let name = line.split([' ', ',', '(']).next().unwrap_or_default();
        let renamed = said.attributes.split("rename = \"").nth(1).and_then(|r| r.split('"').next());
        let name = renamed.map_or_else(|| snake(name), str::to_owned);
        variants.push(Variant { name, doc: said.doc, holds: None, fields });
    }
    variants
}

/// The kinds of a [`super::super::tagged::tagged`].
fn tagged(lines: &mut Lines<'_>) -> Option<(String, Item)> {
    let doc = lines.said()?.doc;
    let (name, rest) = lines.next().split_once(" by \"")?;
    let tag = rest.split('"').next().map(str::to_owned);
    let mut variants = Vec::new();
    while let Some(said) = lines.said() {
        let line = lines.next();
        if line.starts_with('}') {
            break;
        }
        let mut quoted = line.split('"');
        let kind = quoted.nth(1)?.to_owned();
        let holds = line.split('(').nth(1)?.split(')').next().map(str::to_owned);
        variants.push(Variant { name: kind, doc: said.doc, holds, fields: Vec::new() });
    }
    Some((name.to_owned(), Item::Enum { doc, tag, variants }))
}

/// The name of a variant in files.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
