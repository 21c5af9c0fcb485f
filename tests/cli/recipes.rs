//! Every recipe trains, and a plan is of the run that follows.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use octet::config::Config;
use octet::data::Tokenizer;

use crate::harness::Place;

/// The recipes, with their names.
fn recipes() -> Vec<(String, PathBuf)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some()).collect();
    files.sort();
    let name = |file: &PathBuf| file.file_stem().unwrap().to_str().unwrap().to_owned();
    files.into_iter().map(|file| (name(&file), file)).collect()
}

#[test]
fn every_recipe_takes_two_steps() {
    let place = Place::new();
    fs::create_dir(place.path("tokenizer")).unwrap();
    let sample = [place.read("text.txt")];
    let made = Tokenizer::train_bpe(300, &sample, None, &mut || Ok(())).unwrap();
    made.save(&place.path("tokenizer")).unwrap();
    // Pairs are made of texts of several documents.
    let document = serde_json::json!({ "text": sample[0] });
    fs::write(place.path("pairs.jsonl"), format!("{document}\n").repeat(20)).unwrap();
    let recipes = recipes();
    assert!(recipes.len() > 10, "{recipes:?}");
    for (name, file) in recipes {
        let config = Config::load(&file, &[]).unwrap();
        let text = match config.data.sources.is_empty() {
            true if config.special_tokens().len() > 1 => "data.text=pairs.jsonl",
            true => "data.text=text.txt",
            false => "data.sources=[{name=\"new\", text=\"text.txt\"}]",
        };
        let text = [text, "data.cache=cache", "run.steps=2", "run.threads=1"];
        let mut sets: Vec<String> = text.map(str::to_owned).to_vec();
        if config.data.tokenizer.contains('/') {
            // What somebody has to bring is made here, and what takes a node is cut down.
            let stored: toml::Table = config.to_toml().parse().unwrap();
            let width = 8 * stored["model"]["heads"].as_integer().unwrap();
            sets.extend([
                "data.tokenizer=tokenizer".to_owned() + "/tokenizer.json",
                "data.validation_fraction=0.1".to_owned(),
                format!("model.width={width}"),
                "model.layers=1".to_owned(),
                "model.vocabulary=512".to_owned(),
                "model.feed_forward=64".to_owned(),
                "batch.micro=1".to_owned(),
                "batch.global=8".to_owned(),
                "batch.sequence_length=32".to_owned(),
            ]);
        }
        let mut arguments = vec!["train", file.to_str().unwrap(), "--run", &name];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let printed = place.prints(&arguments);
        assert!(printed.contains("done: 2 steps"), "{name}: {printed}");
        // Its cache is of this recipe alone.
        fs::remove_dir_all(place.path("cache")).unwrap();
        let planned: Vec<&str> =
            [&["plan"], &arguments[1..2], &arguments[4..], &["--json"]].concat();
        assert_eq!(place.json(&planned)["vocabulary"], rows(&place, &name), "{name}");
    }
}

/// Rows of a run's embedding.
fn rows(place: &Place, run: &str) -> usize {
    let config = Config::load(&place.path(run).join("config.toml"), &[]).unwrap();
    config.model.vocabulary.unwrap()
}

#[test]
fn a_plan_is_of_the_run() {
    let place = Place::new();
    let lines: String = (0..90).map(|i| format!("{{\"text\": \"wörd {i}\"}}\n")).collect();
    fs::write(place.path("lines.jsonl"), &lines).unwrap();
    let file = fs::File::create(place.path("text.txt.gz")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gzip.write_all(place.read("text.txt").as_bytes()).unwrap();
    gzip.finish().unwrap();
    for (number, (text, tokenizer)) in [
        ("text.txt", "bpe:4096"),
        ("lines.jsonl", "bpe:300"),
        ("lines.jsonl", "characters"),
        ("text.txt.gz", "characters"),
        ("text.txt", "bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        let run = format!("run{number}");
        let sets = [
            format!("data.text={text}"),
            format!("data.tokenizer={tokenizer}"),
            format!("data.cache=cache{number}"),
            "run.steps=1".to_owned(),
            "sample.every=0".to_owned(),
        ];
        let mut plan = vec!["plan", "tiny.toml", "--json"];
        sets.iter().for_each(|set| plan.extend(["--set", set]));
        let planned = place.json(&plan)["vocabulary"].clone();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        place.train(&run, &sets);
        assert_eq!(planned, rows(&place, &run), "{text} as {tokenizer}");
    }
    // A plan needs no text, and says what it assumes.
    let gone = ["plan", "tiny.toml", "--set", "data.text=gone", "--set", "data.tokenizer=bpe:4096"];
    assert!(place.prints(&gone).contains("planned for 4096 tokens, the most that it makes"));
}

#[test]
fn a_plan_refuses_what_training_would() {
    let place = Place::new();
    fs::write(place.path("bad.jsonl"), "{\"text\": 1}\n").unwrap();
    for sets in [
        &["model.vocabulary=256"][..],
        &["data.tokenizer=bpe:300", "model.vocabulary=280"],
        &["data.tokenizer=characters", "data.text=bad.jsonl"],
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let planned = place.refusal(&[&["plan", "tiny.toml"], &sets[..]].concat());
        let trained = place.refusal(&[&["train", "tiny.toml", "--run", "no"], &sets[..]].concat());
        assert_eq!(planned, trained);
        assert!(!place.path("no").exists());
    }
}
