//! `model.recompute`: what backward computes again instead of keeping.
//!
//! Duty: its form in a configuration: one policy for the whole model, two with the number of blocks
//! that have the first, or `"auto"`. What `"auto"` becomes is decided where programs are compiled.

use std::fmt;
use std::str::FromStr;

use octet_kernels::graph::{Mix, Recompute};
use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize, Serializer};

#[cfg(test)]
mod tests;

/// How much of the forward pass is computed twice.
///
/// `"none"`, `"norm_activation"`, `"feed_forward"`, `"block"`; `"block:12,none"` for the first 12
/// blocks and the rest; `"auto"` for the cheapest in time that fits `model.recompute_budget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecomputeConfig {
    /// As given.
    Fixed(Mix),
    /// Whatever fits.
    Auto,
}

const AUTO: &str = "auto";

const WANTED: &str = "\"none\", \"norm_activation\", \"feed_forward\", \"block\", \"auto\" or two \
                      like \"block:12,none\"";

impl Default for RecomputeConfig {
    fn default() -> Self {
        Self::Fixed(Mix::default())
    }
}

impl fmt::Display for RecomputeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Fixed(Mix { blocks: 0, rest, .. }) => f.write_str(rest.name()),
            Self::Fixed(Mix { more, blocks, rest }) => {
                write!(f, "{}:{blocks},{}", more.name(), rest.name())
            }
        }
    }
}

impl FromStr for RecomputeConfig {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let named = |name: &str| Recompute::ALL.into_iter().find(|r| r.name() == name.trim());
        if text == AUTO {
            return Ok(Self::Auto);
        }
        let Some((first, rest)) = text.split_once(',') else {
            return named(text).map(|all| Self::Fixed(all.into())).ok_or(());
        };
        let (more, blocks) = first.split_once(':').ok_or(())?;
        let (more, rest) = (named(more).ok_or(())?, named(rest).ok_or(())?);
        let blocks = blocks.trim().parse().map_err(drop)?;
        Ok(Self::Fixed(Mix { more, blocks, rest }))
    }
}

impl Serialize for RecomputeConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecomputeConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |()| D::Error::invalid_value(Unexpected::Str(&text), &WANTED);
        text.parse().map_err(wrong)
    }
}
