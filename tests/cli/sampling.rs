//! `train` with samples, `generate` and `evaluate`.

use std::fs;
use std::path::Path;

use crate::harness::Place;

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn samples_are_stored_shown_and_change_no_number() {
    let place = Place::new();
    let printed = place.train("with", &[]);
    for step in [3, 6] {
        let text = place.read(&format!("with/samples/step-{step:08}.txt"));
        assert!(text.starts_with("The "), "{text:?}");
        assert!(text.chars().count() <= 20, "{text:?}");
        assert!(printed.contains(&format!("step      {step}  sample:\n  | The ")), "{printed}");
    }
    let last = printed.lines().last().unwrap();
    assert!(last.contains("with") && last.contains("octet generate"), "{last}");
    place.train("without", &["sample.every=0"]);
    assert_eq!(place.digest("with"), place.digest("without"));
    assert!(fs::read_dir(place.path("without/samples")).unwrap().next().is_none());
    // On two ranks the same text comes from the first.
    place.train("ranks", &["run.ranks=2"]);
    let sample = |run| place.read(&format!("{run}/samples/step-00000006.txt"));
    assert_eq!(sample("ranks"), sample("with"));
    // A prompt that cannot be read is refused before anything is written.
    let prompt = format!("sample.prompt={}", "x".repeat(33));
    let set = ["train", "tiny.toml", "--run", "empty", "--set", &prompt];
    assert!(place.refusal(&set).contains("sample.prompt: 33 tokens"));
    assert!(!place.path("empty").exists());
}

#[test]
fn a_run_is_looked_at_without_its_text_and_stays_as_it_is() {
    let place = Place::new();
    place.train("run", &[]);
    let before = files(&place.path("run"));
    fs::remove_file(place.path("text.txt")).unwrap();
    let write = |seed: &str, more: &[&str]| {
        let fixed = ["generate", "run", "--prompt", "The 1", "--tokens", "9", "--seed", seed];
        place.prints(&[&fixed, more].concat())
    };
    let text = write("1", &[]);
    assert!(text.starts_with("The 1") && text.ends_with('\n'), "{text:?}");
    assert!(text.chars().count() <= 15, "{text:?}");
    assert_eq!(text, write("1", &[]));
    assert_ne!(text, write("2", &[]));
    // The most likely text needs no luck; nor does drawing among one.
    let likely = write("1", &["--temperature", "0"]);
    assert_eq!(likely, write("2", &["--temperature", "0"]));
    assert_eq!(likely, write("1", &["--top-k", "1"]));
    assert_eq!(likely, write("1", &["--top-p", "1e-9"]));
    // The numbers are those in the log.
    let logged = place.log("run", "evaluate");
    let reports = place.json(&["evaluate", "run", "--json"]);
    let (last, report) = (logged.last().unwrap(), &reports[0]);
    for key in ["step", "task", "loss", "perplexity", "bits_per_byte", "targets"] {
        assert_eq!(last[key], report[key], "{key}");
    }
    let table = place.prints(&["evaluate", "run", "--task", "validation"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert_eq!(files(&place.path("run")), before);
}

#[test]
fn generating_as_the_run_did_gives_its_sample() {
    let place = Place::new();
    place.train("run", &["run.seed=7"]);
    let text = place.prints(&["generate", "run", "--seed", "7"]);
    let sample = place.read("run/samples/step-00000006.txt");
    assert_eq!(text, sample + "\n");
}

#[test]
fn other_text_is_evaluated_with_the_tokenizer_of_the_run() {
    let place = Place::new();
    place.train("run", &["data.tokenizer=bpe:300", "sample.every=0"]);
    fs::write(place.path("other.txt"), "Another text, of other words. ".repeat(60)).unwrap();
    let sets = ["--set", "data.text=other.txt", "--set", "data.validation_fraction=0.5"];
    let other = place.json(&[&["evaluate", "run", "--json"], &sets[..]].concat());
    let own = place.json(&["evaluate", "run", "--json"]);
    assert_ne!(other[0]["loss"], own[0]["loss"]);
    assert!(other[0]["targets"].as_u64() > Some(0));
    // Without the text and without the prepared data nothing is left to evaluate on.
    fs::remove_dir_all(place.path("cache")).unwrap();
    fs::write(place.path("text.txt"), "Something else. ".repeat(300)).unwrap();
    assert!(place.refusal(&["evaluate", "run"]).contains("data.text=PATH"));
}

#[test]
fn what_cannot_be_looked_at_is_refused_in_a_sentence() {
    let place = Place::new();
    assert!(place.refusal(&["generate", "nothing"]).contains("no run is there"));
    assert!(place.refusal(&["evaluate", "nothing"]).contains("no run is there"));
    place.train("run", &["checkpoint.every=0"]);
    let wrong = place.refusal(&["evaluate", "run", "--task", "piqa"]);
    assert!(wrong.contains("piqa") && wrong.contains("validation"), "{wrong}");
    let long = "x".repeat(33);
    let wrong = place.refusal(&["generate", "run", "--prompt", &long]);
    assert!(wrong.contains("--prompt: 33 tokens"), "{wrong}");
    let places =
        ["--run", "letters", "--set", "data.tokenizer=characters", "--set", "data.cache=c"];
    place.prints(&[&["train", "tiny.toml"], &places[..]].concat());
    let wrong = place.refusal(&["generate", "letters", "--prompt", ""]);
    let said =
        "--prompt: expected some text, got \"\": this tokenizer has no token for the end of a";
    assert!(wrong.contains(said), "{wrong}");
    let wrong = place.refusal(&["generate", "run", "--temperature", "-1"]);
    assert!(wrong.contains("--temperature"), "{wrong}");
    let shard = place.path("run/checkpoints/step-00000006/model-00001.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    assert!(place.refusal(&["generate", "run"]).contains("model-00001.safetensors"));
    fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    assert!(place.refusal(&["evaluate", "run"]).contains("no checkpoint"));
}

#[test]
fn several_prompts_and_texts_are_written_one_after_the_other() {
    let place = Place::new();
    place.train("run", &[]);
    let write = |more: &[&str]| {
        let fixed = ["generate", "run", "--tokens", "12", "--temperature", "1.5"];
        place.prints(&[&fixed, more].concat())
    };
    let all = write(&["--prompt", "The 1", "--prompt", "", "--count", "2"]);
    let texts: Vec<&str> = all.split("--------\n").collect();
    assert_eq!(texts.len(), 4, "{all}");
    assert!(texts[..2].iter().all(|text| text.starts_with("The 1")), "{all}");
    assert_ne!(texts[0], texts[1], "each text has draws of its own");
    // The first is what it is alone, and all of it can be had again.
    assert_eq!(write(&["--prompt", "The 1"]), texts[0]);
    assert_eq!(write(&["--prompt", "The 1", "--prompt", "", "--count", "2"]), all);
    let wrong = place.refusal(&["generate", "run", "--count", "1001"]);
    assert!(wrong.contains("--count") && wrong.contains("from 1 to 1000"), "{wrong}");
}

#[test]
fn samples_of_a_run_have_a_seed_and_a_share_of_their_own() {
    let place = Place::new();
    let sample = |run: &str, sets: &[&str]| {
        place.train(run, &[&["sample.temperature=1.5"], sets].concat());
        place.read(&format!("{run}/samples/step-00000006.txt"))
    };
    let text = sample("plain", &[]);
    assert_eq!(sample("again", &[]), text);
    assert_ne!(sample("seed", &["sample.seed=99"]), text);
    // A share of next to nothing leaves the most likely token.
    let share = sample("share", &["sample.top_p=1e-9"]);
    assert_eq!(sample("cold", &["sample.temperature=0"]), share);
    assert_eq!(place.prints(&["generate", "share"]), share + "\n", "generate takes the run's");
    assert_eq!(place.digest("seed"), place.digest("plain"), "sampling changes no number");
    let set = ["train", "tiny.toml", "--run", "none", "--set", "sample.top_p=0"];
    assert!(place.refusal(&set).contains("sample.top_p: expected a number above 0 and at most 1"));
}

#[test]
fn a_bf16_model_writes_what_it_has_learned() {
    let place = Place::new();
    fs::write(place.path("text.txt"), "abcde".repeat(400)).unwrap();
    // Five characters: an odd number of narrow logits.
    let learn = ["data.tokenizer=characters", "model.dtype=bf16", "run.steps=150"];
    let quiet = ["schedule.learning_rate=1e-2", "sample.prompt=abc", "sample.every=150"];
    place.train("run", &[&learn[..], &quiet, &["checkpoint.every=150"]].concat());
    let sample = place.read("run/samples/step-00000150.txt");
    assert!(sample.starts_with("abcdeabcdeab"), "{sample:?}");
    let set = ["generate", "run", "--prompt", "cd", "--tokens", "8", "--temperature", "0"];
    assert_eq!(place.prints(&set), "cdeabcdeab\n");
}

#[test]
fn a_model_that_diverged_writes_nothing_and_its_run_goes_on() {
    let place = Place::new();
    let printed = place.train("run", &["schedule.learning_rate=1e38", "recovery.bad_updates=9"]);
    assert!(printed.contains("step      3  the sample is not stored: the model gives no finite"));
    assert!(printed.contains("done: 6 steps"), "{printed}");
    assert!(!place.path("run/samples/step-00000003.txt").exists());
    let output = place.run(&["generate", "run", "--prompt", "The"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("the model gives no finite logit"), "{errors}");
}
