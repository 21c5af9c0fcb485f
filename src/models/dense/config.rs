//! The keys of the `dense` family, their defaults and their checks.

use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::Init;
use octet_kernels::ops::attention::HEAD_DIM_MAX;
use octet_kernels::ops::rope::RopeSpec;
use serde::{Deserialize, Serialize};

use super::{Dense, RopeScaling};
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::models::{Family, Model, ModelSize, Scope};

/// A decoder by its parts. The defaults are those of Llama, small.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DenseConfig {
    /// Blocks. At least 1.
    pub layers: usize,
    /// Query heads. At least 1.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`; by default as many. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Elements of a token's row. At least 1.
    pub width: usize,
    /// Elements of a head; by default `width / heads`. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Elements between the two feed-forward layers. By default `4 · width` for GELU, and `8/3 ·
    /// width` rounded up to a multiple of 64 for SwiGLU. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed_forward: Option<usize>,
    /// The norm before attention, before feed-forward and before the head.
    pub norm: NormKind,
    /// Added to the variance or mean square in norms. Above 0.
    pub norm_epsilon: f64,
    /// How a token knows its position.
    pub positions: Positions,
    /// Base of the rotary frequencies. Above 0.
    pub rope_theta: f64,
    /// The function between the two feed-forward layers.
    pub activation: ActivationKind,
    /// Biases in all linear layers but the head. Layer norms always have one.
    pub bias: bool,
    /// Biases in the query, key and value layer even without `bias` (Qwen2).
    pub qkv_bias: bool,
    /// RMS norms on every query and key head (Qwen3).
    pub qk_norm: bool,
    /// Attention and feed-forward of a block read the same normed rows, side by side (Wang and
    /// Komatsuzaki, GPT-J, 2021; PaLM, arXiv:2204.02311); there is one norm for both.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub parallel: bool,
    /// The head is the embedding.
    pub tied: bool,
    /// Keys that attention sees at most, the token's own included (a sliding window: Beltagy et
    /// al., arXiv:2004.05150); by default all before it. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Every so many-th block sees all keys in spite of `window`: 2 as in Gemma 2, 6 as in Gemma 3.
    /// At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_attention_every: Option<usize>,
    /// Share of elements that are zeroed in training: of embeddings, and of what attention and
    /// feed-forward add to the residual stream. At least 0, below 1.
    pub dropout: f64,
    /// The same for embeddings alone; by default `dropout`. At least 0, below 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dropout: Option<f64>,
    /// How parameters and activations are stored. Gradients and optimizer state are `f32`.
    pub dtype: StorageType,
    /// How first weights are drawn. Biases begin at 0, weights of norms at 1.
    pub initialisation: Initialisation,
    /// Standard deviation of first weights, 0.02 by default; of `normal`, `gpt2` and
    /// `truncated_normal` only. Above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_std: Option<f64>,
    /// Stretches rotary frequencies for longer sequences than a model was first trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Positions that the model knows: rows of learned ones, and the longest sequence that an
    /// export promises to read. By default `batch.sequence_length`, which may not be longer. At
    /// least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_positions: Option<usize>,
}

/// A norm over the elements of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Mean and variance, weight and bias.
    LayerNorm,
    /// Mean square, weight.
    RmsNorm,
}

/// How a token knows its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A trained row per position, added to the embedding.
    Learned,
    /// Rotations of queries and keys.
    Rope,
}

/// The function between the two feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationKind {
    /// GELU with tanh.
    Gelu,
    /// SiLU of one half times the other.
    Swiglu,
}

/// How first weights are drawn: normal values of mean 0, the standard deviation of each matrix
/// `[out, in]` by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Initialisation {
    /// `init_std`.
    Normal,
    /// `init_std`, and `init_std / √(2 · layers)` for layers that write to the residual stream
    /// (Radford et al., 2019).
    Gpt2,
    /// As `gpt2`; values farther than three standard deviations are drawn again.
    TruncatedNormal,
    /// `√(2 / (in + out))` (Glorot and Bengio, 2010).
    #[serde(alias = "glorot")]
    Xavier,
    /// `√(2 / in)` (He et al., arXiv:1502.01852).
    #[serde(alias = "he")]
    Kaiming,
    /// `√(2 / (5 · width))` (Nguyen and Salazar, arXiv:1910.05895).
    Small,
}

/// Standard deviation of first weights.
const INIT_STD: f64 = 0.02;

impl Initialisation {
    fn takes_std(self) -> bool {
        matches!(self, Self::Normal | Self::Gpt2 | Self::TruncatedNormal)
    }
}

/// How parameters and activations are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageType {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
}

impl From<StorageType> for DType {
    fn from(storage: StorageType) -> Self {
        match storage {
            StorageType::F32 => Self::F32,
            StorageType::Bf16 => Self::Bf16,
        }
    }
}

impl Default for DenseConfig {
    fn default() -> Self {
        Self {
            layers: 4,
            heads: 4,
            kv_heads: None,
            width: 128,
            head_dim: None,
            feed_forward: None,
            norm: NormKind::RmsNorm,
            norm_epsilon: 1e-5,
            positions: Positions::Rope,
            rope_theta: 10_000.0,
            activation: ActivationKind::Swiglu,
            bias: false,
            qkv_bias: false,
            qk_norm: false,
            parallel: false,
            tied: true,
            window: None,
            full_attention_every: None,
            dropout: 0.0,
            embedding_dropout: None,
            dtype: StorageType::F32,
            initialisation: Initialisation::Gpt2,
            init_std: None,
            rope_scaling: None,
            max_positions: None,
        }
    }
}

/// Largest number of blocks.
const LAYERS_MAX: usize = 1024;
/// Largest width, and largest feed-forward width.
const WIDTH_MAX: usize = 1 << 20;
/// Largest number of positions.
const POSITIONS_MAX: usize = 1 << 30;

impl DenseConfig {
    /// First values of a matrix `[out, in]`; `residual`: of one that writes to the residual stream.
    pub(super) fn first_values(&self, [rows, columns]: [usize; 2], residual: bool) -> Init {
        let std = self.init_std.unwrap_or(INIT_STD);
        let scaled = if residual { std / (2.0 * self.layers as f64).sqrt() } else { std };
        let std = match self.initialisation {
            Initialisation::TruncatedNormal => {
                return Init::TruncatedNormal { std: scaled as f32 };
            }
            Initialisation::Normal => std,
            Initialisation::Gpt2 => scaled,
            Initialisation::Xavier => (2.0 / (rows + columns) as f64).sqrt(),
            Initialisation::Kaiming => (2.0 / columns as f64).sqrt(),
            Initialisation::Small => (2.0 / (5 * self.width) as f64).sqrt(),
        };
        Init::Normal { std: std as f32 }
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads.unwrap_or(self.heads)
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.width / self.heads.max(1))
    }

    /// Elements between the two feed-forward layers.
    pub fn feed_forward(&self) -> usize {
        self.feed_forward.unwrap_or(match self.activation {
            ActivationKind::Gelu => 4 * self.width,
            ActivationKind::Swiglu => (8 * self.width / 3).next_multiple_of(64),
        })
    }

    /// Dropout of embeddings.
    pub fn embedding_dropout(&self) -> f64 {
        self.embedding_dropout.unwrap_or(self.dropout)
    }

    /// How many keys block `block` sees at most; `None` for all before it.
    pub fn window_of(&self, block: usize) -> Option<usize> {
        let full = self.full_attention_every.is_some_and(|n| (block + 1).is_multiple_of(n));
        self.window.filter(|_| !full)
    }

    /// The rotations of queries and keys, unless positions are learned.
    pub(super) fn rope(&self, max_positions: usize) -> Option<RopeSpec> {
        let scaling = RopeScaling::of_op(self.rope_scaling);
        let (head_dim, theta) = (self.head_dim(), self.rope_theta);
        let rotated = self.positions == Positions::Rope;
        rotated.then_some(RopeSpec { head_dim, theta, scaling, max_positions })
    }

    fn check_first_values(&self) -> std::result::Result<(), Invalid> {
        let Some(std) = self.init_std else { return Ok(()) };
        if !self.initialisation.takes_std() {
            let problem = "expected model.initialisation = \"normal\", \"gpt2\" or \
                           \"truncated_normal\" beside it";
            return Err(Invalid::new("model.init_std", problem).with("model.initialisation"));
        }
        let usable = std > 0.0 && (std as f32).is_finite();
        require(usable, "model.init_std", || expected("a number above 0", std))
    }

    fn check_window(&self) -> std::result::Result<(), Invalid> {
        require(self.window != Some(0), "model.window", || expected("at least 1", 0))?;
        let Some(every) = self.full_attention_every else { return Ok(()) };
        let key = "model.full_attention_every";
        require(every > 1, key, || expected("at least 2", every))?;
        let problem = || "expected model.window beside it".to_owned();
        require(self.window.is_some(), key, problem)
    }

    fn check_sizes(&self) -> std::result::Result<(), Invalid> {
        let range = |key, value: usize, max: usize| {
            let wanted = format!("a whole number from 1 to {max}");
            require((1..=max).contains(&value), key, || expected(&wanted, value))
        };
        range("model.layers", self.layers, LAYERS_MAX)?;
        range("model.width", self.width, WIDTH_MAX)?;
        range("model.heads", self.heads, WIDTH_MAX)?;
        range("model.kv_heads", self.kv_heads(), WIDTH_MAX)?;
        range("model.feed_forward", self.feed_forward(), WIDTH_MAX)?;
        range("model.max_positions", self.max_positions.unwrap_or(1), POSITIONS_MAX)?;
        let Self { width, heads, .. } = *self;
        if self.head_dim.is_none() && width % heads != 0 {
            let wanted = format!("a multiple of model.heads = {heads}, or model.head_dim");
            let invalid = Invalid::new("model.width", expected(&wanted, width));
            return Err(invalid.with("model.heads"));
        }
        if heads % self.kv_heads() != 0 {
            let wanted = format!("a divisor of model.heads = {heads}");
            let invalid = Invalid::new("model.kv_heads", expected(&wanted, self.kv_heads()));
            return Err(invalid.with("model.heads"));
        }
        let head = self.head_dim();
        let rotated = self.positions == Positions::Rope;
        if head == 0 || head > HEAD_DIM_MAX || (rotated && !head.is_multiple_of(2)) {
            let even = if rotated { "an even number" } else { "a whole number" };
            let wanted = format!("{even} from 1 to {HEAD_DIM_MAX}");
            let invalid = Invalid::new("model.head_dim", expected(&wanted, head));
            return Err(invalid.with("model.width").with("model.heads"));
        }
        Ok(())
    }
}

impl Family for DenseConfig {
    fn layers(&mut self) -> &mut usize {
        &mut self.layers
    }

    fn max_positions(&self) -> Option<usize> {
        self.max_positions
    }

    fn validate(&self) -> std::result::Result<(), Invalid> {
        self.check_sizes()?;
        let positive = |key, value: f64| {
            let usable = value > 0.0 && (value as f32).is_finite();
            require(usable, key, || expected("a number above 0", value))
        };
        positive("model.norm_epsilon", self.norm_epsilon)?;
        positive("model.rope_theta", self.rope_theta)?;
        self.check_first_values()?;
        self.check_window()?;
        let share = |key, value: f64| {
            let usable = (0.0..1.0).contains(&(value as f32));
            require(usable, key, || expected("at least 0 and below 1", value))
        };
        share("model.dropout", self.dropout)?;
        share("model.embedding_dropout", self.embedding_dropout())?;
        let Some(scaling) = &self.rope_scaling else { return Ok(()) };
        scaling.validate()?;
        let rotated = self.positions == Positions::Rope;
        let problem = || "expected model.positions = \"rope\" beside it".to_owned();
        require(rotated, "model.rope_scaling", problem)
    }

    fn resolve(&mut self) {
        if self.check_sizes().is_ok() {
            self.kv_heads = Some(self.kv_heads());
            self.head_dim = Some(self.head_dim());
            self.feed_forward = Some(self.feed_forward());
            self.init_std = self.init_std.or(self.initialisation.takes_std().then_some(INIT_STD));
        }
    }

    fn build(&self, size: ModelSize, scope: &mut Scope<'_>) -> Result<Box<dyn Model>> {
        self.validate().map_err(|i| Error::Plan(format!("{}: {}", i.keys[0], i.problem)))?;
        let positions = self.max_positions.unwrap_or(size.max_positions);
        if positions < size.max_positions {
            let wanted = expected(&format!("at least {}", size.max_positions), positions);
            return Err(Error::Plan(format!("model.max_positions: {wanted}")));
        }
        Ok(Box::new(Dense::new(self, size, scope)))
    }
}
