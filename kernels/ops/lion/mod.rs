//! `lion`: one step of Lion over a flat shard (Chen et al., arXiv:2302.06675, algorithm 2). A rule,
//! not a graph op.
//!
//! `c = β₁ m + (1 - β₁) g`, `p ← p (1 - lr · decay) - lr · sign(c)`, `m ← β₂ m + (1 - β₂) g`, `g`
//! being the gradient times a clip factor; the sign of 0 is 0.

mod cpu;
#[cfg(test)]
mod tests;

use crate::cpu::isa::Isa;
use crate::update::{Constants, Piece, Rule, StepNumbers, VectorName};

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

    fn constants(&self, numbers: &StepNumbers, _update: u64) -> Constants {
        let StepNumbers { learning_rate, weight_decay } = *numbers;
        let keep = 1.0 - learning_rate * weight_decay;
        let (rest1, rest2) = (1.0 - self.beta1, 1.0 - self.beta2);
        [keep, self.beta1, rest1, self.beta2, rest2, learning_rate, 0.0, 0.0]
            .map(|constant| constant as f32)
    }

    fn run_cpu(&self, isa: Isa, constants: &Constants, piece: Piece<'_>) {
        let Piece { weights, gradients, gradient_scale, states: [momentum, _] } = piece;
        cpu::update(isa, weights, gradients, momentum, gradient_scale, *constants);
    }
}
