//! The parameters of the `dense` family: names, shapes, first values.
//!
//! Names are the keys of checkpoints; they never change. Matrices decay, vectors do not.

use octet_kernels::graph::{Init, Parameter, ParameterId};

use super::config::{ActivationKind, DenseConfig, NormKind, Positions};
use crate::models::{ModelSize, Scope};

/// A norm's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    pub(super) weight: ParameterId,
    /// Of layer norms only.
    pub(super) bias: Option<ParameterId>,
}

/// A linear layer's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linear {
    pub(super) weight: ParameterId,
    pub(super) bias: Option<ParameterId>,
}

/// A block's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) attention_norm: Norm,
    /// Rows: all query heads, then all key heads, then all value heads.
    pub(super) qkv: Linear,
    pub(super) q_norm: Option<ParameterId>,
    pub(super) k_norm: Option<ParameterId>,
    pub(super) output: Linear,
    /// `None` where both parts of a block read the same rows.
    pub(super) feed_forward_norm: Option<Norm>,
    /// `up` for GELU; for SwiGLU `gate_up`: all rows of the gate, then all rows of up.
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// All parameters of a model.
#[derive(Debug, Clone)]
pub(super) struct Parameters {
    pub(super) embedding: ParameterId,
    pub(super) positions: Option<ParameterId>,
    pub(super) blocks: Vec<Block>,
    pub(super) final_norm: Norm,
    /// `None` when the embedding is the head.
    pub(super) head: Option<ParameterId>,
}

/// Adds the parameters of one configuration.
struct Registrar<'a, 'b> {
    scope: &'a mut Scope<'b>,
    config: &'a DenseConfig,
}

impl Parameters {
    /// Registers everything: embedding first, head last.
    pub(super) fn new(config: &DenseConfig, size: ModelSize, scope: &mut Scope<'_>) -> Self {
        let mut add = Registrar { scope, config };
        let width = config.width;
        let embedding = add.matrix("embedding.weight", [size.vocabulary, width], false);
        let learned = config.positions == Positions::Learned;
        let rows = config.max_positions.unwrap_or(size.max_positions);
        let positions = learned.then(|| add.matrix("positions.weight", [rows, width], false));
        let blocks = (0..config.layers).map(|i| add.block(&format!("blocks.{i}"))).collect();
        let final_norm = add.norm("final_norm", width);
        let head = !config.tied;
        let head = head.then(|| add.matrix("head.weight", [size.vocabulary, width], false));
        Self { embedding, positions, blocks, final_norm, head }
    }
}

impl Registrar<'_, '_> {
    fn matrix(&mut self, name: &str, shape: [usize; 2], residual: bool) -> ParameterId {
        let init = self.config.first_values(shape, residual);
        self.parameter(name, &shape, init)
    }

    fn vector(&mut self, name: &str, length: usize, value: f32) -> ParameterId {
        self.parameter(name, &[length], Init::Constant(value))
    }

    fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> ParameterId {
        self.scope.parameter(Parameter {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: self.config.dtype.into(),
            trainable: true,
            decay: shape.len() >= 2,
            init,
        })
    }

    fn norm(&mut self, name: &str, width: usize) -> Norm {
        let weight = self.vector(&format!("{name}.weight"), width, 1.0);
        let bias = self.config.norm == NormKind::LayerNorm;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), width, 0.0));
        Norm { weight, bias }
    }

    /// A weight of shape `[out, in]`; `residual`: what it gives is added to the residual stream.
    fn linear(&mut self, name: &str, shape: [usize; 2], residual: bool, bias: bool) -> Linear {
        let weight = self.matrix(&format!("{name}.weight"), shape, residual);
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), shape[0], 0.0));
        Linear { weight, bias }
    }

    fn block(&mut self, name: &str) -> Block {
        let config = self.config;
        let (width, inner, bias) = (config.width, config.feed_forward(), config.bias);
        let (head_dim, heads) = (config.head_dim(), config.heads);
        let rows = (heads + 2 * config.kv_heads()) * head_dim;
        let attention_norm = self.norm(&format!("{name}.attention_norm"), width);
        let attention = format!("{name}.attention");
        let qkv_bias = bias || config.qkv_bias;
        let qkv = self.linear(&format!("{attention}.qkv"), [rows, width], false, qkv_bias);
        let mut head_norm = |part: &str| {
            let name = format!("{attention}.{part}.weight");
            config.qk_norm.then(|| self.vector(&name, head_dim, 1.0))
        };
        let (q_norm, k_norm) = (head_norm("q_norm"), head_norm("k_norm"));
        let output = format!("{attention}.output");
        let output = self.linear(&output, [width, heads * head_dim], true, bias);
        let own = !config.parallel;
        let feed_forward_norm = own.then(|| self.norm(&format!("{name}.feed_forward_norm"), width));
        let (up, up_rows) = match config.activation {
            ActivationKind::Gelu => ("up", inner),
            ActivationKind::Swiglu => ("gate_up", 2 * inner),
        };
        let up = format!("{name}.feed_forward.{up}");
        let up = self.linear(&up, [up_rows, width], false, bias);
        let down = format!("{name}.feed_forward.down");
        let down = self.linear(&down, [width, inner], true, bias);
        Block { attention_norm, qkv, q_norm, k_norm, output, feed_forward_norm, up, down }
    }
}
