//! The samples of a run: what they begin with, and where they go.
//!
//! Duty: each conversation is stored, then shown. Prohibition: draws no token.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use octet_actors::outside::LocalDisk;
use octet_actors::run_folder::replace;

use super::Sample;
use crate::config::Config;
use crate::data::Tokenizer;
use crate::experiment::Talk;
use crate::failure::Failure;
use crate::sampling::{Crowd, Decoder, Heard, Listener, Request, Sampler, read_prompt};

/// The file of the sample of a step.
pub(super) fn sample_file(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step-{step:08}.txt"))
}

/// What every sample of a run asks for.
pub(super) fn request(config: &Config, tokenizer: &Arc<Tokenizer>) -> Result<Request, Failure> {
    let prompt = read_prompt(tokenizer, &config.sample.prompt, config.batch.sequence_length)
        .map_err(|problem| Failure::user(format!("sample.prompt: {problem}")))?;
    let sampler = Sampler::new(&config.sample, config.run.seed);
    Ok(Request::new(tokenizer.clone(), prompt, config.sample.tokens, sampler))
}

/// The conversations of a run: each is stored, then shown.
pub(super) fn talk(
    (decoder, request): (Decoder, Request),
    folder: PathBuf,
    sampled: Arc<dyn Fn(&Sample) + Send + Sync>,
) -> Talk {
    Box::new(move |step| {
        let path = sample_file(&folder, step);
        let sampled = sampled.clone();
        let mut text = request.tokenizer.decode(&request.prompt);
        let mut diverged = false;
        let listener: Listener = Box::new(move |heard| {
            match heard {
                Heard::Token(_) => {}
                Heard::Piece(piece) => text.push_str(piece),
                Heard::Diverged => diverged = true,
                Heard::End(_) if diverged => {
                    let refused = Some("the model gives no finite logit".to_string());
                    sampled(&Sample { step, text: std::mem::take(&mut text), refused });
                }
                Heard::End(_) => {
                    let written = replace(&LocalDisk, &path, text.as_bytes());
                    let refused = written.err().map(|error| error.to_string());
                    sampled(&Sample { step, text: std::mem::take(&mut text), refused });
                }
            }
            ControlFlow::Continue(())
        });
        Some(Box::new(Crowd::of_one(decoder, step, request.clone(), listener)))
    })
}
