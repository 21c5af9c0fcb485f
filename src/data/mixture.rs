//! Which source a sample comes from.
//!
//! Duty: a pure function of weights, limits and the sample's number. After any number of samples
//! each source has had its share of them to within a few samples; a source that has reached its
//! limit drops out and the others share its place. Limits: O(sources) for a sample, no table.
//! Prohibition: no state, no chance.
//!
//! The first source takes sample n of a segment if `round(n·w/W)` steps there, W being the sum of
//! all weights (as Bresenham's line steps); of the samples that are left, the second takes its
//! share of the sum of the weights that are left, and so on.

/// Weights become integers of up to so many bits, which makes shares exact to 2^-40.
const WEIGHT_BITS: i32 = 40;

/// The order of sources.
#[derive(Clone, Debug)]
pub struct Mixture {
    segments: Vec<Segment>,
    /// Samples that there are, if every source has a limit.
    samples: Option<u64>,
}

/// Samples between two sources' ends.
#[derive(Clone, Debug)]
struct Segment {
    /// Its first sample.
    first: u64,
    /// Weight of each source, 0 for those that have ended.
    weights: Vec<u64>,
    /// Samples of each source before this segment.
    before: Vec<u64>,
}

impl Mixture {
    /// A mixture of sources, each with a weight above 0 and the number of samples, if any, after
    /// which it ends.
    ///
    /// # Panics
    /// Without sources.
    pub fn new(sources: &[(f64, Option<u64>)]) -> Self {
        assert!(!sources.is_empty(), "a mixture has at least one source");
        let most = sources.iter().map(|&(weight, _)| weight).fold(0.0, f64::max);
        let scale = 2f64.powi(WEIGHT_BITS) / most;
        let whole = |weight: f64| ((weight * scale).round() as u64).max(1);
        let mut segment = Segment {
            first: 0,
            weights: sources.iter().map(|&(weight, _)| whole(weight)).collect(),
            before: vec![0; sources.len()],
        };
        let mut segments = Vec::new();
        loop {
            let ends: Vec<u64> = sources
                .iter()
                .enumerate()
                .filter(|(source, _)| segment.weights[*source] > 0)
                .filter_map(|(source, (_, limit))| segment.end_of(source, (*limit)?))
                .collect();
            let Some(&length) = ends.iter().min() else {
                // Either nothing is left, or what is left never ends.
                let ended = segment.weights.iter().all(|&weight| weight == 0);
                let samples = ended.then_some(segment.first);
                segments.extend((!ended).then_some(segment));
                return Self { segments, samples };
            };
            let before: Vec<u64> =
                (0..sources.len()).map(|source| segment.count(source, length)).collect();
            let ended =
                |source: usize| sources[source].1.is_some_and(|limit| before[source] >= limit);
            let weights = (0..sources.len())
                .map(|source| if ended(source) { 0 } else { segment.weights[source] })
                .collect();
            let next = Segment { first: segment.first + length, weights, before };
            if length > 0 {
                segments.push(segment);
            }
            segment = next;
        }
    }

    /// Samples that there are, if every source ends.
    pub fn samples(&self) -> Option<u64> {
        self.samples
    }

    /// The source of a sample, and which of that source's samples it is; `None` behind the end.
    pub fn at(&self, sample: u64) -> Option<(usize, u64)> {
        if self.samples.is_some_and(|samples| sample >= samples) {
            return None;
        }
        Some(self.segment(sample)?.at(sample))
    }

    /// Samples of each source among the first `samples`.
    pub fn counts(&self, samples: u64) -> Vec<u64> {
        let samples = self.samples.map_or(samples, |all| all.min(samples));
        let Some(segment) = self.segment(samples) else { return Vec::new() };
        let sources = 0..segment.weights.len();
        sources.map(|source| segment.count(source, samples - segment.first)).collect()
    }

    fn segment(&self, sample: u64) -> Option<&Segment> {
        let number = self.segments.partition_point(|segment| segment.first <= sample);
        self.segments.get(number.checked_sub(1)?)
    }
}

impl Segment {
    fn at(&self, sample: u64) -> (usize, u64) {
        let mut number = sample - self.first;
        let mut left: u64 = self.weights.iter().sum();
        for (source, &weight) in self.weights.iter().enumerate() {
            let taken = share(number, weight, left);
            if weight > 0 && (weight == left || share(number + 1, weight, left) > taken) {
                return (source, self.before[source] + taken);
            }
            number -= taken;
            left -= weight;
        }
        unreachable!("the last source with a weight takes every sample that is left")
    }

    /// Samples of a source before sample number `length` of this segment, and before it.
    fn count(&self, source: usize, length: u64) -> u64 {
        let mut number = length;
        let mut left: u64 = self.weights.iter().sum();
        for &weight in &self.weights[..source] {
            number -= share(number, weight, left);
            left -= weight;
        }
        self.before[source] + share(number, self.weights[source], left)
    }

    /// The fewest samples of this segment after which a source has had `limit`.
    fn end_of(&self, source: usize, limit: u64) -> Option<u64> {
        // A source has at least its share less one for every source before it.
        let sum: u64 = self.weights.iter().sum();
        let wanted = u128::from(limit.saturating_sub(self.before[source]));
        let most = (wanted + self.weights.len() as u128 + 1) * u128::from(sum);
        let mut high = u64::try_from(most / u128::from(self.weights[source]) + 1).ok()?;
        let mut low = 0;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.count(source, middle) >= limit {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Some(low)
    }
}

/// How many of `number` samples a source of `weight` takes where all that are left have `sum`.
fn share(number: u64, weight: u64, sum: u64) -> u64 {
    if weight == 0 {
        return 0;
    }
    let (weight, sum) = (u128::from(weight), u128::from(sum));
    ((u128::from(number) * weight + sum / 2) / sum) as u64
}

#[cfg(test)]
mod tests;
