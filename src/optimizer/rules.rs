//! The rules of `[optimizer]`, by `rule`: how parameters change with a gradient.
//!
//! Duty: keys and defaults of each. A new rule is one folder in `kernels/ops/` and one line here.

use std::sync::Arc;

use octet_kernels::ops::adamw::AdamW;
use octet_kernels::ops::lion::Lion;
use octet_kernels::update::Rule;
use serde::{Deserialize, Serialize};

use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::config::tagged::tagged;

tagged! {
    /// A rule with the keys of that rule.
    RuleConfig by "rule" as RuleKeys;
    /// AdamW, with decoupled decay.
    "adamw" => AdamW(AdamWConfig),
    /// Lion: steps of one size, by the sign of a momentum.
    "lion" => Lion(LionConfig),
}

/// What the configuration of every rule can do.
pub trait RuleKeys {
    /// Checks every key.
    ///
    /// # Errors
    /// The first key with an unusable value.
    fn validate(&self) -> Result<(), Invalid>;

    /// The rule with these numbers.
    fn rule(&self) -> Arc<dyn Rule>;
}

/// The keys of `rule = "adamw"`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment. At least 0, below 1.
    pub beta1: f64,
    /// Decay of the second moment. At least 0, below 1.
    pub beta2: f64,
    /// Added to the root of the second moment. Above 0.
    pub epsilon: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 }
    }
}

impl RuleKeys for AdamWConfig {
    fn validate(&self) -> Result<(), Invalid> {
        decays(self.beta1, self.beta2)?;
        let usable = self.epsilon > 0.0 && self.epsilon.is_finite();
        require(usable, "optimizer.epsilon", || expected("a number above 0", self.epsilon))
    }

    fn rule(&self) -> Arc<dyn Rule> {
        let Self { beta1, beta2, epsilon } = *self;
        Arc::new(AdamW { beta1, beta2, eps: epsilon })
    }
}

/// The keys of `rule = "lion"`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LionConfig {
    /// Weight of the momentum in the direction of a step. At least 0, below 1.
    pub beta1: f64,
    /// Decay of the momentum. At least 0, below 1.
    pub beta2: f64,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99 }
    }
}

impl RuleKeys for LionConfig {
    fn validate(&self) -> Result<(), Invalid> {
        decays(self.beta1, self.beta2)
    }

    fn rule(&self) -> Arc<dyn Rule> {
        let Self { beta1, beta2 } = *self;
        Arc::new(Lion { beta1, beta2 })
    }
}

fn decays(beta1: f64, beta2: f64) -> Result<(), Invalid> {
    for (key, beta) in [("optimizer.beta1", beta1), ("optimizer.beta2", beta2)] {
        require((0.0..1.0).contains(&beta), key, || expected("at least 0 and below 1", beta))?;
    }
    Ok(())
}
