//! Two tasks in one run: three micro-batches predict the next symbol, every fourth one sorts
//! symbols into low and high. They share the trunk; each has its own head, loss and count of
//! targets, and there are lanes in which a head is not used.

use crate::harness::{
    BATCH, Cell, Goal, Recompute, SYMBOLS, Study, Toy, Variables, WIDTH, binary_cross_entropy,
    cross_entropy, each, encode, integers, learns, linear, one_digest, report, scales, symbol,
    tower, weight,
};

const LENGTH: usize = 4;
const ROWS: usize = LENGTH * BATCH.micro;

/// Sorts symbols.
fn sorts(micro_batch: usize) -> bool {
    micro_batch % 4 == 3
}

fn toy(recompute: Recompute) -> Toy {
    let mut v = Variables::new();
    let trunk = tower(&mut v, "trunk", weight);
    let next_head = weight(&mut v, "next_head", &[SYMBOLS, WIDTH]);
    let sort_head = weight(&mut v, "sort_head", &[1, WIDTH]);
    let mut study = Study::new(v, recompute);
    let next = study.program("next", |g| {
        let [x, y] = integers(g, ["x", "next"], ROWS);
        let [scale] = scales(g, ["scale"]);
        let h = encode(g, x, trunk)?;
        let head = g.parameter(next_head);
        let logits = linear(g, h, head, None)?;
        let loss = cross_entropy(g, logits, y, scale)?;
        Ok(Goal::Train { loss: report(g, loss) })
    });
    let sort = study.program("sort", |g| {
        let [x, y] = integers(g, ["x", "high"], ROWS);
        let [scale] = scales(g, ["scale"]);
        let h = encode(g, x, trunk)?;
        let head = g.parameter(sort_head);
        let verdict = linear(g, h, head, None)?;
        let verdict = g.reshape(verdict, &[ROWS])?;
        let loss = binary_cross_entropy(g, verdict, y, scale)?;
        Ok(Goal::Train { loss: report(g, loss) })
    });
    study.toy(BATCH, move |_, _| each(BATCH, |m| if sorts(m) { sort } else { next }), data)
}

fn data(cell: Cell<'_>) -> f64 {
    let x = symbol(cell.sample, cell.at);
    match cell.field {
        "x" => x as f64,
        "next" => symbol(cell.sample, cell.at + 1) as f64,
        "high" => f64::from(u8::from(x > SYMBOLS / 2)),
        // A quarter of the loss comes from a quarter of the micro-batches.
        _ if sorts(cell.micro_batch) => 0.25 / (BATCH.global * LENGTH / 4) as f64,
        _ => 0.75 / (BATCH.global * LENGTH * 3 / 4) as f64,
    }
}

#[test]
fn two_tasks_share_a_trunk() {
    let trial = one_digest(12, toy);
    learns(&trial, 0.6);
    let named = |step: usize| trial.reports[step].losses.clone();
    for ((name, first), (_, last)) in named(0).into_iter().zip(named(11)) {
        assert!(last < 0.8 * first, "{name}: {first} to {last}");
    }
    assert_eq!(named(0).iter().map(|l| &*l.0).collect::<Vec<_>>(), ["next", "sort"]);
}
