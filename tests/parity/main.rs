//! Octet against PyTorch: loss, gradients and ten AdamW steps of GPT-2, Llama and Qwen from equal
//! weights, of what a recipe can add to them, and of BERT and ELECTRA as transformers has them.
//!
//! `tests/golden/parity.json` holds what PyTorch computed and nothing else; `scripts/parity` makes
//! it, and says how both sides compute weights and tokens. The steps are those of a run: lanes of
//! micro-batches, reduction, clipping, update, snapshot. A gradient is seen as the first moment
//! after one update without clipping.
//!
//! With `OCTET_PARITY=FILE` the reference is that file and every error is printed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use octet::config::Config;
use octet::optimizer::RuleConfig;
use octet_actors::rank_memory::Zero;
use octet_actors::testing::{Leg, Trial, train_from};
use serde::Deserialize;

use formula::{PROJECTIONS, projections, weight};
use workload::{CLIP_NORM, Fixed};

mod encoders;
mod formula;
mod workload;

/// Largest relative error of a step's loss.
const LOSS: f64 = 1e-5;
/// Largest error of a tensor or a norm, relative to its norm: of gradients, and of what ten steps
/// have added to parameters.
const TENSOR: f64 = 1e-4;

/// What PyTorch computed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    made_by: String,
    cases: BTreeMap<String, Case>,
}

/// Ten steps of one model, and by name the gradients of the first and what all ten have added.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    losses: Vec<f64>,
    norms: Vec<f64>,
    rates: Vec<f64>,
    gradients: BTreeMap<String, Kept>,
    changes: BTreeMap<String, Kept>,
}

/// What is kept of a tensor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    norm: f64,
    projections: [f64; PROJECTIONS],
    probes: Vec<(usize, f64)>,
    #[serde(default)]
    elements: Option<Vec<f64>>,
}

impl Kept {
    /// The norm of the difference over the norm of the tensor: exact with all elements, else the
    /// mean over projections, which is the same in expectation; and at least that of each probe.
    fn error(&self, name: &str, values: &[f32]) -> f64 {
        let difference = match &self.elements {
            Some(elements) => {
                assert_eq!(elements.len(), values.len(), "{name}");
                let pairs = elements.iter().zip(values);
                pairs.map(|(e, &v)| (f64::from(v) - e).powi(2)).sum::<f64>().sqrt()
            }
            None => {
                let ours = projections(name, values);
                let squares = ours.iter().zip(&self.projections).map(|(a, b)| (a - b).powi(2));
                (squares.sum::<f64>() / PROJECTIONS as f64).sqrt()
            }
        };
        let probe = |&(at, expected): &(usize, f64)| (f64::from(values[at]) - expected).abs();
        self.probes.iter().map(probe).fold(difference, f64::max) / self.norm
    }
}

/// Compares, remembers what is too far away, and prints everything if asked to.
struct Table {
    print: bool,
    failures: Vec<String>,
}

impl Table {
    fn row(&mut self, what: &str, error: f64, limit: f64) {
        if self.print {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{what:<64} {error:9.2e} of {limit:.0e}").unwrap();
        }
        // A NaN is a failure.
        if error.is_nan() || error > limit {
            self.failures.push(format!("{what}: {error:.2e}, at most {limit:.0e}"));
        }
    }
}

/// The reference, and whether to print.
fn golden() -> (Golden, bool) {
    let named = std::env::var_os("OCTET_PARITY").map(PathBuf::from);
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parity.json");
    let path = named.clone().unwrap_or(committed);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let golden: Golden = serde_json::from_str(&text).unwrap();
    assert!(golden.made_by.starts_with("PyTorch "), "made by {}", golden.made_by);
    (golden, named.is_some())
}

/// The steps of a run from the shared weights.
fn train(config: &Config, steps: u64) -> Trial {
    let workload: Arc<dyn octet_actors::contract::Workload> = Arc::new(Fixed::new(config));
    let leg = Leg { ranks: 1, zero: Zero::Zero1, steps };
    let first_values = |name: &str, values: &mut [f32]| {
        values.iter_mut().enumerate().for_each(|(i, value)| *value = weight(name, i));
    };
    train_from(&workload, &first_values, &[leg]).unwrap()
}

fn relative(ours: f64, expected: f64) -> f64 {
    (ours - expected).abs() / expected.abs()
}

/// What training has added to a tensor, or to a part of one: `NAME[a:b]`.
fn change(run: &Trial, part: &str) -> Vec<f32> {
    let (name, range) = part.split_once('[').unwrap_or((part, ""));
    let trained = run.floats(name);
    let added: Vec<f32> =
        trained.into_iter().enumerate().map(|(i, now)| now - weight(name, i)).collect();
    match range.trim_end_matches(']').split_once(':') {
        Some((from, to)) => added[from.parse().unwrap()..to.parse().unwrap()].to_vec(),
        None => added,
    }
}

fn check(name: &str) {
    let (golden, print) = golden();
    let case = &golden.cases[name];
    let mut table = Table { print, failures: Vec::new() };

    let config = workload::config(name, f64::INFINITY);
    let once = train(&config, 1);
    for (tensor, kept) in &case.gradients {
        let RuleConfig::AdamW(rule) = config.optimizer.rule else { panic!("it is AdamW") };
        let unscaled = |m: f32| (f64::from(m) / (1.0 - rule.beta1)) as f32;
        let moments = once.floats(&format!("{tensor}.exp_avg"));
        let gradient: Vec<f32> = moments.into_iter().map(unscaled).collect();
        table.row(&format!("{name} gradient {tensor}"), kept.error(tensor, &gradient), TENSOR);
    }
    // What no token is of has no gradient, such as types in windows.
    let moved =
        |key: &&String| key.ends_with(".exp_avg") && once.floats(key).iter().any(|&m| m != 0.0);
    let trained = once.tensors.keys().filter(moved).count();
    assert_eq!(trained, case.gradients.len(), "every parameter is compared");

    let config = workload::config(name, CLIP_NORM);
    let run = train(&config, case.losses.len() as u64);
    for (i, report) in run.reports.iter().enumerate() {
        let mut row = |what: &str, ours, expected, limit| {
            table.row(&format!("{name} step {} {what}", i + 1), relative(ours, expected), limit);
        };
        row("loss", report.loss, case.losses[i], LOSS);
        row("gradient norm", report.grad_norm, case.norms[i], TENSOR);
        row("learning rate", report.learning_rate, case.rates[i], 1e-12);
    }
    for (part, kept) in &case.changes {
        table.row(&format!("{name} change {part}"), kept.error(part, &change(&run, part)), TENSOR);
    }
    let failures = table.failures;
    assert!(failures.is_empty(), "against {}:\n{}", golden.made_by, failures.join("\n"));
}

#[test]
fn gpt2_agrees() {
    check("gpt2");
}

#[test]
fn llama_agrees() {
    check("llama");
}

#[test]
fn qwen_agrees() {
    check("qwen");
}

#[test]
fn windows_norms_of_heads_and_capped_logits_agree() {
    check("gemma");
}

#[test]
fn palm_agrees() {
    check("palm");
}

#[test]
fn gpt3_agrees() {
    check("gpt3");
}

#[test]
fn bert_agrees() {
    check("bert");
}

#[test]
fn electra_agrees() {
    check("electra");
}

#[test]
fn smoothing_z_loss_and_groups_agree() {
    check("recipe");
}
