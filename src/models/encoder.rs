//! The `encoder` family: BERT (Devlin et al., arXiv:1810.04805) and ELECTRA's two towers (Clark et
//! al., arXiv:2003.10555).
//!
//! Post-norm blocks: `x = norm(x + attention(x))`, `x = norm(x + feed_forward(x))`, biases
//! everywhere, learned positions and types. With `embedding_width` the rows of the tables are
//! narrower than the blocks and go through a linear layer. The head transforms rows to the
//! embedding's width, `norm(gelu(transform(x)))`, and its weight is the embedding. Legend: N rows,
//! one per token; D width, E width of the embedding, V vocabulary.

use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Graph, Init, Parameter, ParameterId, Region, Tensor};
use octet_kernels::ops::activation::gelu_erf;
use octet_kernels::ops::add::add;
use octet_kernels::ops::attention::{AttentionSpec, HEAD_DIM_MAX, Mask};
use octet_kernels::ops::dropout::dropout;
use octet_kernels::ops::embedding::embedding;
use octet_kernels::ops::integers::less_than;
use octet_kernels::ops::layer_norm::layer_norm;
use octet_kernels::ops::linear::linear;
use octet_kernels::ops::tanh::tanh;
use serde::{Deserialize, Serialize};

use super::dense::StorageType;
use super::{Extras, Family, Head, Model, ModelSize, Pooler, Scope, TokenBatch};
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;

#[cfg(test)]
mod tests;

/// Which part of its document a token belongs to: one of two.
const TYPES: usize = 2;
/// Most blocks.
const LAYERS_MAX: usize = 1024;
/// Largest width.
const WIDTH_MAX: usize = 1 << 20;
/// Most positions.
const POSITIONS_MAX: usize = 1 << 20;

/// The keys of an encoder; by default a small BERT.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderConfig {
    /// Blocks. At least 1.
    pub layers: usize,
    /// Elements of a row. At least 1.
    pub width: usize,
    /// Heads; divides the width. At least 1.
    pub heads: usize,
    /// Elements between the feed-forward layers; by default four times the width. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed_forward: Option<usize>,
    /// Elements of a row of the embedding; by default the width. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_width: Option<usize>,
    /// Rows of the table of positions: no sequence may be longer. By default as long as sequences
    /// are. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_positions: Option<usize>,
    /// Added to the variance. Above 0.
    pub norm_epsilon: f64,
    /// Share of elements that training leaves out. At least 0, below 1.
    pub dropout: f64,
    /// Standard deviation of first weights, cut at three of them. Above 0.
    pub init_std: f64,
    /// Whether it has what makes one row of a whole sequence (default true).
    pub pooler: bool,
    /// Whether it has an output layer over the vocabulary (default true).
    pub head: bool,
    /// Storage type of parameters.
    pub dtype: StorageType,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            layers: 4,
            width: 128,
            heads: 4,
            feed_forward: None,
            embedding_width: None,
            max_positions: None,
            norm_epsilon: 1e-12,
            dropout: 0.0,
            init_std: 0.02,
            pooler: true,
            head: true,
            dtype: StorageType::F32,
        }
    }
}

impl EncoderConfig {
    /// Elements between the feed-forward layers.
    pub fn feed_forward(&self) -> usize {
        self.feed_forward.unwrap_or(4 * self.width)
    }

    /// Elements of a row of the embedding.
    pub fn embedding_width(&self) -> usize {
        self.embedding_width.unwrap_or(self.width)
    }
}

impl Family for EncoderConfig {
    fn max_positions(&self) -> Option<usize> {
        self.max_positions
    }

    fn layers(&mut self) -> &mut usize {
        &mut self.layers
    }

    fn validate(&self) -> std::result::Result<(), Invalid> {
        let range = |key, value: usize, max: usize| {
            let wanted = format!("a whole number from 1 to {max}");
            require((1..=max).contains(&value), key, || expected(&wanted, value))
        };
        range("model.layers", self.layers, LAYERS_MAX)?;
        range("model.width", self.width, WIDTH_MAX)?;
        range("model.heads", self.heads, WIDTH_MAX)?;
        range("model.feed_forward", self.feed_forward(), WIDTH_MAX)?;
        range("model.embedding_width", self.embedding_width(), WIDTH_MAX)?;
        range("model.max_positions", self.max_positions.unwrap_or(1), POSITIONS_MAX)?;
        let Self { width, heads, .. } = *self;
        if width % heads != 0 || width / heads > HEAD_DIM_MAX {
            let wanted = format!(
                "a multiple of model.heads = {heads}, of at most {HEAD_DIM_MAX} times as much"
            );
            return Err(Invalid::new("model.width", expected(&wanted, width)).with("model.heads"));
        }
        let positive = |key, value: f64| {
            let usable = value > 0.0 && (value as f32).is_finite();
            require(usable, key, || expected("a number above 0", value))
        };
        positive("model.norm_epsilon", self.norm_epsilon)?;
        positive("model.init_std", self.init_std)?;
        let share = || expected("at least 0 and below 1", self.dropout);
        require((0.0..1.0).contains(&(self.dropout as f32)), "model.dropout", share)
    }

    fn resolve(&mut self) {
        self.feed_forward = Some(self.feed_forward());
        self.embedding_width = Some(self.embedding_width());
    }

    fn build(&self, size: ModelSize, scope: &mut Scope<'_>) -> Result<Box<dyn Model>> {
        self.validate().map_err(|i| Error::Plan(format!("{}: {}", i.keys[0], i.problem)))?;
        let positions = self.max_positions.unwrap_or(size.max_positions);
        if positions < size.max_positions {
            let wanted = expected(&format!("at least {}", size.max_positions), positions);
            return Err(Error::Plan(format!("model.max_positions: {wanted}")));
        }
        let size = ModelSize { max_positions: positions, ..size };
        Ok(Box::new(Encoder::new(self, size, scope)))
    }
}

/// A weight and its bias.
#[derive(Debug, Clone, Copy)]
struct Layer {
    weight: ParameterId,
    bias: ParameterId,
}

#[derive(Debug, Clone)]
struct Block {
    qkv: Layer,
    output: Layer,
    attention_norm: Layer,
    up: Layer,
    down: Layer,
    feed_forward_norm: Layer,
}

/// An encoder.
#[derive(Debug, Clone)]
pub struct Encoder {
    config: EncoderConfig,
    vocabulary: usize,
    embedding: ParameterId,
    positions: ParameterId,
    types: ParameterId,
    embedding_norm: Layer,
    projection: Option<Layer>,
    blocks: Vec<Block>,
    pooler: Option<Layer>,
    output: Option<Output>,
}

/// The output layer.
#[derive(Debug, Clone, Copy)]
struct Output {
    transform: Layer,
    norm: Layer,
    bias: ParameterId,
}

/// Adds the parameters of one configuration.
struct Registrar<'a, 'b> {
    scope: &'a mut Scope<'b>,
    config: &'a EncoderConfig,
}

impl Registrar<'_, '_> {
    fn parameter(&mut self, name: String, shape: &[usize], init: Init) -> ParameterId {
        self.scope.parameter(Parameter {
            name,
            shape: shape.to_vec(),
            dtype: self.config.dtype.into(),
            trainable: true,
            decay: shape.len() >= 2,
            init,
        })
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> ParameterId {
        let init = Init::TruncatedNormal { std: self.config.init_std as f32 };
        self.parameter(format!("{name}.weight"), &shape, init)
    }

    fn linear(&mut self, name: &str, shape: [usize; 2]) -> Layer {
        let weight = self.matrix(name, shape);
        let bias = self.parameter(format!("{name}.bias"), &shape[..1], Init::Constant(0.0));
        Layer { weight, bias }
    }

    fn norm(&mut self, name: &str, width: usize) -> Layer {
        let weight = self.parameter(format!("{name}.weight"), &[width], Init::Constant(1.0));
        let bias = self.parameter(format!("{name}.bias"), &[width], Init::Constant(0.0));
        Layer { weight, bias }
    }

    fn block(&mut self, number: usize) -> Block {
        let (width, inner) = (self.config.width, self.config.feed_forward());
        let of = |part: &str| format!("blocks.{number}.{part}");
        Block {
            qkv: self.linear(&of("attention.qkv"), [3 * width, width]),
            output: self.linear(&of("attention.output"), [width, width]),
            attention_norm: self.norm(&of("attention_norm"), width),
            up: self.linear(&of("feed_forward.up"), [inner, width]),
            down: self.linear(&of("feed_forward.down"), [width, inner]),
            feed_forward_norm: self.norm(&of("feed_forward_norm"), width),
        }
    }
}

impl Encoder {
    /// Registers the parameters of a configuration that was validated.
    pub fn new(config: &EncoderConfig, size: ModelSize, scope: &mut Scope<'_>) -> Self {
        let ModelSize { vocabulary, max_positions } = size;
        let (width, narrow) = (config.width, config.embedding_width());
        let mut add = Registrar { scope, config };
        Self {
            embedding: add.matrix("embedding", [vocabulary, narrow]),
            positions: add.matrix("positions", [max_positions, narrow]),
            types: add.matrix("types", [TYPES, narrow]),
            embedding_norm: add.norm("embedding_norm", narrow),
            projection: (narrow != width).then(|| add.linear("projection", [width, narrow])),
            blocks: (0..config.layers).map(|number| add.block(number)).collect(),
            pooler: config.pooler.then(|| add.linear("pooler", [width, width])),
            output: config.head.then(|| Output {
                transform: add.linear("transform", [narrow, width]),
                norm: add.norm("transform_norm", narrow),
                bias: add.parameter("head.bias".into(), &[vocabulary], Init::Constant(0.0)),
            }),
            config: config.clone(),
            vocabulary,
        }
    }

    fn linear(g: &mut Graph<'_>, layer: Layer, x: Tensor) -> Result<Tensor> {
        let (weight, bias) = (g.parameter(layer.weight), g.parameter(layer.bias));
        linear(g, x, weight, Some(bias))
    }

    fn norm(&self, g: &mut Graph<'_>, layer: Layer, x: Tensor) -> Result<Tensor> {
        let (weight, bias) = (g.parameter(layer.weight), g.parameter(layer.bias));
        layer_norm(g, x, weight, bias, self.config.norm_epsilon as f32)
    }

    fn dropout(&self, g: &mut Graph<'_>, x: Tensor, batch: &TokenBatch) -> Result<Tensor> {
        match batch.training {
            true => dropout(g, x, self.config.dropout as f32, batch.sequence_length),
            false => Ok(x),
        }
    }

    fn embed(&self, g: &mut Graph<'_>, batch: &TokenBatch) -> Result<Tensor> {
        let rows = |g: &mut Graph<'_>, of: Tensor, table: ParameterId| {
            let table = g.parameter(table);
            embedding(g, of, table)
        };
        let mut x = rows(g, batch.tokens, self.embedding)?;
        // Text that is no pair is all of the first type, as tokens are all at least 0.
        let types = match batch.types {
            Some(types) => types,
            None => less_than(g, batch.tokens, 0)?,
        };
        let types = rows(g, types, self.types)?;
        x = add(g, x, types)?;
        let positions = rows(g, batch.positions, self.positions)?;
        x = add(g, x, positions)?;
        x = self.norm(g, self.embedding_norm, x)?;
        x = self.dropout(g, x, batch)?;
        match self.projection {
            Some(projection) => Self::linear(g, projection, x),
            None => Ok(x),
        }
    }

    fn block(
        &self,
        g: &mut Graph<'_>,
        block: &Block,
        x: Tensor,
        batch: &TokenBatch,
    ) -> Result<Tensor> {
        let h = g.scoped("attention", |g| {
            let heads = self.config.heads;
            let spec = AttentionSpec {
                heads,
                kv_heads: heads,
                head_dim: self.config.width / heads,
                sequence_length: batch.sequence_length,
                mask: Mask::Bidirectional,
                window: None,
                scale: None,
            };
            let qkv = Self::linear(g, block.qkv, x)?;
            let h = batch.attention(g, qkv, spec)?;
            let h = Self::linear(g, block.output, h)?;
            self.dropout(g, h, batch)
        })?;
        let x = add(g, x, h)?;
        let x = self.norm(g, block.attention_norm, x)?;
        let h = g.scoped("feed_forward", |g| {
            g.region(Region::FeedForward, |g| {
                let h = Self::linear(g, block.up, x)?;
                let h = gelu_erf(g, h)?;
                let h = Self::linear(g, block.down, h)?;
                self.dropout(g, h, batch)
            })
        })?;
        let x = add(g, x, h)?;
        self.norm(g, block.feed_forward_norm, x)
    }
}

impl Model for Encoder {
    fn hidden(&self, g: &mut Graph<'_>, batch: &TokenBatch, _: &mut Extras) -> Result<Tensor> {
        let mut x = g.scoped("embedding", |g| self.embed(g, batch))?;
        for (number, block) in self.blocks.iter().enumerate() {
            x = g.scoped(&format!("blocks.{number}"), |g| {
                g.region(Region::Block, |g| self.block(g, block, x, batch))
            })?;
        }
        Ok(x)
    }

    fn head(&self, g: &mut Graph<'_>, rows: Tensor) -> Result<Head> {
        let missing = || Error::Plan("model.head: expected true, got false".to_owned());
        let output = self.output.ok_or_else(missing)?;
        g.scoped("head", |g| {
            let h = Self::linear(g, output.transform, rows)?;
            let h = gelu_erf(g, h)?;
            let rows = self.norm(g, output.norm, h)?;
            let (weight, bias) = (g.parameter(self.embedding), g.parameter(output.bias));
            Ok(Head { rows, weight, bias: Some(bias) })
        })
    }

    fn width(&self) -> usize {
        self.config.width
    }

    fn init(&self, _shape: [usize; 2]) -> Init {
        Init::TruncatedNormal { std: self.config.init_std as f32 }
    }

    fn dtype(&self) -> DType {
        self.config.dtype.into()
    }

    fn pooler(&self) -> Option<&dyn Pooler> {
        self.config.pooler.then_some(self)
    }

    fn head_parameters(&self) -> usize {
        let narrow = self.config.embedding_width();
        if self.config.head { narrow * self.config.width + self.vocabulary * narrow } else { 0 }
    }

    fn matrix_parameters(&self) -> usize {
        let EncoderConfig { width, layers, .. } = self.config;
        let (inner, narrow) = (self.config.feed_forward(), self.config.embedding_width());
        let projection = if narrow == width { 0 } else { narrow * width };
        let blocks = layers * (4 * width * width + 2 * inner * width);
        projection + blocks + self.head_parameters()
    }

    fn flops_per_token(&self, sequence_length: usize, pairs: f64) -> f64 {
        let seen = pairs * sequence_length as f64;
        let attended = (self.config.layers * self.config.width) as f64 * seen;
        6.0 * (self.matrix_parameters() as f64 + attended)
    }
}

impl Pooler for Encoder {
    fn pool(&self, g: &mut Graph<'_>, first: Tensor) -> Result<Tensor> {
        let missing = || Error::Plan("model.pooler: expected true, got false".to_owned());
        let pooler = self.pooler.ok_or_else(missing)?;
        g.scoped("pooler", |g| {
            let h = Self::linear(g, pooler, first)?;
            tanh(g, h)
        })
    }
}
