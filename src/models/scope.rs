//! Where a model registers what it is made of: under a name, with what the name stands for.
//!
//! Several models of a run keep apart by their names. What one shares with another is registered
//! once and found by the other's name; what follows another begins as it.

use octet_kernels::graph::{Init, Parameter, ParameterId, State, StateId, Variables};

/// The variables of a run, seen from one model.
#[derive(Debug)]
pub struct Scope<'a> {
    variables: &'a mut Variables,
    /// In front of every name, with a dot; empty for the run's one model.
    prefix: String,
    frozen: bool,
    /// The prefix of the model whose values are the first ones here.
    follows: Option<String>,
    /// The prefix of the model that shares what fits one of the patterns.
    shared: Option<(String, Vec<String>)>,
}

impl<'a> Scope<'a> {
    /// Names as they are, everything trained.
    pub fn new(variables: &'a mut Variables) -> Self {
        Self { variables, prefix: String::new(), frozen: false, follows: None, shared: None }
    }

    /// Everything below this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { prefix: prefix(name), ..self }
    }

    /// Nothing is trained.
    #[must_use]
    pub fn frozen(self, frozen: bool) -> Self {
        Self { frozen: self.frozen || frozen, ..self }
    }

    /// Nothing is trained, and everything begins as it does in the model of that name.
    #[must_use]
    pub fn following(self, other: &str) -> Self {
        Self { frozen: true, follows: Some(prefix(other)), ..self }
    }

    /// What fits a pattern is the other model's, if its shape is the same.
    #[must_use]
    pub fn sharing(self, other: &str, patterns: &[String]) -> Self {
        Self { shared: Some((prefix(other), patterns.to_vec())), ..self }
    }

    /// Adds a parameter, or finds the one that is shared.
    pub fn parameter(&mut self, mut parameter: Parameter) -> ParameterId {
        if let Some((other, patterns)) = &self.shared
            && patterns.iter().any(|pattern| fits(pattern, &parameter.name))
            && let Some(id) = self.find(&format!("{other}{}", parameter.name))
            && self.variables.parameters()[id.0].shape == parameter.shape
        {
            return id;
        }
        parameter.trainable &= !self.frozen;
        if let Some(other) = &self.follows
            && let Some(id) = self.find(&format!("{other}{}", parameter.name))
        {
            parameter.init = Init::SameAs(id);
        }
        parameter.name = format!("{}{}", self.prefix, parameter.name);
        self.variables.parameter(parameter)
    }

    /// Adds a state.
    pub fn state(&mut self, state: State) -> StateId {
        let name = format!("{}{}", self.prefix, state.name);
        self.variables.state(State { name, ..state })
    }

    fn find(&self, name: &str) -> Option<ParameterId> {
        self.variables.parameters().iter().position(|p| p.name == *name).map(ParameterId)
    }
}

fn prefix(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}.") }
}

/// Whether `name` is `pattern`, in which every `*` stands for any letters.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(start) else { return false };
    name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| fits(rest, &name[at..]))
}
