//! The error of a configuration: one sentence.
//!
//! Duty: says where (file and line, or the `--set` argument), which key, and what was expected.
//! Prohibition: prints nothing, decides nothing.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A key with an unusable value, as its owner sees it: without file and line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The key and then whatever else the sentence compares it with, as `section.key`.
    pub keys: Vec<String>,
    /// What was expected and what was given.
    pub problem: String,
}

impl Invalid {
    /// One key against what was expected of it.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { keys: vec![key.into()], problem: problem.into() }
    }

    /// The sentence also depends on this key.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// The same about a section that stands at another place.
    #[must_use]
    pub fn within(self, section: &str, place: &str) -> Self {
        let (old, new) = (format!("{section}."), format!("{place}."));
        let moved = |key: String| match key.strip_prefix(&old) {
            Some(rest) => format!("{new}{rest}"),
            None => key,
        };
        let keys = self.keys.into_iter().map(moved).collect();
        Self { keys, problem: self.problem.replace(&old, &new) }
    }
}

/// `Err` unless `holds`.
pub(crate) fn require(
    holds: bool,
    key: impl Into<String>,
    problem: impl FnOnce() -> String,
) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid::new(key, problem())) }
}

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In a line of a file, counted from 1.
    Line(PathBuf, usize),
    /// Somewhere in a file, or missing there.
    File(PathBuf),
    /// In a `--set` argument.
    Argument(String),
    /// In a configuration made by a program.
    Nowhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{}:{line}: ", file.display()),
            Self::File(file) => write!(f, "{}: ", file.display()),
            Self::Argument(argument) => write!(f, "--set {argument}: "),
            Self::Nowhere => Ok(()),
        }
    }
}

/// Why a configuration is refused. Its text is one sentence; the process ends with exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// The key as `section.key`; `None` when the file is no TOML at all.
    pub key: Option<String>,
    /// What was expected and what was given.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}{key}: {}", self.place, self.problem),
            None => write!(f, "{}{}", self.place, self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}
