//! The objectives: what a model is trained for.
//!
//! Duty: `[objective]`, the programs of a track, and the records that they read. A new objective is
//! one file and one line in [`ObjectiveConfig`]: it asks models for what they can, samples for what
//! it hides or asks of them, and says which results mean what. Prohibition: no threads, no ranks.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use octet_actors::contract::Record;
use octet_kernels::error::Result;
use octet_kernels::graph::{Init, Parameter, Program};
use octet_kernels::random::{self, Site};

use crate::composition::{Builder, Built};
use crate::config::error::Invalid;
use crate::config::tagged::tagged;
use crate::data::{Cut, DataError};
use crate::models::Model;
use crate::text::Stream;

pub mod distillation;
pub mod masked;
mod masking;
pub mod next_token;
pub mod prefix_lm;
pub mod replaced_token;

pub use distillation::Distillation;
pub use masked::Masked;
pub use next_token::NextToken;
pub use prefix_lm::PrefixLm;
pub use replaced_token::ReplacedToken;

tagged! {
    /// The kind of objective with the keys of that kind.
    ObjectiveConfig by "kind" as Objective;
    /// Every token predicts the next one of its document.
    "next_token" => NextToken(NextToken),
    /// What follows a prefix that is seen both ways; as in T5's prefix language model.
    "prefix_lm" => PrefixLm(PrefixLm),
    /// The next token as a teacher would have it.
    "distillation" => Distillation(Distillation),
    /// Hidden tokens are told from all others; as in BERT.
    "masked" => Masked(Masked),
    /// Tokens that a generator replaces are to be found; as in ELECTRA.
    "replaced_token" => ReplacedToken(ReplacedToken),
}

/// How many chunks of `objective.chunk_rows` are one on a GPU: 4,096 rows by default, so that the
/// gradient of the output layer is seldom read and written again.
pub(crate) const GPU_CHUNKS: usize = 8;

/// The sequences that one run of a program computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences of a micro-batch.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub sequence_length: usize,
}

impl BatchShape {
    /// Rows of the model's matrices.
    pub fn tokens(&self) -> usize {
        self.sequences * self.sequence_length
    }
}

/// What every objective can do.
pub trait Objective: Debug {
    /// Checks every key, as keys of `[objective]`.
    ///
    /// # Errors
    /// The first key with an unusable value.
    fn validate(&self) -> std::result::Result<(), Invalid>;

    /// The models beside the track's own, by name.
    fn parts(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The special tokens that it needs: the tokenizer's of these names, or else tokens that stand
    /// behind the tokenizer's.
    fn special_tokens(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it trains beside its models, for the track's one; names without the track's.
    fn parameters(&self, _model: &dyn Model) -> Vec<Parameter> {
        Vec::new()
    }

    /// What a sample is.
    fn cut(&self) -> Cut {
        Cut::Windows
    }

    /// What its model learns that other programs make use of.
    fn teaches(&self) -> Option<Ability> {
        self.writes().map(|_| Ability::GoesOn)
    }

    /// Whether its model learns to go on with a text, and what bounds the logits there.
    fn writes(&self) -> Option<Writes> {
        None
    }

    /// Registers what it needs beside its models, and drafts its programs.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error`] for models that cannot do what it asks of them.
    fn build(&self, track: &mut Builder<'_>) -> Result<Built>;

    /// What fills the records of those programs from samples.
    ///
    /// # Errors
    /// [`DataError`] for samples that do not suit it.
    fn inputs(&self, source: Source) -> std::result::Result<Box<dyn Inputs>, DataError>;
}

/// What a model learns to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// To go on with a text.
    GoesOn,
    /// To tell hidden tokens.
    FillsIn,
    /// That, and whether one text follows another.
    Pairs,
    /// To find tokens that were replaced.
    Judges,
}

impl ObjectiveConfig {
    /// The objective that teaches something by its defaults, if it needs no other model.
    pub fn teaching(ability: Ability) -> Option<Self> {
        let masked = |next_sentence| Masked { next_sentence, ..Masked::default() };
        match ability {
            Ability::GoesOn => Some(Self::default()),
            Ability::FillsIn => Some(Self::Masked(masked(false))),
            Ability::Pairs => Some(Self::Masked(masked(true))),
            Ability::Judges => None,
        }
    }
}

/// How text is drawn from a model.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Writes {
    /// Bound of the logits: `cap · tanh(z / cap)`.
    pub softcap: Option<f32>,
}

/// Most losses of a track.
pub const LOSSES_MAX: usize = 4;

/// How many targets each loss of a track has.
pub type Counts = [u64; LOSSES_MAX];

/// From samples to records: pure functions of the sample's number, the same for every rank.
pub trait Inputs: Send + Sync {
    /// The targets of a sample.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    fn targets(&self, sample: u64) -> std::result::Result<Counts, DataError>;

    /// Fills everything but the scales of a record with these samples. Rows beyond the last one
    /// have no targets.
    ///
    /// # Errors
    /// As [`Self::targets`].
    fn fill(
        &self,
        samples: Range<u64>,
        program: &Program,
        record: &mut Record<'_>,
    ) -> std::result::Result<(), DataError>;
}

/// What an objective's inputs are made of.
#[derive(Clone)]
pub struct Source {
    /// The samples.
    pub samples: Stream,
    /// Tokens of a sample.
    pub sequence_length: usize,
    /// Tokens of the tokenizer; special ones that it has not stand behind them.
    pub tokens: usize,
    /// The special tokens of all objectives by name.
    pub special: Arc<[(&'static str, i32)]>,
    /// By token: UTF-8 bytes of its text.
    pub token_bytes: Arc<[u32]>,
    /// The run's seed.
    pub seed: u64,
}

impl Source {
    /// A special token by name. Panics for one that no objective has asked for.
    pub fn special(&self, name: &str) -> i32 {
        let known = self.special.iter().find(|(known, _)| *known == name);
        known.expect("the objective asked for it").1
    }

    /// Random numbers for what is done to samples, keyed by sample and element. Held-out samples
    /// have numbers of their own, always the same.
    pub fn noise(&self, what: &str) -> random::RandomStream {
        let whose = if self.samples.is_held_out() { "held-out " } else { "" };
        let site = Site::new(&format!("{whose}{what}"));
        random::RandomStream { seed: self.seed, site }
    }
}

/// The weight and the bias of a linear layer, `[out, in]`, of the model's kind.
fn layer(model: &dyn Model, name: &str, shape: [usize; 2]) -> [Parameter; 2] {
    let own = |kind: &str, shape: &[usize], init| Parameter {
        name: format!("{name}.{kind}"),
        shape: shape.to_vec(),
        dtype: model.dtype(),
        trainable: true,
        decay: shape.len() > 1,
        init,
    };
    [own("weight", &shape, model.init(shape)), own("bias", &shape[..1], Init::Constant(0.0))]
}

impl<'de> serde::Deserialize<'de> for ObjectiveConfig {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        Self::from_table(toml::Table::deserialize(deserializer)?)
    }
}
