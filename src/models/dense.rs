//! The `dense` family: a decoder in which every token meets every weight.
//!
//! GPT-2 (Radford et al., 2019), Llama (Touvron et al., arXiv:2302.13971), Qwen: they differ in the
//! plain fields of [`DenseConfig`]. Legend: N rows, one per token; D width; H query heads, K key
//! heads, E elements per head; F feed-forward width; V vocabulary.

use std::sync::Arc;

use octet_kernels::error::Result;
use octet_kernels::graph::{Graph, Region, Tensor, Variables};
use octet_kernels::ops::activation::gelu;
use octet_kernels::ops::add::add;
use octet_kernels::ops::attention::{AttentionSpec, Mask, attention};
use octet_kernels::ops::dropout::dropout;
use octet_kernels::ops::embedding::embedding;
use octet_kernels::ops::head_norm::{HeadNorm, head_norm};
use octet_kernels::ops::layer_norm::layer_norm;
use octet_kernels::ops::linear::linear;
use octet_kernels::ops::rms_norm::rms_norm;
use octet_kernels::ops::rope::{RopeTable, rope};
use octet_kernels::ops::swiglu::swiglu;

pub use config::{ActivationKind, DenseConfig, NormKind, Positions, RopeScaling, StorageType};
use parameters::{Block, Linear, Norm, Parameters};

use crate::models::{LanguageModel, ModelSize, TokenBatch};

mod config;
mod parameters;
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

impl Dense {
    /// Registers the parameters of a configuration that was validated.
    pub fn new(config: &DenseConfig, size: ModelSize, variables: &mut Variables) -> Self {
        let parameters = Parameters::new(config, size, variables);
        let rope = config.rope(size.max_positions).map(RopeTable::new);
        Self { config: config.clone(), size, parameters, rope }
    }

    /// `f[N, D]`: the rows of the tokens, and of their positions if those are learned.
    fn embed(&self, g: &mut Graph<'_>, batch: &TokenBatch) -> Result<Tensor> {
        let table = g.parameter(self.parameters.embedding);
        let mut x = embedding(g, batch.tokens, table)?;
        if let Some(positions) = self.parameters.positions {
            let table = g.parameter(positions);
            let rows = embedding(g, batch.positions, table)?;
            x = add(g, x, rows)?;
        }
        self.dropout(g, x, batch)
    }

    fn block(
        &self,
        g: &mut Graph<'_>,
        block: &Block,
        x: Tensor,
        batch: &TokenBatch,
    ) -> Result<Tensor> {
        let h = g.scoped("attention", |g| self.attention(g, block, x, batch))?;
        let x = add(g, x, h)?;
        let h = g.scoped("feed_forward", |g| {
            g.region(Region::FeedForward, |g| self.feed_forward(g, block, x, batch))
        })?;
        add(g, x, h)
    }

    fn attention(
        &self,
        g: &mut Graph<'_>,
        block: &Block,
        x: Tensor,
        batch: &TokenBatch,
    ) -> Result<Tensor> {
        let spec = AttentionSpec {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads(),
            head_dim: self.config.head_dim(),
            sequence_length: batch.sequence_length,
            mask: Mask::Causal,
            window: None,
            scale: None,
        };
        let qkv = self.qkv(g, block, x, batch.positions)?;
        let h = attention(g, qkv, batch.segments, spec)?;
        let h = self.linear(g, &block.output, h)?;
        self.dropout(g, h, batch)
    }

    /// `f[N, (H + 2K) E]`: queries and keys that know their positions, and values.
    fn qkv(
        &self,
        g: &mut Graph<'_>,
        block: &Block,
        x: Tensor,
        positions: Tensor,
    ) -> Result<Tensor> {
        let (heads, kv_heads) = (self.config.heads, self.config.kv_heads());
        let h = self.norm(g, &block.attention_norm, x)?;
        let mut qkv = self.linear(g, &block.qkv, h)?;
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
        x: Tensor,
        batch: &TokenBatch,
    ) -> Result<Tensor> {
        let h = self.norm(g, &block.feed_forward_norm, x)?;
        let h = self.linear(g, &block.up, h)?;
        let h = match self.config.activation {
            ActivationKind::Gelu => gelu(g, h)?,
            ActivationKind::Swiglu => swiglu(g, h)?,
        };
        let h = self.linear(g, &block.down, h)?;
        self.dropout(g, h, batch)
    }

    fn dropout(&self, g: &mut Graph<'_>, x: Tensor, batch: &TokenBatch) -> Result<Tensor> {
        let rate = if batch.training { self.config.dropout as f32 } else { 0.0 };
        dropout(g, x, rate, batch.sequence_length)
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

impl LanguageModel for Dense {
    fn hidden(&self, g: &mut Graph<'_>, batch: &TokenBatch) -> Result<Tensor> {
        let mut x = g.scoped("embedding", |g| self.embed(g, batch))?;
        for (i, block) in self.parameters.blocks.iter().enumerate() {
            let name = format!("blocks.{i}");
            x = g.scoped(&name, |g| g.region(Region::Block, |g| self.block(g, block, x, batch)))?;
        }
        g.scoped("final_norm", |g| self.norm(g, &self.parameters.final_norm, x))
    }

    fn head(&self, g: &mut Graph<'_>) -> Tensor {
        g.parameter(self.parameters.head.unwrap_or(self.parameters.embedding))
    }

    fn matrix_parameters(&self) -> usize {
        let DenseConfig { width, heads, layers, activation, .. } = self.config;
        let (head_dim, inner) = (self.config.head_dim(), self.config.feed_forward());
        let attention = (2 * heads + 2 * self.config.kv_heads()) * head_dim * width;
        let products = if activation == ActivationKind::Swiglu { 3 } else { 2 };
        layers * (attention + products * inner * width) + self.size.vocabulary * width
    }

    fn flops_per_token(&self, sequence_length: usize) -> f64 {
        let DenseConfig { heads, layers, .. } = self.config;
        let attended = layers * heads * self.config.head_dim() * sequence_length;
        6.0 * (self.matrix_parameters() + attended) as f64
    }
}
