//! Runs what ops ask of a GPU without one: their `.cu` files, compiled by g++, thread by thread.
//!
//! Duty: every launch of a program, by the very list that a driver is given, under a [`Schedule`]
//! of threads, blocks and asynchronous copies, with each access to memory checked: out of bounds,
//! beyond a live extent, of what nobody has written, in an order that nothing makes. It tells
//! nothing of speed, of the orders in which tensor cores add, or of fences: threads here see each
//! other's writes at once. Not part of a run; public so that other packages' tests can use it.
//!
//! `device.h` is what a kernel sees in place of CUDA, `runtime.cpp` runs threads as fibers,
//! `checker.cpp` watches memory, `tensor.cpp` is `ldmatrix` and `mma.sync`.

pub mod card;
pub mod compile;
pub mod device;
pub mod hold;
mod run;

#[cfg(test)]
mod tests;

pub use run::{Schedule, run};
pub(crate) use run::{Watched, run_step};

use crate::cuda::testing::skip;

/// Which ready thread runs next, and which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Order {
    /// The one that has waited longest; blocks by number.
    #[default]
    InTurn,
    /// The one that has waited least; blocks from the last.
    Reversed,
    /// Any.
    Random,
    /// One for as long as it can: others fall far behind.
    Starving,
}

/// When asynchronous copies happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Copies {
    /// As soon as they are asked for.
    #[default]
    Eager,
    /// When they are waited for.
    Lazy,
}

/// Whether kernels can be run here, emulated or on a GPU that [`card`] has; if not, it is said why.
///
/// # Panics
/// If they cannot and no test may skip.
pub fn available() -> bool {
    if card::asked() {
        return true;
    }
    let Err(reason) = compile::runtime() else { return true };
    skip("a test of kernels for GPUs", &reason);
    false
}
