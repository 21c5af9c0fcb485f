//! The models of a run, by name: `[model]` and `[model.parts.NAME]`.
//!
//! Duty: builds those that a run uses, each under its name, trained, frozen, or as the moving
//! average of another one, with what it shares. Prohibition: knows no objective.

use std::collections::BTreeMap;
use std::sync::Arc;

use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Graph, ParameterId, Tensor, Variables};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Extras, FamilyConfig, Head, Model, ModelConfig, ModelSize, Scope, TokenBatch};
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::config::tagged::take;

#[cfg(test)]
mod tests;

/// What `[model]` is called where models are named.
pub const MAIN: &str = "model";

/// `[model.parts.NAME]`: one more model, the keys of its family beside these.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct PartConfig {
    /// The family and its keys; by default those of the run in `from`, or of what it is the average
    /// of.
    #[serde(flatten)]
    pub family: FamilyConfig,
    /// A run of the same tokenizer, whose newest checkpoint gives the first values: those of its
    /// `[model]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// It is never trained.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// The model whose moving average it is: it begins as that one and follows every update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_of: Option<String>,
    /// The part of an average that stays, in every step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<f64>,
    /// The model whose parameters it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<String>,
    /// Names of what is shared, in which `*` stands for any letters; of another shape nothing is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
}

/// The keys of a part beside those of its family.
const OWN_KEYS: [&str; 6] = ["from", "frozen", "average_of", "decay", "shared_with", "shared"];

/// What stays of an average in a step, where nothing is said.
const DECAY: f64 = 0.999;

impl PartConfig {
    /// The keys of a part of a family; for an unknown family only the shared ones.
    pub(crate) fn keys(family: Option<&str>) -> Vec<&'static str> {
        let own = FamilyConfig::keys(family.unwrap_or(FamilyConfig::NAMES[0]));
        let shared = OWN_KEYS.into_iter().chain([FamilyConfig::TAG]);
        own.unwrap_or_default().iter().copied().chain(shared).collect()
    }

    /// Whether a table leaves the family to another model.
    pub(crate) fn leaves_family(table: &toml::Table) -> bool {
        table.keys().all(|key| OWN_KEYS.contains(&key.as_str()))
    }

    /// The models that must be there before it.
    fn needs(&self) -> impl Iterator<Item = &str> {
        self.average_of.iter().chain(&self.shared_with).map(String::as_str)
    }

    fn validate(&self, key: &str, all: &ModelConfig) -> std::result::Result<(), Invalid> {
        let of = |name: &str| format!("{key}.{name}");
        for (name, other) in [("average_of", &self.average_of), ("shared_with", &self.shared_with)]
        {
            let Some(other) = other else { continue };
            let mut known = all.parts.iter();
            let first = other == MAIN
                || known.any(|(name, part)| name == other && part.needs().next().is_none());
            let wanted = "\"model\" or a part that follows and shares nothing itself";
            require(first, of(name), || expected(wanted, format!("\"{other}\"")))?;
        }
        let decay = self.decay.unwrap_or(DECAY);
        let wanted = "at least 0 and below 1";
        require((0.0..1.0).contains(&decay), of("decay"), || expected(wanted, decay))?;
        let lonely = self.decay.is_none() || self.average_of.is_some();
        require(lonely, of("decay"), || format!("expected {key}.average_of beside it"))?;
        let lonely = self.shared.is_empty() || self.shared_with.is_some();
        require(lonely, of("shared"), || format!("expected {key}.shared_with beside it"))?;
        let once = self.from.is_none() || self.average_of.is_none();
        let problem = || "expected no average_of beside it: that begins as the other".to_owned();
        require(once, of("from"), problem)?;
        let family = self.family.get().validate();
        family.map_err(|invalid| invalid.within("model", key))
    }
}

impl<'de> Deserialize<'de> for PartConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        Ok(Self {
            from: take(&mut table, "from")?,
            frozen: take(&mut table, "frozen")?.unwrap_or_default(),
            average_of: take(&mut table, "average_of")?,
            decay: take(&mut table, "decay")?,
            shared_with: take(&mut table, "shared_with")?,
            shared: take(&mut table, "shared")?.unwrap_or_default(),
            family: FamilyConfig::from_table(table)?,
        })
    }
}

impl ModelConfig {
    /// Writes out what parts take from others.
    pub(super) fn resolve_parts(&mut self) {
        let known: BTreeMap<String, FamilyConfig> =
            self.parts.iter().map(|(name, part)| (name.clone(), part.family.clone())).collect();
        for part in self.parts.values_mut() {
            if let Some(other) = &part.average_of {
                let family = known.get(other).filter(|_| other != MAIN);
                part.family = family.unwrap_or(&self.family).clone();
                part.decay = part.decay.or(Some(DECAY));
            }
            part.family.get_mut().resolve();
        }
    }

    pub(super) fn validate_parts(&self) -> std::result::Result<(), Invalid> {
        for (name, part) in &self.parts {
            let key = format!("model.parts.{name}");
            let letter = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
            let usable = name != MAIN && !name.is_empty() && name.chars().all(letter);
            let wanted = "a name of lower-case letters, digits, - and _ other than \"model\"";
            require(usable, key.clone(), || expected(wanted, format!("\"{name}\"")))?;
            part.validate(&key, self)?;
        }
        Ok(())
    }

    /// The family of a model by name; `None` for an unknown one.
    pub fn family_of(&self, name: &str) -> Option<&FamilyConfig> {
        if name == MAIN {
            return Some(&self.family);
        }
        self.parts.get(name).map(|part| &part.family)
    }
}

/// A model of a run.
#[derive(Debug)]
pub struct Part {
    /// What stands before its parameters' names; empty for `[model]`.
    name: String,
    model: Box<dyn Model>,
}

impl Part {
    /// A model under a name; none is the run's `[model]`.
    pub fn new(name: &str, model: Box<dyn Model>) -> Self {
        Self { name: name.to_owned(), model }
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// The name before its parameters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`Model::hidden`], with the model's own random numbers.
    ///
    /// # Errors
    /// As [`Model::hidden`].
    pub fn hidden(
        &self,
        g: &mut Graph<'_>,
        batch: &TokenBatch,
        extras: &mut Extras,
    ) -> Result<Tensor> {
        extras.within(&self.name, |extras| self.scoped(g, |g| self.model.hidden(g, batch, extras)))
    }

    /// As [`super::AfterUpdate::trace`]; nothing for a model that does nothing then.
    ///
    /// # Errors
    /// As there.
    pub fn after_update(&self, g: &mut Graph<'_>) -> Result<()> {
        self.scoped(g, |g| self.model.after_update().map_or(Ok(()), |after| after.trace(g)))
    }

    /// As [`Model::head`].
    ///
    /// # Errors
    /// As [`Model::head`].
    pub fn head(&self, g: &mut Graph<'_>, rows: Tensor) -> Result<Head> {
        self.scoped(g, |g| self.model.head(g, rows))
    }

    /// As [`super::Pooler::pool`].
    ///
    /// # Errors
    /// [`Error::Plan`] for a model without a pooler.
    pub fn pool(&self, g: &mut Graph<'_>, first: Tensor) -> Result<Tensor> {
        let missing = || Error::Plan(format!("{}: has no pooler", self.shown()));
        let pooler = self.model.pooler().ok_or_else(missing)?;
        self.scoped(g, |g| pooler.pool(g, first))
    }

    /// Its key in configurations.
    pub fn shown(&self) -> String {
        if self.name.is_empty() { MAIN.to_owned() } else { format!("model.parts.{}", self.name) }
    }

    fn scoped<R>(&self, g: &mut Graph<'_>, trace: impl FnOnce(&mut Graph<'_>) -> R) -> R {
        if self.name.is_empty() { trace(g) } else { g.scoped(&self.name, trace) }
    }
}

/// The models that a run uses.
#[derive(Debug, Default)]
pub struct Parts {
    parts: Vec<Arc<Part>>,
    averages: Vec<Average>,
}

/// Parameters that follow others.
#[derive(Debug, Clone)]
pub struct Average {
    /// Each with the one that it follows.
    pub pairs: Vec<(ParameterId, ParameterId)>,
    /// The part that stays in every step.
    pub decay: f32,
}

impl Parts {
    /// Builds the models of these names, and those that they need, in that order.
    ///
    /// # Errors
    /// As [`super::Family::build`].
    pub fn build(
        config: &ModelConfig,
        wanted: &[&str],
        size: ModelSize,
        variables: &mut Variables,
    ) -> Result<Self> {
        let mut names: Vec<&str> = Vec::new();
        for name in wanted {
            let needs = config.parts.get(*name).into_iter().flat_map(PartConfig::needs);
            names.extend(needs.chain([*name]));
        }
        let mut parts = Self::default();
        for name in names {
            if parts.get(name).is_none() {
                parts.add(config, name, size, variables)?;
            }
        }
        Ok(parts)
    }

    fn add(
        &mut self,
        config: &ModelConfig,
        name: &str,
        size: ModelSize,
        variables: &mut Variables,
    ) -> Result<()> {
        let scope_of = |name: &str| if name == MAIN { String::new() } else { name.to_owned() };
        let unknown = || Error::Plan(format!("model.parts: there is no \"{name}\""));
        let family = config.family_of(name).ok_or_else(unknown)?;
        let own = scope_of(name);
        let first = variables.parameters().len();
        let mut scope = Scope::new(variables).named(&own);
        let part = config.parts.get(name);
        if let Some(part) = part {
            scope = scope.frozen(part.frozen);
            if let Some(other) = &part.average_of {
                scope = scope.following(&scope_of(other));
            }
            if let Some(other) = &part.shared_with {
                scope = scope.sharing(&scope_of(other), &part.shared);
            }
        }
        let model = family.get().build(size, &mut scope)?;
        if let Some((part, other)) = part.and_then(|part| Some((part, part.average_of.as_ref()?))) {
            let decay = part.decay.unwrap_or(DECAY) as f32;
            let added = first..variables.parameters().len();
            let pairs = added.filter_map(|id| follows(variables, id, &own, &scope_of(other)));
            self.averages.push(Average { pairs: pairs.collect(), decay });
        }
        self.parts.push(Arc::new(Part::new(&own, model)));
        Ok(())
    }

    /// These models, which nothing follows.
    #[cfg(test)]
    pub(crate) fn of(parts: Vec<Arc<Part>>) -> Self {
        Self { parts, averages: Vec::new() }
    }

    /// The model of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Part>> {
        let scope = if name == MAIN { "" } else { name };
        self.parts.iter().find(|part| part.name == scope)
    }

    /// All of them, in the order in which they were built.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.parts.iter()
    }

    /// What follows every update.
    pub fn averages(&self) -> &[Average] {
        &self.averages
    }
}

/// A parameter of `own` with its counterpart in `other`.
fn follows(
    variables: &Variables,
    id: usize,
    own: &str,
    other: &str,
) -> Option<(ParameterId, ParameterId)> {
    let name = variables.parameters()[id].name.strip_prefix(own)?.strip_prefix('.')?;
    let wanted = if other.is_empty() { name.to_owned() } else { format!("{other}.{name}") };
    let leader = variables.parameters().iter().position(|p| p.name == wanted)?;
    Some((ParameterId(id), ParameterId(leader)))
}
