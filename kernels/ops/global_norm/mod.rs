//! `global_norm`: the norm of all gradients, the same bits wherever the blocks lie.
//!
//! Not a graph op. Every rank sums the squares of its blocks in `f64`; the sums of all ranks are
//! then added in block order, so neither ranks nor threads enter the result.

mod cpu;
#[cfg(test)]
mod tests;

pub use cpu::block_sums;

/// What PyTorch's `torch.nn.utils.clip_grad_norm_` adds to the norm before it divides.
const EPS: f64 = 1e-6;

/// The global norm and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Square root of the sum of all squares.
    pub norm: f64,
    /// What gradients are multiplied by so that their norm is at most the limit; at most 1.
    pub factor: f32,
    /// False if a gradient is infinite or NaN: the update is to be skipped.
    pub finite: bool,
}

/// The norm from all block sums in block order. `max_norm` of 0 or infinity: no clipping.
pub fn clip_factor(sums: impl Iterator<Item = f64>, max_norm: f64) -> Norm {
    let norm = sums.sum::<f64>().sqrt();
    let finite = norm.is_finite();
    let clips = finite && max_norm > 0.0 && max_norm.is_finite();
    let factor = if clips { (max_norm / (norm + EPS)).min(1.0) as f32 } else { 1.0 };
    Norm { norm, factor, finite }
}
