//! Branches of runs: forks, replays, rehearsals; and the table of runs.

use std::fs;
use std::process::Command;

use crate::harness::{Home, RunResult, log_lines, reference};

fn octet(home: &Home, arguments: &[&str]) -> (Option<i32>, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_octet"));
    let done = program.current_dir(home.path("")).args(arguments).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_fork_goes_on_as_its_run_did_and_says_what_was_changed() {
    let home = Home::new();
    assert_eq!(&home.train("runs/one", &["checkpoint.keep=9"]), reference());
    let (code, said) = octet(&home, &["fork", "runs/one", "--at", "12"]);
    assert!(code == Some(2) && said.contains("--at: expected one of the run's"), "{said}");
    let (code, said) = octet(&home, &["fork", "runs/one/", "--at", "15"]);
    assert!(code == Some(0) && !said.contains("accept-new-numerics"), "{said}");
    let lineage = fs::read_to_string(home.path("runs/one-15/fork.json")).unwrap();
    assert!(lineage.contains("\"step\": 15") && lineage.contains("runs/one\""), "{lineage}");
    let steps = |run: &str| {
        let lines = log_lines(&home.path(run));
        lines.iter().filter(|line| line["kind"] == "step").count()
    };
    assert_eq!(steps("runs/one-15"), 15);
    let go_on = ["train", "runs/one-15/config.toml", "--run", "runs/one-15"];
    let (code, said) = octet(&home, &go_on);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(&RunResult::of(&home.path("runs/one-15")), reference());
    assert!(home.path("runs/one/checkpoints/step-00000015").exists());
    // Never over what is there.
    let (code, said) = octet(&home, &["fork", "runs/one", "--at", "15"]);
    assert!(code == Some(2) && said.contains("expected a new folder"), "{said}");
    let other = ["--run", "runs/other", "--set", "schedule.learning_rate=1e-2"];
    let (code, said) = octet(&home, &[&["fork", "runs/one", "--at", "15"], &other[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let changed = "schedule.learning_rate is 0.01 and was 0.003";
    assert!(said.contains(changed) && said.contains("--accept-new-numerics"), "{said}");
    let go_on = ["train", "runs/other/config.toml", "--run", "runs/other"];
    let (code, said) = octet(&home, &go_on);
    assert!(code == Some(2) && said.contains("schedule.learning_rate"), "{said}");
    let (code, said) = octet(&home, &[&go_on[..], &["--accept-new-numerics"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = octet(&home, &["diff", "runs/one", "runs/other"]);
    assert!(code == Some(1) && said.contains("first differs at step 1"), "{said}");
    let (code, table) = octet(&home, &["runs"]);
    assert_eq!(code, Some(0), "{table}");
    for run in ["one ", "one-15 ", "other "] {
        let line = table.lines().find(|line| line.starts_with(run));
        assert!(line.is_some_and(|l| l.contains("finished") && l.contains("30/30")), "{table}");
    }
}

#[test]
fn a_replay_comes_to_the_same_bits_and_names_the_step_where_it_does_not() {
    let home = Home::new();
    home.train("runs/one", &["checkpoint.keep=9", "data.cache=cache"]);
    let (code, said) = octet(&home, &["verify", "runs/one", "--replay", "7"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("replayed 7 steps from step 20: the same bits"), "{said}");
    let (code, said) = octet(&home, &["verify", "runs/one", "--replay", "5"]);
    assert!(
        code == Some(0) && said.contains("from step 25: the same bits, and the state"),
        "{said}"
    );
    let (code, said) = octet(&home, &["verify", "runs/one", "--replay", "99"]);
    assert!(code == Some(2) && said.contains("expected a checkpoint with 99"), "{said}");
    // A log that says something else.
    let log = home.path("runs/one/log.jsonl");
    let edited: Vec<String> = fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|line| match line.contains("\"kind\":\"step\",\"step\":27,") {
            true => line.replacen("\"grad_norm\":", "\"grad_norm\":1", 1),
            false => line.to_owned(),
        })
        .collect();
    fs::write(&log, edited.join("\n") + "\n").unwrap();
    let (code, said) = octet(&home, &["verify", "runs/one", "--replay", "5"]);
    assert!(code == Some(1) && said.contains("parts at step 27"), "{said}");
    let left = fs::read_dir(home.path("runs")).unwrap().count();
    assert_eq!(left, 1, "a replay leaves nothing");
}

#[test]
fn a_rehearsal_does_all_that_a_run_does_and_leaves_nothing() {
    let home = Home::new();
    let sets = ["--set", "data.text=text.txt", "--set", "data.cache=cache", "--set", "run.ranks=2"];
    let sample = ["--set", "sample.every=10", "--set", "sample.tokens=4"];
    let all = [&["rehearse", "run.toml"], &sets[..], &sample].concat();
    let (code, said) = octet(&home, &all);
    assert_eq!(code, Some(0), "{said}");
    for part in ["killed there", "resume ", "same bits ", "evaluate ", "sample ", "went well"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!home.path("runs/run.rehearsal").exists());
    // What fails is named, and what it left stays.
    let (code, said) = octet(&home, &["rehearse", "run.toml", "--set", "data.text=nowhere.txt"]);
    assert!(code == Some(2) && said.contains("nowhere.txt does not exist"), "{said}");
}
