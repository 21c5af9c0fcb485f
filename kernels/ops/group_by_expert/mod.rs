//! `group_by_expert`: the order in which routed tokens stand while experts work on them.
//! `expert i32[N, k] -> row_of i32[N, k], pair_of i32[R], expert_start i32[E + 1], count i32[]`.
//!
//! A pair is a token and one of its choices, numbered token · k + choice. Pairs are sorted by
//! expert, in order of their numbers within one expert (a counting sort). `row_of` says where a
//! pair went, `pair_of` which pair a row holds; rows `expert_start[e]..expert_start[e + 1]` are
//! those of expert e, `count` is the number of rows and the live extent of `pair_of`. If there are
//! more pairs than the capacity R, the last ones get row -1 and the overflow flag is set. Tokens
//! beyond the live extent are neither read nor written, nor is `pair_of` beyond the count. Experts
//! are in 0..E. No gradient.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_i32, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Sorts pairs.
#[derive(Debug)]
pub struct GroupByExpert {
    /// Number of experts E.
    pub experts: usize,
    /// Rows at most, R.
    pub capacity: usize,
}

/// Where each pair of a token and an expert stands: what `dispatch`, `grouped_linear` and `combine`
/// share.
#[derive(Debug, Clone, Copy)]
pub struct Grouping {
    /// `i32[N, k]`: the row of each pair, or -1.
    pub row_of: Tensor,
    /// `i32[R]`, live up to the count: the pair in each row.
    pub pair_of: Tensor,
    /// `i32[E + 1]`: the first row of each expert, and the end.
    pub expert_start: Tensor,
    /// `i32[]`: number of rows in use.
    pub count: Tensor,
}

/// Groups the pairs of `expert i32[N, k]` by expert, into at most `capacity` rows.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `expert` is an `i32` matrix.
pub fn group_by_expert(
    g: &mut Graph<'_>,
    expert: Tensor,
    experts: usize,
    capacity: usize,
) -> Result<Grouping> {
    let outputs = g.apply(GroupByExpert { experts, capacity }, &[expert])?;
    let count = outputs[3];
    let pair_of = g.with_live(outputs[1], count);
    Ok(Grouping { row_of: outputs[0], pair_of, expert_start: outputs[2], count })
}

impl Op for GroupByExpert {
    fn name(&self) -> &'static str {
        "group_by_expert"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [expert] = operands(inputs)?;
        expect_i32(expert, &[expert.rows(), expert.columns()], "the experts")?;
        let integers = |shape: &[usize]| Spec::new(shape, DType::I32);
        Ok(vec![
            expert.clone(),
            integers(&[self.capacity]),
            integers(&[self.experts + 1]),
            integers(&[]),
        ])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn workspace(&self, _io: &Io) -> usize {
        self.experts * size_of::<i32>()
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::sort(io, self)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::sort(run, self.capacity);
        Ok(())
    }
}
