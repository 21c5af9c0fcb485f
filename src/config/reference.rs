//! A reference of every key of a configuration, made of the structs that keys are read into.
//!
//! Duty: what a key is, by the documentation comment of its field, its type, and the value that the
//! program itself gives it where nothing is given. `octet help --markdown` is this text, and `octet
//! help KEY` prints one key of it. Prohibition: says nothing of its own about any key.

use std::collections::BTreeMap;
use std::fmt::Write;

use toml::{Table, Value};

use super::fields::nearest;
use super::{Config, TaskConfig, TrackConfig};
use crate::data::clean::CleanStep;
use crate::data::dedupe::DedupeConfig;
use crate::models::FamilyConfig;
use crate::objectives::ObjectiveConfig;
use crate::optimizer::RuleConfig;
use source::{Field, Item, Variant};

mod source;
#[cfg(test)]
mod tests;

/// Where the structs stand.
const SOURCES: &[&str] = &[
    include_str!("../config.rs"),
    include_str!("sections.rs"),
    include_str!("batch.rs"),
    include_str!("tracks.rs"),
    include_str!("../optimizer.rs"),
    include_str!("../optimizer/rules.rs"),
    include_str!("../schedule.rs"),
    include_str!("../models/mod.rs"),
    include_str!("../models/parts.rs"),
    include_str!("../models/dense/config.rs"),
    include_str!("../models/dense/rope_scaling.rs"),
    include_str!("../models/encoder.rs"),
    include_str!("../objectives/mod.rs"),
    include_str!("../objectives/next_token.rs"),
    include_str!("../objectives/distillation.rs"),
    include_str!("../objectives/masked.rs"),
    include_str!("../objectives/prefix_lm.rs"),
    include_str!("../objectives/replaced_token.rs"),
    include_str!("../data/config.rs"),
    include_str!("../data/dedupe/config.rs"),
    include_str!("../data/clean.rs"),
    include_str!("../data/clean/block_urls.rs"),
    include_str!("../data/clean/block_words.rs"),
    include_str!("../data/clean/boilerplate.rs"),
    include_str!("../data/clean/c4.rs"),
    include_str!("../data/clean/code.rs"),
    include_str!("../data/clean/fineweb_quality.rs"),
    include_str!("../data/clean/gopher_quality.rs"),
    include_str!("../data/clean/gopher_repetition.rs"),
    include_str!("../data/clean/html.rs"),
    include_str!("../data/clean/language.rs"),
    include_str!("../data/clean/length.rs"),
    include_str!("../data/clean/line_rules.rs"),
    include_str!("../data/clean/pii.rs"),
    include_str!("../data/clean/quality.rs"),
    include_str!("../data/clean/unicode.rs"),
    include_str!("../data/clean/wikitext.rs"),
];

/// Types with a form of their own in files.
const FORMS: &[(&str, &str)] = &[
    ("usize", "whole number"),
    ("u64", "whole number"),
    ("u32", "whole number"),
    ("u8", "whole number"),
    ("f64", "number"),
    ("f32", "number"),
    ("bool", "true or false"),
    ("String", "string"),
    ("PathBuf", "path"),
    ("TextSpec", "path, or list of paths"),
    ("Bytes", "size, as \"60 GB\", or number of bytes"),
    ("Weight", "number, or list of pairs of a step and a number"),
    ("RecomputeConfig", "name of a policy, or two as \"block:12,none\""),
    ("(u64, usize)", "pairs of whole numbers"),
];

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its whole name: `run.steps`, `model.rope_scaling.kind`.
    pub name: String,
    /// The kind that has it, as `family = "dense"`, where not all have it.
    pub of: Option<String>,
    /// What its value is.
    pub form: String,
    /// Its value where nothing is given, in TOML; `None` where there is none.
    pub default: Option<String>,
    /// It must be given where its table is.
    pub required: bool,
    /// What it does.
    pub doc: String,
}

impl Key {
    /// The table that it is in, or the kind.
    pub fn group(&self) -> &str {
        let table = self.name.rsplit_once('.').map_or("", |(table, _)| table);
        self.of.as_deref().unwrap_or(table)
    }

    /// Its default in words.
    pub fn default_in_words(&self) -> &str {
        let without = if self.required { "must be given" } else { "not set" };
        self.default.as_deref().unwrap_or(without)
    }
}

/// A table of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub doc: String,
    /// Its keys, and those of tables in it.
    pub keys: Vec<Key>,
}

/// All sections, in the order of a stored file.
pub fn sections() -> Vec<Section> {
    let items: BTreeMap<String, Item> =
        SOURCES.iter().flat_map(|text| source::items(text)).collect();
    let defaults = Table::try_from(Config::default()).unwrap_or_default();
    let Some(Item::Struct { fields, .. }) = items.get("Config") else { return Vec::new() };
    let mut walk = Walk { items: &items, keys: Vec::new(), shown: Vec::new() };
    let section = |field: &Field| {
        let default = defaults.get(&field.name).and_then(Value::as_table);
        walk.item(&field.name, inner(&field.kind).1, None, default);
        let keys = std::mem::take(&mut walk.keys);
        Section { name: field.name.clone(), doc: field.doc.clone(), keys }
    };
    fields.iter().map(section).collect()
}

/// The section, the table, or the key of this name; else the name that somebody may have meant.
///
/// # Errors
/// The nearest name.
pub fn find(topic: &str) -> Result<Vec<Section>, Option<String>> {
    let (all, mut found) = (sections(), Vec::new());
    let topic = topic.trim_matches(['[', ']']);
    for section in &all {
        let below = format!("{topic}.");
        let is_it = |key: &&Key| key.name == topic || key.name.starts_with(&below);
        let keys: Vec<Key> = section.keys.iter().filter(is_it).cloned().collect();
        if section.name == topic || !keys.is_empty() {
            found.push(Section { keys, ..section.clone() });
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let (section, key) = topic.split_once('.').unwrap_or(("", topic));
    let known = |section: &Section| -> Vec<(String, String)> {
        let name = |key: &Key| key.name.split_once('.').map(|(s, k)| (s.to_owned(), k.to_owned()));
        section.keys.iter().filter_map(name).collect()
    };
    let known: Vec<_> = all.iter().flat_map(known).collect();
    Err(nearest(section, key, &known))
}

/// The whole reference, as Markdown.
pub fn markdown() -> String {
    let mut page =
        "# Configuration\n\nEvery key, with what it is where nothing is given. A run is \
                    one TOML file; `--set section.key=value` sets a key on top of it, and `octet \
                    help KEY` prints one. Unknown keys are errors. This page is `octet help \
                    --markdown`, made of the comments in the source.\n"
            .to_owned();
    for section in sections() {
        let _fits = write!(page, "\n## `{}`\n\n{}\n", section.name, section.doc);
        let mut before = None;
        for key in &section.keys {
            let group = key.group();
            if before.as_deref() != Some(group) {
                if group != section.name {
                    let _fits = write!(page, "\n### `{group}`\n");
                }
                before = Some(group.to_owned());
                page.push_str("\n| Key | Value | By default | |\n|---|---|---|---|\n");
            }
            let cell = |text: &str| text.replace('|', "\\|");
            let default = match &key.default {
                Some(value) => format!("`{value}`"),
                None => key.default_in_words().to_owned(),
            };
            let (name, form, doc) = (&key.name, cell(&key.form), cell(&key.doc));
            let _fits = writeln!(page, "| `{name}` | {form} | {} | {doc} |", cell(&default));
        }
    }
    page
}

/// `Option`, `Vec` and the like taken away: whether there are several, and of what.
fn inner(kind: &str) -> (bool, &str) {
    for (outer, several) in [("Option<", false), ("Vec<", true), ("BTreeMap<String, ", true)] {
        if let Some(rest) = kind.strip_prefix(outer).and_then(|rest| rest.strip_suffix('>')) {
            let (more, inner) = inner(rest);
            return (several || more, inner);
        }
    }
    match kind {
        "CleanChain" => (true, "CleanStep"),
        _ => (false, kind),
    }
}

/// From a struct to keys.
struct Walk<'a> {
    items: &'a BTreeMap<String, Item>,
    keys: Vec<Key>,
    /// Types whose keys stand in the section, with the place of the first.
    shown: Vec<(String, String)>,
}

impl Walk<'_> {
    /// The keys of a type. `given`: what it is where nothing is given, if that is known.
    fn item(&mut self, at: &str, name: &str, of: Option<&str>, given: Option<&Table>) {
        let Some(Item::Struct { fields, defaults, .. }) = self.items.get(name) else {
            return self.kinds(at, name, given);
        };
        self.shown.push((name.to_owned(), at.to_owned()));
        let own = default_of(name);
        let given = given.or(own.as_ref());
        let own: Vec<&Field> = fields.iter().filter(|field| !field.flat).collect();
        own.iter().for_each(|field| self.field(at, field, of, (*defaults, given)));
        // The keys that not all have come behind the others, and what has keys of its own last.
        for field in fields.iter().filter(|field| field.flat) {
            self.kinds(at, &field.kind, given);
        }
        own.iter().for_each(|field| self.below(at, field, given));
    }

    fn field(
        &mut self,
        at: &str,
        field: &Field,
        of: Option<&str>,
        (defaults, given): (bool, Option<&Table>),
    ) {
        let name = format!("{at}.{}", field.name);
        let (several, inner) = inner(&field.kind);
        let value = given.and_then(|given| given.get(&field.name));
        let default = value.map(ToString::to_string).or(field.default.clone());
        let empty = field.kind.starts_with("Option") || several || defaults;
        let item = self.items.get(inner).filter(|_| form_of(inner).is_none());
        let before = self.shown.iter().find(|(shown, _)| shown == inner);
        let form = match (item, before) {
            (Some(Item::Enum { tag: None, variants, .. }), _) => names(variants),
            (Some(_), Some((_, place))) => format!("as `{place}`"),
            (Some(_), None) if inner == "CleanStep" => "names, or tables with `step`".to_owned(),
            (Some(_), None) if several => "tables".to_owned(),
            (Some(_), None) => "table".to_owned(),
            (None, _) => form_of(inner).unwrap_or(inner).to_owned(),
        };
        let list = several && item.is_none();
        let form = if list { format!("list of: {form}") } else { form };
        let default = default.filter(|_| item.is_none() || !form.contains("table"));
        let doc = match item {
            Some(Item::Enum { tag: None, variants, .. }) => described(&field.doc, variants),
            _ => field.doc.clone(),
        };
        let of = of.map(str::to_owned);
        let required = default.is_none() && !empty;
        self.keys.push(Key { name, of, form, default, required, doc });
    }

    /// The keys of the table that a field is, if it is one that was not shown before.
    fn below(&mut self, at: &str, field: &Field, given: Option<&Table>) {
        let (_, inner) = inner(&field.kind);
        let shown = self.shown.iter().any(|(shown, _)| shown == inner);
        let is_table = match self.items.get(inner) {
            Some(Item::Struct { .. } | Item::Enum { tag: Some(_), .. }) => true,
            Some(Item::Enum { tag: None, .. }) | None => false,
        };
        if shown || !is_table || form_of(inner).is_some() {
            return;
        }
        let several = if field.kind.starts_with("BTreeMap") { ".NAME" } else { "" };
        let value = given.and_then(|given| given.get(&field.name));
        let at = format!("{at}.{}{several}", field.name);
        self.item(&at, inner, None, value.and_then(Value::as_table));
    }

    /// The keys of something that is one of several kinds.
    fn kinds(&mut self, at: &str, name: &str, given: Option<&Table>) {
        let Some(Item::Enum { doc, tag: Some(tag), variants }) = self.items.get(name) else {
            return;
        };
        let key = format!("{at}.{tag}");
        let default = given.and_then(|given| given.get(tag)).map(ToString::to_string);
        let before = self.shown.iter().find(|(shown, _)| shown == name);
        let before = before.map(|(_, place)| format!("{doc} They are those of `{place}`."));
        let (form, required, again) = (names(variants), default.is_none(), before.is_some());
        let doc = before.unwrap_or_else(|| described(doc, variants));
        self.keys.push(Key { name: key.clone(), of: None, form, default, required, doc });
        if again {
            return;
        }
        self.shown.push((name.to_owned(), at.to_owned()));
        for variant in variants {
            let of = format!("{key} = \"{}\"", variant.name);
            if let Some(holds) = &variant.holds {
                let defaults = default_of_kind(name, tag, &variant.name);
                self.item(at, holds, Some(&of), defaults.as_ref());
            }
            for field in &variant.fields {
                let defaults = field.kind.starts_with("bool");
                self.field(at, field, Some(&of), (defaults, None));
            }
        }
    }
}

/// The keys of a table as they are where nothing is given in it.
fn default_of(name: &str) -> Option<Table> {
    let table = match name {
        "DedupeConfig" => Table::try_from(DedupeConfig::default()),
        "TrackConfig" => Table::try_from(TrackConfig::default()),
        "TaskConfig" => Table::try_from(TaskConfig::default()),
        _ => return None,
    };
    table.ok()
}

/// The keys of a kind as they are where nothing else is given.
fn default_of_kind(name: &str, tag: &str, kind: &str) -> Option<Table> {
    type Error = serde::de::value::Error;
    let table = Table::from_iter([(tag.to_owned(), Value::String(kind.to_owned()))]);
    let read = match name {
        "FamilyConfig" => Table::try_from(FamilyConfig::from_table::<Error>(table).ok()?),
        "ObjectiveConfig" => Table::try_from(ObjectiveConfig::from_table::<Error>(table).ok()?),
        "RuleConfig" => Table::try_from(RuleConfig::from_table::<Error>(table).ok()?),
        "CleanStep" => Table::try_from(CleanStep::from_table::<Error>(table).ok()?),
        _ => return None,
    };
    read.ok()
}

fn form_of(kind: &str) -> Option<&'static str> {
    FORMS.iter().find(|(name, _)| *name == kind).map(|(_, form)| *form)
}

fn names(variants: &[Variant]) -> String {
    let names = variants.iter().map(|variant| format!("`\"{}\"`", variant.name));
    names.collect::<Vec<_>>().join(", ")
}

/// What a key does, and what each of its values means.
fn described(doc: &str, variants: &[Variant]) -> String {
    let each = variants.iter().map(|variant| format!("`{}`: {}", variant.name, variant.doc));
    let each: Vec<String> = each.map(|text| text.trim_end_matches('.').to_owned()).collect();
    format!("{doc} {}.", each.join("; "))
}
