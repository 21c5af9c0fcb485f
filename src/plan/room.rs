//! Whether a run fits a machine: one answer for whoever plans it and whoever starts it.

use std::fmt;

use octet_actors::units::size;
use octet_kernels::graph::Target;

use super::machine::total_memory;
use super::memory::Memory;
use super::{capacity, host, outside};
use crate::config::Config;
use crate::experiment::Experiment;
use crate::failure::Failure;

/// What a rank takes of a device, and what there is. On a CPU its memory is the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The largest arena.
    pub arena_bytes: usize,
    /// What is taken beside arenas.
    pub beside_bytes: usize,
    /// All that there is; `None` if the machine does not tell.
    pub memory_bytes: Option<usize>,
    /// What an arena may take of it.
    pub capacity_bytes: Option<usize>,
}

impl Room {
    /// Of a run on this machine's CPU with so many threads for each rank.
    ///
    /// # Errors
    /// [`Failure`] for a configuration whose parts do not fit together, or not into its budget.
    pub fn of(config: &Config, vocabulary: usize, threads: usize) -> Result<Self, Failure> {
        let experiment = Experiment::new(config, vocabulary, None)?;
        let ranks = config.run.ranks;
        let memory = Memory::of(&experiment, &config.run)?;
        let sum = |parts: Vec<super::Part>| parts.iter().map(|part| part.bytes).sum::<usize>();
        let host = sum(host(Target::Cpu, &memory, ranks, threads));
        Ok(Self {
            arena_bytes: memory.arena_bytes(),
            beside_bytes: sum(outside(Target::Cpu, ranks)) + host,
            memory_bytes: total_memory().and_then(|bytes| usize::try_from(bytes).ok()),
            capacity_bytes: capacity(Target::Cpu, &memory, ranks, threads),
        })
    }

    /// `None` if it is not known.
    pub fn fits(&self) -> Option<bool> {
        self.capacity_bytes.map(|capacity| self.arena_bytes <= capacity)
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |bytes: usize| size(bytes as u64);
        match self.memory_bytes.zip(self.capacity_bytes) {
            None => f.write_str("the machine does not tell its memory"),
            Some((memory, 0)) => write!(
                f,
                "{} are taken beside arenas, and there are {} in all",
                bytes(self.beside_bytes),
                bytes(memory)
            ),
            Some((memory, capacity)) => write!(
                f,
                "{} of {} for a rank's arena, {} in all",
                bytes(self.arena_bytes),
                bytes(capacity),
                bytes(memory)
            ),
        }
    }
}
