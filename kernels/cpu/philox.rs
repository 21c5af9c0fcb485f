//! Many words of [`RandomStream`] at once: blocks side by side in vectors.

use crate::cpu::isa::{Isa, dispatch};
use crate::random::{MULTIPLIERS, ROUNDS, RandomStream, WEYL, counter};

#[cfg(test)]
mod tests;

/// Blocks side by side.
const LANES: usize = 16;

/// The words of elements `first..` of (step, sample 0), as [`RandomStream::word`] gives them.
pub(crate) fn words(stream: &RandomStream, isa: Isa, step: u64, first: u64, out: &mut [u32]) {
    let head = (first.next_multiple_of(4) - first).min(out.len() as u64) as usize;
    let (head, rest) = out.split_at_mut(head);
    let one_by_one = |out: &mut [u32], first: u64| {
        let elements = out.iter_mut().zip(first..);
        elements.for_each(|(word, element)| *word = stream.word(step, 0, element));
    };
    one_by_one(head, first);
    let mut block = (first + head.len() as u64) / 4;
    let (mut whole, tail) = rest.split_at_mut(rest.len() / 4 * 4);
    one_by_one(tail, 4 * block + whole.len() as u64);
    while !whole.is_empty() {
        // Each 2^32 blocks have a key of their own.
        let until = ((1 << 32) - (block & 0xFFFF_FFFF)).min(whole.len() as u64 / 4);
        let (now, later) = whole.split_at_mut(4 * until as usize);
        blocks(isa, stream.key_of(block), counter(step, 0, block as u32), now);
        (whole, block) = (later, block + until);
    }
}

dispatch! {
    /// Philox of consecutive counters, which end before the first word of the counter does.
    fn blocks(key: [u32; 2], counter: [u32; 4], out: &mut [u32]) {
        let mut first = counter[0];
        for out in out.chunks_mut(4 * LANES) {
            let mut x0: [u32; LANES] = std::array::from_fn(|lane| first.wrapping_add(lane as u32));
            let [mut x1, mut x2, mut x3] = [1, 2, 3].map(|word| [counter[word]; LANES]);
            let [mut k0, mut k1] = key;
            for _ in 0..ROUNDS {
                for lane in 0..LANES {
                    let low = u64::from(x0[lane]) * u64::from(MULTIPLIERS[0]);
                    let high = u64::from(x2[lane]) * u64::from(MULTIPLIERS[1]);
                    x0[lane] = (high >> 32) as u32 ^ x1[lane] ^ k0;
                    x2[lane] = (low >> 32) as u32 ^ x3[lane] ^ k1;
                    (x1[lane], x3[lane]) = (high as u32, low as u32);
                }
                k0 = k0.wrapping_add(WEYL[0]);
                k1 = k1.wrapping_add(WEYL[1]);
            }
            for (lane, out) in out.chunks_exact_mut(4).enumerate() {
                out.copy_from_slice(&[x0[lane], x1[lane], x2[lane], x3[lane]]);
            }
            first = first.wrapping_add(LANES as u32);
        }
    }
}
