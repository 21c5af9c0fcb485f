//! Encoders: published sizes, gradients against finite differences, and what each token sees.

use octet_kernels::dtype::DType;
use octet_kernels::graph::{Goal, Graph, Policy, Tensor, Variables};
use octet_kernels::ops::linear_cross_entropy::{LossOptions, linear_cross_entropy};

use super::{Encoder, EncoderConfig};
use crate::models::testing::{Bench, Field};
use crate::models::{Extras, Family, Model, ModelSize, Scope, Sight, TokenBatch};

const SIZE: ModelSize = ModelSize { vocabulary: 13, max_positions: 6 };

fn small() -> EncoderConfig {
    EncoderConfig {
        layers: 2,
        width: 16,
        heads: 2,
        embedding_width: Some(8),
        init_std: 0.3,
        ..EncoderConfig::default()
    }
}

fn elements(config: &EncoderConfig, size: ModelSize) -> usize {
    let mut variables = Variables::new();
    config.build(size, &mut Scope::new(&mut variables)).unwrap();
    variables.parameters().iter().map(|p| p.elements()).sum()
}

#[test]
fn published_models_have_their_published_sizes() {
    // Hugging Face: bert-base-uncased with both heads but for the two-way classifier, and
    // google/electra-small-discriminator without its own head.
    let size = ModelSize { vocabulary: 30522, max_positions: 512 };
    let base = EncoderConfig { layers: 12, width: 768, heads: 12, ..EncoderConfig::default() };
    assert_eq!(elements(&base, size), 110_106_428 - 2 * 769);
    let small = EncoderConfig {
        layers: 12,
        width: 256,
        heads: 4,
        embedding_width: Some(128),
        pooler: false,
        head: false,
        ..EncoderConfig::default()
    };
    assert_eq!(elements(&small, size), 13_483_008);
}

fn batch(g: &mut Graph<'_>) -> TokenBatch {
    let mut input = |name| g.input(name, &[12], DType::I32);
    TokenBatch {
        tokens: input("tokens"),
        positions: input("positions"),
        segments: input("segments"),
        types: Some(input("types")),
        sequence_length: 6,
        sight: Sight::Bidirectional,
        training: false,
    }
}

fn fields(tokens: [i32; 12]) -> Vec<(&'static str, Field)> {
    vec![
        ("tokens", Field::Integers(tokens.to_vec())),
        ("positions", Field::Integers(vec![0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5])),
        ("segments", Field::Integers(vec![0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0])),
        ("types", Field::Integers(vec![0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1])),
    ]
}

const TOKENS: [i32; 12] = [1, 4, 2, 7, 7, 0, 10, 3, 5, 6, 8, 9];

fn loss(g: &mut Graph<'_>, model: &Encoder) -> Tensor {
    let batch = batch(g);
    let labels = g.input("labels", &[12], DType::I32);
    let scale = g.input("scale", &[], DType::F32);
    let rows = model.hidden(g, &batch, &mut Extras::default()).unwrap();
    let head = model.head(g, rows).unwrap();
    let (rows, weight) = (head.rows, head.weight);
    let options = LossOptions::default();
    linear_cross_entropy(g, rows, weight, head.bias, labels, scale, options).unwrap().loss
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut variables = Variables::new();
    let config = EncoderConfig { pooler: false, ..small() };
    let model = Encoder::new(&config, SIZE, &mut Scope::new(&mut variables));
    let mut bench = Bench::new(variables);
    let program = bench.compile(Policy::default(), |g| {
        let loss = loss(g, &model);
        g.fetch("loss", loss);
        Goal::Train { loss }
    });
    let given = || {
        let mut fields = fields(TOKENS);
        let labels = vec![4, -1, 7, 7, 0, 3, -1, 5, 6, 8, 9, 12];
        fields.push(("labels", Field::Integers(labels)));
        fields.push(("scale", Field::Floats(vec![0.1])));
        fields
    };
    bench.run(&program, &given());
    let names: Vec<String> = bench.variables.parameters().iter().map(|p| p.name.clone()).collect();
    let gradients: Vec<Vec<f32>> = names.iter().map(|name| bench.gradient(name)).collect();
    for (name, gradient) in names.iter().zip(gradients) {
        let values = bench.load(name);
        let largest = gradient.iter().fold(0f32, |most, g| most.max(g.abs()));
        // The bias of keys shifts all scores of a query alike.
        assert!(largest > 0.0, "{name}");
        let peak = gradient.iter().position(|g| g.abs() == largest).unwrap();
        let mut at = |offset: f32| {
            let mut moved = values.clone();
            moved[peak] += offset;
            bench.store(name, &moved);
            let loss = bench.run(&program, &given())["loss"][0];
            bench.store(name, &values);
            loss
        };
        let step = 4e-3;
        let slope = (at(step) - at(-step)) / (2.0 * step);
        let tolerance = 0.02 * largest + 1e-3;
        assert!((slope - gradient[peak]).abs() < tolerance, "{name}: {slope} {}", gradient[peak]);
    }
}

#[test]
fn a_token_sees_all_of_its_segment_and_nothing_else() {
    let mut variables = Variables::new();
    let model = Encoder::new(&small(), SIZE, &mut Scope::new(&mut variables));
    let mut bench = Bench::new(variables);
    let program = bench.compile(Policy::default(), |g| {
        let batch = batch(g);
        let rows = model.hidden(g, &batch, &mut Extras::default()).unwrap();
        g.fetch("rows", rows);
        Goal::Forward
    });
    let mut rows = |tokens| bench.run(&program, &fields(tokens))["rows"].clone();
    let before = rows(TOKENS);
    let mut changed = TOKENS;
    changed[3] = 11;
    let after = rows(changed);
    let differ = |row: usize| before[row * 16..][..16] != after[row * 16..][..16];
    let seen: Vec<usize> = (0..12).filter(|&row| differ(row)).collect();
    assert_eq!(seen, [0, 1, 2, 3]);
}
