//! Prepared text as streams of samples: which sample of a track is which window of which source.
//!
//! Ownership: the open shards. Prohibition: knows no objective and no record.

use std::sync::Arc;

use octet_kernels::random::{self, Site};
use serde::Serialize;

use crate::config::tracks::samples_before;
use crate::config::{Config, TrackConfig};
use crate::data::{
    DataError, Mixture, Pair, Prepared, PreparedSource, SampleRule, Samples, Tokenizer, WindowRows,
    Windows,
};
use crate::objectives::Source;

#[cfg(test)]
mod tests;

/// What tokens without a text are drawn from.
const RANDOM: Site = Site::new("random text");

/// All sources of a corpus, opened, with the orders of every track.
pub struct Text {
    tokenizer: Arc<Tokenizer>,
    tracks: Vec<TrackText>,
    /// Of the tokenizer.
    tokens: usize,
    /// By token: UTF-8 bytes of its text.
    token_bytes: Arc<[u32]>,
    special: Arc<[(&'static str, i32)]>,
    seed: u64,
    sequence_length: usize,
    identity: String,
}

/// What a track sees.
struct TrackText {
    /// `None` for a text that is only evaluated.
    training: Option<Which>,
    held_out: Vec<HeldOut>,
    splits: Vec<Arc<Samples>>,
}

/// What a track learns from.
struct Training {
    sources: Vec<(String, Samples)>,
    mixture: Mixture,
}

/// The held-out split of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOut {
    /// The source's name; empty for `data.text`.
    pub name: String,
    /// Windows, which do not overlap.
    pub windows: u64,
}

/// What a source has given to the training so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Consumed {
    /// The source's name; empty for `data.text`.
    pub name: String,
    /// Samples.
    pub samples: u64,
    /// Tokens, padding included.
    pub tokens: u64,
    /// Epochs: how often each window was used.
    pub epochs: f64,
}

/// Numbered samples: of a track's training, which never end, or of a held-out split.
#[derive(Clone)]
pub struct Stream(Which);

#[derive(Clone)]
enum Which {
    Training(Arc<Training>),
    HeldOut { split: Arc<Samples>, measured: u64 },
    Random { tokens: usize, seed: u64 },
}

impl Stream {
    /// Samples that there are; `None` where they never end.
    pub fn len(&self) -> Option<u64> {
        match &self.0 {
            Which::Training(_) | Which::Random { .. } => None,
            Which::HeldOut { measured, .. } => Some(*measured),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Whether nothing is learned from them.
    pub fn is_held_out(&self) -> bool {
        self.len().is_some()
    }

    /// The split of a sample, and its number there; `None` where they are drawn.
    fn place(&self, sample: u64) -> Result<Option<(&Samples, u64)>, DataError> {
        Ok(match &self.0 {
            Which::Training(training) => Some(training.place(sample)?),
            Which::HeldOut { split, measured } => {
                Some((split, spread(sample, *measured, split.per_epoch())))
            }
            Which::Random { .. } => None,
        })
    }

    /// Where the two texts of a sample stand, for samples that are pairs.
    ///
    /// # Errors
    /// [`DataError`] for a sample behind the end of all sources, or one that is no pair.
    pub fn pair(&self, sample: u64, noise: &random::RandomStream) -> Result<Pair, DataError> {
        let pair = match self.place(sample)? {
            Some((samples, number)) => samples.pair(number, sample, noise),
            None => None,
        };
        pair.ok_or_else(|| DataError::Config {
            key: "data.text",
            problem: "expected documents to make pairs of".to_owned(),
        })
    }

    /// Reads tokens of the source of a sample, from a position in its stream on.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn read(&self, sample: u64, start: u64, tokens: &mut [i32]) -> Result<(), DataError> {
        match self.place(sample)? {
            Some((samples, _)) => samples.read(start, tokens),
            None => Ok(()),
        }
    }

    /// Labels of a window that are not ignored.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn targets(&self, sample: u64) -> Result<u64, DataError> {
        match self.place(sample)? {
            Some((samples, number)) => samples.targets(number),
            None => Ok(1),
        }
    }

    /// Fills the rows of a window and returns its targets.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn fill(&self, sample: u64, rows: WindowRows<'_>) -> Result<u64, DataError> {
        if let Some((samples, number)) = self.place(sample)? {
            return samples.fill(number, rows);
        }
        let Which::Random { tokens: below, seed } = self.0 else { return Ok(0) };
        let WindowRows { tokens, labels, segments, positions } = rows;
        let draws = random::RandomStream { seed, site: RANDOM };
        for (at, (token, label)) in tokens.iter_mut().zip(labels).enumerate() {
            let draw = |at: usize| (draws.word(0, sample, at as u64) as usize % below) as i32;
            (*token, *label) = (draw(at), draw(at + 1));
            (segments[at], positions[at]) = (0, at as i32);
        }
        Ok(tokens.len() as u64)
    }
}

impl Text {
    /// Opens prepared data.
    ///
    /// # Errors
    /// [`DataError`]: a shard that is gone or damaged, a split that is too short, or sources that
    /// end before the run does.
    pub fn open(config: &Config, prepared: Prepared) -> Result<Self, DataError> {
        check_tokens(config, &prepared.tokenizer)?;
        let open = |track: &TrackConfig| {
            let training = Training::open(config, track, &prepared)?;
            let training = Some(Which::Training(Arc::new(training)));
            let measured = config.evaluate.every > 0 || !config.tasks.is_empty();
            let (held_out, splits) =
                if measured { held_out(config, track, &prepared)? } else { Default::default() };
            Ok(TrackText { training, held_out, splits })
        };
        let tracks = config.tracks().iter().map(open).collect::<Result<Vec<_>, DataError>>()?;
        Ok(Self::new(config, prepared, tracks))
    }

    /// Opens the held-out splits only.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn held_out_only(config: &Config, prepared: Prepared) -> Result<Self, DataError> {
        let open = |track: &TrackConfig| {
            let (held_out, splits) = held_out(config, track, &prepared)?;
            Ok(TrackText { training: None, held_out, splits })
        };
        let tracks = config.tracks().iter().map(open).collect::<Result<Vec<_>, DataError>>()?;
        Ok(Self::new(config, prepared, tracks))
    }

    /// Tokens that are drawn, below so many: for steps whose text does not matter.
    pub fn random(config: &Config, vocabulary: usize) -> Self {
        let tokenizer = Tokenizer::bytes();
        let special = config.special_tokens();
        let (seed, tokens) = (config.run.seed, vocabulary - special.len());
        let track = |_: &TrackConfig| {
            let training = Some(Which::Random { tokens, seed });
            TrackText { training, held_out: Vec::new(), splits: Vec::new() }
        };
        Self {
            tracks: config.tracks().iter().map(track).collect(),
            tokens,
            token_bytes: vec![1; tokens].into(),
            special: special.into_iter().zip(tokens as i32..).collect(),
            seed,
            sequence_length: config.batch.sequence_length,
            identity: String::new(),
            tokenizer: Arc::new(tokenizer),
        }
    }

    fn new(config: &Config, prepared: Prepared, tracks: Vec<TrackText>) -> Self {
        let (tokenizer, tokens) = (&prepared.tokenizer, prepared.tokenizer.vocabulary());
        Self {
            tracks,
            tokens,
            token_bytes: tokenizer.token_bytes().into(),
            special: config.special_ids(tokenizer).into(),
            seed: config.run.seed,
            sequence_length: config.batch.sequence_length,
            identity: prepared.identity,
            tokenizer: Arc::new(prepared.tokenizer),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// blake3 of tokens and tokenizer: part of what a resume must find again.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The held-out splits of a track, in the order of the sources; none if nothing is held out.
    pub fn held_out(&self, track: usize) -> &[HeldOut] {
        &self.tracks[track].held_out
    }

    /// What a track learns from; `None` for a text that is only evaluated.
    pub fn training(&self, track: usize) -> Option<Source> {
        Some(self.source(self.tracks[track].training.clone()?))
    }

    /// At most so many samples of a held-out split of a track, evenly spread over it.
    pub fn held_out_samples(&self, track: usize, split: usize, most: u64) -> Source {
        let split = self.tracks[track].splits[split].clone();
        let measured = split.per_epoch().min(most);
        self.source(Which::HeldOut { split, measured })
    }

    fn source(&self, which: Which) -> Source {
        Source {
            samples: Stream(which),
            sequence_length: self.sequence_length,
            tokens: self.tokens,
            token_bytes: self.token_bytes.clone(),
            special: self.special.clone(),
            seed: self.seed,
        }
    }

    /// What each source has given to the training, by the samples of every track.
    pub fn consumed(&self, samples: &[u64]) -> Vec<Consumed> {
        let mut all: Vec<Consumed> = Vec::new();
        for (track, &samples) in self.tracks.iter().zip(samples) {
            let Some(Which::Training(training)) = &track.training else { continue };
            let Training { sources, mixture } = &**training;
            for ((name, source), samples) in sources.iter().zip(mixture.counts(samples)) {
                let known = all.iter().position(|known| known.name == *name);
                let number = known.unwrap_or_else(|| {
                    let name = name.clone();
                    all.push(Consumed { name, samples: 0, tokens: 0, epochs: 0.0 });
                    all.len() - 1
                });
                let consumed = &mut all[number];
                consumed.samples += samples;
                consumed.tokens += samples * self.sequence_length as u64;
                consumed.epochs += samples as f64 / source.per_epoch() as f64;
            }
        }
        all
    }
}

/// Whether `model.vocabulary`, if it is given, is enough for a tokenizer's tokens and those of
/// objectives, and whether no text can spell these.
///
/// # Errors
/// [`DataError::Config`].
pub(crate) fn check_tokens(config: &Config, tokenizer: &Tokenizer) -> Result<(), DataError> {
    if let Some(name) = config.special_tokens().into_iter().find(|name| tokenizer.spells(name)) {
        let problem = format!(
            "expected one whose {name} is a special token, or that has none, got one whose {name} \
             is a word"
        );
        return Err(DataError::Config { key: "data.tokenizer", problem });
    }
    let (tokens, special) = (tokenizer.vocabulary(), config.added_tokens(tokenizer).len());
    let Some(rows) = config.model.vocabulary.filter(|&rows| rows < tokens + special) else {
        return Ok(());
    };
    let problem = format!(
        "expected at least {}, {tokens} tokens and {special} of the objective, got {rows}",
        tokens + special
    );
    Err(DataError::Config { key: "model.vocabulary", problem })
}

impl Training {
    fn open(config: &Config, track: &TrackConfig, prepared: &Prepared) -> Result<Self, DataError> {
        let open = |source: &PreparedSource| {
            let opened = open(config, track, prepared, source, Windows::Shuffled)?;
            Ok((source.name.clone(), opened))
        };
        let chosen = prepared.sources.iter().filter(|source| draws_from(track, source));
        let sources = chosen.map(open).collect::<Result<Vec<_>, DataError>>()?;
        let texts = config.data.texts();
        let limit = |(name, source): &(String, Samples)| {
            let given = texts.iter().find(|given| given.name == *name);
            let (weight, epochs) =
                given.map_or((1.0, None), |given| (given.weight, given.max_epochs));
            (weight, epochs.map(|epochs| source.per_epoch().saturating_mul(epochs)))
        };
        let mixture = Mixture::new(&sources.iter().map(limit).collect::<Vec<_>>());
        let wanted = samples_before(&track.weight.zeros(), &config.batch, config.run.steps);
        if let Some(samples) = mixture.samples().filter(|&samples| samples < wanted) {
            return Err(DataError::SourcesEnd { samples, wanted });
        }
        Ok(Self { sources, mixture })
    }

    fn place(&self, sample: u64) -> Result<(&Samples, u64), DataError> {
        let samples = self.mixture.samples().unwrap_or(u64::MAX);
        let ended = DataError::SourcesEnd { samples, wanted: sample.saturating_add(1) };
        let (source, number) = self.mixture.at(sample).ok_or(ended)?;
        Ok((&self.sources[source].1, number))
    }
}

fn draws_from(track: &TrackConfig, source: &PreparedSource) -> bool {
    track.data.is_empty() || track.data.contains(&source.name)
}

/// Opens the held-out splits of a track.
fn held_out(
    config: &Config,
    track: &TrackConfig,
    prepared: &Prepared,
) -> Result<(Vec<HeldOut>, Vec<Arc<Samples>>), DataError> {
    let there =
        |source: &&PreparedSource| draws_from(track, source) && !source.validation.is_empty();
    let open = |source: &PreparedSource| {
        let samples = open(config, track, prepared, source, Windows::Sequential)?;
        let held_out = HeldOut { name: source.name.clone(), windows: samples.per_epoch() };
        Ok((held_out, Arc::new(samples)))
    };
    prepared.sources.iter().filter(there).map(open).collect()
}

/// The window that is measured as number `number` of `measured`, spread over `windows`.
fn spread(number: u64, measured: u64, windows: u64) -> u64 {
    (u128::from(number) * u128::from(windows) / u128::from(measured.max(1))) as u64
}

/// Opens the training split of a source for shuffled windows, else the held-out split.
fn open(
    config: &Config,
    track: &TrackConfig,
    prepared: &Prepared,
    source: &PreparedSource,
    windows: Windows,
) -> Result<Samples, DataError> {
    let identity = match source.name.as_str() {
        "" => prepared.identity.clone(),
        name => format!("{} {name}", prepared.identity),
    };
    let rule = SampleRule {
        seed: config.run.seed,
        identity: &identity,
        cut: track.objective.get().cut(),
        layout: config.data.window_layout(config.batch.sequence_length),
        packing: config.data.packing,
        windows,
        end_of_document: prepared.tokenizer.end_of_document(),
    };
    let (paths, split, advice) = match windows {
        Windows::Shuffled => (&source.train, "training", "give more text or a shorter sequence"),
        Windows::Sequential => (
            &source.validation,
            "validation",
            "give more text, raise data.validation_fraction or set evaluate.every = 0",
        ),
    };
    let of = if source.name.is_empty() { "" } else { " of data.sources: " };
    let what = format!("the {split} split{of}{}", source.name);
    Samples::open(paths, &rule).map_err(|error| match error {
        // No sequence is short enough.
        DataError::TooShort { tokens: tokens @ ..2, .. } => {
            let key = if source.name.is_empty() { "data.text" } else { "data.sources" };
            let advice = advice.replace(" or a shorter sequence", "");
            let problem = format!("expected at least 2 tokens of {what}, got {tokens}; {advice}");
            DataError::Config { key, problem }
        }
        DataError::TooShort { tokens, sequence_length, .. } => {
            DataError::TooShort { what, advice, tokens, sequence_length }
        }
        other => other,
    })
}
