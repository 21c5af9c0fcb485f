//! One text: what it was given, what was drawn, and what is told of it.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::data::{DataError, Tokenizer};
use crate::sampling::sampler::{Place, Sampler, Scored};

/// Tokens before a new one that decide how it is spelled.
const SPELLED_WITH: usize = 16;

/// What a text is to be.
#[derive(Clone)]
pub struct Request {
    /// Encodes the prompt and decodes the answer.
    pub tokenizer: Arc<Tokenizer>,
    /// The text to go on with, as tokens; see [`read_prompt`].
    pub prompt: Vec<u32>,
    /// Its number among the texts of one model, seed and prompt: each has draws of its own.
    pub number: u64,
    /// Tokens to write, at most.
    pub tokens: usize,
    /// How they are drawn.
    pub sampler: Sampler,
    /// The text ends before the first of these that is written.
    pub stop: Vec<String>,
    /// Tokens that end it beside the end of a document.
    pub ends: Vec<u32>,
    /// What is told of each token, if anything.
    pub scores: Option<Scores>,
}

impl Request {
    /// So many tokens behind a prompt.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        prompt: Vec<u32>,
        tokens: usize,
        sampler: Sampler,
    ) -> Self {
        let (stop, ends, scores) = (Vec::new(), Vec::new(), None);
        Self { tokenizer, prompt, number: 0, tokens, sampler, stop, ends, scores }
    }
}

/// What is told of each token besides its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scores {
    /// The most likely tokens of its place, so many.
    pub top: usize,
    /// Those of the prompt too.
    pub prompt: bool,
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
) -> Result<Vec<u32>, String> {
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
#[derive(Debug, Clone, PartialEq)]
pub enum Heard<'a> {
    /// A token and its score, if [`Request::scores`] asks; the text that it completes comes after.
    Token(Scored),
    /// Some more text.
    Piece(&'a str),
    /// There is no more, for the model gives no finite logit.
    Diverged,
    /// There is no more.
    End(Ended),
}

/// Why a text ends, and after how many tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub at: End,
    /// Tokens that were drawn, without the end of the document.
    pub tokens: usize,
}

/// Where a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All tokens are written that were asked for.
    Length,
    /// With its document.
    Document,
    /// Before one of [`Request::stop`].
    Stop,
    /// Where its listener left, or the model had no answer.
    GivenUp,
}

/// Hears the text as it comes; may stop it. Must not wait.
pub type Listener = Box<dyn FnMut(Heard<'_>) -> ControlFlow<()> + Send>;

/// A prompt and its continuation. Ends at the end of a document or after so many tokens. When the
/// caches are full it goes on from the last half of what they hold, as if the text began there.
pub(super) struct Conversation {
    request: Request,
    /// Steps done by the model.
    step: u64,
    /// The prompt, then what was drawn.
    tokens: Vec<u32>,
    /// The token at position 0 of the caches.
    first: usize,
    /// Tokens that were read: those from `first` on are in the caches.
    read: usize,
    /// Spelled, but not told: the beginning of a character or of a string that ends the text.
    held: Vec<u8>,
    listener: Listener,
}

impl Conversation {
    /// A text after `step` steps; the listener hears the continuation only.
    pub(super) fn new(request: Request, step: u64, listener: Listener) -> Self {
        let (tokens, held) = (request.prompt.clone(), Vec::new());
        Self { request, step, tokens, first: 0, read: 0, held, listener }
    }

    fn drawn(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// Tokens that the caches do not hold yet, and the position of the first of them.
    pub(super) fn unread(&self) -> (&[u32], usize) {
        (&self.tokens[self.read..], self.read - self.first)
    }

    /// The first of the unread tokens after which logits are wanted; all behind it are, too.
    pub(super) fn first_answer(&self) -> usize {
        let scored = self.request.scores.is_some_and(|scores| scores.prompt);
        let unread = self.tokens.len() - self.read;
        if scored && self.drawn() == 0 { 0 } else { unread - 1 }
    }

    /// So many more tokens were read; `answers` are the logits after those of them from
    /// [`Self::first_answer`] on, a row each. False at the end, which the listener was told then.
    pub(super) fn hear(&mut self, rows: usize, answers: &[f32], positions: usize) -> bool {
        let (start, from) = (self.read, self.read + self.first_answer());
        self.read += rows;
        if start == 0 && self.request.scores.is_some_and(|scores| scores.prompt) {
            // Nothing was read before the first token.
            let first = Scored { token: self.tokens[0], logprob: None, top: Vec::new() };
            if (self.listener)(Heard::Token(first)).is_break() {
                return self.end(End::GivenUp);
            }
        }
        let width = answers.len() / self.read.saturating_sub(from).max(1);
        for (at, logits) in (from..self.read).zip(answers.chunks(width.max(1))) {
            let goes_on = match self.tokens.get(at + 1) {
                Some(&token) => self.score(logits, token).is_continue() || self.end(End::GivenUp),
                None => self.draw(logits, positions),
            };
            if !goes_on {
                return false;
            }
        }
        true
    }

    fn score(&mut self, logits: &[f32], token: u32) -> ControlFlow<()> {
        match self.request.scores {
            Some(scores) => {
                let vocabulary = self.request.tokenizer.vocabulary();
                (self.listener)(Heard::Token(Scored::new(logits, vocabulary, token, scores.top)))
            }
            None => ControlFlow::Continue(()),
        }
    }

    /// Draws a token after the last one that was read; false at the end.
    fn draw(&mut self, logits: &[f32], positions: usize) -> bool {
        let Request { tokenizer, prompt, number, sampler, tokens: wanted, .. } = &self.request;
        if self.drawn() >= *wanted {
            return self.end(End::Length);
        }
        let at = Place { step: self.step, sequence: *number, number: self.drawn() as u64 };
        // Rows of padding in the embedding are no tokens.
        let mut weighed = logits[..logits.len().min(tokenizer.vocabulary())].to_vec();
        sampler.penalise(&mut weighed, &self.tokens, prompt.len());
        let Some(token) = sampler.draw(&weighed, at) else {
            // It is over, whatever the listener says.
            let _over = (self.listener)(Heard::Diverged);
            return self.end(End::GivenUp);
        };
        if tokenizer.end_of_document() == Some(token) || self.request.ends.contains(&token) {
            // It is no text, but a token of the answer: whoever adds up scores counts on it.
            let _over = self.score(logits, token);
            return self.end(End::Document);
        }
        self.held.extend(spelled(tokenizer, &self.tokens, token));
        self.tokens.push(token);
        if self.tokens.len() - self.first > positions {
            self.first = self.tokens.len() - positions.div_ceil(2);
            self.read = self.first;
        }
        if self.score(logits, token).is_break() {
            return self.end(End::GivenUp);
        }
        if let Some(end) = first_of(&self.request.stop, &self.held) {
            self.held.truncate(end);
            return self.end(End::Stop);
        }
        let complete = self.held.len() - unfinished(&self.held);
        let whole = complete.min(self.held.len() - begun(&self.request.stop, &self.held));
        if self.tell(whole).is_break() {
            return self.end(End::GivenUp);
        }
        self.drawn() < self.request.tokens || self.end(End::Length)
    }

    /// Tells so many of the bytes that are held.
    fn tell(&mut self, bytes: usize) -> ControlFlow<()> {
        if bytes == 0 {
            return ControlFlow::Continue(());
        }
        let rest = self.held.split_off(bytes);
        let piece = std::mem::replace(&mut self.held, rest);
        (self.listener)(Heard::Piece(&String::from_utf8_lossy(&piece)))
    }

    fn end(&mut self, at: End) -> bool {
        let ended = Ended { at, tokens: self.drawn() };
        // It is over, whatever the listener says.
        let _over = (self.tell(self.held.len()), (self.listener)(Heard::End(ended)));
        false
    }
}

/// The bytes that a token adds to a text.
pub(crate) fn spelled(tokenizer: &Tokenizer, text: &[u32], token: u32) -> Vec<u8> {
    let mut tokens = text[text.len().saturating_sub(SPELLED_WITH)..].to_vec();
    let before = tokenizer.decode_bytes(&tokens).len();
    tokens.push(token);
    let bytes = tokenizer.decode_bytes(&tokens);
    bytes.get(before..).unwrap_or_default().to_vec()
}

/// Where the first of these strings begins.
fn first_of(stop: &[String], text: &[u8]) -> Option<usize> {
    let find = |stop: &String| text.windows(stop.len()).position(|at| at == stop.as_bytes());
    stop.iter().filter_map(find).min()
}

/// Length of the longest end of the text with which one of these strings begins.
fn begun(stop: &[String], text: &[u8]) -> usize {
    let begins = |stop: &String| {
        let most = text.len().min(stop.len() - 1);
        (1..=most).rev().find(|&n| text.ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
    };
    stop.iter().map(begins).max().unwrap_or(0)
}

/// Length of a character at the end that more bytes may complete.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(last) {
        Err(error) if error.error_len().is_none() => last.len(),
        _ => 0,
    }
}
