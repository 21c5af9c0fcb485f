//! How many rows a model's embedding will have, before any data are prepared.

use std::collections::BTreeSet;
use std::path::Path;

use crate::config::Config;
use crate::data::{Tokenizer, TokenizerOptions, TokenizerSpec};
use crate::failure::Failure;

/// Distinct characters to plan with when the text is not there.
const CHARACTERS_ASSUMED: usize = 256;

/// Rows of the embedding, without preparing data, and what was assumed.
///
/// # Errors
/// [`Failure`] for a tokenizer or a text that cannot be read.
pub fn vocabulary(config: &Config) -> Result<(usize, Option<String>), Failure> {
    if let Some(given) = config.model.vocabulary {
        return Ok((given, None));
    }
    let (tokens, note) = match TokenizerSpec::parse(&config.data.tokenizer)? {
        TokenizerSpec::Bytes => (Tokenizer::bytes().vocabulary(), None),
        TokenizerSpec::Bpe(size) => (size, None),
        TokenizerSpec::File(path) => {
            let options = TokenizerOptions {
                split: config.data.split.as_deref(),
                end_of_document: config.data.end_of_document.as_deref(),
            };
            (Tokenizer::from_file(&path, options)?.vocabulary(), None)
        }
        TokenizerSpec::Characters => match config.data.text.0.as_slice() {
            [path] if Path::new(path).is_file() => {
                let text = std::fs::read_to_string(path).map_err(Failure::user)?;
                (text.chars().collect::<BTreeSet<_>>().len(), None)
            }
            _ => {
                let note = format!(
                    "the text is not there: planned for {CHARACTERS_ASSUMED} characters; \
                     set data.text or model.vocabulary"
                );
                (CHARACTERS_ASSUMED, Some(note))
            }
        },
    };
    Ok((config.padded_vocabulary(tokens), note))
}
