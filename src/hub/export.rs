//! A checkpoint as a folder that `transformers` loads: tensors, configuration, tokenizer, a card.
//!
//! Every tensor is read once, piece by piece, hashed as its checkpoint says, rounded and written;
//! only one that is transposed is held as a whole. The folder appears when all of it is on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use octet_actors::checkpoint::tensor_file::{TensorFileWriter, TensorSpec};
use octet_actors::checkpoint::{CheckpointError, Manifest};
use octet_actors::outside::Disk;
use octet_kernels::dtype::DType;
use serde_json::{Map, Value, json};

use super::card;
use super::families::{Class, Family, family_of, rows_of, stored_type, torch_name};
use super::gguf::{self, GgmlType};
use super::reading::Reading;
use super::record::{self, Record};
use super::staging::Staging;
use super::table::{Part, Row};
use super::tensors::{Tensors, narrow};
use super::{special, tokenizer};
use crate::data::Tokenizer;
use crate::failure::Failure;
use crate::look::{Holds, Run};
use crate::objectives::Ability;
use crate::run_data;

/// The version of `transformers` whose files these are.
const TRANSFORMERS: &str = "4.57.1";

/// The file that says which tensor is in which shard.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// What is to be exported.
#[derive(Debug, Clone)]
pub struct Export {
    /// A run folder, or the folder of one of its checkpoints.
    pub path: PathBuf,
    /// The folder to make.
    pub folder: PathBuf,
    /// What is made of it.
    pub form: Form,
    /// The checkpoint of this step; by default the newest good one.
    pub step: Option<u64>,
    /// A file is closed before it grows beyond so many bytes; one tensor always fits.
    pub shard_bytes: u64,
    /// How it was asked for, for the card.
    pub command: String,
}

/// What is made of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A folder that `transformers` loads, with tensors of this type; by default the model's.
    Transformers(Option<DType>),
    /// A file that llama.cpp loads, with matrices of this type.
    Gguf(GgmlType),
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Steps done in the checkpoint.
    pub step: u64,
    /// Its digest.
    pub digest: String,
    /// The class that loads it.
    pub architecture: &'static str,
    /// Numbers that the model learned.
    pub parameters: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Files of tensors.
    pub shards: usize,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A checkpoint, and the run that it belongs to.
pub(super) struct Source {
    pub(super) run: Run,
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
    /// What a person should know of the two.
    pub(super) notes: Vec<String>,
}

/// A file of tensors that is to be written.
struct Shard {
    name: String,
    /// Tensors by row of the table and number in it.
    parts: Vec<(usize, usize)>,
}

/// Exports a checkpoint. `stop` is asked now and then whether to give up.
///
/// # Errors
/// [`Failure`]; nothing is left then.
pub fn export(disk: &dyn Disk, job: &Export, stop: &dyn Fn() -> bool) -> Result<Exported, Failure> {
    let mut notes = Vec::new();
    for source in sources(&job.path, job.step)? {
        let exported = source.and_then(|source| match job.form {
            Form::Transformers(dtype) => export_one(disk, job, dtype, &source, stop),
            Form::Gguf(kind) => gguf::export_one(disk, job, kind, &source, stop),
        });
        match exported {
            // Only if the choice is ours may it be another checkpoint.
            Err(Damage::Checkpoint(what)) if job.step.is_none() => {
                notes.push(format!("passed over: {what}"));
            }
            Err(Damage::Checkpoint(what)) => return Err(Failure::user(what)),
            Err(Damage::Other(failure)) => return Err(failure),
            Ok(exported) => {
                notes.extend(exported.notes);
                return Ok(Exported { notes, ..exported });
            }
        }
    }
    let path = job.path.display();
    Err(Failure::user(match notes.first() {
        Some(first) => format!("no checkpoint of {path} is good ({first})"),
        None => format!("{path} holds no checkpoint yet"),
    }))
}

/// Whether another checkpoint may be better.
pub(super) enum Damage {
    /// This one is damaged.
    Checkpoint(String),
    /// It is not to blame.
    Other(Failure),
}

impl From<Failure> for Damage {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<CheckpointError> for Damage {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error.to_string())
    }
}

type Sources = Vec<Result<Source, Damage>>;

/// The checkpoints that a path means, the newest first.
fn sources(path: &Path, step: Option<u64>) -> Result<Sources, Failure> {
    let open = |run: &Run, folder: PathBuf| -> Result<Source, Damage> {
        let manifest = Manifest::read(&octet_actors::outside::LocalDisk, &folder)?;
        let notes = run.hold(&manifest, Holds::Computed)?;
        Ok(Source { run: run.clone(), folder, manifest, notes })
    };
    if path.join("manifest.json").exists() && !path.join("config.toml").exists() {
        let folder = std::path::absolute(path).map_err(Failure::world)?;
        if step.is_some() {
            let what = "--step: expected nothing beside the folder of one checkpoint";
            return Err(Failure::user(what));
        }
        let run = folder.parent().and_then(Path::parent).unwrap_or(&folder);
        let run = Run::open(run, &[])?;
        return match open(&run, folder) {
            Err(Damage::Checkpoint(what)) => Err(Failure::user(what)),
            one => Ok(vec![one]),
        };
    }
    let run = Run::open(path, &[])?;
    let store = run.store();
    let mut steps = store.steps().map_err(Failure::world)?;
    if let Some(step) = step {
        if !steps.contains(&step) {
            let known: Vec<String> = steps.iter().map(u64::to_string).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let what = format!("--step: expected one of the run's ({known}), got {step}");
            return Err(Failure::user(what));
        }
        steps = vec![step];
    }
    Ok(steps.into_iter().rev().map(|step| open(&run, store.folder(step))).collect())
}

fn export_one(
    disk: &dyn Disk,
    job: &Export,
    dtype: Option<DType>,
    source: &Source,
    stop: &dyn Fn() -> bool,
) -> Result<Exported, Damage> {
    let config = &source.run.config;
    let (family, class) = family_of(config)?;
    let rows = rows_of(class.lines, config)?;
    let dtype = dtype.unwrap_or(stored_type(config));
    let tensors = Tensors::of_checkpoint(&source.folder, &source.manifest)
        .map_err(|failure| Damage::Checkpoint(failure.what))?;
    let shards = plan(&rows, dtype, job.shard_bytes);
    let staging = Staging::begin(disk, &job.folder)?;
    let parts = || rows.iter().flat_map(|row| &row.parts);
    let parameters = parts().map(Part::elements).sum();
    let bytes = (parameters * dtype.bytes()) as u64;
    check_space(disk, job, bytes)?;
    let mut writer = Writer { disk, source, tensors: &tensors, rows: &rows, dtype, stop };
    writer.write(&shards, &staging)?;
    if shards.len() > 1 {
        staging.write(INDEX, &index(&rows, &shards, bytes))?;
    }
    let (files, notes) = documents((family, class), source, dtype)?;
    for (name, bytes) in files {
        staging.write(name, &bytes)?;
    }
    let exported = Exported {
        step: source.manifest.step,
        digest: source.manifest.digest.clone(),
        architecture: class.name,
        parameters,
        bytes,
        shards: shards.len(),
        notes,
    };
    let card = card::write(source, &exported, dtype.name(), &job.command);
    staging.write("README.md", card.as_bytes())?;
    staging.publish()?;
    Ok(exported)
}

/// Refuses to begin what does not fit on the disk.
///
/// # Errors
/// A failure of the world.
pub(super) fn check_space(disk: &dyn Disk, job: &Export, bytes: u64) -> Result<(), Failure> {
    let free = disk.free_space(&job.folder).map_err(Failure::world)?;
    if free < bytes {
        let [needed, free] = [bytes, free].map(octet_actors::units::size);
        let folder = job.folder.display();
        return Err(Failure::world(format!("{folder} takes {needed}, and {free} are free")));
    }
    Ok(())
}

/// Which tensors go to which file.
fn plan(rows: &[Row], dtype: DType, shard_bytes: u64) -> Vec<Shard> {
    let mut files: Vec<Vec<(usize, usize)>> = vec![Vec::new()];
    let mut size = 0;
    for (i, row) in rows.iter().enumerate() {
        for (j, part) in row.parts.iter().enumerate() {
            let bytes = (part.elements() * dtype.bytes()) as u64;
            let last = files.last_mut().expect("there is one from the beginning");
            if !last.is_empty() && size + bytes > shard_bytes {
                files.push(Vec::new());
                size = 0;
            }
            size += bytes;
            files.last_mut().expect("there is one from the beginning").push((i, j));
        }
    }
    let count = files.len();
    let name = |i: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    let shard = |(i, parts)| Shard { name: name(i), parts };
    files.into_iter().enumerate().map(shard).collect()
}

fn index(rows: &[Row], shards: &[Shard], bytes: u64) -> Vec<u8> {
    let mut map = BTreeMap::new();
    for shard in shards {
        for &(row, part) in &shard.parts {
            map.insert(&rows[row].parts[part].name, &shard.name);
        }
    }
    tokenizer::pretty(&json!({ "metadata": { "total_size": bytes }, "weight_map": map }))
}

/// Writes tensors.
struct Writer<'a> {
    disk: &'a dyn Disk,
    source: &'a Source,
    tensors: &'a Tensors,
    rows: &'a [Row],
    dtype: DType,
    stop: &'a dyn Fn() -> bool,
}

impl Writer<'_> {
    fn write(&mut self, shards: &[Shard], staging: &Staging<'_>) -> Result<(), Damage> {
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let (mut reading, mut bytes) = (None, Vec::new());
        for shard in shards {
            let specs: Vec<TensorSpec> = shard.parts.iter().map(|&at| self.spec(at)).collect();
            let path = staging.path(&shard.name);
            let mut file = TensorFileWriter::create(self.disk, &path, &specs, &metadata)
                .map_err(Failure::world)?;
            for &(row, part) in &shard.parts {
                let row = &self.rows[row];
                if part == 0 {
                    reading = Some(Reading::new(self.source, self.tensors, row)?);
                }
                let open = reading.as_mut().expect("a row begins with its first part");
                open.part(&row.parts[part], self.dtype, self.stop, &mut |values| {
                    bytes.clear();
                    narrow(self.dtype, values, &mut bytes);
                    file.write(&bytes).map_err(Failure::world)
                })?;
                if part + 1 == row.parts.len() {
                    reading.take().expect("as above").finish()?;
                }
            }
            file.finish().map_err(Failure::world)?;
        }
        Ok(())
    }

    fn spec(&self, (row, part): (usize, usize)) -> TensorSpec {
        let Part { name, shape, .. } = &self.rows[row].parts[part];
        TensorSpec { name: name.clone(), dtype: self.dtype, shape: shape.clone() }
    }
}

type Documents = (Vec<(&'static str, Vec<u8>)>, Vec<String>);

/// Everything but tensors and card: files by name, and notes.
fn documents(
    (family, class): (&Family, &Class),
    source: &Source,
    dtype: DType,
) -> Result<Documents, Failure> {
    let (config, folder) = (&source.run.config, &source.run.folder);
    let (record, mut notes) = (Record::of(folder)?, source.notes.clone());
    let tokenizer = match run_data::tokenizer_folder(folder).is_dir() {
        true => Some(run_data::tokenizer(folder)?),
        false => {
            notes.push("the run has no tokenizer, and so has the export".to_owned());
            None
        }
    };
    let json = tokenizer.as_ref().map(|tokenizer| special::json(config, tokenizer)).transpose()?;
    let writes = class.ability == Ability::GoesOn;
    let tokens = match (&record, &json) {
        (Some(record), _) => record.tokens.clone(),
        (None, json) if !writes => special::ids(json.as_deref()),
        (None, _) => ends(tokenizer.as_ref()),
    };
    let longest = config.model.family.get().max_positions();
    let positions = longest.unwrap_or(config.batch.sequence_length);
    let rows = config.model.vocabulary.unwrap_or(0);
    let mut whole = json!({
        "architectures": [class.name],
        "model_type": family.model_type,
        "vocab_size": rows,
    });
    let whole = whole.as_object_mut().expect("it is an object");
    whole.extend(family.model.write(&config.model.family, positions));
    whole.extend(tokens.clone());
    whole.insert("torch_dtype".into(), torch_name(dtype).into());
    whole.insert("transformers_version".into(), TRANSFORMERS.into());
    if writes {
        whole.insert("use_cache".into(), true.into());
    }
    let mut files = vec![("config.json", tokenizer::pretty(&Value::Object(whole.clone())))];
    if let (Some(tokenizer), Some(json)) = (&tokenizer, json) {
        let roles = match writes {
            true => tokenizer::ends(&json, tokenizer),
            false => special::roles(config, &json),
        };
        files.extend(tokenizer::files(json, &roles, positions));
    }
    if writes {
        let known = tokenizer.as_ref().map_or(rows, Tokenizer::vocabulary);
        files.push(("generation_config.json", generation(tokens, known, rows)));
    }
    for (name, bytes) in record::kept(folder)? {
        files.retain(|(made, _)| *made != name);
        files.push((name, bytes));
    }
    Ok((files, notes))
}

/// The tokens that begin and end a text.
fn ends(tokenizer: Option<&Tokenizer>) -> Map<String, Value> {
    let end = tokenizer.and_then(Tokenizer::end_of_document);
    let both = end.map(|end| json!({ "bos_token_id": end, "eos_token_id": end }));
    both.and_then(|both| both.as_object().cloned()).unwrap_or_default()
}

/// `generation_config.json`: rows of the embedding that are no token are never drawn.
fn generation(mut keys: Map<String, Value>, tokens: usize, rows: usize) -> Vec<u8> {
    if tokens < rows {
        keys.insert("suppress_tokens".into(), (tokens..rows).collect::<Vec<_>>().into());
    }
    keys.insert("transformers_version".into(), TRANSFORMERS.into());
    tokenizer::pretty(&Value::Object(keys))
}
