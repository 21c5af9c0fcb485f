//! `octet prepare`: several sources, compressed lines, what it says, and what it refuses.

use std::fs;
use std::io::Write;

use crate::harness::Place;

const SOURCES: &str = r#"
[[data.sources]]
name = "lines"
text = "lines.jsonl.gz"
field = "body"
weight = 3

[[data.sources]]
name = "plain"
text = "text.txt"
max_bytes = 3000
"#;

/// A place with a second configuration that has two sources.
fn place() -> Place {
    let place = Place::new();
    let config = place.read("tiny.toml").replace("text = \"text.txt\"\n", "");
    fs::write(place.path("two.toml"), config + SOURCES).unwrap();
    let file = fs::File::create(place.path("lines.jsonl.gz")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    for i in 0..120 {
        writeln!(gzip, "{{\"id\": {i}, \"body\": \"line {i} of a gzip file\\n\"}}").unwrap();
    }
    gzip.finish().unwrap();
    place
}

#[test]
fn it_says_what_it_made_and_finds_it_again() {
    let place = place();
    let said = place.prints(&["prepare", "two.toml"]);
    for words in ["made", "lines ", "120 documents in 1 files", "plain ", "held out", "257 tokens"]
    {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
    let json = place.json(&["prepare", "two.toml", "--json"]);
    assert_eq!((&json["reused"], &json["vocabulary"]), (&true.into(), &257.into()));
    let [lines, plain] = [0, 1].map(|i| json["sources"][i]["counts"].clone());
    assert_eq!(lines["documents"], 120);
    let bytes = |counts: &serde_json::Value| {
        counts["train_bytes"].as_u64().unwrap() + counts["validation_bytes"].as_u64().unwrap()
    };
    assert_eq!(bytes(&plain), 3000);
    assert_eq!(
        bytes(&lines),
        (0..120).map(|i| format!("line {i} of a gzip file\n").len() as u64).sum::<u64>()
    );
    let shard = json["sources"][0]["train"][0].as_str().unwrap();
    let shown = place.prints(&["inspect", shard]);
    assert!(shown.contains("source      lines"), "{shown}");
    assert!(shown.contains("\"line 0 of a gzip file\\nline 1 "), "{shown}");
}

#[test]
fn every_source_has_its_own_held_out_loss_and_its_share() {
    let place = place();
    place.prints(&["train", "two.toml", "--run", "run"]);
    let tasks: Vec<String> = place
        .log("run", "evaluate")
        .iter()
        .map(|line| line["task"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(tasks[..2], ["validation/lines", "validation/plain"]);
    let looked = place.json(&["evaluate", "run", "--task", "validation/plain", "--json"]);
    assert_eq!(looked.as_array().unwrap().len(), 1);
    // Six steps of four sequences of 32 tokens, three quarters of them from the first source.
    let summary: serde_json::Value = serde_json::from_str(&place.read("run/summary.json")).unwrap();
    assert_eq!(summary["sources"][1]["tokens"], 192);
    let run = place.json(&["inspect", "run", "--json"]);
    let sources = run["sources"].as_array().unwrap();
    assert_eq!((&sources[0]["name"], &sources[0]["tokens"]), (&"lines".into(), &576.into()));
    assert_eq!((&sources[1]["name"], &sources[1]["tokens"]), (&"plain".into(), &192.into()));
    assert!(sources[1]["epochs"].as_f64().unwrap() > 0.05);
    let shown = place.prints(&["inspect", "run"]);
    assert!(shown.contains("576 tokens, "), "{shown}");
}

#[test]
fn mistakes_are_named() {
    let place = place();
    let refuse = |sets: &[&str]| {
        let mut arguments = vec!["prepare", "two.toml"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let said = place.refusal(&arguments);
        assert!(!place.path("cache").exists(), "{said}");
        said
    };
    let source = |rest: &str| format!("data.sources=[{{name=\"a\", text=\"text.txt\"{rest}}}]");
    for (set, words) in [
        (source(", weight=0"), "data.sources: a: expected a weight above 0, got 0"),
        (source(", max_epochs=0"), "data.sources: a: expected max_epochs of at least 1, got 0"),
        (source(", wait=2"), "unknown field `wait`"),
        ("data.sources=[{name=\"A b\", text=\"x\"}]".into(), "expected a name of lower-case"),
        (
            "data.sources=[{name=\"a\", text=\"gone\"}]".into(),
            "data.sources: a: gone does not exist",
        ),
        ("data.text=text.txt".into(), "data.text: expected nothing beside data.sources"),
        ("data.field=".into(), "data.field: expected the name of a field"),
        ("data.packing=tight".into(), "data.packing: expected"),
        ("data.split=gpt2".into(), "data.split: expected only beside a .tiktoken file"),
        ("data.end_of_document=</s>".into(), "data.end_of_document: expected only with"),
    ] {
        let said = refuse(&[&set]);
        assert!(said.contains(words), "{words} is not in: {said}");
    }
    // Two sources of one epoch are fewer samples than the run has.
    let one = |name: &str| format!("{{name=\"{name}\", text=\"text.txt\", max_epochs=1}}");
    let set = format!("data.sources=[{},{}]", one("a"), one("b"));
    let arguments = ["train", "two.toml", "--run", "no", "--set", &set, "--set", "run.steps=5000"];
    let said = place.refusal(&arguments);
    assert!(said.contains("max_epochs") && said.contains("ask for 20000"), "{said}");
    assert!(!place.path("no").exists());
    let small = "data.validation_fraction=0.0003";
    let other = "data.cache=other";
    let said = place.refusal(&["train", "two.toml", "--run", "no", "--set", small, "--set", other]);
    let words = "data.sources: expected at least 2 tokens of the validation split of \
                 data.sources: lines, got 1";
    assert!(said.contains(words) && said.contains("validation_fraction"), "{said}");
    assert!(!place.path("no").exists());
}

#[test]
fn the_mixture_is_the_same_for_any_ranks_and_after_a_resume() {
    let place = place();
    for packing in ["concatenate", "whole_documents"] {
        let packing = format!("data.packing={packing}");
        let train = |run: &str, sets: &[&str]| {
            let mut arguments = vec!["train", "two.toml", "--run", run, "--set", &packing];
            sets.iter().for_each(|set| arguments.extend(["--set", set]));
            place.prints(&arguments);
            place.digest(run)
        };
        let name = |run: &str| format!("{run}-{packing}");
        let whole = train(&name("whole"), &[]);
        assert_eq!(train(&name("ranks"), &["run.ranks=2"]), whole);
        let schedule = "schedule.steps=6";
        train(&name("parts"), &["run.steps=3", schedule]);
        assert_eq!(train(&name("parts"), &[schedule]), whole, "{packing}");
    }
}

#[test]
fn a_mistake_in_a_source_is_pinned_to_its_line() {
    let place = place();
    let config = place.read("two.toml").replace("weight = 3", "wieght = 3");
    let line = 1 + config.lines().position(|line| line.contains("[[data.sources]]")).unwrap();
    fs::write(place.path("two.toml"), &config).unwrap();
    let said = place.refusal(&["prepare", "two.toml"]);
    assert!(said.contains(&format!("two.toml:{line}: data.sources")), "{said}");
    assert!(said.contains("`wieght`"), "{said}");
}

#[test]
fn what_was_passed_over_in_a_folder_is_told_by_train_and_inspect() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    fs::copy(place.path("text.txt"), place.path("folder/text.txt")).unwrap();
    fs::write(place.path("folder/latin.txt"), b"caf\xe9 au lait").unwrap();
    fs::write(place.path("folder/picture.png"), "not a text").unwrap();
    let printed = place.train("run", &["data.text=folder", "sample.every=0"]);
    let line = printed.lines().find(|line| line.contains(" parameters")).unwrap();
    for words in ["1 documents in 1 files", "held out", "1 not UTF-8", "1 without a text extension"]
    {
        assert!(line.contains(words), "{words} is not in: {line}");
    }
    let (text, parameters) = line.rsplit_once("; ").unwrap();
    let shown = place.prints(&["inspect", "run"]);
    assert!(shown.contains(&format!("text        {text}\n")), "{shown}");
    let parameters = parameters.strip_suffix(" parameters").unwrap();
    assert!(shown.contains(&format!("parameters  {parameters}\n")), "{shown}");
    let planned = place.json(&["plan", "tiny.toml", "--json"])["parameters"].to_string();
    assert_eq!(parameters.replace(',', ""), planned);
}
