//! A prefix that is seen both ways, and the rest from left to right.

use octet_actors::contract::Workload;

use crate::harness::{experiment, one_digest};

#[test]
fn prefix_lm_learns_whatever_the_ranks_and_may_write() {
    let folder = tempfile::tempdir().unwrap();
    let own = "[model]\nlayers = 1\nheads = 2\nwidth = 32\ninit_std = 0.1\n\
               [objective]\nkind = \"prefix_lm\"\n[sample]\nevery = 5\n";
    let lm = experiment(folder.path(), own);
    assert!(lm.decoder().is_some());
    assert_eq!(lm.evaluations().len(), 1);
    let trial = one_digest(&lm);
    let loss = |steps: std::ops::Range<usize>| {
        trial.reports[steps].iter().map(|report| report.loss).sum::<f64>() / 5.0
    };
    let (first, last) = (loss(0..5), loss(35..40));
    assert!(last < 0.8 * first, "{first} to {last}");
}
