//! The value of `data.clean`: steps and presets, in the order in which documents pass them.
//!
//! Duty: a step is a table with its settings, or its name alone; a preset stands for the steps
//! that it is made of. What is stored are steps. Prohibition: opens nothing.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use toml::{Table, Value};

use super::CleanStep;

/// More steps than this are a mistake.
const STEPS_MAX: usize = 64;

/// The chain of steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct CleanChain(pub Vec<CleanStep>);

impl CleanChain {
    /// True if documents pass unchanged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Files that the steps read.
    pub(in crate::data) fn files(&self) -> Vec<std::path::PathBuf> {
        self.0.iter().flat_map(|step| step.get().files()).collect()
    }

    /// The chain in pieces: each piece but the first begins with a step that must see all
    /// documents before it works.
    pub(in crate::data) fn pieces(&self) -> Vec<Self> {
        let mut pieces: Vec<Self> = Vec::new();
        for step in &self.0 {
            match pieces.last_mut().filter(|_| step.get().survey().is_none()) {
                Some(piece) => piece.0.push(step.clone()),
                None => pieces.push(Self(vec![step.clone()])),
            }
        }
        pieces
    }

    /// Checks every step.
    ///
    /// # Errors
    /// `name.setting: expected ..., got ...`.
    pub fn validate(&self) -> Result<(), String> {
        if self.0.len() > STEPS_MAX {
            return Err(format!("expected at most {STEPS_MAX} steps, got {}", self.0.len()));
        }
        self.0.iter().try_for_each(|step| {
            step.get().validate().map_err(|problem| format!("{}.{problem}", step.name()))
        })
    }
}

impl<'de> Deserialize<'de> for CleanChain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut steps = Vec::new();
        for item in Vec::<Value>::deserialize(deserializer)? {
            match item {
                Value::String(name) => steps.extend(named(&name)?),
                Value::Table(table) => steps.push(step(table)?),
                other => {
                    let what = "a step or a preset, by name or as a table";
                    return Err(wrong(what, &other.to_string()));
                }
            }
        }
        Ok(Self(steps))
    }
}

fn wrong<E: Error>(expected: &str, got: &str) -> E {
    E::custom(format_args!("expected {expected}, got {got}"))
}

fn known() -> String {
    let names = CleanStep::NAMES.iter().chain(PRESETS.iter().map(|(name, _)| name));
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// The steps that a name stands for.
fn named<E: Error>(name: &str) -> Result<Vec<CleanStep>, E> {
    if let Some((_, preset)) = PRESETS.iter().find(|(preset, _)| *preset == name) {
        let steps: Preset = toml::from_str(preset).expect("presets are read by a test");
        return Ok(steps.step.0);
    }
    if !CleanStep::NAMES.contains(&name) {
        return Err(wrong(&format!("one of {}", known()), &format!("\"{name}\"")));
    }
    let mut table = Table::new();
    table.insert(CleanStep::TAG.to_owned(), Value::String(name.to_owned()));
    Ok(vec![step(table)?])
}

fn step<E: Error>(table: Table) -> Result<CleanStep, E> {
    let name = table.get(CleanStep::TAG).and_then(Value::as_str).map(str::to_owned);
    let Some(name) = name else {
        return Err(wrong(&format!("step = one of {}", known()), "a table without it"));
    };
    let Some(keys) = CleanStep::keys(&name) else {
        return Err(wrong(&format!("step = one of {}", known()), &format!("\"{name}\"")));
    };
    for key in table.keys() {
        if key != CleanStep::TAG && !keys.contains(&key.as_str()) {
            let keys = keys.join(", ");
            return Err(E::custom(format_args!(
                "unknown setting {key} of the step \"{name}\", expected one of: {keys}"
            )));
        }
    }
    CleanStep::from_table(table)
}

/// Named chains, as the value of `step`; `c4` is one step. Lists of
/// words and addresses are the user's to add.
const PRESETS: [(&str, &str); 4] = [
    ("gopher", r#"step = ["gopher_repetition", "gopher_quality"]"#),
    // In the order of FineWeb's own script. Texts that are no pages pass the first step.
    (
        "fineweb",
        r#"step = ["html", "language", "gopher_repetition", "gopher_quality",
            {step = "c4", terminal_punctuation = false}, "fineweb_quality", "pii"]"#,
    ),
    (
        "dclm",
        r#"step = ["html", "language", {step = "gopher_quality", stop_words_distinct = false},
            "gopher_repetition", "lines"]"#,
    ),
    // A table is always a step, so that this one can have the name of its main step.
    (
        "code",
        r#"step = [{step = "unicode", form = "none", repair = false}, {step = "code"}, "pii"]"#,
    ),
];

#[derive(Deserialize)]
struct Preset {
    step: CleanChain,
}
