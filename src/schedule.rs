//! The learning rate of a step: a pure function.
//!
//! Duty: warm-up, then a descent from the peak to the minimum. Ownership: `[schedule]`.
//! Prohibition: keeps no state; a resumed step has the rate that it would have had.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::config::error::{Invalid, require};
use crate::config::sections::expected;

#[cfg(test)]
mod tests;

/// `[schedule]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// How the rate falls after the warm-up.
    pub shape: Shape,
    /// The peak, reached at the end of the warm-up.
    pub learning_rate: f64,
    /// Where the descent ends.
    pub minimum: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// The step at which the descent ends; by default `run.steps`. Give it to make a run longer
    /// later without changing what it has already done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
}

/// How the rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Half a cosine (Loshchilov and Hutter, arXiv:1608.03983).
    #[default]
    Cosine,
    /// A straight line.
    Linear,
    /// Not at all.
    Constant,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { shape: Shape::Cosine, learning_rate: 1e-3, minimum: 1e-4, warmup: 100, steps: None }
    }
}

impl ScheduleConfig {
    /// The learning rate of step `step`, counted from 0, in a run of `steps` steps.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        let Self { shape, learning_rate: peak, minimum, warmup, .. } = *self;
        if step < warmup {
            return peak * (step + 1) as f64 / warmup as f64;
        }
        let length = self.steps.unwrap_or(steps).saturating_sub(warmup).max(1) as f64;
        let done = ((step - warmup) as f64).min(length);
        match shape {
            Shape::Cosine => minimum + 0.5 * (peak - minimum) * (1.0 + (PI * done / length).cos()),
            Shape::Linear => peak + (minimum - peak) * (done / length),
            Shape::Constant => peak,
        }
    }

    /// The step at which the descent ends in a run of `steps` steps; `None` if there is no descent,
    /// because the rate stays constant or the run ends within the warm-up.
    pub fn horizon(&self, steps: u64) -> Option<u64> {
        let end = self.steps.unwrap_or(steps);
        (self.shape != Shape::Constant && end > self.warmup).then_some(end)
    }

    pub(crate) fn validate(&self, steps: u64) -> Result<(), Invalid> {
        let Self { learning_rate: peak, minimum, .. } = *self;
        let usable = peak > 0.0 && peak.is_finite();
        let rate = || expected("a number above 0", peak);
        require(usable, "schedule.learning_rate", rate)?;
        if !(0.0..=peak).contains(&minimum) {
            let wanted = format!("a number from 0 to schedule.learning_rate = {peak}");
            let invalid = Invalid::new("schedule.minimum", expected(&wanted, minimum));
            return Err(invalid.with("schedule.learning_rate"));
        }
        let (key, end) = match self.steps {
            Some(end) => ("schedule.steps", end),
            None => ("run.steps", steps),
        };
        require(end > 0, key, || expected("at least 1", end))
    }
}
