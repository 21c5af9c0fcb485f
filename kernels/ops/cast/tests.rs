//! Rounding both ways, gradients in the dtype of what was cast, dead rows.

use crate::dtype::DType;
use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::cast::cast;
use crate::ops::linear::{linear, linear_to};
use crate::testing::{Array, Trial, noise};

#[test]
fn values_are_rounded_to_nearest_and_back_is_exact() {
    let x = noise(1, 300);
    let trial = Trial { inputs: &[Array::f32(&[3, 100], x.clone())], ..Trial::default() };
    let got = trial.run(&|g, x| {
        let narrow = cast(g, x[0], DType::Bf16)?;
        Ok(vec![narrow, cast(g, narrow, DType::F32)?, cast(g, x[0], DType::F32)?])
    });
    let got = got.unwrap();
    let nearest: Vec<f32> = x.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
    assert_eq!(got.outputs[0], Array::Float(vec![3, 100], nearest.clone(), DType::Bf16));
    assert_eq!(got.outputs[1], Array::f32(&[3, 100], nearest));
    assert_eq!(got.ops, ["cast", "cast"]);
}

#[test]
fn gradients_come_back_in_the_dtype_that_was_cast() {
    let (x, dy) = (noise(1, 12), noise(2, 12));
    let inputs = [Array::f32(&[4, 3], x).stored_as(DType::Bf16), Array::i32(&[], vec![3])];
    let seeds = [Array::f32(&[4, 3], dy.clone())];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let twice = |g: &mut Graph<'_>, x: &[Tensor]| {
        let rows = g.with_live(x[0], x[1]);
        Ok(vec![cast(g, rows, DType::F32)?])
    };
    let got = trial.run(&twice).unwrap();
    assert_eq!(got.gradients[0].floats()[..9], dy[..9]);
    assert!(got.gradients[0].floats()[9..].iter().all(|x| x.is_nan()));
    assert!(got.outputs[0].floats()[9..].iter().all(|x| x.is_nan()));
}

#[test]
fn a_product_is_stored_as_asked() {
    // A router's logits: f32 from a bf16 x, unrounded.
    let [n, k, m] = [5, 40, 7];
    let narrow = |seed, shape: &[usize]| {
        Array::f32(shape, noise(seed, shape.iter().product())).stored_as(DType::Bf16)
    };
    let inputs = [narrow(1, &[n, k]), narrow(2, &[m, k])];
    let wide = inputs.each_ref().map(|x| {
        let data = x.floats().iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
        Array::f32(&[x.floats().len() / k, k], data)
    });
    let run = |inputs: &[Array], to: DType| {
        let seeds = [Array::f32(&[n, m], noise(3, n * m))];
        let trial = Trial { inputs, seeds: Some(&seeds), narrow: false, ..Trial::default() };
        trial.run(&|g, x| Ok(vec![linear_to(g, x[0], x[1], None, to)?])).unwrap()
    };
    let (stored, truth) = (run(&inputs, DType::F32), run(&wide, DType::F32));
    assert_eq!(stored.outputs, truth.outputs);
    assert_eq!(stored.gradients, truth.gradients);
    let rounded = run(&inputs, DType::Bf16);
    let plain = Trial { inputs: &inputs, ..Trial::default() };
    let plain = plain.run(&|g, x| Ok(vec![linear(g, x[0], x[1], None)?])).unwrap();
    assert_eq!(rounded.outputs, plain.outputs);
    assert_ne!(rounded.outputs[0].floats(), stored.outputs[0].floats());
}

#[test]
fn a_gpu_rounds_alike() {
    for (n, d) in [(1, 1), (7, 33), (600, 16)] {
        let inputs = [Array::f32(&[n, d], noise(1, n * d))];
        let trial = Trial { inputs: &inputs, narrow: false, ..Trial::default() };
        let hold = Hold { trial, activations: 1, live: Some(n / 2), near: Near::Bits };
        hold.run(&|g, x| Ok(vec![cast(g, x[0], DType::Bf16)?]));
        Hold { live: None, ..hold }.run(&|g, x| {
            let narrow = cast(g, x[0], DType::Bf16)?;
            Ok(vec![narrow, cast(g, narrow, DType::F32)?])
        });
    }
}
