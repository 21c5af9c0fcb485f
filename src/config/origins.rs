//! Where each key of a configuration was given, for mistakes that only show later: a file that is
//! not there, a budget that is too small, a device that is missing.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::error::Place;
use super::fields::fields_of;
use crate::failure::{self, Failure};

/// The places of a configuration's keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Origins {
    pub(super) file: PathBuf,
    /// By dotted path.
    pub(super) places: HashMap<String, Place>,
}

impl Origins {
    /// Adds file and line, or the `--set` argument, to bad input whose sentence begins with a key.
    pub fn locate(&self, failure: Failure) -> Failure {
        if failure.code != failure::USER {
            return failure;
        }
        let Some((key, _)) = failure.what.split_once(": ") else { return failure };
        let section = key.split_once('.').map_or("", |(section, _)| section);
        if !fields_of::<Config>().contains(&section) || key.contains(char::is_whitespace) {
            return failure;
        }
        let file = || Place::File(self.file.clone());
        let place = self.places.get(key).cloned().unwrap_or_else(file);
        Failure { what: format!("{place}{}", failure.what), ..failure }
    }
}
