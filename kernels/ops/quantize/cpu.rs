//! `quantize` on the CPU, by chunks of elements. A maximum does not depend on the order.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::CpuRun;
use crate::f8::Format;

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

pub(super) fn quantize(run: &CpuRun<'_>) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let (x, pool) = (&run.input::<f32>(0)[..live], &run.device().pool);
    let format = Format::of(run.output_spec(0).dtype).expect("a format of 8 bits");
    // Bits of numbers that are not negative are ordered as they are; infinity and NaN are last.
    let largest = AtomicU32::new(0);
    pool.for_chunks(live, CHUNK, |range| {
        let bits = x[range].iter().map(|x| x.abs().to_bits()).max();
        largest.fetch_max(bits.unwrap_or(0), Ordering::Relaxed);
    });
    let scale = match f32::from_bits(largest.into_inner()) {
        0.0 => 1.0,
        largest if largest.is_finite() => (largest / format.max()).max(f32::MIN_POSITIVE),
        _ => f32::NAN,
    };
    run.output::<f32>(1)[0] = scale;
    pool.map_chunks(&mut run.output::<u8>(0)[..live], CHUNK, |chunk, q| {
        let x = &x[chunk * CHUNK..][..q.len()];
        q.iter_mut().zip(x).for_each(|(q, x)| *q = format.encode(x / scale));
    });
}

pub(super) fn dequantize(run: &CpuRun<'_>) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let (q, scale) = (run.input::<u8>(0), run.input::<f32>(1)[0]);
    let format = Format::of(run.input_spec(0).dtype).expect("a format of 8 bits");
    run.device().pool.map_chunks(&mut run.output::<f32>(0)[..live], CHUNK, |chunk, x| {
        let q = &q[chunk * CHUNK..][..x.len()];
        x.iter_mut().zip(q).for_each(|(x, &q)| *x = format.decode(q) * scale);
    });
}
