//! What encoders of a folder tell of a prompt, as `scripts/hub_reference.py` asks them.

use std::path::Path;

use octet_kernels::dtype::DType;
use octet_kernels::graph::{Goal, Graph, ParameterId, Policy, Tensor, Variables};
use octet_kernels::ops::activation::gelu_erf;
use octet_kernels::ops::linear::linear;
use octet_kernels::ops::slice_columns::slice_columns;

use super::super::families::family_of;
use super::super::special;
use super::{parameters_of, scratch, tokenizers};
use crate::config::Config;
use crate::data::Tokenizer;
use crate::failure::USER;
use crate::hub::{Import, Imported, import};
use crate::models::testing::{Bench, Field};
use crate::models::{Extras, ModelSize, Scope, Sight, TokenBatch};
use crate::objectives::masked::{BEGIN, END, MASK};
use crate::objectives::{Ability, ObjectiveConfig};

/// How a tower that judges is trained further: with a generator beside it.
const RECIPE: &str = "\
[model]
family = \"encoder\"
[model.parts.generator]
family = \"encoder\"
layers = 1
width = 16
heads = 2
[objective]
kind = \"replaced_token\"
[batch]
sequence_length = 64
";

/// Imports an encoder; one that judges by a recipe.
pub(super) fn import_to(from: &Path, run: &Path, judges: bool) -> Imported {
    let folder = scratch();
    let recipe = folder.path().join("recipe.toml");
    std::fs::write(&recipe, RECIPE).unwrap();
    let recipe = judges.then_some(recipe);
    let job = Import { from: from.to_owned(), run: run.to_owned(), recipe, ..Import::default() };
    import(&job, &|| false).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Rows of what a run's model tells of some tokens at these places, and for pairs the verdict.
pub(super) fn told(run: &Path, tokens: &[i32], shown: &[usize]) -> Vec<Vec<f32>> {
    let (config, values) = parameters_of(run);
    let ability = family_of(&config).unwrap().1.ability;
    let (length, mut variables) = (tokens.len(), Variables::new());
    let vocabulary = config.model.vocabulary.unwrap();
    let size = ModelSize { vocabulary, max_positions: config.batch.sequence_length };
    let mut scope = Scope::new(&mut variables);
    let model = config.model.family.get().build(size, &mut scope).unwrap();
    let heads = config.objective.get().parameters(&*model);
    let heads: Vec<ParameterId> = heads.into_iter().map(|head| scope.parameter(head)).collect();
    let known: Vec<String> = variables.parameters().iter().map(|p| p.name.clone()).collect();
    let mut bench = Bench::new(variables);
    for (name, values) in values.iter().filter(|(name, _)| known.contains(name)) {
        bench.store(name, values);
    }
    let layer = |g: &mut Graph<'_>, x: Tensor, first: usize| {
        let (weight, bias) = (g.parameter(heads[first]), g.parameter(heads[first + 1]));
        linear(g, x, weight, Some(bias)).unwrap()
    };
    let program = bench.compile(Policy::default(), |g| {
        let mut input = |name| g.input(name, &[length], DType::I32);
        let batch = TokenBatch {
            tokens: input("tokens"),
            positions: input("positions"),
            segments: input("segments"),
            types: (ability == Ability::Pairs).then(|| input("types")),
            sequence_length: length,
            sight: Sight::Bidirectional,
            training: false,
        };
        let hidden = model.hidden(g, &batch, &mut Extras::default()).unwrap();
        let logits = if ability == Ability::Judges {
            let h = layer(g, hidden, 0);
            let h = gelu_erf(g, h).unwrap();
            layer(g, h, 2)
        } else {
            let head = model.head(g, hidden).unwrap();
            linear(g, head.rows, head.weight, head.bias).unwrap()
        };
        g.fetch("logits", logits);
        if ability == Ability::Pairs {
            let first = g.reshape(hidden, &[1, length * model.width()]).unwrap();
            let first = slice_columns(g, first, 0, model.width()).unwrap();
            let pooled = model.pooler().unwrap().pool(g, first).unwrap();
            let verdict = layer(g, pooled, 0);
            g.fetch("pair", verdict);
        }
        Goal::Forward
    });
    let half = |at: usize| i32::from(at >= length / 2);
    let mut fields = vec![
        ("tokens", Field::Integers(tokens.to_vec())),
        ("positions", Field::Integers((0..length as i32).collect())),
        ("segments", Field::Integers(vec![0; length])),
    ];
    if ability == Ability::Pairs {
        fields.push(("types", Field::Integers((0..length).map(half).collect())));
    }
    let mut found = bench.run(&program, &fields);
    let logits = found.remove("logits").unwrap();
    let rows: Vec<&[f32]> = logits.chunks(logits.len() / length).collect();
    let mut told: Vec<Vec<f32>> = shown.iter().map(|&at| rows[at].to_vec()).collect();
    // Their first class is that the second text follows.
    told.extend(found.remove("pair").map(|pair| vec![pair[1], pair[0]]));
    told
}

#[test]
fn a_tower_that_judges_needs_a_recipe_with_its_generator() {
    let (golden, place) = (super::golden(), scratch());
    let [theirs, run] = ["theirs", "run"].map(|name| place.path().join(name));
    super::folder_of(&golden, "electra, judge", &theirs);
    let failure = super::import_to(&theirs, &run).unwrap_err();
    assert_eq!(failure.code, USER);
    assert!(failure.what.contains("--config"), "{failure}");
    assert!(!run.exists());
}

#[test]
fn tokenizers_put_pairs_together_as_training_does() {
    let objective = ObjectiveConfig::teaching(Ability::Pairs).unwrap();
    let config = Config { objective, ..Config::default() };
    for (name, tokenizer) in tokenizers::all() {
        let json = special::json(&config, &tokenizer).unwrap();
        let read = Tokenizer::from_json(Path::new(name), json.clone(), None).unwrap();
        let id = |token: &str| read.id_of(token).unwrap_or_else(|| panic!("{name}: {token}"));
        // The tokenizer's own, or behind its tokens in the order in which inputs count them.
        let mut next = tokenizer.vocabulary() as u32;
        for token in [MASK, BEGIN, END] {
            let number = tokenizer.id_of(token).unwrap_or(next);
            next += u32::from(tokenizer.id_of(token).is_none());
            assert_eq!(id(token), number, "{name}: {token}");
        }
        let [first, second] = [0, 3].map(|text| {
            let mut tokens = Vec::new();
            tokenizer.encode(tokenizers::TEXTS[text], &mut tokens).unwrap();
            tokens
        });
        let library = ::tokenizers::Tokenizer::from_bytes(&json).unwrap();
        let pair = (tokenizers::TEXTS[0], tokenizers::TEXTS[3]);
        let found = library.encode(pair, true).unwrap();
        let ends = [id(END)];
        let whole = [&[id(BEGIN)], &first[..], &ends, &second, &ends].concat();
        assert_eq!(found.get_ids(), whole, "{name}");
        let types = [vec![0; first.len() + 2], vec![1; second.len() + 1]].concat();
        assert_eq!(found.get_type_ids(), types, "{name}");
        // What comes out goes in again as it is.
        assert!(config.added_tokens(&read).is_empty(), "{name}");
        assert!(special::json(&config, &read).unwrap() == json, "{name}");
    }
}
