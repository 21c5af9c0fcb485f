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
use crate::update::{Constants, Numbers, Piece, Rule, StepNumbers, VectorName, power};

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

    fn numbers(&self, step: &StepNumbers) -> Numbers {
        let Self { beta1, beta2, eps } = *self;
        [step.learning_rate, step.weight_decay, beta1, beta2, eps, 0.0, 0.0, 0.0]
    }

    fn constants(&self, numbers: &Numbers, update: u64) -> Constants {
        let [learning_rate, weight_decay, beta1, beta2, eps, ..] = *numbers;
        assert!(update > 0, "updates are counted from 1");
        [
            1.0 - learning_rate * weight_decay,
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            learning_rate / (1.0 - power(beta1, update)),
            1.0 / (1.0 - power(beta2, update)).sqrt(),
            eps,
        ]
        .map(|constant| constant as f32)
    }

    fn run_cpu(&self, isa: Isa, constants: &Constants, piece: Piece<'_>) {
        let Piece { weights, gradients, gradient_scale, states: [first, second] } = piece;
        cpu::update(isa, weights, gradients, first, second, gradient_scale, *constants);
    }
}
