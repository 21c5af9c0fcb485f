//! Tests of the next-token programs: values, gradients against finite differences, and the same
//! gradients for every recompute policy.

use octet_kernels::graph::{Goal, Policy, Program, Recompute, Variables};

use super::NextToken;
use crate::config::Config;
use crate::models::testing::{Bench, Field};
use crate::models::{
    DenseConfig, Extras, Family, ModelSize, Part, Scope,
    dense::{ActivationKind, NormKind, Positions, StorageType},
};
use crate::objectives::BatchShape;

const SHAPE: BatchShape = BatchShape { sequences: 2, sequence_length: 6 };
const VOCABULARY: usize = 11;

fn gpt2() -> DenseConfig {
    DenseConfig {
        layers: 2,
        heads: 2,
        width: 8,
        norm: NormKind::LayerNorm,
        positions: Positions::Learned,
        activation: ActivationKind::Gelu,
        bias: true,
        ..DenseConfig::default()
    }
}

fn llama() -> DenseConfig {
    DenseConfig {
        layers: 2,
        heads: 4,
        kv_heads: Some(2),
        width: 16,
        feed_forward: Some(24),
        qkv_bias: true,
        qk_norm: true,
        tied: false,
        ..DenseConfig::default()
    }
}

struct Setup {
    bench: Bench,
    model: Part,
    objective: NextToken,
}

impl Setup {
    fn new(config: &DenseConfig) -> Self {
        let mut variables = Variables::new();
        let size = ModelSize { vocabulary: VOCABULARY, max_positions: SHAPE.sequence_length };
        let model = Part::new("", config.build(size, &mut Scope::new(&mut variables)).unwrap());
        Self { bench: Bench::new(variables), model, objective: NextToken::default() }
    }

    fn train(&self, recompute: Recompute) -> Program {
        let policy = Policy { recompute: recompute.into(), ..Policy::default() };
        self.bench.compile(policy, |g| {
            let loss =
                self.objective.loss(g, &self.model, SHAPE, &mut Extras::default(), true).unwrap();
            g.fetch("loss", loss);
            Goal::Train { loss }
        })
    }

    fn evaluate(&self) -> Program {
        let policy = Policy::default();
        self.bench.compile(policy, |g| {
            self.objective.loss(g, &self.model, SHAPE, &mut Extras::default(), false).unwrap();
            Goal::Forward
        })
    }
}

/// Two windows; the first has a border between documents, and one token without a target each.
fn rows() -> Vec<(&'static str, Field)> {
    vec![
        ("tokens", Field::Integers(vec![1, 4, 2, 7, 7, 0, 10, 3, 5, 6, 8, 9])),
        ("labels", Field::Integers(vec![4, 2, -1, 7, 0, 3, 3, 5, 6, 8, 9, -1])),
        ("positions", Field::Integers(vec![0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 5])),
        ("segments", Field::Integers(vec![0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0])),
    ]
}

fn training_rows() -> Vec<(&'static str, Field)> {
    let mut fields = rows();
    fields.push(("scale", Field::Floats(vec![0.1])));
    fields
}

/// The same for evaluation: label 3 has no text, every other one two bytes.
fn evaluated_rows() -> Vec<(&'static str, Field)> {
    let mut fields = rows();
    fields.push(("bytes", Field::Integers(vec![2, 2, 0, 2, 2, 0, 0, 2, 2, 2, 2, 0])));
    fields
}

#[test]
fn text_is_summed_apart_from_what_ends_documents() {
    let mut setup = Setup::new(&DenseConfig { init_std: Some(0.3), ..llama() });
    let program = setup.evaluate();
    let all = setup.bench.run(&program, &evaluated_rows());
    let mut fields = evaluated_rows();
    let Field::Integers(labels) = &mut fields[1].1 else { panic!("labels are integers") };
    labels.iter_mut().filter(|label| **label == 3).for_each(|label| *label = -1);
    let text = setup.bench.run(&program, &fields);
    assert_eq!((all["targets"][0], text["targets"][0]), (10.0, 8.0));
    assert_eq!(all["bytes"], [16.0]);
    assert_eq!(all["text_loss_sum"], text["loss_sum"]);
    assert!(all["loss_sum"][0] > all["text_loss_sum"][0] + 0.5);
}

#[test]
fn the_first_loss_is_that_of_a_uniform_guess() {
    for config in [gpt2(), llama(), DenseConfig { dtype: StorageType::Bf16, ..llama() }] {
        let mut setup = Setup::new(&config);
        let (train, evaluate) = (setup.train(Recompute::None), setup.evaluate());
        let trained = setup.bench.run(&train, &training_rows());
        let evaluated = setup.bench.run(&evaluate, &evaluated_rows());
        assert_eq!(trained["targets"], [10.0]);
        assert_eq!(evaluated["targets"], [10.0]);
        assert_eq!(trained["loss_sum"], evaluated["loss_sum"]);
        assert!((trained["loss"][0] - 0.1 * trained["loss_sum"][0]).abs() < 1e-6);
        let uniform = (VOCABULARY as f32).ln();
        assert!((trained["loss"][0] - uniform).abs() < 0.05, "{} {uniform}", trained["loss"][0]);
    }
}

#[test]
fn dropout_is_for_training_only() {
    let config = DenseConfig { dropout: 0.5, ..llama() };
    let (mut with, mut without) = (Setup::new(&config), Setup::new(&llama()));
    let programs = [(with.evaluate(), without.evaluate())];
    for (a, b) in programs {
        assert_eq!(with.bench.run(&a, &evaluated_rows()), without.bench.run(&b, &evaluated_rows()));
    }
    let (a, b) = (with.train(Recompute::None), without.train(Recompute::None));
    let (a, b) = (with.bench.run(&a, &training_rows()), without.bench.run(&b, &training_rows()));
    assert_ne!(a["loss"], b["loss"]);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for config in [gpt2(), llama()] {
        let mut setup = Setup::new(&DenseConfig { init_std: Some(0.3), ..config });
        let program = setup.train(Recompute::None);
        setup.bench.run(&program, &training_rows());
        let names: Vec<String> =
            setup.bench.variables.parameters().iter().map(|p| p.name.clone()).collect();
        let gradients: Vec<Vec<f32>> = names.iter().map(|n| setup.bench.gradient(n)).collect();
        for (name, gradient) in names.iter().zip(gradients) {
            let values = setup.bench.load(name);
            let largest = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
            assert!(largest.is_finite(), "{name}");
            let peak = gradient.iter().position(|g| g.abs() == largest).unwrap();
            for i in [peak, 0, gradient.len() / 2, gradient.len() - 1] {
                let mut loss = |offset: f32| {
                    let mut moved = values.clone();
                    moved[i] += offset;
                    setup.bench.store(name, &moved);
                    f64::from(setup.bench.run(&program, &training_rows())["loss"][0])
                };
                let h = 5e-3;
                let slope = ((loss(h) - loss(-h)) / (2.0 * f64::from(h))) as f32;
                let allowed = 1e-2 * largest + 2e-4;
                assert!(
                    (slope - gradient[i]).abs() < allowed,
                    "{name}[{i}]: {} {slope}",
                    gradient[i]
                );
            }
            setup.bench.store(name, &values);
        }
    }
}

#[test]
fn recompute_changes_memory_but_no_gradient_bit() {
    for config in [gpt2(), llama(), DenseConfig { dropout: 0.2, ..llama() }] {
        let mut setup = Setup::new(&config);
        let kept = setup.train(Recompute::None);
        let losses = setup.bench.run(&kept, &training_rows());
        let names: Vec<String> =
            setup.bench.variables.parameters().iter().map(|p| p.name.clone()).collect();
        let all = |bench: &Bench| names.iter().map(|n| bench.gradient(n)).collect::<Vec<_>>();
        let gradients = all(&setup.bench);
        for policy in [Recompute::NormActivation, Recompute::FeedForward, Recompute::Block] {
            let program = setup.train(policy);
            assert_eq!(setup.bench.run(&program, &training_rows()), losses, "{policy:?}");
            assert_eq!(all(&setup.bench), gradients, "{policy:?}");
            assert!(program.nodes() > kept.nodes(), "{policy:?} rebuilds nothing");
        }
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    for config in [gpt2(), llama()] {
        let setup = Setup::new(&config);
        let program = setup.train(Recompute::Block);
        assert_eq!(program.gradient_writes().len(), setup.bench.variables.parameters().len());
    }
}

#[test]
fn loss_features_change_training_and_leave_reports_plain() {
    let mut plain = Setup::new(&DenseConfig { init_std: Some(0.3), ..llama() });
    let program = plain.evaluate();
    let reported = plain.bench.run(&program, &evaluated_rows())["loss_sum"].clone();
    let program = plain.train(Recompute::None);
    let trained = plain.bench.run(&program, &training_rows())["loss"].clone();
    for (key, bounded) in [("z_loss", false), ("label_smoothing", false), ("logit_softcap", true)] {
        let mut setup = Setup::new(&DenseConfig { init_std: Some(0.3), ..llama() });
        setup.objective = toml::from_str(&format!("{key} = 0.5")).unwrap();
        let program = setup.evaluate();
        let evaluated = setup.bench.run(&program, &evaluated_rows())["loss_sum"].clone();
        // A cap is part of the model; the others are part of its training only.
        assert_eq!(evaluated != reported, bounded, "{key}");
        let program = setup.train(Recompute::None);
        let results = setup.bench.run(&program, &training_rows());
        assert_eq!(results["loss_sum"], evaluated, "{key}");
        assert_ne!(results["loss"], trained, "{key}");
    }
    // Logits within ±0.001 make every class equally likely.
    plain.objective = toml::from_str("logit_softcap = 0.001").unwrap();
    let program = plain.evaluate();
    let evaluated = plain.bench.run(&program, &evaluated_rows())["loss_sum"][0];
    assert!((evaluated / 10.0 - (VOCABULARY as f32).ln()).abs() < 1e-3, "{evaluated}");
}

#[test]
fn loss_keys_are_checked_and_part_of_the_identity() {
    let load = |keys: &str| {
        let path = std::path::Path::new("a.toml");
        Config::parse(&format!("[objective]\n{keys}\n"), path, &[]).map_err(|e| e.to_string())
    };
    for (keys, says) in [
        ("z_loss = -1", "objective.z_loss: expected a number of at least 0, got -1"),
        (
            "label_smoothing = 1",
            "objective.label_smoothing: expected at least 0 and below 1, got 1",
        ),
        ("logit_softcap = 0", "objective.logit_softcap: expected a number above 0, got 0"),
        ("logit_softcap = inf", "objective.logit_softcap: expected a number above 0, got inf"),
        ("chunk_rows = 0", "objective.chunk_rows: expected at least 1, got 0"),
    ] {
        let refused = load(keys).unwrap_err();
        assert_eq!(refused, format!("a.toml:2: {says}"));
    }
    let keys = ["", "z_loss = 0.1", "label_smoothing = 0.1", "logit_softcap = 9", "chunk_rows = 8"];
    let mut digests: Vec<String> = keys.iter().map(|keys| load(keys).unwrap().digest()).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), keys.len());
}
