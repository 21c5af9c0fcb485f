//! Cleaning, its report and its classifier, as a person uses them.

use std::fs;

use crate::harness::Place;

#[test]
fn documents_are_cleaned_by_a_chain_from_the_configuration_and_reported() {
    let place = Place::new();
    let lines: String =
        (0..40).map(|i| format!("{{\"text\": \"{}\"}}\n", "a word of many ".repeat(i))).collect();
    fs::write(place.path("docs.jsonl"), lines).unwrap();
    let chain = "data.clean=[\"unicode\", {step=\"length\", min_characters=300}]";
    let sets = ["--set", "data.text=docs.jsonl", "--set", chain];
    let said = place.prints(&[&["prepare", "tiny.toml"], &sets[..]].concat());
    // 20 x 15 characters are enough; the first line has none at all.
    assert!(said.contains("20 documents in 1 files"), "{said}");
    let page = said.lines().find_map(|line| line.strip_prefix("report     ")).unwrap();
    let page = place.read(page);
    assert!(page.contains("<b>too short</b>: 19 documents"), "{page}");
    // The run trains on these data, and says what they were cleaned by.
    let more = ["data.text=docs.jsonl", chain, "evaluate.every=0", "sample.every=0"];
    place.train("run", &more);
    assert!(place.read("run/config.toml").contains("min_characters = 300"));
}

#[test]
fn mistakes_in_a_chain_are_pinned_to_their_place() {
    let place = Place::new();
    let config = place.read("tiny.toml");
    for (chain, complaint) in [
        ("[\"lenght\"]", "tiny.toml:7: data.clean: expected one of \"unicode\""),
        ("[{step = \"length\", min = 1}]", "unknown setting min of the step \"length\""),
        (
            "[{step = \"length\", min_characters = 9, max_characters = 1}]",
            "data.clean: length.max_characters: expected at least 9, got 1",
        ),
        ("[{step = \"quality\", file = \"none\"}]", "expected a file that can be read, got none"),
    ] {
        let changed = config.replace("[data]\n", &format!("[data]\nclean = {chain}\n"));
        fs::write(place.path("tiny.toml"), changed).unwrap();
        let said = place.refusal(&["prepare", "tiny.toml"]);
        assert!(said.contains("data.clean") && said.contains(complaint), "{said}");
    }
}

#[test]
fn a_classifier_is_trained_and_used() {
    let place = Place::new();
    let text = |words: [&str; 4], i: usize| {
        (0..40).map(|j| words[(i + j * j) % 4]).collect::<Vec<_>>().join(" ")
    };
    for (name, words) in [
        ("good.jsonl", ["river", "stone", "water", "and"]),
        ("bad.jsonl", ["cheap", "offer", "click", "and"]),
    ] {
        let line = |i| format!("{{\"text\": \"{} {i}\"}}\n", text(words, i));
        fs::write(place.path(name), (0..60).map(line).collect::<String>()).unwrap();
    }
    let command = ["train-filter", "good.jsonl", "bad.jsonl", "--output", "f", "--bits", "12"];
    let trained = place.json(&[&command[..], &["--json"]].concat());
    assert_eq!(trained["documents"]["good"], 54);
    assert!(trained["accuracy"].as_f64().unwrap() > 0.99, "{trained}");
    let both = place.read("good.jsonl") + &place.read("bad.jsonl");
    fs::write(place.path("both.jsonl"), both).unwrap();
    let chain = "data.clean=[{step=\"quality\", file=\"f\"}]";
    let sets = ["--set", "data.text=both.jsonl", "--set", chain, "--json"];
    let prepared = place.json(&[&["prepare", "tiny.toml"], &sets[..]].concat());
    assert_eq!(prepared["sources"][0]["counts"]["documents"], 60);
    let refused = place.refusal(&["train-filter", "nothing", "bad.jsonl", "--output", "f"]);
    assert!(refused.contains("nothing does not exist"), "{refused}");
}
