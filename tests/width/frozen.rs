//! A frozen tower between a trained table and a trained head: gradients pass through it, and it has
//! no gradient, no bucket and no moments of its own.

use crate::harness::{
    BATCH, Goal, Recompute, SYMBOLS, Study, Toy, Variables, WIDTH, add, block, cross_entropy, each,
    embedding, encode, frozen, integers, learns, linear, one_digest, report, run, scales,
    successors, tower, weight,
};

const LENGTH: usize = 4;

fn toy(recompute: Recompute) -> Toy {
    let mut v = Variables::new();
    let table = weight(&mut v, "table", &[SYMBOLS, WIDTH]);
    let tower = tower(&mut v, "tower", frozen);
    let head = weight(&mut v, "head", &[SYMBOLS, WIDTH]);
    let mut study = Study::new(v, recompute);
    let program = study.program("frozen", |g| {
        let [x, y] = integers(g, ["x", "y"], LENGTH * BATCH.micro);
        let [scale] = scales(g, ["scale"]);
        let (table, head) = (g.parameter(table), g.parameter(head));
        let h = embedding(g, x, table)?;
        let h = g.scoped("tower", |g| {
            let seen = encode(g, x, tower)?;
            let h = add(g, h, seen)?;
            block(g, h, tower)
        })?;
        let logits = linear(g, h, head, None)?;
        let loss = cross_entropy(g, logits, y, scale)?;
        Ok(Goal::Train { loss: report(g, loss) })
    });
    study.toy(BATCH, move |_, _| each(BATCH, |_| program), successors(BATCH.global * LENGTH))
}

#[test]
fn a_frozen_tower_lets_gradients_through_and_has_none() {
    let trial = one_digest(12, toy);
    learns(&trial, 0.6);
    let workload = toy(Recompute::None);
    let in_tower = workload.programs[0].costs().filter(|node| node.path == "tower");
    let ops: Vec<&str> = in_tower.map(|node| node.op).collect();
    // Backward visits the block through which a gradient must pass, and nothing else of the tower.
    let count = |op| ops.iter().filter(|&&o| o == op).count();
    let products = count("linear") + count("linear+gelu");
    assert_eq!((products, count("linear_input_gradient")), (4, 2), "{ops:?}");
    // What its frozen block does not need for that is not kept.
    assert_eq!((count("linear+gelu"), count("gelu")), (1, 1), "{ops:?}");
    assert_eq!(count("linear_weight_gradient") + count("embedding_gradient"), 0, "{ops:?}");
    let in_buckets =
        |i: &usize| !workload.layout.buckets_of(octet_kernels::graph::ParameterId(*i)).is_empty();
    let trained = (0..workload.layout.placements.len()).filter(in_buckets).count();
    assert_eq!(trained, 2, "the table and the head");
    let before = run(workload, 1, 0);
    for name in ["tower.table", "tower.up", "tower.down"] {
        assert_eq!(trial.floats(name), before.floats(name));
        assert!(!trial.tensors.contains_key(&format!("{name}.exp_avg")));
    }
    assert_ne!(trial.floats("table"), before.floats("table"));
}
