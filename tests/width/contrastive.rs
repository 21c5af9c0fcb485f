//! Contrastive groups of eight pairs over four micro-batches in two lanes: embed all, gather, one
//! loss over the group, and send the gradients of the embeddings back through each micro-batch.

use crate::harness::{
    BATCH, Batch, Cell, Goal, Graph, Group, Recompute, Region, StepShape, Study, Tensor, Toy,
    Variables, WIDTH, buffer, contrastive_loss, copy_into, dropout, each, encode, integers,
    l2_normalize, learns, one_digest, run, scales, symbol, tower, weight,
};

/// Pairs of a group.
const GROUP: usize = 8;

/// Groups over micro-batches, or, if a micro-batch holds a whole group, simply trained.
fn toy(batch: Batch, recompute: Recompute) -> Toy {
    let mut v = Variables::new();
    let towers = ["a", "b"].map(|side| tower(&mut v, side, weight));
    let log_scale = weight(&mut v, "log_scale", &[1]);
    let length = GROUP / batch.micro;
    let [a, b, da, db] =
        ["a", "b", "da", "db"].map(|name| buffer(&mut v, name, &[batch.micro, WIDTH], length));
    let mut study = Study::new(v, recompute);
    let embed = |g: &mut Graph<'_>| {
        let [x, y] = integers(g, ["a", "b"], batch.micro);
        g.region(Region::Block, |g| {
            let [a, b] = [encode(g, x, towers[0])?, encode(g, y, towers[1])?];
            let [a, b] = [dropout(g, a, 0.1, 1)?, dropout(g, b, 0.1, 1)?];
            Ok([l2_normalize(g, a, 1e-6)?, l2_normalize(g, b, 1e-6)?])
        })
    };
    let train = |g: &mut Graph<'_>, [a, b]: [Tensor; 2]| {
        let [scale] = scales(g, ["scale"]);
        let log_scale = g.parameter(log_scale);
        let (loss, _) = contrastive_loss(g, a, b, log_scale, scale)?;
        g.fetch("loss", loss);
        Ok(Goal::Train { loss })
    };
    if length == 1 {
        let whole = study.program("whole", |g| embed(g).and_then(|pairs| train(g, pairs)));
        return study.toy(batch, move |_, _| each(batch, |_| whole), data);
    }
    let forward = study.forward("embed", |g| {
        let pairs = embed(g)?;
        let slices = [a, b].map(|id| g.step_slice(id));
        (0..2).try_for_each(|i| copy_into(g, pairs[i], slices[i]))
    });
    let once = study.program("group", |g| {
        let [a, b, da, db] = [a, b, da, db].map(|buffer| g.step_whole(buffer));
        g.send_gradient(a, da);
        g.send_gradient(b, db);
        train(g, [a, b])
    });
    let backward = study.program("back", |g| {
        let [a, b] = embed(g)?;
        Ok(Goal::Vjp { outputs: vec![(a, g.step_slice(da)), (b, g.step_slice(db))] })
    });
    let group = Group { forward, made: [a, b], once, sent: [da, db], backward };
    let of = |i| group.phases(i * length..(i + 1) * length);
    let all: Vec<_> = (0..batch.global / GROUP).flat_map(of).collect();
    study.toy(batch, move |_, _| StepShape { phases: all.clone(), ..each(batch, |_| once) }, data)
}

/// Pairs: a symbol and its successor. The mean over all pairs of the step.
fn data(cell: Cell<'_>) -> f64 {
    match cell.field {
        "scale" => 1.0 / BATCH.global as f64,
        side => symbol(cell.sample, usize::from(side == "b")) as f64,
    }
}

#[test]
fn a_group_over_micro_batches_is_one_big_batch() {
    let trial = one_digest(12, |recompute| toy(BATCH, recompute));
    learns(&trial, 0.8);
    let whole = run(toy(Batch { micro: GROUP, lanes: 2, ..BATCH }, Recompute::None), 2, 12);
    for (grouped, whole) in trial.reports.iter().zip(&whole.reports) {
        assert!((grouped.loss - whole.loss).abs() < 1e-4, "{} or {}", grouped.loss, whole.loss);
        let share = grouped.grad_norm / whole.grad_norm;
        assert!((share - 1.0).abs() < 1e-3, "a gradient counts {share} times");
    }
}
