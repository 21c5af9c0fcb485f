//! Length buckets: short and long sequences are two programs over the same weights. Which
//! micro-batch has which length changes from step to step.

use crate::harness::{
    BATCH, Cell, Goal, Recompute, SYMBOLS, Study, Toy, Variables, WIDTH, add, attention, causal,
    cross_entropy, each, encode, integers, learns, linear, one_digest, report, scales, successors,
    tower, weight,
};

const LENGTHS: [usize; 2] = [4, 12];

/// The bucket of a micro-batch. Step 3 has only short ones.
fn bucket(step: u64, micro_batch: usize) -> usize {
    usize::from((step as usize + micro_batch).is_multiple_of(3) && step != 3)
}

fn toy(recompute: Recompute) -> Toy {
    let mut v = Variables::new();
    let trunk = tower(&mut v, "trunk", weight);
    let qkv = weight(&mut v, "qkv", &[3 * WIDTH, WIDTH]);
    let head = weight(&mut v, "head", &[SYMBOLS, WIDTH]);
    let mut study = Study::new(v, recompute);
    let programs = [("short", LENGTHS[0]), ("long", LENGTHS[1])].map(|(name, length)| {
        study.program(name, |g| {
            let rows = length * BATCH.micro;
            let [x, y, segments] = integers(g, ["x", "y", "segments"], rows);
            let [scale] = scales(g, ["scale"]);
            let [qkv, head] = [qkv, head].map(|id| g.parameter(id));
            let h = encode(g, x, trunk)?;
            let qkv = linear(g, h, qkv, None)?;
            let seen = attention(g, qkv, segments, causal(length))?;
            let h = add(g, h, seen)?;
            let logits = linear(g, h, head, None)?;
            let loss = cross_entropy(g, logits, y, scale)?;
            Ok(Goal::Train { loss: report(g, loss) })
        })
    });
    study.toy(BATCH, move |s, _| each(BATCH, |m| programs[bucket(s, m)]), data)
}

fn data(cell: Cell<'_>) -> f64 {
    let lengths = (0..BATCH.micro_batches()).map(|m| LENGTHS[bucket(cell.step, m)]);
    successors(lengths.sum::<usize>() * BATCH.micro)(cell)
}

#[test]
fn short_and_long_sequences_train_the_same_weights() {
    let trial = one_digest(12, toy);
    learns(&trial, 0.7);
    let names = |step: usize| trial.reports[step].losses.iter().map(|l| &*l.0).collect::<Vec<_>>();
    assert_eq!(names(0), ["long", "short"], "both buckets run in a step");
    assert!(names(3).is_empty(), "and one alone in another");
}
