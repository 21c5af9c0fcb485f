//! Narrow state vectors: their means are the values, their neighbours are neighbours, zero stays.

use super::{decode, encode, round_bf16, widen_bf16};
use crate::cpu::isa::Isa;
use crate::testing::noise;
use crate::update::SCALED;

/// Words that go evenly through all halves.
fn words(count: usize, round: u32) -> Vec<u32> {
    let half = |i: u32| (i.wrapping_mul(40_503).wrapping_add(round * 64)) & 0xFFFF;
    (0..count as u32).map(|i| half(i) << 16 | half(i + 7)).collect()
}

fn through(isa: Isa, values: &[f32], words: &[u32], shift: u32, signed: bool) -> Vec<f32> {
    let blocks = values.len().div_ceil(SCALED);
    let (mut codes, mut scales) = (vec![0xA5; values.len()], vec![0xA5; blocks]);
    encode(isa, values, words, shift, signed, &mut codes, &mut scales);
    let mut out = vec![f32::NAN; values.len()];
    decode(isa, &codes, &scales, signed, &mut out);
    out
}

/// The mean of many roundings of every value, and the farthest of them.
fn mean(values: &[f32], signed: bool) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0); values.len()];
    const ROUNDS: u32 = 1024;
    for round in 0..ROUNDS {
        let out = through(Isa::detect(), values, &words(values.len(), round), 0, signed);
        for ((sum, &value), &rounded) in sums.iter_mut().zip(values).zip(&out) {
            sum.0 += f64::from(rounded) / f64::from(ROUNDS);
            sum.1 = f64::from((rounded - value).abs()).max(sum.1);
        }
    }
    sums
}

#[test]
fn eight_bits_keep_the_mean() {
    for (signed, mantissa) in [(true, 3), (false, 4)] {
        let mut values = noise(1, 4 * SCALED);
        values[SCALED..2 * SCALED].iter_mut().for_each(|v| *v *= 1e-30);
        values[2 * SCALED..3 * SCALED].iter_mut().enumerate().for_each(|(i, v)| {
            *v *= 0.5f32.powi(i as i32 / 4);
        });
        if !signed {
            values.iter_mut().for_each(|v| *v = v.abs());
        }
        for (i, ((mean, far), value)) in mean(&values, signed).into_iter().zip(&values).enumerate()
        {
            let block = &values[i / SCALED * SCALED..][..SCALED];
            let largest = block.iter().fold(0f32, |a, b| a.max(b.abs()));
            let value = f64::from(*value);
            // One step of the mantissa, or the smallest step of the block.
            let floor = f64::from(largest) * 2f64.powi(-13 - mantissa);
            let step = (value.abs() * 2f64.powi(-mantissa)).max(floor);
            assert!(far <= step, "{i}: {value} went {far}");
            let rises = !signed && value < floor;
            assert!(rises || (mean - value).abs() < step / 100.0, "{i}: {value} has mean {mean}");
        }
    }
}

#[test]
fn what_has_a_code_is_kept_and_zero_is_zero() {
    for signed in [true, false] {
        let mut values = vec![0.0; 2 * SCALED];
        for round in 0..4 {
            let out = through(Isa::detect(), &values, &words(values.len(), round), 16, signed);
            assert!(out.iter().all(|value| *value == 0.0), "zeros become {out:?}");
        }
        for (i, value) in values.iter_mut().enumerate() {
            let sign = if signed && i % 2 == 1 { -1.0 } else { 1.0 };
            *value = sign * (1.0 + (i % 8) as f32 / 8.0) * 0.5f32.powi((i / 8) as i32 % 14);
        }
        for round in 0..4 {
            let out = through(Isa::detect(), &values, &words(values.len(), round), 0, signed);
            assert_eq!(out, values);
        }
    }
}

#[test]
fn a_second_moment_never_becomes_zero() {
    let mut values = vec![1e-20f32; SCALED];
    values[3] = 1.0;
    for round in 0..100 {
        let out = through(Isa::detect(), &values, &words(SCALED, round), 0, false);
        assert!(out.iter().all(|value| *value > 0.0));
    }
}

#[test]
fn every_instruction_set_rounds_alike() {
    let mut values = noise(3, 3 * SCALED + 5);
    values[70] = 1e-42;
    values[195] = f32::MAX;
    for signed in [true, false] {
        let of = |isa| through(isa, &values, &words(values.len(), 9), 16, signed);
        let plain: Vec<u32> =
            of(Isa::supported().next().unwrap()).iter().map(|v| v.to_bits()).collect();
        for isa in Isa::supported() {
            assert_eq!(of(isa).iter().map(|v| v.to_bits()).collect::<Vec<_>>(), plain, "{isa}");
        }
    }
}

#[test]
fn bf16_keeps_the_mean_and_what_it_can_hold() {
    let isa = Isa::detect();
    let values = noise(4, 256);
    let mut sums = vec![0f64; values.len()];
    let (mut bits, mut wide) = (vec![0u16; values.len()], vec![0f32; values.len()]);
    for round in 0..1024 {
        round_bf16(isa, &values, &words(values.len(), round), 0, &mut bits);
        widen_bf16(isa, &bits, &mut wide);
        for ((sum, wide), value) in sums.iter_mut().zip(&wide).zip(&values) {
            assert!((wide - value).abs() <= value.abs() / 128.0);
            *sum += f64::from(*wide) / 1024.0;
        }
    }
    for (mean, &value) in sums.iter().zip(&values) {
        assert!((mean - f64::from(value)).abs() <= f64::from(value.abs()) / 12_800.0);
    }
    let held = wide.clone();
    round_bf16(isa, &held, &words(held.len(), 5), 0, &mut bits);
    widen_bf16(isa, &bits, &mut wide);
    assert_eq!(held, wide);
    round_bf16(isa, &[f32::NAN, f32::INFINITY], &[u32::MAX; 2], 0, &mut bits[..2]);
    assert_eq!(bits[..2], [0x7FC0, 0x7F80]);
}
