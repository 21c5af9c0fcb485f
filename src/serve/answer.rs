//! Answers: what was heard of the texts of a request, in the form that clients read.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::data::Tokenizer;
use crate::sampling::{End, Ended, Request, Scored, spelled};
use crate::serve::api::{Form, Job};
use crate::serve::desk::Event;

/// Lowest logarithm of a probability that is told: JSON knows no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// All texts of one request, as far as they are heard.
pub(super) struct Answer {
    form: Form,
    id: String,
    created: u64,
    model: String,
    /// Texts of each prompt.
    each: usize,
    scored: bool,
    texts: Vec<Text>,
}

struct Text {
    request: Request,
    /// What scores are told of, behind what they are not told of.
    tokens: Vec<u32>,
    /// Characters of the tokens with scores.
    characters: usize,
    /// Characters that were heard as text.
    told: usize,
    /// What is not handed out yet: text, and scores with the place of their token in the text.
    piece: String,
    scores: Vec<(Scored, usize)>,
    ended: Option<Ended>,
}

impl Text {
    fn new(request: &Request, echo: bool) -> Self {
        let (prompt, request) = (&request.prompt, request.clone());
        let piece = if echo { request.tokenizer.decode(prompt) } else { String::new() };
        let tokens = if echo { Vec::new() } else { prompt.clone() };
        let (told, scores) = (piece.chars().count(), Vec::new());
        Self { request, tokens, characters: 0, told, piece, scores, ended: None }
    }

    /// Scores of tokens whose text was handed out, or is now.
    fn take_scores(&mut self) -> Vec<(Scored, usize)> {
        let all = self.ended.is_some_and(|ended| ended.at != End::Stop);
        let ready = self.scores.iter().take_while(|(_, at)| all || *at < self.told).count();
        self.scores.drain(..ready).collect()
    }
}

impl Answer {
    pub(super) fn new(job: &Job, id: String, created: u64, model: String) -> Self {
        let texts = job.requests.iter().map(|request| Text::new(request, job.echo)).collect();
        let Job { form, each, scored, .. } = *job;
        Self { form, id, created, model, each, scored, texts }
    }

    /// Takes what was heard of a text; an error is one sentence.
    pub(super) fn hear(&mut self, number: usize, event: Event) -> Result<(), String> {
        let Some(text) = self.texts.get_mut(number) else { return Ok(()) };
        match event {
            Event::Token(scored) => {
                let bytes = spelled(&text.request.tokenizer, &text.tokens, scored.token);
                text.tokens.push(scored.token);
                text.scores.push((scored, text.characters));
                // A character counts where it begins.
                text.characters += bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
            }
            Event::Piece(piece) => {
                text.told += piece.chars().count();
                text.piece.push_str(&piece);
            }
            Event::Diverged => return Err("the model gives no finite logit".to_owned()),
            Event::End(ended) => text.ended = Some(ended),
        }
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.texts.iter().all(|text| text.ended.is_some_and(|ended| ended.at != End::GivenUp))
    }

    /// All of it.
    pub(super) fn whole(&mut self) -> Value {
        let choices = (0..self.texts.len()).map(|number| self.choice(number, "message")).collect();
        let kind = match self.form {
            Form::Completion => "text_completion",
            Form::Chat => "chat.completion",
        };
        let mut whole = self.frame(kind, choices);
        whole["usage"] = self.usage();
        whole
    }

    /// What is new of one text, if anything is.
    pub(super) fn piece(&mut self, number: usize) -> Option<Value> {
        let text = self.texts.get(number)?;
        if text.piece.is_empty() && text.ended.is_none() {
            return None;
        }
        let choices = vec![self.choice(number, "delta")];
        Some(self.frame(self.piece_kind(), choices))
    }

    /// The counts of tokens as a piece of its own.
    pub(super) fn counts(&self) -> Value {
        let mut frame = self.frame(self.piece_kind(), Vec::new());
        frame["usage"] = self.usage();
        frame
    }

    fn piece_kind(&self) -> &'static str {
        match self.form {
            Form::Completion => "text_completion",
            Form::Chat => "chat.completion.chunk",
        }
    }

    fn frame(&self, kind: &str, choices: Vec<Value>) -> Value {
        let Self { id, created, model, .. } = self;
        json!({ "id": id, "object": kind, "created": created, "model": model, "choices": choices })
    }

    fn choice(&mut self, number: usize, chat_key: &str) -> Value {
        let (form, scored) = (self.form, self.scored);
        let text = &mut self.texts[number];
        let (scores, piece) = (text.take_scores(), std::mem::take(&mut text.piece));
        let first = text.tokens.len() - scores.len() - text.scores.len();
        let spelled = |at: usize, token: u32| {
            spelling(&text.request.tokenizer, &text.tokens[..first + at], token)
        };
        let logprobs = match (scored, form) {
            (false, _) => Value::Null,
            (true, Form::Completion) => completion_scores(&spelled, &scores),
            (true, Form::Chat) => chat_scores(&spelled, &scores),
        };
        let reason = text.ended.and_then(|ended| match ended.at {
            End::Length => Some("length"),
            End::Document | End::Stop => Some("stop"),
            End::GivenUp => None,
        });
        let mut choice = json!({ "index": number, "logprobs": logprobs, "finish_reason": reason });
        match form {
            Form::Completion => choice["text"] = piece.into(),
            Form::Chat => choice[chat_key] = json!({ "role": "assistant", "content": piece }),
        }
        choice
    }

    fn usage(&self) -> Value {
        let prompts = self.texts.iter().step_by(self.each.max(1));
        let prompt: usize = prompts.map(|text| text.request.prompt.len()).sum();
        let ended = self.texts.iter().filter_map(|text| text.ended);
        let written: usize = ended.map(|ended| ended.tokens).sum();
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        })
    }
}

fn logprob(value: f32) -> Value {
    f64::from(value.max(LOGPROB_MIN)).into()
}

fn completion_scores(spelled: &dyn Fn(usize, u32) -> String, scores: &[(Scored, usize)]) -> Value {
    let (mut tokens, mut own, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for (at, (scored, offset)) in scores.iter().enumerate() {
        let token = spelled(at, scored.token);
        offsets.push(*offset);
        own.push(scored.logprob.map_or(Value::Null, logprob));
        tops.push(scored.logprob.map_or(Value::Null, |own| {
            let mut top = Map::new();
            for &(other, value) in &scored.top {
                // Tokens that are spelled alike: the likeliest stays.
                top.entry(spelled(at, other)).or_insert_with(|| logprob(value));
            }
            top.entry(token.clone()).or_insert_with(|| logprob(own));
            top.into()
        }));
        tokens.push(token);
    }
    json!({
        "tokens": tokens,
        "token_logprobs": own,
        "top_logprobs": tops,
        "text_offset": offsets,
    })
}

fn chat_scores(spelled: &dyn Fn(usize, u32) -> String, scores: &[(Scored, usize)]) -> Value {
    let one = |at: usize, token: u32, value: f32| {
        let text = spelled(at, token);
        let bytes = text.as_bytes().to_vec();
        json!({ "token": text, "logprob": logprob(value), "bytes": bytes })
    };
    let content = scores.iter().enumerate().map(|(at, (scored, _))| {
        let mut own = one(at, scored.token, scored.logprob.unwrap_or(LOGPROB_MIN));
        let top = scored.top.iter().map(|&(token, value)| one(at, token, value));
        own["top_logprobs"] = top.collect::<Vec<_>>().into();
        own
    });
    json!({ "content": content.collect::<Vec<_>>() })
}

/// What a token adds to a text; bytes that are no characters as `bytes:\x..`.
fn spelling(tokenizer: &Tokenizer, text: &[u32], token: u32) -> String {
    match String::from_utf8(spelled(tokenizer, text, token)) {
        Ok(text) => text,
        Err(error) => error.as_bytes().iter().fold("bytes:".to_owned(), |mut text, byte| {
            // Writing to a string never fails.
            let _written = write!(text, "\\x{byte:02x}");
            text
        }),
    }
}
