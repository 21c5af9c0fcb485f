//! `sample` on the CPU: rows in parallel, a row in blocks of 64 classes.

use crate::cpu::CpuRun;
use crate::cpu::isa::{Isa, dispatch};
use crate::cpu::rows::map_rows;
use crate::cpu::vector::{self, exp};

/// Classes whose arrival times are computed together; whole Philox blocks.
const BLOCK: usize = 64;

/// How much dearer an element is than a copy.
const ELEMENT_COST: usize = 8;

pub(super) fn draw(run: &CpuRun<'_>, temperature: f32) {
    let (logits, classes) = (run.input::<f32>(0), run.input_spec(0).columns());
    let (samples, elements) = (run.input::<i32>(1), run.input::<i32>(2));
    let live = (0..3).map(|i| run.live_input(i)).min().unwrap_or(0);
    let (stream, step, device) = (run.random(), run.step(), run.device());
    let first_sample = run.first_sample();
    let words_per_row = classes.next_multiple_of(4) as u64;
    let out = run.output::<i32>(0);
    map_rows(&device.pool, live, classes * ELEMENT_COST, [(out, 1)], |rows, [out]| {
        for (row, out) in rows.zip(out) {
            let x = &logits[row * classes..][..classes];
            let sample = first_sample.wrapping_add_signed(i64::from(samples[row]));
            let element = u64::from(elements[row].unsigned_abs()) * words_per_row;
            *out = if temperature == 0.0 {
                largest(device.isa, x)
            } else {
                let words = |block| stream.block(step, sample, element / 4 + block);
                first_arrival(device.isa, x, 1.0 / temperature, words)
            };
        }
    });
}

fn largest(isa: Isa, x: &[f32]) -> i32 {
    let largest = vector::max(isa, x);
    x.iter().position(|&x| x == largest).unwrap_or(0) as i32
}

/// The first class to arrive; `words` are the four words of a block.
fn first_arrival(isa: Isa, x: &[f32], rate: f32, words: impl Fn(u64) -> [u32; 4]) -> i32 {
    let largest = vector::max(isa, x);
    let (mut best, mut best_time) = (0, f32::INFINITY);
    for (index, x) in x.chunks(BLOCK).enumerate() {
        let mut drawn = [0; BLOCK];
        let first = (index * BLOCK / 4) as u64;
        for (i, four) in drawn.chunks_exact_mut(4).take(x.len().div_ceil(4)).enumerate() {
            four.copy_from_slice(&words(first + i as u64));
        }
        let mut times = [0.0; BLOCK];
        arrivals(isa, &drawn[..x.len()], x, largest, rate, &mut times);
        for (i, &time) in times[..x.len()].iter().enumerate() {
            if time < best_time {
                (best, best_time) = (index * BLOCK + i, time);
            }
        }
    }
    best as i32
}

dispatch! {
    /// Arrival times of classes with these random words and logits.
    fn arrivals(words: &[u32], x: &[f32], largest: f32, rate: f32, times: &mut [f32]) {
        for (time, (&word, &x)) in times.iter_mut().zip(words.iter().zip(x)) {
            *time = exponential(word) * exp((largest - x) * rate);
        }
    }
}

/// -log(1 - u), u = (word + 1/2) / 2^32, within 2^-21 of its size. Cephes' `logf` polynomial; where
/// 1 - u is close to 1, the polynomial starts from u itself, so that early arrivals keep all bits.
#[inline(always)]
pub(super) fn exponential(word: u32) -> f32 {
    const UNIT: f32 = 1.0 / (1u64 << 32) as f32;
    const ROOT_HALF: u32 = 0x3F35_04F3;
    let u = (word as f32 + 0.5) * UNIT;
    let rest = (!word as f32 + 0.5) * UNIT;
    let exponent = (rest.to_bits().wrapping_sub(ROOT_HALF) as i32) >> 23;
    let mantissa = f32::from_bits(rest.to_bits().wrapping_sub((exponent as u32) << 23));
    let near = u < 0.25;
    let f = if near { -u } else { mantissa - 1.0 };
    let exponent = if near { 0.0 } else { exponent as f32 };
    let square = f * f;
    let p = 7.037_683_6e-2f32.mul_add(f, -1.151_461e-1);
    let p = p.mul_add(f, 1.167_699_9e-1);
    let p = p.mul_add(f, -1.242_014_1e-1);
    let p = p.mul_add(f, 1.424_932_3e-1);
    let p = p.mul_add(f, -1.666_805_8e-1);
    let p = p.mul_add(f, 2.000_071_5e-1);
    let p = p.mul_add(f, -2.499_999_4e-1);
    let p = p.mul_add(f, 3.333_333e-1);
    let tail = exponent.mul_add(-2.121_944_4e-4, f * square * p);
    let tail = square.mul_add(-0.5, tail);
    -exponent.mul_add(0.693_359_4, f + tail)
}
