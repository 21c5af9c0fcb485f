//! `route` on the CPU: tokens in parallel, then one pass that counts.

use super::{EXPERTS_MAX, Route, Score};
use crate::cpu::CpuRun;
use crate::cpu::isa::Isa;
use crate::cpu::rows::map_rows;
use crate::cpu::softmax::{add_exp, softmax_parts};
use crate::cpu::vector::{exp, sigmoid};

/// Keeps a sum of scores that all vanish from dividing by 0; DeepSeek-V3's value.
const TINY: f32 = 1e-20;

/// How a token's logits become scores.
#[derive(Clone, Copy)]
struct Scores<'x> {
    x: &'x [f32],
    score: Score,
    largest: f32,
    sum: f32,
}

impl<'x> Scores<'x> {
    fn new(isa: Isa, x: &'x [f32], score: Score) -> Self {
        let (largest, sum) = match score {
            Score::Softmax => softmax_parts(isa, x, 1.0),
            Score::Sigmoid => (0.0, 1.0),
        };
        Self { x, score, largest, sum }
    }

    fn of(&self, expert: usize) -> f32 {
        match self.score {
            Score::Softmax => exp(self.x[expert] - self.largest) / self.sum,
            Score::Sigmoid => sigmoid(self.x[expert]),
        }
    }

    /// What the scores of the chosen experts are divided by.
    fn divisor(&self, chosen: &[i32], normalize: bool) -> f32 {
        let sum = chosen.iter().map(|&e| self.of(e as usize)).sum::<f32>();
        if normalize { sum + TINY } else { 1.0 }
    }
}

pub(super) fn forward(run: &CpuRun<'_>, rule: &Route) {
    let (logits, experts, k) = (run.input::<f32>(0), run.input_spec(0).columns(), rule.top_k);
    let bias = (run.inputs() > 1).then(|| run.input::<f32>(1));
    let (live, device) = (run.live_input(0), run.device());
    let chosen = &mut run.output::<i32>(0)[..live * k];
    let cost = experts * (k + 4);
    map_rows(&device.pool, live, cost, [(&mut *chosen, k)], |rows, [chosen]| {
        for (row, chosen) in rows.zip(chosen.chunks_exact_mut(k)) {
            let x = &logits[row * experts..][..experts];
            match bias {
                None => choose(x, chosen),
                Some(bias) => {
                    let scores = Scores::new(device.isa, x, rule.score);
                    let mut keys = [0.0; EXPERTS_MAX];
                    for (e, key) in keys[..experts].iter_mut().enumerate() {
                        *key = scores.of(e) + bias[e];
                    }
                    choose(&keys[..experts], chosen);
                }
            }
        }
    });
    let weights = run.output::<f32>(1);
    map_rows(&device.pool, live, cost, [(weights, k)], |rows, [weights]| {
        for (row, weights) in rows.zip(weights.chunks_exact_mut(k)) {
            let chosen = &chosen[row * k..][..k];
            let scores = Scores::new(device.isa, &logits[row * experts..][..experts], rule.score);
            let divisor = scores.divisor(chosen, rule.normalize);
            for (weight, &e) in weights.iter_mut().zip(chosen) {
                *weight = scores.of(e as usize) / divisor;
            }
        }
    });
    let counts = run.output::<i32>(2);
    counts.fill(0);
    chosen.iter().for_each(|&e| counts[e as usize] += 1);
}

/// The positions of the largest keys, in falling order, the lower position first among equals, what
/// is no number last.
fn choose(keys: &[f32], chosen: &mut [i32]) {
    let mut taken = [false; EXPERTS_MAX];
    for slot in chosen {
        let mut best = None;
        for (e, &key) in keys.iter().enumerate().filter(|(e, _)| !taken[*e]) {
            let larger = |of: f32| key > of || of.is_nan() && !key.is_nan();
            if best.is_none_or(|(_, largest)| larger(largest)) {
                best = Some((e, key));
            }
        }
        let (e, _) = best.expect("fewer choices than experts");
        taken[e] = true;
        *slot = e as i32;
    }
}

pub(super) fn gradient(run: &CpuRun<'_>, rule: &Route) {
    let (logits, experts) = (run.input::<f32>(0), run.input_spec(0).columns());
    let (chosen, k) = (run.input::<i32>(1), run.input_spec(1).columns());
    let (dweight, accumulate, device) = (run.input::<f32>(2), run.accumulate(0), run.device());
    let (live, dx) = (run.live_input(0), run.output::<f32>(0));
    map_rows(&device.pool, live, 4 * experts, [(dx, experts)], |rows, [dx]| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(experts)) {
            if !accumulate {
                dx.fill(0.0);
            }
            let scores = Scores::new(device.isa, &logits[row * experts..][..experts], rule.score);
            let (chosen, dweight) = (&chosen[row * k..][..k], &dweight[row * k..][..k]);
            row_gradient(device.isa, &scores, chosen, dweight, rule.normalize, dx);
        }
    });
}

/// Adds the gradient of one token's logits to `dx`.
fn row_gradient(
    isa: Isa,
    scores: &Scores<'_>,
    chosen: &[i32],
    dweight: &[f32],
    normalize: bool,
    dx: &mut [f32],
) {
    let divisor = scores.divisor(chosen, normalize);
    let pairs = || chosen.iter().map(|&e| e as usize).zip(dweight);
    let mean = match normalize {
        true => pairs().map(|(e, dw)| scores.of(e) / divisor * dw).sum::<f32>(),
        false => 0.0,
    };
    // The gradient of a chosen expert's score; that of the others is 0.
    let dscore = |dw: f32| (dw - mean) / divisor;
    match scores.score {
        Score::Softmax => {
            let inner: f32 = pairs().map(|(e, &dw)| scores.of(e) * dscore(dw)).sum();
            add_exp(isa, dx, scores.x, scores.largest, 1.0, -inner / scores.sum);
            pairs().for_each(|(e, &dw)| dx[e] += scores.of(e) * dscore(dw));
        }
        Score::Sigmoid => pairs().for_each(|(e, &dw)| {
            let s = scores.of(e);
            dx[e] += s * (1.0 - s) * dscore(dw);
        }),
    }
}
