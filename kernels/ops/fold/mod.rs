//! `fold`: `into += from` over flat gradients. Not a graph op: lanes are folded between runs.

mod cpu;
#[cfg(test)]
mod tests;

pub use cpu::add_into;
