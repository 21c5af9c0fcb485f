//! What ops do to a value that another op has just made, while it is still in the cache.
//!
//! The op that makes the value says what it can take ([`crate::ops::Op::fused_with`]);
//! `graph::fuse` finds the pairs.

use crate::ops::activation::Activation;

/// The work of an op on its first input, each of whose elements or rows it treats by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusible {
    /// An activation function.
    Activation(Activation),
    /// `layer_norm`: the other inputs are the weight and the bias.
    LayerNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// `rms_norm`: the other input is the weight.
    RmsNorm {
        /// Added to the mean square.
        eps: f32,
    },
}
