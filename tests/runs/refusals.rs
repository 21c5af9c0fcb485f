//! Bad input: one sentence that says where and what, exit code 2, and nothing written.

use std::fs::{self, File};

use crate::harness::{End, Home, Running};

/// Refused with every one of these words, on one line, and with no trace.
fn refused(home: &Home, end: &End, words: &[&str]) {
    assert_eq!(end.code(), Some(2), "{end:?}");
    let sentences: Vec<&str> = end.stderr.lines().collect();
    assert_eq!(sentences.len(), 1, "one sentence: {}", end.stderr);
    for word in words {
        assert!(sentences[0].contains(word), "{word} is not in: {}", sentences[0]);
    }
    assert!(!home.path("runs").exists(), "no run folder");
}

fn refuses(sets: &[&str], words: &[&str]) {
    refuses_in(&Home::new(), sets, words);
}

fn refuses_in(home: &Home, sets: &[&str], words: &[&str]) {
    let before = home.files();
    let end = home.start("runs/no", sets).wait();
    refused(home, &end, words);
    assert_eq!(home.files(), before, "something was written");
}

#[test]
fn keys_and_values_that_do_not_fit() {
    refuses(&["run.stepz=3"], &["run.stepz", "run.steps"]);
    refuses(&["runn.steps=3"], &["runn", "run"]);
    refuses(&["run.steps=many"], &["run.steps", "many"]);
    refuses(&["model.heads=5"], &["model.", "heads", "5"]);
    refuses(&["run.ranks=16"], &["run.ranks", "batch.lanes = 8", "16"]);
    refuses(&["run.device=cuda"], &["run.device", "\"cuda\""]);
    refuses(&["batch.global=7"], &["batch.global", "batch.micro = 2", "7"]);
    refuses(&["model.vocabulary=100"], &["data.tokenizer", "model.vocabulary is 100"]);
}

#[test]
fn a_mistake_in_the_file_is_pinned_to_its_line() {
    let home = Home::new();
    fs::write(home.path("run.toml"), "[run]\nsteps = 3\n\n[optimizer]\nbeta3 = 0.9\n").unwrap();
    refuses_in(&home, &[], &["run.toml", "5", "beta3", "beta"]);
    fs::write(home.path("run.toml"), "[run]\nsteps = \"3\n").unwrap();
    refuses_in(&home, &[], &["run.toml", "2", "TOML"]);
    fs::remove_file(home.path("run.toml")).unwrap();
    refuses_in(&home, &[], &["run.toml", "cannot read"]);
}

#[test]
fn text_that_is_not_there_or_is_no_text() {
    let home = Home::new();
    refuses_in(&home, &["data.text=missing.txt"], &["data.text", "missing.txt"]);
    fs::write(home.path("empty.txt"), "").unwrap();
    refuses_in(&home, &["data.text=empty.txt"], &["data.text", "empty.txt"]);
    fs::write(home.path("latin.txt"), b"caf\xe9 au lait").unwrap();
    refuses_in(&home, &["data.text=latin.txt"], &["latin.txt", "byte 3", "UTF-8"]);
    fs::write(home.path("short.txt"), "too short").unwrap();
    let end = home.start("runs/no", &["data.text=short.txt"]).wait();
    refused(&home, &end, &["tokens", "batch.sequence_length = 32"]);
}

#[test]
fn a_run_folder_in_use_is_waited_for_and_then_refused() {
    let home = Home::new();
    let folder = home.path("runs/used");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    fs::write(folder.join("lock"), "4242\n").unwrap();
    let begun = std::time::Instant::now();
    let end = home.start("runs/used", &[]).wait();
    assert!(begun.elapsed().as_secs() >= 10, "it waits for an engine that is just dying");
    assert_eq!(end.code(), Some(2), "{end:?}");
    assert!(end.stderr.contains("in use by process 4242"), "{}", end.stderr);
    drop(lock);
    let run = home.train("runs/used", &[]);
    assert_eq!(&run, crate::harness::reference());
}

#[test]
fn somebody_elses_folder_is_left_alone() {
    let home = Home::new();
    fs::create_dir_all(home.path("photos")).unwrap();
    fs::write(home.path("photos/cat.jpg"), "meow").unwrap();
    let mut command = home.command("train", &[]);
    command.args(["--run", "photos"]);
    let end = Running::start(command, home.path("photos")).wait();
    assert_eq!(end.code(), Some(2), "{end:?}");
    assert!(end.stderr.contains("photos") && end.stderr.contains("--run"), "{}", end.stderr);
    assert_eq!(fs::read_dir(home.path("photos")).unwrap().count(), 1);
}
