//! `integers`: elementwise rules on `i32` tensors of one shape. No gradient.
//!
//! Elements beyond a live extent are neither read nor written. Sums wrap.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::Shapes;
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// What becomes of an element of each operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// 1 where a is not b, else 0.
    NotEqual,
    /// a + b.
    Add,
    /// a where b is not 0, else the constant.
    KeepOr(i32),
    /// 1 where a is below the constant, else 0.
    LessThan(i32),
}

/// Applies a rule.
#[derive(Debug)]
pub struct Integers {
    /// What becomes of the elements.
    pub rule: Rule,
}

/// Adds up the live elements: `i32[..] -> i32[]`.
#[derive(Debug)]
pub struct Total;

/// 1 where `a` and `b` differ, else 0: the labels of replaced-token detection.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless both are `i32` of one shape.
pub fn not_equal(g: &mut Graph<'_>, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.apply_one(Integers { rule: Rule::NotEqual }, &[a, b])
}

/// `a + b`.
///
/// # Errors
/// As [`not_equal`].
pub fn add_integers(g: &mut Graph<'_>, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.apply_one(Integers { rule: Rule::Add }, &[a, b])
}

/// `a` where `mask` is not 0, else `otherwise`: labels with some positions ignored.
///
/// # Errors
/// As [`not_equal`].
pub fn keep_or(g: &mut Graph<'_>, a: Tensor, mask: Tensor, otherwise: i32) -> Result<Tensor> {
    g.apply_one(Integers { rule: Rule::KeepOr(otherwise) }, &[a, mask])
}

/// 1 where `a` is below `limit`, else 0.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless it is `i32`.
pub fn less_than(g: &mut Graph<'_>, a: Tensor, limit: i32) -> Result<Tensor> {
    g.apply_one(Integers { rule: Rule::LessThan(limit) }, &[a])
}

/// The sum of all live elements, as a scalar: how many positions a mask selects.
///
/// # Errors
/// As [`less_than`].
pub fn total(g: &mut Graph<'_>, a: Tensor) -> Result<Tensor> {
    g.apply_one(Total, &[a])
}

impl Op for Integers {
    fn name(&self) -> &'static str {
        "integers"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let arity = if matches!(self.rule, Rule::LessThan(_)) { 1 } else { 2 };
        if inputs.len() != arity {
            return Err(format!("{:?} of {} operands", self.rule, inputs.len()));
        }
        let (a, b) = (inputs[0], inputs[arity - 1]);
        if a.shape != b.shape || a.dtype != DType::I32 || b.dtype != DType::I32 {
            return Err(format!("{:?} of {a} and {b}", self.rule));
        }
        Ok(vec![a.clone().with_live(a.live.or(b.live))])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self.rule)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}

impl Op for Total {
    fn name(&self) -> &'static str {
        "total"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        match inputs {
            [a] if a.dtype == DType::I32 => Ok(vec![Spec::scalar(DType::I32)]),
            _ => Err(format!("the total of {inputs:?}, not of one i32 tensor")),
        }
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::total(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::total(run);
        Ok(())
    }
}
