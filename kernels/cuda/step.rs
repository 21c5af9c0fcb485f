//! The kernels that no op asks for: what a step launches beside its programs, to fold and join
//! gradients, for their norm and for the update by a rule. As data, which a driver and the emulator
//! run.

use crate::collectives::{JoinTree, RANKS_MAX};
use crate::cuda::context::address;
use crate::cuda::images::Module;
use crate::device::BlockSums;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::DeviceSlice;
use crate::operands::Value;
use crate::update::{OptimizerSpec, Rule, StepNumbers, Stored, UpdateSlice, rounding};

#[cfg(test)]
pub(crate) mod tests;

/// Threads of a block.
pub(crate) const THREADS: u32 = 256;

/// Elements of a thread at a time, at most: 16 bytes of the narrowest.
const PACK: usize = 8;

/// Blocks of a kernel over elements at most; it goes over them in strides.
const BLOCKS_MAX: usize = 4096;

/// A kernel with blocks of [`THREADS`] threads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StepKernel {
    /// `kernels/ops/<module>/<module>.cu` holds it.
    pub(crate) module: &'static str,
    pub(crate) function: String,
    pub(crate) blocks: usize,
    /// In the order of its parameters.
    pub(crate) values: Vec<Value>,
    /// Its last parameter, by value, if there is one.
    pub(crate) table: Vec<u64>,
}

impl StepKernel {
    fn new(module: &'static str, function: impl Into<String>, values: Vec<Value>) -> Self {
        Self { module, function: function.into(), blocks: 1, values, table: Vec::new() }
    }

    /// With blocks for so many elements.
    fn over(self, elements: usize) -> Self {
        let blocks = elements.div_ceil(THREADS as usize * PACK).min(BLOCKS_MAX);
        Self { blocks, ..self }
    }
}

/// The modules of all of them, for runs with this optimizer.
pub fn modules(optimizer: &OptimizerSpec) -> [&'static str; 3] {
    ["fold", "global_norm", optimizer.rule.module()]
}

/// Those of them that this build has no kernels of.
pub fn missing(optimizer: &OptimizerSpec) -> impl Iterator<Item = &'static str> {
    modules(optimizer).into_iter().filter(|module| Module::named(module).is_none())
}

fn at(slice: DeviceSlice) -> Value {
    Value::Address(Some(slice))
}

fn long(number: usize) -> Value {
    Value::Long(number as u64)
}

/// `into += from`, both `f32`.
pub(crate) fn add_into(into: DeviceSlice, from: DeviceSlice) -> StepKernel {
    let elements = into.bytes() / size_of::<f32>();
    StepKernel::new("fold", "add_into", vec![at(into), at(from), long(elements)]).over(elements)
}

/// The pieces summed in the order of a tree.
pub(crate) fn join(
    tree: &JoinTree,
    dtype: DType,
    pieces: &[DeviceSlice],
    output: DeviceSlice,
) -> StepKernel {
    let elements = output.bytes() / dtype.bytes();
    let values = vec![at(output), long(elements), Value::Word(pieces.len() as u32)];
    // Addresses, then how often sums merge behind each: as long as the parameter, always.
    let mut table = vec![0u64; 2 * RANKS_MAX];
    let (addresses, merges) = table.split_at_mut(RANKS_MAX);
    for (to, piece) in addresses.iter_mut().zip(pieces) {
        *to = address(*piece);
    }
    for (to, &merge) in merges.iter_mut().zip(tree.merges()) {
        *to = u64::from(merge);
    }
    let kernel = StepKernel::new("fold", format!("join_{dtype}"), values).over(elements);
    StepKernel { table, ..kernel }
}

/// The sum of squares of each block of gradients.
pub(crate) fn block_sums(
    gradient: DeviceSlice,
    block_elements: usize,
    sums: DeviceSlice,
) -> StepKernel {
    let elements = gradient.bytes() / size_of::<f32>();
    let values = vec![at(gradient), at(sums), long(elements), long(block_elements)];
    let blocks = elements.div_ceil(block_elements.max(1));
    StepKernel { blocks, ..StepKernel::new("global_norm", "block_sums", values) }
}

/// The norm and what follows from it: one block, which adds the sums in order.
pub(crate) fn decide(
    sums: &BlockSums<'_>,
    clip_norm: f64,
    updates: Option<u64>,
    decision: DeviceSlice,
) -> StepKernel {
    let values = vec![
        at(sums.gathered),
        at(sums.order),
        long(sums.order.bytes() / size_of::<i32>()),
        Value::Long(clip_norm.to_bits()),
        Value::Word(u32::from(updates.is_some())),
        Value::Long(updates.unwrap_or(0)),
        at(decision),
        Value::Word(sums.flags.len() as u32),
    ];
    let mut table = vec![0u64; RANKS_MAX];
    table.iter_mut().zip(sums.flags).for_each(|(to, &flag)| *to = flag as u64);
    StepKernel { table, ..StepKernel::new("global_norm", "decide", values) }
}

/// The update of a slice, behind the zeroing of its fingerprint if it is the first of its bucket.
///
/// # Errors
/// [`Error::Plan`] for what the kernels are not made for.
pub(crate) fn update(
    rule: &dyn Rule,
    numbers: &StepNumbers,
    slice: &UpdateSlice,
    decision: DeviceSlice,
    fingerprint: DeviceSlice,
    first: bool,
) -> Result<Vec<StepKernel>> {
    let (module, elements) = (rule.module(), slice.weights.bytes() / size_of::<f32>());
    let (mut planes, mut storage) = (Vec::new(), "f32");
    for stored in slice.states {
        let (values, scales) = match stored {
            Stored::None => (None, None),
            Stored::F32(values) => (Some(values), None),
            Stored::Bf16(values) => {
                storage = "bf16";
                (Some(values), None)
            }
            Stored::Blocks8 { codes, scales } => {
                storage = "blocks8";
                (Some(codes), Some(scales))
            }
        };
        planes.extend([values, scales]);
    }
    let rounded = match slice.rounded {
        Some((dtype, _)) if dtype != DType::Bf16 => {
            return Err(Error::Plan(format!("{module} has no kernel for {dtype} parameters")));
        }
        rounded => rounded.map(|(_, slice)| slice),
    };
    let vectors = [Some(slice.weights), rounded, Some(slice.gradient), planes[0], planes[2]];
    let aligned = vectors.into_iter().flatten().all(|vector| address(vector).is_multiple_of(16));
    if !aligned || !slice.first_element.is_multiple_of(PACK as u64) {
        let first = slice.first_element;
        let what = format!("vectors from element {first} on begin at no multiple of 16 bytes");
        return Err(Error::Plan(format!("{module}: {what}")));
    }
    let [low, high] = rounding(slice.seed).key();
    let memory = [Some(slice.weights), rounded, Some(slice.gradient)].into_iter().chain(planes);
    let memory = memory.chain([Some(decision), Some(fingerprint)]).map(Value::Address);
    let key = u64::from(high) << 32 | u64::from(low);
    let rest = [Value::Long(slice.first_element), Value::Long(key), long(elements)];
    let values = memory.chain(rest).collect();
    let kernel = StepKernel::new(module, format!("{module}_{storage}"), values).over(elements);
    let table = rule.numbers(numbers).map(f64::to_bits).to_vec();
    let begin = || {
        let values = vec![at(decision), at(fingerprint)];
        StepKernel::new(module, format!("{module}_begin"), values)
    };
    let begin = first.then(begin);
    Ok(begin.into_iter().chain([StepKernel { table, ..kernel }]).collect())
}
