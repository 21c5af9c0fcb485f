//! Tests of `configs/`: every file is read, and its programs are compiled without data or device.

use std::path::PathBuf;

use octet_kernels::graph::{Layout, Mix, Policy, Program};

use super::Config;
use crate::composition::Composition;
use crate::data::TokenizerSpec;
use crate::models::{FamilyConfig, ModelSize, RecomputeConfig};
use crate::optimizer::RuleConfig;

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
    let size =
        ModelSize { vocabulary: vocabulary(config), max_positions: config.batch.sequence_length };
    let Composition { variables, drafts, .. } = Composition::new(config, size).unwrap();
    let layout = Layout::new(&variables, Default::default());
    let recompute = match config.model.recompute {
        RecomputeConfig::Fixed(recompute) => recompute,
        RecomputeConfig::Auto => Mix::default(),
    };
    let policies = [Policy { recompute, ..Policy::default() }, Policy::default()];
    let compile = |i: usize| drafts[i].compile(&variables, &layout, policies[i]).unwrap();
    let parameters = variables.parameters().iter().map(|p| p.elements()).sum();
    (parameters, [0, 1].map(compile))
}

#[test]
fn every_recipe_compiles() {
    let recipes = recipes();
    assert!(recipes.len() >= 4);
    for (_, config) in recipes {
        compile(&config);
    }
}

/// Rows of the published model's embedding, and its parameters, by how a recipe's name begins.
///
/// GPT-2: `openai/gpt-2` and its report's sizes as `transformers` counts them; Qwen and Llama: the
/// tensors of the published safetensors files.
const PUBLISHED: [(&str, usize, usize); 6] = [
    ("gpt2_124m_", 50_257, 124_439_808),
    ("gpt2_350m_", 50_257, 354_823_168),
    ("gpt2_1.5b_", 50_257, 1_557_611_200),
    ("qwen_1.5b_", 151_936, 1_543_714_304),
    ("llama_1b_", 128_256, 1_235_814_400),
    ("llama_8b_", 128_256, 8_030_261_248),
];

#[test]
fn recipes_have_exactly_the_published_parameters() {
    let mut found = [0; PUBLISHED.len()];
    for (name, config) in recipes() {
        let Some(i) = PUBLISHED.iter().position(|(begin, ..)| name.starts_with(begin)) else {
            continue;
        };
        let (_, rows, parameters) = PUBLISHED[i];
        found[i] += 1;
        let mut published = config.clone();
        published.model.vocabulary = Some(rows);
        assert_eq!(compile(&published).0, parameters, "{name}");
        // The recipe itself pads the vocabulary for matrix units, and adds nothing else.
        let padded = config.model.vocabulary.unwrap();
        let FamilyConfig::Dense(model) = &config.model.family else { continue };
        let heads = if model.tied { 1 } else { 2 };
        let padding = heads * (padded - rows) * model.width;
        assert_eq!(compile(&config).0, parameters + padding, "{name}");
        assert_eq!(padded % 128, 0, "{name}");
    }
    assert_eq!(found, [2, 2, 2, 2, 2, 1], "recipes per model");
}

#[test]
fn recipes_of_models_without_published_weights_have_the_size_that_their_papers_say() {
    // Table 2.1 of arXiv:2005.14165 and table 1 of arXiv:2204.02311.
    for (name, billions) in [("gpt3_175b", 175.0), ("palm_540b", 540.35)] {
        let (_, config) = recipes().into_iter().find(|(own, _)| own == name).unwrap();
        let off = compile(&config).0 as f64 / (billions * 1e9) - 1.0;
        assert!(off.abs() < 0.003, "{name}: {off}");
    }
}

#[test]
fn a_recipe_for_one_card_is_the_same_run_as_that_for_eight() {
    let all = recipes();
    let mut pairs = 0;
    for (name, one) in &all {
        let Some(model) = name.strip_suffix("_1xh200") else { continue };
        let (_, eight) = all.iter().find(|(n, _)| *n == format!("{model}_8xh200")).unwrap();
        assert_eq!((one.run.ranks, eight.run.ranks), (1, 8), "{model}");
        assert_eq!(one.identity(), eight.identity(), "{model}");
        pairs += 1;
    }
    assert_eq!(pairs, 5);
}

#[test]
fn every_recipe_says_what_it_is() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs");
    for (name, config) in recipes() {
        let text = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(header.len() >= 2, "{name} has no header");
        // A tokenizer that is not made from the text is somebody's to bring.
        let brought = config.data.tokenizer.ends_with(".json");
        let said = header.iter().any(|line| line.contains("Yours to bring"));
        assert_eq!(brought, said, "{name}");
    }
}

#[test]
fn small_recipes_have_the_size_that_they_say() {
    for (name, config) in recipes() {
        let (parameters, [train, evaluate]) = compile(&config);
        let expected = match name.as_str() {
            "llama_10m" => 10_819_200,
            "quickstart" => 3_148_224,
            "shakespeare_char" => 809_856,
            _ => parameters,
        };
        assert_eq!(parameters, expected, "{name}");
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
    assert_eq!((batch.micro, batch.global, batch.sequence_length), (12, 12, 64));
    assert_eq!((batch.lanes(), config.run.steps), (1, 2000));
    assert_eq!((schedule.rate(100, 2000), schedule.rate(2000, 2000)), (1e-3, 1e-4));
    let optimizer = &config.optimizer;
    let RuleConfig::AdamW(rule) = optimizer.rule else { panic!("it is AdamW") };
    let numbers = (rule.beta1, rule.beta2, optimizer.weight_decay, optimizer.clip_norm);
    assert_eq!(numbers, (0.9, 0.99, 0.1, 1.0));
}
