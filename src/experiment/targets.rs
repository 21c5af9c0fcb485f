//! How many targets the steps of a track have: every micro-batch's loss is divided by those of its
//! whole step.
//!
//! Loaders of several ranks are at several steps at a time, and each asks for every micro-batch.
//! So some steps are remembered, and who counts one keeps nobody else waiting but those who want
//! the same.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::data::DataError;
use crate::objectives::{Counts, Inputs};

#[cfg(test)]
mod tests;

/// Steps that are remembered: more than loaders are ahead of each other.
const STEPS_MAX: usize = 16;

/// What is known of a step, to whoever holds it.
type Known = Arc<Mutex<Option<Counts>>>;

/// The steps of a track.
#[derive(Debug, Default)]
pub(super) struct Targets(Mutex<VecDeque<(u64, Known)>>);

impl Targets {
    /// The targets of a step, whose samples are these.
    pub(super) fn of(
        &self,
        step: u64,
        samples: Range<u64>,
        inputs: &dyn Inputs,
    ) -> Result<Counts, DataError> {
        let known = self.entry(step);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = *known {
            return Ok(counts);
        }
        let mut sums = Counts::default();
        for sample in samples {
            let counts = inputs.targets(sample)?;
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        *known = Some(sums);
        Ok(sums)
    }

    fn entry(&self, step: u64) -> Known {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = steps.iter().find(|(known, _)| *known == step) {
            return known.clone();
        }
        if steps.len() == STEPS_MAX {
            steps.pop_front();
        }
        let known = Known::default();
        steps.push_back((step, known.clone()));
        known
    }
}
