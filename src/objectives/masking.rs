//! What is hidden of a sample: which of its tokens, and what stands in their places.
//!
//! Element e of a sample has four random words: one decides whether it is chosen, one what becomes
//! of it, one which token takes its place. So a sample is the same on every rank and thread.

use octet_kernels::random::RandomStream;

#[cfg(test)]
mod tests;

/// What becomes of chosen tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shares {
    /// Of all tokens.
    pub(super) chosen: f64,
    /// Of those chosen: they stay as they are.
    pub(super) kept: f64,
    /// Of those chosen: any token takes their place. The others are hidden.
    pub(super) replaced: f64,
}

impl Shares {
    /// How many of `tokens` are chosen: at least one if there is any.
    pub(super) fn count(&self, tokens: usize) -> usize {
        ((self.chosen * tokens as f64).round() as usize).max(1).min(tokens)
    }

    /// Chooses `count` of the candidates (all of them equally likely, each once), in their order,
    /// and puts into `tokens` what stands in their places; `mask` for what is hidden, tokens below
    /// `any` for what is replaced.
    pub(super) fn hide(
        &self,
        (noise, sample): (&RandomStream, u64),
        candidates: &[usize],
        count: usize,
        tokens: &mut [i32],
        (mask, any): (i32, usize),
    ) -> Vec<usize> {
        let words = |element: usize| noise.block(0, sample, element as u64);
        let mut ranked: Vec<(u32, usize)> =
            candidates.iter().map(|&element| (words(element)[0], element)).collect();
        ranked.sort_unstable();
        ranked.truncate(count);
        let mut chosen: Vec<usize> = ranked.into_iter().map(|(_, element)| element).collect();
        chosen.sort_unstable();
        for &element in &chosen {
            let [_, fate, token, _] = words(element);
            let fate = f64::from(fate) / (1u64 << 32) as f64;
            if fate < self.kept {
                continue;
            }
            tokens[element] = match fate < self.kept + self.replaced {
                true => ((u64::from(token) * any as u64) >> 32) as i32,
                false => mask,
            };
        }
        chosen
    }
}
