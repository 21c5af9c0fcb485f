//! What a run folder says of its text: the tokenizer, and where the prepared data lie.
//!
//! Owns `tokenizer/`, `data.json` and `identity.json` of a run folder. They let a run be evaluated
//! and sampled when its text is gone, and tell what it has gone on with from what was edited.
//! Prohibition: copies no tokens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use octet_actors::outside::LocalDisk;
use octet_actors::run_folder::{read_json, replace_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::data::{Counts, DataConfig, DataError, Prepared, Tokenizer, reopen};
use crate::failure::Failure;
use crate::text::Consumed;

const TOKENIZER: &str = "tokenizer";
/// The file that says where a run's data lie.
pub(crate) const PLACE: &str = "data.json";
const IDENTITY: &str = "identity.json";

/// `data.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlace {
    /// The folder of the prepared data, absolute.
    pub folder: PathBuf,
    /// What the data are, wherever they lie.
    pub identity: String,
    /// How much all sources hold together; earlier versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

impl DataPlace {
    /// Where these data lie.
    ///
    /// # Errors
    /// A failure of the world: there is no current directory.
    pub fn of(prepared: &Prepared) -> Result<Self, Failure> {
        let folder = std::path::absolute(&prepared.folder).map_err(Failure::world)?;
        let mut counts = Counts::default();
        prepared.sources.iter().for_each(|source| counts.add(&source.counts));
        Ok(Self { folder, identity: prepared.identity.clone(), counts: Some(counts) })
    }

    /// What a run folder says; `None` if it says nothing.
    pub fn read(run: &Path) -> Option<Self> {
        read_json(&LocalDisk, &run.join(PLACE)).ok()
    }

    /// The data, if they are still there.
    pub fn open(&self) -> Option<Prepared> {
        reopen(&self.folder, &self.identity).ok()
    }
}

/// The prepared data of the run in a folder, if they are still there and `data` is what they were
/// prepared from.
pub fn prepared_for(run: &Path, data: &DataConfig) -> Option<Prepared> {
    let stored = Config::load(&run.join("config.toml"), &[]).ok()?;
    if stored.data != *data {
        return None;
    }
    DataPlace::read(run)?.open()
}

/// What a run without its text comes to whose prepared data cannot be opened.
pub fn without_text(run: &Path, missing: DataError) -> Failure {
    let Some(place) = DataPlace::read(run) else { return missing.into() };
    let damage = match reopen(&place.folder, &place.identity) {
        Ok(_) => return missing.into(),
        Err(Some(damage)) => damage.to_string(),
        Err(None) => format!("{}: they are gone", place.folder.display()),
    };
    Failure::user(format!(
        "{missing}, and what was prepared of it cannot be read any more ({damage}): put the text \
         back, and the data are made again, or that file from a copy"
    ))
}

/// The same data by paths that every engine of the run names alike.
///
/// # Errors
/// A failure of the world: there is no current directory.
pub fn absolute(mut prepared: Prepared) -> Result<Prepared, Failure> {
    let make = |path: &mut PathBuf| -> Result<(), Failure> {
        *path = std::path::absolute(&*path).map_err(Failure::world)?;
        Ok(())
    };
    make(&mut prepared.folder)?;
    for source in &mut prepared.sources {
        source.train.iter_mut().chain(&mut source.validation).try_for_each(make)?;
    }
    Ok(prepared)
}

/// The folder of a run's tokenizer.
pub fn tokenizer_folder(run: &Path) -> PathBuf {
    run.join(TOKENIZER)
}

/// Stores all three, before the configuration is: between the two, that is still what the newest
/// checkpoint says. The tokenizer of a run never changes; it is written once, as a whole.
///
/// # Errors
/// A failure of the world: the disk refuses.
pub fn store(
    run: &Path,
    tokenizer: &Tokenizer,
    place: &DataPlace,
    identity: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let folder = tokenizer_folder(run);
    let there = Tokenizer::load(&folder).is_ok_and(|there| there.digest() == tokenizer.digest());
    if !there {
        let temporary = run.join(".tokenizer.tmp");
        let refused = |error: std::io::Error| {
            Failure::world(format!("cannot store the tokenizer in {}: {error}", folder.display()))
        };
        for old in [&temporary, &folder] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(refused)?;
            }
        }
        fs::create_dir(&temporary).map_err(refused)?;
        tokenizer.save(&temporary)?;
        fs::rename(&temporary, &folder).map_err(refused)?;
    }
    replace_json(&LocalDisk, &run.join(PLACE), place).map_err(Failure::world)?;
    store_identity(run, identity)
}

/// Stores what decides the numbers of a run from here on, which its next checkpoint will say too.
///
/// # Errors
/// A failure of the world: the disk refuses.
pub fn store_identity(run: &Path, identity: &BTreeMap<String, String>) -> Result<(), Failure> {
    replace_json(&LocalDisk, &run.join(IDENTITY), identity).map_err(Failure::world)
}

/// What has decided the numbers of a run since it was last started; earlier versions did not say.
pub fn identity(run: &Path) -> Option<BTreeMap<String, String>> {
    read_json(&LocalDisk, &run.join(IDENTITY)).ok()
}

/// Adds to `summary.json` what each source has given.
///
/// # Errors
/// A failure of the world: the disk refuses.
pub fn add_sources(summary: &Path, consumed: &[Consumed]) -> Result<(), Failure> {
    let mut whole: Value = read_json(&LocalDisk, summary).map_err(Failure::world)?;
    whole["sources"] = serde_json::to_value(consumed).map_err(Failure::ours)?;
    replace_json(&LocalDisk, summary, &whole).map_err(Failure::world)
}

/// The digest of a tokenizer, in hexadecimal.
pub fn digest_of(tokenizer: &Tokenizer) -> String {
    blake3::Hash::from(tokenizer.digest()).to_hex().to_string()
}

/// The tokenizer of a run, as it lies in its folder.
///
/// # Errors
/// Bad input: the folder holds none.
pub fn tokenizer(run: &Path) -> Result<Tokenizer, Failure> {
    let folder = tokenizer_folder(run);
    if !folder.is_dir() {
        let run = run.display();
        return Err(Failure::user(format!(
            "{run}: the run has no tokenizer/, so it reads no text"
        )));
    }
    Ok(Tokenizer::load(&folder)?)
}
