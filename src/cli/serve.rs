//! `octet serve`: a run or a stored model answers over HTTP.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use octet::failure::Failure;
use octet::hub::Opened;
use octet::serve::{Serving, serve};

use crate::cli::numbers::at_least_1;
use crate::cli::{output, signals};

/// What to serve, and to whom.
#[derive(Debug, Args)]
#[command(after_help = "Answers what clients of OpenAI's API ask: /v1/models, /v1/completions \
(prompts as text or tokens, n, stop, echo, logprobs, stream, seed) and, for models with a chat \
template, /v1/chat/completions. GET /healthz says whether it is ready. SIGTERM ends it when what \
was accepted is answered.

Examples:
  octet serve runs/quickstart
  octet serve qwen2-0.5b --address 0.0.0.0:8000 --token-file token.txt")]
pub(crate) struct Arguments {
    /// A run folder, or a folder of Hugging Face's.
    model: PathBuf,
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000")]
    address: String,
    /// A file with the token that clients must show; needed where others than this machine can
    /// reach the address.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What clients call the model; by default its folder's name.
    #[arg(long)]
    name: Option<String>,
    /// Texts that are written at once; each has caches of its own.
    #[arg(long, default_value_t = 8, value_parser = at_least_1, allow_negative_numbers = true)]
    sequences: usize,
    /// Texts that are written or wait, at most; more are refused with status 429.
    #[arg(long, default_value_t = 256, value_parser = at_least_1, allow_negative_numbers = true)]
    texts: usize,
}

/// Serves until a signal asks to end.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let stop = signals::flag()?;
    let token = arguments.token_file.as_ref().map(read_token).transpose()?;
    let opened = Opened::at(&arguments.model, &|| signals::is_told())?;
    let own = arguments.model.canonicalize().map_err(Failure::world)?;
    let folder = own.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = arguments.name.clone().or(folder).unwrap_or_else(|| "octet".to_owned());
    let serving = Serving {
        address: arguments.address.clone(),
        token,
        name: name.clone(),
        sequences: arguments.sequences,
        texts: arguments.texts,
    };
    let ready = Box::new(move |address| {
        output::say(format_args!("{name} answers at http://{address}/v1"));
    });
    let tell = |notes: &[String]| {
        notes.iter().for_each(|note| output::complain(format_args!("octet: {note}")));
    };
    tell(&opened.notes);
    tell(&serve(&opened.run, serving, stop, ready)?);
    Ok(ExitCode::SUCCESS)
}

fn read_token(path: &PathBuf) -> Result<String, Failure> {
    let refused = |what: &dyn std::fmt::Display| {
        Failure::user(format!("--token-file: {}: {what}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
    match text.trim() {
        "" => Err(refused(&"expected a token, got nothing")),
        token if token.chars().all(|c| c.is_ascii_graphic()) => Ok(token.to_owned()),
        _ => Err(refused(&"expected one word of ASCII letters, digits and signs")),
    }
}
