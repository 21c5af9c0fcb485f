//! How many rows a model's embedding will have, before any data are prepared.

use crate::config::Config;
use crate::data::{TokenizerSpec, tokenizer_ahead};
use crate::failure::Failure;
use crate::text::check_tokens;

/// Distinct characters to plan with when the text is not read.
const CHARACTERS_ASSUMED: usize = 256;

/// Rows of the embedding, without preparing data, and what was assumed: the tokenizer is loaded, or
/// made of the text, as the run will do it, unless that text is not there or large.
///
/// # Errors
/// [`Failure`] for a tokenizer or a text that a run would refuse.
pub fn vocabulary(config: &Config) -> Result<(usize, Option<String>), Failure> {
    let (data, given) = (&config.data, config.model.vocabulary);
    let spec = TokenizerSpec::parse(&data.tokenizer)?;
    if let (TokenizerSpec::File(path), Some(rows)) = (&spec, given)
        && !path.exists()
    {
        let path = path.display();
        let note = format!("{path} is not there: planned for model.vocabulary = {rows}");
        return Ok((rows, Some(note)));
    }
    if let Some(tokenizer) = tokenizer_ahead(data, given)? {
        check_tokens(config, &tokenizer)?;
        return Ok((config.padded_vocabulary(&tokenizer), None));
    }
    let (tokens, what) = match spec {
        TokenizerSpec::Bpe(size) => (size, "tokens, the most that it makes"),
        _ => (CHARACTERS_ASSUMED, "characters"),
    };
    let rows = config.model.padded_vocabulary(tokens + config.special_tokens().len());
    let note = given.is_none().then(|| {
        format!(
            "the text is not there, is cleaned first, or too large to be read for a plan: planned \
             for {tokens} {what}; set data.text or model.vocabulary"
        )
    });
    Ok((rows, note))
}
