//! The peaks of this machine's CPU, measured: there is no data sheet for the code that runs here.

use std::time::{Duration, Instant};

use crate::cpu::CpuDevice;
use crate::cpu::gemm::{Matrix, Output, Size};
use crate::dtype::Precision;
use crate::graph::cost::Peaks;

/// Side of the square matrices whose product is the CPU's peak.
const SIDE: usize = 256;
/// Bytes that are copied to find the CPU's bandwidth: more than its nearer caches hold.
const COPIED: usize = 32 << 20;

/// Peaks of the CPU with so many threads for products of that precision, measured until they are
/// stable: in some tenths of a second.
pub fn measure_cpu(threads: usize, precision: Precision) -> Peaks {
    let device = CpuDevice::new(threads);
    let (a, b) = (vec![1.0f32; SIDE * SIDE], vec![1.0f32; SIDE * SIDE]);
    let mut c = vec![0.0f32; SIDE * SIDE];
    let size = Size { m: SIDE, n: SIDE, k: SIDE };
    let mut product = || {
        let output = Output::new(&mut c, SIDE, false);
        let [a, b] = [&a, &b].map(|data| Matrix::rows(data, SIDE).rounded(precision));
        device.gemm(size, a, b, output);
    };
    let multiplying = best(&mut product);
    let source = vec![1u8; COPIED];
    let mut target = vec![0u8; COPIED];
    let copying = best(&mut || {
        let chunk = COPIED.div_ceil(threads);
        let (from, to) = (source.chunks(chunk), target.chunks_mut(chunk));
        std::thread::scope(|scope| {
            for (from, to) in from.zip(to) {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
        std::hint::black_box(&mut target);
    });
    Peaks {
        flops_per_s: 2.0 * (SIDE * SIDE * SIDE) as f64 / multiplying,
        // Each byte is read and written.
        bytes_per_s: 2.0 * COPIED as f64 / copying,
        link_bytes_per_s: None,
        host_bytes_per_s: None,
    }
}

/// The least and the longest time that one figure is measured for: threads start and clocks rise
/// meanwhile, and a peak that is too low makes a promise that the run breaks.
const MEASURED: [Duration; 2] = [Duration::from_millis(80), Duration::from_millis(800)];
/// Runs of a round, and rounds that must bring nothing new.
const RUNS: usize = 4;
const SETTLED: usize = 5;
/// What counts as new.
const FASTER: f64 = 0.99;

/// The fastest run, in seconds, once no round has been faster for a while.
fn best(run: &mut dyn FnMut()) -> f64 {
    let (begun, mut best, mut settled) = (Instant::now(), f64::INFINITY, 0);
    let [least, most] = MEASURED;
    while begun.elapsed() < most && (begun.elapsed() < least || settled < SETTLED) {
        for _ in 0..RUNS {
            let start = Instant::now();
            run();
            let seconds = start.elapsed().as_secs_f64();
            settled = if seconds < FASTER * best { 0 } else { settled };
            best = best.min(seconds);
        }
        settled += 1;
    }
    best
}
