//! The chat template of a model: a Jinja text that makes one prompt of messages.
//!
//! Rendered as `transformers` does it: blocks lose their line ends, loops have `break` and
//! `continue`, strings the methods that Python's have.

use std::path::Path;

use aho_corasick::{AhoCorasick, MatchKind};
use minijinja::{Environment, Error, ErrorKind, Value, context};

use crate::data::Tokenizer;
use crate::failure::Failure;
use crate::hub;

/// The name of the only template of an environment.
const NAME: &str = "chat_template";

/// A template, and the tokens that it names.
pub(super) struct Template {
    environment: Environment<'static>,
    /// Tokens that stand in a prompt as they are spelled.
    special: Vec<(String, u32)>,
    begin: String,
    end: String,
}

impl Template {
    /// That of a run's import, if its model had one.
    ///
    /// # Errors
    /// Bad input: a template that is none.
    pub(super) fn of(run: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>, Failure> {
        let Some(found) = hub::chat(run)? else { return Ok(None) };
        let [begin, end] = [found.begin, found.end].map(Option::unwrap_or_default);
        let template = Self::new(found.template, begin, end)
            .map_err(|why| Failure::user(format!("{}: {why}", found.path.display())))?;
        Ok(Some(template.knowing(special(tokenizer))))
    }

    /// A template with what begins and ends a text.
    pub(super) fn new(text: String, begin: String, end: String) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let raise = |what: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, what))
        };
        environment.add_function("raise_exception", raise);
        // A prompt with many loops ends, whatever a template says.
        environment.set_fuel(Some(FUEL));
        environment.add_template_owned(NAME, text)?;
        Ok(Self { environment, special: Vec::new(), begin, end })
    }

    /// The same, where these tokens are spelled so.
    pub(super) fn knowing(self, special: Vec<(String, u32)>) -> Self {
        Self { special, ..self }
    }

    /// The same, able to call something.
    #[cfg(test)]
    pub(super) fn calling(
        mut self,
        name: &'static str,
        called: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        self.environment.add_function(name, called);
        self
    }

    /// Tokens that end an answer: what ends a text, and with it a turn.
    pub(super) fn ends(&self) -> impl Iterator<Item = u32> {
        let of = |(text, id): &(String, u32)| (*text == self.end).then_some(*id);
        self.special.iter().filter_map(of)
    }

    /// The tokens of a rendered prompt.
    ///
    /// # Errors
    /// What the tokenizer has against it, in one sentence.
    pub(super) fn read(&self, tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>, String> {
        let mut tokens = Vec::new();
        let plain = |text: &str, tokens: &mut Vec<u32>| {
            tokenizer.encode(text, tokens).map_err(|error| error.to_string())
        };
        let names = self.special.iter().map(|(text, _)| text);
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names);
        let (finder, mut at) = (finder.map_err(|error| error.to_string())?, 0);
        for found in finder.find_iter(prompt) {
            plain(&prompt[at..found.start()], &mut tokens)?;
            tokens.push(self.special[found.pattern().as_usize()].1);
            at = found.end();
        }
        plain(&prompt[at..], &mut tokens)?;
        Ok(tokens)
    }

    /// The prompt of these messages: what the model goes on with as the assistant's answer.
    ///
    /// # Errors
    /// What the template has against them.
    pub(super) fn render(&self, messages: &serde_json::Value) -> Result<String, Error> {
        let template = self.environment.get_template(NAME)?;
        template.render(context! {
            messages => Value::from_serialize(messages),
            add_generation_prompt => true,
            bos_token => self.begin,
            eos_token => self.end,
        })
    }
}

/// The tokens of a tokenizer that are no text, as they are spelled.
fn special(tokenizer: &Tokenizer) -> Vec<(String, u32)> {
    let json: serde_json::Value =
        serde_json::from_slice(&tokenizer.hugging_face_json()).unwrap_or_default();
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let special = added.filter(|token| token["special"] == true);
    let named = special.filter_map(|token| {
        let text = token["content"].as_str().filter(|text| !text.is_empty())?;
        Some((text.to_owned(), u32::try_from(token["id"].as_u64()?).ok()?))
    });
    named.collect()
}

/// Instructions of a template, at most.
const FUEL: u64 = 10_000_000;
