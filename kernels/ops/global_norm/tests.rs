//! The norm against a plain f64 sum, its independence of threads, clipping and bad gradients.

use crate::cpu::CpuDevice;
use crate::ops::global_norm::{Norm, block_sums, clip_factor};
use crate::testing::noise;

fn sums(threads: usize, gradient: &[f32], block: usize) -> Vec<f64> {
    let mut out = vec![f64::NAN; gradient.len().div_ceil(block)];
    block_sums(&CpuDevice::new(threads), gradient, block, &mut out);
    out
}

#[test]
fn the_norm_is_that_of_all_elements() {
    for (n, block) in [(1, 1), (100, 7), (5000, 1024), (4096, 1024)] {
        let g = noise(3, n);
        let truth = g.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let got = clip_factor(sums(1, &g, block).into_iter(), 0.0);
        assert!((got.norm - truth).abs() <= 1e-13 * truth, "{n}");
        assert_eq!(sums(1, &g, block), sums(3, &g, block));
    }
}

#[test]
fn a_shard_has_the_sums_of_its_blocks() {
    let g = noise(3, 4096);
    let whole = sums(2, &g, 512);
    assert_eq!(sums(2, &g[1024..3072], 512), whole[2..6]);
}

#[test]
fn clipping_is_pytorchs() {
    let plain = Norm { norm: 5.0, factor: 1.0, finite: true };
    assert_eq!(clip_factor([9.0, 16.0].into_iter(), 0.0), plain);
    assert_eq!(clip_factor([9.0, 16.0].into_iter(), 7.0), plain);
    assert_eq!(clip_factor([9.0, 16.0].into_iter(), f64::INFINITY), plain);
    assert_eq!(clip_factor([9.0, 16.0].into_iter(), 1.0).factor, (1.0 / 5.000_001) as f32);
    assert_eq!(clip_factor([0.0].into_iter(), 1.0).factor, 1.0);
}

#[test]
fn gradients_that_are_not_finite_are_told() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut g = noise(3, 100);
        g[37] = bad;
        let norm = clip_factor(sums(1, &g, 64).into_iter(), 1.0);
        assert!(!norm.finite && norm.factor == 1.0);
    }
    // Squares of finite f32 never overflow an f64.
    assert!(clip_factor(sums(1, &[f32::MAX; 100], 64).into_iter(), 1.0).finite);
}
