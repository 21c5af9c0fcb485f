//! The static gate: what can be wrong with launches is found when a program is compiled, on any
//! machine.

use crate::graph::target::Gpu;
use crate::launch::{Argument, Grid, Kernel, Launch, Launches, Matmul, Memory, Operand, TensorMap};
use crate::ops::Io;

/// Threads of a warp.
const WARP: u32 = 32;
/// Threads of a block at most, on every architecture.
const BLOCK_MAX: u32 = 1024;
/// Words of a table that every architecture takes beside a kernel's other parameters.
const TABLE_MAX: usize = 480;
/// Elements of one side of a tile of a [`TensorMap`] at most.
const TILE_MAX: u32 = 256;
/// Bytes of a tile's row at most, with the 128-byte swizzle.
const SWIZZLE_BYTES: usize = 128;

type Checked = std::result::Result<(), String>;

pub(super) fn check(launches: &Launches, io: &Io, gpu: &Gpu) -> Checked {
    let gate = Gate { io, gpu, workspace_bytes: launches.workspace_bytes };
    let mut written = vec![false; io.outputs.len()];
    for launch in &launches.list {
        gate.launch(launch)?;
        for memory in launch.touches() {
            if let Some(Operand::Output(i)) = memory.operand() {
                written[i] = true;
            }
        }
    }
    match written.iter().position(|written| !written) {
        Some(i) => Err(format!("nothing writes output {i}")),
        None => Ok(()),
    }
}

impl Launch {
    /// Everything that it names.
    pub(crate) fn touches(&self) -> Vec<Memory> {
        match self {
            Self::Zero(memory) => vec![*memory],
            Self::Copy { from, to } => vec![*from, *to],
            Self::Matmul(product) => product.touches().collect(),
            Self::Kernel(kernel) => {
                let argument = |argument: &Argument| match *argument {
                    Argument::Pointer(memory) | Argument::Live(memory) => Some(memory),
                    Argument::TensorMap(map) => Some(map.memory),
                    Argument::Accumulate(output) => Some(Memory::Output(output)),
                    _ => None,
                };
                kernel.arguments.iter().filter_map(argument).collect()
            }
        }
    }
}

/// What launches are held against.
struct Gate<'a> {
    io: &'a Io,
    gpu: &'a Gpu,
    workspace_bytes: usize,
}

impl Gate<'_> {
    fn launch(&self, launch: &Launch) -> Checked {
        for memory in launch.touches() {
            self.memory(memory)?;
        }
        match launch {
            Launch::Kernel(kernel) => self.kernel(kernel),
            Launch::Matmul(product) => self.matmul(product),
            Launch::Copy { from, to } if from.bytes(self.io) != to.bytes(self.io) => {
                Err(format!("a copy of {from:?} to {to:?}, which is not as long"))
            }
            Launch::Zero(_) | Launch::Copy { .. } => Ok(()),
        }
    }

    fn memory(&self, memory: Memory) -> Checked {
        let there = match memory {
            Memory::Workspace { offset, bytes } => offset + bytes <= self.workspace_bytes,
            Memory::Rows { first, count, .. } => {
                memory.spec(self.io).is_some_and(|spec| (first + count) as usize <= spec.leading())
            }
            _ => memory.spec(self.io).is_some(),
        };
        if there { Ok(()) } else { Err(format!("there is no {memory:?}")) }
    }

    fn kernel(&self, kernel: &Kernel) -> Checked {
        let Kernel { function, block, shared_bytes, .. } = kernel;
        if *block == 0 || *block > BLOCK_MAX || block % WARP != 0 {
            return Err(format!("{function} has blocks of {block} threads"));
        }
        if *shared_bytes > self.gpu.shared_bytes {
            let most = self.gpu.shared_bytes;
            return Err(format!("{function} asks for {shared_bytes} shared bytes of {most}"));
        }
        if kernel.table.len() > TABLE_MAX {
            return Err(format!("{function} is given a table of {} words", kernel.table.len()));
        }
        if kernel.blocks(self.io).contains(&0) {
            return Err(format!("{function} has no blocks"));
        }
        if let Grid::Rows { of, .. } = kernel.grid {
            let live = of.spec(self.io).is_some_and(|spec| spec.live.is_some());
            if live && !kernel.arguments.contains(&Argument::Live(of)) {
                return Err(format!("{function} is not told how many rows of {of:?} are live"));
            }
        }
        kernel.arguments.iter().try_for_each(|argument| match argument {
            Argument::TensorMap(map) => self.tensor_map(function, map),
            _ => Ok(()),
        })
    }

    fn tensor_map(&self, function: &str, map: &TensorMap) -> Checked {
        let element = map.dtype.bytes();
        let [columns, rows] = map.size;
        let end = rows.saturating_sub(1) * map.stride_bytes + columns * element as u64;
        let fits = map.memory.bytes(self.io).is_some_and(|bytes| {
            map.offset_bytes as u64 + end <= bytes as u64 && map.offset_bytes.is_multiple_of(16)
        });
        let tile = map.tile[0] as usize * element <= SWIZZLE_BYTES
            && map.tile.iter().all(|side| (1..=TILE_MAX).contains(side));
        if !fits || !map.stride_bytes.is_multiple_of(16) || !tile || !self.gpu.is_hopper() {
            return Err(format!("{function} has a tensor map that cannot be: {map:?}"));
        }
        Ok(())
    }

    fn matmul(&self, product: &Matmul) -> Checked {
        let Matmul { m, n, k, a, b, c, c_dtype, .. } = product;
        let elements = [(a, m.capacity * k.capacity), (b, k.capacity * n)];
        for (factor, elements) in elements {
            if !self.holds(factor.memory, elements * factor.dtype.bytes()) {
                return Err(format!("a product over {factor:?}, not {elements} elements"));
            }
            if factor.scale.is_some() != factor.dtype.is_eighth() {
                return Err(format!("a product over {factor:?}: scales belong to 8-bit floats"));
            }
        }
        if !self.holds(*c, m.capacity * n * c_dtype.bytes()) {
            return Err(format!("a product into {c:?}, not {} x {n} {c_dtype}", m.capacity));
        }
        Ok(())
    }

    /// Whether memory is so long, or scratch at least.
    fn holds(&self, memory: Memory, bytes: usize) -> bool {
        let has = memory.bytes(self.io);
        let scratch = memory.operand().is_none();
        has.is_some_and(|has| has == bytes || scratch && has > bytes)
    }
}
