//! The two halves of the loss: against the formula by hand, and nothing where both agree.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use octet_kernels::graph::{Goal, Policy, Variables};

use super::{Distillation, With};
use crate::config::Config;
use crate::models::testing::{Bench, Field};
use crate::models::{DenseConfig, Extras, Family, ModelSize, Part, Scope};
use crate::objectives::BatchShape;

const SHAPE: BatchShape = BatchShape { sequences: 1, sequence_length: 4 };
const SIZE: ModelSize = ModelSize { vocabulary: 3, max_positions: 4 };

/// A student and a teacher whose last norm gives rows of these numbers, so that the logits are
/// those of one row of the embedding.
fn run(student: [f32; 3], teacher: [f32; 3]) -> HashMap<String, Vec<f32>> {
    let mut variables = Variables::new();
    let config = DenseConfig { layers: 1, heads: 1, width: 2, tied: false, ..Default::default() };
    let mut part = |name: &str, frozen: bool| {
        let mut scope = Scope::new(&mut variables).named(name).frozen(frozen);
        Arc::new(Part::new(name, config.build(SIZE, &mut scope).unwrap()))
    };
    let (own, told) = (part("", false), part("teacher", true));
    let mut bench = Bench::new(variables);
    for (scope, logits) in [("", student), ("teacher.", teacher)] {
        // Rows of (1, 1) times √2 over their own length, then the head's two columns.
        bench.store(&format!("{scope}final_norm.weight"), &[0.0, 0.0]);
        let half = logits.map(|x| [x, 0.0]).concat();
        bench.store(&format!("{scope}head.weight"), &half);
        bench.store(&format!("{scope}embedding.weight"), &[1.0; 6]);
        bench.store(&format!("{scope}blocks.0.attention.output.weight"), &[0.0; 4]);
        let name = format!("{scope}blocks.0.feed_forward.down.weight");
        let zeros = vec![0.0; bench.load(&name).len()];
        bench.store(&name, &zeros);
        bench.store(&format!("{scope}final_norm.weight"), &[1.0, 1.0]);
    }
    let labels = ["text", "teacher"].map(str::to_owned);
    let with = With { student: own, teacher: told, shape: SHAPE, labels };
    let objective = Distillation { temperature: 2.0, ..Distillation::default() };
    let program = bench.compile(Policy::default(), |g| {
        let loss = objective.trace(g, &with, &mut Extras::default()).unwrap();
        g.fetch("loss", loss);
        Goal::Train { loss }
    });
    bench.run(
        &program,
        &[
            ("tokens", Field::Integers(vec![0, 1, 2, 0])),
            ("labels", Field::Integers(vec![1, 2, -1, 0])),
            ("positions", Field::Integers(vec![0, 1, 2, 3])),
            ("segments", Field::Integers(vec![0; 4])),
            ("scale", Field::Floats(vec![0.25])),
            ("teacher_scale", Field::Floats(vec![0.5])),
        ],
    )
}

fn log_softmax(logits: [f32; 3], temperature: f64) -> [f64; 3] {
    let scaled = logits.map(|x| f64::from(x) / temperature);
    let sum = scaled.iter().map(|x| x.exp()).sum::<f64>().ln();
    scaled.map(|x| x - sum)
}

#[test]
fn the_teacher_is_heard_by_the_formula() {
    let (student, teacher) = ([0.5, -1.0, 2.0], [1.5, 0.0, -0.5]);
    let results = run(student, teacher);
    let own = log_softmax(student, 1.0);
    // Three rows have a target: 1, 2 and 0.
    let text: f64 = -(own[1] + own[2] + own[0]);
    let (soft, told) = (log_softmax(student, 2.0), log_softmax(teacher, 2.0));
    let kl: f64 = told.iter().zip(soft).map(|(t, s)| t.exp() * (t - s)).sum();
    let close = |got: f32, wanted: f64| {
        assert!((f64::from(got) - wanted).abs() < 1e-4 * wanted.abs().max(1.0), "{got} {wanted}");
    };
    close(results["text.loss_sum"][0], text);
    close(results["teacher.loss_sum"][0], 3.0 * 4.0 * kl);
    close(results["loss"][0], 0.25 * text + 0.5 * 12.0 * kl);
    assert_eq!(results["teacher.targets"], [3.0]);
}

#[test]
fn who_agrees_with_the_teacher_hears_nothing() {
    let results = run([0.5, -1.0, 2.0], [0.5, -1.0, 2.0]);
    assert!(results["teacher.loss_sum"][0].abs() < 1e-5);
}

#[test]
fn what_does_not_fit_is_named() {
    let load = |text: &str| {
        let text = format!("[objective]\nkind = \"distillation\"\n{text}");
        Config::parse(&text, Path::new("a.toml"), &[]).map_err(|error| error.to_string())
    };
    let error = load("").unwrap_err();
    assert!(error.contains("models that are one of [model.parts], got \"teacher\""), "{error}");
    let error = load("temperature = 0\n").unwrap_err();
    assert!(
        error.starts_with("a.toml:3: objective.temperature: expected a number above"),
        "{error}"
    );
    load("[model.parts.teacher]\nfrozen = true\n").unwrap();
}
