//! What a branch takes over of a log.

use std::fs;

use octet_actors::outside::LocalDisk;
use octet_actors::report::RollBackReport;
use octet_actors::run_folder::log::{Line, for_each_line};

use super::log_until;

fn note(step: u64, text: &str) -> Line {
    Line::Note { step, what: text.to_owned() }
}

/// The steps that are taken over of a log up to a step, roll-backs as `None`, with their texts.
fn taken(lines: &[Line], step: u64) -> Vec<(Option<u64>, String)> {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    let text = |line: &Line| serde_json::to_string(line).unwrap() + "\n";
    fs::write(&from, lines.iter().map(text).collect::<String>()).unwrap();
    log_until(&from, step, &to).unwrap();
    let mut taken = Vec::new();
    for_each_line(&LocalDisk, &to, |line| {
        let text = if let Line::Note { what, .. } = &line { what.clone() } else { String::new() };
        taken.push((line.step(), text));
    })
    .unwrap();
    taken
}

#[test]
fn of_a_run_that_was_rolled_back_the_last_time_counts() {
    let back = Line::RollBack(RollBackReport {
        step: 1,
        at: 4,
        loaded: 1,
        number: 1,
        reason: "a spike".to_owned(),
        first_batch: 1,
        batches: 2,
    });
    let first = (1..=4).map(|step| note(step, "given up"));
    let again = (2..=5).map(|step| note(step, "kept"));
    let lines: Vec<Line> = first.chain([back]).chain(again).collect();
    let kept = |step: u64| (Some(step), "kept".to_owned());
    let end = taken(&lines, 3).split_off(3);
    // The roll-back, and what came after it; nothing of later steps.
    assert_eq!(end, [(None, String::new()), kept(2), kept(3)]);
    assert!(taken(&lines, 3).iter().all(|line| line.0.is_none_or(|step| step <= 3)));
    // Before the first step there is nothing, and a log that is not there is an empty one.
    assert_eq!(taken(&lines, 0), []);
    let folder = tempfile::tempdir().unwrap();
    log_until(&folder.path().join("absent"), 3, &folder.path().join("to")).unwrap();
    assert_eq!(fs::read(folder.path().join("to")).unwrap(), b"");
}
