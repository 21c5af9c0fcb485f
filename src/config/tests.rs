//! Tests of the configuration: one clear sentence per mistake, typed `--set`, a stored form that
//! reads back, and a digest that only numbers change.

use std::path::Path;

use super::fields::edits;
use super::{BatchConfig, Config, Device};
use crate::models::FamilyConfig;
use crate::models::dense::RopeScaling;

mod identity;
mod recipes;

const TEXT: &str = r#"
[run]
steps = 20

[batch]
micro = 3
global = 12

[model]
layers = 2
"#;

fn load(text: &str, sets: &[&str]) -> Result<Config, String> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Config::parse(text, Path::new("a.toml"), &sets).map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    load(text, &[]).unwrap_err()
}

fn set_refusal(set: &str) -> String {
    load(TEXT, &[set]).unwrap_err()
}

#[test]
fn an_empty_file_is_a_usable_run() {
    let config = load("", &[]).unwrap();
    let mut resolved = Config::default();
    resolved.resolve();
    assert_eq!(config, resolved);
}

#[test]
fn every_section_lists_its_keys() {
    for section in super::fields::fields_of::<Config>() {
        let (head, place) = match *section {
            "tracks" | "tasks" => (format!("[[{section}]]"), format!("{section}[0]")),
            _ => (format!("[{section}]"), (*section).to_owned()),
        };
        let wrong = refusal(&format!("{head}\nzzzzzzzzzzzzzzzzzzzzzz = 1\n"));
        let key = format!("a.toml:2: {place}.zzzzzzzzzzzzzzzzzzzzzz: unknown key, expected one");
        assert!(wrong.starts_with(&key), "{wrong}");
    }
}

#[test]
fn mistakes_name_file_line_key_and_what_was_expected() {
    for (text, sentence) in [
        (
            "[model]\nwidth = 64\nlayer = 2\n",
            "a.toml:3: model.layer: unknown key, expected one like model.layers",
        ),
        ("[modle]\nlayers = 2\n", "a.toml:1: modle: unknown key, expected one like model"),
        ("steps = 2\n", "a.toml:1: steps: unknown key, expected one like run.steps"),
        (
            "run.steps = 2\nrun.sead = 2\n",
            "a.toml:2: run.sead: unknown key, expected one like run.seed",
        ),
        ("[run]\nmicro = 2\n", "a.toml:2: run.micro: unknown key, expected one like batch.micro"),
        ("run = 3\n", "a.toml:1: run: expected a table [run]"),
        (
            "[batch]\n\nmicro = \"three\"\n",
            "a.toml:3: batch.micro: expected a whole number of at least 0, got \"three\"",
        ),
        (
            "[batch]\nmicro = -3\n",
            "a.toml:2: batch.micro: expected a whole number of at least 0, got -3",
        ),
        (
            "[run]\ndeterministic = false\n",
            "a.toml:2: run.deterministic: expected true, since no route of this build is faster \
             without it, got false",
        ),
        (
            "[run]\ndeterministic = 1\n",
            "a.toml:2: run.deterministic: expected true or false, got 1",
        ),
        (
            "[run]\ndevice = \"gpu\"\n",
            "a.toml:2: run.device: expected one of \"auto\", \"cpu\", \"cuda\", got \"gpu\"",
        ),
        (
            "[model]\nfamily = \"dence\"\n",
            "a.toml:2: model.family: expected \"dense\" or \"encoder\", got \"dence\"",
        ),
        (
            "[model]\nrope_scaling = { factor = 8.0 }\n",
            "a.toml:2: model.rope_scaling: missing field `low_frequency`",
        ),
        (
            "[schedule]\nwarmup = 1.5\n",
            "a.toml:2: schedule.warmup: expected a whole number of at least 0, got 1.5",
        ),
    ] {
        assert_eq!(refusal(text), sentence);
    }
    let broken = refusal("[run]\nsteps = = 3\n");
    assert!(broken.starts_with("a.toml:2: not valid TOML: "), "{broken}");
    assert!(!broken.contains('\n'), "{broken}");
    let missing = Config::load(Path::new("no/such.toml"), &[]).unwrap_err().to_string();
    assert!(missing.starts_with("no/such.toml: cannot read the configuration: "), "{missing}");
}

/// A configuration, and what is said of it.
const CONTRADICTIONS: [(&str, &str); 17] = [
    (
        "[batch]\nmicro = 3\nglobal = 10\n",
        "a.toml:3: batch.global: expected a multiple of batch.micro = 3, got 10",
    ),
    // The line of the key that was given, though the complaint is about the other one.
    (
        "[batch]\nmicro = 3\n",
        "a.toml:2: batch.global: expected a multiple of batch.micro = 3, got 8",
    ),
    (
        "[batch]\nmicro = 3\nglobal = 12\nlanes = 3\n",
        "a.toml:4: batch.lanes: expected a power of two up to 64 that divides batch.global / \
         batch.micro = 4, got 3",
    ),
    (
        "[run]\nranks = 8\n[batch]\nmicro = 3\nglobal = 12\n",
        "a.toml:2: run.ranks: expected at most batch.lanes = 4, got 8",
    ),
    (
        "[model]\nheads = 3\nwidth = 128\n",
        "a.toml:3: model.width: expected a multiple of model.heads = 3, or model.head_dim, \
         got 128",
    ),
    (
        "[model]\nheads = 4\nkv_heads = 3\n",
        "a.toml:3: model.kv_heads: expected a divisor of model.heads = 4, got 3",
    ),
    (
        "[model]\nwidth = 12\nheads = 4\n",
        "a.toml:2: model.head_dim: expected an even number from 1 to 256, got 3",
    ),
    (
        "[model]\nvocabulary = 0\n",
        "a.toml:2: model.vocabulary: expected a whole number from 1 to 16777216, got 0",
    ),
    ("[run]\nsteps = 0\n", "a.toml:2: run.steps: expected at least 1, got 0"),
    ("[run]\nzero = 2\n", "a.toml:2: run.zero: expected 0 or 1, got 2"),
    (
        "[optimizer]\nbeta2 = 1\n",
        "a.toml:2: optimizer.beta2: expected at least 0 and below 1, got 1",
    ),
    (
        "[schedule]\nminimum = 1.0\n",
        "a.toml:2: schedule.minimum: expected a number from 0 to schedule.learning_rate = \
         0.001, got 1",
    ),
    (
        "[data]\nvalidation_fraction = 0\n",
        "a.toml:2: evaluate.every: expected 0, because data.validation_fraction = 0 holds \
         nothing out, got 500",
    ),
    (
        "[web]\naddress = \"8080\"\n",
        "a.toml:2: web.address: expected ADDRESS:PORT like 127.0.0.1:0, got \"8080\"",
    ),
    ("[objective]\nchunk_rows = 0\n", "a.toml:2: objective.chunk_rows: expected at least 1, got 0"),
    (
        "[data]\ntokenizer = \"byte\"\n",
        "a.toml:2: data.tokenizer: expected \"bytes\", \"characters\", \"bpe:N\" or a file, \
         got \"byte\"",
    ),
    (
        "[batch]\nsequence_length = 4000000000\n",
        "a.toml:2: batch.global: expected fewer than 2^31 tokens in a step, got batch.global = \
         8 times batch.sequence_length = 4000000000",
    ),
];

#[test]
fn keys_that_contradict_each_other_are_named_with_their_values() {
    for (text, sentence) in CONTRADICTIONS {
        assert_eq!(refusal(text), sentence);
    }
}

#[test]
fn set_takes_any_key_typed() {
    let config = load(
        TEXT,
        &[
            "run.steps=30",
            "run.device=cpu",
            "data.text=../corpus/a b.txt",
            "data.tokenizer=bpe:4096",
            "model.kv_heads = 2",
            "model.rope_scaling={factor=8.0,low_frequency=1,high_frequency=4,original_positions=9}",
            "model.rope_scaling.factor=4",
            "optimizer.clip_norm=inf",
            "sample.prompt=3",
            "web.address=127.0.0.1:0",
        ],
    )
    .unwrap();
    assert_eq!(config.run.steps, 30);
    assert_eq!(config.run.device, Device::Cpu);
    assert_eq!(config.data.text.to_string(), "../corpus/a b.txt");
    assert_eq!(config.data.tokenizer, "bpe:4096");
    assert_eq!(config.optimizer.clip_norm, f64::INFINITY);
    assert_eq!(config.sample.prompt, "3");
    assert_eq!(config.web.address.as_deref(), Some("127.0.0.1:0"));
    let FamilyConfig::Dense(dense) = &config.model.family else { panic!("it is dense") };
    assert_eq!((dense.layers, dense.kv_heads()), (2, 2));
    let llama3 = RopeScaling::Llama3 {
        factor: 4.0,
        low_frequency: 1.0,
        high_frequency: 4.0,
        original_positions: 9,
    };
    assert_eq!(dense.rope_scaling, Some(llama3));
    // A list is TOML like everything else.
    let list = load(TEXT, &["data.text=[\"a\", \"b\"]"]).unwrap();
    assert_eq!(list.data.text.0, ["a", "b"]);
    // An argument mends a mistake of the file.
    assert_eq!(load("[run]\nsteps = \"x\"\n", &["run.steps=5"]).unwrap().run.steps, 5);
}

#[test]
fn set_refuses_what_it_does_not_know() {
    for (set, sentence) in [
        ("run.stepz=3", "--set run.stepz=3: run.stepz: unknown key, expected one like run.steps"),
        (
            "modle.layers=3",
            "--set modle.layers=3: modle.layers: unknown key, expected one like model.layers",
        ),
        (
            "run.steps=many",
            "--set run.steps=many: run.steps: expected a whole number of at least 0, got \"many\"",
        ),
        ("run.steps", "--set run.steps: expected section.key=value"),
        ("steps=3", "--set steps=3: expected section.key=value"),
        (
            "batch.micro=5",
            "--set batch.micro=5: batch.global: expected a multiple of batch.micro = 5, got 12",
        ),
    ] {
        assert_eq!(set_refusal(set), sentence);
    }
}

#[test]
fn the_stored_form_reads_back_and_is_complete() {
    let config = load(TEXT, &["web.address=127.0.0.1:0", "model.vocabulary=300"]).unwrap();
    let stored = config.to_toml();
    assert_eq!(load(&stored, &[]).unwrap(), config);
    assert_eq!(load(&stored, &[]).unwrap().to_toml(), stored);
    for key in ["lanes = 4", "head_dim = 32", "kv_heads = 4", "seed = 1337", "beta2 = 0.95"] {
        assert!(stored.contains(key), "{key} is missing in\n{stored}");
    }
}

#[test]
fn lanes_are_the_largest_power_of_two_up_to_eight() {
    for (micro, global, lanes) in [(3, 12, 4), (1, 1, 1), (2, 12, 2), (1, 32, 8), (4, 480, 8)] {
        let batch = BatchConfig { micro, global, ..BatchConfig::default() };
        assert_eq!(batch.lanes(), lanes, "{micro} {global}");
    }
}

#[test]
fn the_digest_changes_with_the_numbers_and_only_with_them() {
    let digest = |sets: &[&str]| load(TEXT, sets).unwrap().digest();
    let base = digest(&[]);
    assert_eq!(base.len(), 64);
    for same in [
        "run.ranks=4",
        "run.threads=1",
        "run.depth=2",
        "run.snapshots=1",
        "run.zero=0",
        "data.text=b.txt",
        "data.cache=c",
        "model.recompute=block",
        "model.head_dim=32",
        "batch.lanes=4",
        "checkpoint.every=3",
        "checkpoint.memory_every=3",
        "recovery.bad_updates=1",
        "recovery.loss_z=3",
        "evaluate.batches=3",
        "sample.every=3",
        "web.address=127.0.0.1:0",
        "run.steps=100",
    ] {
        assert_eq!(digest(&[same]), base, "{same}");
    }
    for other in [
        "run.seed=1",
        "run.steps=101",
        "batch.lanes=2",
        "batch.global=24",
        "batch.sequence_length=64",
        "model.layers=3",
        "model.vocabulary=300",
        "optimizer.beta2=0.9",
        "schedule.learning_rate=2e-3",
        "schedule.steps=300",
        "objective.z_loss=1e-4",
        "data.document_masks=false",
    ] {
        assert_ne!(digest(&[other]), base, "{other}");
    }
    let fixed = |steps| digest(&["schedule.steps=300", steps]);
    assert_eq!(fixed("run.steps=400"), fixed("run.steps=500"));
}

#[test]
fn what_is_done_about_bad_updates_is_checked() {
    for (set, wanted) in [
        ("recovery.bad_updates=0", "expected at least 1, got 0"),
        ("recovery.rollbacks=65", "expected at most 64, got 65"),
        ("recovery.window=1", "expected 2 to 256 updates, got 1"),
        ("recovery.window=257", "expected 2 to 256 updates, got 257"),
        ("recovery.loss_z=-1", "expected a number of at least 0, and 0 for never, got -1"),
        ("recovery.norm_z=inf", "expected a number of at least 0, and 0 for never, got inf"),
    ] {
        let refused = load(TEXT, &[set]).unwrap_err().to_string();
        let key = set.split('=').next().unwrap();
        assert!(refused.contains(key) && refused.ends_with(wanted), "{refused}");
    }
    assert!(load(TEXT, &["recovery.loss_z=0", "recovery.rollbacks=0"]).is_ok());
}

#[test]
fn whoever_names_a_section_means_it() {
    for (wrong, meant) in [
        ("schedule.lr", "schedule.learning_rate"),
        ("schedule.warm", "schedule.warmup"),
        ("model.ff", "model.feed_forward"),
        ("model.vocab", "model.vocabulary"),
        ("model.ln_epsilon", "model.norm_epsilon"),
        ("batch.seq_length", "batch.sequence_length"),
        ("optimizer.eps", "optimizer.epsilon"),
        ("run.nranks", "run.ranks"),
        // The very key, or nearly, stands elsewhere.
        ("run.learning_rate", "schedule.learning_rate"),
        ("optimizer.learning_rates", "schedule.learning_rate"),
        ("run.layers", "model.layers"),
    ] {
        let said = load(TEXT, &[&format!("{wrong}=1")]).unwrap_err();
        let wanted = format!("unknown key, expected one like {meant}");
        assert!(said.ends_with(&wanted), "{said}");
    }
}

#[test]
fn keys_without_effect_exist() {
    for (key, _) in super::WITHOUT_EFFECT {
        let (section, key) = key.split_once('.').unwrap();
        let wrong = refusal(&format!("[{section}]\n{key}x = 1\n"));
        assert!(wrong.ends_with(&format!("expected one like {section}.{key}")), "{wrong}");
    }
}

#[test]
fn edits_are_counted() {
    for (a, b, n) in [("", "abc", 3), ("abc", "abc", 0), ("layer", "layers", 1), ("ab", "ba", 2)] {
        assert_eq!(edits(a, b), n);
        assert_eq!(edits(b, a), n);
    }
}
