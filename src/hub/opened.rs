//! A model to look at, wherever it lies: a run, or a folder of Hugging Face's, of which a run is
//! made that is removed again.

use std::path::Path;

use super::import::{Import, import};
use crate::failure::Failure;
use crate::look::{Run, Scratch};

/// A run that can be looked at.
pub struct Opened {
    /// It.
    pub run: Run,
    /// What a person should know.
    pub notes: Vec<String>,
    _copy: Option<Scratch>,
}

impl Opened {
    /// Opens a run folder, or imports another folder or file that has a model. `stop` is asked now
    /// and then whether to give up.
    ///
    /// # Errors
    /// Bad input: neither is there.
    pub fn at(path: &Path, stop: &dyn Fn() -> bool) -> Result<Self, Failure> {
        let stored = path.join("config.json").is_file() || path.is_file();
        if path.join("config.toml").is_file() || !stored {
            return Ok(Self { run: Run::open(path, &[])?, notes: Vec::new(), _copy: None });
        }
        let copy = Scratch::create()?;
        let run = copy.0.join("run");
        let job = Import { from: path.to_owned(), run: run.clone(), ..Import::default() };
        let imported = import(&job, stop)?;
        Ok(Self { run: Run::open(&run, &[])?, notes: imported.notes, _copy: Some(copy) })
    }
}
