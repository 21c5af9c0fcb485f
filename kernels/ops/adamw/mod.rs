//! `adamw`: one step of AdamW over a flat shard (Loshchilov and Hutter, arXiv:1711.05101; the
//! formula is PyTorch's `torch.optim.AdamW`). Not a graph op.
//!
//! `p ← p (1 - lr · decay)`, `m ← β₁ m + (1 - β₁) g`, `v ← β₂ v + (1 - β₂) g²`,
//! `p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)`, `g` being the gradient times a clip
//! factor. Elementwise: the bits do not depend on how the flat vectors are cut into shards.

mod cpu;
#[cfg(test)]
mod tests;

pub use cpu::{Shard, adamw, fingerprint};

/// The settings of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay; 0 for parameters that do not decay.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: u64,
    /// What gradients are multiplied by: the clip factor.
    pub gradient_scale: f32,
}

/// The constants of one step, computed in `f64` and rounded once.
#[derive(Debug, Clone, Copy)]
struct Factors {
    gradient: f32,
    keep: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    step_size: f32,
    second_scale: f32,
    eps: f32,
}

impl AdamW {
    fn factors(&self) -> Factors {
        let power = |beta: f64| 1.0 - beta.powf(self.step as f64);
        Factors {
            gradient: self.gradient_scale,
            keep: (1.0 - self.learning_rate * self.weight_decay) as f32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            step_size: (self.learning_rate / power(self.beta1)) as f32,
            second_scale: (1.0 / power(self.beta2).sqrt()) as f32,
            eps: self.eps as f32,
        }
    }
}
