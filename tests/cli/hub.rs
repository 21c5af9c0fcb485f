//! `export` and `import`: a run goes out, comes back, and is trained on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

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
    let config: Value = serde_json::from_str(&place.read("a/config.json")).unwrap();
    assert_eq!((&config["torch_dtype"], &config["vocab_size"]), (&"bfloat16".into(), &257.into()));
    assert_eq!(config["eos_token_id"], 256);
    let refused = place.refusal(&["export", "run", "a"]);
    assert!(refused.contains("a is there already"), "{refused}");
}

/// Makes a run of a text with hidden tokens.
fn encoder(place: &Place, run: &str, sets: &[&str]) {
    let encoder = ["model.family=encoder", "objective.kind=masked", "sample.every=0"];
    place.train(run, &[&encoder[..], sets].concat());
}

#[test]
fn exported_encoders_say_which_tokens_are_special() {
    let place = Place::new();
    let json = |name: &str| -> Value { serde_json::from_str(&place.read(name)).unwrap() };
    let check = |folder: &str, roles: Value, filler: Value| {
        assert_eq!(json(&format!("{folder}/special_tokens_map.json")), roles, "{folder}");
        let config = json(&format!("{folder}/tokenizer_config.json"));
        for (role, token) in roles.as_object().unwrap() {
            assert_eq!(&config[role], token, "{folder}: {role}");
        }
        // Unsaid, transformers takes 0.
        let config = json(&format!("{folder}/config.json"));
        assert_eq!(config.get("pad_token_id"), Some(&filler), "{folder}");
    };
    // Without a row to spare, no row is without a gradient.
    encoder(&place, "full", &[]);
    place.prints(&["export", "full", "a"]);
    check("a", json!({ "mask_token": "[MASK]", "pad_token": "[MASK]" }), Value::Null);
    fs::create_dir(place.path("documents")).unwrap();
    for number in 0..20 {
        let text = format!("Document {number} says {}. It ends.", number * number);
        fs::write(place.path(&format!("documents/{number}.txt")), text).unwrap();
    }
    let pairs = [
        "objective.next_sentence=true",
        "model.vocabulary=270",
        "data.text=documents",
        "data.cache=cache-2",
        "evaluate.every=0",
        "data.validation_fraction=0",
    ];
    encoder(&place, "spare", &pairs);
    place.prints(&["export", "spare", "b"]);
    let roles = json!({
        "mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
    });
    check("b", roles, 260.into());
    let added = json("b/tokenizer.json")["added_tokens"].as_array().unwrap().clone();
    let filler = added.iter().find(|token| token["content"] == "[PAD]").unwrap();
    assert_eq!((&filler["id"], &filler["special"]), (&260.into(), &true.into()));
    // Both come back and go out again as they are.
    for out in ["a", "b"] {
        let (back, again) = (format!("{out}-back"), format!("{out}-again"));
        place.prints(&["import", out, &back]);
        place.prints(&["export", &back, &again]);
        assert!(files(&place.path(out)) == files(&place.path(&again)), "{out}");
    }
}

/// Takes a fact from what a run says of its checkpoint: builds wrote that which did not know it.
fn forget(place: &Place, run: &str, step: u64, fact: &str) {
    let path = place.path(&format!("{run}/identity.json"));
    let mut identity: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(identity.as_object_mut().unwrap().remove(fact).is_some(), "{fact}");
    fs::write(&path, identity.to_string()).unwrap();
    let path = place.path(&format!("{run}/checkpoints/step-{step:08}/manifest.json"));
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let there = manifest["identity"].as_object_mut().unwrap().remove(fact);
    assert!(there.is_some(), "{fact}");
    let zeros = "0".repeat(64);
    manifest["manifest_blake3"] = zeros.clone().into();
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let hash = blake3::hash(text.as_bytes()).to_hex();
    fs::write(&path, text.replace(&zeros, &hash)).unwrap();
}

#[test]
fn a_checkpoint_that_meant_something_else_by_its_input_goes_on_only_if_that_is_accepted() {
    let place = Place::new();
    let fact = "the type of text that is no pair";
    encoder(&place, "run", &[]);
    // These are what they were.
    forget(&place, "run", 6, "the special tokens");
    place.prints(&["export", "run", "same"]);
    forget(&place, "run", 6, fact);
    for command in [&["export", "run", "out"][..], &["evaluate", "run"]] {
        let refused = place.refusal(command);
        assert!(refused.contains(fact) && refused.contains("step 6"), "{refused}");
    }
    let mut train = vec!["train", "tiny.toml", "--run", "run"];
    for set in ["run.steps=8", "model.family=encoder", "objective.kind=masked", "sample.every=0"] {
        train.extend(["--set", set]);
    }
    train.extend(["--set", "schedule.steps=6"]);
    let refused = place.refusal(&train);
    assert!(refused.contains(&format!("{fact} is the first and was none")), "{refused}");
    train.push("--accept-new-numerics");
    place.prints(&train);
    place.prints(&["export", "run", "out"]);
    // Of the older checkpoint, with a word.
    let output = place.run(&["export", "run", "older", "--step", "6"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(fact), "{said}");
    assert!(place.read("older/README.md").contains(fact));
}
