//! Launches as text: what tests compare and people read.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use crate::graph::program::Planned;
use crate::graph::{Program, Target, Tensor};
use crate::launch::{
    Accumulate, Argument, Epilogue, Extent, Factor, Kernel, Launch, Launches, Matmul, MatmulKey,
    Memory, Operand, TensorMap,
};
use crate::ops::{Io, linear};
use crate::shape::Spec;

impl Program {
    /// Ops of a program for a GPU that do not say yet what they ask of it, or ask for a product
    /// that nothing runs, by name, and how many nodes of each. Nothing for a CPU.
    pub fn without_launches(&self) -> BTreeMap<&'static str, usize> {
        let mut missing = BTreeMap::new();
        let run = |launch: &Launch| match launch {
            Launch::Matmul(product) => linear::cuda::kernel(product).is_some(),
            _ => true,
        };
        let runs = |launches: &Launches| launches.list.iter().all(run);
        let silent =
            |n: &&Planned| self.target != Target::Cpu && !n.launches.as_ref().is_some_and(runs);
        for node in self.planned(0..self.nodes()).iter().filter(silent) {
            *missing.entry(node.op.name()).or_default() += 1;
        }
        missing
    }

    /// What every node asks of a GPU, as text.
    pub fn print_launches(&self) -> String {
        let mut text = String::new();
        for node in self.planned(0..self.nodes()) {
            let specs = |tensors: &mut dyn Iterator<Item = Tensor>| -> Vec<Spec> {
                tensors.map(|t| self.spec(t).clone()).collect()
            };
            let io = Io {
                inputs: specs(&mut node.inputs.iter().copied()),
                outputs: specs(&mut node.outputs.iter().map(|o| o.0)),
            };
            let at = if node.path.is_empty() { "" } else { " " };
            text += &format!("{}{at}{}\n", node.path, node.op.name());
            match &node.launches {
                None => text += "  nothing yet\n",
                Some(launches) => {
                    for launch in &launches.list {
                        text += &format!("  {}\n", Printed { launch, io: &io });
                    }
                }
            }
        }
        text
    }
}

/// A launch beside the operands that its sizes come from.
#[derive(Debug, Clone, Copy)]
pub struct Printed<'a> {
    /// What is asked.
    pub launch: &'a Launch,
    /// The op's operands.
    pub io: &'a Io,
}

impl Display for Printed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.launch {
            Launch::Kernel(kernel) => write_kernel(f, kernel, self.io),
            Launch::Matmul(product) => write!(f, "{product}"),
            Launch::Zero(memory) => write!(f, "zero {memory}"),
            Launch::Copy { from, to } => write!(f, "copy {from} -> {to}"),
        }
    }
}

fn write_kernel(f: &mut Formatter<'_>, kernel: &Kernel, io: &Io) -> fmt::Result {
    let [x, y, z] = kernel.blocks(io);
    let Kernel { module, function, block, shared_bytes, arguments, table, .. } = kernel;
    write!(f, "{module}:{function} <<<{x}x{y}x{z}, {block}, {shared_bytes}>>> (")?;
    for (i, argument) in arguments.iter().enumerate() {
        write!(f, "{}{argument}", if i == 0 { "" } else { ", " })?;
    }
    if !table.is_empty() {
        write!(f, ", table of {}", table.len())?;
    }
    f.write_str(")")
}

impl Display for Memory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(i) => write!(f, "in{i}"),
            Self::Output(i) => write!(f, "out{i}"),
            Self::Rows { of, first, count } => {
                let (of, i) = match of {
                    Operand::Input(i) => ("in", i),
                    Operand::Output(i) => ("out", i),
                };
                write!(f, "{of}{i}[{first}+{count}]")
            }
            Self::Workspace { offset, bytes } => write!(f, "scratch[{offset}+{bytes}]"),
        }
    }
}

impl Display for Argument {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(memory) => write!(f, "{memory}"),
            Self::Live(memory) => write!(f, "live({memory})"),
            Self::Null => f.write_str("null"),
            Self::Overflow => f.write_str("overflow"),
            Self::RunArguments => f.write_str("run"),
            Self::U32(value) => write!(f, "{value}"),
            Self::U64(value) => write!(f, "{value}"),
            Self::F32(value) => write!(f, "{value:?}"),
            Self::Key => f.write_str("key"),
            Self::Accumulate(i) => write!(f, "adds(out{i})"),
            Self::TensorMap(map) => write!(f, "{map}"),
        }
    }
}

impl Display for TensorMap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { memory, dtype, offset_bytes, size, stride_bytes, tile } = self;
        let ([columns, rows], [wide, high]) = (size, tile);
        write!(f, "map({memory}+{offset_bytes} {dtype} {rows}x{columns}")?;
        write!(f, " every {stride_bytes} by {high}x{wide})")
    }
}

impl Display for Extent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.live {
            Some(memory) => write!(f, "≤{} live({memory})", self.capacity),
            None => write!(f, "{}", self.capacity),
        }
    }
}

impl Display for Factor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", self.memory, if self.transposed { "ᵀ" } else { "" }, self.dtype)?;
        match self.scale {
            Some(scale) => write!(f, " by {scale}"),
            None => Ok(()),
        }
    }
}

impl Display for Matmul {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { m, n, k, a, b, c, c_dtype, accumulate, epilogue } = self;
        let plus = match accumulate {
            Accumulate::Never => "",
            Accumulate::Always => "+",
            Accumulate::As(_) => "(+)",
        };
        write!(f, "{c}:{c_dtype} {plus}= {a} · {b}, m {m} n {n} k {k}")?;
        match epilogue {
            Epilogue::None => {}
            Epilogue::Bias(bias) => write!(f, ", bias {bias}")?,
            Epilogue::Activation { bias, keeps, .. } => {
                write!(f, ", {}", epilogue.name())?;
                if let Some(bias) = bias {
                    write!(f, ", bias {bias}")?;
                }
                if let Some(keeps) = keeps {
                    write!(f, ", sums in {keeps}")?;
                }
            }
        }
        f.write_str(if self.for_library() { "" } else { ", own kernel" })
    }
}

impl Display for MatmulKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ([m, n, k], [a, b, c]) = (self.size, self.dtypes);
        let [ta, tb] = self.transposed.map(|t| if t { "ᵀ" } else { "" });
        let sums = if self.accumulates { "+" } else { "" };
        write!(f, "{m}x{n}x{k} {a}{ta}·{b}{tb}->{c}{sums} {}", self.epilogue)
    }
}
