//! Text from a model: a prompt goes through its decode programs, then tokens are drawn one by one.
//!
//! Duty: the conversation with rank 0 and the draw, both pure functions of seed, step and logits.
//! Prohibition: prints nothing and writes no file; whoever asks is told the text.

use std::ops::ControlFlow;
use std::sync::Arc;

use octet_actors::contract::{Drive, ProgramId, Record, Results};
use octet_actors::fault::Fault;
use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Goal, Graph, Layout, Policy, Program, Variables};
use octet_kernels::random::{RandomStream, Site};

use crate::composition::Writer;
use crate::config::SampleConfig;
use crate::data::{DataError, Tokenizer};
use crate::models::KvCaches;

#[cfg(test)]
mod tests;

/// Rows of the prefill program: so many tokens of a prompt are read at once.
const PREFILL_ROWS: usize = 32;

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
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampler {
    /// As the samples of a run with this seed are drawn.
    pub fn new(config: &SampleConfig, seed: u64) -> Self {
        let SampleConfig { temperature, top_k, top_p, .. } = *config;
        Self { temperature, top_k, top_p, seed: config.seed.unwrap_or(seed) }
    }

    /// Draws a token. Equal logits rank by token id; NaN is
    /// never drawn. `None` if no logit is finite.
    pub fn draw(&self, logits: &[f32], at: Place) -> Option<u32> {
        let finite = |&(_, logit): &(usize, f32)| logit.is_finite();
        let mut ranked: Vec<(usize, f32)> =
            logits.iter().copied().enumerate().filter(finite).collect();
        ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let &(best, highest) = ranked.first()?;
        if self.temperature == 0.0 {
            return Some(best as u32);
        }
        if self.top_k > 0 {
            ranked.truncate(self.top_k);
        }
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

/// The programs that a conversation runs, in a workload that has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decoder {
    /// Reads up to `rows` tokens of a prompt.
    pub prefill: ProgramId,
    /// Reads one token.
    pub single: ProgramId,
    /// Rows of `prefill`.
    pub rows: usize,
    /// Tokens that the caches hold.
    pub positions: usize,
    /// Bound of the logits: `cap · tanh(z / cap)`.
    pub softcap: Option<f32>,
}

impl Decoder {
    /// Compiles prefill and single step over caches of one sequence; they become programs number
    /// `first` and the next.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error`] when model and caches do not fit together.
    pub fn compile(
        writer: &Writer,
        caches: &KvCaches,
        variables: &Variables,
        layout: &Layout,
        policy: Policy,
        first: usize,
    ) -> Result<(Self, [Program; 2])> {
        let missing = || Error::Plan(format!("{}: does not write text", writer.part.shown()));
        let model = writer.part.model().writer().ok_or_else(missing)?;
        let compile = |name: &str, rows: usize| {
            let mut g = Graph::new(variables);
            let [tokens, positions] =
                ["tokens", "positions"].map(|name| g.input(name, &[rows], DType::I32));
            let logits = model.decode(&mut g, caches, tokens, positions)?;
            g.fetch("logits", logits);
            Program::compile(name, g, &Goal::Forward, policy, layout)
        };
        let (positions, softcap) = (caches.positions, writer.writes.softcap);
        let rows = PREFILL_ROWS.min(positions);
        let programs = [compile("prefill", rows)?, compile("decode", 1)?];
        let (prefill, single) = (ProgramId(first), ProgramId(first + 1));
        Ok((Self { prefill, single, rows, positions, softcap }, programs))
    }
}

/// What a conversation is about.
#[derive(Clone)]
pub struct Request {
    /// Encodes the prompt and decodes the answer.
    pub tokenizer: Arc<Tokenizer>,
    /// The text to go on with, as tokens; see [`read_prompt`].
    pub prompt: Vec<u32>,
    /// Tokens to write, at most.
    pub tokens: usize,
    /// How they are drawn.
    pub sampler: Sampler,
}

/// The tokens of a prompt; without text the end of a document, after which a new one begins. An
/// error is one sentence.
///
/// # Errors
/// An empty prompt for a tokenizer without ends of documents, a prompt longer than `positions`
/// tokens, or one that the tokenizer cannot read.
pub fn read_prompt(
    tokenizer: &Tokenizer,
    prompt: &str,
    positions: usize,
) -> std::result::Result<Vec<u32>, String> {
    let mut tokens = Vec::new();
    tokenizer.encode(prompt, &mut tokens).map_err(|error: DataError| error.to_string())?;
    tokens.extend(tokenizer.end_of_document().filter(|_| tokens.is_empty()));
    match tokens.len() {
        0 => Err(
            "expected some text, got \"\": this tokenizer has no token for the end of a document, \
                  after which a new one could begin"
                .to_string(),
        ),
        n if n > positions => Err(format!("{n} tokens, and the model reads at most {positions}")),
        _ => Ok(tokens),
    }
}

/// What a listener hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Some more text.
    Piece(&'a str),
    /// There is no more, for the model gives no finite logit.
    Diverged,
    /// There is no more.
    End,
}

/// Hears the text as it comes; may stop it.
pub type Listener = Box<dyn FnMut(Heard<'_>) -> ControlFlow<()> + Send>;

/// A prompt and its continuation. Ends at the end of a document or after so many tokens. When the
/// caches are full it goes on from the last half of what they hold, as if the text began there.
pub struct Conversation {
    decoder: Decoder,
    request: Request,
    step: u64,
    sequence: u64,
    /// The prompt, then what was drawn.
    tokens: Vec<u32>,
    /// The token at position 0 of the caches.
    first: usize,
    /// Tokens that were read: those from `first` on are in the caches.
    read: usize,
    /// Rows of the run that is under way.
    rows: usize,
    /// Bytes of the decoded tokens that are told, the prompt's included.
    told: usize,
    /// Those of the last run.
    logits: Vec<f32>,
    listener: Listener,
}

impl Conversation {
    /// A conversation after `step` steps, the first of them; the listener hears the continuation
    /// only.
    pub fn new(decoder: Decoder, request: Request, step: u64, listener: Listener) -> Self {
        let tokens = request.prompt.clone();
        let told = request.tokenizer.decode_bytes(&tokens).len();
        let logits = Vec::new();
        let (sequence, first, read, rows) = (0, 0, 0, 0);
        Self { decoder, request, step, sequence, tokens, first, read, rows, told, logits, listener }
    }

    /// The same as number `sequence` after that step: with draws of its own.
    #[must_use]
    pub fn numbered(self, sequence: u64) -> Self {
        Self { sequence, ..self }
    }

    fn drawn(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// Takes the token that the logits of the last row decide; false at the end.
    fn take(&mut self, logits: &[f32]) -> bool {
        let tokenizer = &self.request.tokenizer;
        let width = logits.len() / self.program_rows();
        let row = &logits[(self.rows - 1) * width..self.rows * width];
        // Rows of padding in the embedding are no tokens.
        let row = &row[..width.min(tokenizer.vocabulary())];
        let at = Place { step: self.step, sequence: self.sequence, number: self.drawn() as u64 };
        let drawn = match self.decoder.softcap {
            None => self.request.sampler.draw(row, at),
            Some(cap) => {
                let capped: Vec<f32> = row.iter().map(|z| cap * (z / cap).tanh()).collect();
                self.request.sampler.draw(&capped, at)
            }
        };
        let Some(token) = drawn else {
            let _over = (self.listener)(Heard::Diverged);
            return false;
        };
        if tokenizer.end_of_document() == Some(token) {
            return false;
        }
        self.tokens.push(token);
        if self.tokens.len() - self.first > self.decoder.positions {
            self.first = self.tokens.len() - self.decoder.positions.div_ceil(2);
            self.read = self.first;
        }
        self.tell(false).is_continue() && self.drawn() < self.request.tokens
    }

    fn program_rows(&self) -> usize {
        if self.rows == 1 { 1 } else { self.decoder.rows }
    }

    /// Tells what is new, up to a character that is not whole yet, unless it will not be.
    fn tell(&mut self, last: bool) -> ControlFlow<()> {
        let bytes = self.request.tokenizer.decode_bytes(&self.tokens);
        let fresh = bytes.get(self.told..).unwrap_or_default();
        let fresh = if last { fresh } else { &fresh[..fresh.len() - unfinished(fresh)] };
        if fresh.is_empty() {
            return ControlFlow::Continue(());
        }
        self.told += fresh.len();
        (self.listener)(Heard::Piece(&String::from_utf8_lossy(fresh)))
    }
}

/// Length of a character at the end that more bytes may complete.
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(last) {
        Err(error) if error.error_len().is_none() => last.len(),
        _ => 0,
    }
}

impl Drive for Conversation {
    fn next(
        &mut self,
        programs: &[Program],
        last: Option<&dyn Results>,
        record: &mut Record<'_>,
    ) -> std::result::Result<Option<ProgramId>, Fault> {
        if let Some(results) = last {
            self.read += self.rows;
            let answered = self.read == self.tokens.len();
            results.read("logits", &mut self.logits)?;
            let logits = std::mem::take(&mut self.logits);
            let goes_on = !answered || self.take(&logits);
            self.logits = logits;
            if !goes_on {
                // It is over, whatever the listener says.
                let _over = (self.tell(true), (self.listener)(Heard::End));
                return Ok(None);
            }
        }
        let fresh = &self.tokens[self.read..];
        self.rows = fresh.len().min(self.decoder.rows);
        let id = if self.rows == 1 { self.decoder.single } else { self.decoder.prefill };
        let [tokens, positions] = record.fields::<i32, 2>(&programs[id.0], ["tokens", "positions"]);
        tokens.fill(0);
        positions.fill(-1);
        for (row, &token) in fresh[..self.rows].iter().enumerate() {
            tokens[row] = token as i32;
            positions[row] = (self.read - self.first + row) as i32;
        }
        Ok(Some(id))
    }
}
