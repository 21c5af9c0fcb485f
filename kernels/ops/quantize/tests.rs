//! Scales, the error of a round trip, zeros, numbers that are none, dead rows.

use crate::dtype::DType;
use crate::emulator::hold::{Hold, Near};
use crate::error::Result;
use crate::f8::{E4M3, E5M2};
use crate::graph::{Graph, Tensor};
use crate::ops::quantize::{dequantize, quantize};
use crate::testing::{Array, Trial, noise};

fn round_trip(to: DType) -> impl Fn(&mut Graph<'_>, &[Tensor]) -> Result<Vec<Tensor>> {
    move |g, x| {
        let (q, scale) = quantize(g, x[0], to)?;
        Ok(vec![dequantize(g, q, scale, DType::F32)?, scale])
    }
}

fn run(x: &[f32], to: DType) -> (Vec<f32>, f32) {
    let inputs = [Array::f32(&[x.len(), 1], x.to_vec())];
    let trial = Trial { inputs: &inputs, narrow: false, ..Trial::default() };
    let got = trial.run(&round_trip(to)).unwrap();
    (got.outputs[0].floats().to_vec(), got.outputs[1].floats()[0])
}

#[test]
fn a_round_trip_errs_by_half_a_place() {
    for (to, format, places) in [(DType::F8E4M3, E4M3, 3), (DType::F8E5M2, E5M2, 2)] {
        for factor in [1.0, 1e-6, 3e7] {
            let x: Vec<f32> = noise(1, 20_000).iter().map(|x| x * factor).collect();
            let (back, scale) = run(&x, to);
            let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            assert_eq!(scale, largest / format.max());
            let smallest = format.decode(1) * scale;
            for (x, back) in x.iter().zip(back) {
                let half = x.abs() * 0.5f32.powi(places + 1) + smallest / 2.0;
                assert!((x - back).abs() <= half * 1.0001, "{x} came back as {back}");
            }
        }
    }
}

#[test]
fn zeros_and_what_is_no_number_are_told() {
    let (back, scale) = run(&[0.0, -0.0, 0.0], DType::F8E4M3);
    assert_eq!((back, scale), (vec![0.0; 3], 1.0));
    for bad in [f32::INFINITY, f32::NAN, f32::NEG_INFINITY] {
        let (back, scale) = run(&[1.0, bad], DType::F8E5M2);
        assert!(scale.is_nan() && back.iter().all(|x| x.is_nan()), "{bad}");
    }
    let (back, _) = run(&[1e-45, 0.0], DType::F8E4M3);
    assert!(back.iter().all(|x| x.is_finite()));
}

#[test]
fn dead_rows_count_for_nothing() {
    let inputs = [
        Array::f32(&[4, 2], vec![1.0, -2.0, 0.5, 2.0, f32::NAN, 9.0, 1e9, f32::INFINITY]),
        Array::i32(&[], vec![2]),
    ];
    let trial = Trial { inputs: &inputs, narrow: false, ..Trial::default() };
    let got = trial.run(&|g, x| {
        let rows = g.with_live(x[0], x[1]);
        round_trip(DType::F8E4M3)(g, &[rows])
    });
    let got = got.unwrap();
    assert_eq!(got.outputs[0].floats()[..4], [1.0, -2.0, 0.5, 2.0]);
    assert!(got.outputs[0].floats()[4..].iter().all(|x| x.is_nan()));
    assert_eq!(got.outputs[1].floats()[0], 2.0 / 448.0);
}

#[test]
fn ops_refuse_floats_without_their_scale() {
    let inputs = [Array::f32(&[2, 2], vec![1.0; 4])];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let error = trial.run(&|g, x| {
        let (q, _) = quantize(g, x[0], DType::F8E4M3)?;
        Ok(vec![crate::ops::add::add(g, q, q)?])
    });
    assert!(error.unwrap_err().to_string().contains("f8_e4m3[2, 2]"));
    let error = trial.run(&|g, x| Ok(vec![quantize(g, x[0], DType::Bf16)?.0]));
    assert!(error.unwrap_err().to_string().contains("has no scale"));
}

#[test]
fn a_gpu_has_the_same_bits() {
    for to in [DType::F8E4M3, DType::F8E5M2] {
        for (n, d, special) in [
            (1, 1, None),
            (9, 33, None),
            (300, 40, None),
            (5, 8, Some(0.0)),
            (5, 9, Some(f32::INFINITY)),
            (5, 8, Some(f32::NAN)),
        ] {
            let mut x = noise(1, n * d);
            match special {
                Some(0.0) => x.fill(0.0),
                Some(special) => x[n * d / 2] = special,
                None => {}
            }
            let inputs = [Array::f32(&[n, d], x)];
            let trial = Trial { inputs: &inputs, ..Trial::default() };
            for live in [None, Some(n / 2)] {
                Hold { trial, activations: 1, live, near: Near::Bits }.run(&|g, x| {
                    let (q, scale) = quantize(g, x[0], to)?;
                    let stored = g.spec(x[0]).dtype;
                    Ok(vec![dequantize(g, q, scale, stored)?, scale])
                });
            }
        }
    }
}
