//! `model.recompute = "auto"`: the recompute policy that is cheapest in time and fits a budget.
//!
//! A pure function of configuration, target and budget. Candidates are the four policies, and any
//! two of them with the first blocks under the one that keeps less. Their times are rooflines at
//! the target's data-sheet peaks, on a CPU at a fixed ratio of FLOPs to bytes, so that the same
//! configuration and budget give the same choice on every machine. Bits never depend on it.

use std::collections::HashMap;

use octet_actors::contract::Workload;
use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Mix, Peaks, Program, Recompute, Target};
use octet_kernels::memory::REGION_ALIGNMENT;

use super::Experiment;
use crate::config::bytes::Bytes;
use crate::models::RecomputeConfig;
use crate::plan::machine::total_memory;
use crate::plan::memory::Memory;

#[cfg(test)]
mod tests;

/// What candidates are compared at on a CPU: 50 FLOPs for a byte, about what two cores do.
const CPU_PEAKS: Peaks =
    Peaks { flops_per_s: 500e9, bytes_per_s: 10e9, link_bytes_per_s: None, host_bytes_per_s: None };

/// Without a budget, an eighth of the machine's memory is left to everything else on a CPU.
const CPU_RESERVE: u64 = 8;

/// One way to compile the training programs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The policy.
    pub mix: Mix,
    /// Bytes of activations and scratch, the other programs' included.
    pub activation_bytes: usize,
    /// Roofline seconds of a micro-batch of every track.
    pub seconds: f64,
}

/// The training programs that were compiled so far, by policy.
pub struct Candidates<'a> {
    experiment: &'a Experiment,
    peaks: Peaks,
    known: HashMap<Mix, Candidate>,
}

impl<'a> Candidates<'a> {
    /// None yet; to be compared at these peaks.
    pub fn new(experiment: &'a Experiment, peaks: Peaks) -> Self {
        Self { experiment, peaks, known: HashMap::new() }
    }

    /// Compiles a policy, if it was not yet.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn get(&mut self, mix: Mix) -> Result<Candidate> {
        if let Some(&known) = self.known.get(&mix) {
            return Ok(known);
        }
        let programs = self.experiment.compile_training(mix)?;
        let costs = programs.iter().flat_map(|(_, program)| program.costs());
        let candidate = Candidate {
            mix,
            seconds: costs.map(|node| node.cost.seconds(&self.peaks)).sum(),
            activation_bytes: self.activations(programs.iter().map(|(_, program)| program)),
        };
        self.known.insert(mix, candidate);
        Ok(candidate)
    }

    /// Bytes of the activation region with these training programs.
    pub fn activations<'p>(&self, training: impl Iterator<Item = &'p Program>) -> usize {
        let programs = self.experiment.programs().iter().enumerate();
        let others = programs.filter(|(i, _)| !self.experiment.trains(*i)).map(|(_, p)| p);
        let training = training.map(|program| program.activation_bytes);
        let most = others.map(|p| p.activation_bytes).chain(training).max().unwrap_or(0);
        most.next_multiple_of(REGION_ALIGNMENT)
    }

    /// Bytes of the activation region as the experiment is.
    pub fn activations_now(&self) -> usize {
        self.activations(self.experiment.training())
    }

    /// The cheapest in time with at most `room` bytes of activations; `None` if nothing fits.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn cheapest(&mut self, room: usize) -> Result<Option<Candidate>> {
        let blocks = self.experiment.training().map(|program| program.blocks).max().unwrap_or(0);
        let mut best: Option<Candidate> = None;
        let offer = |best: &mut Option<Candidate>, one: Candidate| {
            if best.is_none_or(|best| one.seconds < best.seconds) {
                *best = Some(one);
            }
        };
        for all in Recompute::ALL {
            let candidate = self.get(all.into())?;
            if candidate.activation_bytes <= room {
                offer(&mut best, candidate);
            }
        }
        for (i, more) in Recompute::ALL.into_iter().enumerate() {
            for rest in Recompute::ALL.into_iter().take(i) {
                let (slow, fast) = (self.get(more.into())?, self.get(rest.into())?);
                // One block under `more` costs at least this much.
                let least = fast.seconds + (slow.seconds - fast.seconds) / blocks.max(1) as f64;
                let useless = best.is_some_and(|best| least >= best.seconds);
                if useless || fast.activation_bytes <= room {
                    continue;
                }
                if let Some(mixed) = self.fewest(more, rest, blocks, room)? {
                    offer(&mut best, mixed);
                }
            }
        }
        Ok(best)
    }

    /// The fewest blocks under `more` that fit.
    fn fewest(
        &mut self,
        more: Recompute,
        rest: Recompute,
        blocks: usize,
        room: usize,
    ) -> Result<Option<Candidate>> {
        // All but the last block can take less than all: its insides are still there when backward
        // begins.
        let most = blocks.saturating_sub(1);
        let mut found = self.get(Mix { more, blocks: most, rest })?;
        if found.activation_bytes > room {
            return Ok(None);
        }
        // With `below` blocks it does not fit, with those of `found` it does.
        let (mut below, mut above) = (0, most);
        while above - below > 1 {
            let middle = below + (above - below) / 2;
            let candidate = self.get(Mix { more, blocks: middle, rest })?;
            if candidate.activation_bytes <= room {
                (above, found) = (middle, candidate);
            } else {
                below = middle;
            }
        }
        Ok(Some(found))
    }

    /// The fewest bytes of all that were looked at.
    fn least(&self) -> usize {
        self.known.values().map(|known| known.activation_bytes).min().unwrap_or(0)
    }
}

impl Experiment {
    /// The storage type of the trained matrices.
    pub fn matrix_dtype(&self) -> DType {
        let buckets = &self.layout.buckets;
        let narrow = buckets.iter().map(|bucket| bucket.dtype).find(|dtype| dtype.is_narrow());
        narrow.unwrap_or(DType::F32)
    }

    /// What it was compiled for.
    pub fn target(&self) -> Target {
        self.target
    }
}

/// Chooses for `"auto"`, and checks a policy that was given against a budget that was given.
pub(super) fn settle(experiment: &mut Experiment) -> Result<()> {
    let model = &experiment.config.model;
    let (recompute, given) = (model.recompute, model.recompute_budget);
    let auto = recompute == RecomputeConfig::Auto;
    if !auto && given.is_none() {
        return Ok(());
    }
    let run = &experiment.config.run;
    let memory = Memory::of(experiment, run)?;
    let budget = match given {
        Some(Bytes(bytes)) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => default_budget(experiment, &memory)?,
    };
    let peaks = experiment.target.peaks(experiment.matrix_dtype()).unwrap_or(CPU_PEAKS);
    let mut candidates = Candidates::new(experiment, peaks);
    let now = candidates.activations_now();
    let fixed = memory.arena_bytes() - now;
    if !auto {
        let arena = memory.arena_bytes();
        return if arena <= budget { Ok(()) } else { Err(too_little(recompute, arena, budget)) };
    }
    let chosen = match budget.checked_sub(fixed) {
        Some(room) => candidates.cheapest(room)?,
        None => None,
    };
    let Some(Candidate { mix, .. }) = chosen else {
        // Looks at all of them, even if the budget is less than what is fixed.
        candidates.cheapest(0)?;
        return Err(too_little(recompute, fixed + candidates.least(), budget));
    };
    for (id, program) in experiment.compile_training(mix)? {
        experiment.programs[id.0] = program;
    }
    experiment.config.model.recompute = RecomputeConfig::Fixed(mix);
    experiment.config.model.recompute_budget = Some(Bytes(budget as u64));
    Ok(())
}

fn too_little(recompute: RecomputeConfig, arena: usize, budget: usize) -> Error {
    let least = if recompute == RecomputeConfig::Auto { "at least " } else { "" };
    Error::Plan(format!(
        "model.recompute: expected a policy that fits a budget of {budget} bytes, but with \
         \"{recompute}\" a rank's arena takes {least}{arena} bytes; a smaller batch.micro, \
         fewer batch.lanes or more run.ranks take less"
    ))
}

/// What a rank's arena may take where nothing is said: a GPU's memory less what lies outside the
/// arena; on a CPU this rank's share of the machine less host buffers and an eighth.
fn default_budget(experiment: &Experiment, memory: &Memory) -> Result<usize> {
    let ranks = experiment.config.run.ranks;
    if let Some(device) = experiment.target.memory_bytes() {
        let outside: usize = experiment.target.outside(ranks).iter().map(|(_, bytes)| bytes).sum();
        return Ok(device - outside);
    }
    let unknown = || {
        let what = "model.recompute_budget: expected a size, since the machine does not tell its \
                    memory and model.recompute is \"auto\"";
        Error::Plan(what.to_string())
    };
    let total = total_memory().ok_or_else(unknown)?;
    let left = (total - total / CPU_RESERVE) as usize;
    Ok(left.saturating_sub(memory.host_bytes()) / ranks)
}
