//! From text and `--set` arguments to a [`Config`], with a place for every mistake.
//!
//! Duty: remembers the line of every key, and reads each key on its own before it reads them all,
//! so that a mistake can be pinned to one key. That works because every key has a default.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::batch::BatchConfig;
use super::error::{ConfigError, Invalid, Place};
use super::fields::{fields_of, nearest};
use super::origins::Origins;
use super::sections::{
    CheckpointConfig, EvaluateConfig, LogConfig, RecoveryConfig, RunConfig, SampleConfig, WebConfig,
};
use super::tracks::{TaskConfig, TrackConfig};
use super::{Config, sections::expected};
use crate::data::DataConfig;
use crate::models::{FamilyConfig, ModelConfig, PartConfig};
use crate::objectives::ObjectiveConfig;
use crate::optimizer::{OptimizerConfig, RuleConfig};
use crate::schedule::ScheduleConfig;

/// The content of a file, changed by arguments.
#[derive(Debug)]
pub(super) struct Document {
    file: PathBuf,
    table: Table,
    /// By dotted path.
    places: HashMap<String, Place>,
}

impl Document {
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let line = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
        let parsed = text.parse::<Table>().and_then(|table| Ok((table, DeTable::parse(text)?)));
        let (table, spanned) = parsed.map_err(|error| ConfigError {
            place: match error.span() {
                Some(span) => Place::Line(path.to_owned(), line(span.start)),
                None => Place::File(path.to_owned()),
            },
            key: None,
            problem: format!("not valid TOML: {}", one_line(error.message())),
        })?;
        let mut places = HashMap::new();
        mark(spanned.get_ref(), "", &mut |key, at| {
            places.insert(key, Place::Line(path.to_owned(), line(at)));
        });
        let mut document = Self { file: path.to_owned(), table, places };
        document.retire();
        Ok(document)
    }

    /// Reads keys that are gone as what is in their place: files of earlier runs have them.
    fn retire(&mut self) {
        let Some(data) = self.table.get_mut("data").and_then(Value::as_table_mut) else { return };
        match data.get("bad_lines").and_then(Value::as_str) {
            Some("skip") => {}
            Some("error") => {
                data.entry("bad_records_max").or_insert(Value::Float(0.0));
            }
            _ => return,
        }
        data.remove("bad_lines");
    }

    /// Applies `section.key=value`. The value is read as TOML if that gives the key's type, else it
    /// is taken as it stands.
    pub(super) fn set(&mut self, argument: &str) -> Result<(), ConfigError> {
        let place = Place::Argument(argument.to_owned());
        let refuse = |problem: &str| ConfigError {
            place: place.clone(),
            key: None,
            problem: problem.to_owned(),
        };
        let shape = "expected section.key=value";
        let (path, raw) = argument.split_once('=').ok_or_else(|| refuse(shape))?;
        let (path, raw) = (path.trim(), raw.trim());
        let mut parts = path.split('.');
        let (Some(section), Some(key)) = (parts.next(), parts.next()) else {
            return Err(refuse(shape));
        };
        let rest: Vec<&str> = parts.collect();
        self.places.insert(path.to_owned(), place);
        self.places.insert(format!("{section}.{key}"), Place::Argument(argument.to_owned()));
        self.check_known(section, key)?;
        let bare = Value::String(raw.to_owned());
        let read = format!("value = {raw}").parse::<Table>().ok();
        let read = read.filter(|t| t.len() == 1).and_then(|mut t| t.remove("value"));
        let old = self.table.get(section).and_then(|s| s.get(key)).cloned();
        let nested = |value| insert(old.clone(), &rest, value);
        let first = nested(read.unwrap_or_else(|| bare.clone()));
        let value = match self.try_key(section, key, &first) {
            Ok(()) => first,
            Err(problem) => {
                let second = nested(bare);
                if self.try_key(section, key, &second).is_err() {
                    return Err(self.error(&format!("{section}.{key}"), problem));
                }
                second
            }
        };
        let empty = || Value::Table(Table::new());
        let table = self.table.entry(section).or_insert_with(empty);
        match table.as_table_mut() {
            Some(table) => table.insert(key.to_owned(), value),
            None => return Err(self.error(section, not_a_section(section))),
        };
        Ok(())
    }

    /// Checks every key alone and reads all of them.
    pub(super) fn read(&self) -> Result<Config, ConfigError> {
        for (section, value) in &self.table {
            if let Some(keys) = keys_of_list(section) {
                self.read_list(section, value, keys)?;
                continue;
            }
            let Some(table) = value.as_table() else {
                self.check_known("", section)?;
                return Err(self.error(section, not_a_section(section)));
            };
            if keys_of(section, &self.table).is_none() {
                self.check_known(section, "")?;
            }
            for (key, value) in table {
                self.check_known(section, key)?;
                if (section.as_str(), key.as_str()) == ("model", "parts") {
                    self.read_parts(value)?;
                    continue;
                }
                // Each table of a list has a place of its own.
                let tables = value.as_array().into_iter().flatten().filter(|item| item.is_table());
                for (number, table) in tables.enumerate() {
                    let checked = self.try_key(section, key, &Value::Array(vec![table.clone()]));
                    let place = format!("{section}.{key}[{number}]");
                    checked.map_err(|problem| self.error(&place, problem))?;
                }
                let checked = self.try_key(section, key, value);
                checked.map_err(|problem| self.error(&format!("{section}.{key}"), problem))?;
            }
        }
        let read = self.table.clone().try_into();
        read.map_err(|error: toml::de::Error| ConfigError {
            place: Place::File(self.file.clone()),
            key: None,
            problem: plain(error.message()),
        })
    }

    /// Checks every key of every further model alone.
    fn read_parts(&self, value: &Value) -> Result<(), ConfigError> {
        let shape = |key: &str| self.error(key, not_a_section("model.parts.NAME"));
        for (name, part) in value.as_table().ok_or_else(|| shape("model.parts"))? {
            let at = format!("model.parts.{name}");
            let table = part.as_table().ok_or_else(|| shape(&at))?;
            let tag = table.get(FamilyConfig::TAG);
            let known = PartConfig::keys(tag.and_then(Value::as_str));
            for (key, value) in table {
                let place = format!("{at}.{key}");
                self.check_among(&place, key, &known)?;
                let tag = tag.map(|tag| (FamilyConfig::TAG.to_owned(), tag.clone()));
                let only = Table::from_iter(tag.into_iter().chain([(key.clone(), value.clone())]));
                let read: Result<PartConfig, _> = only.try_into();
                read.map_err(|error: toml::de::Error| self.error(&place, plain(error.message())))?;
            }
        }
        Ok(())
    }

    /// Gives further models that begin as those of other runs their families.
    pub(super) fn adopt(&self, config: &mut Config) -> Result<(), ConfigError> {
        let tables = self.table.get("model").and_then(|model| model.get("parts"));
        for (name, part) in &mut config.model.parts {
            let table = tables.and_then(|parts| parts.get(name)).and_then(Value::as_table);
            let leaves = table.is_some_and(PartConfig::leaves_family);
            let Some(run) = part.from.as_ref().filter(|_| leaves) else { continue };
            let file = Path::new(run).join("config.toml");
            let key = format!("model.parts.{name}.from");
            let refuse = |problem: String| self.error(&key, expected("a run", problem));
            let text = std::fs::read_to_string(&file)
                .map_err(|error| refuse(format!("{}: {error}", file.display())))?;
            let stored = Config::parse(&text, &file, &[]);
            part.family = stored.map_err(|error| refuse(error.to_string()))?.model.family;
        }
        Ok(())
    }

    fn check_among(&self, place: &str, key: &str, known: &[&str]) -> Result<(), ConfigError> {
        if known.contains(&key) {
            return Ok(());
        }
        let named = |key: &&str| (String::new(), (*key).to_owned());
        let near = nearest("", key, &known.iter().map(named).collect::<Vec<_>>());
        let problem = format!("unknown key, expected one like {}", near.unwrap_or_default());
        Err(self.error(place, problem))
    }

    /// Checks every key of every table of a list alone.
    fn read_list(&self, list: &str, value: &Value, keys: &[&str]) -> Result<(), ConfigError> {
        let items = value.as_array().filter(|items| items.iter().all(Value::is_table));
        let shape = || self.error(list, format!("expected tables [[{list}]]"));
        for (number, item) in items.ok_or_else(shape)?.iter().enumerate() {
            for (key, value) in item.as_table().into_iter().flatten() {
                let place = format!("{list}[{number}].{key}");
                self.check_among(&place, key, keys)?;
                let only = Table::from_iter([(key.clone(), value.clone())]);
                let only = Value::Array(vec![Value::Table(only)]);
                let whole = Table::from_iter([(list.to_owned(), only)]);
                let read: Result<Config, _> = whole.try_into();
                read.map_err(|error| self.error(&place, plain(error.message())))?;
            }
        }
        Ok(())
    }

    /// Adds the place to an owner's complaint: that of the first of its keys that was given in an
    /// argument, or else in the file.
    pub(super) fn locate(&self, invalid: Invalid) -> ConfigError {
        let places = || invalid.keys.iter().filter_map(|key| self.place_of(key));
        let argument = places().find(|place| matches!(place, Place::Argument(_)));
        let given = argument.or_else(|| places().next());
        ConfigError {
            place: given.cloned().unwrap_or_else(|| Place::File(self.file.clone())),
            key: Some(invalid.keys[0].clone()),
            problem: invalid.problem,
        }
    }

    /// The place of a key, or of what it would stand in, if that is below a section.
    fn place_of(&self, key: &str) -> Option<&Place> {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return Some(place);
            }
            key = key.rsplit_once(['.', '[']).filter(|(outer, _)| outer.contains(['.', '[']))?.0;
        }
    }

    /// The places of all keys.
    pub(super) fn origins(self) -> Origins {
        Origins { file: self.file, places: self.places }
    }

    /// Whether `value` alone is a usable value of the key.
    fn try_key(&self, section: &str, key: &str, value: &Value) -> Result<(), String> {
        let mut only = Table::new();
        for tag in [FamilyConfig::TAG, ObjectiveConfig::TAG, RuleConfig::TAG] {
            let given = self.table.get(section).and_then(|s| s.get(tag));
            if let Some(kind) = given.filter(|_| keys_of(section, &self.table).is_some()) {
                only.insert(tag.to_owned(), kind.clone());
            }
        }
        only.insert(key.to_owned(), value.clone());
        let mut whole = Table::new();
        whole.insert(section.to_owned(), Value::Table(only));
        let read: Result<Config, _> = whole.try_into();
        read.map(drop).map_err(|error| plain(error.message()))
    }

    /// Refuses an unknown key and names the nearest known one. An empty `key` stands for the
    /// section itself, an empty `section` for a key outside of any.
    fn check_known(&self, section: &str, key: &str) -> Result<(), ConfigError> {
        if keys_of(section, &self.table).is_some_and(|keys| keys.contains(&key)) {
            return Ok(());
        }
        let path = [section, key].map(str::to_owned);
        let path = path.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(".");
        let sections = fields_of::<Config>();
        if sections.contains(&path.as_str()) {
            return Ok(());
        }
        let mut known: Vec<(String, String)> = Vec::new();
        for name in sections {
            if key.is_empty() || section.is_empty() {
                known.push((String::new(), (*name).to_owned()));
            }
            for field in keys_of(name, &self.table).unwrap_or_default() {
                if !key.is_empty() {
                    known.push(((*name).to_owned(), field.to_owned()));
                }
            }
        }
        let wanted = if key.is_empty() { section } else { key };
        let problem = match nearest(if key.is_empty() { "" } else { section }, wanted, &known) {
            Some(near) => format!("unknown key, expected one like {near}"),
            None => "unknown key".to_owned(),
        };
        Err(self.error(&path, problem))
    }

    fn error(&self, key: &str, problem: String) -> ConfigError {
        let file = || Place::File(self.file.clone());
        let place = self.places.get(key).or_else(|| self.place_of(key));
        let place = place.cloned().unwrap_or_else(file);
        ConfigError { place, key: Some(key.to_owned()), problem }
    }
}

/// The keys of the tables of a list; `None` for what is none.
fn keys_of_list(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "tracks" => Some(fields_of::<TrackConfig>()),
        "tasks" => Some(fields_of::<TaskConfig>()),
        _ => None,
    }
}

/// The keys of a section, given what kind it is of; `None` for an unknown section.
fn keys_of(section: &str, table: &Table) -> Option<Vec<&'static str>> {
    let tag = |tag| table.get(section).and_then(|s| s.get(tag)).and_then(Value::as_str);
    Some(match section {
        "run" => fields_of::<RunConfig>().to_vec(),
        "data" => fields_of::<DataConfig>().to_vec(),
        "batch" => fields_of::<BatchConfig>().to_vec(),
        "model" => ModelConfig::keys(tag(FamilyConfig::TAG)),
        "objective" => {
            let kind = tag(ObjectiveConfig::TAG).unwrap_or(ObjectiveConfig::NAMES[0]);
            let keys = ObjectiveConfig::keys(kind).unwrap_or_default();
            keys.iter().copied().chain([ObjectiveConfig::TAG]).collect()
        }
        "optimizer" => OptimizerConfig::keys(tag(RuleConfig::TAG)),
        "schedule" => fields_of::<ScheduleConfig>().to_vec(),
        "checkpoint" => fields_of::<CheckpointConfig>().to_vec(),
        "recovery" => fields_of::<RecoveryConfig>().to_vec(),
        "evaluate" => fields_of::<EvaluateConfig>().to_vec(),
        "sample" => fields_of::<SampleConfig>().to_vec(),
        "log" => fields_of::<LogConfig>().to_vec(),
        "web" => fields_of::<WebConfig>().to_vec(),
        _ => return None,
    })
}

/// Every key that is read, of all kinds of models and objectives.
#[cfg(test)]
pub(super) fn keys_of_kinds() -> Vec<String> {
    let mut all = Vec::new();
    for section in fields_of::<Config>() {
        let tags = match *section {
            "model" => FamilyConfig::NAMES.iter().map(|kind| (FamilyConfig::TAG, *kind)).collect(),
            "objective" => {
                ObjectiveConfig::NAMES.iter().map(|kind| (ObjectiveConfig::TAG, *kind)).collect()
            }
            "optimizer" => RuleConfig::NAMES.iter().map(|kind| (RuleConfig::TAG, *kind)).collect(),
            _ => vec![("", "")],
        };
        for (tag, kind) in tags {
            let only = Table::from_iter([(tag.to_owned(), Value::String(kind.to_owned()))]);
            let table = Table::from_iter([((*section).to_owned(), Value::Table(only))]);
            let keys = keys_of(section, &table);
            let keys = keys.or_else(|| keys_of_list(section).map(<[_]>::to_vec));
            all.extend(keys.unwrap_or_default().iter().map(|key| format!("{section}.{key}")));
        }
    }
    all
}

/// `old` with `value` at the dotted path `rest` inside it.
fn insert(old: Option<Value>, rest: &[&str], value: Value) -> Value {
    let [first, rest @ ..] = rest else { return value };
    let mut table = match old {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    };
    let inner = insert(table.get(*first).cloned(), rest, value);
    table.insert((*first).to_owned(), inner);
    Value::Table(table)
}

/// Calls `found` with the dotted path and the position of every key.
fn mark(table: &DeTable<'_>, path: &str, found: &mut dyn FnMut(String, usize)) {
    for (key, value) in table {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{}", key.get_ref());
        found(path.clone(), key.span().start);
        let value: &Spanned<DeValue<'_>> = value;
        match value.get_ref() {
            DeValue::Table(inner) => mark(inner, &path, found),
            DeValue::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    let path = format!("{path}[{number}]");
                    found(path.clone(), item.span().start);
                    if let DeValue::Table(inner) = item.get_ref() {
                        mark(inner, &path, found);
                    }
                }
            }
            _ => {}
        }
    }
}

fn not_a_section(section: &str) -> String {
    format!("expected a table [{section}]")
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// serde's complaint in the words of a user.
fn plain(message: &str) -> String {
    let message = one_line(message);
    for prefix in ["invalid type: ", "invalid value: ", "invalid length "] {
        let rest = message.strip_prefix(prefix).and_then(|rest| rest.split_once(", expected "));
        if let Some((got, wanted)) = rest {
            return expected(&wanted_in_words(wanted), got_in_words(got));
        }
    }
    let variant = message.strip_prefix("unknown variant `");
    if let Some((got, wanted)) = variant.and_then(|rest| rest.split_once("`, expected ")) {
        return expected(&wanted.replace('`', "\""), format!("\"{got}\""));
    }
    message
}

fn wanted_in_words(wanted: &str) -> String {
    match wanted {
        "usize" | "u64" | "u32" => "a whole number of at least 0",
        "u8" => "a whole number from 0 to 255",
        "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        other => other,
    }
    .to_owned()
}

fn got_in_words(got: &str) -> String {
    let numbers = ["integer `", "floating point `", "boolean `"];
    if let Some(value) = numbers.iter().find_map(|kind| got.strip_prefix(kind)) {
        return value.trim_end_matches('`').to_owned();
    }
    match got {
        "map" => "a table",
        "sequence" => "a list",
        other => other.strip_prefix("string ").unwrap_or(other),
    }
    .to_owned()
}
