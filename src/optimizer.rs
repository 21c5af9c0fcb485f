//! `[optimizer]`: the rule, how its state is stored, and the groups of parameters that are treated
//! differently.
//!
//! Duty: the numbers of an update but for the learning rate, and which group a parameter is in, a
//! pure function of its name and shape. Prohibition: updates nothing.

use octet_actors::contract::UpdateGroup;
use octet_kernels::graph::Parameter;
use octet_kernels::update::{OptimizerSpec, Storage};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::config::tagged::take;
use crate::models::{Role, fits};

pub mod rules;
#[cfg(test)]
mod tests;

pub use rules::RuleConfig;

/// `[optimizer]`: a rule with decoupled weight decay, after clipping by global norm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimizerConfig {
    /// The rule and its keys.
    #[serde(flatten)]
    pub rule: RuleConfig,
    /// How the rule's state vectors are stored: `"f32"`; `"bf16"` or `"8bit"`, rounded at random.
    pub moments: Moments,
    /// Weight decay of matrices and embeddings; norms and biases do not decay, unless a group says
    /// otherwise.
    pub weight_decay: f64,
    /// Largest global norm of a gradient; `inf` for no clipping. Above 0.
    pub clip_norm: f64,
    /// Parameters that are treated differently; the first group that names a parameter decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupConfig>,
}

/// How state vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
pub enum Moments {
    /// As computed.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// 16 bits.
    #[serde(rename = "bf16")]
    Bf16,
    /// 8 bits, and a scale for 64 values.
    #[serde(rename = "8bit")]
    Blocks8,
}

impl From<Moments> for Storage {
    fn from(moments: Moments) -> Self {
        match moments {
            Moments::F32 => Self::F32,
            Moments::Bf16 => Self::Bf16,
            Moments::Blocks8 => Self::Blocks8,
        }
    }
}

/// `[[optimizer.groups]]`: parameters with a learning rate or a weight decay of their own.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Roles (`embeddings`, `positions`, `norms`, `biases`, `head`, `matrices`) and names, in which
    /// `*` stands for any letters: `blocks.0.*`.
    pub parameters: Vec<String>,
    /// Factor of the schedule's learning rate.
    #[serde(default = "one")]
    pub learning_rate: f64,
    /// Weight decay; by default as without the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

fn one() -> f64 {
    1.0
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            rule: RuleConfig::default(),
            moments: Moments::default(),
            weight_decay: 0.1,
            clip_norm: 1.0,
            groups: Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for OptimizerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let Self { moments, weight_decay, clip_norm, groups, .. } = Self::default();
        Ok(Self {
            moments: take(&mut table, "moments")?.unwrap_or(moments),
            weight_decay: take(&mut table, "weight_decay")?.unwrap_or(weight_decay),
            clip_norm: take(&mut table, "clip_norm")?.unwrap_or(clip_norm),
            groups: take(&mut table, "groups")?.unwrap_or(groups),
            rule: RuleConfig::from_table(table)?,
        })
    }
}

impl OptimizerConfig {
    /// The keys of `[optimizer]` for a rule; for an unknown rule only the shared ones.
    pub(crate) fn keys(rule: Option<&str>) -> Vec<&'static str> {
        let own = RuleConfig::keys(rule.unwrap_or(RuleConfig::NAMES[0])).unwrap_or_default();
        let shared = [RuleConfig::TAG, "moments", "weight_decay", "clip_norm", "groups"];
        own.iter().copied().chain(shared).collect()
    }

    /// In the words of the runtime.
    pub fn spec(&self) -> OptimizerSpec {
        OptimizerSpec { rule: self.rule.get().rule(), storage: self.moments.into() }
    }

    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        self.rule.get().validate()?;
        let not_negative = |x: f64| (0.0..f64::INFINITY).contains(&x);
        let decay = || expected("a number of at least 0", self.weight_decay);
        require(not_negative(self.weight_decay), "optimizer.weight_decay", decay)?;
        let clip = || expected("a number above 0, or inf for no clipping", self.clip_norm);
        require(self.clip_norm > 0.0, "optimizer.clip_norm", clip)?;
        for (i, group) in self.groups.iter().enumerate() {
            let of = |what: &str| format!("{what} in group {}", i + 1);
            let some = || expected(&of("some parameters"), "none");
            require(!group.parameters.is_empty(), "optimizer.groups", some)?;
            let rate = || expected(&of("a learning_rate of at least 0"), group.learning_rate);
            require(not_negative(group.learning_rate), "optimizer.groups", rate)?;
            let decay = group.weight_decay.unwrap_or(0.0);
            let problem = || expected(&of("a weight_decay of at least 0"), decay);
            require(not_negative(decay), "optimizer.groups", problem)?;
        }
        Ok(())
    }

    /// Refuses a group that names what the model does not have.
    pub(crate) fn validate_names(&self, parameters: &[Parameter]) -> Result<(), Invalid> {
        let mut wanted = self.groups.iter().flat_map(|group| &group.parameters);
        let unknown = wanted.find(|wanted| !parameters.iter().any(|p| names(wanted, p)));
        let Some(unknown) = unknown else { return Ok(()) };
        let roles: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
        let wanted = format!(
            "one of {} or the name of a parameter of the model like \"{}\"",
            roles.join(", "),
            parameters.last().map_or("", |p| &p.name),
        );
        Err(Invalid::new("optimizer.groups", expected(&wanted, format!("\"{unknown}\""))))
    }

    /// How updates treat a parameter.
    pub fn group_of(&self, parameter: &Parameter) -> UpdateGroup {
        let weight_decay = if parameter.decay { self.weight_decay } else { 0.0 };
        let named = |group: &&GroupConfig| group.parameters.iter().any(|p| names(p, parameter));
        match self.groups.iter().find(named) {
            None => UpdateGroup { learning_rate: 1.0, weight_decay },
            Some(group) => UpdateGroup {
                learning_rate: group.learning_rate,
                weight_decay: group.weight_decay.unwrap_or(weight_decay),
            },
        }
    }
}

/// Whether a role or a pattern names the parameter.
fn names(wanted: &str, parameter: &Parameter) -> bool {
    match Role::named(wanted) {
        Some(role) => Role::of(&parameter.name) == role,
        None => fits(wanted, &parameter.name),
    }
}
