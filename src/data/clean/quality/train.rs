//! Trains the classifier.
//!
//! Duty: logistic regression by AdaGrad over a few passes in one mixed order; a tenth of the
//! documents is held out and measured. Both kinds count as much, whatever their numbers. Limits:
//! holds the features of as much text as the caller gives. Prohibition: no chance, no threads: the
//! same documents give the same bits.

use super::model::{Classifier, logistic};
use crate::data::clean::Document;
use crate::data::config::SourceConfig;
use crate::data::error::DataError;
use crate::data::order::mix;
use crate::data::source::Corpus;

const PASSES: u64 = 5;
const RATE: f64 = 0.5;
/// Every so many documents one is held out.
const HELD_OUT: u64 = 10;

/// A classifier, and how well it does on what was held out.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The classifier.
    pub classifier: Classifier,
    /// Documents that it was made from, good and bad.
    pub documents: [u64; 2],
    /// Documents held out, good and bad.
    pub held_out: [u64; 2],
    /// Share of these on the right side of 0.5, the mean of both kinds; none if one was empty.
    pub accuracy: Option<f64>,
    /// Probability that a good one scores above a bad one.
    pub auc: Option<f64>,
}

/// Trains on texts; `true` marks the good ones. There are 2^`bits` weights.
pub fn train<'a>(texts: impl Iterator<Item = (&'a str, bool)>, bits: u32) -> Trained {
    let mut classifier = Classifier::new(bits);
    let mut document = Document::default();
    let (mut learned, mut held) = (Vec::new(), Vec::new());
    let (mut documents, mut held_out) = ([0; 2], [0; 2]);
    for (text, good) in texts {
        let mut features = Vec::new();
        document.set(text, "");
        classifier.features(&mut document, &mut features);
        let kind = usize::from(!good);
        let number = documents[kind] + held_out[kind];
        if number % HELD_OUT == HELD_OUT - 1 {
            held_out[kind] += 1;
            held.push((features, good));
        } else {
            documents[kind] += 1;
            learned.push((features, good));
        }
    }
    let total = (documents[0] + documents[1]) as f64;
    let weight = documents.map(|count| total / (2.0 * count.max(1) as f64));
    let mut squares = vec![0f32; classifier.weights.len() + 1];
    let mut order: Vec<usize> = (0..learned.len()).collect();
    for pass in 0..PASSES {
        order.sort_by_key(|&number| (mix(number as u64 ^ pass << 40), number));
        for &number in &order {
            let (features, good) = &learned[number];
            let wanted = f64::from(u8::from(*good));
            let error = logistic(classifier.logit(features)) - wanted;
            let error = error * weight[usize::from(!good)];
            classifier.learn(features, error, &mut squares);
        }
    }
    let scores: Vec<(f64, bool)> =
        held.iter().map(|(features, good)| (classifier.logit(features), *good)).collect();
    let both = held_out[0] > 0 && held_out[1] > 0;
    let right = |kind: bool| {
        let of_kind = scores.iter().filter(|(_, good)| *good == kind);
        let right = of_kind.clone().filter(|(logit, _)| (*logit >= 0.0) == kind).count();
        right as f64 / of_kind.count().max(1) as f64
    };
    let accuracy = both.then(|| f64::midpoint(right(true), right(false)));
    let auc = both.then(|| auc(scores.clone()));
    Trained { classifier, documents, held_out, accuracy, auc }
}

/// Trains on the documents of two sources.
///
/// # Errors
/// A source that cannot be read, or holds no text.
pub fn train_on(good: &SourceConfig, bad: &SourceConfig, bits: u32) -> Result<Trained, DataError> {
    let mut texts: Vec<(String, bool)> = Vec::new();
    for (source, is_good) in [(good, true), (bad, false)] {
        let corpus = Corpus::scan(source, &mut |_| Ok(()))?;
        let passed_over = corpus.for_each(&mut |text, begins| {
            match texts.last_mut().filter(|_| !begins) {
                Some((last, _)) => last.push_str(text),
                None => texts.push((text.to_owned(), is_good)),
            }
            Ok(())
        })?;
        corpus.check_bad(&passed_over, true)?;
    }
    Ok(train(texts.iter().map(|(text, good)| (text.as_str(), *good)), bits))
}

impl Classifier {
    fn learn(&mut self, features: &[u32], error: f64, squares: &mut [f32]) {
        let step = |value: &mut f32, square: &mut f32, gradient: f64| {
            *square += (gradient * gradient) as f32;
            *value -= (RATE * gradient / (f64::from(*square).sqrt() + 1e-8)) as f32;
        };
        let last = self.weights.len();
        step(&mut self.bias, &mut squares[last], error);
        let gradient = error / (features.len().max(1) as f64).sqrt();
        for &at in features {
            let at = at as usize;
            step(&mut self.weights[at], &mut squares[at], gradient);
        }
    }
}

/// The share of pairs of a good and a bad one in which the good one is above; equal ones are half.
fn auc(mut scores: Vec<(f64, bool)>) -> f64 {
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut sum, mut good) = (0.0, 0.0, 0.0);
    for equal in scores.chunk_by(|a, b| a.0 == b.0) {
        let goods = equal.iter().filter(|(_, good)| *good).count() as f64;
        let bads = equal.len() as f64 - goods;
        sum += goods * (below + bads / 2.0);
        (below, good) = (below + bads, good + goods);
    }
    sum / (below * good)
}
