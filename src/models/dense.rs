//! The `dense` family: a decoder in which every token meets every weight.
//!
//! GPT-2 (Radford et al., 2019), Llama (Touvron et al., arXiv:2302.13971), Qwen: they differ in the
//! plain fields of [`DenseConfig`]. Legend: N rows, one per token; D width; H query heads, K key
//! heads, E elements per head; F feed-forward width; V vocabulary.

use std::sync::Arc;

use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::{Graph, Init, Region, State, StateUse, Tensor};
use octet_kernels::ops::activation::gelu;
use octet_kernels::ops::add::add;
use octet_kernels::ops::attention::{AttentionSpec, Mask};
use octet_kernels::ops::attention_cached::{CacheSpec, Caches, Places, attention_cached};
use octet_kernels::ops::dropout::dropout;
use octet_kernels::ops::embedding::embedding;
use octet_kernels::ops::gather_rows::gather_rows;
use octet_kernels::ops::head_norm::{HeadNorm, head_norm};
use octet_kernels::ops::layer_norm::layer_norm;
use octet_kernels::ops::linear::linear;
use octet_kernels::ops::rms_norm::rms_norm;
use octet_kernels::ops::rope::{RopeTable, rope};
use octet_kernels::ops::swiglu::swiglu;

pub use config::{ActivationKind, DenseConfig, Initialisation, NormKind, Positions, StorageType};
use parameters::{Block, Linear, Norm, Parameters};
pub use rope_scaling::RopeScaling;

use crate::models::{
    Extras, Head, KvCache, KvCaches, Model, ModelSize, Scope, TokenBatch, Writer, WriterRows,
};

mod config;
mod parameters;
mod rope_scaling;
#[cfg(test)]
mod tests;

/// A dense decoder.
#[derive(Debug, Clone)]
pub struct Dense {
    config: DenseConfig,
    size: ModelSize,
    parameters: Parameters,
    /// With rotary positions only.
    rope: Option<Arc<RopeTable>>,
}

/// How rows meet each other, and what they know besides their tokens.
struct Context<'a> {
    /// `i32[N]`.
    positions: Tensor,
    /// Tokens of a sequence where dropout applies.
    dropped: Option<usize>,
    /// From the number of a block and its `qkv f[N, (H + 2K) E]` to `f[N, H E]`.
    attend: &'a Attend<'a>,
}

type Attend<'a> = dyn Fn(&mut Graph<'_>, usize, Tensor) -> Result<Tensor> + 'a;

impl Dense {
    /// Registers the parameters of a configuration that was validated.
    pub fn new(config: &DenseConfig, size: ModelSize, scope: &mut Scope<'_>) -> Self {
        let parameters = Parameters::new(config, size, scope);
        let rope = config.rope(size.max_positions).map(RopeTable::new);
        Self { config: config.clone(), size, parameters, rope }
    }

    /// The weight of the output layer.
    fn output(&self, g: &mut Graph<'_>) -> Tensor {
        g.parameter(self.parameters.head.unwrap_or(self.parameters.embedding))
    }

    /// `f[N, D]`: everything from the tokens to the last norm.
    fn rows(&self, g: &mut Graph<'_>, tokens: Tensor, context: &Context<'_>) -> Result<Tensor> {
        let mut x = g.scoped("embedding", |g| self.embed(g, tokens, context))?;
        for (i, block) in self.parameters.blocks.iter().enumerate() {
            x = g.scoped(&format!("blocks.{i}"), |g| {
                g.region(Region::Block, |g| self.block(g, i, block, x, context))
            })?;
        }
        g.scoped("final_norm", |g| self.norm(g, &self.parameters.final_norm, x))
    }

    /// The rows of the tokens, and of their positions if those are learned.
    fn embed(&self, g: &mut Graph<'_>, tokens: Tensor, context: &Context<'_>) -> Result<Tensor> {
        let table = g.parameter(self.parameters.embedding);
        let mut x = embedding(g, tokens, table)?;
        if let Some(positions) = self.parameters.positions {
            let table = g.parameter(positions);
            let rows = embedding(g, context.positions, table)?;
            x = add(g, x, rows)?;
        }
        Self::dropout(g, x, context, self.config.embedding_dropout())
    }

    fn block(
        &self,
        g: &mut Graph<'_>,
        number: usize,
        block: &Block,
        x: Tensor,
        context: &Context<'_>,
    ) -> Result<Tensor> {
        let (normed, h) = g.scoped("attention", |g| {
            let normed = self.norm(g, &block.attention_norm, x)?;
            let qkv = self.qkv(g, block, normed, context.positions)?;
            let h = (context.attend)(g, number, qkv)?;
            let h = self.linear(g, &block.output, h)?;
            Ok((normed, Self::dropout(g, h, context, self.config.dropout)?))
        })?;
        let x = add(g, x, h)?;
        let h = g.scoped("feed_forward", |g| {
            g.region(Region::FeedForward, |g| {
                let normed = match &block.feed_forward_norm {
                    Some(norm) => self.norm(g, norm, x)?,
                    None => normed,
                };
                self.feed_forward(g, block, normed, context)
            })
        })?;
        add(g, x, h)
    }

    /// `f[N, (H + 2K) E]` of normed rows: queries and keys that know their positions, and values.
    fn qkv(
        &self,
        g: &mut Graph<'_>,
        block: &Block,
        normed: Tensor,
        positions: Tensor,
    ) -> Result<Tensor> {
        let (heads, kv_heads) = (self.config.heads, self.config.kv_heads());
        let mut qkv = self.linear(g, &block.qkv, normed)?;
        if let (Some(q), Some(k)) = (block.q_norm, block.k_norm) {
            let (q, k) = (g.parameter(q), g.parameter(k));
            let norm = HeadNorm { heads, kv_heads, eps: self.config.norm_epsilon as f32 };
            qkv = head_norm(g, qkv, q, k, norm)?;
        }
        if let Some(table) = &self.rope {
            qkv = rope(g, qkv, positions, table, heads + kv_heads)?;
        }
        Ok(qkv)
    }

    fn feed_forward(
        &self,
        g: &mut Graph<'_>,
        block: &Block,
        normed: Tensor,
        context: &Context<'_>,
    ) -> Result<Tensor> {
        let h = self.linear(g, &block.up, normed)?;
        let h = match self.config.activation {
            ActivationKind::Gelu => gelu(g, h)?,
            ActivationKind::Swiglu => swiglu(g, h)?,
        };
        let h = self.linear(g, &block.down, h)?;
        Self::dropout(g, h, context, self.config.dropout)
    }

    fn dropout(g: &mut Graph<'_>, x: Tensor, context: &Context<'_>, share: f64) -> Result<Tensor> {
        match context.dropped {
            Some(rows_per_sample) => dropout(g, x, share as f32, rows_per_sample),
            None => Ok(x),
        }
    }

    fn norm(&self, g: &mut Graph<'_>, norm: &Norm, x: Tensor) -> Result<Tensor> {
        let eps = self.config.norm_epsilon as f32;
        let weight = g.parameter(norm.weight);
        match norm.bias {
            Some(bias) => {
                let bias = g.parameter(bias);
                layer_norm(g, x, weight, bias, eps)
            }
            None => rms_norm(g, x, weight, eps),
        }
    }

    fn linear(&self, g: &mut Graph<'_>, layer: &Linear, x: Tensor) -> Result<Tensor> {
        let weight = g.parameter(layer.weight);
        let bias = layer.bias.map(|bias| g.parameter(bias));
        linear(g, x, weight, bias)
    }
}

impl Model for Dense {
    fn hidden(&self, g: &mut Graph<'_>, batch: &TokenBatch, _: &mut Extras) -> Result<Tensor> {
        let spec = AttentionSpec {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads(),
            head_dim: self.config.head_dim(),
            sequence_length: batch.sequence_length,
            mask: Mask::Causal,
            window: None,
            scale: None,
        };
        let attend = |g: &mut Graph<'_>, block, qkv| {
            let spec = AttentionSpec { window: self.config.window_of(block), ..spec };
            batch.attention(g, qkv, spec)
        };
        let dropped = batch.training.then_some(batch.sequence_length);
        let context = Context { positions: batch.positions, dropped, attend: &attend };
        self.rows(g, batch.tokens, &context)
    }

    fn head(&self, g: &mut Graph<'_>, rows: Tensor) -> Result<Head> {
        Ok(Head { rows, weight: self.output(g), bias: None })
    }

    fn width(&self) -> usize {
        self.config.width
    }

    fn init(&self, shape: [usize; 2]) -> Init {
        self.config.first_values(shape, false)
    }

    fn dtype(&self) -> DType {
        self.config.dtype.into()
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn head_parameters(&self) -> usize {
        self.size.vocabulary * self.config.width
    }

    fn matrix_parameters(&self) -> usize {
        let DenseConfig { width, heads, layers, activation, .. } = self.config;
        let (head_dim, inner) = (self.config.head_dim(), self.config.feed_forward());
        let attention = (2 * heads + 2 * self.config.kv_heads()) * head_dim * width;
        let products = if activation == ActivationKind::Swiglu { 3 } else { 2 };
        layers * (attention + products * inner * width) + self.head_parameters()
    }

    fn flops_per_token(&self, sequence_length: usize, pairs: f64) -> f64 {
        // Pairs of a sequence that look back: half of T², or W T - W²/2 of a window.
        let length = sequence_length as f64;
        let seen = |block| {
            let window = self.config.window_of(block).map_or(length, |w| length.min(w as f64));
            2.0 * window - window * window / length
        };
        let keys: f64 = (0..self.config.layers).map(seen).sum();
        let attended = (self.config.heads * self.config.head_dim()) as f64 * keys * pairs;
        6.0 * (self.matrix_parameters() as f64 + attended)
    }
}

impl Writer for Dense {
    fn caches(&self, scope: &mut Scope<'_>, sequences: usize, positions: usize) -> KvCaches {
        let shape = [sequences, positions, self.config.kv_heads() * self.config.head_dim()];
        let mut state = |name: String| {
            scope.state(State {
                name,
                shape: shape.to_vec(),
                dtype: self.config.dtype.into(),
                usage: StateUse::Local,
                init: 0.0,
            })
        };
        let mut cache = |block| KvCache {
            keys: state(format!("blocks.{block}.attention.keys")),
            values: state(format!("blocks.{block}.attention.values")),
        };
        let blocks = (0..self.config.layers).map(&mut cache).collect();
        KvCaches { sequences, positions, blocks }
    }

    fn decode(&self, g: &mut Graph<'_>, caches: &KvCaches, rows: &WriterRows) -> Result<Tensor> {
        let places = Places { positions: rows.positions, sequences: rows.sequences };
        let spec = CacheSpec {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads(),
            head_dim: self.config.head_dim(),
            sequences: caches.sequences,
            positions: caches.positions,
            window: None,
            scale: None,
        };
        let attend = |g: &mut Graph<'_>, block: usize, qkv| {
            let KvCache { keys, values } = caches.blocks[block];
            let spec = CacheSpec { window: self.config.window_of(block), ..spec };
            let states = Caches { keys: g.state(keys), values: g.state(values) };
            attention_cached(g, qkv, places, states, spec)
        };
        let context = Context { positions: rows.positions, dropped: None, attend: &attend };
        let hidden = self.rows(g, rows.tokens, &context)?;
        let hidden = gather_rows(g, hidden, rows.picked)?;
        let head = self.output(g);
        g.scoped("head", |g| linear(g, hidden, head, None))
    }
}
