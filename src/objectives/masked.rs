//! The masked objective: hidden tokens from all others (Devlin et al., arXiv:1810.04805), and with
//! `next_sentence` whether the second of two texts follows the first.
//!
//! Inputs, N rows of B sequences of which at most M tokens are hidden: `tokens i32[N]` as they are
//! seen, `positions i32[N]`, `segments i32[N]`, `hidden i32[M]` (rows; negative: none), `labels
//! i32[M]`, and for training `scale f32[]`. For pairs `types i32[N]`, `follows i32[B]` (1 if so,
//! negative: no pair) and `pair_scale f32[]`. Results: `loss`, and of each loss its sum and its
//! targets.
//! Special tokens: `[MASK]`, and for pairs `[CLS]`, which begins a sequence, and `[SEP]`, which
//! ends a text.

use std::ops::Range;
use std::sync::Arc;

use octet_actors::contract::{Findings, Reading, Record};
use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::{Graph, Parameter, ParameterId, Program, Tensor};
use octet_kernels::ops::add::add;
use octet_kernels::ops::cross_entropy::cross_entropy;
use octet_kernels::ops::fill::Fill;
use octet_kernels::ops::gather_rows::gather_rows;
use octet_kernels::ops::integers::{less_than, not_equal, total};
use octet_kernels::ops::linear::linear;
use octet_kernels::ops::linear_cross_entropy::{LossOptions, linear_cross_entropy};
use octet_kernels::ops::sample::sample;
use octet_kernels::ops::slice_columns::slice_columns;
use octet_kernels::random;
use serde::{Deserialize, Serialize};

use super::masking::Shares;
use super::{Ability, BatchShape, Counts, GPU_CHUNKS, Inputs, Objective, Source, layer};
use crate::composition::{Builder, Built, HeldOutProgram, Loss, Stage};
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::data::{Cut, DataError, IGNORED, Pair, WindowRows};
use crate::models::{BIDIRECTIONAL, Extras, Model, Part, Sight, TokenBatch};

#[cfg(test)]
mod tests;

/// Hidden tokens from all others.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Masked {
    /// Share of tokens that are chosen to be told. Above 0, at most 1.
    pub mask_share: f64,
    /// Share of these that are seen all the same. From 0 to 1.
    pub keep_share: f64,
    /// Share of these in whose place any token is seen; the others are hidden. From 0 to 1, with
    /// `keep_share` at most 1.
    pub random_share: f64,
    /// Samples are pairs of texts, and whether the second follows the first is to be told too.
    pub next_sentence: bool,
    /// Rows whose logits are held at a time, eight times as many on a GPU; part of a run's
    /// identity. At least 1.
    pub chunk_rows: usize,
}

impl Default for Masked {
    fn default() -> Self {
        Self {
            mask_share: 0.15,
            keep_share: 0.1,
            random_share: 0.1,
            next_sentence: false,
            chunk_rows: 512,
        }
    }
}

/// What is seen in the place of a hidden token.
pub(crate) const MASK: &str = "[MASK]";
/// Begins a pair.
pub(crate) const BEGIN: &str = "[CLS]";
/// Ends a text of a pair.
pub(crate) const END: &str = "[SEP]";

/// Tokens of a pair beside those of its texts.
const PAIR_SPECIALS: usize = 3;

impl Masked {
    fn shares(&self) -> Shares {
        let Self { mask_share: chosen, keep_share: kept, random_share: replaced, .. } = *self;
        Shares { chosen, kept, replaced }
    }

    /// Hidden tokens of a micro-batch, at most.
    fn hidden(&self, shape: BatchShape) -> usize {
        shape.sequences * self.shares().count(shape.sequence_length)
    }

    /// What the programs of both kinds share.
    fn trace(
        &self,
        g: &mut Graph<'_>,
        with: &With,
        extras: &mut Extras,
        training: bool,
    ) -> Result<Tensor> {
        let With { model, shape, pairs, label } = with;
        let (rows, sequences) = (shape.tokens(), shape.sequences);
        let input = |g: &mut Graph<'_>, name: &str, rows: usize| g.input(name, &[rows], DType::I32);
        let tokens = input(g, "tokens", rows);
        let (positions, segments) = (input(g, "positions", rows), input(g, "segments", rows));
        let types = pairs.map(|_| input(g, "types", rows));
        let hidden = input(g, "hidden", self.hidden(*shape));
        let labels = input(g, "labels", self.hidden(*shape));
        let scale = |g: &mut Graph<'_>, name| match training {
            true => Ok(g.input(name, &[], DType::F32)),
            false => g.apply_one(Fill { shape: Vec::new(), value: 1.0 }, &[]),
        };
        let mask_scale = scale(g, "scale")?;
        let sequence_length = shape.sequence_length;
        let sight = Sight::Bidirectional;
        let batch =
            TokenBatch { tokens, positions, segments, types, sequence_length, sight, training };
        let all = model.hidden(g, &batch, extras)?;
        let told = gather_rows(g, all, hidden)?;
        let head = model.head(g, told)?;
        let options = LossOptions {
            chunk_rows: self.chunk_rows,
            gpu_chunks: GPU_CHUNKS,
            ..LossOptions::default()
        };
        let masked = g.scoped("head", |g| {
            let (rows, weight) = (head.rows, head.weight);
            linear_cross_entropy(g, rows, weight, head.bias, labels, mask_scale, options)
        })?;
        let name = |what: &str| match pairs {
            Some(_) => format!("{}.{what}", label.masked),
            None => what.to_owned(),
        };
        g.fetch(&name("loss_sum"), masked.loss_sum);
        g.fetch(&name("targets"), masked.targets);
        let Some(classifier) = pairs else { return Ok(masked.loss) };
        let follows = input(g, "follows", sequences);
        let scale = scale(g, "pair_scale")?;
        let told = g.scoped("next_sentence", |g| {
            let first = g.reshape(all, &[sequences, sequence_length * model.model().width()])?;
            let first = slice_columns(g, first, 0, model.model().width())?;
            let pooled = model.pool(g, first)?;
            let (weight, bias) = (g.parameter(classifier.0), g.parameter(classifier.1));
            let logits = linear(g, pooled, weight, Some(bias))?;
            if !training {
                self.count_wrong(g, logits, follows)?;
            }
            cross_entropy(g, logits, follows, scale)
        })?;
        g.fetch(&format!("{}.loss_sum", label.pairs), told.1);
        g.fetch(&format!("{}.targets", label.pairs), told.2);
        add(g, masked.loss, told.0)
    }

    /// Fetches how many verdicts are `wrong`, those on rows without a pair included, and how many
    /// rows are `missing`.
    fn count_wrong(&self, g: &mut Graph<'_>, logits: Tensor, follows: Tensor) -> Result<()> {
        let nowhere = less_than(g, follows, IGNORED)?;
        let verdict = sample(g, logits, nowhere, nowhere, 0.0)?;
        let wrong = not_equal(g, verdict, follows)?;
        let wrong = total(g, wrong)?;
        let missing = less_than(g, follows, 0)?;
        let missing = total(g, missing)?;
        g.fetch("wrong", wrong);
        g.fetch("missing", missing);
        Ok(())
    }
}

/// What a program is traced with.
#[derive(Clone)]
struct With {
    model: Arc<Part>,
    shape: BatchShape,
    /// Weight and bias of the verdict on pairs.
    pairs: Option<(ParameterId, ParameterId)>,
    label: Labels,
}

/// What reports call the two losses.
#[derive(Clone)]
struct Labels {
    masked: String,
    pairs: String,
}

impl Objective for Masked {
    fn validate(&self) -> std::result::Result<(), Invalid> {
        let chosen = || expected("a number above 0 and at most 1", self.mask_share);
        let usable = self.mask_share > 0.0 && self.mask_share <= 1.0;
        require(usable, "objective.mask_share", chosen)?;
        let parts = [self.keep_share, self.random_share];
        for (key, share) in ["objective.keep_share", "objective.random_share"].iter().zip(parts) {
            let usable = (0.0..=1.0).contains(&share);
            require(usable, *key, || expected("a number from 0 to 1", share))?;
        }
        let sum = parts.iter().sum::<f64>();
        let problem = || expected("at most 1 together with objective.keep_share", sum);
        require(sum <= 1.0, "objective.random_share", problem)?;
        let rows = || expected("at least 1", self.chunk_rows);
        require(self.chunk_rows > 0, "objective.chunk_rows", rows)
    }

    fn special_tokens(&self) -> &'static [&'static str] {
        if self.next_sentence { &[MASK, BEGIN, END] } else { &[MASK] }
    }

    fn teaches(&self) -> Option<Ability> {
        Some(if self.next_sentence { Ability::Pairs } else { Ability::FillsIn })
    }

    fn parameters(&self, model: &dyn Model) -> Vec<Parameter> {
        match self.next_sentence {
            true => layer(model, "next_sentence", [2, model.width()]).into(),
            false => Vec::new(),
        }
    }

    fn cut(&self) -> Cut {
        if self.next_sentence { Cut::Pairs { specials: PAIR_SPECIALS } } else { Cut::Windows }
    }

    fn build(&self, track: &mut Builder<'_>) -> Result<Built> {
        let (model, shape) = (track.model(), track.shape());
        let own = track.parameters(self.parameters(model.model()));
        let pairs = self.next_sentence.then(|| (own[0], own[1]));
        let label = Labels { masked: track.label("masked"), pairs: track.label("next_sentence") };
        let flops = self.flops(&model, shape);
        let with = With { model, shape, pairs, label: label.clone() };
        let (own, of) = (self.clone(), with.clone());
        let train = track.train(move |g, extras| own.trace(g, &of, extras, true));
        let own = self.clone();
        let program = track.held_out(move |g, extras| own.trace(g, &with, extras, false));
        let mask = Loss { scale: "scale", weight: 1.0 };
        let (sums, losses) = match self.next_sentence {
            false => (vec!["loss_sum".to_owned(), "targets".to_owned()], vec![mask]),
            true => {
                let of = |label: &str| ["loss_sum", "targets"].map(|sum| format!("{label}.{sum}"));
                let counts = ["wrong", "missing"].map(str::to_owned);
                let sums = [of(&label.masked), of(&label.pairs), counts].concat();
                (sums, vec![mask, Loss { scale: "pair_scale", weight: 1.0 }])
            }
        };
        Ok(Built {
            attempts: vec![vec![Stage::Each(train)]],
            group: 1,
            losses,
            held_out: HeldOutProgram { program, sums, reading: Reading::new(read) },
            flops_per_sample: flops,
        })
    }

    fn inputs(&self, source: Source) -> std::result::Result<Box<dyn Inputs>, DataError> {
        let (noise, pairs) = (source.noise("masked tokens"), source.noise("pairs"));
        Ok(Box::new(Hidden {
            shares: self.shares(),
            pair: self.next_sentence,
            noise,
            pairs,
            source,
        }))
    }
}

impl Masked {
    /// FLOPs of a sample: the output layer sees hidden tokens only.
    fn flops(&self, model: &Part, shape: BatchShape) -> f64 {
        let (model, length) = (model.model(), shape.sequence_length);
        let seen = length as f64 * model.flops_per_token(length, BIDIRECTIONAL);
        let unseen = length - self.shares().count(length);
        seen - 6.0 * unseen as f64 * model.head_parameters() as f64
    }
}

/// The means of both losses, and the share of pairs that were told rightly.
fn read(sums: &[f64]) -> Findings {
    let of = |loss: f64, targets: f64| Findings {
        loss: loss / targets,
        targets: targets as u64,
        ..Findings::default()
    };
    match sums {
        [loss, targets] => of(*loss, *targets),
        [loss, targets, pair_loss, pairs, wrong, missing] => Findings {
            measures: vec![
                ("next_sentence_loss".to_owned(), pair_loss / pairs),
                ("next_sentence_accuracy".to_owned(), 1.0 - (wrong - missing) / pairs),
            ],
            ..of(*loss, *targets)
        },
        _ => Findings::default(),
    }
}

/// Samples with hidden tokens.
struct Hidden {
    shares: Shares,
    pair: bool,
    noise: random::RandomStream,
    pairs: random::RandomStream,
    source: Source,
}

/// One sample.
struct Rows<'a> {
    tokens: &'a mut [i32],
    positions: &'a mut [i32],
    segments: &'a mut [i32],
    types: &'a mut [i32],
}

impl Hidden {
    fn place(&self, sample: u64) -> std::result::Result<Pair, DataError> {
        self.source.samples.pair(sample, &self.pairs)
    }

    /// Fills a window, whose tokens may all be chosen; gives how many there are.
    fn window(&self, sample: u64, rows: Rows<'_>) -> std::result::Result<Vec<usize>, DataError> {
        let Rows { tokens, positions, segments, types } = rows;
        // Labels of next tokens stand where there is text.
        let mut labels = vec![0; tokens.len()];
        types.fill(0);
        let rows = WindowRows { tokens, labels: &mut labels, segments, positions };
        self.source.samples.fill(sample, rows)?;
        Ok((0..labels.len()).filter(|&at| labels[at] != IGNORED).collect())
    }

    /// Fills a pair between special tokens, which are not chosen.
    fn pair(
        &self,
        sample: u64,
        rows: Rows<'_>,
    ) -> std::result::Result<(Vec<usize>, bool), DataError> {
        let Rows { tokens, positions, segments, types } = rows;
        let pair = self.place(sample)?;
        let (begin, end) = (self.source.special(BEGIN), self.source.special(END));
        let (first, second) = (1..1 + pair.first.1, 2 + pair.first.1..2 + pair.tokens());
        let used = pair.tokens() + PAIR_SPECIALS;
        self.source.samples.read(sample, pair.first.0, &mut tokens[first.clone()])?;
        self.source.samples.read(sample, pair.second.0, &mut tokens[second.clone()])?;
        (tokens[0], tokens[first.end], tokens[second.end]) = (begin, end, end);
        tokens[used..].fill(end);
        types.fill(0);
        types[second.start..used].fill(1);
        segments[..used].fill(0);
        // What is behind a pair sees itself only.
        segments[used..].fill(1);
        positions.iter_mut().zip(0..).for_each(|(position, at)| *position = at);
        Ok((first.chain(second).collect(), pair.follows))
    }
}

impl Inputs for Hidden {
    fn targets(&self, sample: u64) -> std::result::Result<Counts, DataError> {
        let (tokens, pairs) = match self.pair {
            true => (self.place(sample)?.tokens() + PAIR_SPECIALS, 1),
            false => (self.source.samples.targets(sample)? as usize, 0),
        };
        Ok([self.shares.count(tokens) as u64, pairs, 0, 0])
    }

    fn fill(
        &self,
        samples: Range<u64>,
        program: &Program,
        record: &mut Record<'_>,
    ) -> std::result::Result<(), DataError> {
        let length = self.source.sequence_length;
        let fields = ["tokens", "positions", "segments", "hidden", "labels"];
        let [tokens, positions, segments, hidden, labels] =
            record.fields::<i32, 5>(program, fields);
        [&mut *tokens, &mut *positions, &mut *segments].into_iter().for_each(|rows| rows.fill(0));
        [&mut *hidden, &mut *labels].into_iter().for_each(|rows| rows.fill(IGNORED));
        let most = hidden.len() / (tokens.len() / length);
        let mut types = vec![0; tokens.len()];
        let mut follows = vec![IGNORED; tokens.len() / length];
        for (row, sample) in samples.enumerate() {
            let part = row * length..(row + 1) * length;
            let rows = Rows {
                tokens: &mut tokens[part.clone()],
                positions: &mut positions[part.clone()],
                segments: &mut segments[part.clone()],
                types: &mut types[part.clone()],
            };
            let (candidates, counted) = match self.pair {
                true => {
                    let (candidates, next) = self.pair(sample, rows)?;
                    follows[row] = i32::from(next);
                    let counted = candidates.len() + PAIR_SPECIALS;
                    (candidates, counted)
                }
                false => {
                    let candidates = self.window(sample, rows)?;
                    let counted = candidates.len();
                    (candidates, counted)
                }
            };
            let count = self.shares.count(counted).min(candidates.len());
            let (seen, mask) = (&mut tokens[part.clone()], self.source.special(MASK));
            let before = seen.to_vec();
            let noise = (&self.noise, sample);
            let any = (mask, self.source.tokens);
            let chosen = self.shares.hide(noise, &candidates, count, seen, any);
            for (number, at) in chosen.into_iter().enumerate() {
                hidden[row * most + number] = (part.start + at) as i32;
                labels[row * most + number] = before[at];
            }
        }
        if self.pair {
            record.field::<i32>(program, "types").copy_from_slice(&types);
            record.field::<i32>(program, "follows").copy_from_slice(&follows);
        }
        Ok(())
    }
}
