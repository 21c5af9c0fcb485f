//! Shapes: capacities known while the graph is built, and the one extent that is known only on the
//! device.
//!
//! Most tensors are matrices of rows: `[rows, columns]`, a row being a token, an image or a sample.
//! A tensor's leading dimension may carry a *live extent*: a device integer that says how many of
//! its rows are in use in this run. An op reads nothing beyond the extent and leaves there what was
//! there.

use std::fmt;

use crate::dtype::DType;
use crate::graph::Tensor;

/// Shape, storage type and live extent of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Capacities, outermost first. Empty for a scalar.
    pub shape: Vec<usize>,
    /// Storage type.
    pub dtype: DType,
    /// A scalar `I32` tensor of the same graph: how many leading rows are live. `None`: all.
    pub live: Option<Tensor>,
}

impl Spec {
    /// A tensor of that shape whose rows are all live.
    pub fn new(shape: &[usize], dtype: DType) -> Self {
        Self { shape: shape.to_vec(), dtype, live: None }
    }

    /// One element, without dimensions.
    pub fn scalar(dtype: DType) -> Self {
        Self::new(&[], dtype)
    }

    /// The same with another live extent.
    pub fn with_live(mut self, live: Option<Tensor>) -> Self {
        self.live = live;
        self
    }

    /// The same shape and extent stored as `dtype`.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The same rows and extent with another last dimension.
    pub fn with_columns(mut self, columns: usize) -> Self {
        if let Some(last) = self.shape.last_mut() {
            *last = columns;
        }
        self
    }

    /// Product of all capacities.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the whole capacity.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }

    /// The last dimension; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The product of all dimensions but the last; 1 for a scalar.
    pub fn rows(&self) -> usize {
        let leading = self.shape.len().saturating_sub(1);
        self.shape[..leading].iter().product()
    }

    /// Elements behind one step of the leading dimension, the unit of the live extent.
    pub fn elements_per_row(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The leading capacity; 1 for a scalar.
    pub fn leading(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, capacity) in self.shape.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let live = if i == 0 && self.live.is_some() { "≤" } else { "" };
            write!(f, "{comma}{live}{capacity}")?;
        }
        f.write_str("]")
    }
}
