//! Sums pieces in the order of a [`JoinTree`], in host memory.
//!
//! Duty: the additions of the fixed tree, element by element, at the dtype of the pieces.
//! Ownership: a few KiB of stack; it takes no other memory.
//! Prohibition: pieces are only read, so that a rank may send what it also joins.

use bytemuck::Pod;

use crate::collectives::tree::{DEPTH_MAX, JoinTree};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::DeviceSlice;

#[cfg(test)]
mod tests;

/// Elements summed at a time, so that the sums that wait for their sibling stay in the L1 cache.
const BLOCK: usize = 256;

/// What can be summed.
trait Element: Pod {
    /// `self + right`; integers wrap.
    fn plus(self, right: Self) -> Self;
}

impl Element for f32 {
    fn plus(self, right: Self) -> Self {
        self + right
    }
}

impl Element for f64 {
    fn plus(self, right: Self) -> Self {
        self + right
    }
}

impl Element for i32 {
    fn plus(self, right: Self) -> Self {
        self.wrapping_add(right)
    }
}

impl Element for i64 {
    fn plus(self, right: Self) -> Self {
        self.wrapping_add(right)
    }
}

/// Sums `pieces` (all as long as `output`) in the order of `tree`.
///
/// `dtype` is `F32`, `F64`, `I32` or `I64`; integers wrap. `output` may be any one of the pieces. A
/// [`crate::collectives::Fold`] between two gradient buffers is the join of these two into the
/// first, over `JoinTree::of_ranks(2)`. Allocates nothing.
///
/// # Safety
/// All slices lie in live, initialised host memory. Meanwhile nobody writes the pieces and nobody
/// uses the output. The output is the very memory of a piece or overlaps none.
///
/// # Errors
/// [`Error::Plan`] when counts, lengths, dtype or alignment do not fit; nothing is written then.
pub unsafe fn join(
    tree: &JoinTree,
    dtype: DType,
    pieces: &[DeviceSlice],
    output: DeviceSlice,
) -> Result<()> {
    if pieces.len() != tree.pieces() {
        let why = format!("a join of {} pieces over a tree of {}", pieces.len(), tree.pieces());
        return Err(Error::Plan(why));
    }
    for slice in pieces.iter().copied().chain([output]) {
        let aligned = (slice.pointer() as usize).is_multiple_of(dtype.bytes());
        let whole = slice.bytes().is_multiple_of(dtype.bytes());
        if slice.bytes() != output.bytes() || !whole || (slice.bytes() > 0 && !aligned) {
            let (bytes, wanted, at) = (slice.bytes(), output.bytes(), slice.pointer());
            let why = format!("a join of {bytes} bytes of {dtype} at {at:?} into {wanted}");
            return Err(Error::Plan(why));
        }
    }
    let alone = pieces.len() == 1 && pieces[0].pointer() == output.pointer();
    if alone || output.bytes() == 0 {
        return Ok(());
    }
    // SAFETY: the caller vouches for the memory; length and alignment were just checked.
    unsafe {
        match dtype {
            DType::F32 => join_as::<f32>(tree, pieces, output),
            DType::F64 => join_as::<f64>(tree, pieces, output),
            DType::I32 => join_as::<i32>(tree, pieces, output),
            DType::I64 => join_as::<i64>(tree, pieces, output),
            DType::Bf16 | DType::F16 | DType::F8E4M3 | DType::F8E5M2 | DType::U8 => {
                return Err(Error::Plan(format!("a join of {dtype}: too narrow to be summed")));
            }
        }
    }
    Ok(())
}

/// [`join`] at one dtype.
///
/// # Safety
/// As [`join`]; lengths agree, and every slice is aligned for `T`.
unsafe fn join_as<T: Element>(tree: &JoinTree, pieces: &[DeviceSlice], output: DeviceSlice) {
    let mut sums = [[T::zeroed(); BLOCK]; DEPTH_MAX];
    let elements = output.bytes() / size_of::<T>();
    for start in (0..elements).step_by(BLOCK) {
        let count = BLOCK.min(elements - start);
        let block = |slice: DeviceSlice| slice.part(start * size_of::<T>(), count * size_of::<T>());
        let mut depth = 0;
        for (&piece, &merges) in pieces.iter().zip(tree.merges()) {
            // SAFETY: the caller vouches for the piece; this block's output is written later.
            let values = unsafe { block(piece).as_slice::<T>() };
            if merges == 0 {
                sums[depth][..count].copy_from_slice(values);
                depth += 1;
                continue;
            }
            add(&mut sums[depth - 1][..count], values);
            for _ in 1..merges {
                depth -= 1;
                let (left, right) = sums.split_at_mut(depth);
                add(&mut left[depth - 1][..count], &right[0][..count]);
            }
        }
        debug_assert_eq!(depth, 1);
        // SAFETY: the caller vouches for the output; no borrow of a piece is alive here.
        unsafe { block(output).as_mut_slice::<T>() }.copy_from_slice(&sums[0][..count]);
    }
}

/// `left += right`, element by element.
fn add<T: Element>(left: &mut [T], right: &[T]) {
    for (left, &right) in left.iter_mut().zip(right) {
        *left = left.plus(right);
    }
}
