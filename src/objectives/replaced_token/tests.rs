//! Replaced tokens: what a record says, and the parts of the loss by hand.

use octet_kernels::graph::{Goal, Policy, Variables};

use super::{ReplacedToken, Verdict, With};
use crate::models::testing::{Bench, Field};
use crate::models::{EncoderConfig, Extras, Family, ModelSize, Part, Scope};
use crate::objectives::BatchShape;

use std::sync::Arc;

use octet_kernels::dtype::DType;
use octet_kernels::graph::{Init, Parameter};

const SHAPE: BatchShape = BatchShape { sequences: 1, sequence_length: 6 };
/// Tokens 0 to 4, and the mask.
const SIZE: ModelSize = ModelSize { vocabulary: 6, max_positions: 6 };

fn with(variables: &mut Variables) -> With {
    let config = EncoderConfig { layers: 1, heads: 1, width: 8, ..EncoderConfig::default() };
    let mut part = |name: &str| {
        let mut scope = Scope::new(variables).named(name);
        Arc::new(Part::new(name, config.build(SIZE, &mut scope).unwrap()))
    };
    let (judge, generator) = (part(""), part("generator"));
    let mut add = |name: &str, shape: &[usize]| {
        variables.parameter(Parameter {
            name: format!("verdict.{name}"),
            shape: shape.to_vec(),
            dtype: DType::F32,
            trainable: true,
            decay: true,
            init: Init::Normal { std: 0.5 },
        })
    };
    let dense = (add("dense.weight", &[8, 8]), add("dense.bias", &[8]));
    let output = (add("output.weight", &[1, 8]), add("output.bias", &[1]));
    let labels = ["generator", "verdict"].map(str::to_owned);
    With { judge, generator, shape: SHAPE, verdict: Verdict { dense, output }, labels }
}

fn fields() -> Vec<(&'static str, Field)> {
    vec![
        ("tokens", Field::Integers(vec![3, 1, 4, 2, 0, 0])),
        ("seen", Field::Integers(vec![3, 5, 4, 2, 0, 0])),
        // The last place is padding.
        ("there", Field::Integers(vec![1, 1, 1, 1, 1, 0])),
        ("positions", Field::Integers((0..6).collect())),
        ("segments", Field::Integers(vec![0, 0, 0, 0, 0, 1])),
        ("hidden", Field::Integers(vec![1])),
        ("labels", Field::Integers(vec![1])),
        ("row_sample", Field::Integers(vec![0])),
        ("element", Field::Integers(vec![1])),
        ("scale", Field::Floats(vec![1.0])),
        ("judge_scale", Field::Floats(vec![10.0])),
    ]
}

/// Runs a step in which the generator is sure that the hidden token is `sure`.
fn judged(sure: usize) -> std::collections::HashMap<String, Vec<f32>> {
    let mut variables = Variables::new();
    let with = with(&mut variables);
    let mut bench = Bench::new(variables);
    let mut bias = [0.0; 6];
    bias[sure] = 100.0;
    bench.store("generator.head.bias", &bias);
    let objective = ReplacedToken::default();
    let program = bench.compile(Policy::default(), |g| {
        let loss = objective.trace(g, &with, &mut Extras::default(), true).unwrap();
        g.fetch("loss", loss);
        Goal::Train { loss }
    });
    let results = bench.run(&program, &fields());
    let largest = |name: &str| bench.gradient(name).iter().fold(0f32, |most, g| most.max(g.abs()));
    assert!(largest("verdict.output.weight") > 0.0 && largest("embedding.weight") > 0.0);
    // Nothing flows back through a draw: a generator that is right is told nothing.
    assert_eq!(largest("generator.head.bias") < 1e-3, sure == 1);
    results
}

#[test]
fn a_draw_that_is_right_is_no_replacement() {
    let (right, wrong) = (judged(1), judged(2));
    for results in [&right, &wrong] {
        assert_eq!((results["generator.targets"][0], results["verdict.targets"][0]), (1.0, 5.0));
        let sum = results["generator.loss_sum"][0] + 10.0 * results["verdict.loss_sum"][0];
        assert!((results["loss"][0] - sum).abs() < 1e-3 * sum.abs());
    }
    assert!(right["generator.loss_sum"][0] < 1e-3 && wrong["generator.loss_sum"][0] > 90.0);
    assert_ne!(right["verdict.loss_sum"], wrong["verdict.loss_sum"]);
}
