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
    /// The peak, reached at the end of the warm-up. Above 0.
    pub learning_rate: f64,
    /// Where the descent ends. From 0 to the peak.
    pub minimum: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// The step at which the descent ends; by default `run.steps`. Give it to make a run longer
    /// later without changing what it has already done. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Of `wsd`: steps of the descent, the last ones. By default a fifth of all steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// Of `wsd`: the same as a share of all steps, above 0 and at most 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_fraction: Option<f64>,
    /// Of `wsd`: how the rate falls in the end. By default `sqrt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_shape: Option<DecayShape>,
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
    /// Warm-up, stable, decay (Hu et al., arXiv:2404.06395): not at all, and fast in the end.
    Wsd,
    /// One over the root of the steps done (Vaswani et al., arXiv:1706.03762), but for `minimum`:
    /// it needs no end.
    InverseSqrt,
}

/// How the rate falls at the end of `wsd`, x going from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// With `1 - √x` (Hägele et al., arXiv:2405.18392).
    #[default]
    Sqrt,
    /// With `1 - x`.
    Linear,
}

/// Share of all steps in which `wsd` falls, if nothing is given.
const DECAY_FRACTION: f64 = 0.2;

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            shape: Shape::Cosine,
            learning_rate: 1e-3,
            minimum: 1e-4,
            warmup: 100,
            steps: None,
            decay_steps: None,
            decay_fraction: None,
            decay_shape: None,
        }
    }
}

impl ScheduleConfig {
    /// The learning rate of step `step`, counted from 0, in a run of `steps` steps.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        let Self { shape, learning_rate: peak, minimum, warmup, .. } = *self;
        if step < warmup {
            return peak * (step + 1) as f64 / warmup as f64;
        }
        let end = self.steps.unwrap_or(steps);
        // Steps since `from`, as a share of those from there to the end.
        let done = |from: u64| {
            let length = end.saturating_sub(from).max(1) as f64;
            (step.saturating_sub(from) as f64).min(length) / length
        };
        match shape {
            Shape::Cosine => {
                let length = end.saturating_sub(warmup).max(1) as f64;
                let done = ((step - warmup) as f64).min(length);
                minimum + 0.5 * (peak - minimum) * (1.0 + (PI * done / length).cos())
            }
            Shape::Linear => peak + (minimum - peak) * done(warmup),
            Shape::Constant => peak,
            Shape::Wsd => {
                let done = done(self.decay_start(steps));
                let left = match self.decay_shape.unwrap_or_default() {
                    DecayShape::Sqrt => 1.0 - done.sqrt(),
                    DecayShape::Linear => 1.0 - done,
                };
                minimum + (peak - minimum) * left
            }
            Shape::InverseSqrt => {
                let first = warmup.max(1) as f64;
                (peak * (first / (step + 1) as f64).sqrt()).max(minimum)
            }
        }
    }

    /// Of `wsd`: the last step at the peak.
    fn decay_start(&self, steps: u64) -> u64 {
        let end = self.steps.unwrap_or(steps);
        let share = self.decay_fraction.unwrap_or(DECAY_FRACTION);
        let length = self.decay_steps.unwrap_or_else(|| (share * end as f64).round() as u64);
        end.saturating_sub(length.max(1)).max(self.warmup)
    }

    /// The step at which the descent ends in a run of `steps` steps; `None` if no rate depends on
    /// it, or the run ends within the warm-up.
    pub fn horizon(&self, steps: u64) -> Option<u64> {
        let end = self.steps.unwrap_or(steps);
        let endless = matches!(self.shape, Shape::Constant | Shape::InverseSqrt);
        (!endless && end > self.warmup).then_some(end)
    }

    /// The joints of the schedule in a run of `steps` steps: each a step and its rate.
    pub fn joints(&self, steps: u64) -> Vec<(u64, f64)> {
        let end = self.steps.unwrap_or(steps);
        let mut joints = vec![0, self.warmup.saturating_sub(1)];
        if self.shape == Shape::Wsd {
            joints.push(self.decay_start(steps));
        }
        joints.push(end);
        joints.retain(|&step| step <= end);
        joints.dedup();
        joints.into_iter().map(|step| (step, self.rate(step, steps))).collect()
    }

    /// What a person should know of it in a run of `steps` steps.
    pub fn caution(&self, steps: u64) -> Option<String> {
        let (end, warmup) = (self.steps.unwrap_or(steps), self.warmup);
        let most = self.rate(end.max(1) - 1, steps);
        (warmup > end).then(|| {
            format!(
                "schedule.warmup = {warmup} is longer than the {end} steps of the schedule: the \
                 learning rate comes to {most:.3e} at most"
            )
        })
    }

    /// What `octet plan` says of a run of `steps` steps.
    pub fn describe(&self, steps: u64) -> String {
        let shape = match self.shape {
            Shape::Cosine => "cosine",
            Shape::Linear => "linear",
            Shape::Constant => "constant",
            Shape::Wsd => "wsd",
            Shape::InverseSqrt => "inverse_sqrt",
        };
        let joints = self.joints(steps).into_iter();
        let joints: Vec<String> =
            joints.map(|(step, rate)| format!("{rate:.3e} at step {step}")).collect();
        format!("{shape}: {}", joints.join(", "))
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
        require(end > 0, key, || expected("at least 1", end))?;
        self.validate_decay(end)
    }

    fn validate_decay(&self, end: u64) -> Result<(), Invalid> {
        let given = [
            ("schedule.decay_steps", self.decay_steps.is_some()),
            ("schedule.decay_fraction", self.decay_fraction.is_some()),
            ("schedule.decay_shape", self.decay_shape.is_some()),
        ];
        if let Some((key, _)) = given.iter().find(|key| key.1 && self.shape != Shape::Wsd) {
            let problem = "expected schedule.shape = \"wsd\" beside it";
            return Err(Invalid::new(*key, problem).with("schedule.shape"));
        }
        if self.decay_steps.is_some() && self.decay_fraction.is_some() {
            let problem = "expected either this or schedule.decay_steps, got both";
            return Err(Invalid::new("schedule.decay_fraction", problem));
        }
        let share = self.decay_fraction.unwrap_or(DECAY_FRACTION);
        let problem = || expected("a number above 0 and at most 1", share);
        require(share > 0.0 && share <= 1.0, "schedule.decay_fraction", problem)?;
        let Some(length) = self.decay_steps else { return Ok(()) };
        let most = end.saturating_sub(self.warmup);
        if length == 0 || length > most {
            let wanted = format!("from 1 to the {most} steps after the warm-up");
            let invalid = Invalid::new("schedule.decay_steps", expected(&wanted, length));
            return Err(invalid.with("schedule.warmup").with("schedule.steps").with("run.steps"));
        }
        Ok(())
    }
}
