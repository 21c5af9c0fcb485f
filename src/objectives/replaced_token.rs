//! Replaced-token detection (Clark et al., arXiv:2003.10555, ELECTRA): a generator tells hidden
//! tokens, what it draws takes their places, and the track's model says of every token whether it
//! was replaced.
//!
//! Inputs, N rows of B sequences of which at most M tokens are chosen: `tokens i32[N]` as they are,
//! `seen i32[N]` as the generator sees them, `there i32[N]` (1 where there is a token), `positions
//! i32[N]`, `segments i32[N]`, `hidden i32[M]` (rows; negative: none), `labels i32[M]`, `row_sample
//! i32[M]` and `element i32[M]` (whose draw it is), and for training `scale f32[]` and
//! `judge_scale f32[]`. The draw happens inside the graph, and nothing flows back through it. A
//! token that was drawn as it was is no replacement.

use std::ops::Range;
use std::sync::Arc;

use octet_actors::contract::{Findings, Reading, Record};
use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::{Graph, Parameter, ParameterId, Program, Tensor};
use octet_kernels::ops::activation::gelu_erf;
use octet_kernels::ops::add::add;
use octet_kernels::ops::binary_cross_entropy::binary_cross_entropy;
use octet_kernels::ops::cross_entropy::cross_entropy;
use octet_kernels::ops::fill::Fill;
use octet_kernels::ops::gather_rows::gather_rows;
use octet_kernels::ops::integers::{keep_or, not_equal};
use octet_kernels::ops::linear::linear;
use octet_kernels::ops::sample::sample;
use octet_kernels::ops::scatter_rows::scatter_rows;
use octet_kernels::random;
use serde::{Deserialize, Serialize};

use super::masked::MASK;
use super::masking::Shares;
use super::{Ability, BatchShape, Counts, Inputs, Objective, Source, layer};
use crate::composition::{Builder, Built, HeldOutProgram, Loss, Stage};
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::data::{DataError, IGNORED, WindowRows};
use crate::models::{BIDIRECTIONAL, Extras, Model, Part, Sight, TokenBatch};

#[cfg(test)]
mod tests;

/// Tokens that a generator replaces are to be found.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplacedToken {
    /// The generator: one of `[model.parts]`.
    pub generator: String,
    /// Share of tokens that are chosen for the generator to tell. Above 0, at most 1.
    pub mask_share: f64,
    /// Share of these that it sees all the same. From 0 to 1.
    pub keep_share: f64,
    /// What its logits are divided by before a token is drawn; 0 takes the likeliest. At least 0.
    pub temperature: f64,
    /// Weight of the verdicts' loss beside the generator's. Above 0.
    pub weight: f64,
}

impl Default for ReplacedToken {
    fn default() -> Self {
        Self {
            generator: "generator".to_owned(),
            mask_share: 0.15,
            keep_share: 0.15,
            temperature: 1.0,
            weight: 50.0,
        }
    }
}

/// What a program is traced with.
#[derive(Clone)]
struct With {
    judge: Arc<Part>,
    generator: Arc<Part>,
    shape: BatchShape,
    verdict: Verdict,
    labels: [String; 2],
}

/// The layers that make verdicts of the judge's rows.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    dense: (ParameterId, ParameterId),
    output: (ParameterId, ParameterId),
}

impl Verdict {
    fn parameters(model: &dyn Model) -> Vec<Parameter> {
        let width = model.width();
        let layers = [("verdict.dense", width), ("verdict.output", 1)];
        layers.into_iter().flat_map(|(name, rows)| layer(model, name, [rows, width])).collect()
    }

    /// `f[N]`: how likely a token was replaced, as logits.
    fn of(self, g: &mut Graph<'_>, rows: Tensor) -> Result<Tensor> {
        let layer = |g: &mut Graph<'_>, x, (weight, bias): (ParameterId, ParameterId)| {
            let (weight, bias) = (g.parameter(weight), g.parameter(bias));
            linear(g, x, weight, Some(bias))
        };
        g.scoped("verdict", |g| {
            let h = layer(g, rows, self.dense)?;
            let h = gelu_erf(g, h)?;
            let verdict = layer(g, h, self.output)?;
            let rows = g.spec(verdict).leading();
            g.reshape(verdict, &[rows])
        })
    }
}

impl ReplacedToken {
    fn shares(&self) -> Shares {
        Shares { chosen: self.mask_share, kept: self.keep_share, replaced: 0.0 }
    }

    fn trace(
        &self,
        g: &mut Graph<'_>,
        with: &With,
        extras: &mut Extras,
        training: bool,
    ) -> Result<Tensor> {
        let With { judge, generator, shape, verdict, labels: names } = with;
        let (rows, sequence_length) = (shape.tokens(), shape.sequence_length);
        let most = shape.sequences * self.shares().count(sequence_length);
        let input = |g: &mut Graph<'_>, name: &str, rows| g.input(name, &[rows], DType::I32);
        let [tokens, seen, there] = ["tokens", "seen", "there"].map(|name| input(g, name, rows));
        let [positions, segments] = ["positions", "segments"].map(|name| input(g, name, rows));
        let [hidden, labels] = ["hidden", "labels"].map(|name| input(g, name, most));
        let [row_sample, element] = ["row_sample", "element"].map(|name| input(g, name, most));
        let scale = |g: &mut Graph<'_>, name| match training {
            true => Ok(g.input(name, &[], DType::F32)),
            false => g.apply_one(Fill { shape: Vec::new(), value: 1.0 }, &[]),
        };
        let (own_scale, judge_scale) = (scale(g, "scale")?, scale(g, "judge_scale")?);
        let batch = TokenBatch {
            tokens: seen,
            positions,
            segments,
            types: None,
            sequence_length,
            sight: Sight::Bidirectional,
            training,
        };
        let told = generator.hidden(g, &batch, extras)?;
        let told = gather_rows(g, told, hidden)?;
        let head = generator.head(g, told)?;
        let logits =
            g.scoped("generator_head", |g| linear(g, head.rows, head.weight, head.bias))?;
        let guessed = cross_entropy(g, logits, labels, own_scale)?;
        let drawn = sample(g, logits, row_sample, element, self.temperature as f32)?;
        let corrupted = scatter_rows(g, tokens, drawn, hidden)?;
        let replaced = not_equal(g, corrupted, tokens)?;
        let replaced = keep_or(g, replaced, there, IGNORED)?;
        let batch = TokenBatch { tokens: corrupted, ..batch };
        let judged = judge.hidden(g, &batch, extras)?;
        let verdicts = verdict.of(g, judged)?;
        let judged = binary_cross_entropy(g, verdicts, replaced, judge_scale)?;
        for (name, (_, sum, targets)) in names.iter().zip([guessed, judged]) {
            g.fetch(&format!("{name}.loss_sum"), sum);
            g.fetch(&format!("{name}.targets"), targets);
        }
        add(g, guessed.0, judged.0)
    }
}

impl Objective for ReplacedToken {
    fn validate(&self) -> std::result::Result<(), Invalid> {
        let chosen = || expected("a number above 0 and at most 1", self.mask_share);
        let usable = self.mask_share > 0.0 && self.mask_share <= 1.0;
        require(usable, "objective.mask_share", chosen)?;
        let kept = || expected("a number from 0 to 1", self.keep_share);
        require((0.0..=1.0).contains(&self.keep_share), "objective.keep_share", kept)?;
        let positive = |x: f64| x > 0.0 && (x as f32).is_finite();
        let temperature = || expected("a number of at least 0", self.temperature);
        let usable = self.temperature == 0.0 || positive(self.temperature);
        require(usable, "objective.temperature", temperature)?;
        let weight = || expected("a number above 0", self.weight);
        require(positive(self.weight), "objective.weight", weight)
    }

    fn parts(&self) -> Vec<&str> {
        vec![&self.generator]
    }

    fn special_tokens(&self) -> &'static [&'static str] {
        &[MASK]
    }

    fn teaches(&self) -> Option<Ability> {
        Some(Ability::Judges)
    }

    fn parameters(&self, model: &dyn Model) -> Vec<Parameter> {
        Verdict::parameters(model)
    }

    fn build(&self, track: &mut Builder<'_>) -> Result<Built> {
        let (judge, generator) = (track.model(), track.part(&self.generator)?);
        let own = track.parameters(self.parameters(judge.model()));
        let verdict = Verdict { dense: (own[0], own[1]), output: (own[2], own[3]) };
        let shape = track.shape();
        let labels = ["generator", "verdict"].map(|loss| track.label(loss));
        let length = shape.sequence_length;
        let unseen = length - self.shares().count(length);
        let flops = |part: &Part, unseen: usize| {
            let model = part.model();
            let per_token = model.flops_per_token(length, BIDIRECTIONAL);
            length as f64 * per_token - 6.0 * unseen as f64 * model.head_parameters() as f64
        };
        let flops_per_sample = flops(&generator, unseen) + flops(&judge, length);
        let with = With { judge, generator, shape, verdict, labels: labels.clone() };
        let (own, of) = (self.clone(), with.clone());
        let train = track.train(move |g, extras| own.trace(g, &of, extras, true));
        let own = self.clone();
        let program = track.held_out(move |g, extras| own.trace(g, &with, extras, false));
        let sums =
            labels.iter().flat_map(|label| ["loss_sum", "targets"].map(|s| format!("{label}.{s}")));
        Ok(Built {
            attempts: vec![vec![Stage::Each(train)]],
            group: 1,
            losses: vec![
                Loss { scale: "scale", weight: 1.0 },
                Loss { scale: "judge_scale", weight: self.weight },
            ],
            held_out: HeldOutProgram { program, sums: sums.collect(), reading: Reading::new(read) },
            flops_per_sample,
        })
    }

    fn inputs(&self, source: Source) -> std::result::Result<Box<dyn Inputs>, DataError> {
        let noise = source.noise("tokens to replace");
        Ok(Box::new(Replaceable { shares: self.shares(), noise, source }))
    }
}

/// The loss of verdicts, and beside it the generator's.
fn read(sums: &[f64]) -> Findings {
    let [guesses, hidden, loss, targets] = sums else { return Findings::default() };
    Findings {
        loss: loss / targets,
        targets: *targets as u64,
        measures: vec![("generator_loss".to_owned(), guesses / hidden)],
        ..Findings::default()
    }
}

/// Windows with chosen tokens.
struct Replaceable {
    shares: Shares,
    noise: random::RandomStream,
    source: Source,
}

impl Inputs for Replaceable {
    fn targets(&self, sample: u64) -> std::result::Result<Counts, DataError> {
        let tokens = self.source.samples.targets(sample)?;
        Ok([self.shares.count(tokens as usize) as u64, tokens, 0, 0])
    }

    fn fill(
        &self,
        samples: Range<u64>,
        program: &Program,
        record: &mut Record<'_>,
    ) -> std::result::Result<(), DataError> {
        let length = self.source.sequence_length;
        let fields = ["tokens", "seen", "there", "positions", "segments"];
        let mut rows = record.fields::<i32, 5>(program, fields);
        rows.iter_mut().for_each(|rows| rows.fill(0));
        let [tokens, seen, there, positions, segments] = rows;
        let sequences = tokens.len() / length;
        let mut chosen: Vec<(usize, Vec<(usize, i32)>)> = Vec::new();
        for (row, sample) in samples.enumerate() {
            let part = row * length..(row + 1) * length;
            let window = WindowRows {
                tokens: &mut tokens[part.clone()],
                // Labels of next tokens stand where there is text.
                labels: &mut there[part.clone()],
                segments: &mut segments[part.clone()],
                positions: &mut positions[part.clone()],
            };
            self.source.samples.fill(sample, window)?;
            there[part.clone()].iter_mut().for_each(|cell| *cell = i32::from(*cell != IGNORED));
            let candidates: Vec<usize> =
                (0..length).filter(|&at| there[part.start + at] == 1).collect();
            let own = &mut seen[part.clone()];
            own.copy_from_slice(&tokens[part.clone()]);
            let count = self.shares.count(candidates.len());
            let words = (self.source.special(MASK), self.source.tokens);
            let at = self.shares.hide((&self.noise, sample), &candidates, count, own, words);
            chosen.push((row, at.into_iter().map(|at| (at, tokens[part.start + at])).collect()));
        }
        let fields = ["hidden", "labels", "row_sample", "element"];
        let mut rows = record.fields::<i32, 4>(program, fields);
        rows.iter_mut().for_each(|rows| rows.fill(0));
        let [hidden, labels, row_sample, element] = rows;
        hidden.fill(IGNORED);
        labels.fill(IGNORED);
        let most = hidden.len() / sequences;
        for (row, tokens) in chosen {
            for (number, (at, token)) in tokens.into_iter().enumerate() {
                let place = row * most + number;
                hidden[place] = (row * length + at) as i32;
                (labels[place], row_sample[place], element[place]) = (token, row as i32, at as i32);
            }
        }
        Ok(())
    }
}
