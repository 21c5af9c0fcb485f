//! Tests of `configs/`: every file is read, and its programs are compiled without data or device.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use octet_kernels::graph::{Graph, Layout, Policy, Program, Variables};

use super::Config;
use crate::data::TokenizerSpec;
use crate::models::{ModelSize, RecomputeConfig};
use crate::objectives::BatchShape;

fn recipes() -> Vec<(String, Config)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs");
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|p| p.extension().is_some()).collect();
    files.sort();
    let name = |file: &PathBuf| file.file_stem().unwrap().to_str().unwrap().to_owned();
    let load = |file: &PathBuf| Config::load(file, &[]).unwrap_or_else(|error| panic!("{error}"));
    files.iter().map(|file| (name(file), load(file))).collect()
}

fn vocabulary(config: &Config) -> usize {
    config.model.padded_vocabulary(match TokenizerSpec::parse(&config.data.tokenizer).unwrap() {
        TokenizerSpec::Bytes => 257,
        TokenizerSpec::Characters => 65,
        TokenizerSpec::Bpe(size) => size,
        TokenizerSpec::File(_) => 0,
    })
}

/// Parameters, and the programs for training and evaluating.
fn compile(config: &Config) -> (usize, [Program; 2]) {
    let mut variables = Variables::new();
    let (sequences, sequence_length) = (config.batch.micro, config.batch.sequence_length);
    let size = ModelSize { vocabulary: vocabulary(config), max_positions: sequence_length };
    let model = config.model.build(size, &mut variables).unwrap();
    let layout = Layout::new(&variables, Default::default());
    let shape = BatchShape { sequences, sequence_length };
    let objective = config.objective.get();
    let mut g = Graph::new(&variables);
    let goal = objective.train(&mut g, &*model, shape).unwrap();
    let RecomputeConfig::Fixed(recompute) = config.model.recompute else { panic!("not settled") };
    let policy = Policy { recompute, ..Policy::default() };
    let train = Program::compile("train", g, &goal, policy, &layout).unwrap();
    let mut g = Graph::new(&variables);
    let goal = objective.evaluate(&mut g, &*model, shape).unwrap();
    let evaluate = Program::compile("evaluate", g, &goal, Policy::default(), &layout).unwrap();
    let parameters = variables.parameters().iter().map(|p| p.elements()).sum();
    (parameters, [train, evaluate])
}

#[test]
fn every_recipe_compiles_in_well_under_a_second() {
    let recipes = recipes();
    assert!(recipes.len() >= 4);
    for (name, config) in recipes {
        // The shortest of a few tries: tests share the machine.
        let time = || {
            let start = Instant::now();
            compile(&config);
            start.elapsed()
        };
        let shortest = (0..3).map(|_| time()).min().unwrap();
        assert!(shortest < Duration::from_millis(500), "{name} took {shortest:?}");
    }
}

#[test]
fn recipes_are_what_they_are_named_after() {
    for (name, config) in recipes() {
        let (parameters, [train, evaluate]) = compile(&config);
        let expected = match name.as_str() {
            "gpt2_124m" => 124_475_904,
            "llama_8b_8xh200" => 8_030_261_248,
            "quickstart" => 3_148_224,
            "shakespeare_char" => 809_856,
            _ => continue,
        };
        assert_eq!(parameters, expected, "{name}");
        assert_eq!(config.batch.global % config.batch.micro, 0);
        assert!(train.field("scale").is_some() && evaluate.field("scale").is_none());
        // Forward and backward are three times forward, recompute aside.
        let ratio = train.cost().flops / evaluate.cost().flops;
        assert!((2.8..4.2).contains(&ratio), "{name}: {ratio}");
    }
}

#[test]
fn the_character_recipe_is_the_published_setting() {
    let (_, config) = recipes().into_iter().find(|(name, _)| name == "shakespeare_char").unwrap();
    let (batch, schedule) = (&config.batch, &config.schedule);
    assert_eq!((batch.micro, batch.global, batch.sequence_length), (3, 12, 64));
    assert_eq!((batch.lanes(), config.run.steps), (4, 2000));
    assert_eq!((schedule.rate(100, 2000), schedule.rate(2000, 2000)), (1e-3, 1e-4));
    let optimizer = &config.optimizer;
    let numbers = (optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm);
    assert_eq!(numbers, (0.9, 0.99, 0.1, 1.0));
}
