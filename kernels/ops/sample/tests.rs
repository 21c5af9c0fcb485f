//! `sample`: against f64, frequencies, independence of packing, temperature 0, dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::sample::{cpu, oracle, sample};
use crate::random::{RandomStream, Site};
use crate::testing::{Array, Trial, noise};

fn draws(inputs: &[Array], temperature: f32, step: u64, first_sample: u64) -> Vec<i32> {
    let trial = Trial { inputs, step, first_sample, ..Trial::default() };
    let trace =
        |g: &mut Graph<'_>, x: &[Tensor]| Ok(vec![sample(g, x[0], x[1], x[2], temperature)?]);
    trial.run(&trace).unwrap().outputs[0].ints().to_vec()
}

#[test]
fn exponentials_are_accurate_at_both_ends() {
    let step = u32::MAX / 99_991;
    let words = (0..=99_991).map(|i| i * step).chain([u32::MAX, u32::MAX - 1, 1 << 30, 1 << 31]);
    for word in words.chain(0..1000) {
        let (got, truth) = (f64::from(cpu::exponential(word)), oracle::exponential(word));
        assert!((got - truth).abs() <= 5e-7 * truth, "{word}: {got} {truth}");
    }
}

#[test]
fn the_first_to_arrive_is_drawn() {
    let stream = RandomStream { seed: 7, site: Site::new("/sample/0") };
    for (m, v) in [(1, 1), (5, 3), (40, 65), (3, 1000)] {
        let logits: Vec<f32> = noise(3, m * v).iter().map(|x| x * 3.0).collect();
        let samples: Vec<i32> = (0..m).map(|i| (i / 2) as i32).collect();
        let elements: Vec<i32> = (0..m).map(|i| (i * 3 % 17) as i32).collect();
        let inputs = [
            Array::f32(&[m, v], logits.clone()),
            Array::i32(&[m], samples.clone()),
            Array::i32(&[m], elements.clone()),
        ];
        let got = draws(&inputs, 0.7, 5, 100);
        for row in 0..m {
            let first = elements[row] as u64 * v.next_multiple_of(4) as u64;
            let word = |v| stream.word(5, 100 + samples[row] as u64, first + v);
            let times = oracle::arrivals(&logits[row * v..][..v], f64::from(0.7f32), word);
            let best = times.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(times[got[row] as usize] <= best * (1.0 + 1e-5), "row {row} of {m} x {v}");
        }
    }
}

#[test]
fn frequencies_follow_the_softmax() {
    let (m, probabilities) = (20_000, [0.5, 0.25, 0.2, 0.05, 0.0]);
    let logits: Vec<f32> =
        (0..m).flat_map(|_| probabilities.map(|p: f32| p.ln() * 2.0 + 3.0)).collect();
    let inputs = [
        Array::f32(&[m, 5], logits),
        Array::i32(&[m], (0..m as i32).map(|i| i / 100).collect()),
        Array::i32(&[m], (0..m as i32).map(|i| i % 100).collect()),
    ];
    let got = draws(&inputs, 2.0, 0, 0);
    for (class, p) in probabilities.iter().enumerate() {
        let count = got.iter().filter(|g| **g == class as i32).count();
        let expected = f64::from(*p) * m as f64;
        assert!((count as f64 - expected).abs() <= 4.0 * expected.sqrt(), "{class}: {count}");
    }
    assert_ne!(got, draws(&inputs, 2.0, 1, 0), "another step draws the same");
}

#[test]
fn a_draw_depends_on_sample_and_element_not_on_the_row() {
    let v = 33;
    let logits = noise(4, 3 * v);
    let one = |row: usize| logits[row * v..][..v].to_vec();
    let together = [
        Array::f32(&[3, v], logits.clone()),
        Array::i32(&[3], vec![0, 1, 1]),
        Array::i32(&[3], vec![8, 2, 9]),
    ];
    // The second sample alone, as the first of a later micro-batch, rows the other way round.
    let apart = [
        Array::f32(&[2, v], [one(2), one(1)].concat()),
        Array::i32(&[2], vec![0, 0]),
        Array::i32(&[2], vec![9, 2]),
    ];
    for step in 0..20 {
        let (a, b) = (draws(&together, 1.0, step, 6), draws(&apart, 1.0, step, 7));
        assert_eq!([a[2], a[1]], [b[0], b[1]]);
    }
}

#[test]
fn draws_go_on_beyond_the_counter_of_philox() {
    let (rows, classes) = (40, 64);
    let draw = |first: i32| {
        let inputs = [
            Array::f32(&[rows, classes], vec![0.0; rows * classes]),
            Array::i32(&[rows], vec![0; rows]),
            Array::i32(&[rows], (first..).take(rows).collect()),
        ];
        draws(&inputs, 1.0, 0, 0)
    };
    // 2^28 positions of 64 classes are 2^34 elements.
    assert_ne!(draw(3), draw(3 + (1 << 28)));
}

#[test]
fn temperature_zero_takes_the_first_of_the_largest() {
    let inputs = [
        Array::f32(&[2, 4], vec![1.0, 3.0, 2.0, 3.0, f32::NEG_INFINITY, -5.0, -7.0, -6.0]),
        Array::i32(&[2], vec![0, 0]),
        Array::i32(&[2], vec![0, 1]),
    ];
    assert_eq!(draws(&inputs, 0.0, 3, 0), [1, 1]);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let inputs = [
        Array::f32(&[2, 2], vec![0.0, f32::NEG_INFINITY, f32::NAN, f32::NAN]),
        Array::i32(&[2], vec![0, -1]),
        Array::i32(&[2], vec![0, i32::MAX]),
        Array::i32(&[], vec![1]),
    ];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let logits = g.with_live(x[0], x[3]);
            Ok(vec![sample(g, logits, x[1], x[2], 1.0)?])
        })
        .unwrap();
    assert_eq!(got.outputs[0].ints(), [0, -1]);
}

#[test]
fn a_gpu_draws_the_same() {
    for (m, v, temperature) in [(1, 1, 1.0), (7, 2500, 0.7), (5, 70, 0.0)] {
        let logits = noise(3, m * v).iter().map(|x| x * 3.0).collect();
        let samples = (0..m).map(|i| (i / 2) as i32).collect();
        // Far enough that the blocks of random words exceed 32 bits.
        let elements = (0..m).map(|i| (i * 3 % 17) as i32 + (1 << 30)).collect();
        let rows = [samples, elements].map(|rows| Array::i32(&[m], rows));
        let inputs = [vec![Array::f32(&[m, v], logits)], rows.to_vec()].concat();
        let trial = Trial { inputs: &inputs, step: 5, first_sample: 1 << 40, ..Trial::default() };
        for live in [None, Some(m.div_ceil(2))] {
            Hold { trial, activations: 1, live, near: Near::Bits }
                .run(&|g, x| Ok(vec![sample(g, x[0], x[1], x[2], temperature)?]));
        }
    }
}
