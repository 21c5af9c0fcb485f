//! What a run is beside the keys of its configuration, by names in words: facts that a resume must
//! find again, and what builds did that did not name one yet.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use octet_actors::checkpoint::Manifest;
use octet_actors::checkpointer::RunFacts;
use octet_actors::contract::Workload;
use octet_actors::outside::{Disk, LocalDisk};
use octet_kernels::graph::Target;
use octet_kernels::graph::layout::BUCKET_ELEMENTS;

use crate::backend::Chosen;
use crate::config::{Config, Device};
use crate::data::{Cut, Tokenizer};
use crate::experiment::Experiment;
use crate::models::FamilyConfig;
use crate::objectives::GPU_CHUNKS;
use crate::train::open_store;
use crate::{provenance, run_data};

/// The name of the prepared data's identity in a manifest.
pub(crate) const DATA_FACT: &str = "the prepared data";

/// The name of the digest of its tokenizer.
pub(crate) const TOKENIZER_FACT: &str = "the tokenizer";

/// The name of a bucket's size in a manifest, as `run.bucket` has it: it decides in which order
/// squares are added up.
const BUCKET_FACT: &str = "the size of buckets (run.bucket)";

/// The name of the kind of device in a manifest.
const BACKEND_FACT: &str = "the backend";

/// The name of what multiplies on GPUs in a manifest.
const PRODUCTS_FACT: &str = "what multiplies on GPUs (run.products)";

/// What a run that is there was trained on, by its newest checkpoint.
pub(crate) fn began_on(config: &Config, folder: &Path) -> Option<Device> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let store = open_store(config, &folder.join("checkpoints"), &disk);
    let mut steps = store.steps().ok()?.into_iter().rev();
    let manifest = steps.find_map(|step| Manifest::read(&*disk, &store.folder(step)).ok())?;
    match manifest.identity.get(BACKEND_FACT)?.as_str() {
        "cuda" => Some(Device::Cuda),
        "cpu" => Some(Device::Cpu),
        _ => None,
    }
}

/// What a resume must find again to go on bit for bit.
pub(crate) fn facts(
    config: &Config,
    chosen: &Chosen,
    experiment: &Experiment,
    tokenizer: &Tokenizer,
) -> RunFacts {
    let (mut identity, mut assumed) = (config.identity(), Config::assumed());
    let mut fact = |key: &str, value: String| identity.insert(key.to_owned(), value);
    fact(DATA_FACT, experiment.data_identity().to_string());
    fact(BACKEND_FACT, chosen.backend.name().to_string());
    let ours = "kernels of our own".to_owned();
    if let Target::Gpu(gpu) = chosen.target {
        // Sums of tensor cores differ by architecture, the library's choices by version and size.
        let [major, minor] = gpu.architecture;
        let size = gpu.multiprocessors;
        fact("the GPU", format!("{major}.{minor} with {size} multiprocessors"));
        let library = chosen.blas.map(|version| format!("cuBLASLt {version}"));
        fact(PRODUCTS_FACT, library.unwrap_or_else(|| ours.clone()));
        fact("chunks of the loss that are one on a GPU", GPU_CHUNKS.to_string());
    }
    let digest = run_data::digest_of(tokenizer);
    fact(TOKENIZER_FACT, digest.clone());
    let granularity = config.run.granularity(experiment.variables());
    let size = |elements: usize| octet_actors::units::size((elements * size_of::<f32>()) as u64);
    fact(BUCKET_FACT, size(granularity.bucket));
    // What all buckets had before it could be set.
    assumed.insert(BUCKET_FACT.to_owned(), size(BUCKET_ELEMENTS));
    assumed.insert(PRODUCTS_FACT.to_owned(), ours);
    // Where only the data's identity tells, it tells that too.
    assumed.insert(TOKENIZER_FACT.to_owned(), digest);
    for Meaning { name, now, before } in meanings(config, tokenizer) {
        identity.insert(name.to_owned(), now);
        assumed.insert(name.to_owned(), before);
    }
    RunFacts { config_digest: config.digest(), identity, assumed, provenance: provenance::here() }
}

/// What a model takes its input for, where builds have differed: a fact in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// The fact's name.
    pub(crate) name: &'static str,
    /// What this build does.
    pub(crate) now: String,
    /// What builds did that did not name it.
    pub(crate) before: String,
}

/// What the models of a configuration take their input for.
pub(crate) fn meanings(config: &Config, tokenizer: &Tokenizer) -> Vec<Meaning> {
    let mut meanings = Vec::new();
    if reads_types_without_pairs(config) {
        meanings.push(Meaning {
            name: "the type of text that is no pair",
            now: "the first".to_owned(),
            before: "none, and types were not trained".to_owned(),
        });
    }
    let special = config.special_ids(tokenizer);
    if !special.is_empty() {
        let shown = |all: &mut dyn Iterator<Item = (&'static str, i32)>| {
            let all: Vec<String> = all.map(|(name, id)| format!("{name} {id}")).collect();
            all.join(", ")
        };
        let behind = (tokenizer.vocabulary() as i32..).zip(&special);
        meanings.push(Meaning {
            name: "the special tokens",
            before: shown(&mut behind.map(|(id, (name, _))| (*name, id))),
            now: shown(&mut special.iter().copied()),
        });
    }
    meanings
}

/// Whether a model has types of texts, and an objective that gives it none.
fn reads_types_without_pairs(config: &Config) -> bool {
    let is_encoder =
        |name: &str| matches!(config.model.family_of(name), Some(FamilyConfig::Encoder(_)));
    config.tracks().iter().any(|track| {
        let objective = track.objective.get();
        let mut models = objective.parts();
        models.push(&track.model);
        !matches!(objective.cut(), Cut::Pairs { .. }) && models.into_iter().any(is_encoder)
    })
}

/// Those of them that an identity does not have as this build does, with what it has.
pub(crate) fn other_meanings(
    was: &BTreeMap<String, String>,
    config: &Config,
    tokenizer: &Tokenizer,
) -> Vec<(Meaning, String)> {
    let had = |meaning: &Meaning| was.get(meaning.name).unwrap_or(&meaning.before).clone();
    let all = meanings(config, tokenizer).into_iter().map(|meaning| {
        let had = had(&meaning);
        (meaning, had)
    });
    all.filter(|(meaning, had)| meaning.now != *had).collect()
}

#[cfg(test)]
mod tests;
