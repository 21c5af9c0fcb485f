//! `[batch]`: how the sequences of each step are cut.
//!
//! Duty: sizes of a step, its lanes, and the ramp of sizes at the begin of a run: pure functions of
//! the step. Prohibition: counts no targets and reads no data.

use octet_kernels::collectives::LANES_MAX;
use serde::{Deserialize, Serialize};

use super::error::{Invalid, require};
use super::sections::expected;

#[cfg(test)]
mod tests;

/// `[batch]`: how the sequences of a step are cut.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Sequences of a micro-batch: what one rank computes at once. At least 1.
    pub micro: usize,
    /// Sequences of a step; with a ramp, of a step after it. At least 1, a multiple of `micro`.
    pub global: usize,
    /// Smaller steps at first (Smith et al., arXiv:1711.00489): `[[1000, 16], [3000, 32]]` gives
    /// the steps before step 1000 16 sequences, those before step 3000 32, and the others
    /// `global`. Lanes stay, and so does the learning rate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ramp: Vec<(u64, usize)>,
    /// Tokens of a sequence. At least 1.
    pub sequence_length: usize,
    /// Lanes, in which micro-batches are added up; part of the run's identity. By default the
    /// largest power of two up to 8 that divides the micro-batches of every step. A power of two,
    /// at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lanes: Option<usize>,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { micro: 8, global: 8, ramp: Vec::new(), sequence_length: 256, lanes: None }
    }
}

impl BatchConfig {
    /// Micro-batches of the largest step.
    pub fn micro_batches(&self) -> usize {
        self.global / self.micro
    }

    /// Lanes of a step, given or by default.
    pub fn lanes(&self) -> usize {
        let of = |global: usize| (global / self.micro).trailing_zeros();
        let least = || self.sizes().map(of).min().unwrap_or(0);
        let default = || 1 << least().min(3);
        self.lanes.unwrap_or_else(default)
    }

    /// Tokens of a micro-batch: the rows of the model's matrices.
    pub fn micro_tokens(&self) -> usize {
        self.micro * self.sequence_length
    }

    /// Tokens of the largest step.
    pub fn global_tokens(&self) -> usize {
        self.global * self.sequence_length
    }

    /// Sequences of each step size, in the order of steps.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.ramp.iter().map(|&(_, global)| global).chain([self.global])
    }

    /// Which of [`Self::sizes`] a step has.
    pub fn size_of(&self, step: u64) -> usize {
        self.ramp.iter().take_while(|&&(until, _)| until <= step).count()
    }

    /// Sequences of all steps before this one.
    pub fn samples_before(&self, step: u64) -> u64 {
        let (mut samples, mut done) = (0, 0);
        for &(until, global) in &self.ramp {
            let until = until.min(step);
            samples += (until - done) * global as u64;
            done = until;
        }
        samples + (step - done) * self.global as u64
    }

    pub(super) fn resolve(&mut self) {
        if self.cut().is_ok() {
            self.lanes = Some(self.lanes());
        }
    }

    fn cut(&self) -> Result<(), Invalid> {
        let Self { micro, global, sequence_length, .. } = *self;
        require(micro > 0, "batch.micro", || expected("at least 1", micro))?;
        require(global > 0, "batch.global", || expected("at least 1", global))?;
        let length = || expected("at least 1", sequence_length);
        require(sequence_length > 0, "batch.sequence_length", length)?;
        let tokens = sequence_length.checked_mul(global).filter(|&n| i32::try_from(n).is_ok());
        if tokens.is_none() {
            let problem = format!(
                "expected fewer than 2^31 tokens in a step, got batch.global = {global} times \
                 batch.sequence_length = {sequence_length}"
            );
            return Err(Invalid::new("batch.global", problem).with("batch.sequence_length"));
        }
        if global % micro != 0 {
            let problem = format!("expected a multiple of batch.micro = {micro}, got {global}");
            return Err(Invalid::new("batch.global", problem).with("batch.micro"));
        }
        self.check_ramp()
    }

    fn check_ramp(&self) -> Result<(), Invalid> {
        let (mut before, mut smaller) = (0, 0);
        for &(until, global) in &self.ramp {
            if until <= before || global <= smaller {
                let wanted = "pairs of a step and a number of sequences, both growing";
                let got = format!("[{until}, {global}] after [{before}, {smaller}]");
                return Err(Invalid::new("batch.ramp", expected(wanted, got)));
            }
            (before, smaller) = (until, global);
            if global >= self.global || global % self.micro != 0 {
                let wanted = format!(
                    "multiples of batch.micro = {} below batch.global = {}",
                    self.micro, self.global
                );
                let invalid = Invalid::new("batch.ramp", expected(&wanted, global));
                return Err(invalid.with("batch.micro").with("batch.global"));
            }
        }
        Ok(())
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        self.cut()?;
        let lanes = self.lanes();
        let split = |global: &usize| !(global / self.micro).is_multiple_of(lanes);
        let uneven = if lanes == 0 { Some(self.global) } else { self.sizes().find(split) };
        if !lanes.is_power_of_two() || lanes > LANES_MAX || uneven.is_some() {
            let global = uneven.unwrap_or(self.global);
            let whose = match global == self.global {
                true => "batch.global".to_owned(),
                false => format!("batch.ramp's {global}"),
            };
            let problem = format!(
                "expected a power of two up to {LANES_MAX} that divides {whose} / batch.micro = \
                 {}, got {lanes}",
                global / self.micro
            );
            return Err(Invalid::new("batch.lanes", problem)
                .with("batch.ramp")
                .with("batch.global")
                .with("batch.micro"));
        }
        Ok(())
    }
}
