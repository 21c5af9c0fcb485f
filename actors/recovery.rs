//! What a run does about bad updates: counted, then rolled back, then stopped. Pure.
//!
//! An update is bad when its loss or its gradient norm is not finite (the ranks have skipped it
//! then), or when one of both stands out among those of recent good updates: its z-score, (value -
//! mean) / standard deviation over a window of good ones, is above a threshold. So many bad ones in
//! a row roll the run back: to the newest snapshot that the schedule takes at or before the first
//! of them, and on with other data. Every decision is a function of reported numbers, of the
//! schedule and of [`Recovery`], which is saved with each state: so the same data leads to the same
//! decisions on any number of ranks, killed or not.
//!
//! The state to which a run rolls back is a place in its history, not a piece of memory: if what
//! was saved there is gone, an older state is loaded and the steps between are done again, with the
//! data that they had.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schedule::Schedule;

#[cfg(test)]
mod tests;

/// Longest window: two windows of 16 hexadecimal digits each are a part of every snapshot's header.
pub const WINDOW_MAX: usize = 256;

/// Most roll-backs of a run, for the same reason.
pub const ROLLBACKS_MAX: u32 = 64;

/// Below this share of the mean, a spread is taken for this share: losses that hardly differ make
/// no spike of rounding.
const SPREAD_MIN: f64 = 1e-3;

/// No spread is taken for less than this, in nats and in gradient norms: where both are next to
/// nothing, a text is learned by heart, and what stands out among them is next to nothing too.
const SPREAD_FLOOR: f64 = 1e-3;

/// What a run does about bad updates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Bad updates in a row that roll the run back; at least 1.
    pub bad_updates: u32,
    /// Roll-backs of a run; then it stops, rolled back and saved.
    pub rollbacks: u32,
    /// Whether the data of the steps that are given up is passed over.
    pub skip_data: bool,
    /// Good updates that the next is compared with, up to [`WINDOW_MAX`].
    pub window: usize,
    /// A loss is a spike above this z-score; 0: never.
    pub loss_z: f64,
    /// A gradient norm is a spike above this z-score; 0: never.
    pub norm_z: f64,
}

/// What is reported of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// The step, from 0.
    pub step: u64,
    /// Mean loss per target.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub norm: f64,
    /// The ranks have skipped it.
    pub skipped: bool,
}

/// What follows from an update.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Nothing.
    Good,
    /// One more bad one: why.
    Bad(String),
    /// Too many in a row.
    RollBack(RollBack),
}

/// A decision to roll back.
#[derive(Debug, Clone, PartialEq)]
pub struct RollBack {
    /// Steps done in the state to go back to.
    pub to: u64,
    /// Steps done when it was decided.
    pub at: u64,
    /// Why.
    pub reason: String,
    /// Whether the budget allows to go on from there.
    pub goes_on: bool,
    /// Batches that are passed over from now on: the first, and how many.
    pub passed_over: (u64, u64),
    number: u32,
    skips: Skips,
}

impl RollBack {
    /// Data that is passed over from now on.
    pub fn skips(&self) -> &Skips {
        &self.skips
    }

    /// Which roll-back of the run it is, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// Data that was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Skip {
    /// From this step on
    from: u64,
    /// batches are later by so many.
    batches: u64,
}

/// All data that was passed over, in order of steps: which batch a step learns from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skips(Vec<Skip>);

impl Skips {
    /// The batch of the data's order that a step learns from.
    pub fn batch(&self, step: u64) -> u64 {
        step + self.before(step + 1)
    }

    /// As [`Self::batch`], where it is not the step's own.
    pub fn other_batch(&self, step: u64) -> Option<u64> {
        Some(self.batch(step)).filter(|batch| *batch != step)
    }

    fn before(&self, step: u64) -> u64 {
        self.0.iter().filter(|skip| skip.from < step).map(|skip| skip.batches).sum()
    }
}

/// What decisions depend on, saved with every state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recovery {
    /// Bad updates in a row until now.
    bad: u32,
    /// The step of the first of them.
    first_bad: u64,
    /// Roll-backs so far.
    rollbacks: u32,
    skips: Skips,
    #[serde(with = "bits")]
    losses: VecDeque<f64>,
    #[serde(with = "bits")]
    norms: VecDeque<f64>,
}

impl Recovery {
    /// As it was saved; nothing was before the first step.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        if value.is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(value.clone()).map_err(|e| format!("the state of recovery: {e}"))
    }

    /// To be saved.
    ///
    /// # Panics
    /// Never: it is plain data.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("plain data becomes JSON")
    }

    /// Data that was passed over.
    pub fn skips(&self) -> &Skips {
        &self.skips
    }

    /// The batch of the data's order that a step learns from.
    pub fn batch(&self, step: u64) -> u64 {
        self.skips.batch(step)
    }

    /// Bad updates in a row until now.
    pub fn bad(&self) -> u32 {
        self.bad
    }

    /// Where a roll-back would lead that is decided by what follows `done` steps.
    pub fn back_to(&self, schedule: &Schedule, done: u64) -> u64 {
        schedule.snapshot_at_or_before(if self.bad > 0 { self.first_bad } else { done })
    }

    /// Takes an update into account.
    pub fn judge(&mut self, policy: &Policy, schedule: &Schedule, update: &Update) -> Verdict {
        let Some(what) = self.fault_of(policy, update) else {
            self.bad = 0;
            for (window, value) in [(&mut self.losses, update.loss), (&mut self.norms, update.norm)]
            {
                window.push_back(value);
                while window.len() > policy.window {
                    window.pop_front();
                }
            }
            return Verdict::Good;
        };
        if self.bad == 0 {
            self.first_bad = update.step;
        }
        self.bad += 1;
        if self.bad < policy.bad_updates {
            return Verdict::Bad(what);
        }
        Verdict::RollBack(self.roll_back(policy, schedule, update.step, &what))
    }

    fn roll_back(&self, policy: &Policy, schedule: &Schedule, step: u64, what: &str) -> RollBack {
        let to = self.back_to(schedule, step);
        let (first, next) = (to + self.skips.before(to), self.batch(step) + 1);
        let mut skips: Vec<Skip> = self.skips.0.iter().filter(|s| s.from < to).copied().collect();
        let batches = if policy.skip_data { next - first } else { self.batch(to) - first };
        skips.push(Skip { from: to, batches });
        RollBack {
            to,
            at: step + 1,
            reason: format!("{} bad updates in a row, the last at step {step}: {what}", self.bad),
            goes_on: self.rollbacks < policy.rollbacks,
            passed_over: (first, batches),
            number: self.rollbacks + 1,
            skips: Skips(skips),
        }
    }

    /// Goes on from a state at or before that of the roll-back, as which `self` was saved.
    pub fn adopt(&mut self, back: &RollBack) {
        self.rollbacks = back.number;
        self.skips.clone_from(&back.skips);
    }

    /// What is wrong with an update, if anything is.
    fn fault_of(&self, policy: &Policy, update: &Update) -> Option<String> {
        let Update { step: _, loss, norm, skipped } = *update;
        if !norm.is_finite() {
            return Some("the gradient norm is not finite, its update was skipped".to_string());
        }
        if !loss.is_finite() {
            return Some("the loss is not finite".to_string());
        }
        if skipped {
            return Some("something overflowed, its update was skipped".to_string());
        }
        let measured = [
            ("loss", loss, &self.losses, policy.loss_z),
            ("gradient norm", norm, &self.norms, policy.norm_z),
        ];
        measured.into_iter().find_map(|(name, value, window, most)| {
            let z = z_score(value, window, policy.window).filter(|z| most > 0.0 && *z > most)?;
            Some(format!("the {name} of {value:.6} is a spike (z-score {z:.1}, allowed {most})"))
        })
    }
}

/// How far a value stands out, in standard deviations; `None` until the window is full.
fn z_score(value: f64, window: &VecDeque<f64>, length: usize) -> Option<f64> {
    if window.len() < length || length == 0 {
        return None;
    }
    let count = window.len() as f64;
    let mean = window.iter().sum::<f64>() / count;
    let variance = window.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    let spread = variance.sqrt().max(SPREAD_MIN * mean.abs()).max(SPREAD_FLOOR);
    Some((value - mean) / spread)
}

/// Numbers as their bits in hexadecimal: what is read back is what was written, infinities too.
mod bits {
    use std::collections::VecDeque;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        values: &VecDeque<f64>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let digits: String =
            values.iter().map(|value| format!("{:016x}", value.to_bits())).collect();
        to.serialize_str(&digits)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<VecDeque<f64>, D::Error> {
        let digits = String::deserialize(from)?;
        let value = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).map_err(D::Error::custom)?;
            let bits = u64::from_str_radix(text, 16).map_err(D::Error::custom)?;
            Ok(f64::from_bits(bits))
        };
        digits.as_bytes().chunks(16).map(value).collect()
    }
}
