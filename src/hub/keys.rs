//! The keys of a `config.json`, each with the file and the line that a complaint names.

use std::path::Path;

use serde_json::{Map, Value};

use crate::failure::Failure;

/// A JSON object of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    path: &'a Path,
    text: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// The keys of a file's object.
    pub(super) fn new(path: &'a Path, text: &'a str, map: &'a Map<String, Value>) -> Self {
        Self { path, text, map }
    }

    /// The value, if there is one: null is none.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// What stands there, null too, where a missing key would mean something else.
    pub(super) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// Whether null stands there.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.raw(key).is_some_and(Value::is_null)
    }

    /// A complaint about a key.
    pub(super) fn refuse(&self, key: &str, problem: &str) -> Failure {
        let path = self.path.display();
        let line = self.text.find(&format!("\"{key}\""));
        match line.map(|at| 1 + self.text[..at].matches('\n').count()) {
            Some(line) => Failure::user(format!("{path}:{line}: {key}: {problem}")),
            None => Failure::user(format!("{path}: {key}: {problem}")),
        }
    }

    fn expected(&self, key: &str, wanted: &str, got: &Value) -> Failure {
        self.refuse(key, &format!("expected {wanted}, got {got}"))
    }

    fn typed<T>(
        &self,
        key: &str,
        default: Option<T>,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, Failure> {
        match (self.get(key), default) {
            (Some(value), _) => read(value).ok_or_else(|| self.expected(key, wanted, value)),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.refuse(key, &format!("expected {wanted}, got nothing"))),
        }
    }

    /// A whole number; without a default it has to be there.
    pub(super) fn whole(&self, key: &str, default: Option<usize>) -> Result<usize, Failure> {
        let read = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.typed(key, default, "a whole number", read)
    }

    /// A number; without a default it has to be there.
    pub(super) fn number(&self, key: &str, default: Option<f64>) -> Result<f64, Failure> {
        self.typed(key, default, "a number", Value::as_f64)
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, Failure> {
        self.typed(key, Some(default), "true or false", Value::as_bool)
    }

    /// A word.
    pub(super) fn word(&self, key: &str, default: Option<&'a str>) -> Result<&'a str, Failure> {
        self.typed(key, default, "a word", Value::as_str)
    }

    /// Refuses a flag that has not this value, for what it would compute.
    pub(super) fn must_be(&self, key: &str, default: bool, wanted: bool) -> Result<(), Failure> {
        match self.flag(key, default)? == wanted {
            true => Ok(()),
            false => {
                let what = format!("expected {wanted}, since Octet's models know no other way");
                Err(self.refuse(key, &what))
            }
        }
    }

    /// An object below this one.
    pub(super) fn object(&self, key: &str) -> Result<Option<Self>, Failure> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value {
            Value::Object(map) => Ok(Some(Self { map, ..*self })),
            other => Err(self.expected(key, "an object", other)),
        }
    }
}
