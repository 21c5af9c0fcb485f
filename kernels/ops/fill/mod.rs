//! `fill`: a tensor of one value. `() -> f32[shape]`. Nothing flows back.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::launch::Launches;
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Every element is `value`.
#[derive(Debug)]
pub struct Fill {
    /// Shape of the output.
    pub shape: Vec<usize>,
    /// What every element is.
    pub value: f32,
}

impl Op for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn outputs(&self, _inputs: &[&Spec]) -> std::result::Result<Vec<Spec>, String> {
        Ok(vec![Spec::new(&self.shape, DType::F32)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self.value)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
