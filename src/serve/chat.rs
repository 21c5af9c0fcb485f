//! The chat template of a model: a Jinja text that makes one prompt of messages.
//!
//! Rendered as `transformers` does it: blocks lose their line ends, loops have `break` and
//! `continue`, strings the methods that Python's have.

use std::path::Path;

use minijinja::{Environment, Error, ErrorKind, Value, context};

use crate::data::Tokenizer;
use crate::failure::Failure;
use crate::hub;

/// The name of the only template of an environment.
const NAME: &str = "chat_template";

/// A template, and the tokens that it names.
pub(super) struct Template {
    environment: Environment<'static>,
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
        let end = tokenizer.end_of_document().map(|id| tokenizer.decode(&[id]));
        let end = found.end.or(end).unwrap_or_default();
        let begin = found.begin.unwrap_or_default();
        let template = Self::new(found.template, begin, end);
        template.map(Some).map_err(|why| Failure::user(format!("{}: {why}", found.path.display())))
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
        Ok(Self { environment, begin, end })
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

/// Instructions of a template, at most.
const FUEL: u64 = 10_000_000;
