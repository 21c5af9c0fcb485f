//! `model.rope_scaling`: how rotary frequencies are stretched for longer sequences.
//!
//! Duty: the kinds with the arithmetic of `transformers` (`modeling_rope_utils.py`), read from one
//! flat table and written as one. A table without `kind` is Llama 3's, the first that there was.

use octet_kernels::ops::rope;
use serde::{Deserialize, Serialize};

use crate::config::error::{Invalid, require};
use crate::config::sections::expected;

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Keys", into = "Keys")]
pub enum RopeScaling {
    /// All are divided by the factor (Chen et al., arXiv:2306.15595).
    Linear {
        /// How much longer sequences become.
        factor: f64,
    },
    /// Only in sequences longer than `model.max_positions`, which are not trained or read here: up
    /// to there nothing is stretched. Kept for whoever reads an export.
    Dynamic {
        /// How much longer sequences become.
        factor: f64,
    },
    /// Llama 3.1's: slow rotations are divided by `factor`, fast ones stay, those between are
    /// blended.
    Llama3 {
        /// How much longer sequences become.
        factor: f64,
        /// Fewer turns than this in the original length are divided.
        low_frequency: f64,
        /// More turns than this stay.
        high_frequency: f64,
        /// Positions of the original length.
        original_positions: usize,
    },
    /// YaRN (Peng et al., arXiv:2309.00071): as `llama3`, blended by the number of the pair, and
    /// cosines and sines are multiplied by a factor.
    Yarn {
        /// How much longer sequences become.
        factor: f64,
        /// Positions of the original length.
        original_positions: usize,
        /// More turns than this stay.
        beta_fast: f64,
        /// Fewer turns than this are divided.
        beta_slow: f64,
        /// Of cosines and sines; by default `0.1 ln(factor) + 1`.
        attention_factor: Option<f64>,
        /// Whether the blend begins and ends at whole pairs.
        truncate: bool,
    },
}

/// The kinds by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Linear,
    Dynamic,
    Llama3,
    Yarn,
}

/// All keys of all kinds.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    factor: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    low_frequency: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high_frequency: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original_positions: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beta_fast: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beta_slow: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attention_factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
}

impl Keys {
    /// The names of the keys that were given beside `kind` and `factor`.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("low_frequency", self.low_frequency.is_some()),
            ("high_frequency", self.high_frequency.is_some()),
            ("original_positions", self.original_positions.is_some()),
            ("beta_fast", self.beta_fast.is_some()),
            ("beta_slow", self.beta_slow.is_some()),
            ("attention_factor", self.attention_factor.is_some()),
            ("truncate", self.truncate.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// Keys of [`Kind::Llama3`], all needed.
const LLAMA3: [&str; 3] = ["low_frequency", "high_frequency", "original_positions"];
/// Keys of [`Kind::Yarn`], the first needed.
const YARN: [&str; 5] =
    ["original_positions", "beta_fast", "beta_slow", "attention_factor", "truncate"];

impl TryFrom<Keys> for RopeScaling {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let kind = keys.kind.unwrap_or(Kind::Llama3);
        let known: &[&str] = match kind {
            Kind::Linear | Kind::Dynamic => &[],
            Kind::Llama3 => &LLAMA3,
            Kind::Yarn => &YARN,
        };
        if let Some(name) = keys.given().find(|name| !known.contains(name)) {
            return Err(format!("unknown field `{name}` of this kind of scaling"));
        }
        let needed = |name| format!("missing field `{name}`");
        let factor = keys.factor;
        let original = keys.original_positions.ok_or_else(|| needed("original_positions"));
        Ok(match kind {
            Kind::Linear => Self::Linear { factor },
            Kind::Dynamic => Self::Dynamic { factor },
            Kind::Llama3 => Self::Llama3 {
                factor,
                low_frequency: keys.low_frequency.ok_or_else(|| needed("low_frequency"))?,
                high_frequency: keys.high_frequency.ok_or_else(|| needed("high_frequency"))?,
                original_positions: original?,
            },
            Kind::Yarn => Self::Yarn {
                factor,
                original_positions: original?,
                beta_fast: keys.beta_fast.unwrap_or(32.0),
                beta_slow: keys.beta_slow.unwrap_or(1.0),
                attention_factor: keys.attention_factor,
                truncate: keys.truncate.unwrap_or(true),
            },
        })
    }
}

impl From<RopeScaling> for Keys {
    fn from(scaling: RopeScaling) -> Self {
        match scaling {
            RopeScaling::Linear { factor } => {
                Self { kind: Some(Kind::Linear), factor, ..Self::default() }
            }
            RopeScaling::Dynamic { factor } => {
                Self { kind: Some(Kind::Dynamic), factor, ..Self::default() }
            }
            RopeScaling::Llama3 { factor, low_frequency, high_frequency, original_positions } => {
                Self {
                    factor,
                    low_frequency: Some(low_frequency),
                    high_frequency: Some(high_frequency),
                    original_positions: Some(original_positions),
                    ..Self::default()
                }
            }
            RopeScaling::Yarn {
                factor,
                original_positions,
                beta_fast,
                beta_slow,
                attention_factor,
                truncate,
            } => Self {
                kind: Some(Kind::Yarn),
                factor,
                original_positions: Some(original_positions),
                beta_fast: Some(beta_fast),
                beta_slow: Some(beta_slow),
                attention_factor,
                truncate: Some(truncate),
                ..Self::default()
            },
        }
    }
}

impl RopeScaling {
    /// In the words of the op.
    pub(super) fn of_op(scaling: Option<Self>) -> rope::RopeScaling {
        match scaling {
            None | Some(Self::Dynamic { .. }) => rope::RopeScaling::None,
            Some(Self::Linear { factor }) => rope::RopeScaling::Linear { factor },
            Some(Self::Llama3 { factor, low_frequency, high_frequency, original_positions }) => {
                rope::RopeScaling::Llama3 {
                    factor,
                    low: low_frequency,
                    high: high_frequency,
                    original_length: original_positions as f64,
                }
            }
            Some(Self::Yarn {
                factor,
                original_positions,
                beta_fast,
                beta_slow,
                attention_factor,
                truncate,
            }) => rope::RopeScaling::Yarn {
                factor,
                fast: beta_fast,
                slow: beta_slow,
                original_length: original_positions as f64,
                whole: truncate,
                magnitude: attention_factor.unwrap_or(0.1 * factor.ln() + 1.0),
            },
        }
    }

    /// Checks the numbers of the kind.
    ///
    /// # Errors
    /// The first that is not usable.
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let key = "model.rope_scaling";
        let at_least_1 = |name: &str, value: f64| {
            let usable = value.is_finite() && value >= 1.0;
            require(usable, key, || expected(&format!("{name} of at least 1"), value))
        };
        let ordered = |[low, high]: [&str; 2], a: f64, b: f64| {
            let wanted = format!("{low} above 0 and below {high}");
            let usable = a > 0.0 && a < b && b.is_finite();
            require(usable, key, || expected(&wanted, format!("{a} and {b}")))
        };
        match *self {
            Self::Linear { factor } | Self::Dynamic { factor } => at_least_1("a factor", factor),
            Self::Llama3 { factor, low_frequency, high_frequency, original_positions } => {
                at_least_1("a factor", factor)?;
                ordered(["low_frequency", "high_frequency"], low_frequency, high_frequency)?;
                at_least_1("original_positions", original_positions as f64)
            }
            Self::Yarn { factor, original_positions, beta_fast, beta_slow, .. } => {
                at_least_1("a factor", factor)?;
                ordered(["beta_slow", "beta_fast"], beta_slow, beta_fast)?;
                self.validate_attention()?;
                at_least_1("original_positions", original_positions as f64)
            }
        }
    }

    fn validate_attention(&self) -> Result<(), Invalid> {
        let Self::Yarn { attention_factor: Some(factor), .. } = *self else { return Ok(()) };
        let usable = factor > 0.0 && (factor as f32).is_finite();
        let wanted = "attention_factor above 0";
        require(usable, "model.rope_scaling", || expected(wanted, factor))
    }
}

#[cfg(test)]
mod tests;
