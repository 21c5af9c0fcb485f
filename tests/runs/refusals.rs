//! Bad input: one sentence that says where and what, exit code 2, and nothing written.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

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
    refuses(&["run.steps=1.5"], &["--set run.steps=1.5: run.steps: expected", "1.5"]);
    refuses(&["model.recompute=most"], &["--set", "model.recompute", "\"block\"", "most"]);
    refuses(&["model.recompute_budget=lots"], &["model.recompute_budget", "60 GB", "lots"]);
    refuses(&["run.steps"], &["--set run.steps: expected section.key=value"]);
}

#[test]
fn mistakes_that_show_later_are_pinned_to_their_place_too() {
    // The tokenizer stands in the seventh line of the file.
    let words = ["run.toml:7: data.tokenizer: ", "257 tokens", "model.vocabulary is 100"];
    refuses(&["model.vocabulary=100"], &words);
    refuses(&["run.device=cuda"], &["--set run.device=cuda: run.device: ", "no CUDA"]);
    let words = ["--set data.tokenizer=no.json: data.tokenizer: no.json", "no such file"];
    refuses(&["data.tokenizer=no.json"], &words);
    // Nothing fits: what it takes is said, before data are prepared.
    let sets = ["model.recompute=auto", "model.recompute_budget=\"1 MB\""];
    let words = ["--set model.recompute=auto: model.recompute: ", "1000000 bytes", "at least"];
    refuses(&sets, &words);
    let home = Home::new();
    let text = "[data]\n\n[run]\ndevice = \"cuda\"\n";
    fs::write(home.path("run.toml"), text).unwrap();
    refuses_in(&home, &[], &["run.toml:4: run.device: expected", "\"cuda\""]);
    let home = Home::new();
    fs::write(home.path("bad.json"), "{ \"model\": 3 }").unwrap();
    let words = ["data.tokenizer: bad.json: not a usable tokenizer"];
    refuses_in(&home, &["data.tokenizer=bad.json"], &words);
}

#[test]
fn a_run_folder_that_is_a_file() {
    let home = Home::new();
    let mut command = home.command("train", &[]);
    command.args(["--run", "text.txt"]);
    let before = home.files();
    let end = Running::start(command, home.path("text.txt")).wait();
    refused(&home, &end, &["--run: expected a folder", "text.txt is a file"]);
    assert_eq!(home.files(), before);
}

#[test]
fn a_run_folder_that_cannot_be() {
    let home = Home::new();
    for (run, words) in [
        ("text.txt/", ["--run: expected a folder", "text.txt is a file"]),
        ("text.txt/run", ["--run: expected a folder", "text.txt is a file"]),
        ("locked/run", ["--run: expected a folder that can be written to", "locked is not"]),
    ] {
        std::fs::create_dir_all(home.path("locked")).unwrap();
        let mode = |path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        mode(home.path("locked"), 0o555);
        mode(home.path(""), 0o777);
        let before = home.files();
        let mut command = home.command("train", &[]);
        command.args(["--run", run]);
        // SAFETY: asks for a number.
        if unsafe { libc::geteuid() } == 0 {
            // Nothing is locked for root.
            command.uid(65_534).gid(65_534);
        }
        let end = Running::start(command, home.path("runs/no")).wait();
        refused(&home, &end, &words);
        assert_eq!(home.files(), before, "{run}: something was made");
    }
}

#[test]
fn a_model_that_does_not_fit_the_machine() {
    let home = Home::new();
    let sets = ["model.width=65536", "model.heads=512", "model.kv_heads=512", "model.layers=400"];
    let before = home.files();
    let end = home.start("runs/no", &sets).wait();
    refused(&home, &end, &["it does not fit this machine: ", "TiB", " in all; expected a smaller"]);
    assert_eq!(home.files(), before, "something was made");
    // In the words of the plan.
    let plan = home.command("plan", &sets).args(["--target", "cpu"]).output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    let fits = plan.lines().find_map(|line| line.strip_prefix("fits       no: ")).unwrap();
    assert!(end.stderr.contains(fits), "{fits}: {}", end.stderr);
}

#[test]
fn a_mistake_in_the_file_is_pinned_to_its_line() {
    let home = Home::new();
    fs::write(home.path("run.toml"), "[run]\nsteps = 3\n\n[optimizer]\nbeta3 = 0.9\n").unwrap();
    refuses_in(&home, &[], &["run.toml", "5", "beta3", "beta"]);
    fs::write(home.path("run.toml"), "[run]\nsteps = \"many\"\n").unwrap();
    refuses_in(&home, &[], &["run.toml:2: run.steps: expected a whole number", "\"many\""]);
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
    fs::create_dir(home.path("nothing")).unwrap();
    refuses_in(&home, &["data.text=nothing"], &["data.text", "no text found in nothing"]);
    fs::write(home.path("latin.txt"), b"caf\xe9 au lait").unwrap();
    refuses_in(&home, &["data.text=latin.txt"], &["latin.txt", "byte 3", "UTF-8"]);
    fs::write(home.path("lines.jsonl"), "{\"body\": \"x\"}\n").unwrap();
    let words = [
        "data.text=lines.jsonl: data.text: 1 of 1 records are bad",
        "lines.jsonl, byte 0: line 1: ",
        "\"text\"",
        "\"body\"",
    ];
    refuses_in(&home, &["data.text=lines.jsonl"], &words);
    fs::write(home.path("plain.txt.gz"), "plain").unwrap();
    let words = ["data.text: plain.txt.gz: expected gzip data", "cannot be decompressed"];
    refuses_in(&home, &["data.text=plain.txt.gz"], &words);
    fs::write(home.path("short.txt"), "too short").unwrap();
    let end = home.start("runs/no", &["data.text=short.txt"]).wait();
    refused(&home, &end, &["run.toml:12: batch.sequence_length", "tokens", "32"]);
    fs::remove_dir_all(home.path("cache")).unwrap();
    fs::write(home.path("one.txt"), "x").unwrap();
    // Nothing opens or ends a document of these, so that no sequence is short enough.
    let letter = ["data.text=one.txt", "data.tokenizer=characters"];
    let end = home.start("runs/no", &letter).wait();
    let words = ["data.text: expected at least 2 tokens of the training split, got 0; give more"];
    refused(&home, &end, &words);
    assert!(!end.stderr.contains("sequence"), "{}", end.stderr);
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
fn the_process_to_stop_is_the_one_that_was_started() {
    let home = Home::new();
    let mut run = home.start("runs/used", &["run.steps=100000"]);
    assert!(run.until_step(1), "it ended too early");
    let end = home.start("runs/used", &[]).wait();
    assert_eq!(end.code(), Some(2), "{end:?}");
    let owner = format!("in use by process {} ", run.parent());
    assert!(end.stderr.contains(&owner), "{owner}: {}", end.stderr);
    run.signal(libc::SIGINT);
    assert!(run.wait().success());
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
