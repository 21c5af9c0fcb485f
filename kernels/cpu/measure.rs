//! The peaks of this machine's CPU, measured: there is no data sheet for the code that runs here.

use crate::cpu::CpuDevice;
use crate::cpu::gemm::{Matrix, Output, Size};
use crate::dtype::Precision;
use crate::graph::cost::Peaks;

/// Side of the square matrices whose product is the CPU's peak.
const SIDE: usize = 256;
/// Bytes that are copied to find the CPU's bandwidth: more than its nearer caches hold.
const COPIED: usize = 32 << 20;

/// Peaks of the CPU with so many threads for products of that precision, measured in some tens of
/// milliseconds.
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
    product();
    let multiplying = best(12, &mut product);
    let source = vec![1u8; COPIED];
    let mut target = vec![0u8; COPIED];
    let copying = best(4, &mut || {
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

/// The fastest of `times` runs, in seconds.
fn best(times: usize, run: &mut dyn FnMut()) -> f64 {
    let one = |_| {
        let start = std::time::Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..times).map(one).fold(f64::INFINITY, f64::min)
}
