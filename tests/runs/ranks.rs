//! The same bits for any number of ranks, any placement and any threads; the memory that the plan
//! says, to the byte.

use serde_json::Value;

use crate::harness::{Home, RunResult, STEPS, notes, reference};

#[test]
fn ranks_placement_and_threads_change_no_bit() {
    let home = Home::new();
    let wanted = reference();
    let steps = wanted.lines.iter().filter(|line| line[0] == "step").count();
    assert_eq!(steps as u64, STEPS);
    let first_and_last = [&wanted.lines[0][3], &wanted.lines[wanted.lines.len() - 2][3]];
    let [first, last] = first_and_last.map(|loss| loss.as_f64().unwrap());
    assert!(last < first - 0.5, "it learns: {first} to {last}");
    let shapes = [(1, 0, 2), (2, 1, 1), (2, 0, 2), (4, 1, 1), (4, 0, 1), (8, 1, 1)];
    for (ranks, zero, threads) in shapes {
        let name = format!("runs/{ranks}-{zero}-{threads}");
        let sets = [
            format!("run.ranks={ranks}"),
            format!("run.zero={zero}"),
            format!("run.threads={threads}"),
        ];
        let sets = [&sets[0], &sets[1], &sets[2]].map(String::as_str);
        assert_eq!(&home.train(&name, &sets), wanted, "{sets:?}");
        arenas_are_planned(&home, &name, &sets);
    }
}

/// The run has taken what `octet plan` says, and not a byte more.
fn arenas_are_planned(home: &Home, name: &str, sets: &[&str]) {
    let output = home.command("plan", sets).arg("--json").output().unwrap();
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let planned = plan["arena_bytes"].as_u64().unwrap();
    let taken: Vec<Vec<u64>> = notes(&home.path(name))
        .iter()
        .filter_map(|note| note.split_once("bytes of their arenas: "))
        .map(|(_, arenas)| serde_json::from_str(arenas).unwrap())
        .collect();
    assert_eq!(taken.len(), 1, "one start");
    assert_eq!(taken[0].iter().max(), Some(&planned), "{sets:?}");
    assert_eq!(taken[0].len() as u64, plan["ranks"].as_u64().unwrap());
}

#[test]
fn another_seed_changes_the_bits() {
    let home = Home::new();
    let other: RunResult = home.train("runs/other", &["run.seed=1"]);
    assert_ne!(other.digest, reference().digest, "the digest would show a difference");
    assert_ne!(other.lines[0], reference().lines[0]);
}

#[test]
fn a_finished_run_stays_as_it_is() {
    let home = Home::new();
    let run = home.train("runs/done", &[]);
    assert_eq!(&run, reference());
    assert_eq!(home.train("runs/done", &["run.ranks=2"]), run, "nothing is left to do");
}
