//! `rope`: rotary position embedding (Su et al., arXiv:2104.09864), the half-rotation layout of
//! Hugging Face. `x f[N, C], positions i32[N] -> y`, of x's shape and dtype.
//!
//! The first `heads` heads of each row are rotated, the rest is copied. In a head, element i of the
//! first half and element i of the second half are one pair, turned by `position · frequency(i)`,
//! `frequency(i) = theta^(-2i / head_dim)`, perhaps rescaled. Angles are computed in f64 when the
//! table is built; a run only reads the table. A position outside it gives NaN in the rotated
//! heads. Gradient: the inverse rotation, overwrites. Dead rows are left untouched.

use std::f64::consts::TAU;
use std::fmt;
use std::sync::Arc;

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// What a rotation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Elements per head; even.
    pub head_dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// How frequencies are rescaled for longer contexts.
    pub scaling: RopeScaling,
    /// Positions 0.. that the table holds.
    pub max_positions: usize,
}

/// How frequencies are rescaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All wavelengths are stretched by `factor` (Chen et al., arXiv:2306.15595; `rope_type =
    /// "linear"`).
    Linear {
        /// Stretch.
        factor: f64,
    },
    /// Llama 3.1: wavelengths above `original_length / low` are stretched by `factor`, those below
    /// `original_length / high` are kept, between them the two are mixed (`rope_type = "llama3"`).
    Llama3 {
        /// Stretch of long wavelengths.
        factor: f64,
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
        /// Context that the frequencies were trained for.
        original_length: f64,
    },
    /// YaRN (Peng et al., arXiv:2309.00071; `rope_type = "yarn"`): pairs that turn less than `slow`
    /// times in `original_length` are stretched by `factor`, those that turn more than `fast` times
    /// are kept, between them the two are mixed by the number of the pair.
    Yarn {
        /// Stretch of long wavelengths.
        factor: f64,
        /// `beta_fast`.
        fast: f64,
        /// `beta_slow`.
        slow: f64,
        /// Context that the frequencies were trained for.
        original_length: f64,
        /// Whether the mix begins and ends at whole pairs.
        whole: bool,
        /// Factor of cosines and sines.
        magnitude: f64,
    },
}

impl RopeSpec {
    /// Radians per position of pair `i`.
    fn frequency(&self, i: usize) -> f64 {
        let frequency = self.theta.powf(-2.0 * i as f64 / self.head_dim as f64);
        let (kept, factor) = match self.scaling {
            RopeScaling::None => (1.0, 1.0),
            RopeScaling::Linear { factor } => (0.0, factor),
            RopeScaling::Llama3 { factor, low, high, original_length } => {
                let turns = original_length * frequency / TAU;
                (((turns - low) / (high - low)).clamp(0.0, 1.0), factor)
            }
            RopeScaling::Yarn { factor, fast, slow, original_length, whole, .. } => {
                let (first, last) = self.mixed_pairs(fast, slow, original_length, whole);
                (1.0 - ((i as f64 - first) / (last - first)).clamp(0.0, 1.0), factor)
            }
        };
        frequency * (kept + (1.0 - kept) / factor)
    }

    /// Between which pairs YaRN mixes: the pair that turns `fast` times in the original length, and
    /// the one that turns `slow` times.
    fn mixed_pairs(&self, fast: f64, slow: f64, original_length: f64, whole: bool) -> (f64, f64) {
        let width = self.head_dim as f64;
        let pair =
            |turns: f64| width * (original_length / (turns * TAU)).ln() / (2.0 * self.theta.ln());
        let (mut first, mut last) = (pair(fast), pair(slow));
        if whole {
            (first, last) = (first.floor(), last.ceil());
        }
        let (first, last) = (first.max(0.0), last.min(width - 1.0));
        // The reference widens an empty range by as much.
        (first, if first == last { last + 0.001 } else { last })
    }

    /// Factor of cosines and sines.
    fn magnitude(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { magnitude, .. } => magnitude,
            _ => 1.0,
        }
    }
}

/// Cosines and sines of all positions: `head_dim / 2` each per position. One for all layers.
pub struct RopeTable {
    spec: RopeSpec,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RopeTable {
    /// Computes the table. Panics if `head_dim` is odd or 0.
    pub fn new(spec: RopeSpec) -> Arc<Self> {
        let half = spec.head_dim / 2;
        assert!(half > 0 && spec.head_dim.is_multiple_of(2), "heads of {}", spec.head_dim);
        let frequencies: Vec<f64> = (0..half).map(|i| spec.frequency(i)).collect();
        let angle = |n: usize| (n / half) as f64 * frequencies[n % half];
        let magnitude = spec.magnitude();
        let turn = |n| ((magnitude * angle(n).cos()) as f32, (magnitude * angle(n).sin()) as f32);
        let (cosines, sines) = (0..spec.max_positions * half).map(turn).unzip();
        Arc::new(Self { spec, cosines, sines })
    }

    /// What it was made from.
    pub fn spec(&self) -> &RopeSpec {
        &self.spec
    }
}

impl fmt::Debug for RopeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RopeTable").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Rotates heads.
#[derive(Debug, Clone)]
struct Rope {
    table: Arc<RopeTable>,
    heads: usize,
    inverse: bool,
}

/// Rotates the first `heads` heads of every row of `x` by its position.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float matrix with room for the heads and
/// `positions` is `i32[N]`.
pub fn rope(
    g: &mut Graph<'_>,
    x: Tensor,
    positions: Tensor,
    table: &Arc<RopeTable>,
    heads: usize,
) -> Result<Tensor> {
    g.apply_one(Rope { table: table.clone(), heads, inverse: false }, &[x, positions])
}

impl Op for Rope {
    fn name(&self) -> &'static str {
        if self.inverse { "rope_gradient" } else { "rope" }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, positions] = operands(inputs)?;
        let [rows, columns] = matrix(x, "x")?;
        expect_i32(positions, &[rows], "positions")?;
        let (heads, head_dim) = (self.heads, self.table.spec.head_dim);
        if heads * head_dim > columns {
            return Err(format!("x is {x}: no room for {heads} heads of {head_dim}"));
        }
        Ok(vec![x.clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, positions) = (backward.need(0)?, backward.input(1)?);
        backward.give(0, Self { inverse: !self.inverse, ..self.clone() }, &[dy, positions])
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 3.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::launches(io, self)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
