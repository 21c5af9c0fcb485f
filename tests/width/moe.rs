//! A mixture of experts over a live number of tokens. Steps whose rows exceed a small capacity are
//! repeated with a larger one. A bias that is no parameter balances the global load.

use crate::harness::{
    BATCH, Cell, DType, Goal, Recompute, Region, SYMBOLS, StateUse, StepShape, Study, TOP_2, Toy,
    Variables, WIDTH, add, add_into, combine, cross_entropy, dispatch, each, embedding, gelu,
    group_by_expert, grouped_linear, integers, learns, linear, load_balance_loss, one_digest,
    report, route, run, scales, state, symbol, update_bias, weight,
};

const EXPERTS: usize = 4;
const TOKENS: usize = 12;

fn toy(recompute: Recompute, capacities: [usize; 2]) -> Toy {
    let mut v = Variables::new();
    let [table, head] = ["table", "head"].map(|name| weight(&mut v, name, &[SYMBOLS, WIDTH]));
    let router = weight(&mut v, "router", &[EXPERTS, WIDTH]);
    let [up, down] = ["up", "down"].map(|name| weight(&mut v, name, &[EXPERTS, WIDTH, WIDTH]));
    let weights = [table, router, up, down, head];
    let bias = state(&mut v, "bias", &[EXPERTS], StateUse::Replicated);
    let load = state(&mut v, "load", &[EXPERTS], StateUse::StepSum);
    let mut study = Study::new(v, recompute);
    let programs = capacities.map(|capacity| {
        study.program("moe", |g| {
            let count = g.input("count", &[], DType::I32);
            let [x, y] = integers(g, ["x", "y"], TOKENS).map(|t| g.with_live(t, count));
            let [scale] = scales(g, ["scale"]);
            let [table, router, up, down, head] = weights.map(|id| g.parameter(id));
            let (bias, load) = (g.state(bias), g.state(load));
            let h = embedding(g, x, table)?;
            let scores = linear(g, h, router, None)?;
            let (expert, share, counts) = route(g, scores, Some(bias), TOP_2)?;
            add_into(g, counts, load)?;
            let balance = load_balance_loss(g, scores, counts, scale)?;
            let grouping = group_by_expert(g, expert, EXPERTS, capacity)?;
            let h = g.region(Region::Block, |g| {
                let rows = dispatch(g, h, &grouping)?;
                let rows = grouped_linear(g, rows, up, &grouping)?;
                let rows = gelu(g, rows)?;
                let rows = grouped_linear(g, rows, down, &grouping)?;
                combine(g, rows, share, &grouping)
            })?;
            let logits = linear(g, h, head, None)?;
            let loss = cross_entropy(g, logits, y, scale)?;
            let total = add(g, loss.0, balance.0)?;
            Ok(Goal::Train { loss: report(g, (total, loss.1, loss.2)) })
        })
    });
    let balance = study.forward("balance", |g| {
        let (bias, load) = (g.state(bias), g.state(load));
        update_bias(g, bias, load, 0.01)
    });
    let shape = move |_, a| StepShape { finally: vec![balance], ..each(BATCH, |_| programs[a]) };
    Toy { attempts: 2, ..study.toy(BATCH, shape, data) }
}

fn data(cell: Cell<'_>) -> f64 {
    // Live tokens of a micro-batch: none to eight, and all in one of every third step.
    let full = |m| cell.step % 3 == 2 && m == 5;
    let live = |m| if full(m) { TOKENS } else { (cell.step as usize + m) % 9 };
    match cell.field {
        "count" => live(cell.micro_batch) as f64,
        "x" | "y" if cell.flat >= live(cell.micro_batch) => 1e6,
        "x" => symbol(cell.first, cell.flat) as f64,
        "y" => symbol(cell.first, cell.flat + 1) as f64,
        _ => 1.0 / (0..BATCH.micro_batches()).map(live).sum::<usize>() as f64,
    }
}

#[test]
fn a_step_that_overflows_is_repeated_with_more_room() {
    let trial = one_digest(15, |recompute| toy(recompute, [16, 24]));
    learns(&trial, 0.7);
    assert_eq!(trial.attempts, [1, 1, 2].repeat(5));
    let roomy = run(toy(Recompute::None, [24, 24]), 2, 15);
    assert_eq!((&*roomy.attempts, &roomy.digest), (&[1; 15][..], &trial.digest));
    let cramped = run(Toy { attempts: 1, ..toy(Recompute::None, [16, 24]) }, 2, 3);
    assert!(!cramped.reports[1].skipped && cramped.reports[2].skipped);
    assert!(trial.floats("state.bias").iter().all(|b| b.abs() > 0.0), "a bias did not move");
}
