//! Tests of where two logs part.

use std::collections::BTreeMap;

use octet_actors::report::{StepReport, WaitMs};

use super::{Buckets, Parting, Tasks, differing, first_difference, keys, names, other_buckets};
use crate::config::Config;

fn log(steps: impl Iterator<Item = u64>) -> BTreeMap<u64, StepReport> {
    let report = |step| StepReport {
        batch: None,
        step,
        tokens: step * 8,
        loss: 1.0 / step as f64,
        targets: Some(8),
        losses: vec![],
        learning_rate: 1e-3,
        grad_norm: 1.0,
        skipped: false,
        tokens_per_s: 1.0,
        step_ms: 1.0,
        flops_per_s: 1.0,
        mfu: None,
        wait_ms: WaitMs::default(),
        fingerprint: 3 * step + 3,
        buckets: vec![],
    };
    steps.map(|step| (step, report(step))).collect()
}

#[test]
fn equal_logs_do_not_part_whatever_the_clock_says() {
    let (a, mut b) = (log(1..=6), log(3..=9));
    for report in b.values_mut() {
        report.step_ms = 7.0;
    }
    assert_eq!(Parting::find(&a, &b), Parting { equal: 4, ..Parting::default() });
    // A loss that is not finite on both sides is the same loss.
    let mut broken = a.clone();
    broken.get_mut(&2).unwrap().loss = f64::NAN;
    assert_eq!(Parting::find(&broken, &broken).loss, None);
    assert!(Parting::find(&broken, &a).loss.is_some());
}

#[test]
fn the_first_step_and_its_buckets_are_found() {
    let (a, mut b) = (log(1..=6), log(1..=6));
    for step in 3..=6 {
        b.get_mut(&step).unwrap().fingerprint ^= 1;
    }
    b.get_mut(&4).unwrap().grad_norm = 2.0;
    let parting = Parting::find(&a, &b);
    assert_eq!(parting.equal, 2);
    assert_eq!(parting.fingerprint, Some(3));
    let loss = parting.loss.unwrap();
    assert_eq!((loss.step, loss.grad_norm), (4, [1.0, 2.0]));
}

#[test]
fn buckets_are_named_where_both_have_recorded_them() {
    let records = |steps: &[u64]| -> Buckets {
        steps.iter().map(|&step| (step, vec![step, step + 1, step + 2])).collect()
    };
    let (a, mut b) = (records(&[2, 4, 5, 6]), records(&[2, 3, 4, 6, 8]));
    assert_eq!(other_buckets(&a, &b, 1), None);
    b.get_mut(&6).unwrap()[1] ^= 1;
    b.get_mut(&3).unwrap()[0] ^= 1;
    assert_eq!(other_buckets(&a, &b, 3), Some((6, vec![1])));
    assert_eq!(other_buckets(&a, &b, 7), None);
    // Another layout differs in the buckets that one of them lacks.
    b.get_mut(&4).unwrap().truncate(1);
    assert_eq!(other_buckets(&a, &b, 3), Some((4, vec![1, 2])));
}

#[test]
fn digests_are_compared_where_both_have_one() {
    let digests = |of: &[(u64, &str)]| of.iter().map(|&(s, d)| (s, d.to_string())).collect();
    let (a, b) = (digests(&[(2, "x"), (4, "y")]), digests(&[(1, "q"), (4, "y"), (5, "z")]));
    assert_eq!(first_difference(&a, &b), None);
    assert_eq!(first_difference(&a, &digests(&[(2, "x"), (4, "z")])), Some(4));
}

#[test]
fn buckets_and_keys_have_names() {
    let parse = |text: &str| Config::parse(text, "a.toml".as_ref(), &[]).unwrap();
    let a = parse("[model]\nvocabulary = 300\nlayers = 2\n");
    let names = names(&a);
    assert!(names[0].contains(&"embedding.weight".to_string()), "{names:?}");
    let b = parse("[model]\nvocabulary = 300\nlayers = 3\n[run]\nthreads = 1\n");
    let differences = keys(&a, &b);
    let found: Vec<&str> = differences.iter().map(|d| d.key.as_str()).collect();
    assert_eq!(found, ["model.layers", "run.threads"]);
    assert_eq!(differences[0].values, [Some("2".to_string()), Some("3".to_string())]);
    assert_eq!(differences[1].values, [None, Some("1".to_string())]);
}

#[test]
fn tracks_and_tasks_that_differ_are_named() {
    let (mut a, mut b) = (log(1..=4), log(1..=4));
    let losses = |of: &[(&str, f64)]| of.iter().map(|&(n, l)| (n.to_owned(), l)).collect();
    a.get_mut(&2).unwrap().losses = losses(&[("lm", 1.0), ("bert", 2.0), ("gone", 1.0)]);
    b.get_mut(&2).unwrap().losses = losses(&[("lm", 1.0), ("bert", 2.5), ("new", 1.0)]);
    b.get_mut(&2).unwrap().loss = 9.0;
    assert_eq!(Parting::find(&a, &b).loss.unwrap().tracks, ["bert", "gone", "new"]);
    let tasks = |of: &[(&str, u64, f64)]| -> Tasks {
        of.iter().map(|&(task, step, loss)| ((task.to_owned(), step), loss)).collect()
    };
    let a = tasks(&[("x", 2, 1.0), ("x", 4, 1.0), ("x", 6, 1.0), ("y", 2, f64::NAN)]);
    let b = tasks(&[("x", 2, 1.0), ("x", 4, 0.5), ("x", 6, 0.5), ("y", 2, f64::NAN)]);
    let found = differing(&a, &b);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].task.as_str(), found[0].step, found[0].loss), ("x", 4, [1.0, 0.5]));
}
