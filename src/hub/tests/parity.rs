//! Every case of the golden file: in, computed, out, in and out again.
//!
//! With `OCTET_HUB_PARITY=FOLDER` the exports stay there, for `scripts/hub_reference.py` to load.

use std::path::{Path, PathBuf};

use octet_kernels::dtype::DType;
use octet_kernels::graph::{Goal, Policy, Variables};
use octet_kernels::ops::linear::linear;
use serde_json::Value;

use super::{
    Case, Golden, encoders, export_to, files_of, golden, parameters_of, scratch, tensors_in,
    tensors_of, write_folder,
};
use crate::models::testing::{Bench, Field};
use crate::models::{Extras, ModelSize, Scope, Sight, TokenBatch};

/// Largest relative error of logits.
const LIMIT: f64 = 1e-5;

/// Logits of a run's model after each of some tokens.
fn logits(run: &Path, length: usize) -> impl FnMut(&[i32]) -> Vec<Vec<f32>> {
    let (config, values) = parameters_of(run);
    let mut variables = Variables::new();
    let vocabulary = config.model.vocabulary.unwrap();
    let size = ModelSize { vocabulary, max_positions: length };
    let model = config.model.family.get().build(size, &mut Scope::new(&mut variables)).unwrap();
    let mut bench = Bench::new(variables);
    for (name, values) in &values {
        bench.store(name, values);
    }
    let program = bench.compile(Policy::default(), |g| {
        let mut input = |name| g.input(name, &[length], DType::I32);
        let batch = TokenBatch {
            tokens: input("tokens"),
            positions: input("positions"),
            segments: input("segments"),
            types: None,
            sequence_length: length,
            sight: Sight::Causal,
            training: false,
        };
        let hidden = model.hidden(g, &batch, &mut Extras::default()).unwrap();
        let head = model.head(g, hidden).unwrap();
        let logits = linear(g, head.rows, head.weight, head.bias).unwrap();
        g.fetch("logits", logits);
        Goal::Forward
    });
    move |tokens| {
        let mut padded = tokens.to_vec();
        padded.resize(length, 0);
        let fields = [
            ("tokens", padded),
            ("positions", (0..length as i32).collect()),
            ("segments", vec![0; length]),
        ];
        let fields = fields.map(|(name, values)| (name, Field::Integers(values)));
        let found = bench.run(&program, &fields).remove("logits").unwrap();
        found.chunks(vocabulary).take(tokens.len()).map(<[f32]>::to_vec).collect()
    }
}

fn best(logits: &[f32]) -> i32 {
    let ranked = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    ranked.unwrap().0 as i32
}

fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect()
}

/// Logits of a run's model at the places that are shown; it goes on as the case does.
fn goes_on(golden: &Golden, case: &Case, run: &Path) -> Vec<Vec<f32>> {
    let mut tokens = golden.prompt.clone();
    let mut model = logits(run, tokens.len() + case.greedy.len());
    let found = model(&tokens);
    assert_eq!(found[0].len(), golden.vocabulary);
    for _ in &case.greedy {
        let next = best(model(&tokens).last().unwrap());
        tokens.push(next);
    }
    assert_eq!(tokens[golden.prompt.len()..], case.greedy, "{}", case.name);
    golden.shown.iter().map(|&at| found[at].clone()).collect()
}

#[test]
fn models_of_transformers_compute_the_same_and_come_out_as_they_came_in() {
    let golden = golden();
    assert!(golden.cases.len() >= 23);
    let kept = std::env::var_os("OCTET_HUB_PARITY").map(PathBuf::from);
    let mut figures = serde_json::Map::new();
    for case in &golden.cases {
        let (name, own) = (&case.name, scratch());
        let place = own.path();
        let [theirs, run, again, twice] =
            ["theirs", "run", "again", "twice"].map(|part| place.join(part));
        let tensors = tensors_of(&golden, case);
        write_folder(&theirs, &case.config, &tensors);
        let class = case.config["architectures"][0].as_str().unwrap();
        let judges = class == "ElectraForPreTraining";
        encoders::import_to(&theirs, &run, judges);
        let found = match case.greedy.is_empty() {
            true => encoders::told(&run, &golden.prompt, &golden.shown),
            false => goes_on(&golden, case, &run),
        };
        let (mut error, mut norm) = (0.0, 0.0);
        assert_eq!(found.len(), case.logits.len(), "{name}");
        for (found, expected) in found.iter().zip(&case.logits) {
            assert_eq!(found.len(), expected.len(), "{name}");
            for (found, expected) in found.iter().zip(expected) {
                error += (f64::from(*found) - expected).powi(2);
                norm += expected.powi(2);
            }
        }
        let error = (error / norm).sqrt();
        figures.insert(name.clone(), error.into());
        assert!(error <= LIMIT, "{name}: logits differ by {error:e}");
        // Out again: the same tensors, bit for bit.
        let out = kept.as_deref().unwrap_or(place).join(slug(name));
        let exported = export_to(&run, &out).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(exported.architecture, class, "{name}");
        let stored = tensors_in(&out.join("model.safetensors"));
        assert_eq!(stored.len(), tensors.len(), "{name}");
        for (tensor, _, values) in &tensors {
            assert!(stored[tensor] == *values, "{name}: {tensor}");
        }
        encoders::import_to(&out, &again, judges);
        export_to(&again, &twice).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(files_of(&out) == files_of(&twice), "{name}: an export that came back");
    }
    if let Some(folder) = kept {
        std::fs::write(folder.join("figures.json"), Value::Object(figures).to_string()).unwrap();
    }
}
