//! `lion`: one step of Lion over a flat shard (Chen et al., arXiv:2302.06675, algorithm 2). A rule,
//! not a graph op.
//!
//! `c = β₁ m + (1 - β₁) g`, `p ← p (1 - lr · decay) - lr · sign(c)`, `m ← β₂ m + (1 - β₂) g`, `g`
//! being the gradient times a clip factor; the sign of 0 is 0.

mod cpu;
#[cfg(test)]
mod tests;

use crate::cpu::isa::Isa;
use crate::update::{Constants, Numbers, Piece, Rule, StepNumbers, VectorName};

/// Lion and its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lion {
    /// Weight of the momentum in the direction of a step.
    pub beta1: f64,
    /// Decay of the momentum.
    pub beta2: f64,
}

impl Rule for Lion {
    fn name(&self) -> &'static str {
        "Lion"
    }

    fn module(&self) -> &'static str {
        "lion"
    }

    fn vectors(&self) -> &'static [VectorName] {
        const { &[VectorName { title: "momentum", suffix: "exp_avg", signed: true }] }
    }

    fn numbers(&self, step: &StepNumbers) -> Numbers {
        [step.learning_rate, step.weight_decay, self.beta1, self.beta2, 0.0, 0.0, 0.0, 0.0]
    }

    fn constants(&self, numbers: &Numbers, _update: u64) -> Constants {
        let [learning_rate, weight_decay, beta1, beta2, ..] = *numbers;
        let keep = 1.0 - learning_rate * weight_decay;
        [keep, beta1, 1.0 - beta1, beta2, 1.0 - beta2, learning_rate, 0.0, 0.0]
            .map(|constant| constant as f32)
    }

    fn run_cpu(&self, isa: Isa, constants: &Constants, piece: Piece<'_>) {
        let Piece { weights, gradients, gradient_scale, states: [momentum, _] } = piece;
        cpu::update(isa, weights, gradients, momentum, gradient_scale, *constants);
    }
}
