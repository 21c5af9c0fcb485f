//! What clients may ask: bodies of requests, checked, as texts to write.

use octet_actors::outside::{Clock, SystemClock};
use serde::Deserialize;
use serde_json::Value;

use crate::sampling::{Request, Sampler, Scores, read_prompt};
use crate::serve::desk::Desk;

/// Strings that end a text, at most.
const STOPS_MAX: usize = 16;
/// Tokens that are scored beside each, at most.
const TOP_MAX: usize = 100;
/// Bytes of a token, at most, as far as a prompt's length is judged before it is read.
const TOKEN_BYTES: usize = 256;
/// Tokens of a completion where nothing is said, as OpenAI has it.
const COMPLETION_TOKENS: usize = 16;

/// What is wrong with a request: the parameter, if it is one, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) parameter: Option<&'static str>,
    pub(super) what: String,
}

fn refuse<T>(parameter: &'static str, what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { parameter: Some(parameter), what: format!("{parameter}: {}", what.into()) })
}

/// What is to be answered, and how.
pub(super) struct Job {
    /// So many of each prompt, one after the other.
    pub(super) requests: Vec<Request>,
    pub(super) each: usize,
    pub(super) form: Form,
    /// Piece by piece.
    pub(super) stream: bool,
    /// The counts of tokens come as the last piece.
    pub(super) counts_last: bool,
    /// Answers begin with their prompts.
    pub(super) echo: bool,
    pub(super) scored: bool,
}

/// Which of the two kinds of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Completion,
    Chat,
}

/// Keys of both kinds.
#[derive(Debug, Default, Deserialize)]
struct Common {
    model: Option<String>,
    max_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    n: Option<usize>,
    seed: Option<i64>,
    stop: Option<Stop>,
    #[serde(default)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    logit_bias: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Completion {
    prompt: Option<Prompt>,
    logprobs: Option<usize>,
    echo: Option<bool>,
    best_of: Option<usize>,
    suffix: Option<String>,
    #[serde(flatten)]
    common: Common,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

#[derive(Debug, Deserialize)]
struct Chat {
    messages: Option<Value>,
    max_completion_tokens: Option<usize>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    tools: Option<Value>,
    #[serde(flatten)]
    common: Common,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal { parameter: None, what: format!("the body: {error}") })
}

/// The texts of `/v1/completions`.
pub(super) fn completion(desk: &Desk, body: &[u8]) -> Result<Job, Refusal> {
    let asked: Completion = parse(body)?;
    if asked.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return refuse("suffix", "this model writes from left to right only");
    }
    let n = asked.common.n.unwrap_or(1);
    if asked.best_of.is_some_and(|best| best != n) {
        return refuse("best_of", "expected as many as n");
    }
    let echo = asked.echo.unwrap_or(false);
    let scores = scores("logprobs", asked.logprobs, echo)?;
    let texts = match &asked.prompt {
        Some(Prompt::Texts(texts)) => texts.len(),
        Some(Prompt::ManyTokens(prompts)) => prompts.len(),
        _ => 1,
    };
    // Before any of them is read.
    count(desk, texts, n)?;
    let prompts = match asked.prompt {
        None => return refuse("prompt", "expected a text"),
        Some(Prompt::Text(text)) => vec![read(desk, &text)?],
        Some(Prompt::Texts(texts)) => {
            texts.iter().map(|text| read(desk, text)).collect::<Result<_, _>>()?
        }
        Some(Prompt::Tokens(tokens)) => vec![known(desk, tokens)?],
        Some(Prompt::ManyTokens(prompts)) => {
            prompts.into_iter().map(|tokens| known(desk, tokens)).collect::<Result<_, _>>()?
        }
    };
    let tokens = |_room| asked.common.max_tokens.unwrap_or(COMPLETION_TOKENS);
    let requests = requests(desk, &asked.common, prompts, &tokens, scores)?;
    job(asked.common, requests, Form::Completion, (echo, scores))
}

/// The texts of `/v1/chat/completions`.
pub(super) fn chat(desk: &Desk, body: &[u8]) -> Result<Job, Refusal> {
    let asked: Chat = parse(body)?;
    if asked.tools.is_some_and(|tools| tools.as_array().is_none_or(|tools| !tools.is_empty())) {
        return refuse("tools", "this server calls none");
    }
    let Some(template) = &desk.template else {
        let what = "this model has no chat template; /v1/completions goes on with a text";
        return Err(Refusal { parameter: None, what: what.to_owned() });
    };
    let messages =
        asked.messages.filter(|messages| messages.as_array().is_some_and(|m| !m.is_empty()));
    let Some(messages) = messages else { return refuse("messages", "expected a list of them") };
    let prompt = match template.render(&messages) {
        Ok(prompt) => prompt,
        Err(error) => return refuse("messages", format!("the chat template: {error}")),
    };
    let top = asked.logprobs.unwrap_or(false).then(|| asked.top_logprobs.unwrap_or(0));
    let scores = scores("top_logprobs", top, false)?;
    let wanted = asked.max_completion_tokens.or(asked.common.max_tokens);
    let tokens = |room: usize| wanted.unwrap_or(room);
    short(desk, &prompt)?;
    let prompt = match template.read(&desk.tokenizer, &prompt) {
        Ok(tokens) => known(desk, tokens)?,
        Err(what) => return refuse("messages", what),
    };
    let mut requests = requests(desk, &asked.common, vec![prompt], &tokens, scores)?;
    for request in &mut requests {
        request.ends.extend(template.ends());
    }
    job(asked.common, requests, Form::Chat, (false, scores))
}

fn job(
    common: Common,
    requests: Vec<Request>,
    form: Form,
    (echo, scores): (bool, Option<Scores>),
) -> Result<Job, Refusal> {
    let stream = common.stream.unwrap_or(false);
    let counts_last = stream && common.stream_options.is_some_and(|options| options.include_usage);
    let (scored, each) = (scores.is_some(), common.n.unwrap_or(1));
    Ok(Job { requests, each, form, stream, counts_last, echo, scored })
}

fn scores(
    parameter: &'static str,
    top: Option<usize>,
    prompt: bool,
) -> Result<Option<Scores>, Refusal> {
    match top {
        Some(top) if top > TOP_MAX => {
            refuse(parameter, format!("expected at most {TOP_MAX}, got {top}"))
        }
        Some(top) => Ok(Some(Scores { top, prompt })),
        None => Ok(None),
    }
}

fn read(desk: &Desk, text: &str) -> Result<Vec<u32>, Refusal> {
    short(desk, text)?;
    read_prompt(&desk.tokenizer, text, desk.positions).or_else(|what| refuse("prompt", what))
}

/// Refuses a text that cannot be short enough, before time is spent on it.
fn short(desk: &Desk, text: &str) -> Result<(), Refusal> {
    let most = desk.positions.saturating_mul(TOKEN_BYTES);
    match text.len() <= most {
        true => Ok(()),
        false => refuse("prompt", format!("expected at most {most} bytes, got {}", text.len())),
    }
}

fn known(desk: &Desk, tokens: Vec<u32>) -> Result<Vec<u32>, Refusal> {
    let (vocabulary, positions) = (desk.tokenizer.vocabulary(), desk.positions);
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
        return refuse("prompt", format!("token {token}, and the tokenizer has {vocabulary}"));
    }
    match tokens.len() {
        0 => refuse("prompt", "expected at least one token"),
        n if n > positions => {
            refuse("prompt", format!("{n} tokens, and the model reads at most {positions}"))
        }
        _ => Ok(tokens),
    }
}

/// `n` texts of each prompt, in the order of their numbers. `tokens` says how many to write where
/// there is room for so many.
fn requests(
    desk: &Desk,
    common: &Common,
    prompts: Vec<Vec<u32>>,
    tokens: &dyn Fn(usize) -> usize,
    scores: Option<Scores>,
) -> Result<Vec<Request>, Refusal> {
    let model = common.model.as_ref();
    if let Some(model) = model.filter(|&model| *model != desk.serving.name) {
        return refuse("model", format!("\"{model}\", and this is \"{}\"", desk.serving.name));
    }
    if common.logit_bias.as_ref().and_then(Value::as_object).is_some_and(|bias| !bias.is_empty()) {
        return refuse("logit_bias", "it is not supported");
    }
    let n = common.n.unwrap_or(1);
    count(desk, prompts.len(), n)?;
    let stop = stops(common)?;
    let sampler = sampler(common, desk.number())?;
    let mut requests = Vec::with_capacity(prompts.len() * n);
    for prompt in prompts {
        let room = desk.positions - prompt.len();
        let tokens = tokens(room);
        if tokens > room {
            let (positions, read) = (desk.positions, prompt.len());
            return refuse(
                "max_tokens",
                format!(
                    "{tokens} behind a prompt of {read} tokens, and the model reads {positions}"
                ),
            );
        }
        for _ in 0..n {
            let (prompt, sampler) = (prompt.clone(), sampler.clone());
            let request = Request::new(desk.tokenizer.clone(), prompt, tokens, sampler);
            let number = requests.len() as u64;
            requests.push(Request { number, stop: stop.clone(), scores, ..request });
        }
    }
    Ok(requests)
}

/// Refuses more texts than are ever accepted.
fn count(desk: &Desk, prompts: usize, each: usize) -> Result<(), Refusal> {
    let (texts, most) = (prompts.saturating_mul(each), desk.serving.texts);
    match (1..=most).contains(&texts) {
        true => Ok(()),
        false => refuse("n", format!("expected from 1 to {most} texts in a request, got {texts}")),
    }
}

fn stops(common: &Common) -> Result<Vec<String>, Refusal> {
    let stop = match &common.stop {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text.clone()],
        Some(Stop::Several(texts)) => texts.clone(),
    };
    if stop.len() > STOPS_MAX || stop.iter().any(String::is_empty) {
        return refuse("stop", format!("expected at most {STOPS_MAX} strings, none of them empty"));
    }
    Ok(stop)
}

fn sampler(common: &Common, number: u64) -> Result<Sampler, Refusal> {
    let Common { temperature, top_p, top_k, min_p, .. } = *common;
    let neutral = Sampler::default();
    let sampler = Sampler {
        temperature: temperature.unwrap_or(neutral.temperature),
        // Clients say -1 for all.
        top_k: usize::try_from(top_k.unwrap_or(0)).unwrap_or(0),
        top_p: top_p.unwrap_or(neutral.top_p),
        min_p: min_p.unwrap_or(neutral.min_p),
        repetition_penalty: common.repetition_penalty.unwrap_or(neutral.repetition_penalty),
        presence_penalty: common.presence_penalty.unwrap_or(neutral.presence_penalty),
        frequency_penalty: common.frequency_penalty.unwrap_or(neutral.frequency_penalty),
        seed: common.seed.map_or_else(|| chance(number), i64::cast_unsigned),
    };
    match sampler.check() {
        Ok(()) => Ok(sampler),
        Err((parameter, what)) => refuse(parameter, what),
    }
}

/// A seed of no meaning: another one for every request, which has a number of its own.
fn chance(number: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&SystemClock::new().unix_ms().to_le_bytes());
    hasher.update(&number.to_le_bytes());
    let bytes = hasher.finalize();
    u64::from_le_bytes(bytes.as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
}
