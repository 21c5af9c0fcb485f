//! The models, by family, and what objectives may ask of one.
//!
//! Duty: `[model]`, and the traits between configuration, model and objective. A new family is one
//! file and one line in [`FamilyConfig`]. Prohibition: a model is architecture only, written as if
//! there were one device: no data, no threads, no optimizer.

use std::collections::BTreeMap;
use std::fmt::Debug;

use octet_kernels::dtype::{DType, Precision};
use octet_kernels::error::Result;
use octet_kernels::graph::{Graph, Init, StateId, Tensor};
use octet_kernels::ops::attention::{AttentionSpec, Mask, attention, attention_within};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::bytes::Bytes;
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::config::tagged::{tagged, take};

pub mod dense;
pub mod encoder;
pub mod extras;
pub mod parts;
pub mod recompute;
mod role;
mod scope;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use dense::{Dense, DenseConfig};
pub use encoder::{Encoder, EncoderConfig};
pub use extras::Extras;
pub use parts::{Part, PartConfig, Parts};
pub use recompute::RecomputeConfig;
pub use role::Role;
pub use scope::Scope;
pub(crate) use scope::fits;

tagged! {
    /// The family of a model with the keys of that family.
    FamilyConfig by "family" as Family;
    /// Decoder-only, every token through every weight: GPT-2, Llama, Qwen.
    "dense" => Dense(DenseConfig),
    /// Every token sees all others: BERT, and ELECTRA's towers.
    "encoder" => Encoder(EncoderConfig),
}

/// What the configuration of every family can do.
pub trait Family {
    /// Checks every key, and keys against each other.
    ///
    /// # Errors
    /// The first key with an unusable value.
    fn validate(&self) -> std::result::Result<(), Invalid>;

    /// Writes out defaults that depend on other keys.
    fn resolve(&mut self);

    /// Positions of the longest sequence that the model can read, if its keys say so.
    fn max_positions(&self) -> Option<usize> {
        None
    }

    /// How many blocks it has, to plan it with another number.
    fn layers(&mut self) -> &mut usize;

    /// Registers the model's parameters.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error::Plan`] for a configuration that [`Self::validate`] refuses.
    fn build(&self, size: ModelSize, scope: &mut Scope<'_>) -> Result<Box<dyn Model>>;
}

/// What the data decide about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelSize {
    /// Rows of the embedding: tokens, padding included.
    pub vocabulary: usize,
    /// Positions of the longest sequence.
    pub max_positions: usize,
}

/// Packed sequences of one length: N rows, one per token.
#[derive(Debug, Clone, Copy)]
pub struct TokenBatch {
    /// `i32[N]`.
    pub tokens: Tensor,
    /// `i32[N]`: the place of each token in its document.
    pub positions: Tensor,
    /// `i32[N]`: tokens of one sequence see each other only within a segment.
    pub segments: Tensor,
    /// `i32[N]`: which part of its document a token belongs to, for models that know parts.
    pub types: Option<Tensor>,
    /// Tokens of a sequence; divides N.
    pub sequence_length: usize,
    /// Which tokens see which inside a segment.
    pub sight: Sight,
    /// Whether dropout applies.
    pub training: bool,
}

/// Which tokens see which inside a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Each those before it, and itself.
    Causal,
    /// Each all others.
    Bidirectional,
    /// Each those before a place in its sequence of its own: `i32[N]`.
    Extents(Tensor),
}

impl TokenBatch {
    /// Attention of `qkv` as these tokens see each other; `spec` says everything but the mask.
    ///
    /// # Errors
    /// As [`attention`].
    pub fn attention(&self, g: &mut Graph<'_>, qkv: Tensor, spec: AttentionSpec) -> Result<Tensor> {
        let with = |mask| AttentionSpec { mask, ..spec };
        match self.sight {
            Sight::Causal => attention(g, qkv, self.segments, with(Mask::Causal)),
            Sight::Bidirectional => attention(g, qkv, self.segments, with(Mask::Bidirectional)),
            Sight::Extents(extents) => attention_within(g, qkv, self.segments, extents, spec),
        }
    }
}

/// Keys and values of earlier tokens of one block, as states `f[sequences, positions, ..]`.
#[derive(Debug, Clone, Copy)]
pub struct KvCache {
    /// Keys.
    pub keys: StateId,
    /// Values.
    pub values: StateId,
}

/// Keys and values of earlier tokens, for generation.
#[derive(Debug, Clone)]
pub struct KvCaches {
    /// Sequences that are written at once.
    pub sequences: usize,
    /// Positions of each.
    pub positions: usize,
    /// By block.
    pub blocks: Vec<KvCache>,
}

/// The output layer over some rows: logits are `rows weightᵀ + bias`.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// `f[M, E]`.
    pub rows: Tensor,
    /// `f[V, E]`.
    pub weight: Tensor,
    /// `f[V]`.
    pub bias: Option<Tensor>,
}

/// Pairs of tokens that see each other where each sees those before it, as the unit that pairs are
/// counted in.
pub const CAUSAL: f64 = 1.0;
/// Where each sees all others.
pub const BIDIRECTIONAL: f64 = 2.0;

/// What every model can do for an objective. What only some can is asked for by name: a `None`
/// refuses the objective that needs it.
pub trait Model: Debug + Send + Sync {
    /// One row for each token after the last norm: `f[N, D]`. Losses of the model's own go to
    /// `extras`, and what is summed over a step into its states.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error::Shape`] when the batch does not fit the model.
    fn hidden(&self, g: &mut Graph<'_>, batch: &TokenBatch, extras: &mut Extras) -> Result<Tensor>;

    /// The output layer over any of these rows: `f[M, D]`.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error::Shape`] for rows of another width.
    fn head(&self, g: &mut Graph<'_>, rows: Tensor) -> Result<Head>;

    /// Elements of a hidden row.
    fn width(&self) -> usize;

    /// How an objective's own matrix over hidden rows begins, `[out, in]`.
    fn init(&self, shape: [usize; 2]) -> Init;

    /// Storage type of its matrices.
    fn dtype(&self) -> DType;

    /// One row for a whole sequence from the hidden row of its first token: `f[B, D]` to `f[B, D]`.
    fn pooler(&self) -> Option<&dyn Pooler> {
        None
    }

    /// What it does after every update with what its states have summed up.
    fn after_update(&self) -> Option<&dyn AfterUpdate> {
        None
    }

    /// Reads tokens one after the other and says what may come next.
    fn writer(&self) -> Option<&dyn Writer> {
        None
    }

    /// Parameters that stand in matrix products for a token, the head included and the embedding
    /// table not.
    fn matrix_parameters(&self) -> usize;

    /// Those of them that belong to the output layer.
    fn head_parameters(&self) -> usize;

    /// FLOPs of one trained token, forward and backward, in sequences of `sequence_length` tokens:
    /// `6 N + pairs · 6 L d T`, where tokens see each other in so many pairs, as [`CAUSAL`] or
    /// [`BIDIRECTIONAL`] says. Recompute does not count.
    fn flops_per_token(&self, sequence_length: usize, pairs: f64) -> f64;
}

/// A model that gives one row for a whole sequence.
pub trait Pooler {
    /// From the first rows of sequences, `f[B, D]`, to one row for each.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error::Shape`] for rows of another width.
    fn pool(&self, g: &mut Graph<'_>, first: Tensor) -> Result<Tensor>;
}

/// A model that changes states of its own after every update, such as biases of a router.
pub trait AfterUpdate {
    /// Traces that, forward only; sums are those of the whole step.
    ///
    /// # Errors
    /// As the ops that it is made of.
    fn trace(&self, g: &mut Graph<'_>) -> Result<()>;
}

/// New tokens of cached sequences, in any number of each.
#[derive(Debug, Clone, Copy)]
pub struct WriterRows {
    /// `i32[N]`.
    pub tokens: Tensor,
    /// `i32[N]`: their positions, those of a sequence in order.
    pub positions: Tensor,
    /// `i32[N]`: whose they are.
    pub sequences: Tensor,
    /// `i32[A]`: the rows after which logits are wanted.
    pub picked: Tensor,
}

/// A model that text can be drawn from.
pub trait Writer {
    /// Registers caches for so many sequences of so many positions, at most those of the model.
    fn caches(&self, scope: &mut Scope<'_>, sequences: usize, positions: usize) -> KvCaches;

    /// `f[A, V]`: the logits after those of the new tokens that are picked.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error::Shape`] when the rows do not fit the caches.
    fn decode(&self, g: &mut Graph<'_>, caches: &KvCaches, rows: &WriterRows) -> Result<Tensor>;
}

/// `[model]`: the keys of all families, and those of one.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ModelConfig {
    /// The family and its keys.
    #[serde(flatten)]
    pub family: FamilyConfig,
    /// Rows of the embedding. By default the tokenizer's size, rounded up to a multiple of 64 if it
    /// is more than 512; a tokenizer that exceeds a given size is an error. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<usize>,
    /// To what the operands of linear layers' products are rounded: `"f32"` for not at all,
    /// `"bf16"` for speed where the CPU has instructions for it.
    #[serde(skip_serializing_if = "Matmul::is_default")]
    pub matmul: Matmul,
    /// What backward computes again instead of keeping.
    pub recompute: RecomputeConfig,
    /// What a rank's arena may take at most. Without it, `"auto"` takes the device's memory less a
    /// reserve; other policies are not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute_budget: Option<Bytes>,
    /// Further models, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PartConfig>,
}

/// The precision of matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Matmul {
    /// That of the operands.
    #[default]
    F32,
    /// bfloat16, with sums in `f32`.
    Bf16,
}

impl Matmul {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Matmul> for Precision {
    fn from(matmul: Matmul) -> Self {
        match matmul {
            Matmul::F32 => Self::F32,
            Matmul::Bf16 => Self::Bf16,
        }
    }
}

/// Largest size of a vocabulary that is not rounded up.
const EXACT_VOCABULARY_MAX: usize = 512;
/// Larger ones are rounded up to a multiple of this, so that rows of logits suit matrix units.
const VOCABULARY_MULTIPLE: usize = 64;
/// Largest vocabulary.
const VOCABULARY_MAX: usize = 1 << 24;

impl ModelConfig {
    /// The keys of `[model]` for a family; for an unknown family only the shared ones.
    pub(crate) fn keys(family: Option<&str>) -> Vec<&'static str> {
        let own = FamilyConfig::keys(family.unwrap_or(FamilyConfig::NAMES[0]));
        let shared =
            [FamilyConfig::TAG, "vocabulary", "matmul", "recompute", "recompute_budget", "parts"];
        own.unwrap_or_default().iter().copied().chain(shared).collect()
    }

    pub(crate) fn resolve(&mut self) {
        self.family.get_mut().resolve();
        self.resolve_parts();
    }

    pub(crate) fn validate(&self) -> std::result::Result<(), Invalid> {
        if let Some(size) = self.vocabulary {
            let usable = (1..=VOCABULARY_MAX).contains(&size);
            let wanted = format!("a whole number from 1 to {VOCABULARY_MAX}");
            require(usable, "model.vocabulary", || expected(&wanted, size))?;
        }
        self.family.get().validate()?;
        self.validate_parts()
    }

    /// Rows of the embedding for a tokenizer of `tokens` tokens.
    pub fn padded_vocabulary(&self, tokens: usize) -> usize {
        let exact = tokens <= EXACT_VOCABULARY_MAX;
        let default = if exact { tokens } else { tokens.next_multiple_of(VOCABULARY_MULTIPLE) };
        self.vocabulary.unwrap_or(default)
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let vocabulary = take(&mut table, "vocabulary")?;
        let matmul = take(&mut table, "matmul")?.unwrap_or_default();
        let recompute = take(&mut table, "recompute")?;
        let recompute_budget = take(&mut table, "recompute_budget")?;
        let recompute = recompute.unwrap_or_default();
        let parts = take(&mut table, "parts")?.unwrap_or_default();
        let family = FamilyConfig::from_table(table)?;
        Ok(Self { family, vocabulary, matmul, recompute, recompute_budget, parts })
    }
}
