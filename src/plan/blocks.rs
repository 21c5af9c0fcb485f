//! How many blocks of a model fit that does not fit whole.

use octet_kernels::graph::Target;
use serde::Serialize;

use super::capacity;
use super::memory::Memory;
use crate::config::Config;
use crate::experiment::Experiment;
use crate::failure::Failure;

/// Blocks of `[model]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Blocks {
    /// So many fit, with embedding and head.
    pub fit: usize,
    /// There are so many.
    pub of: usize,
    /// What the arenas of all ranks take, with all blocks.
    pub wanted_bytes: usize,
    /// What there is for them.
    pub there_bytes: usize,
}

impl Blocks {
    /// Of a configuration whose arena of so many bytes does not fit into so many others: memory
    /// grows with every block alike, so that two small models tell how far it reaches, and what
    /// they tell is tried.
    pub(super) fn of(
        config: &Config,
        vocabulary: usize,
        target: Target,
        threads: usize,
        (arena, there): (usize, usize),
    ) -> Result<Self, Failure> {
        let ranks = config.run.ranks;
        let arena_and_room = |layers: usize| -> Result<(usize, usize), Failure> {
            let mut config = config.clone();
            *config.model.family.get_mut().layers() = layers;
            let experiment = Experiment::for_target(&config, vocabulary, None, target)?;
            let memory = Memory::of(&experiment, &config.run)?;
            let room = capacity(target, &memory, ranks, threads).unwrap_or(usize::MAX);
            Ok((memory.arena_bytes(), room))
        };
        let of = *config.clone().model.family.get_mut().layers();
        let fits = |layers: usize| -> Result<bool, Failure> {
            let (arena, room) = arena_and_room(layers)?;
            Ok(arena <= room)
        };
        let [(one, room), (two, less)] = [arena_and_room(1)?, arena_and_room(2)?];
        // Beside arenas more may be taken of the same memory.
        let each = (two + room).saturating_sub(one + less).max(1);
        let mut fit = room.checked_sub(one).map_or(0, |left| 1 + left / each).min(of);
        while fit > 0 && !fits(fit)? {
            fit -= 1;
        }
        while fit > 0 && fit < of && fits(fit + 1)? {
            fit += 1;
        }
        Ok(Self { fit, of, wanted_bytes: arena * ranks, there_bytes: there * ranks })
    }
}
