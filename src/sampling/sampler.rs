//! The draw of one token: a pure function of seed, place and logits.

use std::collections::BTreeMap;

use octet_kernels::random::{RandomStream, Site};

use crate::config::SampleConfig;

/// What sampling draws from: its numbers are those of no op.
const SITE: Site = Site::new("sampling");

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// 0 takes the most likely token; 1 draws from the model's distribution.
    pub temperature: f64,
    /// Draws among the most likely tokens only; 0 for all.
    pub top_k: usize,
    /// Draws among the fewest tokens that have so much probability together; 1 for all.
    pub top_p: f64,
    /// Draws among tokens that are at least so likely, as a share of the likeliest; 0 for all.
    pub min_p: f64,
    /// Logits of tokens that were there, in the prompt too, are divided by it where they are
    /// positive and multiplied where not (Keskar et al. 2019); 1 for no change.
    pub repetition_penalty: f64,
    /// Taken off the logits of tokens that were drawn; 0 for no change.
    pub presence_penalty: f64,
    /// Taken off the logits of tokens for each time that they were drawn; 0 for no change.
    pub frequency_penalty: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampler {
    /// Draws from the model's distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

impl Sampler {
    /// As the samples of a run with this seed are drawn.
    pub fn new(config: &SampleConfig, seed: u64) -> Self {
        let SampleConfig { temperature, top_k, top_p, .. } = *config;
        Self { temperature, top_k, top_p, seed: config.seed.unwrap_or(seed), ..Self::default() }
    }

    /// What is wrong with its numbers: the name of one, and what was expected.
    ///
    /// # Errors
    /// A name of a field and one sentence without a subject.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let least = f64::MIN_POSITIVE;
        let bounds = [
            ("temperature", "at least 0", self.temperature, 0.0..=f64::MAX),
            ("top_p", "more than 0 and at most 1", self.top_p, least..=1.0),
            ("min_p", "from 0 to 1", self.min_p, 0.0..=1.0),
            ("repetition_penalty", "more than 0", self.repetition_penalty, least..=f64::MAX),
            ("presence_penalty", "from -2 to 2", self.presence_penalty, -2.0..=2.0),
            ("frequency_penalty", "from -2 to 2", self.frequency_penalty, -2.0..=2.0),
        ];
        for (name, wanted, value, usable) in bounds {
            if !usable.contains(&value) {
                return Err((name, format!("expected {wanted}, got {value}")));
            }
        }
        Ok(())
    }

    /// Whether what was said before changes logits.
    fn remembers(&self) -> bool {
        (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)
    }

    /// Lowers logits by what was said: `tokens` are the prompt's, then those that were drawn.
    pub fn penalise(&self, logits: &mut [f32], tokens: &[u32], prompt: usize) {
        if !self.remembers() {
            return;
        }
        let mut times = BTreeMap::<u32, u32>::new();
        for (at, &token) in tokens.iter().enumerate() {
            *times.entry(token).or_default() += u32::from(at >= prompt);
        }
        for (token, drawn) in times {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let mut z = f64::from(*logit);
            z = if z > 0.0 { z / self.repetition_penalty } else { z * self.repetition_penalty };
            z -= self.frequency_penalty * f64::from(drawn);
            z -= if drawn > 0 { self.presence_penalty } else { 0.0 };
            *logit = z as f32;
        }
    }

    /// Draws a token. Equal logits rank by token id; NaN is never drawn. `None` if no logit is
    /// finite.
    pub fn draw(&self, logits: &[f32], at: Place) -> Option<u32> {
        let finite = |&(_, logit): &(usize, f32)| logit.is_finite();
        let mut ranked: Vec<(usize, f32)> =
            logits.iter().copied().enumerate().filter(finite).collect();
        let before = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.temperature == 0.0 {
            return ranked.into_iter().min_by(before).map(|(id, _)| id as u32);
        }
        if self.top_k > 0 && self.top_k < ranked.len() {
            ranked.select_nth_unstable_by(self.top_k, before);
            ranked.truncate(self.top_k);
        }
        ranked.sort_unstable_by(before);
        let &(_, highest) = ranked.first()?;
        let weight = |logit: f32| (f64::from(logit - highest) / self.temperature).exp();
        let mut total: f64 = ranked.iter().map(|&(_, logit)| weight(logit)).sum();
        if self.top_p < 1.0 {
            let (mut kept, mut sum) = (0, 0.0);
            while kept < ranked.len() && (kept == 0 || sum < self.top_p * total) {
                sum += weight(ranked[kept].1);
                kept += 1;
            }
            ranked.truncate(kept);
            total = sum;
        }
        if self.min_p > 0.0 {
            // The most likely token has weight 1.
            ranked.truncate(ranked.partition_point(|&(_, logit)| weight(logit) >= self.min_p));
            total = ranked.iter().map(|&(_, logit)| weight(logit)).sum();
        }
        let word =
            RandomStream { seed: self.seed, site: SITE }.word(at.step, at.sequence, at.number);
        let mut left = f64::from(word) / (1u64 << 32) as f64 * total;
        let drawn = ranked.iter().find(|&&(_, logit)| {
            left -= weight(logit);
            left < 0.0
        });
        // Rounding may leave a crumb behind the last one.
        drawn.or(ranked.last()).map(|&(id, _)| id as u32)
    }
}

/// Which token is drawn: no two have the same random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Steps done by the model.
    pub step: u64,
    /// Number of the text among those of the step.
    pub sequence: u64,
    /// Number of the token in its text.
    pub number: u64,
}

/// A token and what the model thought of it: natural logarithms of probabilities, before anything
/// that changes the draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// Its own; none for the first of a text, which nothing was read before.
    pub logprob: Option<f32>,
    /// The most likely tokens of its place, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl Scored {
    /// A token after these logits, with the `top` most likely ones beside it. The model's
    /// distribution is over all rows, as in training; those behind `vocabulary` are no tokens.
    pub fn new(logits: &[f32], vocabulary: usize, token: u32, top: usize) -> Self {
        let highest = logits.iter().copied().filter(|z| z.is_finite()).fold(f32::MIN, f32::max);
        let sum: f64 = logits.iter().map(|&z| f64::from(z - highest).exp()).sum();
        let normaliser = f64::from(highest) + sum.ln();
        let logprob = |z: f32| (f64::from(z) - normaliser) as f32;
        let tokens = logits.iter().copied().take(vocabulary);
        let mut ranked: Vec<(usize, f32)> = tokens.enumerate().collect();
        let before = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if top < ranked.len() {
            ranked.select_nth_unstable_by(top, before);
            ranked.truncate(top);
        }
        ranked.sort_unstable_by(before);
        let own = logits.get(token as usize).map(|&z| logprob(z));
        let top = ranked.into_iter().map(|(id, z)| (id as u32, logprob(z))).collect();
        Self { token, logprob: own, top }
    }
}
