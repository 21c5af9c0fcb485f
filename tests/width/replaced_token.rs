//! Replaced-token detection (Clark et al., arXiv:2003.10555): a generator fills masked positions,
//! its draws go back into the sequence inside the graph, and a judge says which were replaced.

use crate::harness::{
    BATCH, Batch, Cell, Goal, Recompute, SYMBOLS, Study, Toy, Variables, WIDTH, add,
    binary_cross_entropy, block, compact, cross_entropy, each, embedding, encode, gather_rows,
    integers, keep_or, learns, less_than, linear, not_equal, one_digest, run, sample, scales,
    scatter_rows, symbol, tower, weight,
};

const LENGTH: usize = 6;

fn toy(batch: Batch, recompute: Recompute) -> Toy {
    let mut v = Variables::new();
    let towers = ["generator", "judge"].map(|name| tower(&mut v, name, weight));
    let before = weight(&mut v, "before", &[SYMBOLS, WIDTH]);
    let heads = [SYMBOLS, 1].map(|out| weight(&mut v, &format!("head.{out}"), &[out, WIDTH]));
    let mut study = Study::new(v, recompute);
    let program = study.program("replaced token", |g| {
        let rows = LENGTH * batch.micro;
        let fields = ["token", "previous", "masked", "row_sample", "position"];
        let [token, previous, masked, row_sample, position] = integers(g, fields, rows);
        let [scale, judge_scale] = scales(g, ["scale", "judge_scale"]);
        let [before, head, judge] = [before, heads[0], heads[1]].map(|id| g.parameter(id));
        let previous = embedding(g, previous, before)?;
        let (index, _) = compact(g, masked, rows)?;
        let visible = less_than(g, masked, 1)?;
        let input = keep_or(g, token, visible, SYMBOLS as i32)?;
        let h = encode(g, input, towers[0])?;
        let h = add(g, h, previous)?;
        let h = gather_rows(g, h, index)?;
        let logits = linear(g, h, head, None)?;
        let [label, samples, elements] =
            [token, row_sample, position].map(|from| gather_rows(g, from, index).unwrap());
        let guess = cross_entropy(g, logits, label, scale)?;
        let drawn = sample(g, logits, samples, elements, 1.0)?;
        let corrupted = scatter_rows(g, token, drawn, index)?;
        let replaced = not_equal(g, corrupted, token)?;
        let table = g.parameter(towers[1][0]);
        let h = embedding(g, corrupted, table)?;
        let h = add(g, h, previous)?;
        let h = block(g, h, towers[1])?;
        let verdict = linear(g, h, judge, None)?;
        let verdict = g.reshape(verdict, &[rows])?;
        let judged = binary_cross_entropy(g, verdict, replaced, judge_scale)?;
        for (name, (_, sum, targets)) in [("generator", guess), ("judge", judged)] {
            g.fetch(&format!("{name}.loss_sum"), sum);
            g.fetch(&format!("{name}.targets"), targets);
        }
        let loss = add(g, guess.0, judged.0)?;
        g.fetch("loss", loss);
        Ok(Goal::Train { loss })
    });
    study.toy(batch, move |_, _| each(batch, |_| program), data)
}

fn data(cell: Cell<'_>) -> f64 {
    match cell.field {
        "token" => symbol(cell.sample, cell.at + 1) as f64,
        "previous" => symbol(cell.sample, cell.at) as f64,
        "masked" => f64::from(u8::from((cell.at + cell.sample as usize).is_multiple_of(3))),
        "row_sample" => (cell.sample - cell.first) as f64,
        "position" => cell.at as f64,
        "scale" => 1.0 / (BATCH.global * LENGTH / 3) as f64,
        _ => 1.0 / (BATCH.global * LENGTH) as f64,
    }
}

#[test]
fn draws_belong_to_samples_and_not_to_ranks() {
    let trial = one_digest(16, |recompute| toy(BATCH, recompute));
    learns(&trial, 0.8);
    let means = &trial.reports[15].losses;
    assert!((means[0].1 + means[1].1 - trial.reports[15].loss).abs() < 1e-5, "{means:?}");
    // Cut into larger micro-batches the same samples draw the same symbols: the losses agree.
    let other = run(toy(Batch { micro: 4, ..BATCH }, Recompute::None), 2, 1);
    let difference = (trial.reports[0].loss - other.reports[0].loss).abs();
    assert!(difference < 1e-6, "{difference}: a sample drew something else");
}
