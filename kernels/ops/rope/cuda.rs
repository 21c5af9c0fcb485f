//! What `rope` asks of a GPU: a block for some rows, which finds their angles once for all heads.

use std::f64::consts::TAU;

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::rope::{Rope, RopeSpec};

/// Pairs of a head at most; `Turns` of rope.cu.
const PAIRS_MAX: usize = 128;
/// Elements of a block's rows, about.
const BLOCK_ELEMENTS: usize = 8192;

pub(super) fn launches(io: &Io, op: &Rope) -> Option<Launches> {
    let dtype = element([&io.inputs[0], &io.outputs[0]])?;
    let (spec, columns, rows) = (&op.table.spec, io.inputs[0].columns(), Memory::Input(0));
    let half = spec.head_dim / 2;
    if half > PAIRS_MAX {
        return None;
    }
    let each = (BLOCK_ELEMENTS / columns.max(1)).max(1);
    let mut kernel = Kernel::over_rows("rope", format!("rope_{dtype}"), rows, each as u32);
    kernel.shared_bytes = (each * half * 2 * size_of::<f32>()) as u32;
    kernel.table = turns(spec);
    let magnitude = spec.magnitude() as f32;
    let of_sines = if op.inverse { -magnitude } else { magnitude };
    let sizes = [columns, half, op.heads, spec.max_positions].map(|n| Argument::U32(n as u32));
    let factors = [magnitude, of_sines].map(Argument::F32);
    let rest = kernel.rows(io).into_iter().chain(sizes).chain(factors);
    Some(Launches::new([kernel.with(pointers(2, 1).chain(rest))]))
}

/// Turns per position of each pair in units of 2^-64, as far as they are not whole.
fn turns(spec: &RopeSpec) -> Vec<u64> {
    let unit = 2.0f64.powi(64);
    let of = |i: usize| ((spec.frequency(i) / TAU).fract() * unit) as u64;
    let pairs = (0..spec.head_dim / 2).map(of);
    pairs.chain(std::iter::repeat(0)).take(PAIRS_MAX).collect()
}
