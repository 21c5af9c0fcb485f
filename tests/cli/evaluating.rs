//! What is measured on held-out text and on other texts, and what an empty prompt begins.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use crate::harness::Place;

/// The bytes that a report's bits are per: its nats, all of them on text, over its bits per byte.
fn bytes(report: &Value) -> f64 {
    let [loss, targets, bits] =
        ["loss", "targets", "bits_per_byte"].map(|key| report[key].as_f64().unwrap());
    loss * targets / std::f64::consts::LN_2 / bits
}

#[test]
fn an_empty_prompt_begins_a_document_in_every_packing() {
    let place = Place::new();
    let line = |i: usize| {
        let (a, b) = (i % 10, i / 10 % 10);
        format!("{{\"text\": \"Q: {a}+{b}? A: {}.\"}}\n", a + b)
    };
    fs::write(place.path("sums.jsonl"), (0..3000).map(line).collect::<String>()).unwrap();
    for packing in ["concatenate", "whole_documents"] {
        let packed = format!("data.packing={packing}");
        let learn = ["data.text=sums.jsonl", "run.steps=120", "schedule.learning_rate=1e-2"];
        let quiet = ["sample.every=0", "evaluate.every=0", "checkpoint.every=0", &packed];
        place.train(packing, &[&learn[..], &quiet].concat());
        let texts = ["--prompt", "", "--count", "20", "--tokens", "30"];
        let all = place.prints(&[&["generate", packing], &texts[..]].concat());
        let begun = all.split("--------\n").filter(|text| text.starts_with("Q: ")).count();
        // Chance draws an odd first token now and then.
        assert!(begun >= 17, "{packing}: {all}");
    }
}

#[test]
fn bits_are_per_byte_of_the_targets_that_were_measured() {
    let place = Place::new();
    // 640 characters to learn from, then 320 of one byte and 320 of four.
    let word = |i: usize, letters: &[char]| letters[i * i % 7 % letters.len()];
    let (plain, wide) = (['a', 'b', 'c', 'd'], ['😀', '🙂', '😎', '🤖']);
    let learned = (0..640).map(|i| word(i / 2, if i % 2 == 0 { &plain } else { &wide }));
    let held_out = (0..640).map(|i| word(i, if i < 320 { &plain } else { &wide }));
    fs::write(place.path("halves.txt"), learned.chain(held_out).collect::<String>()).unwrap();
    let text = ["data.text=halves.txt", "data.tokenizer=characters", "sample.every=0"];
    let half = ["data.validation_fraction=0.5", "run.steps=3"];
    place.train("all", &[&text[..], &half].concat());
    let report = &place.log("all", "evaluate")[0];
    assert_eq!(report["targets"], 639);
    assert!((bytes(report) - 1599.0).abs() < 0.1, "{report}");
    // Two windows of twenty: the first, and the one in the middle.
    place.train("some", &[&text[..], &half, &["evaluate.batches=1"]].concat());
    let report = &place.log("some", "evaluate")[0];
    assert_eq!(report["targets"], 64);
    assert!((bytes(report) - 160.0).abs() < 0.1, "{report}");
}

#[test]
fn another_text_is_measured_as_a_whole() {
    let place = Place::new();
    place.train("run", &["sample.every=0", "evaluate.batches=1"]);
    let other = "Another text, of other words. ".repeat(60);
    fs::write(place.path("other.txt"), &other).unwrap();
    fs::write(place.path("short.txt"), "Hi.").unwrap();
    let report = |run: &str, set: &str| {
        let reports = place.json(&["evaluate", run, "--set", set, "--json"]);
        assert_eq!(reports.as_array().unwrap().len(), 1, "{reports}");
        reports[0].clone()
    };
    // Every byte, the first one too, and the end of the document.
    let whole = report("run", "data.text=other.txt");
    assert_eq!(whole["targets"], other.len() + 1);
    assert_eq!(report("run", "data.text=short.txt")["targets"], 4);
    assert_eq!(report("run", "data.text=[\"other.txt\", \"short.txt\"]")["targets"], 1805);
    let one = |name: &str| format!("{{name=\"{name}\", text=\"text.txt\"}}");
    let sources = format!("data.sources=[{},{}]", one("a"), one("b"));
    let config = place.read("tiny.toml").replace("text = \"text.txt\"\n", "");
    fs::write(place.path("two.toml"), config).unwrap();
    let sets = ["--set", &sources, "--set", "sample.every=0", "--set", "data.cache=other"];
    place.prints(&[&["train", "two.toml", "--run", "two"], &sets[..]].concat());
    assert_eq!(report("two", "data.text=other.txt")["targets"], other.len() + 1);
    // A part of it is measured if that is asked for, in as many windows as the run's.
    let part = ["--set", "data.text=other.txt", "--set", "data.validation_fraction=0.5", "--json"];
    let reports = place.json(&[&["evaluate", "run"], &part[..]].concat());
    assert_eq!(reports[0]["targets"], 64);
}

#[test]
fn what_is_passed_over_of_another_text_is_said() {
    let place = Place::new();
    place.train("run", &["sample.every=0"]);
    fs::create_dir(place.path("other")).unwrap();
    let text = "Another text, of other words. ".repeat(9);
    // A name that is not UTF-8 is a name; a text that is not is no text.
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
    fs::write(place.path("other").join(odd), &text).unwrap();
    let evaluate = ["evaluate", "run", "--set", "data.text=other", "--json"];
    let output = place.run(&evaluate);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reports[0]["targets"], text.len() + 1);
    fs::write(place.path("other/latin.txt"), b"caf\xe9 and more").unwrap();
    let output = place.run(&evaluate);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("data.text: skipped: 1 not UTF-8"), "{said}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), reports);
}

#[test]
fn a_text_without_targets_has_no_loss() {
    let place = Place::new();
    let letters = ["data.tokenizer=characters", "sample.every=0"];
    place.train("run", &letters);
    // Two documents that nothing opens, of one character each.
    for name in ["a.txt", "b.txt"] {
        fs::write(place.path(name), "T").unwrap();
    }
    let evaluate = ["evaluate", "run", "--set", "data.text=[\"a.txt\", \"b.txt\"]"];
    let output = place.run(&[&evaluate[..], &["--json"]].concat());
    assert!(output.status.success(), "{output:?}");
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["loss", "perplexity", "bits_per_byte"] {
        assert!(reports[0][key].is_null(), "{reports}");
    }
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("validation: no targets, so there is no loss"), "{said}");
    let row = place.prints(&evaluate).lines().nth(1).unwrap().to_owned();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[2..], ["-", "-", "-", "0"], "{row}");
}
