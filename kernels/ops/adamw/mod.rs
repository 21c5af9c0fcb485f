//! `adamw`: one step of AdamW over a flat shard (Loshchilov and Hutter, arXiv:1711.05101; the
//! formula is PyTorch's `torch.optim.AdamW`). A rule, not a graph op.
//!
//! `p ← p (1 - lr · decay)`, `m ← β₁ m + (1 - β₁) g`, `v ← β₂ v + (1 - β₂) g²`,
//! `p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)`, `g` being the gradient times a clip
//! factor.

mod cpu;
#[cfg(test)]
mod tests;

use crate::cpu::isa::Isa;
use crate::update::{Constants, Piece, Rule, StepNumbers, VectorName};

/// AdamW and its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
}

impl Rule for AdamW {
    fn name(&self) -> &'static str {
        "AdamW"
    }

    fn module(&self) -> &'static str {
        "adamw"
    }

    fn vectors(&self) -> &'static [VectorName] {
        const {
            &[
                VectorName { title: "first moment", suffix: "exp_avg", signed: true },
                VectorName { title: "second moment", suffix: "exp_avg_sq", signed: false },
            ]
        }
    }

    fn constants(&self, numbers: &StepNumbers, update: u64) -> Constants {
        let StepNumbers { learning_rate, weight_decay } = *numbers;
        assert!(update > 0, "updates are counted from 1");
        let power = |beta: f64| 1.0 - beta.powf(update as f64);
        [
            1.0 - learning_rate * weight_decay,
            self.beta1,
            1.0 - self.beta1,
            self.beta2,
            1.0 - self.beta2,
            learning_rate / power(self.beta1),
            1.0 / power(self.beta2).sqrt(),
            self.eps,
        ]
        .map(|constant| constant as f32)
    }

    fn run_cpu(&self, isa: Isa, constants: &Constants, piece: Piece<'_>) {
        let Piece { weights, gradients, gradient_scale, states: [first, second] } = piece;
        cpu::update(isa, weights, gradients, first, second, gradient_scale, *constants);
    }
}
