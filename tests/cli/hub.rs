//! `export` and `import`: a run goes out, comes back, and is trained on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::harness::Place;

/// The files of a folder by name, but for the card, which tells of the run.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.map(|entry| {
        let name = entry.file_name().to_str().unwrap().to_owned();
        (name, fs::read(entry.path()).unwrap())
    });
    files.filter(|(name, _)| name != "README.md").collect()
}

#[test]
fn a_run_goes_out_comes_back_and_goes_on() {
    let place = Place::new();
    place.train("run", &["data.tokenizer=bpe:300"]);
    let said = place.prints(&["export", "run", "out"]);
    assert!(said.contains("step 6, ") && said.contains("LlamaForCausalLM"), "{said}");
    let names: Vec<String> = files(&place.path("out")).into_keys().collect();
    let expected = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    let card = place.read("out/README.md");
    for part in [&place.digest("run"), "octet export run out", "[model]", "- text: `text.txt`"] {
        assert!(card.contains(part), "{card}");
    }
    let said = place.prints(&["import", "out", "back", "--set", "data.text=text.txt"]);
    assert!(said.contains("go on with  octet train back/config.toml --run back"), "{said}");
    place.prints(&["verify", "back"]);
    place.prints(&["export", "back", "again"]);
    assert!(files(&place.path("out")) == files(&place.path("again")));
    // It computes the same: bit for bit in a loss, word for word in a text.
    let loss = |run: &str| {
        let text = "data.text=text.txt";
        place.json(&["evaluate", run, "--set", text, "--json"])[0]["loss"].as_f64().unwrap()
    };
    let sets = ["batch.sequence_length=32", "batch.micro=2", "batch.global=4"];
    let mut train = vec!["train", "back/config.toml", "--run", "back", "--set", "run.steps=3"];
    for set in sets.iter().chain(&["schedule.warmup=1", "evaluate.every=1", "sample.every=0"]) {
        train.extend(["--set", set]);
    }
    let before = loss("run");
    let write = |run| {
        place.prints(&["generate", run, "--prompt", "The ", "--tokens", "12", "--temperature", "0"])
    };
    assert_eq!(write("run"), write("back"));
    place.prints(&train);
    let log = place.log("back", "step");
    assert_eq!(log.len(), 3);
    // Untrained it would be 5.7 and more.
    let first = log[0]["loss"].as_f64().unwrap();
    assert!((first - before).abs() < 0.5, "{first} {before}");
    let steps: Vec<u64> = place.json(&["inspect", "back", "--json"])["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|checkpoint| checkpoint["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [0, 3]);
    // As another model it is not trained, and stays as it was.
    train.extend(["--set", "model.rope_theta=5"]);
    let refused = place.refusal(&train);
    assert!(refused.contains("model.rope_theta: expected 10000.0, as in out"), "{refused}");
}

#[test]
fn what_cannot_be_exported_or_imported_is_refused_and_nothing_is_written() {
    let place = Place::new();
    place.train("run", &["model.qk_norm=true", "model.qkv_bias=true"]);
    let refused = place.refusal(&["export", "run", "out"]);
    assert!(refused.contains("no family of transformers"), "{refused}");
    assert!(place.refusal(&["export", "nothing", "out"]).contains("no run is there"));
    assert!(place.refusal(&["import", "nothing", "back"]).contains("holds a config.json"));
    assert!(place.refusal(&["import", "text.txt", "back"]).contains("expected a folder"));
    assert!(place.refusal(&["import", "run", "back"]).contains("holds a config.json"));
    for (arguments, complaint) in [
        (["--dtype", "q8_0"].as_slice(), "expected f32, bf16 or f16 without --to gguf"),
        (&["--to", "gguf", "--dtype", "bf16"], "expected f32, f16, q8_0, q4_0 or q4_k of GGUF"),
    ] {
        let command = [&["export", "run", "out"], arguments].concat();
        assert!(place.refusal(&command).contains(complaint), "{command:?}");
    }
    let names = |name: &str| place.path(name).exists();
    assert!(!names("out") && !names("back"));
    let hidden = fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!hidden.into_iter().any(|name| name.to_string_lossy().contains("partial")));
}

#[test]
fn a_file_of_llama_cpp_goes_out() {
    let place = Place::new();
    place.train("run", &["model.qk_norm=true"]);
    place.prints(&["export", "run", "out", "--to", "gguf", "--dtype", "q8_0"]);
    let names: Vec<String> = files(&place.path("out")).into_keys().collect();
    assert_eq!(names, ["model-q8_0.gguf"]);
    assert!(fs::read(place.path("out/model-q8_0.gguf")).unwrap().starts_with(b"GGUF\x03"));
}

#[test]
fn one_checkpoint_goes_out_as_well_as_a_run() {
    let place = Place::new();
    place.train("run", &[]);
    place.prints(&["export", "run", "a", "--step", "4", "--dtype", "bf16"]);
    place.prints(&["export", "run/checkpoints/step-00000004", "b", "--dtype", "bf16"]);
    assert!(files(&place.path("a")) == files(&place.path("b")));
    let config: serde_json::Value = serde_json::from_str(&place.read("a/config.json")).unwrap();
    assert_eq!((&config["torch_dtype"], &config["vocab_size"]), (&"bfloat16".into(), &257.into()));
    assert_eq!(config["eos_token_id"], 256);
    let refused = place.refusal(&["export", "run", "a"]);
    assert!(refused.contains("a is there already"), "{refused}");
}
